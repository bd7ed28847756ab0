/**
 * Marks and acknowledgements that could not be sent yet.
 *
 * They are kept in IndexedDB, in memory where there is none, and are sent in their order.
 * All of them are idempotent, so it does no harm if two tabs send one.
 *
 * @module
 */

import { jitterMs } from "./backoff.js";
import { StreamerError } from "./errors.js";
import { markBody } from "./inbox.js";
import { watchPage } from "./page.js";

/** @import { Http } from "./http.js" */
/** @import { Inbox } from "./inbox.js" */
/** @import { Mark } from "./types.js" */

/** The oldest one is dropped for another one. */
const KEPT_MAX = 1_000;
/** The ids of one request. */
const IDS_MAX = 1_000;

/**
 * One of the members `mark`, `unmark` and `ack`.
 *
 * @typedef {object} Change
 * @property {Mark} [mark]
 * @property {string[]} [unmark] Ids.
 * @property {string} [ack] A cursor.
 */

/**
 * @typedef {object} Kept
 * @property {number} [id] Assigned by the store, ascending.
 * @property {string} scope Whose it is: server and player.
 * @property {Change} change
 */

export class MarkQueue {
  #scope;
  #inbox;
  #http;
  #store = openStore();
  /** @type {Promise<void> | undefined} */
  #sending;
  /**
   * Who waits for the result of the first attempt, and what that is.
   *
   * @type {Map<number, {change: Change, resolve: (unread?: number) => void, reject: (error: unknown) => void}>}
   */
  #callers = new Map();
  #attempt = 0;
  /** @type {any} */
  #timer;
  #closing = new AbortController();

