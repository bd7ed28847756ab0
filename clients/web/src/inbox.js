/** @import { Http } from "./http.js" */
/** @import { Mark, Membership, Mutes, Notification, Page, PageOptions, Receipt } from "./types.js" */

const PLAYER = "v1/players/me/";
const INBOX = `${PLAYER}notifications`;

/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal]
 * @property {boolean} [once] Do not repeat the request while the server is unavailable.
 */

/**
 * The inbox of the token's player.
 *
 * All operations are idempotent. While the server is unavailable, each is attempted up
 * to six times within a minute. They reject with a `StreamerError` whose `kind` is
 * `rejected` or `unavailable`, or with the reason of `signal`.
 */
export class Inbox {
  #http;

  /** @param {Http} http */
  constructor(http) {
    this.#http = http;
  }

  /**
   * Return a page, newest first.
   *
   * With filters a page may have fewer than `limit` notifications, or none, and still
   * have a `next`.
   *
   * @param {PageOptions} [options]
   * @returns {Promise<Page>}
   */
  page({ oldestFirst, unread, type, priority, signal, ...rest } = {}) {
    const query = {
      ...rest,
      type: escaped(type),
      priority: escaped(priority),
      unread: unread ? "true" : undefined,
      order: oldestFirst ? "oldest" : undefined,
    };
    return this.#http.request("GET", INBOX, { query, signal });
  }

  /**
   * Iterate over the notifications of all pages, newest first. Reads a page at a time.
   *
   * @param {PageOptions} [options]
   * @returns {AsyncGenerator<Notification, void, void>}
   */
  async *notifications(options = {}) {
    for (let next; next !== null; ) {
      const place = options.oldestFirst ? "after" : "before";
      /** @type {Page} */
      const page = await this.page(next ? { ...options, [place]: next } : options);
      yield* page.notifications;
      next = page.next;
    }
  }

  /**
   * Return one notification. Rejects with status 404 if the inbox does not have it.
   *
   * @param {string} id
   * @param {Options} [options]
   * @returns {Promise<Notification>}
   */
  get(id, options) {
    return this.#http.request("GET", `${INBOX}/${encodeURIComponent(id)}`, options);
  }

  /**
   * Delete a notification from the inbox, on all devices. Rejects with status 404 if the
   * inbox never had it.
   *
   * @param {string} id
   * @param {Options} [options]
   * @returns {Promise<void>}
   */
  delete(id, options) {
    return this.#http.request("DELETE", `${INBOX}/${encodeURIComponent(id)}`, options);
  }

  /**
   * Mark as read; return how many notifications remain unread.
   *
   * @param {Mark} mark
   * @param {Options} [options]
   * @returns {Promise<number>}
   */
  async markRead(mark, options) {
    const body = markBody(mark);
    return (await this.#http.request("POST", `${INBOX}/read`, { ...options, body })).unread;
  }

  /**
   * Remove read marks (of up to 1,000 ids); return how many are unread.
   *
   * @param {string[]} ids
   * @param {Options} [options]
   * @returns {Promise<number>}
   */
  async markUnread(ids, options) {
    const body = { ids };
    return (await this.#http.request("POST", `${INBOX}/unread`, { ...options, body })).unread;
  }

  /**
   * Acknowledge that everything up to `cursor` has arrived. This is for receipts.
   *
   * @param {string} cursor A cursor or an id.
   * @param {Options} [options]
   * @returns {Promise<void>}
   */
  ack(cursor, options) {
    return this.#http.request("POST", `${INBOX}/ack`, { ...options, body: { cursor } });
  }

  /**
   * Return the state of a notification.
   *
   * @param {string} id
   * @param {Options} [options]
   * @returns {Promise<Receipt>}
   */
  receipt(id, options) {
    const path = `${INBOX}/${encodeURIComponent(id)}/receipt`;
    return this.#http.request("GET", path, options);
  }

  /**
   * Return the topics that the player is subscribed to.
   *
   * @param {Options} [options]
   * @returns {Promise<Membership[]>}
   */
  async topics(options) {
    return (await this.#http.request("GET", `${PLAYER}topics`, options)).topics;
  }

  /**
   * Subscribe the player to what is sent to `topic` from now on, on every device.
   *
   * @param {string} topic
   * @param {Options} [options]
   * @returns {Promise<void>}
   */
  join(topic, options) {
    return this.#http.request("PUT", `${PLAYER}topics/${segments(topic)}`, options);
  }

  /**
   * Unsubscribe the player from `topic`; its messages leave the inbox.
   *
   * @param {string} topic
   * @param {Options} [options]
   * @returns {Promise<void>}
   */
  leave(topic, options) {
    return this.#http.request("DELETE", `${PLAYER}topics/${segments(topic)}`, options);
  }

  /**
   * Return what the player has muted.
   *
   * @param {Options} [options]
   * @returns {Promise<Mutes>}
   */
  mutes(options) {
    return this.#http.request("GET", `${PLAYER}mutes`, options);
  }

  /**
   * Mute a type, which is not stored for the player from now on, or a topic, whose
   * messages are hidden while it is muted.
   *
   * @param {{type: string} | {topic: string}} what
   * @param {Options} [options]
   * @returns {Promise<void>}
   */
  mute(what, options) {
    return this.#http.request("PUT", mutePath(what), options);
  }

  /**
   * Unmute a type or a topic.
   *
   * @param {{type: string} | {topic: string}} what
   * @param {Options} [options]
   * @returns {Promise<void>}
   */
  unmute(what, options) {
    return this.#http.request("DELETE", mutePath(what), options);
  }
}

/**
 * Return the body of a request that marks as read.
 *
 * @param {Mark} mark
 */
export function markBody({ ids, upTo, all }) {
  if ([ids, upTo, all].filter((value) => value !== undefined).length !== 1) {
    throw new TypeError("give exactly one of ids, upTo and all");
  }
  return { ids, up_to: upTo, all };
}

/** @param {string | string[] | undefined} values */
function escaped(values) {
  // In the query a comma separates values.
  return [values ?? []].flat().map((value) => value.replace(/[\\,]/g, "\\$&"));
}

/** @param {string} topic */
function segments(topic) {
  return topic.split("/").map(encodeURIComponent).join("/");
}

/** @param {{type: string} | {topic: string}} what */
function mutePath(what) {
  return "type" in what
    ? `${PLAYER}mutes/types/${encodeURIComponent(what.type)}`
    : `${PLAYER}mutes/topics/${segments(what.topic)}`;
}
