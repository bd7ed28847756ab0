/**
 * One connection for all tabs.
 *
 * The tab that holds a Web Lock is the *leader*: it has the connection, and passes each
 * message on through a BroadcastChannel. The others are *followers*. Each tab keeps its
 * own cursor, so no tab relies on what another one has processed.
 *
 * The leader numbers the messages. A follower that has missed some asks for them, and
 * the leader has the last ones. What is older comes from the pages, as it would after a
 * gap. When the leader's tab is closed, the browser gives the lock to another one. A
 * leader that answers no more, because its tab is frozen, loses the lock to a follower.
 *
 * Without these two interfaces of the browser each tab has a connection of its own.
 *
 * @module
 */

import { Connection } from "./connection.js";
import { StreamerError } from "./errors.js";
import { watchPage } from "./page.js";

/** @import { Feed, Message, Owner } from "./internal.js" */
/** @import { Page, StatusChange } from "./types.js" */

/** Messages that the leader keeps for followers that have missed some. */
const KEPT_MAX = 500;
/** How often the leader says that it is there. */
const BEAT_MS = 5_000;
/** Silence after which a follower asks the leader, and how long the answer may take. */
const SILENT_MS = 12_000;
const ANSWER_MS = 4_000;
/** A hidden tab waits longer: a visible one is the better leader. */
const HIDDEN_MS = 8_000;
/** Pages that are read for what no tab has any more, as much as a stream replays. */
const PAGES_MAX = 5;

/** @typedef {Omit<StatusChange, "previous">} Change */

/**
 * A message of the stream with its number, and the number of unread after it.
 *
 * @typedef {{number: number, message: Message, unread: number | null}} Numbered
 */

/**
 * What tabs say to each other:
 *
 * - `lead`: the sender is the leader now;
 * - `beat`: it still is, and its last number;
 * - `join`: a follower has everything up to a number of a leader, and a cursor;
 * - `welcome`: the answer, with what the follower has missed;
 * - `message`, `status`: what has happened;
 * - `ask`: is the leader there?
 *
 * @typedef {object} Note
 * @property {"lead" | "beat" | "join" | "welcome" | "message" | "status" | "ask"} kind
 * @property {string} from
 * @property {string} [to]
 * @property {string} [leader]
 * @property {number} [number]
 * @property {string | null} [cursor]
 * @property {number | null} [unread]
 * @property {number} [marksVersion]
 * @property {Numbered[] | null} [missed] `null`: they are not kept any more.
 * @property {boolean} [known] The follower was at a number of this leader.
 * @property {Numbered} [numbered]
 * @property {Change} [change]
 * @property {object} [error]
 */

/** @implements {Feed} */
export class SharedConnection {
  #owner;
  #clock;
  #id = `${Math.random()}`;
  #name = "";
  /** @type {Connection} */
  #connection;
  #running = false;
  /** Ends the membership. @type {AbortController | undefined} */
  #membership;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  #isLeader = false;

  // Of the leader.
  /** @type {Numbered[]} */
  #kept = [];
  #lastNumber = 0;
  /** @type {number | null} */
  #unread = null;
  /** @type {number | undefined} */
  #marksVersion;
  /** @type {Change} */
  #change = { status: "connecting" };
  /** Followers that wait until the stream is open. @type {Note[]} */
  #joining = [];

  // Of a follower.
  #leader = "";
  /** Leaders that were replaced. One that was frozen may still speak. @type {Set<string>} */
  #former = new Set();
  #number = 0;
  /** Whether it has everything up to `#number`. */
  #isJoined = false;
  /** Messages that arrive while it catches up. @type {Numbered[] | undefined} */
  #waiting;
  #heardAt = 0;

