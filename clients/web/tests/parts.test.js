import assert from "node:assert/strict";
import { test } from "node:test";

import { Credential } from "../src/credential.js";
import { EventParser, asMessage } from "../src/transports/sse.js";
import { StreamerClient } from "../src/index.js";
import { FakeClock, settle, token } from "./helpers.js";

/** @param {string[]} chunks */
function events(...chunks) {
  /** @type {unknown[]} */
  const found = [];
  const parser = new EventParser((...event) => found.push(event));
  for (const chunk of chunks) parser.push(chunk);
  return found;
}

test("events are divided, whatever ends a line and wherever the text is cut", () => {
  const expected = [
    ["hello", '{"a":1}', "c0"],
    ["", '{"b":"x: y"}', undefined],
  ];
  for (const end of ["\n", "\r\n", "\r"]) {
    const lines = ["retry: 1", "id: c0", "event: hello", 'data: {"a":1}', ""];
    const text = [...lines, ": comment", 'data:{"b":"x: y"}', "", ""].join(end) + end;
    assert.deepEqual(events(text), expected);
    assert.deepEqual(events(...text), expected, JSON.stringify(end));
  }
});

test("a block without data is no event", () => {
  assert.deepEqual(events("retry: 5\n\nid: c\n\n"), []);
});

test("an event is the message with the same meaning", () => {
  const parse = JSON.parse;
  assert.deepEqual(asMessage("", '{"id":"i"}', "c", parse), {
    ...{ type: "notification", notification: { id: "i" }, cursor: "c" },
  });
  assert.deepEqual(asMessage("unread", '{"unread":2}', undefined, parse), {
    ...{ type: "unread", unread: 2 },
  });
  assert.deepEqual(asMessage("bye", "{", undefined, parse), { type: "bye" });
});

test("several callers at once cause one call of the source", async () => {
  let calls = 0;
  const getToken = async () => `t${++calls}`;
  const { signal } = new AbortController();
  const credential = new Credential({ getToken }, new FakeClock(), signal);
  const results = [credential.current(), credential.renew("refused"), credential.current()];
  assert.deepEqual(await Promise.all(results), ["t1", "t1", "t1"]);
});

test("the first connection uses the token that is given, and the next asks", async () => {
  const options = { token: "t0", getToken: () => "t1" };
  const credential = new Credential(options, new FakeClock(), new AbortController().signal);
  assert.equal(await credential.forConnection("first"), "t0");
  assert.equal(await credential.forConnection("reconnect"), "t1");
});

test("a token is renewed between 75 and 90 % of its life", async () => {
  const clock = new FakeClock();
  const now = clock.unixMs();
  const getToken = () => token("alice", now + 100_000);
  const credential = new Credential({ getToken }, clock, new AbortController().signal);
  await credential.current();
  for (const [random, expected] of [[0, 75_000], [1, 90_000]]) {
    clock.random = () => random;
    assert.ok(Math.abs(credential.renewalAt() - now - expected) < 1_000);
  }
  clock.skewMs = 200_000;
  assert.equal(credential.renewalAt(), Infinity);
});

test("an opaque token says when it expires beside it", async () => {
  const clock = new FakeClock();
  const expires_at = new Date(clock.unixMs() + 100_000).toISOString();
  const getToken = () => ({ token: "opaque", expires_at });
  const credential = new Credential({ getToken }, clock, new AbortController().signal);
  assert.equal(await credential.current(), "opaque");
  assert.ok(credential.renewalAt() < clock.unixMs() + 100_000);
});

/** @param {(url: URL, init: RequestInit) => Response} answer */
function client(answer, options = {}) {
  const clock = new FakeClock();
  /** @type {string[]} */
  const requests = [];
  /** @param {URL} url @param {RequestInit} init */
  const fetch = async (url, init) => {
    requests.push(`${init.method} ${url.pathname}${decodeURIComponent(url.search)}`);
    return answer(url, init);
  };
  const made = new StreamerClient({
    ...{ url: "http://push.example/base/", token: "t", clock },
    ...{ fetch: /** @type {any} */ (fetch), ...options },
  });
  return { inbox: made.inbox, requests, clock };
}

const page = (members = {}) =>
  Response.json({ notifications: [], next: null, unread: 0, cursor: "c", ...members });

test("a page has the parameters of the protocol", async () => {
  const { inbox, requests } = client(() => page());
  await inbox.page();
  await inbox.page({ limit: 5, before: "b", after: "a", type: "x,y\\", unread: true });
  await inbox.page({ type: ["a", "b"], oldestFirst: true, topic: "news" });
  const path = "GET /base/v1/players/me/notifications";
  assert.deepEqual(requests, [
    path,
    `${path}?limit=5&before=b&after=a&type=x\\,y\\\\&unread=true`,
    `${path}?topic=news&type=a&type=b&order=oldest`,
  ]);
});

