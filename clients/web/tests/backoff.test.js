import assert from "node:assert/strict";
import { test } from "node:test";

import { Reconnect, jitterMs } from "../src/backoff.js";
import { endingOf, retryAfterMs } from "../src/refusals.js";

const LOST = { reason: "lost", code: 1006 };

/** @param {boolean} [canRenew] */
function reconnect(canRenew = false) {
  return new Reconnect(canRenew, () => 0.5);
}

test("the wait has full jitter below a limit that doubles up to 20 s", () => {
  const limits = [0, 1, 2, 3, 4, 5, 6, 7, 2_000].map((attempt) => jitterMs(attempt, 1));
  assert.deepEqual(limits, [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000, 20000]);
  assert.equal(jitterMs(3, 0), 0);
});

test("each attempt doubles the limit, and a connection that lasted resets it", () => {
  const next = reconnect();
  assert.equal(next.after(LOST, 0).waitMs, 250);
  assert.equal(next.after(LOST, 9_999).waitMs, 500);
  assert.equal(next.after(LOST, 10_000).waitMs, 250);
  next.after(LOST, 0);
  next.proved();
  assert.equal(next.after(LOST, 0).waitMs, 250);
});

for (const code of [undefined, 1000, 1001, 1006, 1011, 4000, 4099, 4300, 4999]) {
  test(`${code} reconnects with back-off`, () => {
    const ending = { reason: "", code, delayMs: 9_000 };
    assert.deepEqual(reconnect().after(ending, 0), { waitMs: 250 });
  });
}

for (const code of [4100, 4101, 4199]) {
  test(`${code} reconnects after the server's delay, plus jitter`, () => {
    const next = reconnect();
    const ending = { reason: "", code, delayMs: 9_000 };
    assert.deepEqual(next.after(ending, 0), { waitMs: 9_250, asked: true });
    assert.deepEqual(next.after({ reason: "", code, delayMs: 0 }, 0), { waitMs: 500 });
  });
}

test("a delay of hours is a mistake", () => {
  const ending = { reason: "", code: 4100, delayMs: 1e9 };
  assert.equal(reconnect().after(ending, 0).waitMs, 300_250);
});

for (const code of [4200, 4201, 4202, 4203, 4299]) {
  test(`${code} ends the stream, with what the server says`, () => {
    const problem = { detail: "no" };
    const { stop } = reconnect().after({ reason: "why", code, status: 401, problem }, 0);
    assert.equal(stop?.kind, "refused");
    assert.equal(stop?.code, code);
    assert.equal(stop?.message, "why");
    assert.deepEqual(stop?.problem, problem);
  });
}

test("a refused token is replaced once in a row", () => {
  const next = reconnect(true);
  const refused = { reason: "", code: 4200 };
  assert.deepEqual(next.after(refused, 0), { newToken: true });
  assert.equal(next.after(refused, 9_999).stop?.code, 4200);
  const other = reconnect(true);
  other.after(refused, 0);
  assert.deepEqual(other.after(refused, 10_000), { newToken: true });
});

test("the status of a refusal is the close code with the same meaning", async () => {
  const codes = { 400: 4203, 401: 4200, 403: 4201, 404: 4203, 409: 4101, 426: 4203 };
  for (const [status, code] of Object.entries({ ...codes, 429: 4102, 503: 4102 })) {
    const ending = await endingOf(new Response("", { status: Number(status) }), 0);
    assert.equal(ending.code, code, status);
  }
});

test("a refusal has the server's problem and its delay", async () => {
  const problem = { type: "about:draining", detail: "the server is shutting down" };
  const headers = { "Retry-After": "7", "Content-Type": "application/problem+json" };
  const response = new Response(JSON.stringify(problem), { status: 503, headers });
  const ending = await endingOf(response, 0);
  assert.deepEqual(ending.problem, problem);
  assert.equal(ending.reason, "503 the server is shutting down");
  assert.equal(ending.delayMs, 7_000);
});

test("the page of a captive portal refuses nothing", async () => {
  const headers = { "Content-Type": "text/html; charset=utf-8" };
  for (const status of [401, 403, 404]) {
    const response = new Response("<html>", { status, headers });
    assert.equal((await endingOf(response, 0)).code, undefined);
  }
});

test("both forms of Retry-After are read, and nothing else", () => {
  const at = Date.parse("2026-11-28T12:00:00Z");
  /** @param {string} value */
  const read = (value) => retryAfterMs(new Headers({ "Retry-After": value }), at);
  assert.equal(read("3"), 3_000);
  assert.equal(read("Sat, 28 Nov 2026 12:00:09 GMT"), 9_000);
  assert.equal(read("Sat, 28 Nov 2026 11:00:00 GMT"), 0);
  assert.equal(read("soon"), 0);
  assert.equal(read("99999999999"), 300_000);
  assert.equal(retryAfterMs(new Headers(), at), 0);
});
