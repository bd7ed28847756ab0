/** One stream over all its connections: when to connect, how, and whether it is dead. */

import { Reconnect } from "./backoff.js";
import { StreamerError } from "./errors.js";
import { checked } from "./messages.js";
import { watchPage } from "./page.js";
import { websocket } from "./transports/websocket.js";

/** @import { Ending, Feed, Message, Owner, Transport } from "./internal.js" */
/** @import { TokenReason, TransportName } from "./types.js" */

/** Silence allowed before `hello`, which waits for the store. */
const HELLO_MS = 30_000;
/** Heartbeats without a message before the client asks, and before the line is dead. */
const ASK_HEARTBEATS = 1.2;
const DEAD_HEARTBEATS = 2.5;
/** How long an answer may take after the machine slept or the network changed. */
const PROBE_MS = 5_000;
/** Keeps a server with a heartbeat of 0 from making its clients spin. */
const HEARTBEAT_MIN_MS = 20;
/** How often the network or the page may cause an attempt ahead of its time. */
const WAKE_MS = 5_000;
/** Between attempts while the browser says that there is no network. */
const OFFLINE_MS = 20_000;
/** Of these failures in a row the last one tries another transport. */
const TRIES = 4;

/**
 * How to connect. What is seldom needed is loaded when it is.
 *
 * @type {Record<TransportName, () => Promise<Transport>>}
 */
const TRANSPORTS = {
  websocket: async () => websocket,
  sse: async () => (await import("./transports/sse.js")).sse,
  eventsource: async () => (await import("./transports/eventsource.js")).eventsource,
  poll: async () => (await import("./transports/poll.js")).poll,
};

/** @implements {Feed} */
export class Connection {
  #owner;
  #clock;
  #reconnect;
  /** @type {AbortController | undefined} */
  #running;
  /** Ends the present attempt. @type {((ending: Ending) => void) | undefined} */
  #end;
  /** @type {((message: object) => void) | undefined} */
  #send;
  /** Ends the present wait. @type {(() => void) | undefined} */
  #wake;
  #wokenAt = -Infinity;
  #asleep = false;
  /** Looks at the present connection. @type {((changed: boolean) => void) | undefined} */
  #check;
  #transport = 0;
  /** The transport that has worked on this network. */
  #worked = -1;
  #failures = 0;
  #openedAt = NaN;