test("all pages are read, also where one is empty", async () => {
  const pages = [page({ notifications: [{ id: "1" }], next: "n" }), page({ next: "m" })];
  pages.push(page({ notifications: [{ id: "2" }] }));
  const { inbox, requests } = client(() => /** @type {Response} */ (pages.shift()));
  const ids = [];
  for await (const { id } of inbox.notifications()) ids.push(id);
  assert.deepEqual(ids, ["1", "2"]);
  assert.match(requests[2], /before=m$/);
});

test("a mark is of one kind", async () => {
  const { inbox } = client(() => Response.json({ unread: 0 }));
  await assert.rejects(inbox.markRead({}), TypeError);
  await assert.rejects(inbox.markRead({ ids: [], all: true }), TypeError);
});

test("a request is repeated while the server is unavailable, after Retry-After", async () => {
  let count = 0;
  const { inbox, clock, requests } = client(() => {
    const headers = { "Retry-After": "2" };
    return ++count < 3 ? new Response("", { status: 503, headers }) : page();
  });
  const result = inbox.page();
  await clock.advance(2_000);
  assert.equal(requests.length, 1);
  await clock.advance(500);
  assert.equal(requests.length, 2);
  await clock.advance(4_000);
  assert.equal((await result).cursor, "c");
});

test("a request is repeated a bounded number of times", async () => {
  const { inbox, clock, requests } = client(() => {
    throw new TypeError("fetch failed");
  });
  const result = inbox.page();
  result.catch(() => {});
  await clock.advance(600_000);
  await assert.rejects(result, { kind: "unavailable" });
  assert.equal(requests.length, 6);
});

for (const status of [400, 403, 404, 409, 413, 422, 500]) {
  test(`${status} is not repeated`, async () => {
    const { inbox, requests } = client(() => Response.json({ detail: "why" }, { status }));
    await assert.rejects(inbox.page(), { kind: "rejected", status, problem: { detail: "why" } });
    assert.equal(requests.length, 1);
  });
}

test("a limit that stays reached is not waited for", async () => {
  const { inbox, requests } = client(() => {
    const init = { status: 409, headers: { "Retry-After": "1" } };
    return Response.json({ limit: "topics_per_player" }, init);
  });
  await assert.rejects(inbox.join("news"), { kind: "rejected" });
  assert.equal(requests.length, 1);
});

test("a refused token is replaced once in a request", async () => {
  let calls = 0;
  /** @type {(string | null)[]} */
  const tokens = [];
  const { inbox } = client(
    (_, { headers }) => {
      tokens.push(new Headers(headers).get("Authorization"));
      return Response.json({}, { status: 401 });
    },
    { token: undefined, getToken: () => `t${++calls}` },
  );
  await assert.rejects(inbox.page(), { kind: "rejected", status: 401 });
  assert.deepEqual(tokens, ["Bearer t1", "Bearer t2"]);
});

test("a request ends with its signal", async () => {
  const { inbox, clock } = client(() => new Response("", { status: 503 }));
  const controller = new AbortController();
  const result = inbox.page({ signal: controller.signal });
  result.catch(() => {});
  await settle();
  controller.abort(new Error("enough"));
  await clock.advance(1_000);
  await assert.rejects(result, /enough/);
});

test("the page of a captive portal is no response of the server", async () => {
  const headers = { "Content-Type": "text/html" };
  const { inbox, clock } = client(() => new Response("<html>", { headers }));
  const result = inbox.page();
  result.catch(() => {});
  await clock.advance(600_000);
  await assert.rejects(result, { kind: "unavailable" });
});

test("polling delivers once what follows the cursor of its page", async () => {
  const a = { id: "0197f1c2-0000-7000-8000-000000000001", title: "a" };
  const b = { id: "0197f1c2-0000-7000-8000-000000000002", title: "b" };
  const pages = [
    page({ cursor: "c0" }),
    page({ cursor: "c1", unread: 1, notifications: [a, b] }),
    page({ cursor: "c2", unread: 2, notifications: [b] }),
    page({ cursor: "c2", unread: 2 }),
    page({ cursor: "c2", unread: 1 }),
  ];
  const answer = () => pages.shift() ?? page({ cursor: "c2", unread: 1 });
  const clock = new FakeClock();
  const polling = new StreamerClient({
    ...{ url: "http://push.example/", token: "t", clock, transports: ["poll"] },
    fetch: /** @type {any} */ (async () => answer()),
  });
  /** @type {unknown[]} */
  const told = [];
  polling.on("notification", ({ title }) => told.push(title));
  polling.on("unread", (number) => told.push(number));
  polling.on("read", ({ ids }) => told.push(ids));
  void polling.connect();
  await clock.advance(60_000);
  assert.deepEqual(told, [0, "a", 1, "b", 2, null, 1]);
  assert.equal(polling.cursor, "c2");
  await polling.close();
});
