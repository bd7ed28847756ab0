/** Elements from values. Texts become text nodes and nothing else: there is no markup. */

import { ago, parts, visible } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an element.
 *
 * @param {string} tag With classes: `p.note.bad`.
 * @param {Record<string, any>} [properties] `onclick` and such are listeners; others are
 *   attributes, of which `true` is an empty one and `false` none.
 * @param {...any} children Nodes, strings of the console's own, arrays, or nothing.
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return filled(document.createElement(name), classes, properties, children);
}

/** The same for SVG. */
export function s(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return filled(document.createElementNS(SVG, name), classes, properties, children);
}

function filled(element, classes, properties, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((it) => it !== null && it !== undefined && it !== false));
  return element;
}

/** A text that somebody else wrote: isolated, with its hidden characters visible. */
export function foreign(value, tag = "bdi") {
  const element = h(tag, { dir: "auto" });
  for (const { text, code } of parts(value)) {
    element.append(code ? h("span.hidden-char", { title: "hidden character" }, code) : text);
  }
  return element;
}

/** How long ago a time is; `tick` keeps it true. */
export const since = (time, now) => h("time", { datetime: time, title: time, "data-since": true }, ago(time, now));

/** Set the texts of all `since` within an element. */
export function tick(element, now) {
  for (const it of element.querySelectorAll("time[data-since]")) it.textContent = ago(it.dateTime, now);
}

/** Whether somebody is selecting a text within an element, to copy it. */
export function isSelecting(element) {
  const selection = getSelection();
  return !!selection && !selection.isCollapsed && element.contains(selection.anchorNode);
}

/**
 * Replace what is within an element, and keep the focus: on what has the same key, or
 * on the element itself if nothing has it any more.
 */
export function redraw(element, draw) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  draw();
  if (focused && !focused.isConnected) focus(element, focused.dataset.key);
}

function focus(element, key) {
  const same = [...element.querySelectorAll("[data-key]")].find((it) => key && it.dataset.key === key);
  const target = same ?? element;
  if (!same) target.tabIndex = -1;
  target.focus({ preventScroll: true });
}

/** Replace the content of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((it) => it !== null && it !== undefined && it !== false));
}

/** A labelled field: `field("Title", input)`. */
export function field(label, control, hint) {
  return h("label.field", {}, h("span", {}, label), control, hint && h("small", {}, hint));
}

const isNothing = (cell) => cell === null || cell === undefined || cell === false || cell === "";

/** A text of somebody else in a table: its first lines, all of it on hovering. */
export const clipped = (value) => h("div.clip", { title: visible(value) }, foreign(value));

/** A table whose first row is `heads`; on narrow screens its rows are cards. */
export function table(caption, heads, rows, empty) {
  if (!rows.length) return h("p.empty", {}, empty);
  return h(
    "div.scroll",
    {},
    h(
      "table",
      {},
      h("caption.away", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((it) => h("th", { scope: "col" }, it)))),
      h(
        "tbody",
        {},
        rows.map((cells) =>
          // One element in each: on narrow screens a cell is a grid of its label and that.
          h("tr", {}, cells.map((cell, i) => h("td", { "data-label": heads[i] }, isNothing(cell) ? "" : h("div", {}, cell)))),
        ),
      ),
    ),
  );
}

/** Show something until it is closed. */
export const shown = (title, content) => confirmed(title, content, "Close", { dangerous: false, cancel: false });

/**
 * Ask before something that cannot be undone. Resolves with the form's data, or `null`.
 *
 * @param {string} title
 * @param {any} content
 * @param {string} verb What the button says.
 */
export function confirmed(title, content, verb, { dangerous = true, cancel = true } = {}) {
  return new Promise((resolve) => {
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      content,
      h(
        "div.buttons",
        {},
        cancel && h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h(dangerous ? "button.danger" : "button.primary", { type: "submit" }, verb),
      ),
    );
    let data = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      data = new FormData(form);
      dialog.close();
    });
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    const opener = document.activeElement;
    dialog.addEventListener("close", () => {
      dialog.remove();
      // The element that opened the dialog may have been rendered again since.
      if (opener instanceof HTMLElement && !opener.isConnected) focus(document.getElementById("content"), opener.dataset.key);
      resolve(data);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const status = () => document.getElementById("status");

/** Tell what has happened, also to who cannot see it. */
export function tell(text, kind = "good") {
  const line = h(`p.${kind}`, {}, visible(text));
  status().append(line);
  setTimeout(() => line.remove(), kind === "bad" ? 12_000 : 5_000);
}

/** Run what a button does; tell if it fails. Only once at a time. */
export async function acting(button, action) {
  if (button.disabled) return;
  const hadFocus = document.activeElement === button;
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    tell(error.message, "bad");
  } finally {
    button.disabled = false;
    // A disabled button loses focus, and a button that was rendered again never had it.
    if (hadFocus && document.activeElement === document.body) {
      if (button.isConnected) button.focus();
      else focus(document.getElementById("content"), button.dataset.key);
    }
  }
}
