/** @import { Clock, GetToken, TokenReason, TokenResult } from "./types.js" */

/** The part of its life after which a token is renewed; random, so that clients that
 * connected together do not renew together. */
const RENEWAL_FIRST = 0.75;
const RENEWAL_LAST = 0.9;
const RENEWAL_MIN_MS = 1_000;
/** How long a token that was fetched for something else is good for a connection. */
const FRESH_MS = 10_000;

/** The token that all requests and streams of a client share. */
export class Credential {
  /** @type {string | undefined} */
  #token;
  /** Unix time in milliseconds. */
  #expiresAt = NaN;
  /** When the present token was fetched, if no connection has used it. */
  #unusedSince = -Infinity;
  /** @type {Promise<string | null> | undefined} */
  #fetching;
  #getToken;
  #clock;
  #signal;
  /** Called when a token is of another player. */
  onPlayer = () => {};
  /** Who the token names, as far as it can be read: `issuer|subject`. */
  player = "";

  /**
   * @param {{token?: string, getToken?: GetToken}} options
   * @param {Clock} clock
   * @param {AbortSignal} signal
   */
  constructor({ token, getToken }, clock, signal) {
    this.#getToken = getToken;
    this.#clock = clock;
    this.#signal = signal;
    if (!token) return;
    this.#set(token);
    this.#unusedSince = clock.now();
  }

  /** Whether there is a source of further tokens. */
  get canRenew() {
    return !!this.#getToken;
  }

  get token() {
    return this.#token;
  }

  /** @returns {Promise<string | null>} The present one. `null`: nobody is signed in. */
  async current() {
    return this.#token ?? this.renew("first");
  }

  /**
   * Ask for the token of a new connection: the player may have changed.
   *
   * @param {TokenReason} reason
   * @returns {Promise<string | null>}
   */
  async forConnection(reason) {
    const isFresh = this.#clock.now() - this.#unusedSince < FRESH_MS;
    const token = isFresh || !this.#getToken ? this.#token : await this.renew(reason);
    this.#unusedSince = -Infinity;
    return token ?? null;
  }

  /**
   * Ask the source for a token. Several callers at once cause one call.
   *
   * @param {TokenReason} reason
   * @returns {Promise<string | null>}
   */
  renew(reason) {
    const getToken = this.#getToken;
    if (!getToken) return Promise.resolve(this.#token ?? null);
    this.#fetching ??= (async () => {
      try {
        // So that `finally` never runs before the assignment.
        await undefined;
        const result = await getToken({ reason, signal: this.#signal });
        if (result) this.#set(result);
        else this.#token = undefined;
        if (result) this.#unusedSince = this.#clock.now();
        return this.#token ?? null;
      } finally {
        this.#fetching = undefined;
      }
    })();
    return this.#fetching;
  }

  /**
   * Return when to renew the token, in Unix milliseconds. Infinity: never, because there
   * is no source, the expiry is unknown, or the token has expired by this machine's
   * clock although the server accepts it.
   */
  renewalAt() {
    const now = this.#clock.unixMs();
    const left = this.#expiresAt - now;
    if (!this.#getToken || !(left > 0)) return Infinity;
    const part = RENEWAL_FIRST + (RENEWAL_LAST - RENEWAL_FIRST) * this.#clock.random();
    return now + Math.max(RENEWAL_MIN_MS, left * part);
  }

  /** @param {TokenResult} result */
  #set(result) {
    const { token, expires_at } =
      typeof result === "string" ? { token: result, expires_at: undefined } : result;
    this.#token = token;
    const claims = claimsOf(token);
    this.#expiresAt = expires_at ? Date.parse(expires_at) : Number(claims.exp) * 1000;
    const player = claims.sub ? `${claims.iss}|${claims.sub}` : "";
    const changed = this.player && player && player !== this.player;
    this.player = player || this.player;
    if (changed) this.onPlayer();
  }
}

/**
 * Return the claims of a JSON Web Token, unverified; none for another token.
 *
 * @param {string} token
 * @returns {{exp?: number, iss?: string, sub?: string}}
 */
function claimsOf(token) {
  try {
    const text = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
