// The pure modules of the page /console: texts of others, and samples as series.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

/** A module of the server's package, which Node would take for CommonJS. */
async function load(name) {
  const url = new URL(`../../../streamer/surfaces/native/console/${name}.js`, import.meta.url);
  return import(`data:text/javascript,${encodeURIComponent(await readFile(url, "utf8"))}`);
}

const { ago, bytes, clock, counted, duration, number, parts, visible, SHOWN_MAX } = await load("text");
const { HOUR_MS, Known, SLOT_MS, percentile } = await load("series");

test("characters that are hidden or turn the order are shown by their code", () => {
  const hidden = {
    "\u0000": "U+0000", "\u0007": "U+0007", "\u001b": "U+001B", "\r": "U+000D", "\u007f": "U+007F",
    "\u0085": "U+0085", "\u00ad": "U+00AD", "\u061c": "U+061C", "\u200b": "U+200B", "\u200e": "U+200E",
    "\u2028": "U+2028", "\u2029": "U+2029", "\u202a": "U+202A", "\u202e": "U+202E", "\u2060": "U+2060",
    "\u2066": "U+2066", "\u2069": "U+2069", "\u3164": "U+3164", "\ufeff": "U+FEFF", "\ufff9": "U+FFF9",
    "\ue000": "U+E000", "\ud800": "U+D800", "\u{e0041}": "U+E0041", "\u{1d173}": "U+1D173",
  };
  for (const [char, code] of Object.entries(hidden)) {
    assert.deepEqual(parts(`a${char}b`), [{ text: "a" }, { text: char, code }, { text: "b" }]);
    assert.equal(visible(`a${char}b`), `a\u27e8${code}\u27e9b`);
  }
});

test("texts of every script, and emoji, are shown as they are", () => {
  for (const text of ["Grüße", "مرحبا", "שלום", "你好", "नमस्ते", "می\u200cخواهم", "👩\u200d🚀", "❤\ufe0f", "a\tb\nc", "<b>&amp;"]) {
    assert.deepEqual(parts(text), [{ text }], JSON.stringify(text));
  }
});

test("a joiner that joins nothing is shown", () => {
  assert.equal(visible("\u200dadmin"), "\u27e8U+200D\u27e9admin");
  assert.equal(visible("a \u200db"), "a \u27e8U+200D\u27e9b");
});

test("a long text is cut, and says so", () => {
  const found = parts("x".repeat(SHOWN_MAX + 5));
  assert.equal(found[0].text.length, SHOWN_MAX);
  assert.equal(found[1].code, "+5");
});

test("values that are no text do not fail", () => {
  assert.equal(visible(null), "");
  assert.equal(visible(undefined), "");
  assert.equal(visible(12n), "12");
});

test("numbers, sizes, durations and times are short", () => {
  const day = 86_400_000;
  assert.deepEqual([0, 0.25, 12.6, 1234567, null, NaN].map(number), ["0", "0.3", "13", "1,234,567", "–", "–"]);
  assert.deepEqual([0, 1023, 1536, 5 * 2 ** 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
  assert.deepEqual([0.00123, 2.5, 59, 600, 12_000, null].map(duration), ["1.2 ms", "2.5 s", "59 s", "10 min", "3 h 20 min", "–"]);
  assert.deepEqual([10 * day - 500, 9 * day, 10 * day + 90_000].map((it) => ago(it, 10 * day)), ["now", "24 h ago", "in 2 min"]);
  assert.deepEqual([counted(1, "card"), counted(2, "process", "processes")], ["1 card", "2 processes"]);
  assert.equal(ago("nonsense", 0), "–");
  const now = new Date(2026, 10, 29, 12, 0, 0).getTime();
  assert.equal(clock(now + 4_120, now), "12:00:04.120");
  assert.equal(clock(now - day, now), "2026-11-28 12:00:00.000");
});

const NOW = 1_000 * SLOT_MS;
const sample = (at_ms, more) => ({ at_ms, seconds: 5, ...more });

test("samples of one process within a slot add up, those of others beside them too", () => {
  const known = new Known();
  known.add(
    {
      a: [
        sample(NOW - SLOT_MS, { deliveries: 2, connections: { sse: 1 }, refusals: { players: 1 }, written: [1, 0] }),
        sample(NOW - SLOT_MS + 5_000, { deliveries: 3, connections: { sse: 4 }, written: [1, 1] }),
      ],
      b: [sample(NOW - SLOT_MS + 1_000, { deliveries: 5, connections: { sse: 2, websocket: 1 }, store: 9 })],
    },
    NOW,
  );

  const slot = known.slots(NOW).at(-2);

  assert.equal(slot.deliveries, 10);
  assert.equal(slot.seconds, 10);
  assert.deepEqual(slot.connections, { sse: 6, websocket: 1 });
  assert.deepEqual(slot.refusals, { players: 1 });
  assert.deepEqual(slot.written, [2, 1]);
  assert.equal(slot.store, 9);
});

test("a slot without a sample is a hole, and no zero", () => {
  const known = new Known();
  known.add({ a: [sample(NOW - 3 * SLOT_MS), sample(NOW - SLOT_MS)] }, NOW);

  const slots = known.slots(NOW);

  assert.equal(slots.length, HOUR_MS / SLOT_MS);
  assert.deepEqual(slots.slice(-4).map(Boolean), [true, false, true, false]);
});

test("a sample that is known already is not added again, and an old one is dropped", () => {
  const known = new Known();
  const one = sample(NOW - SLOT_MS, { deliveries: 1 });
  known.add({ a: [one] }, NOW);
  known.add({ a: [one] }, NOW);
  assert.equal(known.slots(NOW).at(-2).deliveries, 1);
  assert.equal(known.since(["a"]), one.at_ms);
  assert.equal(known.since(["a", "b"]), 0);

  known.add({}, NOW + HOUR_MS);
  assert.deepEqual(known.nodes, []);
});

test("a percentile lies within its bucket", () => {
  const bounds = [1, 2, 4];
  assert.equal(percentile([0, 0, 0, 0], bounds, 0.5), null);
  assert.equal(percentile([10, 0, 0, 0], bounds, 0.5), 0.5);
  assert.equal(percentile([0, 0, 10, 0], bounds, 0.5), 3);
  assert.equal(percentile([50, 50, 0, 0], bounds, 0.99), 1.98);
  // Above the last bound only that is known.
  assert.equal(percentile([0, 0, 0, 5], bounds, 0.5), 4);
});
