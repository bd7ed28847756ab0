import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import "../src/tabs.js";
import { StreamerClient } from "../src/index.js";
import { FakeClock, fakeWebSocket, notification, settle } from "./helpers.js";

/** Channels by name. @type {Map<string, Set<any>>} */
let channels = new Map();
/** Everything that was posted. @type {any[]} */
let posted = [];

/** A BroadcastChannel of which a test can hold notes back. */
class FakeChannel {
  constructor(name) {
    this.peers = channels.get(name) ?? new Set();
    channels.set(name, this.peers.add(this));
  }

  postMessage(data) {
    const copy = structuredClone(data);
    posted.push(copy);
    for (const peer of this.peers) {
      if (peer !== this) queueMicrotask(() => this.peers.has(peer) && peer.onmessage({ data: copy }));
    }
  }

  /** Receive a note, as from another tab. */
  static receive(data) {
    for (const peers of channels.values()) for (const peer of peers) peer.onmessage({ data });
  }

  close() {
    this.peers.delete(this);
  }
}

/** Web Locks: a queue, and stealing. */
class FakeLocks {
  holder = undefined;
  queue = [];

  request(name, { signal, steal }, callback) {
    return new Promise((resolve, reject) => {
      const wish = { callback, resolve, reject };
      signal?.addEventListener("abort", () => {
        this.queue = this.queue.filter((one) => one !== wish);
        reject(signal.reason);
      });
      if (steal) {
        this.holder?.reject(new DOMException("stolen", "AbortError"));
        this.holder = undefined;
        this.queue.unshift(wish);
      } else this.queue.push(wish);
      queueMicrotask(() => this.next());
    });
  }

  async next() {
    if (this.holder || !this.queue.length) return;
    const holder = (this.holder = this.queue.shift());
    const value = await holder.callback();
    if (this.holder !== holder) return;
    this.holder = undefined;
    holder.resolve(value);
    await this.next();
  }
}

/** @type {FakeClock} */
let clock;
let WebSocket = fakeWebSocket();
let locks = new FakeLocks();
/** @type {StreamerClient[]} */
let clients = [];
const { BroadcastChannel, navigator } = globalThis;

beforeEach(() => {
  clock = new FakeClock();
  WebSocket = fakeWebSocket();
  locks = new FakeLocks();
  channels = new Map();
  posted = [];
  globalThis.BroadcastChannel = /** @type {any} */ (FakeChannel);
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
  globalThis.BroadcastChannel = BroadcastChannel;
  Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
});

async function tab(options = {}) {
  const client = new StreamerClient({
    ...{ url: "https://push.example", token: "t", transports: ["websocket"] },
    ...{ WebSocket, clock, tabs: true, fetch: /** @type {any} */ (async () => page()), ...options },
  });
  clients.push(client);
  /** @type {string[]} */
  const titles = [];
  client.on("notification", ({ title }) => titles.push(title ?? ""));
  /** @type {unknown[]} */
  const gaps = [];
  client.on("gap", ({ reason, before, cursor }) => gaps.push({ reason, before, cursor }));
  void client.connect();
  await settle();
  return { client, titles, gaps };
}

const page = (members = {}) =>
  Response.json({ notifications: [], next: null, unread: 0, cursor: "p", ...members });

test("one tab connects, and the others get the same with the same number", async () => {
  const tabs = [await tab(), await tab(), await tab()];
  assert.equal(WebSocket.made.length, 1);
  WebSocket.last.hello({ cursor: "c0", unread: 4 });
  await settle();
  WebSocket.last.say(notification("c1"), { type: "read", ids: ["x"], unread: 3 });
  await settle();
  for (const { client, titles } of tabs) {
    assert.deepEqual(titles, ["c1"]);
    assert.deepEqual([client.status, client.cursor, client.unread], ["open", "c1", 3]);
  }
});

