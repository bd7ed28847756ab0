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
    /** The number on the last page; `undefined` before `hello`. */
    let unread;
    /** @param {string} cursor @param {number} number */
    const hello = (cursor, number) =>
      take({ type: "hello", cursor, unread: number, heartbeat_s: heartbeatS(pollMs) });
    if (!place) {
      const newest = await page({ limit: 1 });
      place = newest.cursor;
      unread = newest.unread;
      hello(place, unread);
    }
    while (!signal.aborted) {
      const after = place === "earliest" ? undefined : place;
      const found = await page({ order: "oldest", after, limit: 100 });
      const { notifications } = found;
      const next = found.next ?? found.cursor;
      // A stream counts as of its cursor.
      const added = notifications.filter(({ read_at }) => !read_at).length;
      if (unread === undefined) hello(after ?? next, Math.max(found.unread - added, 0));
      if (found.gap) take({ type: "gap", reason: found.gap, cursor: next });
      for (const { read_at, ...notification } of notifications) {
        take({ type: "notification", notification });
      }
      if (next !== place) take({ type: "cursor", cursor: next });
      if (notifications.length) take({ type: "unread", unread: found.unread });
      else if (found.unread !== (unread ?? found.unread)) {
        take({ type: "read", ids: null, unread: found.unread });
      } else take({ type: "pong" });
      place = next;
      unread = found.unread;
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
