/**
 * The types that the modules of the client share. This module has no code, so that its
 * text is not sent to browsers.
 *
 * @module
 */

/** @import { Http } from "./http.js" */
/** @import { StreamerError } from "./errors.js" */
/** @import { Problem, StatusChange, TransportName } from "./types.js" */

/** @typedef {{type: string, [member: string]: any}} Message */

/**
 * How a connection ended, or why there was none.
 *
 * @typedef {object} Ending
 * @property {number} [code] A close code.
 * @property {string} reason For people.
 * @property {number} [delayMs] The delay that the server asks for.
 * @property {number} [status] The HTTP status that refused it.
 * @property {Problem} [problem]
 * @property {boolean} [network] Nothing answered: this says nothing of the transport.
 * @property {boolean} [buffered] It was opened, and nothing arrived on it.
 * @property {boolean} [answered] The server has said so itself, on the stream.
 * @property {boolean} [untried] The transport had no part in it.
 * @property {boolean} [again] The client itself wants another connection at once.
 * @property {boolean} [signedOut] There is no token.
 */

/**
 * What to do after an ending: one of `stop`, `newToken` and `waitMs`.
 *
 * @typedef {object} Step
 * @property {StreamerError} [stop] Do not reconnect.
 * @property {true} [newToken] Get another token, and reconnect at once.
 * @property {number} [waitMs] Reconnect after this time.
 * @property {boolean} [asked] With `waitMs`: the server has asked for it.
 */

/**
 * A request.
 *
 * @typedef {object} RequestOptions
 * @property {Record<string, unknown>} [query] `undefined` is left out; a list repeats
 *   the parameter.
 * @property {unknown} [body] Sent as JSON.
 * @property {AbortSignal} [signal]
 * @property {boolean} [once] Do not repeat it while the server is unavailable.
 * @property {number} [heldMs] How long the server may hold it before it answers.
 */

/**
 * What a transport gets. It calls `take` for each message, and returns how the
 * connection ended. When `signal` is aborted it closes the connection.
 *
 * @typedef {object} Channel
 * @property {Http} http
 * @property {string | null} token
 * @property {() => URL} url The stream's URL with its query.
 * @property {() => string | null} cursor
 * @property {AbortSignal} signal
 * @property {any} WebSocket
 * @property {any} EventSource
 * @property {number} pollMs
 * @property {(message: any) => void} take
 * @property {(send: (message: object) => void) => void} canSend The transport can send
 *   messages to the server.
 */

/** @typedef {(channel: Channel) => Promise<Ending>} Transport */

/**
 * Who owns a stream, and what the owner wants to know.
 *
 * @typedef {object} Owner
 * @property {Http} http
 * @property {TransportName[]} transports
 * @property {any} WebSocket
 * @property {any} EventSource
 * @property {number} pollMs
 * @property {() => Record<string, string>} query The parameters of the stream.
 * @property {() => string | null} cursor
 * @property {() => number | null} unread
 * @property {() => void} onConnection A connection has begun: `hello` follows.
 * @property {(message: Message) => boolean} onMessage Returns whether it was new.
 * @property {(change: Omit<StatusChange, "previous">) => void} onStatus
 */

/**
 * The source of the messages of a stream.
 *
 * @typedef {object} Feed
 * @property {() => void} start Connect, and stay connected until `stop`.
 * @property {() => void} stop Disconnect; `start` resumes.
 * @property {(reason: string) => void} reopen Open another connection at once.
 * @property {(message: object) => boolean} send Returns whether it was sent.
 */

export {};