  /**
   * @param {string} key Names the server.
   * @param {Inbox} inbox
   * @param {Http} http
   */
  constructor(key, inbox, http) {
    this.#scope = () => `${key} ${http.credential.player}`;
    this.#inbox = inbox;
    this.#http = http;
    const flush = () => void this.flush();
    const nothing = () => {};
    watchPage(this.#closing.signal, {
      ...{ onNetwork: flush, onVisible: flush, onShow: flush },
      ...{ onOffline: nothing, onHide: nothing },
    });
    flush();
  }

  /**
   * Keep a change and send it.
   *
   * @param {Change} change
   * @param {string | null} [cursor] The newest notification that the player can know:
   *   a mark of everything that is sent later must not mark more.
   * @returns {Promise<number | undefined>} The number of unread; `undefined` if it is
   *   sent later. Rejected if the server refuses it.
   */
  async add(change, cursor) {
    if (change.mark) markBody(change.mark);
    // "earliest" is no point of the inbox: nothing has been received yet.
    const isPoint = cursor && cursor !== "earliest";
    const later = change.mark?.all && isPoint ? { mark: { upTo: cursor } } : change;
    const store = await this.#store;
    const id = await store.add({ scope: this.#scope(), change: later });
    const result = new Promise((resolve, reject) => {
      this.#callers.set(id, { change, resolve, reject });
    });
    this.#attempt = 0;
    void this.flush();
    return /** @type {Promise<number | undefined>} */ (result);
  }

  /**
   * Send everything that is kept, as far as possible.
   *
   * @returns {Promise<void>}
   */
  flush() {
    // What is added meanwhile is sent in another turn.
    const before = this.#sending ?? Promise.resolve();
    const sending = before.then(() => this.#send()).finally(() => {
      if (this.#sending === sending) this.#sending = undefined;
    });
    this.#sending = sending;
    return sending;
  }

  /** Stop sending. What is kept stays. */
  close() {
    this.#closing.abort();
    this.#http.clock.clearTimeout(this.#timer);
    this.#giveUp();
  }

  /** Delete what is kept. */
  async clear() {
    const store = await this.#store;
    const scope = this.#scope();
    const kept = (await store.all()).filter((one) => one.scope === scope);
    await store.remove(kept.map(({ id }) => /** @type {number} */ (id)));
  }

  async #send() {
    const { clock } = this.#http;
    clock.clearTimeout(this.#timer);
    const store = await this.#store;
    try {
      for (;;) {
        const scope = this.#scope();
        const kept = (await store.all()).filter((one) => one.scope === scope);
        const group = firstGroup(kept);
        if (!group || this.#closing.signal.aborted) return;
        const { ids } = group;
        const first = this.#callers.get(ids[0])?.change;
        const change = ids.length === 1 && first ? first : group.change;
        try {
          const unread = await this.#request(change);
          await store.remove(ids);
          for (const id of ids) this.#callers.get(id)?.resolve(unread);
        } catch (error) {
          // A token that is refused now may be replaced before the next attempt.
          const isFinal =
            error instanceof StreamerError && error.kind === "rejected" && error.status !== 401;
          if (!isFinal) throw error;
          await store.remove(ids);
          for (const id of ids) this.#callers.get(id)?.reject(error);
        }
        for (const id of ids) this.#callers.delete(id);
        this.#attempt = 0;
      }
    } catch {
      if (this.#closing.signal.aborted) return;
      this.#timer = clock.setTimeout(
        () => void this.flush(),
        1_000 + jitterMs(this.#attempt++, clock.random()),
      );
    }
    this.#giveUp();
  }

  /** Tell all callers that their changes are sent later. */
  #giveUp() {
    for (const { resolve } of this.#callers.values()) resolve(undefined);
    this.#callers.clear();
  }

  /**
   * @param {Change} change
   * @returns {Promise<number | undefined>}
   */
  async #request({ mark, unmark, ack }) {
    const options = { once: true, signal: this.#closing.signal };
    if (mark) return this.#inbox.markRead(mark, options);
    if (unmark) return this.#inbox.markUnread(unmark, options);
    if (ack) await this.#inbox.ack(ack, options);
    return undefined;
  }
}

/**
 * Return the first changes that one request can carry.
 *
 * @param {Kept[]} kept
 * @returns {{ids: number[], change: Change} | undefined}
 */
function firstGroup([first, ...rest]) {
  if (!first) return undefined;
  const ids = [/** @type {number} */ (first.id)];
  let { change } = first;
  for (const next of rest) {
    const more = next.change;
    if (change.ack && more.ack) change = more;
    else if (change.mark?.ids && more.mark?.ids) {
      const all = [...new Set([...change.mark.ids, ...more.mark.ids])];
      if (all.length > IDS_MAX) break;
      change = { mark: { ids: all } };
    } else break;
    ids.push(/** @type {number} */ (next.id));
  }
  return { ids, change };
}

/**
 * @typedef {object} Store
 * @property {(kept: Kept) => Promise<number>} add
 * @property {() => Promise<Kept[]>} all In the order in which they were added.
 * @property {(ids: number[]) => Promise<void>} remove
 */

/** @returns {Promise<Store>} */
async function openStore() {
  try {
    return await indexedDbStore();
  } catch {
    // There is none, or the browser allows none.
    return memoryStore();
  }
}

/** @returns {Store} */
function memoryStore() {
  /** @type {Kept[]} */
  let list = [];
  let last = 0;
  return {
    async add(kept) {
      list = [...list, { ...kept, id: ++last }].slice(-KEPT_MAX);
      return last;
    },
    all: async () => list,
    async remove(ids) {
      list = list.filter(({ id }) => !ids.includes(/** @type {number} */ (id)));
    },
  };
}

/** @returns {Promise<Store>} */
async function indexedDbStore() {
  const opening = indexedDB.open("streamer-client", 1);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore("marks", { keyPath: "id", autoIncrement: true });
  };
  const database = await result(opening);
  /** @param {IDBTransactionMode} mode */
  const marks = (mode) => database.transaction("marks", mode).objectStore("marks");
  return {
    async add(kept) {
      const store = marks("readwrite");
      const id = Number(await result(store.add(kept)));
      const count = await result(store.count());
      if (count > KEPT_MAX) store.delete(IDBKeyRange.upperBound(id - KEPT_MAX));
      return id;
    },
    all: () => result(marks("readonly").getAll()),
    async remove(ids) {
      const store = marks("readwrite");
      await Promise.all(ids.map((id) => result(store.delete(id))));
    },
  };
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
