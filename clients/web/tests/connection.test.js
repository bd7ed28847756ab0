import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { StreamerClient } from "../src/index.js";
import { FakeClock, fakeWebSocket, notification, settle, token } from "./helpers.js";

/** @type {FakeClock} */
let clock;
let WebSocket = fakeWebSocket();
/** @type {StreamerClient[]} */
let clients = [];
/** @type {import("../src/index.js").StatusChange[]} */
let changes = [];

beforeEach(() => {
  clock = new FakeClock();
  WebSocket = fakeWebSocket();
});
afterEach(() => {
  for (const client of clients.splice(0)) void client.close();
});

/** @param {import("../src/index.js").ClientOptions} [options] */
async function connect(options) {
  const client = new StreamerClient({
    ...{ url: "https://push.example/prefix", token: "t", transports: ["websocket"] },
    ...{ WebSocket, clock, ...options },
  });
  clients.push(client);
  changes = [];
  client.on("status", (change) => changes.push(change));
  void client.connect();
  await settle();
  return client;
}

test("the token is in the first message, and the URL has what a stream needs", async () => {
  await connect({ cursor: "c9", topics: ["a", "b/c"], device: "phone" });
  const { last } = WebSocket;
  last.open();
  assert.deepEqual(last.sent, [{ type: "auth", token: "t" }]);
  assert.equal(last.url.protocol, "wss:");
  assert.equal(last.url.pathname, "/prefix/v1/stream");
  const { instance, ...query } = Object.fromEntries(last.url.searchParams);
  assert.match(instance, /^[\w-]{8,64}$/);
  const expected = { cursor: "c9", topics: "a,b/c", device: "phone", refusals: "stream" };
  assert.deepEqual(query, expected);
});

test("connect is fulfilled by hello, and rejected by a refusal", async () => {
  const client = await connect();
  const opened = client.connect();
  WebSocket.last.hello();
  await opened;
  assert.equal(client.status, "open");
  WebSocket.last.say({ type: "bye", code: 4201, reason: "forbidden", reconnect: false });
  await settle();
  assert.equal(client.status, "stopped");
  assert.equal(changes.at(-1)?.error?.code, 4201);
  const again = client.connect();
  await settle();
  WebSocket.last.open();
  WebSocket.last.end(4201, "forbidden");
  await assert.rejects(again, { kind: "refused", code: 4201, message: "forbidden" });
});

test("after a lost connection it resumes from its last cursor, as the same instance", async () => {
  await connect();
  WebSocket.last.hello({ cursor: "c0" });
  WebSocket.last.say(notification("c1"), { type: "cursor", cursor: "c2" });
  WebSocket.last.end();
  await clock.advance(500);
  assert.equal(WebSocket.made.length, 2);
  const [first, second] = WebSocket.made.map(({ url }) => url.searchParams);
  assert.equal(second.get("cursor"), "c2");
  assert.equal(second.get("instance"), first.get("instance"));
});

test("it never hammers a server that accepts and drops at once", async () => {
  await connect();
  for (const begin = clock.now(); clock.now() < begin + 600_000; ) {
    const { last } = WebSocket;
    if (last.readyState === 0) {
      last.hello();
      last.end();
    }
    await clock.advance(500);
  }
  // 0.5, 1, 2, 4, 8, 16, and then every 20 s.
  const attempts = WebSocket.made.length;
  assert.ok(attempts <= 6 + 600 / 20, `${attempts} attempts within ten minutes`);
  assert.ok(attempts >= 20, `${attempts} attempts: it has given up`);
});

test("a bye with a delay is waited for, also when the network comes back", async () => {
  await connect();
  WebSocket.last.hello();
  WebSocket.last.say({ type: "bye", code: 4100, reason: "draining", delay_ms: 3_000 });
  await clock.advance(2_999);
  assert.equal(WebSocket.made.length, 1);
  await clock.advance(501);
  assert.equal(WebSocket.made.length, 2);
});

test("a ping is answered", async () => {
  await connect();
  WebSocket.last.hello();
  WebSocket.last.say({ type: "ping" });
  assert.deepEqual(WebSocket.last.sent.at(-1), { type: "pong" });
});

test("a dead line is asked, then dropped without a close handshake", async () => {
  await connect();
  const socket = WebSocket.last;
  socket.hello({ heartbeat_s: 10 });
  await clock.advance(14_000);
  assert.deepEqual(socket.sent.at(-1), { type: "ping" });
  await clock.advance(9_000);
  assert.equal(WebSocket.made.length, 1);
  await clock.advance(4_500);
  assert.equal(socket.closedByClient, true);
  assert.equal(WebSocket.made.length, 2);
  assert.ok(changes.some(({ reason }) => reason === "silent"));
});

test("any message is a sign of life", async () => {
  await connect();
  WebSocket.last.hello({ heartbeat_s: 10 });
  for (let i = 0; i < 10; i++) {
    await clock.advance(9_000);
    WebSocket.last.say({ type: "novelty" });
  }
  assert.equal(WebSocket.made.length, 1);
});

