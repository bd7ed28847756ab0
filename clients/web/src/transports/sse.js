import { endingOf } from "../refusals.js";

/** @import { Transport } from "../internal.js" */

/**
 * Server-Sent Events, read by `fetch`: the token is in a header.
 *
 * @type {Transport}
 */
export async function sse({ http, url, token, signal, take }) {
  const { fetch, credentials } = http;
  const headers = { ...http.headers(token), Accept: "text/event-stream" };
  let response;
  try {
    response = await fetch(url(), { headers, signal, credentials, cache: "no-store" });
  } catch (error) {
    return { reason: `cannot connect: ${error}`, network: true };
  }
  const type = response.headers.get("Content-Type") ?? "";
  if (!response.ok) return endingOf(response, http.clock.unixMs());
  if (!type.startsWith("text/event-stream") || !response.body) {
    return { reason: `the response is ${type || "without a type"}, not a stream` };
  }
  const events = new EventParser((name, data, id) => take(asMessage(name, data, id, http.parse)));
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { reason: "the response has ended" };
      events.push(decoder.decode(value, { stream: true }));
    }
  } catch (error) {
    return { reason: `lost: ${error}` };
  }
}

/**
 * Return an event as the WebSocket message with the same meaning.
 *
 * @param {string} name
 * @param {string} data
 * @param {string | undefined} id
 * @param {(text: string) => any} parse
 */
export function asMessage(name, data, id, parse) {
  let content;
  try {
    content = parse(data);
  } catch {
    // The message has no content, and is reported as unreadable if that matters.
  }
  const isNamed = name && name !== "message";
  const message = isNamed
    ? { ...content, type: name }
    : { type: "notification", notification: content };
  return id ? { ...message, cursor: id } : message;
}

/** Divides the text of an event stream into events. */
export class EventParser {
  #rest = "";
  #name = "";
  #data = "";
  /** @type {string | undefined} */
  #id;
  #onEvent;

  /** @param {(name: string, data: string, id: string | undefined) => void} onEvent */
  constructor(onEvent) {
    this.#onEvent = onEvent;
  }

  /** @param {string} text */
  push(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = /** @type {string} */ (lines.pop());
    for (const line of lines) this.#take(line);
  }

  /** @param {string} line */
  #take(line) {
    const [field] = line.split(":", 1);
    const value = line.slice(field.length + 1).replace(/^ /, "");
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data += (this.#data && "\n") + value;
    else if (field === "id") this.#id = value;
    else if (!line) {
      if (this.#data) this.#onEvent(this.#name, this.#data, this.#id);
      this.#name = this.#data = "";
      this.#id = undefined;
    }
  }
}
