import { StreamerError } from "./errors.js";

/** @import { Message } from "./internal.js" */

/**
 * The members without which a message of a known type cannot be processed, and their
 * types.
 *
 * @type {Record<string, Record<string, "string" | "number" | "object">>}
 */
const NEEDED = {
  hello: { cursor: "string", heartbeat_s: "number" },
  notification: { notification: "object" },
  cursor: { cursor: "string" },
  withdrawn: { id: "string" },
  replaced: { id: "string", by: "string" },
  gap: { reason: "string", cursor: "string" },
  read: { unread: "number" },
  unread: { unread: "number" },
  bye: { code: "number" },
};

/**
 * Return `message` as one of the protocol. A message of an unknown type is one, too.
 *
 * A message of a known type that cannot be read may be a notification, so it must not be
 * skipped: the caller drops the connection and resumes from before it.
 *
 * @param {any} message
 * @returns {Message}
 */
export function checked(message) {
  const needed = NEEDED[message?.type] ?? {};
  let isReadable = typeof message?.type === "string";
  for (const name in needed) {
    isReadable &&= message[name] !== null && typeof message[name] === needed[name];
  }
  if (message?.type === "notification") {
    isReadable &&= typeof message.notification.id === "string";
  }
  isReadable &&= ["string", "undefined"].includes(typeof message.cursor);
  if (isReadable) return message;
  const text = JSON.stringify(message) ?? "";
  throw new StreamerError("unreadable", `unreadable message: ${text.slice(0, 200)}`);
}

/** The number of unread notifications, by the rule of the protocol's section 6. */
export class UnreadCount {
  /** `null` while it is unknown. @type {number | null} */
  number = null;
  #isOwnTopic;

  /** @param {(topic: string) => boolean} isOwnTopic Whether the stream asked for it. */
  constructor(isOwnTopic) {
    this.#isOwnTopic = isOwnTopic;
  }

  /**
   * Process a message of the server; return the number after it.
   *
   * @param {Message} message
   */
  take(message) {
    if (["hello", "unread", "read"].includes(message.type)) {
      this.number = message.unread ?? this.number;
    } else if (message.type === "notification" && this.number !== null) {
      const { id, topic } = message.notification;
      // A random id, of version 4, is that of a notification that is not stored.
      const isStored = id[14] !== "4";
      if (isStored && !(topic !== undefined && this.#isOwnTopic(topic))) this.number++;
    }
    return this.number;
  }
}

/** Room for the replays (500 each) of several audiences. */
const IDS_MAX = 2_048;

/**
 * The ids of the last notifications. What an earlier connection has delivered is a
 * repeat; within a connection the server decides.
 */
export class SeenIds {
  /** @type {Map<string, number>} */
  #ids = new Map();
  #connection = 0;

  /** Regard all ids so far as delivered by an earlier connection. */
  beginConnection() {
    this.#connection++;
  }

  /** Forget everything. */
  clear() {
    this.#ids.clear();
  }

  /** Return whether any connection has delivered `id`. @param {string} id */
  isKnown(id) {
    return this.#ids.has(id);
  }

  /** The same as `isRepeat`, without remembering `id`. @param {string} id */
  has(id) {
    return (this.#ids.get(id) ?? this.#connection) !== this.#connection;
  }

  /**
   * Remember `id`; return whether an earlier connection has delivered it.
   *
   * @param {string} id
   */
  isRepeat(id) {
    if (this.has(id)) return true;
    this.#ids.set(id, this.#connection);
    if (this.#ids.size > IDS_MAX) {
      for (const oldest of this.#ids.keys()) {
        this.#ids.delete(oldest);
        break;
      }
    }
    return false;
  }
}
