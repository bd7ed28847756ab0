/** @import { Transport } from "../internal.js" */

/**
 * WebSocket. The token is in the first message, because browsers set no headers.
 *
 * @type {Transport}
 */
export function websocket({ WebSocket, http, url, token, signal, take, canSend }) {
  return new Promise((resolve) => {
    const address = url();
    address.protocol = address.protocol.replace("http", "ws");
    // Browsers hide the status of a refusal.
    address.searchParams.set("refusals", "stream");
    const socket = new WebSocket(address.href);
    let isOpen = false;
    socket.onopen = () => {
      isOpen = true;
      /** @param {object} message */
      const send = (message) => {
        if (socket.readyState === 1) socket.send(JSON.stringify(message));
      };
      if (token) send({ type: "auth", token });
      canSend(send);
    };
    /** @param {{data: string}} event */
    socket.onmessage = ({ data }) => {
      let message;
      try {
        message = http.parse(data);
      } catch {
        // `take` reports what it cannot read.
      }
      take(message);
    };
    // `onclose` follows, and says more.
    socket.onerror = () => {};
    /** @param {{code: number, reason: string}} event */
    socket.onclose = ({ code, reason }) => {
      resolve({ code, reason: reason || (isOpen ? "closed" : "cannot connect") });
    };
    signal.addEventListener("abort", () => {
      socket.onmessage = null;
      socket.close();
    });
  });
}
