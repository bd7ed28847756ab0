/**
 * Responses of HTTP that refuse something.
 *
 * @module
 */

import { DELAY_MAX_MS } from "./backoff.js";

/** @import { Ending } from "./internal.js" */
/** @import { StreamerError } from "./errors.js" */
/** @import { Problem } from "./types.js" */

/**
 * Return what a response that is not a success says.
 *
 * @param {Response} response
 * @returns {Promise<{problem?: Problem, text: string}>}
 */
export async function problemOf(response) {
  /** @type {Problem | undefined} */
  let problem;
  try {
    const body = JSON.parse(await response.text());
    if (body && typeof body === "object") problem = body;
  } catch {
    // Not from the server: a proxy's page, or a connection that was cut.
  }
  const said = problem?.detail ?? problem?.title ?? response.statusText;
  return { problem, text: `${response.status} ${said}`.trim() };
}

/**
 * Return the ending that a response is which refuses a stream.
 *
 * @param {Response} response
 * @param {number} unixMs
 * @returns {Promise<Ending>}
 */
export async function endingOf(response, unixMs) {
  const { status, headers } = response;
  const isPage = headers.get("Content-Type")?.startsWith("text/html");
  const { problem, text: reason } = await problemOf(response);
  // The page of a captive portal or of a proxy is no decision of the server.
  if (isPage && status < 500) return { reason };
  const delayMs = retryAfterMs(headers, unixMs);
  return { code: codeOf(status), reason, status, problem, delayMs };
}

/**
 * Return the ending that an error of a request is which a stream needs.
 *
 * @param {StreamerError} error
 * @returns {Ending}
 */
export function endingOfError({ status, problem, retryAfterMs, message: reason }) {
  if (!status) return { reason, network: true };
  return { code: codeOf(status), reason, status, problem, delayMs: retryAfterMs };
}

/**
 * Return how many milliseconds a `Retry-After` asks for; 0 if it cannot be read.
 *
 * @param {Headers} headers
 * @param {number} unixMs
 */
export function retryAfterMs(headers, unixMs) {
  const value = headers.get("Retry-After")?.trim() ?? "";
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - unixMs;
  return ms > 0 ? Math.min(ms, DELAY_MAX_MS) : 0;
}

/**
 * Return the close code with the meaning of an HTTP status that refuses a stream.
 *
 * @param {number} status
 */
function codeOf(status) {
  if (status === 401) return 4200;
  if (status === 403) return 4201;
  if (status === 409) return 4101;
  if (status >= 500 || [408, 425, 429].includes(status)) return 4102;
  return 4203;
}