  /** @param {Owner} owner */
  constructor(owner) {
    this.#owner = owner;
    this.#clock = owner.http.clock;
    this.#connection = new Connection({
      ...owner,
      onConnection: () => owner.onConnection(),
      onMessage: (message) => this.#onMessage(message),
      onStatus: (change) => this.#onStatus(change),
    });
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    if (!globalThis.navigator?.locks || !globalThis.BroadcastChannel) {
      this.#connection.start();
      return;
    }
    void this.#enter();
  }

  stop() {
    this.#running = false;
    this.#leave();
    this.#connection.stop();
  }

  /** @param {string} reason */
  reopen(reason) {
    this.#connection.reopen(reason);
  }

  /** @param {object} message */
  send(message) {
    return this.#isLeader && this.#connection.send(message);
  }

  /** Become a follower, and the leader when it is this tab's turn. */
  async #enter() {
    const membership = (this.#membership = new AbortController());
    const { signal } = membership;
    watchPage(signal, {
      onHide: () => {
        // A lock and a channel would keep the page out of the back/forward cache.
        this.#leave();
        this.#connection.stop();
        globalThis.addEventListener(
          "pageshow",
          () => {
            if (this.#running && !this.#membership) void this.#enter();
          },
          { once: true },
        );
      },
      onShow: () => {},
      onNetwork: () => {},
      onOffline: () => {},
      onVisible: () => {},
    });
    const { credential } = this.#owner.http;
    // Tabs of different players must not share a connection.
    await credential.current().catch(() => null);
    if (signal.aborted) return;
    this.#name = this.#scope();
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#onNote(data);
    this.#isJoined = false;
    this.#join();
    this.#guard(signal);
    this.#request({ signal });
  }

  /** Be no member any more; another tab leads, if there is one. */
  #leave() {
    this.#membership?.abort();
    this.#membership = undefined;
    this.#isLeader = false;
    this.#channel?.close();
    this.#channel = undefined;
  }

  /** @returns {string} What tabs must have in common. */
  #scope() {
    const { http, query } = this.#owner;
    const { topics = "", device = "" } = query();
    return `streamer ${http.base.href} ${http.credential.player} ${topics} ${device}`;
  }

  /** @param {LockOptions} options */
  #request(options) {
    const membership = /** @type {AbortController} */ (this.#membership);
    const { signal } = membership;
    navigator.locks
      .request(this.#name, options, () => {
        if (signal.aborted) return undefined;
        this.#lead();
        // The lock is held until this promise is fulfilled.
        return new Promise((resolve) => {
          signal.addEventListener("abort", () => resolve(undefined));
        });
      })
      .catch(() => {
        // Another tab has taken the lock, since this one was frozen.
        if (signal.aborted || !this.#isLeader) return;
        this.#isLeader = false;
        this.#connection.stop();
        this.#isJoined = false;
        this.#heardAt = this.#clock.now();
        this.#join();
        this.#request({ signal });
      });
  }

  // The leader.

  #lead() {
    this.#isLeader = true;
    this.#isJoined = false;
    // Numbering restarts, so this leader needs an id of its own.
    this.#id = `${Math.random()}`;
    this.#kept = [];
    this.#lastNumber = 0;
    this.#joining = [];
    this.#change = { status: "connecting" };
    this.#post({ kind: "lead" });
    this.#connection.start();
    const { signal } = /** @type {AbortController} */ (this.#membership);
    const beat = async () => {
      while (this.#isLeader && !signal.aborted) {
        this.#post({ kind: "beat", number: this.#lastNumber });
        await this.#owner.http.sleep(BEAT_MS, signal);
      }
    };
    void beat();
  }

  /** @param {Message} message */
  #onMessage(message) {
    const isNew = this.#owner.onMessage(message);
    if (!this.#isLeader) return isNew;
    if (message.type === "hello" || message.type === "read") {
      this.#marksVersion = message.marks_version ?? this.#marksVersion;
    }
    this.#unread = this.#owner.unread();
    const numbered = { number: ++this.#lastNumber, message, unread: this.#unread };
    this.#kept.push(numbered);
    if (this.#kept.length > KEPT_MAX) this.#kept.shift();
    this.#post({ kind: "message", numbered });
    return isNew;
  }

  /** @param {Change} change */
  #onStatus(change) {
    this.#change = change;
    if (this.#isLeader) {
      if (this.#name !== this.#scope() && change.status === "open") {
        // The token is of another player now.
        this.stop();
        this.start();
        return;
      }
      const { error, ...rest } = change;
      this.#post({ kind: "status", change: rest, error: error && plain(error) });
      if (change.status === "open") {
        for (const note of this.#joining.splice(0)) this.#welcome(note);
      }
      if (change.status === "stopped") this.stop();
    }
    this.#owner.onStatus(change);
  }

  /** @param {Note} note */
  #welcome({ from, leader, number = 0, cursor }) {
    const known = leader === this.#id;
    let missed = null;
    let unread = this.#unread;
    if (known && number >= this.#lastNumber - this.#kept.length) {
      missed = this.#kept.filter((one) => one.number > number);
    } else if (!cursor || cursor === this.#owner.cursor()) {
      missed = /** @type {Numbered[]} */ ([]);
    } else {
      const cursors = this.#kept.map(({ message }) => message.cursor);
      const index = cursors.lastIndexOf(cursor);
      if (index >= 0) {
        missed = this.#kept.slice(index + 1);
        unread = this.#kept[index].unread;
      }
    }
    this.#post({
      ...{ kind: "welcome", to: from, number: this.#lastNumber, missed, unread },
      ...{ known: known && !!missed, cursor: this.#owner.cursor() },
      ...{ marksVersion: this.#marksVersion, change: this.#change },
    });
  }

  // A follower.

  #join() {
    this.#post({
      ...{ kind: "join", leader: this.#leader, number: this.#number },
      cursor: this.#owner.cursor(),
    });
  }

  /** @param {Note} note */
  #onNote(note) {
    if (note.to && note.to !== this.#id) return;
    if (note.kind === "join" || note.kind === "ask") {
      if (!this.#isLeader) return;
      if (note.kind === "ask") this.#post({ kind: "beat", number: this.#lastNumber });
      else if (this.#change.status === "open") this.#welcome(note);
      else {
        this.#post({ kind: "status", change: this.#change, to: note.from });
        this.#joining.push(note);
      }
      return;
    }
    // A leader that was replaced learns of it by its lock.
    if (this.#isLeader) return;
    const { from, kind, numbered, number = 0 } = note;
    if (kind === "lead" && this.#leader !== from) this.#former.add(this.#leader);
    if (this.#former.has(from)) return;
    this.#heardAt = this.#clock.now();
    if (kind === "welcome") void this.#onWelcome(note);
    else if (kind === "status") this.#onLeaderStatus(note);
    else if (from !== this.#leader || !this.#isJoined) {
      if (kind === "lead" || (kind === "beat" && !this.#waiting)) this.#join();
      else if (numbered && from === this.#leader) this.#waiting?.push(numbered);
    } else if (kind === "beat") {
      if (number > this.#number) this.#join();
    } else if (kind === "message" && numbered) {
      if (numbered.number === this.#number + 1) this.#deliver(numbered);
      else if (numbered.number > this.#number) this.#join();
    }
  }

  /** @param {Note} note */
  #onLeaderStatus({ change, error }) {
    if (!change) return;
    if (change.status !== "stopped") {
      // `open` is told after this tab has what it has missed.
      if (change.status !== "open" || this.#isJoined) this.#owner.onStatus(change);
      return;
    }
    this.stop();
    const { kind, message, ...details } = /** @type {any} */ (error ?? {});
    this.#owner.onStatus({ ...change, error: new StreamerError(kind, message, details) });
  }

  /** @param {Note} note */
  async #onWelcome(note) {
    const { from, number = 0, known, change, cursor, marksVersion } = note;
    if (this.#waiting || (this.#isJoined && from === this.#leader && number <= this.#number)) {
      return;
    }
    if (known && note.missed && from === this.#leader) {
      for (const numbered of note.missed) {
        if (numbered.number > this.#number) this.#deliver(numbered);
      }
      this.#number = number;
    } else {
      /** @type {Numbered[]} */
      const waiting = (this.#waiting = []);
      if (from !== this.#leader) this.#former.add(this.#leader);
      this.#leader = from;
      this.#isJoined = false;
      const found = note.missed ? undefined : await this.#readPages();
      this.#waiting = undefined;
      if (this.#isLeader || !this.#membership || this.#leader !== from) return;
      if (!note.missed && !found) return;
      const { messages = [], unread = note.unread } = found ?? {};
      this.#owner.onConnection();
      this.#owner.onMessage({
        ...{ type: "hello", heartbeat_s: 25, marks_version: marksVersion },
        ...{ cursor, unread: unread ?? undefined },
      });
      for (const message of messages) this.#owner.onMessage(message);
      // What the pages had may arrive again.
      if (found) this.#owner.onConnection();
      for (const numbered of note.missed ?? []) this.#deliver(numbered);
      this.#setUnread(note.missed ? null : (note.unread ?? null));
      this.#number = number;
      for (const numbered of waiting) {
        if (numbered.number > this.#number) this.#deliver(numbered);
      }
    }
    this.#isJoined = true;
    if (change) this.#owner.onStatus(change);
  }

  /** @param {Numbered} numbered */
  #deliver({ number, message, unread }) {
    this.#number = number;
    if (message.type === "hello") this.#owner.onConnection();
    this.#owner.onMessage(message);
    this.#setUnread(unread);
  }

  /** The leader's number is the right one. @param {number | null} unread */
  #setUnread(unread) {
    if (unread !== null && unread !== this.#owner.unread()) {
      this.#owner.onMessage({ type: "unread", unread });
    }
  }

  /**
   * Read what follows this tab's cursor, as the messages of a stream.
   *
   * @returns {Promise<{messages: Message[], unread: number} | undefined>} The number of
   *   unread is that before the messages.
   */
  async #readPages() {
    const { http } = this.#owner;
    const cursor = this.#owner.cursor();
    let after = cursor === "earliest" ? undefined : cursor;
    /** @type {Message[]} */
    const messages = [];
    let unread = 0;
    try {
      for (let count = 0; ; count++) {
        const query = { order: "oldest", limit: 100, after };
        /** @type {Page} */
        const page = await http.request("GET", "v1/players/me/notifications", { query });
        const { gap, next } = page;
        if (gap) messages.push({ type: "gap", reason: gap, cursor: page.cursor });
        for (const { read_at, ...notification } of page.notifications) {
          if (!read_at) unread++;
          messages.push({ type: "notification", notification });
        }
        if (!next) {
          messages.push({ type: "cursor", cursor: page.cursor });
          return { messages, unread: Math.max(page.unread - unread, 0) };
        }
        if (count + 1 === PAGES_MAX) {
          messages.push({ type: "gap", reason: "too_far", cursor: page.cursor });
          return { messages, unread: Math.max(page.unread - unread, 0) };
        }
        after = next;
      }
    } catch {
      // The next beat of the leader causes another attempt.
      return undefined;
    }
  }

  /**
   * Take the lock of a leader that answers no more.
   *
   * @param {AbortSignal} signal
   */
  async #guard(signal) {
    const { http } = this.#owner;
    const { now, random } = this.#clock;
    this.#heardAt = now();
    /** Wait; return whether this tab ran meanwhile. @param {number} ms */
    const ran = async (ms) => {
      const begin = now();
      await http.sleep(ms, signal);
      return now() - begin < ms + 2_000;
    };
    const isSilent = () =>
      !this.#isLeader && !signal.aborted && now() - this.#heardAt >= SILENT_MS;
    while (!signal.aborted) {
      if (!(await ran(BEAT_MS))) this.#heardAt = now();
      if (!isSilent()) continue;
      this.#post({ kind: "ask" });
      const isHidden = globalThis.document?.visibilityState === "hidden";
      const ownMs = random() * 2_000 + (isHidden ? HIDDEN_MS : 0);
      if (!(await ran(ANSWER_MS + ownMs))) this.#heardAt = now();
      if (!isSilent()) continue;
      this.#heardAt = now();
      this.#request({ steal: true });
    }
  }

  /** @param {Omit<Note, "from">} note */
  #post(note) {
    this.#channel?.postMessage({ ...note, from: this.#id });
  }
}

/** @param {StreamerError} error */
function plain({ kind, message, code, status, problem }) {
  return { kind, message, code, status, problem };
}