  /** @param {Owner} owner */
  constructor(owner) {
    this.#owner = owner;
    this.#clock = owner.http.clock;
    this.#reconnect = new Reconnect(
      owner.http.credential.canRenew,
      this.#clock.random,
    );
  }

  start() {
    if (this.#running) return;
    const { signal } = (this.#running = new AbortController());
    watchPage(signal, {
      onNetwork: () => {
        this.#worked = -1;
        this.#transport = 0;
        this.#check?.(true);
        this.#wakeUp();
      },
      onVisible: () => {
        this.#check?.(false);
        this.#wakeUp();
      },
      onOffline: () => this.#check?.(true),
      onHide: () => {
        this.#asleep = true;
        this.#end?.({ reason: "the page is hidden", again: true });
      },
      onShow: () => {
        this.#asleep = false;
        this.#wake?.();
      },
    });
    void this.#run(signal);
  }

  stop() {
    this.#running?.abort();
    this.#running = undefined;
    this.#end?.({ reason: "closed" });
  }

  /** @param {string} reason */
  reopen(reason) {
    this.#end?.({ reason, again: true });
  }

  /** @param {object} message */
  send(message) {
    this.#send?.(message);
    return !!this.#send;
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    /** @type {TokenReason} */
    let reason = "first";
    while (!signal.aborted) {
      this.#openedAt = NaN;
      const ending = await this.#attempt(reason);
      if (signal.aborted) return;
      const openMs = this.#clock.now() - this.#openedAt || 0;
      this.#chooseTransport(ending, !isNaN(this.#openedAt));
      const step = this.#reconnect.after(ending, openMs);
      reason = "reconnect";
      if (step.stop) {
        this.stop();
        this.#reconnect.proved();
        const { code, reason } = ending;
        this.#owner.onStatus({ status: "stopped", code, reason, error: step.stop });
        return;
      }
      if (step.newToken) reason = "refused";
      else await this.#wait(step.waitMs ?? 0, !step.asked, ending, signal);
    }
  }

  /** @param {Ending} ending @param {boolean} opened */
  #chooseTransport(ending, opened) {
    const { transports } = this.#owner;
    if (ending.untried) return;
    if (opened || ending.status || ending.answered || ending.again) {
      this.#failures = 0;
      return;
    }
    this.#failures++;
    if (ending.network && this.#transport > 0) {
      // Nothing answers, so it was not the fault of those before it either.
      this.#transport = Math.max(this.#worked, 0);
    } else if (this.#transport !== this.#worked || this.#failures % TRIES === 0) {
      this.#transport = (this.#transport + 1) % transports.length;
      const last = transports.length - 1;
      if (ending.buffered && transports[last] === "poll") this.#transport = last;
    }
  }

  /**
   * Wait before the next attempt.
   *
   * @param {number} waitMs
   * @param {boolean} mayWake Whether the network or the page may end it.
   * @param {Ending} ending
   * @param {AbortSignal} signal
   */
  async #wait(waitMs, mayWake, { code, reason }, signal) {
    const isOffline = globalThis.navigator?.onLine === false;
    const status = isOffline ? "offline" : "waiting";
    // A browser may be wrong, so the client does not wait for the event alone.
    if (isOffline) waitMs = Math.max(waitMs, OFFLINE_MS);
    const { attempt } = this.#reconnect;
    this.#owner.onStatus({ status, code, reason, delayMs: waitMs, attempt });
    const waiting = new AbortController();
    const end = () => waiting.abort();
    signal.addEventListener("abort", end, { signal: waiting.signal });
    if (mayWake) this.#wake = end;
    await this.#owner.http.sleep(waitMs, waiting.signal);
    while (this.#asleep && !signal.aborted) {
      await new Promise((resolve) => {
        this.#wake = () => resolve(undefined);
        signal.addEventListener("abort", this.#wake);
      });
    }
    this.#wake = undefined;
    end();
  }

  /** Try to connect now instead of later, but seldom: a network may flap. */
  #wakeUp() {
    const now = this.#clock.now();
    if (!this.#wake || this.#asleep || now - this.#wokenAt < WAKE_MS) return;
    this.#wokenAt = now;
    this.#wake();
  }

  /**
   * Open one connection, and return how it ended.
   *
   * @param {TokenReason} reason
   * @returns {Promise<Ending>}
   */
  async #attempt(reason) {
    const owner = this.#owner;
    const { transports } = owner;
    const attempt = new AbortController();
    const name = transports[this.#transport];
    owner.onStatus({ status: "connecting", attempt: this.#reconnect.attempt });
    /** @type {(ending: Ending) => void} */
    let end = () => {};
    /** @type {Promise<Ending>} */
    const ended = new Promise((resolve) => {
      end = (ending) => {
        // Nothing is delivered any more.
        attempt.abort();
        resolve(ending);
      };
    });
    this.#end = end;
    try {
      return await Promise.race([ended, this.#open(name, reason, attempt.signal)]);
    } catch (error) {
      return { reason: String(error), network: !(error instanceof StreamerError) };
    } finally {
      attempt.abort();
      // Unless `stop` and `start` have begun another attempt meanwhile.
      if (this.#end === end) this.#end = this.#send = this.#check = undefined;
    }
  }

  /**
   * @param {TransportName} name
   * @param {TokenReason} reason
   * @param {AbortSignal} signal
   * @returns {Promise<Ending>}
   */
  async #open(name, reason, signal) {
    const owner = this.#owner;
    const { http } = owner;
    const { credential } = http;
    const line = this.#watch(name, signal);
    let token = null;
    if (credential.canRenew || credential.token) {
      try {
        token = await credential.forConnection(reason);
      } catch (error) {
        return { reason: `no token: ${error}`, untried: true };
      }
      if (token === null) return { reason: "nobody is signed in", signedOut: true };
    }
    if (signal.aborted) return { reason: "closed" };
    line.begin();
    const transport = await TRANSPORTS[name]();
    return transport({
      http,
      token,
      signal,
      url: () => {
        const url = new URL("v1/stream", http.base);
        url.search = new URLSearchParams(owner.query()).toString();
        return url;
      },
      cursor: owner.cursor,
      WebSocket: owner.WebSocket,
      EventSource: owner.EventSource,
      pollMs: owner.pollMs,
      canSend: (send) => {
        this.#send = send;
      },
      take: (raw) => {
        if (signal.aborted) return;
        try {
          this.#take(checked(raw), name, line.heard);
        } catch (error) {
          this.#end?.({ reason: String(error) });
        }
      },
    });
  }

  /** @param {Message} message @param {TransportName} name @param {(ms?: number) => void} heard */
  #take(message, name, heard) {
    const owner = this.#owner;
    heard(message.type === "hello" ? message.heartbeat_s * 1000 : undefined);
    if (message.type === "ping") {
      this.send({ type: "pong" });
    } else if (message.type === "bye") {
      const { code, reason = "bye", delay_ms: delayMs } = message;
      this.#end?.({ code, reason, delayMs, answered: true });
    } else if (message.type === "hello") {
      this.#openedAt = this.#clock.now();
      this.#worked = this.#transport;
      owner.onConnection();
      owner.onMessage(message);
      owner.onStatus({ status: "open", transport: name });
    } else if (owner.onMessage(message)) {
      this.#reconnect.proved();
    }
  }

  /**
   * Watch whether the line is dead, and renew the token before it expires.
   *
   * A machine that sleeps and a page that is throttled run no timers: silence counts
   * only if this client could have read, so a late timer asks before it judges.
   *
   * @param {TransportName} name
   * @param {AbortSignal} signal
   */
  #watch(name, signal) {
    const { now, unixMs, setTimeout, clearTimeout, random } = this.#clock;
    const { credential } = this.#owner.http;
    let heartbeatMs = 0;
    let hasBegun = false;
    let asked = false;
    let heardAt = now();
    let heardUnixMs = unixMs();
    let probeEndsAt = Infinity;
    let renewalAt = Infinity;
    let dueAt = now();
    /** @type {any} */
    let timer;

    const probe = () => {
      if (probeEndsAt < Infinity) return;
      probeEndsAt = now() + Math.min(PROBE_MS, heartbeatMs * DEAD_HEARTBEATS);
      this.send({ type: "ping" });
      schedule();
    };
    const tick = () => {
      const silentMs = now() - heardAt;
      const late = now() - dueAt > 1_000;
      if (!heartbeatMs) {
        if (silentMs >= HELLO_MS) {
          // Perhaps a proxy collects what belongs to a stream.
          const buffered = hasBegun && name !== "websocket";
          this.#end?.({ reason: "no hello", buffered, untried: !hasBegun });
          return;
        }
      } else if (now() >= probeEndsAt) {
        this.#end?.({ reason: "silent" });
        return;
      } else if (Math.max(silentMs, unixMs() - heardUnixMs) >= heartbeatMs * DEAD_HEARTBEATS) {
        // It slept, or its clock was set: only the other side can tell.
        if (late || silentMs < heartbeatMs * DEAD_HEARTBEATS) probe();
        else {
          this.#end?.({ reason: "silent" });
          return;
        }
      } else if (silentMs >= heartbeatMs * ASK_HEARTBEATS && !asked) {
        asked = true;
        this.send({ type: "ping" });
      }
      if (heartbeatMs && unixMs() >= renewalAt) {
        renewalAt = Infinity;
        void renew();
      }
      schedule();
    };
    const schedule = () => {
      clearTimeout(timer);
      // A renewal may take longer than the connection lasts.
      if (signal.aborted) return;
      const rest = Math.min(
        heartbeatMs ? heartbeatMs / 5 : 5_000,
        Math.max(renewalAt - unixMs(), 0),
        Math.max(probeEndsAt - now(), 0),
      );
      dueAt = now() + rest;
      timer = setTimeout(tick, rest);
    };
    const renew = async () => {
      try {
        const token = await credential.renew("expiring");
        if (signal.aborted || !token) return;
        if (!this.send({ type: "auth", token })) this.reopen("the token was renewed");
        else await credential.forConnection("expiring");
        renewalAt = credential.renewalAt();
      } catch {
        // There is time for another attempt; finally the server ends the stream.
        renewalAt = unixMs() + 5_000 * (1 + random());
      }
      schedule();
    };
    const restart = () => {
      heardAt = now();
      heardUnixMs = unixMs();
    };

    this.#check = (networkChanged) => {
      if (!heartbeatMs) return;
      const silentMs = Math.max(now() - heardAt, unixMs() - heardUnixMs);
      if (networkChanged || silentMs > heartbeatMs * ASK_HEARTBEATS) probe();
    };
    signal.addEventListener("abort", () => clearTimeout(timer));
    schedule();
    return {
      begin: () => {
        restart();
        hasBegun = true;
      },
      /** @param {number} [newHeartbeatMs] With `hello`. */
      heard: (newHeartbeatMs) => {
        restart();
        asked = false;
        probeEndsAt = Infinity;
        if (newHeartbeatMs === undefined) return;
        heartbeatMs = Math.max(newHeartbeatMs, HEARTBEAT_MIN_MS);
        renewalAt = credential.renewalAt();
        schedule();
      },
    };
  }
}
