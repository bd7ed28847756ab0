/**
 * The inbox as state: a list of notifications, the number of unread, the status.
 *
 * A store joins what a page of the inbox shows with what arrives on the stream, and
 * gives both as immutable snapshots to whatever draws them. It has no DOM and no
 * framework in it; `streamer-client/react`, `/vue` and `/svelte` are its hooks.
 *
 * Changes are optimistic: a mark is visible at once, as a layer above what the server
 * has confirmed. The layer is removed when the server confirms it, or refuses it, which
 * undoes exactly this change and no other.
 *
 * @module
 */

/** @import { StreamerClient } from "./index.js" */
/** @import { Notification, Page, PageOptions, ReadMark, Status, StatusChange } from "./types.js" */

/** The most ids in one mark, a limit of the server. */
const IDS_MAX = 1000;
/** The largest page, a limit of the server. */
const PAGE_MAX = 100;
/** Empty pages that one `loadMore` reads with a filter before it returns. */
const EMPTY_PAGES_MAX = 5;
/** How long the first page waits for the stream, which it then needs to read once only. */
const OPEN_MS = 1500;
/** How long a confirmed mark waits for its message on the stream. */
const CONFIRM_MS = 5000;
/** The longest time that a browser's timer can wait. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/**
 * What the list shows. An empty filter shows everything.
 *
 * @typedef {object} Filter
 * @property {string | string[]} [type] One of these types.
 * @property {string | string[]} [priority] One of these priorities.
 * @property {string} [topic] Only what was sent to this topic.
 * @property {boolean} [unread] Only what is not marked as read.
 */

/**
 * The state of an inbox at one moment. It never changes; the next state is another
 * object.
 *
 * @typedef {object} Snapshot
 * @property {readonly Notification[]} notifications Newest first; `read_at` is present
 *   on those that are marked as read.
 * @property {number} unread Unread notifications in the whole inbox.
 * @property {Status} status What the connection does.
 * @property {"first" | "more" | null} loading Which pages are being read. `first`: there
 *   is nothing to show yet.
 * @property {boolean} hasMore Whether `loadMore` finds older notifications.
 * @property {boolean} pending Whether a change is not confirmed by the server yet.
 * @property {Readonly<Filter>} filter What the list shows.
 * @property {Failure | null} error The last thing that failed; a success clears it.
 */

/**
 * @typedef {object} Failure
 * @property {"load" | "mark" | "remove" | "connection"} during
 * @property {Error} error
 */

/**
 * @typedef {object} StoreOptions
 * @property {number} [pageSize] Notifications per page, 1 to 100; 20 by default.
 * @property {number} [max] The most notifications to keep in the list; when more
 *   arrive, the oldest leave it, and `loadMore` reads them again. 1,000 by default.
 * @property {Filter} [filter] What the list shows at first.
 * @property {() => number} [now] Unix time in milliseconds, for tests.
 */

/**
 * A change that the server has not confirmed.
 *
 * @typedef {object} Change
 * @property {"read" | "unread" | "remove"} kind
 * @property {Set<string> | null} ids `null`: everything that was there.
 * @property {number} unreadBefore With `null`: how many of them were unread.
 * @property {string} newest With `null`: the newest id that was there.
 * @property {number} unreadOf With `remove`: how many of them were unread.
 * @property {boolean} accepted The server has answered; its message is to follow.
 * @property {boolean} announced The stream has told of it.
 * @property {string} at What `read_at` shows.
 */

/**
 * The state of one inbox. Create it with `createInboxStore`.
 */
export class InboxStore {
  /** @type {StreamerClient} */ #client;
  /** @type {number} */ #pageSize;
  /** @type {number} */ #max;
  /** @type {() => number} */ #now;
  /** @type {Filter} */ #filter;

  // What the server has confirmed.
  /** @type {Notification[]} */ #items = [];
  /** @type {string | null} */ #next = null;
  #unread = 0;
  /** The number to show until a page is read. @type {number | null} */
  #held = null;
  /** @type {Status} */ #status = "idle";
  #isLoaded = false;

  /** @type {Set<Change>} */ #changes = new Set();
  /** @type {"first" | "more" | null} */ #loading = null;
  /** @type {Failure | null} */ #error = null;
  /** Events since a read of pages began; they are applied again to its result. @type {(() => void)[] | null} */
  #journal = null;
  /** @type {Promise<void> | null} */ #reading = null;
  #again = false;
  /** The page was read before the stream had a place to begin. */
  #isEarly = false;
  #generation = 0;
  /** @type {AbortController} */ #abort = new AbortController();

