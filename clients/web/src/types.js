/**
 * The types of the client. This module has no code.
 *
 * What the server sends keeps the names that it has in the protocol (`created_at`,
 * `up_to`). The names of the client's own options and members are in camel case.
 *
 * @module
 */

/**
 * @typedef {"low" | "medium" | "high" | "emergency"} Priority
 */

/**
 * A notification; it never changes. Its strings were written by other people: escape
 * them where you display them.
 *
 * @typedef {object} Notification
 * @property {string} id Unique. Pages are ordered by it.
 * @property {string} created_at When the server stored it, RFC 3339 in UTC.
 * @property {string} [type] Its kind, for programs.
 * @property {string} [title]
 * @property {string} [body]
 * @property {any} [data] Any JSON value; `null` is a value.
 * @property {{key: string, value: string}[]} [properties]
 * @property {Priority | (string & {})} [priority] Missing means `medium`.
 * @property {{url?: string, etag?: string}} [resource] What it refers to.
 * @property {string} [source] The API of the server that received it.
 * @property {string} [topic] The topic that it was sent to.
 * @property {boolean} [everyone] It was sent to every player.
 * @property {string} [expires_at] From then on no page shows it.
 * @property {string} [collapse_key] The next one with this key replaces it.
 * @property {string} [due_at] When it should have been sent, if that was much earlier.
 * @property {string} [read_at] On pages: when it was marked as read.
 */

/**
 * A page of the inbox, newest first.
 *
 * @typedef {object} Page
 * @property {Notification[]} notifications
 * @property {string | null} next Pass it as `before` to get the next older page; with
 *   `oldestFirst`, as `after` to get the next newer one. `null`: there is none.
 * @property {number} unread Unread notifications in the whole inbox.
 * @property {string} cursor The point after the newest notification.
 * @property {GapReason} [gap] With `oldestFirst`: `after` is no longer valid.
 */

/**
 * @typedef {object} PageOptions
 * @property {number} [limit] 1 to 100; 20 by default.
 * @property {string} [before] A cursor or an id, exclusive.
 * @property {string} [after] A cursor or an id, exclusive.
 * @property {string | string[]} [type] One of these types.
 * @property {string | string[]} [priority] One of these priorities.
 * @property {string} [topic] Only what was sent to this topic.
 * @property {boolean} [unread] Only what is not marked as read.
 * @property {boolean} [oldestFirst] The oldest first; excludes `before`.
 * @property {AbortSignal} [signal]
 */

/**
 * What to mark as read: exactly one member.
 *
 * @typedef {object} Mark
 * @property {string[]} [ids] Up to 1,000; unknown ids are ignored.
 * @property {string} [upTo] A cursor or an id, inclusive.
 * @property {true} [all] Everything that is there at this moment.
 */

/**
 * @typedef {{topic: string, muted: boolean}} Membership
 */

/**
 * @typedef {{types: string[], topics: string[]}} Mutes
 */

/**
 * @typedef {object} Receipt
 * @property {string} id
 * @property {"stored" | "acknowledged" | "read" | "expired" | "withdrawn" | "replaced" | (string & {})} state
 * @property {string} stored_at
 * @property {boolean} acknowledged
 * @property {string} [read_at]
 * @property {string} [expires_at]
 */

/**
 * An error response of the server (RFC 9457).
 *
 * @typedef {object} Problem
 * @property {string} [type] `about:` and a word that never changes its meaning.
 * @property {string} [title]
 * @property {number} [status]
 * @property {string} [detail] What happened, for people.
 * @property {string} [defect] With 401: what is wrong with the credential.
 * @property {string} [limit] The limit that is reached.
 * @property {object[]} [errors] Everything that is wrong with the request.
 */

/**
 * What the client is doing:
 *
 * - `idle`: `connect` was not called yet;
 * - `connecting`: a connection is being opened;
 * - `open`: notifications arrive;
 * - `waiting`: there is no connection; the next attempt follows by itself;
 * - `offline`: the same, and the browser says that there is no network;
 * - `stopped`: the server refuses this client for good, see `StatusChange.error`;
 * - `closed`: `close` was called.
 *
 * @typedef {"idle" | "connecting" | "open" | "waiting" | "offline" | "stopped" | "closed"} Status
 */

/**
 * @typedef {object} StatusChange
 * @property {Status} status
 * @property {Status} previous
 * @property {string} [transport] With `open`: how it is connected.
 * @property {number} [code] Why the last connection ended: a close code.
 * @property {string} [reason] The same, for people.
 * @property {number} [delayMs] With `waiting` and `offline`: time to the next attempt.
 * @property {number} [attempt] Attempts since a connection last proved itself.
 * @property {import("./errors.js").StreamerError} [error] With `stopped`: why.
 */

/**
 * @typedef {"too_far" | "trimmed" | "epoch" | "ahead" | "diverged" | (string & {})} GapReason
 */

