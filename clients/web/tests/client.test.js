import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { StreamerClient } from "../src/index.js";
import { FakeClock, fakeWebSocket, notification, settle, token } from "./helpers.js";

/** @type {FakeClock} */
let clock;
let WebSocket = fakeWebSocket();
/** @type {StreamerClient[]} */
let clients = [];

beforeEach(() => {
  clock = new FakeClock();
  WebSocket = fakeWebSocket();
});
afterEach(() => {
  for (const client of clients.splice(0)) void client.close();
});

/** @param {import("../src/index.js").ClientOptions} [options] */
async function opened(options, hello = {}) {
  const client = new StreamerClient({
    ...{ url: "http://push.example", token: "t", transports: ["websocket"] },
    ...{ WebSocket, clock, ...options },
  });
  clients.push(client);
  void client.connect();
  await settle();
  WebSocket.last.hello(hello);
  return client;
}

async function reconnected(hello = {}) {
  WebSocket.last.end();
  await clock.advance(20_000);
  WebSocket.last.hello(hello);
}

/** @template T @param {AsyncIterator<T>} iterator */
async function taken(iterator) {
  const result = await Promise.race([iterator.next(), settle().then(() => "nothing")]);
  return result === "nothing" ? result : /** @type {any} */ (result).value;
}

test("each event reaches its listeners, with what the protocol says", async () => {
  const client = await opened();
  /** @type {unknown[]} */
  const events = [];
  for (const type of ["withdrawn", "replaced", "read", "gap"]) {
    client.on(/** @type {any} */ (type), (value) => events.push([type, value]));
  }
  WebSocket.last.say(
    { type: "withdrawn", cursor: "c1", id: "a" },
    { type: "replaced", id: "b", by: "c" },
    { type: "read", read: false, ids: ["d"], unread: 1, marks_version: 2 },
    { type: "gap", reason: "trimmed", cursor: "c9", topic: "news" },
  );
  assert.deepEqual(events, [
    ["withdrawn", { id: "a" }],
    ["replaced", { id: "b", by: "c" }],
    ["read", { ids: ["d"], up_to: undefined, all: undefined, read: false, unread: 1 }],
    ["gap", { reason: "trimmed", cursor: "c9", before: "c1", topic: "news", everyone: undefined }],
  ]);
  assert.equal(client.cursor, "c9");
});

test("what an earlier connection has delivered is dropped, and counts", async () => {
  const client = await opened({}, { unread: 0 });
  /** @type {string[]} */
  const ids = [];
  client.on("notification", ({ id }) => ids.push(id));
  const message = notification(undefined, { topic: "news" });
  WebSocket.last.say(message);
  await reconnected({ unread: 0 });
  WebSocket.last.say({ type: "replaced", id: "x", by: message.notification.id }, message);
  assert.deepEqual(ids, [message.notification.id]);
  assert.equal(client.unread, 1);
});

test("a repeat does not prove a connection", async () => {
  await opened();
  const message = notification("c1");
  WebSocket.last.say(message);
  for (let i = 0; i < 100 && clock.now() < 300_000; i++) {
    WebSocket.last.end();
    await clock.advance(20_000);
    WebSocket.last.hello();
    WebSocket.last.say(message);
  }
  assert.ok(WebSocket.made.length < 25);
});

test("missing data differs from null", async () => {
  const client = await opened();
  /** @type {boolean[]} */
  const has = [];
  client.on("notification", (value) => has.push("data" in value));
  WebSocket.last.say(notification("c1"), notification("c2", { data: null }));
  assert.deepEqual(has, [false, true]);
});

test("marks that changed meanwhile are told after the reconnect", async () => {
  const client = await opened({}, { marks_version: 3 });
  /** @type {unknown[]} */
  const reads = [];
  client.on("read", ({ ids }) => reads.push(ids));
  await reconnected({ marks_version: 3 });
  assert.deepEqual(reads, []);
  await reconnected({ marks_version: 4 });
  assert.deepEqual(reads, [null]);
});

test("the number of unread is told when it changes", async () => {
  const client = await opened({}, { unread: 2 });
  /** @type {number[]} */
  const numbers = [];
  client.on("unread", (number) => numbers.push(number));
  WebSocket.last.say(notification("c1"), { type: "unread", unread: 3 });
  WebSocket.last.say({ type: "read", all: true, unread: 0, marks_version: 1 });
  assert.deepEqual(numbers, [3, 0]);
  assert.equal(client.unread, 0);
});

