/** The fields of a message, and how it looks to a player. */

import { field, foreign, h } from "./dom.js";

const PRIORITIES = ["low", "medium", "high", "emergency"];

/** The fields of a message, whose values `messageOf` reads. */
export function messageFields({ title = "", body = "", type = "" } = {}) {
  const priority = h("select", { name: "priority" }, PRIORITIES.map((it) => h("option", { selected: it === "medium" }, it)));
  return [
    field("Title", h("input", { name: "title", maxlength: 1000, required: true, value: title })),
    field("Body", h("textarea", { name: "body", maxlength: 4096, rows: 3 }, body)),
    h(
      "div.two",
      {},
      field("Type", h("input", { name: "type", maxlength: 64, value: type }), "By which players mute"),
      field("Priority", priority),
    ),
  ];
}

/** @param {FormData} data */
export function messageOf(data) {
  const message = { title: data.get("title"), priority: data.get("priority") };
  for (const name of ["body", "type"]) {
    if (data.get(name)) message[name] = data.get(name);
  }
  return message;
}

/** A notification as the inbox of a player shows it. */
export function preview({ title, body, type, priority }) {
  return h(
    "article.message",
    {},
    h("h3", {}, title ? foreign(title) : h("span.empty", {}, "no title")),
    body ? h("p", {}, foreign(body)) : null,
    h(
      "p.meta",
      {},
      type ? h("span.tag", {}, foreign(type)) : null,
      priority && priority !== "medium" ? h(`span.tag.${priority === "low" ? "low" : "urgent"}`, {}, priority) : null,
    ),
  );
}
