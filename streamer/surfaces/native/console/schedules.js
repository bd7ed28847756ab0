/** Schedules with their progress, and campaigns. */

import { api } from "./api.js";
import { acting, clipped, confirmed, field, fill, foreign, h, table, tell } from "./dom.js";
import { preview } from "./message.js";
import { ago, counted, duration, number } from "./text.js";

const REFRESH_MS = 5_000;

export function schedules({ may }) {
  const due = h("section.card", { "aria-label": "Pending schedules" });
  const list = h("section.card", { "aria-label": "All schedules" });
  const campaigns = h("section.card", { "aria-label": "Campaigns" });
  const failure = h("p.failure", { role: "alert", hidden: true });
  let stopped = false;
  let timer;
  let after = [];
  let before = "";

  const act = (label, action, kind = "") => {
    const button = h(kind ? `button.${kind}` : "button", { type: "button", onclick: () => acting(button, action) }, label);
    return button;
  };

  async function refresh() {
    clearTimeout(timer);
    try {
      const [next, page, found] = await Promise.all([
        api.get("due"),
        api.get("schedules", { limit: 20, after: after.at(-1) }),
        api.get("campaigns"),
      ]);
      if (stopped) return;
      failure.hidden = true;
      const state = JSON.stringify([next, page, found], (_, it) => (typeof it === "bigint" ? `${it}` : it));
      if (state !== before) show(next.schedules, page, found.campaigns);
      before = state;
    } catch (error) {
      failure.textContent = `This is not current: ${error.message}`;
      failure.hidden = false;
    }
    if (!stopped) timer = setTimeout(refresh, REFRESH_MS);
  }

  function show(next, page, found) {
    const now = Date.now();
    const time = (it) =>
      h("time", { datetime: it.send_at, title: it.send_at }, ago(it.send_at, now), it.spread_s ? ` over ${duration(it.spread_s)}` : "");
    const title = (it) => clipped(it.notification.title ?? it.notification.type ?? "");
    fill(
      due,
      h("h2", {}, "Sending, paused and due next"),
      table(
        "Sending, paused and due next",
        ["Due", "To", "Title", "Progress", "Action"],
        next.map((it) => [
          time(it),
          recipients(it),
          title(it),
          progress(it),
          may("operator") && actions(it),
        ]),
        "Nothing is pending. Publish with a time or a spread to make a schedule.",
      ),
    );
    fill(
      list,
      h("h2", {}, "All, oldest first"),
      table(
        "All schedules",
        ["Due", "To", "Title", "State"],
        page.schedules.map((it) => [time(it), recipients(it), title(it), progress(it)]),
        "No schedules.",
      ),
      h(
        "div.buttons",
        {},
        after.length > 0 && act("Back", () => turn(after.slice(0, -1))),
        page.next && act("Next", () => turn([...after, page.next])),
      ),
    );
    fill(
      campaigns,
      h("h2", {}, "Campaigns"),
      table(
        "Campaigns",
        ["Campaign", "Name", "Numbers"],
        found.map((it) => [foreign(it.id), foreign(it.name), numbers(it)]),
        "No campaigns.",
      ),
    );
  }

  function actions(it) {
    const begun = it.state === "sending" || it.delivered > 0;
    return h(
      "div.buttons",
      {},
      it.state === "paused" ? act("Resume", () => resume(it)) : act("Pause", () => pause(it)),
      !begun && act("Move", () => move(it)),
      it.state !== "sending" && act("Cancel", () => cancel(it), "danger"),
    );
  }

  // Counting the cards of all campaigns would be a request for each, every time.
  function numbers(it) {
    const place = h("span");
    const button = act("Count", async () => {
      const { cards, notifications } = await api.get(`campaigns/${encodeURIComponent(it.id)}`);
      fill(place, `${counted(cards, "card")}, ${notifications.used} of ${notifications.limit} sends used`);
    });
    fill(place, button);
    return place;
  }

  async function turn(places) {
    after = places;
    await refresh();
  }

  // At once: the one who has seen a wrong text has no time for a question.
  async function pause(it) {
    await api.send("POST", `schedules/${encodeURIComponent(it.id)}/pause`);
    tell("Paused.");
    await refresh();
  }

  async function resume(it) {
    const due = new Date(it.send_at) <= Date.now();
    const what = due ? "Its time has passed, so it is sent at once." : `It is sent ${ago(it.send_at, Date.now())}.`;
    const data = await confirmed("Resume this schedule?", [preview(it.notification), h("p", {}, what)], "Resume", { dangerous: due });
    if (!data) return;
    await api.send("POST", `schedules/${encodeURIComponent(it.id)}/resume`);
    tell("Resumed.");
    await refresh();
  }

  async function cancel(it) {
    const what = it.delivered > 0 ? "Nobody else gets it, and it cannot be taken up again." : "It is not sent, and cannot be taken up again.";
    const data = await confirmed("Cancel this schedule?", [preview(it.notification), h("p", {}, what)], "Cancel the schedule");
    if (!data) return;
    await api.send("DELETE", `schedules/${encodeURIComponent(it.id)}`);
    tell("Cancelled.");
    await refresh();
  }

  async function move(it) {
    const at = h("input", { type: "datetime-local", name: "at", required: true });
    const data = await confirmed("Move this schedule", [preview(it.notification), field("Send at", at)], "Move", { dangerous: false });
    if (!data) return;
    await api.send("PATCH", `schedules/${encodeURIComponent(it.id)}`, { send_at: new Date(data.get("at")).toISOString() });
    tell("Moved.");
    await refresh();
  }

  void refresh();
  return {
    element: h("div.page", {}, h("h1", {}, "Schedules"), failure, due, list, campaigns),
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

function recipients(it) {
  if (it.campaign) return ["campaign ", foreign(it.campaign)];
  if (typeof it.to === "string") return foreign(it.to);
  if (it.to?.everyone) return "everyone";
  if (it.to?.topic) return ["topic ", foreign(it.to.topic)];
  return counted(it.total, "player");
}

function progress(it) {
  const text = it.late ? `${it.state}, late` : it.state;
  if (it.state !== "sending" && !(it.state === "paused" && it.delivered > 0)) return h(`span.state.${it.state}`, {}, text);
  return [
    h("progress", { max: it.total || 1, value: it.delivered, "aria-label": "Progress" }),
    h("span", {}, ` ${number(it.delivered)} of ${number(it.total)}`, it.state === "paused" && ", paused"),
  ];
}
