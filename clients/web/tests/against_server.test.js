import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { WebSocket } from "ws";

import { StreamerClient } from "../src/index.js";
import { Server, eventually, nightly, skip } from "./running_server.js";

describe("against a server", { skip }, () => {
  /** @type {any} */
  let server;
  /** @type {StreamerClient[]} */
  const clients = [];
  let number = 0;
  before(async () => {
    server = await Server.start({ heartbeat_s: 1, drain_s: 0 });
  });
  after(() => server.discard());
  afterEach(async () => {
    for (const client of clients.splice(0)) await client.close();
  });

  async function open(transport, options = {}, members = {}) {
    const player = `player${++number}`;
    const token = await server.token(player, members);
    const client = new StreamerClient({
      ...{ url: server.url, token, transports: [transport], WebSocket, pollMs: 100 },
      ...options,
    });
    clients.push(client);
    /** @type {string[]} */
    const titles = [];
    client.on("notification", ({ title }) => titles.push(title ?? ""));
    await client.connect();
    return { client, player, titles };
  }

  for (const transport of ["websocket", "sse", "poll"]) {
    test(`${transport}: live, in order, counted, and marked`, async () => {
      const { client, player, titles } = await open(transport);
      for (const title of ["a", "b", "c"]) await server.publish(player, title);
      await eventually(() => titles.length === 3);
      assert.deepEqual(titles, ["a", "b", "c"]);
      assert.equal(client.unread, 3);
      assert.equal(await client.markRead({ all: true }), 0);
      await eventually(() => client.unread === 0);
      await client.ack();
      const { notifications, unread } = await client.inbox.page();
      assert.deepEqual(notifications.map(({ title }) => title), ["c", "b", "a"]);
      assert.equal(unread, 0);
      const [{ id }] = notifications;
      assert.equal((await client.inbox.receipt(id)).state, "read");
      assert.equal(await client.markUnread([id]), 1);
      await eventually(() => client.unread === 1);
    });

    const seldom = { skip: transport !== "websocket" && nightly };
    test(`${transport}: nothing is lost when the server is killed`, seldom, async () => {
      const { client, player, titles } = await open(transport);
      await server.publish(player, "before");
      await eventually(() => titles.length === 1);
      await server.end("SIGKILL");
      await eventually(() => client.status === "waiting" || client.status === "connecting");
      await server.run();
      await server.publish(player, "after");
      await eventually(() => titles.length === 2);
      assert.deepEqual(titles, ["before", "after"]);
      assert.equal(client.unread, 2);
    });
  }

  test("poll: the server holds the request until there is something", async () => {
    const { client, player, titles } = await open("poll", { pollMs: 3_600_000 });
    for (const title of ["a", "b"]) {
      await server.publish(player, title);
      await eventually(() => titles.at(-1) === title);
    }
    await server.publish(player, "c");
    await eventually(() => titles.length === 3);
    assert.deepEqual(titles, ["a", "b", "c"]);
    assert.equal(client.unread, 3);
    // A mark of another device ends the wait, too.
    await client.inbox.markRead({ all: true });
    await eventually(() => client.unread === 0);
  });

  for (const transport of ["websocket", "sse"]) {
    const seldom = { skip: transport !== "websocket" && nightly };
    test(`${transport}: a token that ends is replaced`, seldom, async () => {
      const player = `player${++number}`;
      /** @type {string[]} */
      const reasons = [];
      const { client } = await open(transport, {
        token: undefined,
        getToken: (/** @type {any} */ { reason }) => {
          reasons.push(reason);
          return server.token(player, { ttl_s: 3 });
        },
      });
      /** @type {string[]} */
      const titles = [];
      client.on("notification", ({ title }) => titles.push(title ?? ""));
      await eventually(() => reasons.length >= 2);
      await server.publish(player, "still there");
      await eventually(() => titles.length === 1);
      assert.ok(reasons.includes("expiring"));
      assert.ok(!reasons.includes("refused"));
    });

    test(`${transport}: a refused token stops it, and says why`, async () => {
      const client = new StreamerClient({
        ...{ url: server.url, token: "wrong", transports: [transport], WebSocket },
      });
      await assert.rejects(client.connect(), { kind: "refused", code: 4200 });
      assert.equal(client.status, "stopped");
    });

    test(`${transport}: topics of the stream alone`, async () => {
      const { client } = await open(transport, {}, { topics: ["match/*"] });
      await client.subscribe("match/17");
      await eventually(() => client.status === "open");
      assert.deepEqual(client.topics, ["match/17"]);
    });
  }

  test("without a WebSocket the stream is SSE", async () => {
    const { client } = await open("sse", { transports: undefined, WebSocket: null });
    assert.equal(client.statusChange.transport, "sse");
  });

  test("where the WebSocket is blocked the stream is SSE", async () => {
    class Blocked {
      constructor() {
        setTimeout(() => this.onclose({ code: 1006, reason: "" }));
      }
      close() {}
    }
    const options = { transports: undefined, WebSocket: Blocked };
    const { client } = await open("sse", options);
    assert.equal(client.statusChange.transport, "sse");
  });

  test("a replay that is too long is a gap, which the pages fill", async () => {
    const player = `player${++number}`;
    const token = await server.token(player);
    const message = { to: { players: [player] } };
    const first = await server.publish(player, "0");
    for (let i = 0; i < 6; i++) {
      const list = Array.from({ length: 100 }, (_, j) => ({ ...message, title: `${i}${j}` }));
      await fetch(`${server.url}/v1/notifications`, {
        method: "POST",
        headers: { Authorization: `Bearer ${server.key}`, "Content-Type": "application/json" },
        body: JSON.stringify(list),
      });
    }
    const client = new StreamerClient({ url: server.url, token, WebSocket, cursor: first });
    clients.push(client);
    /** @type {Promise<import("../src/index.js").Gap>} */
    const told = new Promise((resolve) => client.on("gap", resolve));
    void client.connect();
    const gap = await told;
    assert.equal(gap.reason, "too_far");
    assert.equal(gap.before, first);
    const titles = [];
    for await (const { title } of client.fillGap(gap)) titles.push(title);
    assert.equal(titles.length, 600);
    const live = client.notifications();
    await server.publish(player, "live");
    assert.equal((await live.next()).value.title, "live");
  });

  test("topics, mutes and deletion", async () => {
    const { client, player } = await open("websocket", {}, { topics: ["news", "a/b c"] });
    await client.inbox.join("news");
    assert.deepEqual(await client.inbox.topics(), [{ topic: "news", muted: false }]);
    await client.inbox.mute({ topic: "news" });
    await client.inbox.mute({ type: "ad, 50% off" });
    assert.deepEqual(await client.inbox.mutes(), { types: ["ad, 50% off"], topics: ["news"] });
    await client.inbox.unmute({ type: "ad, 50% off" });
    await client.inbox.leave("news");
    assert.deepEqual(await client.inbox.topics(), []);
    const id = await server.publish(player, "x", { type: "a,b" });
    const page = await client.inbox.page({ type: "a,b", unread: true });
    assert.equal(page.notifications[0].id, id);
    assert.equal((await client.inbox.get(id)).title, "x");
    const gone = new Promise((resolve) => client.on("withdrawn", resolve));
    await client.inbox.delete(id);
    assert.deepEqual(await gone, { id });
    await assert.rejects(client.inbox.get(id), { kind: "rejected", status: 404 });
  });

  test("marks are kept while the server is away, and sent later", { skip: nightly }, async () => {
    const { client, player } = await open("websocket", { queue: true });
    const id = await server.publish(player, "x");
    await eventually(() => client.unread === 1);
    await server.end("SIGKILL");
    assert.equal(await client.markRead({ ids: [id] }), undefined);
    await server.run();
    await eventually(() => client.unread === 0);
    assert.equal(await server.unread(player), 0);
  });
});
