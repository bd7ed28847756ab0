/** @import { Inbox } from "./inbox.js" */
/** @import { SeenIds } from "./messages.js" */
/** @import { Gap, Notification } from "./types.js" */

const FILL_MAX = 1_000;

/**
 * Iterate over what a gap has left out, newest first.
 *
 * @param {Inbox} inbox
 * @param {SeenIds} seen
 * @param {Gap} gap
 * @param {{max?: number, signal?: AbortSignal}} options
 * @param {() => void} onFilled Called when the iteration ends, but not after an error.
 * @returns {AsyncGenerator<Notification, void, void>}
 */
export async function* fillGap(
  inbox,
  seen,
  { reason, before, topic },
  { max = FILL_MAX, signal },
  onFilled,
) {
  // After these the old cursor means nothing, so a known id ends the reading.
  const isLost = ["epoch", "ahead", "diverged"].includes(reason);
  const after = before && before !== "earliest" && !isLost ? before : undefined;
  let hasFailed = false;
  try {
    const found = inbox.notifications({ limit: 100, topic, after, signal });
    for await (const notification of found) {
      if (!seen.isKnown(notification.id)) {
        if (max-- <= 0) return;
        yield notification;
      } else if (!after && !topic) return;
    }
  } catch (error) {
    hasFailed = true;
    throw error;
  } finally {
    if (!hasFailed) onFilled();
  }
}
