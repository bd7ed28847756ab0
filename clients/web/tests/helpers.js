/** Time, sockets and servers that follow the script of a test. */

// What the client loads on demand is there at once.
await Promise.all(
  ["cursor_store", "gap", "queue", "request", "topics"]
    .concat(["eventsource", "poll", "sse"].map((name) => `transports/${name}`))
    .map((name) => import(`../src/${name}.js`)),
);

/** A clock that moves when the test says so. Randomness is 1, almost. */
export class FakeClock {
  #now = 1_000;
  #timers = new Map();
  #id = 0;
  /** Added to the wall clock. */
  skewMs = 0;
  random = () => 0.999999;
  now = () => this.#now;
  unixMs = () => 1_800_000_000_000 + this.#now + this.skewMs;
  setTimeout = (callback, delayMs) => {
    this.#timers.set(++this.#id, { at: this.#now + delayMs, callback });
    return this.#id;
  };
  clearTimeout = (id) => this.#timers.delete(id);

  /** Move on; timers run in their order, each at its time. */
  async advance(ms) {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter(([, { at }]) => at <= end);
      if (!due.length) break;
      const [id, { at, callback }] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, at);
      callback();
    }
    this.#now = end;
    await settle();
  }

  /** Move on without running timers, as a machine that sleeps. */
  sleep(ms) {
    this.#now += ms;
  }
}

/** Let everything happen that waits for nothing but promises and modules. */
export async function settle() {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** A class of WebSockets; `made` has its sockets in order. */
export function fakeWebSocket() {
  return class FakeWebSocket {
    static made = [];
    readyState = 0;
    sent = [];
    closedByClient = false;

    constructor(url) {
      this.url = new URL(url);
      this.constructor.made.push(this);
    }

    static get last() {
      return this.made.at(-1);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close() {
      this.readyState = 3;
      this.closedByClient = true;
    }

    // The server.

    open() {
      this.readyState = 1;
      this.onopen?.();
    }

    say(...messages) {
      for (const message of messages) {
        const data = typeof message === "string" ? message : JSON.stringify(message);
        this.onmessage?.({ data });
      }
    }

    end(code = 1006, reason = "") {
      this.readyState = 3;
      this.onclose?.({ code, reason });
    }

    hello(members = {}) {
      this.open();
      this.say({ type: "hello", cursor: "c0", heartbeat_s: 25, unread: 0, ...members });
    }
  };
}

let lastId = 0;

/** A message that delivers a notification; each has another id. */
export function notification(cursor, members = {}) {
  const number = String(++lastId).padStart(12, "0");
  const id = `0197f1c2-0000-7000-8000-${number}`;
  return {
    ...{ type: "notification", cursor },
    notification: { id, created_at: "2026-11-20T22:52:39.123Z", title: cursor, ...members },
  };
}

/** A token that names a player and an expiry, in Unix milliseconds. */
export function token(player, expiresAtMs) {
  const claims = { sub: player, iss: "streamer", exp: expiresAtMs / 1000 };
  return `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.signature`;
}