test("after sleep the line is asked before it is judged", async () => {
  await connect();
  const socket = WebSocket.last;
  socket.hello({ heartbeat_s: 10 });
  await clock.advance(1_000);
  clock.sleep(7_200_000);
  await clock.advance(0);
  assert.deepEqual(socket.sent.at(-1), { type: "ping" });
  socket.say({ type: "pong" });
  await clock.advance(6_000);
  assert.equal(WebSocket.made.length, 1);
  clock.sleep(7_200_000);
  await clock.advance(6_000);
  assert.equal(socket.closedByClient, true);
});

test("a wall clock that jumps is not silence by itself", async () => {
  await connect();
  const socket = WebSocket.last;
  socket.hello({ heartbeat_s: 10 });
  for (const skewMs of [7_200_000, -7_200_000]) {
    clock.skewMs = skewMs;
    await clock.advance(4_000);
    socket.say({ type: "ping" });
    await clock.advance(8_000);
    socket.say({ type: "ping" });
  }
  assert.equal(WebSocket.made.length, 1);
});

test("a stream that says nothing before hello is given up after 30 s", async () => {
  await connect();
  const socket = WebSocket.last;
  socket.open();
  await clock.advance(29_000);
  assert.equal(socket.closedByClient, false);
  await clock.advance(6_000);
  assert.equal(socket.closedByClient, true);
  await clock.advance(1_000);
  assert.equal(WebSocket.made.length, 2);
});

for (const text of ["{", '{"type":"notification"}', "[]", '{"type":"hello","cursor":7}']) {
  test(`what cannot be read drops the connection: ${text}`, async () => {
    const client = await connect();
    WebSocket.last.hello();
    const { last } = WebSocket;
    last.say(notification("c1"), text, notification("c3"));
    await settle();
    assert.equal(last.closedByClient, true);
    assert.equal(client.cursor, "c1");
    await clock.advance(500);
    assert.equal(WebSocket.last.url.searchParams.get("cursor"), "c1");
  });
}

test("the token is read before each connection", async () => {
  /** @type {string[]} */
  const reasons = [];
  await connect({
    token: undefined,
    getToken: ({ reason }) => {
      reasons.push(reason);
      return `t${reasons.length}`;
    },
  });
  WebSocket.last.hello();
  assert.deepEqual(WebSocket.last.sent, [{ type: "auth", token: "t1" }]);
  WebSocket.last.end();
  await clock.advance(500);
  WebSocket.last.hello();
  assert.deepEqual(WebSocket.last.sent, [{ type: "auth", token: "t2" }]);
  assert.deepEqual(reasons, ["first", "reconnect"]);
});

test("a refused token is replaced at once, and a second refusal ends the stream", async () => {
  /** @type {string[]} */
  const reasons = [];
  const getToken = (/** @type {{reason: string}} */ { reason }) => {
    reasons.push(reason);
    return "t";
  };
  const client = await connect({ token: undefined, getToken });
  WebSocket.last.open();
  WebSocket.last.say({ type: "bye", code: 4200, reason: "token invalid or expired" });
  await settle();
  assert.equal(WebSocket.made.length, 2);
  WebSocket.last.open();
  WebSocket.last.end(4200, "token invalid or expired");
  await settle();
  assert.equal(client.status, "stopped");
  await clock.advance(600_000);
  assert.equal(WebSocket.made.length, 2);
  assert.deepEqual(reasons, ["first", "refused"]);
});

test("without a source a refused token ends the stream", async () => {
  const client = await connect();
  WebSocket.last.open();
  WebSocket.last.end(4200, "token invalid or expired");
  await settle();
  assert.equal(client.status, "stopped");
  assert.equal(WebSocket.made.length, 1);
});

test("a source that fails is asked again with back-off", async () => {
  let calls = 0;
  await connect({
    token: undefined,
    getToken: () => {
      calls++;
      throw new Error("the game is down");
    },
  });
  await clock.advance(600_000);
  assert.ok(calls > 20 && calls <= 40, `${calls} calls within ten minutes`);
  assert.equal(WebSocket.made.length, 0);
  assert.match(changes.find(({ status }) => status === "waiting")?.reason ?? "", /is down/);
});

test("a source that fails says nothing of the transport", async () => {
  let calls = 0;
  const getToken = () => {
    if (++calls < 4) throw new Error("the game is down");
    return "t";
  };
  await connect({ token: undefined, getToken, transports: ["websocket", "sse"] });
  await clock.advance(10_000);
  assert.equal(calls, 4);
  assert.equal(WebSocket.made.length, 1);
});

test("nobody is signed in: the client stops and does nothing", async () => {
  const client = await connect({ token: undefined, getToken: () => null });
  assert.equal(client.status, "stopped");
  assert.equal(changes.at(-1)?.error?.kind, "signed-out");
  assert.equal(WebSocket.made.length, 0);
});