  /** @type {Snapshot | null} */ #snapshot = null;
  /** @type {Set<() => void>} */ #listeners = new Set();
  /** @type {Set<(notification: Notification) => void>} */ #arrivals = new Set();
  #isNotifying = false;
  /** @type {(() => void)[]} */ #stops = [];
  /** @type {any} */ #expiry = null;
  /** @type {Set<any>} */ #timers = new Set();

  /**
   * @param {StreamerClient} client Connected or not; `start` connects it.
   * @param {StoreOptions} [options]
   */
  constructor(client, options = {}) {
    this.#client = client;
    this.#pageSize = Math.min(Math.max(options.pageSize ?? 20, 1), PAGE_MAX);
    this.#max = options.max ?? 1000;
    this.#filter = options.filter ?? {};
    this.#now = options.now ?? Date.now;
    this.#status = client.status;
    this.#unread = client.unread ?? 0;
    // Bound, so that they can be passed on as functions.
    this.subscribe = this.subscribe.bind(this);
    this.getSnapshot = this.getSnapshot.bind(this);
  }

  /** The client that the store reads from. */
  get client() {
    return this.#client;
  }

  /**
   * Connect the client, and read the first page. Calling it again has no effect.
   *
   * @returns {this}
   */
  start() {
    if (this.#stops.length > 0) return this;
    if (this.#abort.signal.aborted) this.#abort = new AbortController();
    const client = this.#client;
    this.#stops = [
      client.on("notification", (it) => this.#arrived(it)),
      client.on("withdrawn", ({ id }) => this.#event(() => this.#drop(id))),
      client.on("replaced", ({ id }) => this.#event(() => this.#drop(id))),
      client.on("read", (mark) => this.#marked(mark)),
      client.on("unread", (unread) => this.#counted(unread)),
      client.on("gap", () => this.#reload()),
      client.on("reset", () => this.#reset()),
      client.on("status", (change) => this.#moved(change)),
    ];
    this.#status = client.status;
    if (client.status === "idle") void client.connect();
    this.#loading = "first";
    this.#changed();
    if (client.status === "open" || client.status === "stopped") this.#reload();
    else this.#later(OPEN_MS, () => this.#isLoaded || this.#reload());
    return this;
  }

  /**
   * Stop: nothing changes any more, and no request is under way. The client stays as it
   * is. `start` continues.
   */
  stop() {
    for (const stop of this.#stops.splice(0)) stop();
    this.#abort.abort();
    this.#generation += 1;
    this.#reading = null;
    this.#journal = null;
    this.#loading = null;
    this.#held = null;
    this.#again = false;
    // What happens from now on is missed, so `start` reads the list again.
    this.#isLoaded = false;
    clearTimeout(this.#expiry);
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  /**
   * Call `listener` after each change of the snapshot.
   *
   * @param {() => void} listener
   * @returns {() => void} Ends it.
   */
  subscribe(listener) {
    // A function of its own, so that the same listener can subscribe twice.
    const own = () => listener();
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /**
   * Call `listener` with each notification that arrives on the stream, once, also if the
   * filter does not show it or it is not kept. Meant for toasts and sounds.
   *
   * @param {(notification: Notification) => void} listener
   * @returns {() => void} Ends it.
   */
  onArrival(listener) {
    /** @param {Notification} it */
    const own = (it) => listener(it);
    this.#arrivals.add(own);
    return () => void this.#arrivals.delete(own);
  }

  /**
   * @returns {Snapshot} The same object until something has changed.
   */
  getSnapshot() {
    this.#snapshot ??= this.#compose();
    return this.#snapshot;
  }

  /**
   * Read the newest notifications again, as many as the list has, up to 100.
   *
   * @returns {Promise<void>} Rejects if the server does not answer or refuses.
   */
  refresh() {
    if (this.#reading) {
      // What was asked for may have happened after the page under way was made.
      this.#again = true;
      return this.#reading;
    }
    const generation = this.#generation;
    const reading = this.#read(async () => {
      do {
        this.#again = false;
        // What arrives meanwhile is applied to the page, too. Without a cursor the
        // stream begins where it is opened, and would miss what arrives before that.
        this.#journal = [];
        this.#isEarly = this.#status !== "open" && this.#client.cursor === null;
        const limit = Math.min(Math.max(this.#items.length, this.#pageSize), PAGE_MAX);
        const page = await this.#page({ limit });
        if (generation !== this.#generation) return;
        this.#replace(page);
      } while (this.#again);
    }, this.#isLoaded ? null : "first");
    return reading;
  }

  /**
   * Read the next older page. Does nothing if there is none.
   *
   * @returns {Promise<void>} Rejects if the server does not answer or refuses.
   */
  async loadMore() {
    while (this.#reading) await this.#reading.catch(() => {});
    if (this.#next === null || this.#stops.length === 0) return;
    const generation = this.#generation;
    await this.#read(async () => {
      for (let empty = 0; this.#next !== null && empty < EMPTY_PAGES_MAX; empty++) {
        this.#journal = [];
        const page = await this.#page({ before: this.#next, limit: this.#pageSize });
        if (generation !== this.#generation) return;
        this.#next = page.next;
        for (const it of page.notifications) this.#insert(it, true);
        this.#replay();
        if (page.notifications.length > 0) break;
      }
    }, "more");
  }

  /**
   * Show something else. Reads the first page of it.
   *
   * @param {Filter} filter
   * @returns {Promise<void>} Rejects if the server does not answer or refuses.
   */
  async setFilter(filter) {
    if (JSON.stringify(filter) === JSON.stringify(this.#filter)) return;
    this.#filter = { ...filter };
    this.#empty();
    if (this.#stops.length > 0) await this.refresh();
  }

  /**
   * Mark notifications as read.
   *
   * @param {string | Iterable<string>} ids
   * @returns {Promise<void>} Rejects if the server refuses; the list then is as before.
   *   The rejection needs no handler: the snapshot has it as `error`.
   */
  markRead(ids) {
    return this.#mark("read", ids);
  }

  /**
   * Remove the read marks of notifications.
   *
   * @param {string | Iterable<string>} ids
   * @returns {Promise<void>} As with `markRead`.
   */
  markUnread(ids) {
    return this.#mark("unread", ids);
  }

  /**
   * Mark everything as read that is in the inbox at this moment.
   *
   * @returns {Promise<void>} As with `markRead`.
   */
  markAllRead() {
    const change = this.#change("read", null);
    return this.#send(change, "mark", () => this.#client.markRead({ all: true }));
  }

  /**
   * Delete a notification from the inbox.
   *
   * @param {string} id
   * @returns {Promise<void>} As with `markRead`.
   */
  remove(id) {
    const change = this.#change("remove", [id]);
    return this.#send(change, "remove", async () => {
      try {
        await this.#client.inbox.delete(id);
      } catch (error) {
        // It is gone, which is what was wanted.
        if (/** @type {any} */ (error)?.status !== 404) throw error;
      }
      return 0;
    });
  }

  /** Forget the last error. */
  clearError() {
    if (this.#error === null) return;
    this.#error = null;
    this.#changed();
  }

  // Reading

  /**
   * @param {() => Promise<void>} read
   * @param {"first" | "more" | null} loading
   * @returns {Promise<void>}
   */
  #read(read, loading) {
    const generation = this.#generation;
    const reading = (async () => {
      this.#loading = loading;
      this.#changed();
      try {
        await read();
        if (generation === this.#generation) this.#failed("load", null);
      } catch (error) {
        if (generation !== this.#generation) return;
        this.#failed("load", error);
        throw error;
      } finally {
        if (generation === this.#generation) {
          this.#reading = null;
          this.#journal = null;
          this.#loading = null;
          this.#held = null;
          this.#settleMarked();
          if (this.#again) this.#reload();
        }
      }
    })();
    this.#reading = reading;
    reading.catch(() => {});
    return reading;
  }

  /**
   * @param {PageOptions} options
   * @returns {Promise<Page>}
   */
  #page(options) {
    return this.#client.inbox.page({
      ...this.#filter,
      ...options,
      signal: this.#abort.signal,
    });
  }

  /** Forget the list, and a read under way, which is of what was shown before. */
  #empty() {
    this.#items = [];
    this.#next = null;
    this.#isLoaded = false;
    this.#generation += 1;
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#reading = null;
    this.#journal = null;
    this.#loading = null;
    this.#held = null;
    this.#again = false;
    this.#changed();
  }

  /** Another player: nothing of the former one may be seen. */
  #reset() {
    this.#changes.clear();
    this.#unread = 0;
    this.#error = null;
    this.#empty();
    if (this.#status === "open") this.#reload();
  }

  /** @param {Page} page */
  #replace(page) {
    this.#items = [];
    this.#next = page.next;
    this.#isLoaded = true;
    for (const it of page.notifications) this.#insert(it, true);
    // The stream counts more exactly than a page that was made some time ago.
    if (this.#status !== "open") this.#unread = page.unread;
    this.#replay();
    this.#watchExpiry();
  }

  #replay() {
    for (const event of this.#journal ?? []) event();
    this.#journal = null;
  }

  // Events

  /** @param {() => void} apply Must have the same result when it is applied twice. */
  #event(apply) {
    this.#journal?.push(apply);
    apply();
    this.#changed();
  }

  /** @param {Notification} it */
  #arrived(it) {
    // The inbox keeps neither what is only live nor topics that this stream asked for.
    if (isStored(it) && !this.#isOfStreamOnly(it)) {
      this.#event(() => {
        if (matches(it, this.#filter)) this.#insert(it);
      });
      this.#watchExpiry();
    }
    for (const listener of [...this.#arrivals]) listener(it);
  }

  /** @param {Notification} it */
  #isOfStreamOnly(it) {
    return it.topic !== undefined && this.#client.topics.includes(it.topic);
  }

  /** @param {ReadMark} mark */
  #marked(mark) {
    const shown = this.#changes.size > 0 ? this.#shownUnread() : null;
    if (typeof mark.unread === "number") this.#unread = mark.unread;
    const at = new Date(this.#now()).toISOString();
    if (mark.all) {
      const newest = this.#items[0]?.id ?? "";
      for (const change of this.#changes) {
        if (change.kind === "read" && change.ids === null) change.announced = true;
      }
      this.#event(() => this.#setRead((it) => it.id <= newest, at));
      // A page under way may have been made before, with notifications unknown here.
      if (this.#reading) this.#again = true;
    } else if (mark.ids) {
      const ids = new Set(mark.ids);
      const value = mark.read === false ? undefined : at;
      this.#event(() => this.#setRead((it) => ids.has(it.id), value));
      // With a filter for unread ones, notifications come back that it did not show.
      const returned = this.#filter.unread && value === undefined;
      if (returned && [...ids].some((id) => this.#find(id) < 0)) this.#reload();
    } else {
      // Cursors cannot be compared with ids, so only the server knows which these are.
      // Whether the number includes the changes that are shown already, the page says.
      this.#held = shown;
      this.#changed();
      this.#reload();
    }
    this.#settleMarked();
  }

  /** @param {number} unread */
  #counted(unread) {
    this.#unread = unread;
    // The number is of after the removal, which the server has carried out.
    for (const change of this.#changes) {
      if (change.kind === "remove" && change.accepted) this.#changes.delete(change);
    }
    this.#changed();
  }

  /** @param {StatusChange} change */
  #moved(change) {
    this.#status = change.status;
    if (change.status === "stopped") this.#failed("connection", change.error);
    if (change.status === "open") {
      if (this.#error?.during === "connection") this.#error = null;
      // A page that could not be read without a network can be read now.
      if (!this.#isLoaded || this.#isEarly || this.#error?.during === "load") {
        this.#reload();
      }
      // Marks that were kept are sent now; the stream tells of them.
      for (const it of this.#changes) if (it.accepted) this.#confirmLater(it);
    } else if (change.status !== "connecting" && !this.#isLoaded && !this.#reading) {
      this.#reload();
    }
    this.#changed();
  }

  #reload() {
    void this.refresh().catch(() => {});
  }

  // The confirmed list

  /** @param {string} id */
  #find(id) {
    let low = 0;
    let high = this.#items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (/** @type {Notification} */ (this.#items[middle]).id > id) low = middle + 1;
      else high = middle;
    }
    return this.#items[low]?.id === id ? low : ~low;
  }

  /**
   * @param {Notification} it
   * @param {boolean} [isOfPage] It is the next of a page; otherwise it has arrived.
   */
  #insert(it, isOfPage = false) {
    const at = this.#find(it.id);
    if (at >= 0) {
      // The page may have its mark.
      if (it.read_at !== undefined) this.#items[at] = it;
      return;
    }
    const index = ~at;
    // Older than what was read so far: it is on a page that is still to come.
    if (!isOfPage && this.#next !== null && index === this.#items.length) return;
    this.#items.splice(index, 0, it);
    if (!isOfPage && this.#items.length > this.#max) {
      this.#items.length = this.#max;
      this.#next = /** @type {Notification} */ (this.#items[this.#max - 1]).id;
    }
  }

  /** @param {string} id */
  #drop(id) {
    const at = this.#find(id);
    if (at >= 0) this.#items.splice(at, 1);
  }

  /**
   * @param {(it: Notification) => boolean} which
   * @param {string | undefined} at
   */
  #setRead(which, at) {
    this.#items = this.#items.map((it) => {
      if (!which(it) || (it.read_at === undefined) === (at === undefined)) return it;
      const { read_at: _, ...rest } = it;
      return at === undefined ? rest : { ...rest, read_at: at };
    });
  }

  #watchExpiry() {
    clearTimeout(this.#expiry);
    this.#expiry = null;
    const times = this.#items.flatMap((it) =>
      it.expires_at === undefined ? [] : [Date.parse(it.expires_at)],
    );
    if (times.length === 0) return;
    const delay = Math.min(Math.max(Math.min(...times) - this.#now(), 0), TIMER_MAX_MS);
    this.#expiry = setTimeout(() => {
      const now = this.#now();
      const isOver = (/** @type {Notification} */ it) =>
        it.expires_at !== undefined && Date.parse(it.expires_at) <= now;
      this.#event(() => {
        this.#items = this.#items.filter((it) => !isOver(it));
      });
      this.#watchExpiry();
    }, delay);
    /** @type {any} */ (this.#expiry)?.unref?.();
  }

  // Optimistic changes

  /**
   * @param {"read" | "unread"} kind
   * @param {string | Iterable<string>} ids
   */
  #mark(kind, ids) {
    const list = typeof ids === "string" ? [ids] : [...new Set(ids)];
    if (list.length === 0) return Promise.resolve();
    const change = this.#change(kind, list);
    return this.#send(change, "mark", async () => {
      let result;
      for (let i = 0; i < list.length; i += IDS_MAX) {
        const part = list.slice(i, i + IDS_MAX);
        if (kind === "read") result = await this.#client.markRead({ ids: part });
        else result = await this.#client.markUnread(part);
      }
      return result;
    });
  }

  /**
   * @param {Change["kind"]} kind
   * @param {string[] | null} ids
   */
  #change(kind, ids) {
    /** @type {Change} */
    const change = {
      kind,
      ids: ids && new Set(ids),
      unreadBefore: this.#unread,
      newest: this.#items[0]?.id ?? "",
      unreadOf: this.#items.filter((it) => ids?.includes(it.id) && !it.read_at).length,
      accepted: false,
      announced: false,
      at: new Date(this.#now()).toISOString(),
    };
    this.#changes.add(change);
    this.#changed();
    return change;
  }

  /**
   * @param {Change} change
   * @param {"mark" | "remove"} during
   * @param {() => Promise<number | undefined>} send Returns `undefined` if the change is
   *   kept, to be sent later.
   * @returns {Promise<void>}
   */
  #send(change, during, send) {
    const sending = (async () => {
      let result;
      try {
        result = await send();
      } catch (error) {
        // Of another player by now, it is nobody's business.
        if (this.#changes.delete(change)) this.#failed(during, error);
        throw error;
      }
      this.#failed(during, null);
      this.#accepted(change, result === undefined);
    })();
    // The snapshot has the error, so a caller may ignore the promise.
    sending.catch(() => {});
    return sending;
  }

  /**
   * @param {Change} change
   * @param {boolean} isKept It will be sent when there is a network.
   */
  #accepted(change, isKept) {
    change.accepted = true;
    if (change.kind === "remove") {
      this.#event(() => change.ids?.forEach((id) => this.#drop(id)));
    }
    if (this.#status !== "open") {
      if (!isKept) this.#confirm(change);
      return;
    }
    this.#settleMarked();
    this.#confirmLater(change);
  }

  /**
   * The stream brings the marks together with the number of unread. Until then the change
   * stays above both, so that neither is seen to go back.
   *
   * @param {Change} change
   */
  #confirmLater(change) {
    if (this.#changes.has(change)) this.#later(CONFIRM_MS, () => this.#confirm(change));
  }

  /**
   * @param {number} delay
   * @param {() => void} call
   */
  #later(delay, call) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      call();
    }, delay);
    /** @type {any} */ (timer).unref?.();
    this.#timers.add(timer);
  }

  /** @param {Change} change */
  #confirm(change) {
    if (!this.#changes.has(change)) return;
    const unread = this.#shownUnread();
    this.#changes.delete(change);
    const { kind, ids, newest, at } = change;
    if (kind !== "remove") {
      const which = (/** @type {Notification} */ it) =>
        ids === null ? it.id <= newest : ids.has(it.id);
      this.#event(() => this.#setRead(which, kind === "read" ? at : undefined));
    }
    this.#unread = unread;
    this.#changed();
  }

  /** Remove accepted changes that the confirmed state has already. */
  #settleMarked() {
    for (const change of this.#changes) {
      if (!change.accepted || change.kind === "remove") continue;
      const isDone =
        change.ids === null ? change.announced : this.#unconfirmed(change).length === 0;
      if (isDone) this.#changes.delete(change);
    }
    this.#changed();
  }

  /**
   * @param {Change} change
   * @returns {Notification[]} The listed notifications that it changes.
   */
  #unconfirmed({ kind, ids, newest }) {
    return this.#items.filter(
      (it) =>
        (ids === null ? it.id <= newest : ids.has(it.id)) &&
        (kind === "unread") !== (it.read_at === undefined),
    );
  }

