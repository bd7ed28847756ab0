/** Schedules with their progress, and campaigns. */

import { api } from "./api.js";
import { acting, confirmed, field, fill, foreign, h, table, tell } from "./dom.js";
import { preview } from "./message.js";
import { ago, duration, number } from "./text.js";

const REFRESH_MS = 5_000;

export function schedules({ may }) {
  const list = h("section.card", { "aria-label": "Schedules" });
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
      const [page, found] = await Promise.all([
        api.get("schedules", { limit: 20, after: after.at(-1) }),
        api.get("campaigns"),
      ]);
      if (stopped) return;
      failure.hidden = true;
      const state = JSON.stringify([page, found], (_, it) => (typeof it === "bigint" ? `${it}` : it));
      if (state !== before) show(page, found.campaigns);
      before = state;
    } catch (error) {
      failure.textContent = `This is not current: ${error.message}`;
      failure.hidden = false;
    }
    if (!stopped) timer = setTimeout(refresh, REFRESH_MS);
  }

  function show(page, found) {
    const now = Date.now();
    fill(
      list,
      h("h2", {}, "Schedules"),
      table(
        "Schedules",
        ["Due", "To", "Title", "Progress", "Action"],
        page.schedules.map((it) => [
          h("time", { datetime: it.send_at, title: it.send_at }, ago(it.send_at, now), it.spread_s ? ` over ${duration(it.spread_s)}` : ""),
          recipients(it),
          foreign(it.notification.title ?? it.notification.type ?? ""),
          progress(it),
          may("operator") && it.state === "pending" && h("div.buttons", {}, act("Move", () => move(it)), act("Cancel", () => cancel(it), "danger")),
        ]),
        "No schedules. Publish with a time or a spread to make one.",
      ),
      h(
        "div.buttons",
        {},
        after.length > 0 && act("Newer", () => turn(after.slice(0, -1))),
        page.next && act("Older", () => turn([...after, page.next])),
      ),
    );
    fill(
      campaigns,
      h("h2", {}, "Campaigns"),
      table("Campaigns", ["Campaign", "Name"], found.map((it) => [foreign(it.id), foreign(it.name)]), "No campaigns."),
    );
  }

  async function turn(places) {
    after = places;
    await refresh();
  }

  async function cancel(it) {
    const data = await confirmed("Cancel this schedule?", [preview(it.notification), h("p", {}, "It is not sent, and cannot be taken up again.")], "Cancel the schedule");
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
    element: h("div.page", {}, h("h1", {}, "Schedules"), failure, list, campaigns),
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
  return `${number(it.total)} players`;
}

function progress(it) {
  const text = it.late ? `${it.state}, late` : it.state;
  if (it.state !== "sending") return h(`span.state.${it.state}`, {}, text);
  return [
    h("progress", { max: it.total || 1, value: it.delivered, "aria-label": "Progress" }),
    h("span", {}, ` ${number(it.delivered)} of ${number(it.total)}`),
  ];
}
