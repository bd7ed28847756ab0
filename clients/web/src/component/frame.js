/**
 * The elements of `<streamer-inbox>` that are always there.
 *
 * @module
 */

import { element, icon } from "./dom.js";

/** @import { Filter } from "../store.js" */

/**
 * What people do with them.
 *
 * @typedef {object} Actions
 * @property {() => void} toggle
 * @property {() => void} close
 * @property {() => void} markAll
 * @property {(filter: Filter) => void} filter
 * @property {() => void} more
 * @property {(event: KeyboardEvent) => void} press
 */

/** @param {Actions} actions */
export function frame(actions) {
  const slot = element("slot", { name: "bell" }, icon("bell"));
  const badge = element("span", { class: "badge", part: "badge", "aria-hidden": "true", hidden: true });
  const bell = element(
    "button",
    {
      class: "bell",
      part: "bell",
      type: "button",
      "aria-haspopup": "dialog",
      "aria-expanded": "false",
      "aria-controls": "panel",
      onclick: actions.toggle,
    },
    slot,
    badge,
  );

  const heading = element("h2", { id: "heading", part: "heading" });
  const markAll = element("button", {
    class: "tool all",
    part: "mark-all",
    type: "button",
    onclick: actions.markAll,
  });
  const closing = element(
    "button",
    { class: "tool", part: "close", type: "button", onclick: actions.close },
    icon("close"),
  );
  const all = element("button", {
    type: "button",
    part: "filter",
    onclick: () => actions.filter({}),
  });
  const unread = element("button", {
    type: "button",
    part: "filter",
    onclick: () => actions.filter({ unread: true }),
  });
  const filters = element("div", { class: "filters", part: "filters", role: "group" }, all, unread);
  const bar = element("div", { class: "bar", part: "status", role: "status" });
  const list = element("ul", { part: "list", role: "list", "aria-labelledby": "heading" });
  const empty = element("div", { class: "empty", part: "empty", hidden: true });
  const bones = element("div", { part: "loading", hidden: true });
  for (let i = 0; i < 5; i++) {
    bones.append(
      element("div", { class: "bone" }, element("i"), element("div", {}, element("i"), element("i"))),
    );
  }
  const moreButton = element("button", {
    part: "more",
    type: "button",
    onclick: actions.more,
  });
  const more = element("div", { class: "more", hidden: true }, moreButton);
  const scroll = element(
    "div",
    { class: "scroll", part: "scroll" },
    bones,
    list,
    empty,
    more,
  );
  const panel = element(
    "div",
    {
      class: "panel",
      id: "panel",
      part: "panel",
      role: "dialog",
      tabindex: "-1",
      popover: "manual",
      "aria-labelledby": "heading",
      onkeydown: actions.press,
    },
    element("div", { class: "head", part: "header" }, heading, markAll, closing),
    filters,
    bar,
    scroll,
  );
  const toasts = element("div", { class: "toasts", part: "toasts", popover: "manual" });
  // These exist before there is something to say, or screen readers miss the first one.
  const polite = element("div", { class: "hidden", role: "status", "aria-live": "polite" });
  const urgent = element("div", { class: "hidden", role: "alert", "aria-live": "assertive" });
  return {
    bell,
    badge,
    panel,
    heading,
    markAll,
    closing,
    filters,
    all,
    unread,
    bar,
    scroll,
    bones,
    list,
    empty,
    more,
    moreButton,
    toasts,
    polite,
    urgent,
  };
}