/**
 * Some notifications cannot be delivered on this stream. Those that are kept are in the
 * pages: `client.fillGap(gap)` reads them.
 *
 * @typedef {object} Gap
 * @property {GapReason} reason
 * @property {string} cursor Where the stream goes on.
 * @property {string | null} before The client's cursor before the gap.
 * @property {string} [topic] Only what was sent to this topic is missing.
 * @property {boolean} [everyone] Only what was sent to everyone is missing.
 */

/**
 * Marks have changed, here or on another device. Exactly one of `ids`, `up_to` and
 * `all` is present. `ids: null`: the server does not say which, so read the page again.
 *
 * @typedef {object} ReadMark
 * @property {string[] | null} [ids]
 * @property {string} [up_to] A cursor, inclusive.
 * @property {true} [all]
 * @property {boolean} read False: marks were removed.
 * @property {number} [unread]
 */

/**
 * The events of a client, by name, with what a listener gets.
 *
 * @typedef {object} ClientEvents
 * @property {Notification} notification It has arrived. Repeats are dropped.
 * @property {{id: string}} withdrawn Remove it from the screen.
 * @property {{id: string, by: string}} replaced Remove `id`; the notification `by`
 *   follows.
 * @property {ReadMark} read
 * @property {number} unread The number of unread notifications has changed.
 * @property {Gap} gap
 * @property {string} cursor The point that has been reached has changed.
 * @property {StatusChange} status
 * @property {undefined} reset The token is of another player now: forget what was shown.
 */

/**
 * An event as the iterator `client.events()` returns it.
 *
 * @typedef {{[K in keyof ClientEvents]: {type: K, value: ClientEvents[K]}}[keyof ClientEvents]} ClientEvent
 */

/**
 * A token and, if it is not a JSON Web Token, when it expires.
 *
 * @typedef {string | {token: string, expires_at?: string}} TokenResult
 */

/**
 * Why a token is needed: for the first connection, for another one, because the present
 * token is about to expire, or because the server has refused it.
 *
 * @typedef {"first" | "reconnect" | "expiring" | "refused"} TokenReason
 */

/**
 * Returns the player's token. `null`: nobody is signed in, and the client stops.
 *
 * An exception counts as a lost connection: the client tries again, with back-off.
 *
 * @callback GetToken
 * @param {{reason: TokenReason, signal: AbortSignal}} request
 * @returns {TokenResult | null | Promise<TokenResult | null>}
 */

/**
 * Where a client keeps its cursor: `localStorage`, `sessionStorage`, or anything with
 * these methods. They may return promises.
 *
 * @typedef {object} CursorStorage
 * @property {(key: string) => string | null | Promise<string | null>} getItem
 * @property {(key: string, value: string) => unknown} setItem
 * @property {(key: string) => unknown} removeItem
 */

/**
 * `websocket`; `sse`, read by `fetch`; `eventsource`, with tickets; `poll`, pages over
 * plain HTTP.
 *
 * @typedef {"websocket" | "sse" | "eventsource" | "poll"} TransportName
 */

/**
 * Time and randomness, for tests.
 *
 * @typedef {object} Clock
 * @property {() => number} now Milliseconds that only ascend.
 * @property {() => number} unixMs Milliseconds since 1970.
 * @property {() => number} random At least 0 and less than 1.
 * @property {(callback: () => void, delayMs: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/**
 * @typedef {object} ClientOptions
 * @property {string | URL} [url] The server, with the prefix that it may have behind a
 *   proxy. By default that of the page.
 * @property {string} [token] The player's token. A stream ends with it; prefer
 *   `getToken`.
 * @property {GetToken} [getToken] Called before each connection, before the token
 *   expires, and after it was refused.
 * @property {boolean} [withCredentials] Send cookies. Without `token` and `getToken`
 *   the cookie `Authorization` is the credential.
 * @property {string} [cursor] Where the first connection begins if nothing is stored: a
 *   cursor or an id, or `earliest`. By default from now on.
 * @property {CursorStorage} [storage] Where to keep the cursor. By default only in
 *   memory.
 * @property {string} [storageKey] The key in it; by default made of the server's URL.
 * @property {string[]} [topics] Topics to deliver besides those that the player is
 *   subscribed to. Up to 16; the token must allow them.
 * @property {string} [device] A permanent name of the device.
 * @property {TransportName[]} [transports] Transports to try, in this order. By default
 *   all that the environment has.
 * @property {boolean} [tabs] Share one connection between all tabs with the same
 *   server and player, where the browser can. False by default.
 * @property {boolean} [queue] Keep marks and acknowledgements that cannot be sent, and
 *   send them later, also after a restart of the browser. False by default.
 * @property {AbortSignal} [signal] Closes the client.
 * @property {typeof globalThis.fetch} [fetch]
 * @property {any} [WebSocket] A constructor, for example that of the package `ws`.
 * @property {any} [EventSource]
 * @property {(text: string) => any} [parse] Instead of `JSON.parse`; see
 *   `streamer-client/json`.
 * @property {number} [bufferMax] Events that an iterator may be behind before the client
 *   disconnects until it has caught up. 4,096 by default.
 * @property {number} [pollMs] How often the transport `poll` asks where no request can be
 *   held. 5,000 by default.
 * @property {Clock} [clock]
 */

export {};