test("the token is renewed before it ends, on the open stream", async () => {
  /** @type {string[]} */
  const reasons = [];
  await connect({
    token: undefined,
    getToken: ({ reason }) => {
      reasons.push(reason);
      return token("alice", clock.unixMs() + 100_000);
    },
  });
  WebSocket.last.hello();
  for (let i = 0; i < 10; i++) {
    await clock.advance(8_000);
    WebSocket.last.say({ type: "ping" });
  }
  assert.deepEqual(reasons, ["first"]);
  await clock.advance(11_000);
  assert.deepEqual(reasons, ["first", "expiring"]);
  const tokens = WebSocket.last.sent.filter(({ type }) => type === "auth");
  assert.equal(tokens.length, 2);
  assert.equal(WebSocket.made.length, 1);
});

test("a renewal that fails after its connection has ended leaves the next one alone", async () => {
  /** @type {((error: Error) => void) | undefined} */
  let fail;
  await connect({
    token: undefined,
    getToken: ({ reason }) =>
      reason === "expiring" && !fail
        ? new Promise((_, reject) => {
            fail = reject;
          })
        : token("alice", clock.unixMs() + (fail ? 3_600_000 : 20_000)),
  });
  WebSocket.last.hello();
  await clock.advance(19_000);
  WebSocket.last.end();
  await settle();
  fail?.(new Error("no token now"));
  await clock.advance(20_000);
  WebSocket.last.hello();
  const { length } = WebSocket.made;
  for (let i = 0; i < 12; i++) {
    await clock.advance(10_000);
    WebSocket.last.say({ type: "ping" });
  }
  assert.ok(fail);
  assert.equal(WebSocket.made.length, length);
});

test("a token that ended during sleep is replaced for the next connection", async () => {
  let calls = 0;
  await connect({
    token: undefined,
    getToken: () => {
      calls++;
      return token("alice", clock.unixMs() + 3_600_000);
    },
  });
  WebSocket.last.hello();
  clock.sleep(7_200_000);
  WebSocket.last.end();
  await clock.advance(500);
  WebSocket.last.open();
  const [{ token: sent }] = WebSocket.last.sent;
  const { exp } = JSON.parse(atob(sent.split(".")[1]));
  assert.ok(exp * 1_000 > clock.unixMs());
});

test("a token that was fetched for the cursor is good for the first connection", async () => {
  let calls = 0;
  const storage = { getItem: () => null, setItem: () => {}, removeItem: () => {} };
  await connect({ token: undefined, getToken: () => `t${++calls}`, storage });
  WebSocket.last.hello();
  assert.deepEqual(WebSocket.last.sent, [{ type: "auth", token: "t1" }]);
  assert.equal(calls, 1);
});

test("a network that comes back is tried at once, and a flapping one seldom", async (context) => {
  const page = new EventTarget();
  const { addEventListener } = globalThis;
  globalThis.addEventListener = page.addEventListener.bind(page);
  context.after(() => {
    globalThis.addEventListener = addEventListener;
  });
  await connect();
  WebSocket.last.hello();
  for (let i = 0; i < 6; i++) {
    WebSocket.last.end();
    await clock.advance(i ? 20_000 : 500);
  }
  WebSocket.last.end();
  await settle();
  let { length } = WebSocket.made;
  page.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(WebSocket.made.length, length + 1);
  length = WebSocket.made.length;
  for (let i = 0; i < 600; i++) {
    if (WebSocket.last.readyState === 0) WebSocket.last.end();
    page.dispatchEvent(new Event("online"));
    await clock.advance(100);
  }
  const attempts = WebSocket.made.length - length;
  assert.ok(attempts <= 60 / 5 + 3, `${attempts} attempts within a minute`);
});

test("a page that is shown again asks whether its line is dead", async (context) => {
  const page = Object.assign(new EventTarget(), { visibilityState: "visible" });
  globalThis.document = /** @type {any} */ (page);
  context.after(() => Reflect.deleteProperty(globalThis, "document"));
  await connect();
  const socket = WebSocket.last;
  socket.hello({ heartbeat_s: 10 });
  page.dispatchEvent(new Event("visibilitychange"));
  assert.equal(socket.sent.length, 1);
  clock.sleep(15_000);
  page.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(socket.sent.at(-1), { type: "ping" });
  await clock.advance(5_500);
  assert.equal(socket.closedByClient, true);
});

test("nothing happens after close", async () => {
  const client = await connect();
  WebSocket.last.hello();
  const socket = WebSocket.last;
  await client.close();
  socket.say(notification("c1"));
  socket.end();
  await clock.advance(60_000);
  assert.equal(WebSocket.made.length, 1);
  assert.equal(client.cursor, "c0");
  await assert.rejects(client.connect(), { kind: "closed" });
});

test("a signal closes the client", async () => {
  const controller = new AbortController();
  const client = await connect({ signal: controller.signal });
  controller.abort();
  await settle();
  assert.equal(client.status, "closed");
  assert.equal(WebSocket.last.closedByClient, true);
});
