/** @import { Problem } from "./types.js" */

/**
 * What went wrong:
 *
 * - `rejected`: the server refuses a request, and would again;
 * - `unavailable`: there was no usable response, it may have been carried out or not;
 * - `refused`: the server refuses the stream for good;
 * - `signed-out`: `getToken` has returned `null`;
 * - `unreadable`: something has another form than the protocol says;
 * - `closed`: the client was closed.
 *
 * @typedef {"rejected" | "unavailable" | "refused" | "signed-out" | "unreadable" | "closed"} ErrorKind
 */

/** An error of the client. Decide by `kind`, then by `status` or `code`. */
export class StreamerError extends Error {
  /**
   * @param {ErrorKind} kind
   * @param {string} message
   * @param {{status?: number, code?: number, problem?: Problem, retryAfterMs?: number, cause?: unknown}} [details]
   */
  constructor(kind, message, { status, code, problem, retryAfterMs, cause } = {}) {
    super(message, { cause });
    this.name = "StreamerError";
    /** @readonly */
    this.kind = kind;
    /** @readonly The HTTP status, if there was one. */
    this.status = status;
    /** @readonly The close code of a stream, if there was one. */
    this.code = code;
    /** @readonly The server's problem document, if there was one. */
    this.problem = problem;
    /** @readonly What the server asks to wait, if it does. */
    this.retryAfterMs = retryAfterMs;
  }
}
