/** The overview: processes, streams, deliveries, the store, schedules. */

import { api } from "./api.js";
import { draw } from "./charts.js";
import { fill, foreign, h, table } from "./dom.js";
import { Known, percentile, total } from "./series.js";
import { ago, bytes, duration, number } from "./text.js";

const REFRESH_MS = 5_000;
const TRANSPORTS = ["websocket", "sse", "longpoll"];

export function overview() {
  const known = new Known();
  const places = {};
  const facts = h("dl.facts", { "aria-label": "State" });
  const cards = Object.fromEntries(
    ["connections", "deliveries", "written", "lag", "refusals", "trouble", "store"].map((name) => [
      name,
      h("section.chart"),
    ]),
  );
  const nodes = h("section.card");
  const failure = h("p.failure", { role: "alert", hidden: true });
  const page = h(
    "div.page",
    {},
    h("h1", {}, "Overview"),
    failure,
    facts,
    h("div.charts", {}, Object.values(cards)),
    nodes,
  );
  let stopped = false;
  let timer;

  async function refresh() {
    try {
      const answer = await api.get("overview", { since: known.since(known.nodes) });
      if (stopped) return;
      known.add(answer.samples, answer.now_ms);
      Object.assign(places, answer.places);
      failure.hidden = true;
      show(answer);
    } catch (error) {
      failure.textContent = `These figures are not current: ${error.message}`;
      failure.hidden = false;
    }
    if (!stopped) timer = setTimeout(refresh, REFRESH_MS);
  }

  function show({ now_ms, silent, bounds, store, schedules }) {
    // The present slot has only begun.
    const slots = known.slots(now_ms).slice(0, -1);
    const latest = known.nodes.map((node) => known.latest(node));
    const last = slots.findLast(Boolean);
    const line = (value) => slots.map((slot) => (slot ? value(slot) : null));
    const sum = (value) => slots.reduce((all, slot) => all + (slot ? value(slot) : 0), 0);

    fill(facts, state({ silent, store, schedules }, known.nodes.length));
    const open = (transport) => latest.reduce((all, it) => all + (it.connections?.[transport] ?? 0), 0);
    draw(cards.connections, {
      title: "Connections",
      now: TRANSPORTS.map((it) => `${number(open(it))} ${it}`).join(", "),
      lines: TRANSPORTS.map((it) => [it, line((slot) => slot.connections[it] ?? 0)]),
      format: number,
    });
    draw(cards.deliveries, {
      title: "Deliveries and publishes per second",
      now: last ? `${number(last.deliveries / last.seconds)}, ${number(last.publishes / last.seconds)}` : "–",
      lines: [
        ["deliveries", line((slot) => slot.deliveries / slot.seconds)],
        ["publishes", line((slot) => slot.publishes / slot.seconds)],
      ],
      format: number,
    });
    quantiles(cards.written, "From publish to write, p50 and p99", "written", bounds.written);
    if (bounds.lag.length) quantiles(cards.lag, "Event loop lag, p50 and p99", "lag", bounds.lag);
    else fill(cards.lag, h("h2", {}, "Event loop lag"), h("p.now", {}, "not measured by this version"));
    const reasons = slots.reduce((all, slot) => {
      for (const [name, n] of Object.entries(slot?.refusals ?? {})) all[name] = (all[name] ?? 0) + n;
      return all;
    }, {});
    const listed = Object.entries(reasons).sort((a, b) => b[1] - a[1]);
    draw(cards.refusals, {
      title: "Refusals",
      now: listed.length
        ? listed.map(([name, n]) => `${number(n)} ${name.replaceAll("_", " ")}`).join(", ")
        : "none within the hour",
      lines: [["refusals", line((slot) => total(slot.refusals))]],
      format: number,
    });
    draw(cards.trouble, {
      title: "Slow closes and gaps",
      now: `${number(sum((it) => it.slow))} slow, ${number(sum((it) => it.gaps))} gaps within the hour`,
      lines: [
        ["slow closes", line((slot) => slot.slow)],
        ["gaps", line((slot) => slot.gaps)],
      ],
      format: number,
    });
    draw(cards.store, {
      title: "Memory of the store",
      now: store ? `${bytes(store.used)}${store.maximum ? ` of ${bytes(store.maximum)}` : ""}` : "–",
      lines: [["used", line((slot) => slot.store)]],
      format: bytes,
    });
    showNodes(now_ms, silent);

    function quantiles(place, title, member, limits) {
      const at = (share) => line((slot) => percentile(slot[member], limits, share));
      const whole = slots.reduce(
        (all, slot) => (slot ? limits.concat(0).map((_, i) => (all[i] ?? 0) + (slot[member][i] ?? 0)) : all),
        [],
      );
      const now = [0.5, 0.99].map((share) => duration(percentile(whole, limits, share)));
      draw(place, {
        title,
        now: now[0] === "–" ? "nothing within the hour" : `${now.join(", ")} within the hour`,
        lines: [
          ["p50", at(0.5)],
          ["p99", at(0.99)],
        ],
        format: duration,
      });
    }
  }

  function showNodes(now, silent) {
    const rows = known.nodes.map((node) => {
      const sample = known.latest(node);
      return [
        [places[node] ? foreign(places[node]) : "", " ", h("code", {}, node)],
        number(total(sample.connections ?? {})),
        number((sample.deliveries ?? 0) / sample.seconds),
        silent.includes(node) ? `silent, last ${ago(sample.at_ms, now)}` : ago(sample.at_ms, now),
      ];
    });
    const unknown = silent.filter((it) => !known.nodes.includes(it));
    fill(
      nodes,
      h("h2", {}, "Processes"),
      table("Processes", ["Process", "Connections", "Deliveries/s", "Sampled"], rows, "No sample yet: the first is taken after 5 s."),
      unknown.length > 0 &&
        h("p.note", {}, "No samples from: ", unknown.map((it, i) => [i ? ", " : "", h("code", {}, it)]), "."),
    );
  }

  void refresh();
  return {
    element: page,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

function state({ silent, store, schedules }, answered) {
  const fact = (name, value, kind = "") => h("div", {}, h("dt", {}, name), h(kind ? `dd.${kind}` : "dd", {}, value));
  return [
    fact("Processes", silent.length ? `${answered} answer, ${silent.length} do not` : String(answered), silent.length ? "wait" : "good"),
    fact("Durability", store?.durability ?? "unknown", store && !["degraded", "none", "unknown"].includes(store.durability) ? "good" : "wait"),
    fact(
      "Disk",
      store ? (store.write_ok ? `${number(store.fsyncs_delayed)} syncs delayed` : "the last write failed") : "–",
      store?.write_ok ? "" : "bad",
    ),
    fact("Replicas in sync", store ? number(store.replicas) : "–"),
    fact("Store", store ? `${store.role}, ${store.version || "unknown version"}, memory ${store.memory}` : "–", store?.memory === "ok" ? "" : "bad"),
    fact("Schedules due", `${number(schedules.pending)} pending, ${number(schedules.sending)} sending, ${number(schedules.paused)} paused`),
    fact("Schedules late", number(schedules.late), schedules.late ? "bad" : "good"),
  ];
}
