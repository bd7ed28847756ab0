/**
 * A player's line to the server, which the page can break: open connections are cut, and
 * new ones fail, in all tabs of this browser.
 */

export class Line extends EventTarget {
  #key;
  #channel;
  #sockets = new Set();
  #isBroken = false;

  constructor(name) {
    super();
    this.#key = `streamer-demo-line-${name}`;
    this.#channel = new BroadcastChannel(this.#key);
    this.#channel.onmessage = ({ data }) => this.#become(data);
    this.#become(localStorage.getItem(this.#key) === "broken");

    const line = this;
    const { fetch, WebSocket } = globalThis;
    this.fetch = (...request) =>
      this.#isBroken ? Promise.reject(new TypeError("the line is broken")) : fetch(...request);
    this.WebSocket = function (...parameters) {
      if (line.#isBroken) return new FailingSocket();
      const socket = new WebSocket(...parameters);
      line.#sockets.add(socket);
      socket.addEventListener("close", () => line.#sockets.delete(socket));
      return socket;
    };
  }

  get isBroken() {
    return this.#isBroken;
  }

  toggle() {
    const isBroken = !this.#isBroken;
    localStorage.setItem(this.#key, isBroken ? "broken" : "whole");
    this.#channel.postMessage(isBroken);
    this.#become(isBroken);
  }

  #become(isBroken) {
    if (isBroken === this.#isBroken) return;
    this.#isBroken = isBroken;
    if (isBroken) for (const socket of this.#sockets) socket.close();
    // As when the network is back: clients that wait try again at once.
    else globalThis.dispatchEvent(new Event("online"));
    this.dispatchEvent(new Event("change"));
  }
}

/** What `new WebSocket` returns without a network. */
class FailingSocket {
  readyState = 3;
  onopen = null;
  onmessage = null;
  onerror = null;
  onclose = null;

  constructor() {
    setTimeout(() => {
      this.onerror?.(new Event("error"));
      this.onclose?.({ code: 1006, reason: "", wasClean: false });
    });
  }

  send() {}
  close() {}
}
