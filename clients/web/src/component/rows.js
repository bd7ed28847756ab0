/**
 * What a notification looks like: in the list, and as a toast.
 *
 * @module
 */

import { element, icon, set } from "./dom.js";
import { safeLink } from "./links.js";
import { fullTime, relativeTime } from "./times.js";

/** @import { Notification } from "../types.js" */
/** @import { Texts } from "./texts.js" */

/**
 * What rows need of the element that they are in.
 *
 * @typedef {object} Context
 * @property {() => Texts} texts
 * @property {() => string | undefined} language
 * @property {() => number} now Unix time in milliseconds.
 * @property {(notification: Notification, event: Event) => void} select
 * @property {(notification: Notification) => void} toggle Marks as read or unread.
 * @property {(notification: Notification) => void} remove
 */

/**
 * Characters that write text backwards. They have no use in what people read, and make
 * `gnp.exe` look like `exe.png`.
 */
const OVERRIDES = /[\u202d\u202e]/g;

/** @param {Notification} it */
export function isUrgent(it) {
  return it.priority === "high" || it.priority === "emergency";
}

/**
 * A row of the list. It keeps its elements when its notification changes, so that focus
 * and a screen reader's place stay where they are.
 */
export class Row {
  /** @type {Notification} */ notification;
  #context;
  #dot = element("span", { class: "mark", part: "unread-mark" });
  #state = element("span", { class: "hidden" });
  #time;
  #toggle;
  #remove;

  /**
   * @param {Notification} notification
   * @param {Context} context
   */
  constructor(notification, context) {
    this.notification = notification;
    this.#context = context;
    this.main = main(notification, context, () => this.notification);
    this.main.prepend(this.#state);
    this.#time = this.main.querySelector("time");
    this.#toggle = element("button", {
      class: "tool",
      part: "item-action",
      type: "button",
      onclick: () => context.toggle(this.notification),
    });
    this.#remove = element(
      "button",
      {
        class: "tool",
        part: "item-action",
        type: "button",
        onclick: () => context.remove(this.notification),
      },
      icon("trash"),
    );
    const actions = element("div", { class: "acts", part: "item-actions" });
    actions.append(this.#toggle, this.#remove);
    this.element = element("li", { class: "item" }, this.main, this.#dot, actions);
    this.update(notification);
  }

  /** @param {Notification} notification The same one, with or without its mark. */
  update(notification) {
    this.notification = notification;
    const texts = this.#context.texts();
    const isUnread = notification.read_at === undefined;
    this.element.className = isUnread ? "item fresh" : "item";
    set(this.element, "part", isUnread ? "item item-unread" : "item");
    this.#dot.hidden = !isUnread;
    this.#state.textContent = isUnread ? `${texts.isUnread}. ` : "";
    const name = nameOf(notification, texts);
    this.#toggle.replaceChildren(icon(isUnread ? "check" : "dot"));
    label(this.#toggle, isUnread ? texts.markRead : texts.markUnread, name);
    label(this.#remove, texts.remove, name);
    this.tick();
  }

  /** Say again how long ago it was. */
  tick() {
    if (this.#time) tell(this.#time, this.notification, this.#context);
  }
}

/**
 * @param {Notification} notification
 * @param {Context} context
 * @param {() => void} close
 */
export function toast(notification, context, close) {
  const urgent = isUrgent(notification);
  return element(
    "div",
    { class: urgent ? "toast urgent" : "toast", part: "toast" },
    main(notification, context, () => notification),
    element(
      "button",
      {
        class: "tool",
        part: "toast-dismiss",
        type: "button",
        "aria-label": context.texts().dismiss,
        onclick: close,
      },
      icon("close"),
    ),
  );
}

/**
 * @param {Notification} it
 * @param {Texts} texts
 */
export function nameOf(it, texts) {
  return readable(it.title || it.body || it.type) || texts.untitled;
}

/** @param {string | undefined} text */
function readable(text) {
  return text?.replace(OVERRIDES, "") ?? "";
}

/**
 * The part of a row that leads to what it is about: a link, or a button without one.
 *
 * @param {Notification} it
 * @param {Context} context
 * @param {() => Notification} current
 * @returns {HTMLElement}
 */
function main(it, context, current) {
  const texts = context.texts();
  const wide = it.topic !== undefined || it.everyone;
  const face = element("span", { class: "face", part: "item-icon" });
  if (isUrgent(it)) face.classList.add("urgent");
  else if (wide) face.classList.add("wide");
  face.append(icon(isUrgent(it) ? "alert" : wide ? "speaker" : "bell"));

  // Other people wrote these strings. Each is isolated, so that one in another direction,
  // or with control characters for it, does not reorder what stands beside it.
  const words = element("span", { class: "words" });
  words.append(
    element("bdi", { class: "name", part: "item-title", dir: "auto" }, nameOf(it, texts)),
  );
  if (it.title && it.body) {
    words.append(
      element("bdi", { class: "text", part: "item-body", dir: "auto" }, readable(it.body)),
    );
  }
  const time = element("time", { datetime: it.created_at });
  tell(time, it, context);
  const meta = element("span", { class: "meta", part: "item-meta" }, time);
  const everyone = it.everyone ? texts.everyone : undefined;
  const from = it.topic === undefined ? everyone : texts.topic(it.topic);
  if (from !== undefined) meta.append(element("span", { dir: "auto" }, from));
  words.append(meta);

  const onclick = (/** @type {Event} */ event) => context.select(current(), event);
  const link = safeLink(it.resource?.url, document.baseURI);
  if (!link) {
    return element(
      "button",
      { class: "main", part: "item-main", type: "button", onclick },
      face,
      words,
    );
  }
  const leaves = link.origin !== location.origin;
  return element(
    "a",
    {
      class: "main",
      part: "item-main",
      href: link.href,
      target: leaves ? "_blank" : null,
      rel: leaves ? "noopener noreferrer nofollow" : null,
      onclick,
    },
    face,
    words,
  );
}

/**
 * @param {HTMLTimeElement} time
 * @param {Notification} it
 * @param {Context} context
 */
function tell(time, it, context) {
  time.textContent = relativeTime(it.created_at, context.now(), context.language());
  time.title = fullTime(it.created_at, context.language());
}

/**
 * @param {HTMLElement} button
 * @param {string} action
 * @param {string} name
 */
function label(button, action, name) {
  set(button, "aria-label", `${action}: ${name}`);
  button.title = action;
}
