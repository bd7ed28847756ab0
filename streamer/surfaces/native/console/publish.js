/** Publish to players, a topic or everyone, with a preview and a dry run. */

import { api } from "./api.js";
import { acting, confirmed, field, fill, foreign, h, tell } from "./dom.js";
import { messageFields, messageOf, preview } from "./message.js";
import { counted, duration, number } from "./text.js";

/** Why the number of players is not known. */
const UNCOUNTED = {
  topic: "not counted: the store has the topics of each player, not the players of a topic",
  everyone: "not counted: the app has no quota of players",
};

export function publish() {
  const seen = h("div");
  const reached = h("div", { role: "status" });
  const dryRun = h("button", { type: "button", onclick: () => acting(dryRun, check) }, "Whom does it reach?");
  const sending = h("button.primary", { type: "submit" }, "Publish …");
  const choice = (value, label) =>
    h("label", {}, h("input", { type: "radio", name: "to", value, checked: value === "players" }), h("span", {}, label));
  const players = field("Players", h("textarea", { name: "players", rows: 2, spellcheck: "false" }), "One on each line");
  const topic = field("Topic", h("input", { name: "topic", spellcheck: "false" }));
  const form = h(
    "form.card.publish",
    {
      oninput: update,
      onsubmit(event) {
        event.preventDefault();
        void acting(sending, send);
      },
    },
    h("fieldset.choice", {}, h("legend", {}, "To"), choice("players", "Players"), choice("topic", "Topic"), choice("everyone", "Everyone")),
    players,
    topic,
    messageFields(),
    h(
      "div.two",
      {},
      field("Send at", h("input", { type: "datetime-local", name: "at" }), "Empty: now"),
      field("Spread over minutes", h("input", { type: "number", name: "spread", min: 0, max: 240, value: 0 }), "So that not all return at once"),
    ),
    h(
      "div.two",
      {},
      field("Expires after hours", h("input", { type: "number", name: "ttl", min: 0, max: 8760, value: 0 }), "0: with the retention"),
      field("Reason", h("input", { name: "reason", maxlength: 500 }), "For the audit log; required to one player"),
    ),
    h("div.buttons", {}, dryRun, sending),
    reached,
  );
  const element = h(
    "div.page",
    {},
    h("h1", {}, "Publish"),
    h("div.split", {}, form, h("aside.card", { "aria-label": "Preview" }, h("h2", {}, "Preview"), seen)),
  );

  function values() {
    const data = new FormData(form);
    const kind = data.get("to");
    const names = data.get("players").split("\n").filter((it) => it.trim());
    const to = kind === "players" ? { players: names } : kind === "topic" ? { topic: data.get("topic") } : { everyone: true };
    const message = { to, ...messageOf(data) };
    const spread_s = Math.round(Number(data.get("spread")) * 60);
    if (spread_s) message.spread_s = spread_s;
    if (Number(data.get("ttl"))) message.ttl_s = Math.round(Number(data.get("ttl")) * 3600);
    if (data.get("at")) message.send_at = new Date(data.get("at")).toISOString();
    return { kind, message, reason: data.get("reason") };
  }

  function update() {
    const { kind, message } = values();
    players.hidden = kind !== "players";
    topic.hidden = kind !== "topic";
    fill(seen, preview(message));
    fill(reached);
  }

  async function check() {
    fill(reached, await audience(values()));
  }

  async function audience({ message }) {
    const found = await api.send("POST", "audience", { to: message.to, spread_s: message.spread_s ?? 0 });
    const silent = found.silent.length ? `, without ${counted(found.silent.length, "process", "processes")} that did not answer` : "";
    return h(
      "dl.receipt",
      {},
      h("dt", {}, "Players"),
      h("dd", {}, found.players === null ? UNCOUNTED[message.to.topic === undefined ? "everyone" : "topic"] : number(found.players)),
      h("dt", {}, "Streams open now"),
      h("dd", {}, found.online === null ? "not asked for so many players" : `${number(found.online)}${silent}`),
      h("dt", {}, "Takes"),
      h("dd", {}, found.spread_s ? `${duration(found.spread_s)}${found.per_s ? `, ${number(found.per_s)} players a second` : ""}` : "at once"),
    );
  }

  async function send() {
    const wanted = values();
    const { kind, message, reason } = wanted;
    const to =
      kind === "everyone" ? "everyone" : kind === "topic" ? ["the topic ", foreign(message.to.topic)] : counted(message.to.players.length, "player");
    const data = await confirmed(
      "Publish this?",
      [h("p", {}, "To ", to, message.send_at ? `, at ${new Date(message.send_at).toLocaleString("en")}` : "", "."), preview(message), await audience(wanted)],
      "Publish",
    );
    if (!data) return;
    const answer = await api.publish({ message, ...(reason ? { reason } : {}) });
    tell(answer.schedule ? "It is scheduled: see the page Schedules." : "It is stored and on its way.");
    form.reset();
    update();
  }

  update();
  return { element };
}
