// A client that does what a test says. It has the part of `StreamerClient` that a store
// uses; the browser tests use the real one on a real server.

export function notification(n, more = {}) {
  const hex = n.toString(16).padStart(8, "0");
  return {
    id: `${hex}-0000-7000-8000-000000000000`,
    created_at: new Date(1_790_000_000_000 + n * 1000).toISOString(),
    title: `number ${n}`,
    ...more,
  };
}

export class FakeClient {
  status = "open";
  unread = 0;
  cursor = "c";
  topics = [];
  /** Requests that wait for an answer: `{name, args, answer, refuse}`. */
  requests = [];
  #listeners = new Map();

  constructor() {
    const ask = (name) => (...args) =>
      new Promise((answer, refuse) => {
        const signal = args[0]?.signal;
        signal?.addEventListener("abort", () => refuse(signal.reason));
        this.requests.push({ name, args, answer, refuse });
      });
    this.inbox = { page: ask("page"), delete: ask("delete") };
    this.markRead = ask("markRead");
    this.markUnread = ask("markUnread");
  }

  connect() {
    this.move("connecting");
    return Promise.resolve();
  }

  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  get listeners() {
    return [...this.#listeners.values()].reduce((sum, it) => sum + it.size, 0);
  }

  emit(type, value) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) listener(value);
  }

  move(status, more = {}) {
    const previous = this.status;
    this.status = status;
    this.emit("status", { status, previous, ...more });
  }

  /** The number of unread as the real client tells it. */
  count(unread) {
    this.unread = unread;
    this.emit("unread", unread);
  }

  /** Take the oldest request that is not answered, which must be `name`. */
  take(name) {
    const request = this.requests.shift();
    if (request?.name !== name) throw new Error(`not ${name}: ${request?.name}`);
    return request;
  }
}

/** Let everything run that does not wait for a timer. */
export async function settled() {
  await new Promise((resolve) => setImmediate(resolve));
}
