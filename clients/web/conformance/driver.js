/**
 * The driver of this client for the conformance tests (`clients/conformance`).
 *
 *     streamer-conformance run --driver "node clients/web/conformance/driver.js"
 *
 * Uses the client as an application does. What no application has is the clock, which
 * runs faster, and the browser's events of the network, which Node does not have.
 */

import { createInterface } from "node:readline";

import { EventSource } from "eventsource";
import { WebSocket } from "ws";

import { StreamerClient } from "../src/index.js";
import { parseJson } from "../src/json.js";

const READY = {
  event: "ready",
  protocol: 1,
  client: "Web",
  transports: ["websocket", "sse", "eventsource", "poll"],
  capabilities: [
    ...["ack", "auto", "clock", "first_message", "int64", "mark", "network", "nul"],
    ...["page", "queue", "random", "subscribe", "token_source"],
  ],
};

// What a browser has and Node has not.
const network = new EventTarget();
const online = { onLine: true };
Object.assign(globalThis, { addEventListener: network.addEventListener.bind(network) });
Object.defineProperty(globalThis, "navigator", { value: online, configurable: true });

/** @param {Record<string, unknown>} event */
function say(event) {
  const long = /** @type {bigint[]} */ ([]);
  const text = JSON.stringify(event, (_, value) =>
    typeof value === "bigint" ? `bigint:${long.push(value) - 1}:` : value,
  );
  // Integers of 64 bits, which `JSON.stringify` does not write.
  const exact = text.replace(/"bigint:(\d+):"/g, (_, index) => String(long[Number(index)]));
  process.stdout.write(`${exact}\n`);
}

/** A clock on which each second counts as `1 / scale`, and which can be set. */
function fastClock(scale, fraction) {
  const begun = performance.now();
  const begunUnix = Date.now();
  let aheadMs = 0;
  const now = () => (performance.now() - begun) / scale + aheadMs;
  return {
    now,
    unixMs: () => begunUnix + now(),
    random: () => fraction ?? Math.random(),
    setTimeout: (callback, ms) => setTimeout(callback, ms * scale),
    clearTimeout,
    setAhead: (s) => {
      aheadMs += s * 1_000;
    },
  };
}

/** One client, from `connect` to `close`. */
class Session {
  constructor(command) {
    this.answers = [];
    this.number = null;
    this.clock = fastClock(command.scale, command.random);
    const { url, token, token_source, transport, cursor, topics } = command;
    this.client = new StreamerClient({
      ...{ url, topics, clock: this.clock, WebSocket, EventSource, parse: parseJson },
      ...{ cursor: cursor ?? undefined, token: token ?? undefined, queue: true },
      getToken: token_source ? (request) => this.#token(token, request) : undefined,
      transports: transport === "auto" ? undefined : [transport],
    });
    this.client.on("cursor", () => this.#say({ event: "moved" }));
    this.client.on("status", ({ status }) => say({ event: "status", status }));
    void this.#take();
  }

  /** @param {string | null} first */
  #token(first, { reason }) {
    // The application has this one already.
    if (reason !== "refused" && reason !== "expiring" && (first || this.token)) {
      return this.token ?? first;
    }
    say({ event: "token_wanted" });
    return new Promise((resolve, reject) => {
      this.answer = ({ token, error }) => {
        this.token = token;
        if (token) resolve(token);
        else reject(new Error(error));
      };
    });
  }

  #say(event) {
    say({ ...event, stored: this.client.cursor, number: this.number });
  }

  async #take() {
    try {
      for await (const { type, value } of this.client.events()) {
        if (type === "unread") this.number = value;
        if (type === "notification") {
          this.#say({ event: type, notification: value, cursor: null });
        } else if (type === "withdrawn") {
          this.#say({ event: type, notification_id: value.id });
        } else if (type === "replaced") {
          this.#say({ event: type, notification_id: value.id, by: value.by });
        } else if (type === "gap") {
          const { reason, topic, everyone } = value;
          this.#say({ event: type, reason, topic, everyone });
        } else if (type === "read") {
          const { ids, up_to, all, read, unread } = value;
          this.number = unread ?? this.number;
          this.#say({ event: type, ids: ids ?? undefined, up_to, all, read });
        } else if (type === "unread") {
          this.#say({ event: type });
        }
      }
    } catch (error) {
      say({ event: "stopped", code: error.code ?? null, reason: error.message });
    }
  }

  async run({ cmd, id, ...command }) {
    try {
      say({ event: "result", id, ok: true, ...(await this.#result(cmd, command)) });
    } catch (error) {
      say({ event: "result", id, ok: false, error: String(error) });
    }
  }

  async #result(cmd, { ids, up_to: upTo, all, cursor, topics, query = {} }) {
    const { client } = this;
    if (cmd === "mark") return { unread: await client.markRead({ ids, upTo, all }) };
    if (cmd === "ack") await client.ack(cursor);
    if (cmd === "subscribe") await client.subscribe(...topics);
    if (cmd === "unsubscribe") await client.unsubscribe(...topics);
    if (cmd === "page") return { body: await client.inbox.page(query) };
    return {};
  }
}

/** @type {Session | undefined} */
let session;
say(READY);
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const { cmd } = command;
  if (cmd === "connect") {
    online.onLine = true;
    session = new Session(command);
  } else if (cmd === "close") {
    await session?.client.close();
    session = undefined;
    say({ event: "closed" });
  } else if (!session) {
    say({ event: "failed", error: "there is no client" });
  } else if (cmd === "token") {
    session.answer?.(command);
  } else if (cmd === "sleep") {
    session.clock.setAhead(command.s);
  } else if (cmd === "offline" || cmd === "online") {
    online.onLine = cmd === "online";
    network.dispatchEvent(new Event(cmd));
  } else if (["mark", "ack", "subscribe", "unsubscribe", "page", "state"].includes(cmd)) {
    void session.run(command);
  } else {
    say({ event: "failed", error: `unknown command ${cmd}` });
  }
}
process.exit();
