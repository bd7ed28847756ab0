import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { SeenIds, UnreadCount, checked } from "../src/messages.js";

const vectors = new URL("../../conformance/counting.json", import.meta.url);

for (const { name, topics, steps } of JSON.parse(await readFile(vectors, "utf-8")).cases) {
  test(`counting: ${name}`, () => {
    const count = new UnreadCount((topic) => topics.includes(topic));
    for (const [message, number] of steps) {
      assert.equal(count.take(checked(message)), number);
    }
  });
}

test("a message of an unknown type is readable", () => {
  assert.equal(checked({ type: "novelty", cursor: "c" }).type, "novelty");
});

for (const message of [
  ...[null, undefined, 7, [], {}, { type: 7 }],
  ...[{ type: "notification" }, { type: "notification", notification: null }],
  { type: "notification", notification: { title: "no id" } },
  { type: "notification", cursor: 7, notification: { id: "i" } },
  ...[{ type: "hello", cursor: "c" }, { type: "cursor" }, { type: "gap", cursor: "c" }],
  ...[{ type: "withdrawn" }, { type: "replaced", id: "i" }, { type: "unread" }],
  ...[{ type: "read", ids: [] }, { type: "bye", reason: "no code" }],
]) {
  test(`${JSON.stringify(message)} is unreadable`, () => {
    assert.throws(() => checked(message), { kind: "unreadable" });
  });
}

test("an id is a repeat on a later connection only", () => {
  const seen = new SeenIds();
  seen.beginConnection();
  assert.equal(seen.isRepeat("a"), false);
  assert.equal(seen.isRepeat("a"), false);
  seen.beginConnection();
  assert.equal(seen.isRepeat("a"), true);
  assert.equal(seen.isRepeat("a"), true);
});

test("the memory of ids is bounded, and forgets the oldest", () => {
  const seen = new SeenIds();
  for (let i = 0; i < 3_000; i++) seen.isRepeat(`id${i}`);
  assert.equal(seen.isKnown("id0"), false);
  assert.equal(seen.isKnown("id2999"), true);
  assert.equal(seen.isKnown("id952"), true);
  assert.equal(seen.isKnown("id951"), false);
});