test("the next tab resumes when the leader closes", async () => {
  const [first, second, third] = [await tab(), await tab(), await tab()];
  WebSocket.last.hello({ cursor: "c0" });
  await settle();
  WebSocket.last.say(notification("c1"));
  await settle();
  await first.client.close();
  await settle();
  assert.equal(WebSocket.made.length, 2);
  assert.equal(WebSocket.last.url.searchParams.get("cursor"), "c1");
  WebSocket.last.hello({ cursor: "c1", unread: 1 });
  WebSocket.last.say(notification("c2"));
  await settle();
  for (const { titles } of [second, third]) assert.deepEqual(titles, ["c1", "c2"]);
});

test("a follower that has missed some gets them from the leader", async () => {
  await tab();
  const second = await tab();
  WebSocket.last.hello({ cursor: "c0" });
  await settle();
  const [peers] = channels.values();
  const [, follower] = peers;
  const { onmessage } = follower;
  follower.onmessage = () => {};
  WebSocket.last.say(notification("c1"), notification("c2"));
  await settle();
  follower.onmessage = onmessage;
  WebSocket.last.say(notification("c3"));
  await settle();
  assert.deepEqual(second.titles, ["c1", "c2", "c3"]);
  assert.equal(second.client.unread, 3);
});

test("what no tab has any more comes from the pages", async () => {
  await tab();
  WebSocket.last.hello({ cursor: "c5", unread: 2 });
  await settle();
  const missed = notification("c4").notification;
  const fetch = async () => page({ notifications: [missed], unread: 2, cursor: "c5" });
  const late = await tab({ cursor: "c3", fetch });
  assert.deepEqual(late.titles, ["c4"]);
  assert.deepEqual([late.client.cursor, late.client.unread], ["c5", 2]);
});

test("an absence that is too long is a gap", async () => {
  await tab();
  WebSocket.last.hello({ cursor: "c5", unread: 2 });
  await settle();
  const late = await tab({ cursor: "c3", fetch: async () => page({ next: "n", cursor: "c5" }) });
  assert.deepEqual(late.gaps, [{ reason: "too_far", before: "c3", cursor: "c5" }]);
  assert.equal(late.client.cursor, "c5");
});

test("a silent leader is asked, then replaced, and what it says later is ignored", async () => {
  await tab();
  const second = await tab();
  const third = await tab();
  WebSocket.last.hello({ cursor: "c0", heartbeat_s: 1_000 });
  await settle();
  const [peers] = channels.values();
  const [frozen] = peers;
  // It neither hears nor says anything.
  frozen.onmessage = () => {};
  frozen.postMessage = () => {};
  const oldSocket = WebSocket.last;
  await clock.advance(40_000);
  assert.ok(posted.some(({ kind }) => kind === "ask"));
  assert.equal(WebSocket.made.length, 2);
  WebSocket.last.hello({ cursor: "c0", heartbeat_s: 1_000 });
  await settle();
  const message = notification("c1");
  WebSocket.last.say(message);
  await settle();
  const tabs = [second, third];
  for (const { titles } of tabs) assert.deepEqual(titles, ["c1"]);
  const old = posted.find(({ kind }) => kind === "lead").from;
  for (const { from } of posted.filter(({ kind }) => kind === "join")) {
    const welcome = { kind: "welcome", to: from, from: old, known: true, number: 1, missed: [] };
    FakeChannel.receive(welcome);
  }
  FakeChannel.receive({ kind: "message", from: old, numbered: { number: 1, message, unread: 9 } });
  WebSocket.last.say(notification("c2"));
  await settle();
  for (const { titles } of tabs) assert.deepEqual(titles, ["c1", "c2"]);
  assert.equal(oldSocket.closedByClient, true);
});

test("a refusal for good stops all tabs, and says why", async () => {
  const tabs = [await tab(), await tab()];
  WebSocket.last.open();
  WebSocket.last.end(4201, "forbidden");
  await settle();
  for (const { client } of tabs) {
    assert.equal(client.status, "stopped");
    assert.equal(client.statusChange.error?.code, 4201);
  }
  assert.equal(WebSocket.made.length, 1);
});

test("without Web Locks each tab connects", async () => {
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  await tab();
  await tab();
  assert.equal(WebSocket.made.length, 2);
});

test("subscribe says that a shared connection has its topics", async () => {
  const { client } = await tab();
  await assert.rejects(client.subscribe("news"), /option `topics` only/);
});
