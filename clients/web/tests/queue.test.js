import assert from "node:assert/strict";
import { test } from "node:test";

import { StreamerClient } from "../src/index.js";
import { MarkQueue } from "../src/queue.js";
import { InboxStore } from "../src/store.js";
import { FakeClock, settle } from "./helpers.js";

/** A queue in memory, whose server answers as `server.answer` says. */
function make() {
  const clock = new FakeClock();
  /** @type {unknown[]} */
  const requests = [];
  const server = { answer: () => Response.json({ unread: 7 }) };
  /** @param {URL} url @param {RequestInit} init */
  const fetch = async (url, init) => {
    const path = url.pathname.split("/").at(-1);
    requests.push([path, JSON.parse(String(init.body))]);
    return server.answer();
  };
  const client = new StreamerClient({
    ...{ url: "http://push.example", token: "t", clock, queue: true },
    fetch: /** @type {any} */ (fetch),
  });
  return { clock, requests, server, client };
}

const away = () => {
  throw new TypeError("fetch failed");
};

test("what can be sent is sent at once", async () => {
  const { client, requests } = make();
  assert.equal(await client.markRead({ ids: ["a"] }), 7);
  assert.equal(await client.markUnread(["a"]), 7);
  assert.deepEqual(requests, [["read", { ids: ["a"] }], ["unread", { ids: ["a"] }]]);
});

test("a mark of everything before anything has arrived is one of everything", async () => {
  const { requests, server, clock } = make();
  const { answer } = server;
  const client = new StreamerClient({
    ...{ url: "http://push.example", token: "t", clock, queue: true, cursor: "earliest" },
    fetch: /** @type {any} */ (async (/** @type {URL} */ url, /** @type {RequestInit} */ init) => {
      requests.push(JSON.parse(String(init.body)));
      return server.answer();
    }),
  });
  server.answer = away;
  assert.equal(await client.markRead({ all: true }), undefined);
  requests.length = 0;
  server.answer = answer;
  await clock.advance(30_000);
  assert.deepEqual(requests, [{ all: true }]);
});

test("what cannot be sent is sent later, in order, as few requests", async () => {
  const { client, requests, server, clock } = make();
  const { answer } = server;
  server.answer = away;
  assert.equal(await client.markRead({ ids: ["a"] }), undefined);
  assert.equal(await client.markRead({ ids: ["b", "a"] }), undefined);
  await client.ack("c1");
  await client.ack("c2");
  assert.equal(await client.markUnread(["b"]), undefined);
  requests.length = 0;
  server.answer = answer;
  await clock.advance(30_000);
  assert.deepEqual(requests, [
    ["read", { ids: ["a", "b"] }],
    ["ack", { cursor: "c2" }],
    ["unread", { ids: ["b"] }],
  ]);
  await clock.advance(300_000);
  assert.equal(requests.length, 3);
});

test("marks of a store are sent later in the order in which they were made", async () => {
  const { client, requests, server, clock } = make();
  const { answer } = server;
  server.answer = away;
  const store = new InboxStore(client);
  void store.markRead("a");
  await settle();
  void store.markUnread("a");
  await settle();
  requests.length = 0;
  server.answer = answer;
  await clock.advance(30_000);
  assert.deepEqual(requests, [["read", { ids: ["a"] }], ["unread", { ids: ["a"] }]]);
});

test("it asks a server that is away with back-off", async () => {
  const { client, requests, server, clock } = make();
  server.answer = away;
  await client.markRead({ ids: ["a"] });
  await clock.advance(600_000);
  assert.ok(requests.length >= 20 && requests.length <= 40, String(requests.length));
});

test("a change that the server refuses is dropped, and the caller learns of it", async () => {
  const { client, requests, server } = make();
  const { answer } = server;
  server.answer = () => Response.json({ detail: "no" }, { status: 422 });
  await assert.rejects(client.markRead({ ids: ["a"] }), { kind: "rejected", status: 422 });
  server.answer = answer;
  assert.equal(await client.markRead({ ids: ["b"] }), 7);
  assert.deepEqual(requests.at(-1), ["read", { ids: ["b"] }]);
});

test("a token that is refused now keeps what is to be sent", async () => {
  const { client, server, clock, requests } = make();
  const { answer } = server;
  server.answer = () => Response.json({}, { status: 401 });
  assert.equal(await client.markRead({ ids: ["a"] }), undefined);
  server.answer = answer;
  requests.length = 0;
  await clock.advance(30_000);
  assert.deepEqual(requests, [["read", { ids: ["a"] }]]);
});

test("everything that is marked later is what was there", async () => {
  const { client, requests, server, clock } = make();
  const { answer } = server;
  server.answer = away;
  const queue = new MarkQueue("key", client.inbox, /** @type {any} */ ({
    clock,
    credential: { player: "" },
  }));
  assert.equal(await queue.add({ mark: { all: true } }, "c5"), undefined);
  server.answer = answer;
  await clock.advance(30_000);
  assert.deepEqual(requests.slice(0, 1), [["read", { all: true }]]);
  assert.deepEqual(requests.at(-1), ["read", { up_to: "c5" }]);
  queue.close();
});

test("a thousand changes are kept, and the oldest are dropped", async () => {
  const { client, requests, server, clock } = make();
  const { answer } = server;
  server.answer = away;
  for (let i = 0; i < 1_010; i++) void client.ack(`c${i}`), void client.markUnread([`${i}`]);
  await settle();
  requests.length = 0;
  server.answer = answer;
  await clock.advance(30_000);
  assert.equal(requests.length, 1_000);
});
