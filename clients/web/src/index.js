/**
 * The client of a streamer server.
 *
 * @module
 */

export { StreamerClient } from "./client.js";
export { StreamerError } from "./errors.js";
export { Inbox } from "./inbox.js";

/** @typedef {import("./errors.js").ErrorKind} ErrorKind */
/** @typedef {import("./types.js").ClientEvent} ClientEvent */
/** @typedef {import("./types.js").ClientEvents} ClientEvents */
/** @typedef {import("./types.js").ClientOptions} ClientOptions */
/** @typedef {import("./types.js").Gap} Gap */
/** @typedef {import("./types.js").Mark} Mark */
/** @typedef {import("./types.js").Notification} Notification */
/** @typedef {import("./types.js").Page} Page */
/** @typedef {import("./types.js").PageOptions} PageOptions */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {import("./types.js").ReadMark} ReadMark */
/** @typedef {import("./types.js").Status} Status */
/** @typedef {import("./types.js").StatusChange} StatusChange */
/** @typedef {import("./types.js").TransportName} TransportName */