test("a listener that throws disturbs nothing", async (context) => {
  context.mock.method(console, "error", () => {});
  const client = await opened();
  let count = 0;
  client.on("notification", () => {
    throw new Error("a bug of the application");
  });
  client.on("notification", async () => {
    throw new Error("another one");
  });
  client.on("notification", () => count++);
  WebSocket.last.say(notification("c1"), notification("c2"));
  await settle();
  assert.equal(count, 2);
  assert.equal(client.cursor, "c2");
  assert.equal(client.status, "open");
});

test("listeners are removed: by a call, after once, by a signal", async () => {
  const client = await opened();
  /** @type {string[]} */
  const called = [];
  const controller = new AbortController();
  const remove = client.on("notification", () => called.push("removed"));
  client.on("notification", () => called.push("once"), { once: true });
  client.on("notification", () => called.push("signal"), { signal: controller.signal });
  WebSocket.last.say(notification("c1"));
  remove();
  controller.abort();
  WebSocket.last.say(notification("c2"));
  assert.deepEqual(called, ["removed", "once", "signal"]);
});

test("the cursor of an iterator follows what was finished", async () => {
  const client = await opened();
  const events = client.notifications();
  const first = taken(events);
  WebSocket.last.say(notification("c1"), notification("c2"));
  assert.equal((await first).title, "c1");
  assert.equal(client.cursor, "c0");
  assert.equal((await taken(events)).title, "c2");
  assert.equal(client.cursor, "c1");
  assert.equal(await taken(events), "nothing");
  assert.equal(client.cursor, "c2");
});

test("an iteration ends with the client, with its signal, and by break", async () => {
  const client = await opened();
  const controller = new AbortController();
  const stopped = client.events({ signal: controller.signal });
  controller.abort();
  assert.deepEqual(await stopped.next(), { done: true, value: undefined });
  queueMicrotask(() => WebSocket.last.say(notification("c1")));
  for await (const { title } of client.notifications()) {
    assert.equal(title, "c1");
    break;
  }
  assert.equal(client.cursor, "c1");
  const last = client.events();
  await client.close();
  while (!(await last.next()).done);
});

test("a refusal for good ends an iteration with an error", async () => {
  const client = await opened();
  const events = client.notifications();
  const next = events.next();
  WebSocket.last.end(4202, "replaced by the same instance");
  await assert.rejects(next, { kind: "refused", code: 4202 });
});

test("a slow consumer disconnects the client, which resumes", async () => {
  const client = await opened({ bufferMax: 10 });
  const events = client.notifications();
  const first = taken(events);
  for (let i = 1; i <= 30; i++) WebSocket.last.say(notification(`c${i}`));
  await first;
  assert.equal(client.status, "waiting");
  assert.equal(WebSocket.last.closedByClient, true);
  await clock.advance(60_000);
  assert.equal(WebSocket.made.length, 1);
  let last;
  for (let i = 0; i < 30 && WebSocket.made.length === 1; i++) last = await taken(events);
  await settle();
  assert.equal(WebSocket.last.url.searchParams.get("cursor"), last.title ?? client.cursor);
});

test("the cursor is stored, and another client continues from it", async () => {
  const stored = new Map();
  const storage = {
    getItem: async (key) => stored.get(key) ?? null,
    setItem: async (key, value) => void stored.set(key, value),
    removeItem: async (key) => void stored.delete(key),
  };
  const getToken = () => token("alice", clock.unixMs() + 3_600_000);
  const client = await opened({ storage, token: undefined, getToken });
  WebSocket.last.say(notification("c1"));
  assert.equal(stored.size, 0);
  await clock.advance(250);
  assert.equal(JSON.parse([...stored.values()][0]).cursor, "c1");
  WebSocket.last.say(notification("c2"));
  await client.close();
  await opened({ storage, token: undefined, getToken });
  assert.equal(WebSocket.last.url.searchParams.get("cursor"), "c2");
  const other = () => token("bob", clock.unixMs() + 3_600_000);
  const third = await opened({ storage, token: undefined, getToken: other });
  assert.equal(WebSocket.last.url.searchParams.get("cursor"), null);
  await third.logout();
  assert.equal(stored.size, 0);
});

test("the cursor of a gap is stored when the gap is filled", async () => {
  let answer = () => new Response("{}", { status: 403 });
  const client = await opened({ fetch: /** @type {any} */ (async () => answer()) });
  /** @type {import("../src/index.js").Gap[]} */
  const gaps = [];
  /** @type {unknown[]} */
  const told = [];
  const fill = async (gap) => {
    for await (const { id } of client.fillGap(gap)) told.push(id, client.cursor);
  };
  client.on("gap", (gap) => {
    gaps.push(gap);
    void fill(gap).catch(({ status }) => told.push(status));
  });
  WebSocket.last.say({ type: "gap", reason: "too_far", cursor: "c9" }, notification("c10"));
  await settle();
  assert.deepEqual(told, [403]);
  assert.equal(client.cursor, "c0");

  const page = { notifications: [{ id: "a" }], next: null, unread: 1, cursor: "c10" };
  answer = () => Response.json(page);
  await fill(gaps[0]);
  assert.deepEqual(told, [403, "a", "c0"]);
  assert.equal(client.cursor, "c10");
});

