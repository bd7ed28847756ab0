import { StreamerError } from "../errors.js";
import { endingOfError } from "../refusals.js";

/** @import { Transport } from "../internal.js" */
/** @import { Page } from "../types.js" */

const PATH = "v1/players/me/notifications";

/**
 * Pages over plain HTTP, for networks on which no stream survives.
 *
 * Makes the messages of a stream out of pages. What a page does not tell (withdrawals,
 * marks) arrives as a `read` without ids, after which an application reads the first
 * page again.
 *
 * @type {Transport}
 */
export async function poll({ http, cursor, signal, take, pollMs }) {
  /** @param {Record<string, unknown>} query @returns {Promise<Page>} */
  const page = (query) => http.request("GET", PATH, { query, signal, once: true });
  try {
    let place = cursor();
    /** The number that the client has; `undefined` before `hello`. */
    let unread;
    /** @param {string} cursor @param {number} number */
    const hello = (cursor, number) => {
      unread = number;
      take({ type: "hello", cursor, unread, heartbeat_s: heartbeatS(pollMs) });
    };
    /** The ids of the last page: its cursor may be older than its last notifications. */
    let known = new Set();
    if (!place) {
      const newest = await page({ limit: 1 });
      place = newest.cursor;
      hello(place, newest.unread);
    }
    while (!signal.aborted) {
      const after = place === "earliest" ? undefined : place;
      const found = await page({ order: "oldest", after, limit: 100 });
      const notifications = found.notifications.filter(({ id }) => !known.has(id));
      const next = found.next ?? found.cursor;
      known = new Set(found.notifications.map(({ id }) => id));
      const added = notifications.filter(({ read_at }) => !read_at).length;
      // A stream counts as of its cursor.
      if (unread === undefined) hello(after ?? next, Math.max(found.unread - added, 0));
      if (found.gap) take({ type: "gap", reason: found.gap, cursor: next });
      for (const { read_at, ...notification } of notifications) {
        take({ type: "notification", notification });
        // It was read elsewhere already.
        if (read_at) take({ type: "unread", unread });
        else unread = Number(unread) + 1;
      }
      if (next !== place) take({ type: "cursor", cursor: next });
      place = next;
      // A page that has notifications may have counted before the last of them.
      if (!notifications.length && found.unread !== unread) {
        unread = found.unread;
        take({ type: "read", ids: null, unread });
      } else {
        take({ type: "pong" });
      }
      if (!found.next) await http.sleep(pollMs * (0.75 + http.clock.random() / 2), signal);
    }
    return { reason: "closed" };
  } catch (error) {
    if (!(error instanceof StreamerError)) throw error;
    return endingOfError(error);
  }
}

/** @param {number} pollMs */
function heartbeatS(pollMs) {
  return Math.max(25, (pollMs * 2) / 1000);
}
