/**
 * HTTP requests with a credential, repeated until there is a usable response.
 *
 * All requests of this client are idempotent, so all are repeated.
 *
 * @module
 */

import { jitterMs, retryAfterMs } from "./backoff.js";
import { StreamerError, problemOf } from "./errors.js";

/** @import { Credential } from "./credential.js" */
/** @import { Clock } from "./types.js" */

const ATTEMPTS_MAX = 6;
/** No attempt begins later than this after the first one. */
const RETRY_MS = 60_000;
/** Of one attempt. */
const REQUEST_MS = 15_000;
const RETRIED = [429, 502, 503, 504];
/** Limits that stay reached, however long the client waits. */
const PERMANENT_LIMITS = ["topics_per_player", "mutes_per_player"];

/**
 * @typedef {object} RequestOptions
 * @property {Record<string, unknown>} [query] `undefined` is left out; a list repeats the
 *   parameter.
 * @property {unknown} [body] Sent as JSON.
 * @property {AbortSignal} [signal]
 * @property {boolean} [once] Do not repeat it.
 */

export class Http {
  /**
   * @param {object} options
   * @param {URL} options.base Ends with a slash.
   * @param {Credential} options.credential
   * @param {boolean} options.withCredentials
   * @param {typeof globalThis.fetch} options.fetch
   * @param {Clock} options.clock
   * @param {(text: string) => any} options.parse
   */
  constructor({ base, credential, withCredentials, fetch, clock, parse }) {
    this.base = base;
    this.parse = parse;
    this.clock = clock;
    this.credentials = /** @type {RequestCredentials} */ (
      withCredentials ? "include" : "same-origin"
    );
    this.fetch = fetch;
    this.credential = credential;
  }

  /**
   * Return the decoded body of the successful response; `undefined` without one.
   *
   * @param {string} method
   * @param {string} path Relative to the server, without a slash in front.
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async request(method, path, { query = {}, body, signal, once = false } = {}) {
    const url = new URL(path, this.base);
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
    };
    const { now, random, unixMs } = this.clock;
    const lastStart = now() + RETRY_MS;
    for (let attempt = 0; ; attempt++) {
      signal?.throwIfAborted();
      let delayMs = jitterMs(attempt, random());
      let error;
      try {
        const response = await this.#send(url, init, signal);
        if (response.ok) return await this.#read(response);
        delayMs += retryAfterMs(response.headers, unixMs());
        const { problem, text } = await problemOf(response);
        const { status } = response;
        const passes =
          !PERMANENT_LIMITS.includes(problem?.limit ?? "") &&
          (RETRIED.includes(status) ||
            (status === 409 && response.headers.has("Retry-After")));
        const kind = passes ? "unavailable" : "rejected";
        error = new StreamerError(kind, text, { status, problem });
      } catch (cause) {
        signal?.throwIfAborted();
        if (cause instanceof StreamerError) error = cause;
        else error = new StreamerError("unavailable", `no response: ${cause}`, { cause });
      }
      const isLast = once || attempt + 1 >= ATTEMPTS_MAX || now() + delayMs > lastStart;
      if (error.kind !== "unavailable" || isLast) throw error;
      await this.sleep(delayMs, signal);
    }
  }

  /**
   * Return the headers of a request with `token`.
   *
   * @param {string | null | undefined} token
   * @returns {Record<string, string>}
   */
  headers(token) {
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  /**
   * @param {number} ms
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>} Fulfilled also when `signal` is aborted.
   */
  sleep(ms, signal) {
    return new Promise((resolve) => {
      const end = () => {
        this.clock.clearTimeout(timer);
        signal?.removeEventListener("abort", end);
        resolve();
      };
      const timer = this.clock.setTimeout(end, ms);
      signal?.addEventListener("abort", end);
    });
  }

  /**
   * Send a request, and once more with a new token if the first is refused.
   *
   * @param {URL} url
   * @param {RequestInit} init
   * @param {AbortSignal} [signal]
   */
  async #send(url, init, signal) {
    const token = await this.credential.current();
    const response = await this.#fetch(url, init, token, signal);
    if (response.status !== 401 || !this.credential.canRenew) return response;
    // Another request may have renewed it meanwhile.
    const isOld = this.credential.token === token;
    const renewed = isOld ? await this.credential.renew("refused") : await this.credential.current();
    return renewed ? this.#fetch(url, init, renewed, signal) : response;
  }

  /**
   * @param {URL} url
   * @param {RequestInit} init
   * @param {string | null} token
   * @param {AbortSignal} [signal]
   */
  async #fetch(url, init, token, signal) {
    const limit = new AbortController();
    const abort = () => limit.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    const timer = this.clock.setTimeout(
      () => limit.abort(new Error(`no response within ${REQUEST_MS} ms`)),
      REQUEST_MS,
    );
    try {
      const headers = { ...init.headers, ...this.headers(token) };
      const { credentials } = this;
      const { fetch } = this;
      const response = await fetch(url, { ...init, headers, credentials, signal: limit.signal });
      // The time limit includes the body.
      const text = await response.text();
      const empty = [204, 304].includes(response.status);
      return new Response(empty ? null : text, response);
    } finally {
      this.clock.clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** @param {Response} response */
  async #read(response) {
    if (response.status === 204) return undefined;
    const text = await response.text();
    try {
      return this.parse(text);
    } catch (cause) {
      // For example the page of a captive portal.
      throw new StreamerError("unavailable", "the response is not JSON", { cause });
    }
  }
}
