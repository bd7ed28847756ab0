/**
 * Whether and when to reconnect. Values in, values out: no clock, no timers.
 *
 * Decides by the range of a close code, so a server may have codes that this client does
 * not know:
 *
 *     4000-4099  with back-off; so do all others, such as 1001 and 1006
 *     4100-4199  after the server's delay, plus jitter
 *     4200-4299  never; 4200 once more with another token
 *
 * @module
 */

import { StreamerError } from "./errors.js";

/** @import { Ending, Step } from "./internal.js" */

const FIRST_MS = 500;
const MAX_MS = 20_000;
/** A connection that lasted so long has proved itself. */
const STABLE_MS = 10_000;
/** A longer delay is a mistake: the client would look dead. */
export const DELAY_MAX_MS = 300_000;

/**
 * Return the wait before retry `attempt`, which begins at 0; `random` is less than 1.
 *
 * @param {number} attempt
 * @param {number} random
 */
export function jitterMs(attempt, random) {
  return random * Math.min(MAX_MS, FIRST_MS * 2 ** Math.min(attempt, 16));
}

/** The decisions of one stream, over all its connections. */
export class Reconnect {
  /** Attempts since a connection last proved itself. */
  attempt = 0;
  #renewed = false;
  #canRenew;
  #random;

  /**
   * @param {boolean} canRenew Whether the client can get another token.
   * @param {() => number} random
   */
  constructor(canRenew, random) {
    this.#canRenew = canRenew;
    this.#random = random;
  }

  /** Note that the connection works: it has delivered something new, or has lasted. */
  proved() {
    this.attempt = 0;
    this.#renewed = false;
  }

  /**
   * Decide what to do after `ending`. Call it once per attempt.
   *
   * @param {Ending} ending
   * @param {number} openMs How long the connection was open; 0 if there was none.
   * @returns {Step}
   */
  after(ending, openMs) {
    if (openMs >= STABLE_MS) this.proved();
    const { code = 0, reason, status, problem } = ending;
    if (ending.signedOut) return { stop: new StreamerError("signed-out", reason) };
    if (code === 4200 && this.#canRenew && !this.#renewed) {
      // Once in a row: a source whose new token is refused as well would be called
      // without an end and without a wait.
      this.#renewed = true;
      return { newToken: true };
    }
    if (code >= 4200 && code <= 4299) {
      return { stop: new StreamerError("refused", reason, { code, status, problem }) };
    }
    this.#renewed = false;
    if (ending.again) return { waitMs: 0 };
    const waitMs = jitterMs(this.attempt++, this.#random());
    const delayMs = ending.delayMs ?? 0;
    if (code >= 4100 && code <= 4199 && delayMs > 0) {
      return { waitMs: Math.min(delayMs, DELAY_MAX_MS) + waitMs, asked: true };
    }
    return { waitMs };
  }
}