test("a gap whose filling is ended is filled", async () => {
  const page = { notifications: [{ id: "a" }, { id: "b" }], next: null, cursor: "c9" };
  const client = await opened({ fetch: /** @type {any} */ (async () => Response.json(page)) });
  const filled = new Promise((resolve) => {
    client.on("gap", async (gap) => {
      for await (const { id } of client.fillGap(gap)) {
        resolve(id);
        break;
      }
    });
  });
  WebSocket.last.say({ type: "gap", reason: "too_far", cursor: "c9" });
  assert.equal(await filled, "a");
  await settle();
  assert.equal(client.cursor, "c9");
});

test("who signs out before connecting leaves nothing behind", async () => {
  const kept = new Map([["streamer:http://push.example/", JSON.stringify({ cursor: "c5" })]]);
  const storage = {
    getItem: (/** @type {string} */ key) => kept.get(key) ?? null,
    setItem: (/** @type {string} */ key, /** @type {string} */ value) => void kept.set(key, value),
    removeItem: (/** @type {string} */ key) => void kept.delete(key),
  };
  const client = new StreamerClient({ url: "http://push.example", token: "t", clock, storage });
  await client.logout();
  assert.equal(kept.size, 0);
});

test("a storage that fails is told, and nothing else happens", async (context) => {
  context.mock.method(console, "error", () => {});
  context.mock.method(console, "warn", () => {});
  const fail = () => {
    throw new Error("denied");
  };
  const storage = { getItem: fail, setItem: fail, removeItem: fail };
  const client = await opened({ storage });
  WebSocket.last.say(notification("c1"));
  await clock.advance(1_000);
  assert.equal(client.cursor, "c1");
});

test("when the player changes everything of the other one is forgotten", async () => {
  let player = "alice";
  const getToken = () => token(player, clock.unixMs() + 3_600_000);
  const client = await opened({ token: undefined, getToken }, { cursor: "c0", unread: 5 });
  let resets = 0;
  client.on("reset", () => resets++);
  player = "bob";
  WebSocket.last.end();
  await clock.advance(500);
  assert.equal(WebSocket.last.url.searchParams.get("cursor"), null);
  assert.equal(client.unread, null);
  assert.equal(resets, 1);
  WebSocket.last.hello({ cursor: "d0", unread: 1 });
  assert.equal(client.cursor, "d0");
});

test("topics are asked for on the stream, and named by the next connection", async () => {
  const client = await opened({}, { unread: 0 });
  const asked = client.subscribe("match/17");
  await settle();
  const { ref, ...command } = WebSocket.last.sent.at(-1);
  assert.deepEqual(command, { type: "subscribe", topics: ["match/17"] });
  WebSocket.last.say(notification(undefined, { topic: "match/17" }));
  assert.equal(client.unread, 0);
  WebSocket.last.say({ type: "reply", ref });
  await asked;
  assert.deepEqual(client.topics, ["match/17"]);
  const refused = client.subscribe("secret");
  await settle();
  WebSocket.last.say({ type: "error", ref: WebSocket.last.sent.at(-1).ref, problem: "no" });
  await assert.rejects(refused, { kind: "rejected", message: "no" });
  await reconnected();
  assert.equal(WebSocket.last.url.searchParams.get("topics"), "match/17");
});

test("a topic whose reply was lost is named by the next connection", async () => {
  const client = await opened();
  const asked = client.subscribe("news");
  await settle();
  WebSocket.last.end();
  await settle();
  await asked;
  await clock.advance(500);
  assert.equal(WebSocket.last.url.searchParams.get("topics"), "news");
});

test("a page without an origin names the server", (context) => {
  context.after(() => Reflect.deleteProperty(globalThis, "location"));
  const page = { origin: "null", href: "file:///game/index.html" };
  globalThis.location = /** @type {any} */ (page);
  assert.throws(() => new StreamerClient({ token: "t" }), /needs url/);
  assert.equal(new StreamerClient({ url: "https://a", token: "t" }).status, "idle");
});

test("what a client needs is said at once", () => {
  assert.throws(() => new StreamerClient({ token: "t" }), /needs url/);
  assert.throws(() => new StreamerClient({ url: "http://a" }), /needs token or getToken/);
});
