import { StreamerError } from "./errors.js";

/** @import { ClientEvent } from "./types.js" */

/**
 * The events that one consumer has not taken yet. One consumer at a time.
 *
 * @implements {AsyncIterableIterator<ClientEvent>}
 */
export class EventIterator {
  /** @type {{number: number, event: ClientEvent}[]} */
  #queue = [];
  /** The number of the event that the consumer works on. */
  #taken = Infinity;
  /** @type {{resolve: (result: IteratorResult<ClientEvent>) => void, reject: (error: unknown) => void}[]} */
  #waiting = [];
  #ended = false;
  /** @type {StreamerError | undefined} */
  #error;
  #onTaken;
  #onReturn;

  /** @param {{onTaken: () => void, onReturn: () => void}} handlers */
  constructor({ onTaken, onReturn }) {
    this.#onTaken = onTaken;
    this.#onReturn = onReturn;
  }

  /** The number of events that wait. */
  get length() {
    return this.#queue.length;
  }

  /** The number up to which the consumer has finished with all events. */
  get doneNumber() {
    return Math.min(this.#taken, this.#queue[0]?.number ?? Infinity) - 1;
  }

  /**
   * @param {number} number
   * @param {ClientEvent} event
   */
  push(number, event) {
    if (this.#ended) return;
    this.#queue.push({ number, event });
    if (this.#waiting.length) this.#give();
  }

  /** End the iteration after the events that wait. @param {StreamerError} [error] */
  end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    while (this.#waiting.length) this.#give();
  }

  /** @returns {Promise<IteratorResult<ClientEvent>>} */
  next() {
    this.#taken = Infinity;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      if (this.#queue.length || this.#ended) this.#give();
      this.#onTaken();
    });
  }

  /** @returns {Promise<IteratorResult<ClientEvent>>} */
  async return() {
    this.#queue = [];
    this.#taken = Infinity;
    this.end();
    this.#onReturn();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  #give() {
    const consumer = this.#waiting.shift();
    const first = this.#queue.shift();
    if (first) {
      this.#taken = first.number;
      consumer?.resolve({ done: false, value: first.event });
    } else if (this.#error) {
      consumer?.reject(this.#error);
      this.#error = undefined;
      this.#onReturn();
    } else {
      consumer?.resolve({ done: true, value: undefined });
      this.#onReturn();
    }
  }
}
