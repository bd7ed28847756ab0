/**
 * The client: what the application calls, and what it is told.
 *
 * There are two cursors. Connections resume from the one received last. `cursor`, which
 * is stored, is that of the last event with which all listeners and iterators have
 * finished. So a crash repeats some notifications, and loses none.
 *
 * @module
 */

import { Connection } from "./connection.js";
import { Credential } from "./credential.js";
import { StreamerError } from "./errors.js";
import { EventIterator } from "./events.js";
import { Http } from "./http.js";
import { Inbox } from "./inbox.js";
import { SeenIds, UnreadCount } from "./messages.js";

/** @import { CursorStore } from "./cursor_store.js" */
/** @import { Feed, Message, Owner } from "./internal.js" */
/** @import { MarkQueue } from "./queue.js" */
/** @import { Topics } from "./topics.js" */
/** @import { ClientEvent, ClientEvents, ClientOptions, Clock, Gap } from "./types.js" */
/** @import { Mark, Notification, Status, StatusChange, TransportName } from "./types.js" */

/** @type {Clock} */
const SYSTEM_CLOCK = {
  now: () => performance.now(),
  unixMs: () => Date.now(),
  random: () => Math.random(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};
/** Room for the replays of several audiences. */
const BUFFER_MAX = 4_096;

/**
 * A player's notifications, live and in pages.
 *
 *     const client = new StreamerClient({ getToken });
 *     client.on("notification", (notification) => show(notification));
 *     client.on("unread", (count) => { badge.textContent = String(count); });
 *     client.connect();
 *
 * A client has one connection, which it opens again whenever it ends, from where it
 * ended. It gives up only if the server refuses it for good: see the status `stopped`.
 */
export class StreamerClient {
  #options;
  #http;
  #clock;
  #closing = new AbortController();
  #instance = crypto.randomUUID?.() ?? `${Math.random()}`.slice(2);
  /** @type {Feed | undefined} */
  #feed;
  /** Whether the application wants to be connected. */
  #wanted = false;
  /** @type {Status} */
  #status = "idle";
  /** @type {StatusChange} */
  #change = { status: "idle", previous: "idle" };
  /** @type {Map<string, Set<(value: any) => unknown>>} */
  #listeners = new Map();
  /** @type {Set<EventIterator>} */
  #iterators = new Set();
  #seen = new SeenIds();
  /** @type {Topics} */
  #topics = { own: new Set(), pending: [], replies: new Map() };
  #count = new UnreadCount((topic) => {
    const { own, pending } = this.#topics;
    return own.has(topic) || pending.includes(topic);
  });
  /** @type {number | null} */
  #toldUnread = null;
  /** @type {number | undefined} */
  #marksVersion;
  /** The cursor that was received last. @type {string | null} */
  #received;
  /** The cursor of the last event with which the application has finished. */
  #cursor;
  /** Cursors that wait for iterators, with the number of their event. */
  #uncommitted = /** @type {{number: number, cursor: string}[]} */ ([]);
  #eventNumber = 0;
  /** While there is one, no later cursor is stored. @type {Set<Gap>} */
  #unfilled = new Set();
  /** @type {Promise<void> | undefined} */
  #loading;
  /** @type {CursorStore | undefined} */
  #store;
  /** @type {Promise<MarkQueue> | undefined} */
  #queue;

  /** @param {ClientOptions} [options] */
  constructor(options = {}) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    const page = globalThis.location;
    // A page without an origin, such as a file, has the origin "null".
    const ownUrl = page?.origin === "null" ? undefined : page?.origin;
    const base = new URL(options.url ?? ownUrl ?? missing("url"), page?.href);
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    const { withCredentials = false } = options;
    if (!options.token && !options.getToken && !withCredentials) missing("token or getToken");
    const credential = new Credential(options, this.#clock, this.#closing.signal);
    credential.onPlayer = () => this.#forget();
    this.#http = new Http({
      base,
      credential,
      withCredentials,
      // A browser's `fetch` must not be called as a method of another object.
      fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
      clock: this.#clock,
      parse: options.parse ?? JSON.parse,
    });
    this.#topics.own = new Set(options.topics);
    this.#received = this.#cursor = options.cursor ?? null;
    /** The player's inbox over HTTP. @readonly */
    this.inbox = new Inbox(this.#http);
    const { signal } = options;
    if (signal?.aborted) void this.close();
    else signal?.addEventListener("abort", () => void this.close());
  }

  /** What the client is doing. */
  get status() {
    return this.#status;
  }

  /** The last change of the status, with its reason. */
  get statusChange() {
    return this.#change;
  }

  /** The number of unread notifications; `null` while it is unknown. */
  get unread() {
    return this.#count.number;
  }

  /**
   * The point up to which the application has processed everything; another client
   * continues from it. `null` before the first connection.
   */
  get cursor() {
    return this.#cursor;
  }

  /** The topics of this stream alone. */
  get topics() {
    return [...this.#topics.own];
  }

  /**
   * Connect, and stay connected until `close`. After `stopped` it starts over.
   *
   * The result may be ignored: the client goes on trying anyway.
   *
   * @param {{signal?: AbortSignal}} [options] Ends the waiting, not the client.
   * @returns {Promise<void>} Fulfilled when notifications arrive. Rejected when the
   *   server refuses the client for good, or the client is closed.
   */
  connect({ signal } = {}) {
    const opened = this.#opened(signal);
    // Who ignores the result learns of it by the status.
    opened.catch(() => {});
    if (this.#status !== "closed" && !this.#wanted) {
      this.#wanted = true;
      this.#setStatus({ status: "connecting" });
      this.#loading ??= this.#load();
      void this.#loading.then(() => this.#start());
    }
    return opened;
  }

  /**
   * Disconnect for good. The client cannot be used again.
   *
   * @returns {Promise<void>} Fulfilled when the cursor is stored.
   */
  async close() {
    if (this.#status === "closed") return;
    this.#wanted = false;
    this.#closing.abort();
    this.#feed?.stop();
    this.#setStatus({ status: "closed" });
    for (const iterator of this.#iterators) iterator.end();
    await this.#store?.flush();
    (await this.#queue)?.close();
  }

  /**
   * Close the client, and delete what it has stored: the cursor, and marks that were not
   * sent. Call it when the player signs out.
   *
   * @returns {Promise<void>}
   */
  async logout() {
    await this.close();
    this.#forget();
    await (await this.#cursorStore())?.clear();
    const queue = await this.#marks();
    queue?.close();
    await queue?.clear();
  }

  /**
   * Call `listener` at each event of a type, in the order of the events. An exception
   * of a listener is reported to the console and has no other effect.
   *
   * @template {keyof ClientEvents} K
   * @param {K} type
   * @param {(value: ClientEvents[K]) => unknown} listener
   * @param {{signal?: AbortSignal, once?: boolean}} [options]
   * @returns {() => void} Removes the listener.
   */
  on(type, listener, { signal, once } = {}) {
    if (signal?.aborted) return () => {};
    /** @param {ClientEvents[K]} value */
    const call = (value) => {
      if (once) remove();
      return listener(value);
    };
    const listeners = this.#listeners.get(type) ?? new Set();
    const remove = () => {
      listeners.delete(call);
      signal?.removeEventListener("abort", remove);
    };
    this.#listeners.set(type, listeners.add(call));
    signal?.addEventListener("abort", remove);
    return remove;
  }

  /**
   * Iterate over the events from now on, and connect. The iteration ends when the client
   * is closed, and throws when it is stopped.
   *
   * @param {{signal?: AbortSignal}} [options] Ends the iteration.
   * @returns {AsyncIterableIterator<ClientEvent>}
   */
  events({ signal } = {}) {
    const iterator = new EventIterator({
      onTaken: () => this.#commit(),
      onReturn: () => {
        this.#iterators.delete(iterator);
        this.#commit();
      },
    });
    this.#iterators.add(iterator);
    if (signal?.aborted || this.#status === "closed") iterator.end();
    signal?.addEventListener("abort", () => iterator.end());
    void this.connect();
    return iterator;
  }

  /**
   * Iterate over the notifications from now on; otherwise as `events`.
   *
   * @param {{signal?: AbortSignal}} [options]
   * @returns {AsyncGenerator<Notification, void, void>}
   */
  notifications(options) {
    const events = this.events(options);
    return (async function* () {
      for await (const event of events) {
        if (event.type === "notification") yield event.value;
      }
    })();
  }

  /** The same as `events()`. */
  [Symbol.asyncIterator]() {
    return this.events();
  }

  /**
   * Mark as read. With the option `queue`, what cannot be sent now is sent later, and the
   * result is `undefined`.
   *
   * @param {Mark} mark
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<number | undefined>} How many notifications remain unread.
   */
  async markRead(mark, options) {
    const queue = await this.#marks();
    return queue ? queue.add({ mark }, this.#received) : this.inbox.markRead(mark, options);
  }

  /**
   * Remove read marks. With the option `queue` as `markRead`.
   *
   * @param {string[]} ids Up to 1,000.
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<number | undefined>} How many notifications are unread.
   */
  async markUnread(ids, options) {
    const queue = await this.#marks();
    return queue ? queue.add({ unmark: ids }) : this.inbox.markUnread(ids, options);
  }

  /**
   * Acknowledge that everything up to a cursor has arrived, by default up to `cursor`.
   * This is for receipts. With the option `queue` as `markRead`.
   *
   * @param {string | null} [cursor]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<void>}
   */
  async ack(cursor = this.#cursor, options) {
    if (!cursor || cursor === "earliest") {
      throw new TypeError("there is no cursor to acknowledge yet");
    }
    const queue = await this.#marks();
    await (queue ? queue.add({ ack: cursor }) : this.inbox.ack(cursor, options));
  }

  /**
   * Iterate over the notifications that a gap has left out and that are still kept,
   * newest first. Until the iteration ends no cursor is stored; after an error call it
   * again with the same gap.
   *
   * @param {Gap} gap
   * @param {{max?: number, signal?: AbortSignal}} [options] At most `max` notifications,
   *   1,000 by default.
   * @returns {AsyncGenerator<Notification, void, void>}
   */
  async *fillGap(gap, options = {}) {
    this.#unfilled.add(gap);
    const { fillGap } = await import("./gap.js");
    yield* fillGap(this.inbox, this.#seen, gap, options, () => {
      this.#unfilled.delete(gap);
      this.#commit();
    });
  }

  /**
   * Deliver what is sent to these topics, on this stream alone: to all or to none.
   *
   * @param {...string} topics
   * @returns {Promise<void>}
   */
  subscribe(...topics) {
    return this.#changeTopics("subscribe", topics);
  }

  /**
   * Stop delivering these topics.
   *
   * @param {...string} topics
   * @returns {Promise<void>}
   */
  unsubscribe(...topics) {
    return this.#changeTopics("unsubscribe", topics);
  }

  /** @param {AbortSignal} [signal] @returns {Promise<void>} */
  #opened(signal) {
    return new Promise((resolve, reject) => {
      if (this.#status === "open") return resolve();
      const settled = new AbortController();
      /** @param {unknown} [error] */
      const settle = (error) => {
        settled.abort();
        if (error) reject(error);
        else resolve();
      };
      if (this.#status === "closed") settle(closedError());
      signal?.addEventListener("abort", () => settle(signal.reason), settled);
      this.on(
        "status",
        ({ status, error }) => {
          if (status === "open") settle();
          else if (status === "stopped") settle(error);
          else if (status === "closed") settle(closedError());
        },
        settled,
      );
    });
  }

  async #start() {
    if (!this.#wanted) return;
    if (!this.#feed) {
      const owner = this.#owner();
      const { tabs } = this.#options;
      const feed = tabs
        ? new (await import("./tabs.js")).SharedConnection(owner)
        : new Connection(owner);
      this.#feed ??= feed;
    }
    if (this.#wanted) this.#feed?.start();
    // What was left over from an earlier visit.
    if (this.#options.queue) void this.#marks();
  }

  /** @returns {Owner} */
  #owner() {
    const options = this.#options;
    const {
      WebSocket = /** @type {any} */ (globalThis).WebSocket,
      EventSource = /** @type {any} */ (globalThis).EventSource,
      pollMs = 5_000,
    } = options;
    /** @type {TransportName[]} */
    const wished = options.transports ?? ["websocket", "sse", "eventsource", "poll"];
    const transports = wished.filter(
      (name) =>
        (name !== "websocket" || WebSocket) && (name !== "eventsource" || EventSource),
    );
    if (!transports.length) missing("a transport that this environment has");
    return {
      http: this.#http,
      transports,
      WebSocket,
      EventSource,
      pollMs,
      cursor: () => this.#received,
      unread: () => this.#count.number,
      query: () => {
        /** @type {Record<string, string>} */
        const query = { instance: this.#instance };
        if (this.#received) query.cursor = this.#received;
        if (this.topics.length) query.topics = this.topics.join(",");
        if (options.device) query.device = options.device;
        return query;
      },
      onConnection: () => this.#seen.beginConnection(),
      onMessage: (message) => this.#take(message),
      onStatus: (change) => this.#setStatus(change),
    };
  }

  /**
   * Process a message of the server.
   *
   * @param {Message} message
   * @returns {boolean} Whether it delivers a notification that is new.
   */
  #take(message) {
    const { type, cursor } = message;
    const unread = this.#count.take(message);
    let isNew = false;
    if (type === "hello") {
      // A cursor of its own is better.
      if (!this.#received) this.#reach(cursor);
      const { marks_version: version } = message;
      const last = this.#marksVersion;
      this.#marksVersion = version;
      if (last !== undefined && version !== undefined && version !== last) {
        this.#emit("read", { ids: null, read: true, unread: unread ?? undefined });
      }
    } else if (type === "notification") {
      const { notification } = message;
      isNew = !this.#seen.isRepeat(notification.id);
      if (cursor) this.#reach(cursor);
      if (isNew) this.#emit("notification", notification);
    } else if (type === "withdrawn") {
      if (cursor) this.#reach(cursor);
      this.#emit(type, { id: message.id });
    } else if (type === "replaced") {
      // It precedes a repeat, and is one itself.
      if (!this.#seen.has(message.by)) this.#emit(type, { id: message.id, by: message.by });
    } else if (type === "gap") {
      const { reason, topic, everyone } = message;
      const before = this.#received;
      this.#reach(cursor);
      this.#emit(type, { reason, cursor, before, topic, everyone });
    } else if (type === "read") {
      const { ids, up_to, all, read = true, marks_version } = message;
      this.#marksVersion = marks_version ?? this.#marksVersion;
      this.#emit(type, { ids, up_to, all, read, unread: message.unread });
    } else if (type === "cursor") {
      this.#reach(cursor);
    } else if (type === "reply" || type === "error") {
      this.#topics.replies.get(message.ref)?.(message);
    }
    if (unread !== null && unread !== this.#toldUnread) {
      this.#toldUnread = unread;
      this.#emit("unread", unread);
    }
    this.#commit();
    return isNew;
  }

  /**
   * Note the cursor of the event that follows.
   *
   * @param {string} cursor
   */
  #reach(cursor) {
    this.#received = cursor;
    if (this.#unfilled.size) this.#uncommitted = [];
    this.#uncommitted.push({ number: this.#eventNumber + 1, cursor });
  }

  /**
   * @template {keyof ClientEvents} K
   * @param {K} type
   * @param {ClientEvents[K]} value
   */
  #emit(type, value) {
    const number = ++this.#eventNumber;
    this.#tell(type, value);
    const { bufferMax = BUFFER_MAX } = this.#options;
    for (const iterator of this.#iterators) {
      iterator.push(number, /** @type {ClientEvent} */ ({ type, value }));
      if (iterator.length === bufferMax) {
        // No queue grows without a bound: disconnect, and resume when it is empty.
        this.#feed?.stop();
        this.#setStatus({ status: "waiting", reason: "the application does not keep up" });
      }
    }
  }

  /**
   * @param {string} type
   * @param {unknown} value
   */
  #tell(type, value) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        const result = listener(value);
        // An asynchronous listener.
        if (result instanceof Promise) result.catch(report);
      } catch (error) {
        report(error);
      }
    }
  }

  /** Let the cursor follow what the application has finished. */
  #commit() {
    let done = this.#eventNumber + 1;
    let isSlow = false;
    for (const iterator of this.#iterators) {
      done = Math.min(done, iterator.doneNumber);
      isSlow ||= iterator.length > 0;
    }
    const before = this.#cursor;
    while (!this.#unfilled.size && this.#uncommitted[0]?.number <= done) {
      this.#cursor = /** @type {{cursor: string}} */ (this.#uncommitted.shift()).cursor;
    }
    if (!isSlow && this.#wanted && this.#status !== "stopped") this.#feed?.start();
    if (this.#cursor === before) return;
    this.#tell("cursor", this.#cursor);
    if (this.#cursor) this.#store?.save(this.#cursor);
  }

  /** @param {Omit<StatusChange, "previous">} change */
  #setStatus(change) {
    if (this.#status === "closed") return;
    const previous = this.#status;
    if (change.status === "stopped") this.#wanted = false;
    this.#status = change.status;
    this.#change = { ...change, previous };
    // Replies of the connection that has ended do not come any more.
    for (const reply of this.#topics.replies.values()) reply();
    this.#emit("status", this.#change);
    this.#commit();
    if (change.error) for (const iterator of this.#iterators) iterator.end(change.error);
  }

  /**
   * @param {"subscribe" | "unsubscribe"} type
   * @param {string[]} names
   */
  async #changeTopics(type, names) {
    if (this.#status === "closed") throw closedError();
    if (this.#options.tabs) {
      throw new TypeError("a shared connection has the topics of the option `topics` only");
    }
    const { changeTopics } = await import("./topics.js");
    const feed = this.#feed ?? new Connection(this.#owner());
    await changeTopics(this.#topics, type, names, feed, this.#clock);
  }

  /** @returns {Promise<MarkQueue | undefined>} */
  async #marks() {
    if (!this.#options.queue) return undefined;
    this.#queue ??= (async () => {
      const { MarkQueue } = await import("./queue.js");
      await this.#http.credential.current().catch(() => null);
      return new MarkQueue(this.#storageKey, this.inbox, this.#http);
    })();
    return this.#queue;
  }

  get #storageKey() {
    const { storageKey } = this.#options;
    return storageKey ?? `streamer:${this.#http.base.href}`;
  }

  async #cursorStore() {
    const { storage } = this.#options;
    if (!storage) return undefined;
    const { CursorStore } = await import("./cursor_store.js");
    const { credential } = this.#http;
    return (this.#store ??= new CursorStore(storage, this.#storageKey, credential, this.#clock));
  }

  async #load() {
    try {
      const cursor = await (await this.#cursorStore())?.load();
      if (cursor) this.#received = this.#cursor = cursor;
    } catch (error) {
      // A storage that cannot be read is an empty one.
      report(error);
    }
  }

  /** Forget everything that is of a player. */
  #forget() {
    // A cursor of another player only causes a gap.
    const { cursor } = this.#options;
    this.#received = this.#cursor = cursor === "earliest" ? cursor : null;
    this.#uncommitted = [];
    this.#unfilled.clear();
    this.#seen.clear();
    this.#count.number = this.#toldUnread = null;
    this.#marksVersion = undefined;
    this.#emit("reset", undefined);
  }
}

/**
 * @param {string} what
 * @returns {never}
 */
function missing(what) {
  throw new TypeError(`a client needs ${what}`);
}

function closedError() {
  return new StreamerError("closed", "the client is closed");
}

/** @param {unknown} error */
function report(error) {
  const { reportError } = /** @type {any} */ (globalThis);
  if (reportError) reportError(error);
  else console.error(error);
}
