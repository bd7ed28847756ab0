/** Requests of the console, by the web client's transport: with retries and exact numbers. */

import { Http } from "../client/http.js";
import { parseJson } from "../client/json.js";

const BASE = new URL("api/", import.meta.url);
const CLOCK = {
  now: () => performance.now(),
  unixMs: () => Date.now(),
  random: () => Math.random(),
  setTimeout: (...rest) => setTimeout(...rest),
  clearTimeout: (id) => clearTimeout(id),
};
// The session is a cookie that no script can read.
const CREDENTIAL = { current: async () => null, canRenew: false };

/** The app that this tab shows, "" for the first one: a person may have several. */
export const APP = new URLSearchParams(location.search).get("app") ?? "";

function http(headers = {}) {
  const one = new Http({
    base: BASE,
    credential: CREDENTIAL,
    withCredentials: false,
    fetch: (...request) => fetch(...request),
    clock: CLOCK,
    parse: parseJson,
  });
  one.headers = () => (APP ? { "Streamer-App": APP, ...headers } : headers);
  return one;
}

const reading = http();
let onSignedOut = () => {};

/** Call a function when the server says that the session has ended. */
export function whenSignedOut(listener) {
  onSignedOut = listener;
}

async function guarded(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.status === 401) onSignedOut();
    throw error;
  }
}

export const api = {
  get: (path, query, options) => guarded(reading.request("GET", path, { query, ...options })),
  /** Once: what was refused for now is told at once. */
  send: (method, path, body) => guarded(reading.request(method, path, { body, once: true })),
  /** Repeated until there is an answer: the key makes it one message. */
  publish: (body) =>
    guarded(http({ "Idempotency-Key": crypto.randomUUID() }).request("POST", "messages", { body })),
  waysToLogIn: () => reading.request("GET", "login", { once: true }),
  /** Where to go to log in with the issuer, to come back to this place. */
  beginLogin: (target) =>
    reading.request("POST", "login", { body: { app: APP.slice(0, 64), target: target.slice(0, 512) }, once: true }),
  logIn: (key) => reading.request("POST", "session", { body: { key }, once: true }),
};

/** The path of a player's operation. */
export const ofPlayer = (player, rest) => `players/${encodeURIComponent(player)}/${rest}`;