  // What is shown

  #shownUnread() {
    if (this.#held !== null) return this.#held;
    let unread = this.#unread;
    for (const change of this.#changes) {
      const count = this.#unconfirmed(change).length;
      if (change.kind === "remove") unread -= change.unreadOf;
      else if (change.ids === null) unread -= Math.min(unread, change.unreadBefore);
      else if (change.kind === "unread") unread += count;
      else unread -= count;
    }
    return Math.max(unread, 0);
  }

  /** @returns {Snapshot} */
  #compose() {
    const unread = this.#shownUnread();
    let items = this.#items;
    for (const change of this.#changes) {
      const touched = new Set(this.#unconfirmed(change).map((it) => it.id));
      if (change.kind === "remove") {
        items = items.filter((it) => !change.ids?.has(it.id));
      } else {
        items = items.map((it) => {
          if (!touched.has(it.id)) return it;
          const { read_at: _, ...rest } = it;
          return change.kind === "unread" ? rest : { ...rest, read_at: change.at };
        });
      }
    }
    if (this.#filter.unread) items = items.filter((it) => it.read_at === undefined);
    return Object.freeze({
      notifications: Object.freeze([...items]),
      unread,
      status: this.#status,
      loading: this.#loading,
      hasMore: this.#next !== null,
      pending: this.#changes.size > 0,
      filter: Object.freeze({ ...this.#filter }),
      error: this.#error,
    });
  }

  /**
   * @param {Failure["during"]} during
   * @param {unknown} error `null`: it succeeded.
   */
  #failed(during, error) {
    if (error === null) {
      if (this.#error?.during === during) this.#error = null;
    } else {
      const known = error instanceof Error ? error : new Error(String(error));
      this.#error = Object.freeze({ during, error: known });
    }
    this.#changed();
  }

  #changed() {
    this.#snapshot = null;
    if (this.#isNotifying) return;
    this.#isNotifying = true;
    // Several changes of one turn are one change.
    queueMicrotask(() => {
      this.#isNotifying = false;
      for (const listener of [...this.#listeners]) listener();
    });
  }
}

/**
 * Create a store and start it.
 *
 * @param {StreamerClient} client
 * @param {StoreOptions} [options]
 * @returns {InboxStore}
 */
export function createInboxStore(client, options) {
  return new InboxStore(client, options).start();
}

/**
 * Whether the server keeps a notification: its id is a UUID of version 7, where one that
 * is only delivered live has version 4.
 *
 * @param {Notification} it
 */
function isStored(it) {
  return it.id[14] !== "4";
}

/**
 * @param {Notification} it
 * @param {Filter} filter
 */
function matches(it, { type, priority, topic, unread }) {
  return (
    isOneOf(it.type, type) &&
    isOneOf(it.priority ?? "medium", priority) &&
    (topic === undefined || it.topic === topic) &&
    !(unread && it.read_at !== undefined)
  );
}

/**
 * @param {string | undefined} value
 * @param {string | string[] | undefined} wanted
 */
function isOneOf(value, wanted) {
  if (wanted === undefined) return true;
  return value !== undefined && [wanted].flat().includes(value);
}
