/** @import { Credential } from "./credential.js" */
/** @import { RequestOptions } from "./internal.js" */
/** @import { Clock } from "./types.js" */

/** How to reach one server with one credential. */
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
    this.credential = credential;
    this.fetch = fetch;
    this.clock = clock;
    this.parse = parse;
    this.credentials = /** @type {RequestCredentials} */ (
      withCredentials ? "include" : "same-origin"
    );
  }

  /**
   * Return the decoded body of the successful response; `undefined` without one.
   *
   * @param {string} method
   * @param {string} path Relative to the server, without a slash in front.
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   */
  async request(method, path, options = {}) {
    const { request } = await import("./request.js");
    return request(this, method, path, options);
  }

  /**
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
      if (signal?.aborted) end();
      signal?.addEventListener("abort", end);
    });
  }
}
