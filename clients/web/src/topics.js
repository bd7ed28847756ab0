import { StreamerError } from "./errors.js";

/** @import { Feed, Message } from "./internal.js" */
/** @import { Clock } from "./types.js" */

const REPLY_MS = 60_000;

/**
 * The topics that a stream asks for itself.
 *
 * @typedef {object} Topics
 * @property {Set<string>} own
 * @property {string[]} pending Their notifications may arrive before the reply.
 * @property {Map<string, (message?: Message) => void>} replies By `ref`.
 */

let lastRef = 0;

/**
 * Ask for topics, or for none of them any more, on an open stream or on the next one.
 *
 * @param {Topics} topics
 * @param {"subscribe" | "unsubscribe"} type
 * @param {string[]} names
 * @param {Feed} feed
 * @param {Clock} clock
 */
export async function changeTopics({ own, pending, replies }, type, names, feed, clock) {
  const isMore = type === "subscribe";
  const ref = String(++lastRef);
  /** @type {any} */
  let timer;
  if (isMore) pending.push(...names);
  try {
    /** @type {Promise<Message | undefined>} */
    const replied = new Promise((resolve) => {
      // Without a message if the connection ends before.
      replies.set(ref, resolve);
      timer = clock.setTimeout(() => resolve(undefined), REPLY_MS);
    });
    const isSent = feed.send({ type, topics: names, ref });
    const reply = isSent ? await replied : undefined;
    if (reply?.type === "error") throw new StreamerError("rejected", reply.problem);
    for (const name of names) own[isMore ? "add" : "delete"](name);
    // The next connection names the topics in its URL.
    if (!reply) feed.reopen("topics have changed");
  } finally {
    clock.clearTimeout(timer);
    replies.delete(ref);
    if (isMore) for (const name of names) pending.splice(pending.indexOf(name), 1);
  }
}
