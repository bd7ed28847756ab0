/**
 * HTTP requests with a credential, repeated until there is a usable response.
 *
 * All requests of this client are idempotent, so all may be repeated.
 *
 * @module
 */

import { jitterMs } from "./backoff.js";
import { StreamerError } from "./errors.js";
import { problemOf, retryAfterMs } from "./refusals.js";

/** @import { Http } from "./http.js" */
/** @import { RequestOptions } from "./internal.js" */

const ATTEMPTS_MAX = 6;
/** No attempt begins later than this after the first one. */
const RETRY_MS = 60_000;
/** Of one attempt, with the body of the response. */
const REQUEST_MS = 15_000;
const RETRIED = [429, 502, 503, 504];
/** Limits that stay reached, however long the client waits. */
const PERMANENT_LIMITS = ["topics_per_player", "mutes_per_player"];

/**
 * Return the decoded body of the successful response; `undefined` without one.
 *
 * @param {Http} http
 * @param {string} method
 * @param {string} path
 * @param {RequestOptions} options
 * @returns {Promise<any>}
 */
export async function request(http, method, path, options) {
  const { query = {}, body, signal, once, heldMs = 0 } = options;
  const url = new URL(path, http.base);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) {
      if (one !== undefined) url.searchParams.append(name, String(one));
    }
  }
  /** @type {RequestInit} */
  const init = {
    method,
    body: body === undefined ? undefined : JSON.stringify(body),
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    credentials: http.credentials,
  };
  const { now, random, unixMs } = http.clock;
  const lastStart = now() + RETRY_MS;
  for (let attempt = 0; ; attempt++) {
    signal?.throwIfAborted();
    let delayMs = jitterMs(attempt, random());
    let error;
    try {
      const response = await authorized(http, url, init, REQUEST_MS + heldMs, signal);
      if (response.ok) return await decoded(http, response);
      const { status, headers } = response;
      const askedMs = retryAfterMs(headers, unixMs());
      delayMs += askedMs;
      const { problem, text } = await problemOf(response);
      const passes =
        !PERMANENT_LIMITS.includes(problem?.limit ?? "") &&
        (RETRIED.includes(status) || (status === 409 && headers.has("Retry-After")));
      const kind = passes ? "unavailable" : "rejected";
      error = new StreamerError(kind, text, { status, problem, retryAfterMs: askedMs });
    } catch (cause) {
      signal?.throwIfAborted();
      if (cause instanceof StreamerError) error = cause;
      else error = new StreamerError("unavailable", `no response: ${cause}`, { cause });
    }
    const isLast = once || attempt + 1 >= ATTEMPTS_MAX || now() + delayMs > lastStart;
    if (error.kind !== "unavailable" || isLast) throw error;
    await http.sleep(delayMs, signal);
  }
}

/**
 * Send a request, and once more with a new token if the first is refused.
 *
 * @param {Http} http
 * @param {URL} url
 * @param {RequestInit} init
 * @param {number} limitMs Of each attempt.
 * @param {AbortSignal} [signal]
 */
async function authorized(http, url, init, limitMs, signal) {
  const { credential } = http;
  const token = await credential.current();
  const response = await send(http, url, init, token, limitMs, signal);
  if (response.status !== 401 || !credential.canRenew) return response;
  // Another request may have renewed it meanwhile.
  const isOld = credential.token === token;
  const renewed = await (isOld ? credential.renew("refused") : credential.current());
  return renewed ? send(http, url, init, renewed, limitMs, signal) : response;
}

/**
 * @param {Http} http
 * @param {URL} url
 * @param {RequestInit} init
 * @param {string | null} token
 * @param {number} limitMs
 * @param {AbortSignal} [signal]
 */
async function send({ clock, fetch, headers }, url, init, token, limitMs, signal) {
  const limit = new AbortController();
  const abort = () => limit.abort(signal?.reason);
  signal?.addEventListener("abort", abort);
  const timer = clock.setTimeout(
    () => limit.abort(new Error(`no response within ${limitMs} ms`)),
    limitMs,
  );
  try {
    const response = await fetch(url, {
      ...init,
      headers: { ...init.headers, ...headers(token) },
      signal: limit.signal,
    });
    const text = await response.text();
    return new Response(response.status === 204 ? null : text, response);
  } finally {
    clock.clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * @param {Http} http
 * @param {Response} response
 */
async function decoded({ parse }, response) {
  if (response.status === 204) return undefined;
  const text = await response.text();
  try {
    return parse(text);
  } catch (cause) {
    // For example the page of a captive portal.
    throw new StreamerError("unavailable", "the response is not JSON", { cause });
  }
}
