import { StreamerError } from "../errors.js";
import { endingOfError } from "../refusals.js";
import { asMessage } from "./sse.js";

/** @import { Transport } from "../internal.js" */

const EVENTS = [
  ...["message", "hello", "withdrawn", "replaced", "gap", "read", "cursor", "unread"],
  ...["ping", "bye"],
];

/**
 * Server-Sent Events, read by `EventSource`: a ticket in the URL, which opens one
 * connection.
 *
 * @type {Transport}
 */
export async function eventsource(channel) {
  const { EventSource, http, url, token, signal, take } = channel;
  const address = url();
  address.searchParams.set("refusals", "stream");
  if (token) {
    try {
      const { ticket } = await http.request("POST", "v1/tickets", { signal, once: true });
      address.searchParams.set("ticket", ticket);
    } catch (error) {
      if (!(error instanceof StreamerError)) throw error;
      return endingOfError(error);
    }
  }
  if (signal.aborted) return { reason: "closed" };
  return new Promise((resolve) => {
    const source = new EventSource(address.href, {
      withCredentials: http.credentials === "include",
    });
    let lastId = "";
    for (const name of EVENTS) {
      source.addEventListener(name, (/** @type {MessageEvent} */ event) => {
        // `EventSource` repeats the last id on events that have none.
        const id = event.lastEventId === lastId ? undefined : event.lastEventId;
        lastId = event.lastEventId;
        take(asMessage(name, event.data, id, http.parse));
      });
    }
    // The client reconnects, with a ticket and a cursor of its own.
    source.onerror = () => {
      source.close();
      resolve({ reason: "the event source has failed" });
    };
    signal.addEventListener("abort", () => source.close());
  });
}
