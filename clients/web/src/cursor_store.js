/** @import { Credential } from "./credential.js" */
/** @import { Clock, CursorStorage } from "./types.js" */

/** How long a changed cursor may wait before it is stored. */
const DELAY_MS = 250;

/** Keeps the cursor of one player, so that another visit continues from it. */
export class CursorStore {
  #storage;
  #key;
  #credential;
  #clock;
  /** @type {any} */
  #timer;
  /** @type {string | undefined} */
  #cursor;

  /**
   * @param {CursorStorage} storage
   * @param {string} key
   * @param {Credential} credential
   * @param {Clock} clock
   */
  constructor(storage, key, credential, clock) {
    this.#storage = storage;
    this.#key = key;
    this.#credential = credential;
    this.#clock = clock;
    // Timers may never run again.
    globalThis.addEventListener?.("pagehide", () => void this.flush());
  }

  /** @returns {Promise<string | undefined>} The cursor of the token's player. */
  async load() {
    const text = await this.#storage.getItem(this.#key);
    const { cursor, player } = JSON.parse(text ?? "{}");
    // The player of the token, if it can be had now.
    await this.#credential.current().catch(() => null);
    const isOther = player && this.#credential.player && player !== this.#credential.player;
    return typeof cursor === "string" && !isOther ? cursor : undefined;
  }

  /** @param {string} cursor Stored a moment later, or with `flush`. */
  save(cursor) {
    this.#cursor = cursor;
    this.#timer ??= this.#clock.setTimeout(() => void this.flush(), DELAY_MS);
  }

  async flush() {
    this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
    const cursor = this.#cursor;
    if (cursor === undefined) return;
    this.#cursor = undefined;
    const record = { cursor, player: this.#credential.player };
    try {
      await this.#storage.setItem(this.#key, JSON.stringify(record));
    } catch (error) {
      // It is full, or not allowed. The client works without it.
      console.warn("streamer: the cursor was not stored:", error);
    }
  }

  async clear() {
    this.#clock.clearTimeout(this.#timer);
    this.#cursor = undefined;
    await this.#storage.removeItem(this.#key);
  }
}
