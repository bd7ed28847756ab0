import { StreamerError } from "../errors.js";
import { endingOfError } from "../refusals.js";

/** @import { Transport } from "../internal.js" */
/** @import { Page } from "../types.js" */

const PATH = "v1/players/me/notifications";
/** How long the server may hold a request. Proxies permit 30 to 60 s, most of them. */
const WAIT_S = 25;
/** A wait that is given up even earlier is of no use. */
const WAIT_MIN_S = 5;
/** What a proxy answers when it has given up a request. */
const GIVEN_UP = [408, 502, 504];

/**
 * Pages over plain HTTP, for networks on which no stream survives. The server holds a
 * request until there is something to answer; where it cannot, the client asks again and
 * again.
 *
 * Makes the messages of a stream out of pages. What a page does not tell (withdrawals,
 * marks) arrives as a `read` without ids, after which an application reads the first
 * page again.
 *
 * @type {Transport}
 */
export async function poll({ http, cursor, signal, take, pollMs }) {
  const { clock } = http;
  /** @param {Record<string, unknown>} query @param {number} [waitS] @returns {Promise<Page>} */
  const page = (query, waitS = 0) =>
    http.request("GET", PATH, {
      query: { ...query, wait_s: waitS || undefined },
      ...{ signal, once: true, heldMs: waitS * 1000 },
    });
  const pause = () => http.sleep(pollMs * (0.75 + clock.random() / 2), signal);
  try {
    let place = cursor();
    /** The number that the client has; `undefined` before `hello`. */
    let unread;
    /** @param {string} cursor @param {number} number */
    const hello = (cursor, number) => {
      unread = number;
      take({ type: "hello", cursor, unread, heartbeat_s: heartbeatS(pollMs) });
    };
    /** The ids of the last page: that of an older server may go beyond its cursor. */
    let known = new Set();
    let waitS = WAIT_S;
    /** Answers in a row that came early and brought no notification. */
    let early = 0;
    if (!place) {
      const newest = await page({ limit: 1 });
      place = newest.cursor;
      hello(place, newest.unread);
    }
    while (!signal.aborted) {
      const after = place === "earliest" ? undefined : place;
      // The first answer is the greeting.
      const heldS = unread === undefined ? 0 : waitS;
      const begunMs = clock.now();
      let found;
      try {
        found = await page({ order: "oldest", after, limit: 100 }, heldS);
      } catch (error) {
        if (!heldS || signal.aborted || !isGivenUp(error)) throw error;
        waitS = waitS / 2 < WAIT_MIN_S ? 0 : Math.floor(waitS / 2);
        await pause();
        continue;
      }
      const notifications = found.notifications.filter(({ id }) => !known.has(id));
      const next = found.next ?? found.cursor;
      known = new Set(found.notifications.map(({ id }) => id));
      const added = notifications.filter(({ read_at }) => !read_at).length;
      const isChanged = next !== place || found.unread !== unread;
      // A stream counts as of its cursor.
      if (unread === undefined) hello(after ?? next, Math.max(found.unread - added, 0));
      // The notifications of the page follow it, so its cursor is that before them.
      if (found.gap) take({ type: "gap", reason: found.gap, cursor: after ?? next });
      for (const { read_at, ...notification } of notifications) {
        take({ type: "notification", notification });
        // It was read elsewhere already.
        if (read_at) take({ type: "unread", unread });
        else unread = Number(unread) + 1;
      }
      if (next !== place) take({ type: "cursor", cursor: next });
      place = next;
      // The page of an older server may have counted before the last of them.
      if (!notifications.length && found.unread !== unread) {
        unread = found.unread;
        take({ type: "read", ids: null, unread });
      } else {
        take({ type: "pong" });
      }
      if (found.next) continue;
      const isEarly = !notifications.length && clock.now() - begunMs < heldS * 500;
      early = isEarly ? early + 1 : 0;
      // A mark ends a wait, but an older server answers each time at once.
      if (!waitS || early > (isChanged ? 1 : 0)) await pause();
    }
    return { reason: "closed" };
  } catch (error) {
    if (!(error instanceof StreamerError)) throw error;
    return endingOfError(error);
  }
}

/**
 * Whether something between this client and the server has given up a request.
 *
 * @param {unknown} error
 */
function isGivenUp(error) {
  return error instanceof StreamerError && (!error.status || GIVEN_UP.includes(error.status));
}

/** @param {number} pollMs */
function heartbeatS(pollMs) {
  return Math.max(WAIT_S, (pollMs * 2) / 1000);
}
