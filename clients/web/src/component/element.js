/**
 * `<streamer-inbox>`: a bell with a badge, the inbox in a popover, and toasts.
 *
 * Draws the snapshots of a store and passes what people do on to it. Strings of
 * notifications become text, never markup.
 *
 * @module
 */

import { StreamerClient } from "../index.js";
import { InboxStore } from "../store.js";
import { element, icon, set } from "./dom.js";
import { frame } from "./frame.js";
import { Row, isUrgent, nameOf, toast } from "./rows.js";
import { adopt } from "./styles.js";
import { TEXTS } from "./texts.js";

/** @import { Snapshot } from "../store.js" */
/** @import { GetToken, Notification } from "../types.js" */
/** @import { Context } from "./rows.js" */
/** @import { Texts } from "./texts.js" */

/** Toasts at once; the oldest goes when another one comes. */
const TOASTS_MAX = 3;
const TOAST_MS = 7000;
/** Interruptions that are shorter are not shown. */
const PATIENCE_MS = 2500;
const BADGE_MAX = 99;
const MARGIN = 8;
const TICK_MS = 30_000;
/** Narrower windows show the inbox as a sheet, as the style sheet does. */
const SHEET_PX = 480;

/** Without a browser, as on a server that renders pages, the module still loads. */
const Base = /** @type {typeof HTMLElement} */ (
  globalThis.HTMLElement ?? /** @type {unknown} */ (class {})
);

/**
 * Attributes:
 *
 * - `url`: the server; by default the one that this file came from, or the page's;
 * - `token-url`: where the page's own backend gives the signed-in player's token, as
 *   `{"token": "…"}` or as text; 401 or 204 says that nobody is signed in;
 * - `token`: a token, for a first try;
 * - `theme`: `light` or `dark`; by default what the browser prefers;
 * - `page-size`: notifications per page, 20 by default;
 * - `no-toasts`, `no-filters`: hides these;
 * - `no-tabs`, `no-queue`: switches off the shared connection of all tabs, and the queue
 *   that keeps marks while there is no network;
 * - `open`: the popover is open.
 *
 * Properties: `store` or `client` instead of a connection of its own, `getToken`,
 * `texts`.
 *
 * Events, which bubble and leave the shadow tree:
 *
 * - `streamer-select`: a notification was activated, `detail.notification`. Unless
 *   prevented, it is marked as read, and its link is followed;
 * - `streamer-notification`: one has arrived, `detail.notification`. Unless prevented,
 *   a toast shows it;
 * - `streamer-toggle`: the popover has opened or closed, `detail.open`.
 *
 * Slots: `bell` (the icon), `empty` (what an empty inbox shows).
 */
export class StreamerInbox extends Base {
  static observedAttributes = ["open", "url", "token", "token-url", "page-size"];

  /** @type {InboxStore | null} */ #store = null;
  /** @type {StreamerClient | null} */ #ownClient = null;
  /** @type {InboxStore | null} */ #givenStore = null;
  /** @type {StreamerClient | null} */ #givenClient = null;
  /** @type {GetToken | null} */ #getToken = null;
  /** @type {Texts} */ #texts = TEXTS;
  /** @type {(() => void)[]} */ #stops = [];
  /** @type {Map<string, Row>} */ #rows = new Map();
  /** @type {Map<HTMLElement, any>} */ #toasts = new Map();
  #isRestarting = false;
  /** When the connection was lost, as timers count. @type {any} */ #patience = null;
  #isLong = false;

  /** @type {Context} */
  #context = {
    texts: () => this.#texts,
    language: () => this.#language(),
    now: () => Date.now(),
    select: (it, event) => this.#select(it, event),
    toggle: (it) => {
      if (it.read_at === undefined) this.#store?.markRead(it.id);
      else this.#store?.markUnread(it.id);
    },
    remove: (it) => this.#remove(it),
  };

  #ui = frame({
    toggle: () => (this.open = !this.open),
    close: () => (this.open = false),
    markAll: () => void this.#store?.markAllRead(),
    filter: (filter) => void this.#store?.setFilter(filter).catch(() => {}),
    more: () => void this.#store?.loadMore().catch(() => {}),
    press: (event) => this.#pressed(event),
  });

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    adopt(root);
    const { bell, panel, toasts, polite, urgent } = this.#ui;
    root.append(bell, panel, toasts, polite, urgent);
    this.#label();
  }

  /** A store to draw instead of one of its own. @type {InboxStore | null} */
  get store() {
    return this.#store;
  }
  set store(store) {
    this.#givenStore = store;
    this.#restart();
  }

  /** A client to use instead of one of its own. @type {StreamerClient | null} */
  get client() {
    return this.#store?.client ?? this.#givenClient;
  }
  set client(client) {
    this.#givenClient = client;
    this.#restart();
  }

  /** Returns the player's token. @type {GetToken | null} */
  get getToken() {
    return this.#getToken;
  }
  set getToken(getToken) {
    this.#getToken = getToken;
    this.#restart();
  }

  /** Texts that replace the English ones; those that are missing stay. @type {Partial<Texts>} */
  get texts() {
    return this.#texts;
  }
  set texts(texts) {
    this.#texts = { ...TEXTS, ...texts };
    this.#label();
    for (const row of this.#rows.values()) row.element.remove();
    this.#rows.clear();
    this.#draw();
  }

  /** Whether the popover is open. */
  get open() {
    return this.hasAttribute("open");
  }
  set open(open) {
    this.toggleAttribute("open", open);
  }

  connectedCallback() {
    // Properties that a page has set before this module was loaded.
    for (const name of ["store", "client", "getToken", "texts", "open"]) {
      if (!Object.hasOwn(this, name)) continue;
      const own = /** @type {any} */ (this);
      const value = own[name];
      delete own[name];
      own[name] = value;
    }
    this.#label();
    // One that was only moved goes on.
    if (!this.#store) this.#restart();
    // An element that is written in the page as open is so before it is connected.
    if (this.open) this.#toggled(true);
  }

  disconnectedCallback() {
    // An element that is only moved in the page is connected again at once.
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.open = false;
      this.#stop();
    });
  }

  /**
   * @param {string} name
   * @param {string | null} before
   * @param {string | null} value
   */
  attributeChangedCallback(name, before, value) {
    if (before === value) return;
    if (name === "open") this.#toggled(value !== null);
    else this.#restart();
  }

  // The connection

  #restart() {
    if (!this.isConnected || this.#isRestarting) return;
    this.#isRestarting = true;
    // Several attributes and properties are set one after the other.
    queueMicrotask(() => {
      this.#isRestarting = false;
      if (this.isConnected) {
        this.#stop();
        this.#start();
      }
    });
  }

  #start() {
    const store = this.#givenStore ?? this.#makeStore();
    if (!store) return;
    this.#store = store;
    this.#stops = [
      store.subscribe(() => this.#draw()),
      store.onArrival((it) => this.#arrived(it)),
    ];
    store.start();
    const tick = setInterval(() => {
      if (this.open) for (const row of this.#rows.values()) row.tick();
    }, TICK_MS);
    this.#stops.push(() => clearInterval(tick));
    this.#draw();
  }

  #makeStore() {
    const client = this.#givenClient ?? this.#makeClient();
    if (!client) return null;
    const pageSize = Number(this.getAttribute("page-size")) || undefined;
    return new InboxStore(client, { pageSize });
  }

  #makeClient() {
    const url = this.getAttribute("url") ?? serverOf(import.meta.url);
    const token = this.getAttribute("token") ?? undefined;
    const tokenUrl = this.getAttribute("token-url");
    const getToken = this.#getToken ?? (tokenUrl ? fetcher(tokenUrl) : undefined);
    if (token === undefined && !getToken) return null;
    this.#ownClient = new StreamerClient({
      url,
      token: getToken ? undefined : token,
      getToken,
      tabs: !this.hasAttribute("no-tabs"),
      queue: !this.hasAttribute("no-queue"),
    });
    return this.#ownClient;
  }

  #stop() {
    for (const stop of this.#stops.splice(0)) stop();
    if (this.#store && this.#store !== this.#givenStore) this.#store.stop();
    this.#ownClient?.close();
    this.#ownClient = null;
    this.#store = null;
    clearTimeout(this.#patience);
    this.#patience = null;
    this.#isLong = false;
    for (const it of [...this.#toasts.keys()]) this.#dismiss(it);
  }

  // What is drawn

  /** Set the texts that do not depend on the state. */
  #label() {
    const texts = this.#texts;
    this.#ui.heading.textContent = texts.title;
    this.#ui.markAll.replaceChildren(icon("checks"), texts.markAll);
    set(this.#ui.closing, "aria-label", texts.close);
    this.#ui.all.textContent = texts.all;
    this.#ui.unread.replaceChildren(texts.unread, element("span", { class: "count" }));
    set(this.#ui.filters, "aria-label", texts.title);
    this.#ui.filters.hidden = this.hasAttribute("no-filters");
    set(this.#ui.bell, "aria-label", texts.bell(0));
  }

  #draw() {
    const snapshot = this.#store?.getSnapshot();
    if (!snapshot) return;
    this.#drawCount(snapshot);
    this.#drawBar(snapshot);
    this.#drawList(snapshot);
    const { notifications, loading, filter } = snapshot;
    const isEmpty = notifications.length === 0;
    this.#ui.bones.hidden = !(isEmpty && loading === "first");
    set(this.#ui.panel, "aria-busy", loading === "first" ? "true" : null);
    this.#ui.empty.hidden = !isEmpty || loading !== null || snapshot.error !== null;
    if (!this.#ui.empty.hidden) this.#drawEmpty(filter.unread === true);
    this.#ui.more.hidden = !snapshot.hasMore || isEmpty;
    const texts = this.#texts;
    this.#ui.moreButton.textContent = loading === "more" ? `${texts.loading}…` : texts.more;
    // Disabled, it would lose the focus of who works with the keyboard.
    set(this.#ui.moreButton, "aria-disabled", loading === "more" ? "true" : null);
    set(this.#ui.all, "aria-pressed", String(!filter.unread));
    set(this.#ui.unread, "aria-pressed", String(filter.unread === true));
    if (this.open) this.#place();
  }

  /** @param {Snapshot} snapshot */
  #drawCount({ unread }) {
    const shown = unread > BADGE_MAX ? `${BADGE_MAX}+` : String(unread);
    if (this.#ui.badge.textContent !== shown) this.#ui.badge.textContent = shown;
    this.#ui.badge.hidden = unread === 0;
    set(this.#ui.bell, "aria-label", this.#texts.bell(unread));
    const count = /** @type {HTMLElement} */ (this.#ui.unread.querySelector(".count"));
    count.textContent = shown;
    count.hidden = unread === 0;
    this.#ui.markAll.disabled = unread === 0;
  }

  /** @param {Snapshot} snapshot */
  #drawBar(snapshot) {
    const { status, error } = snapshot;
    const isAway = status === "waiting" || status === "offline" || status === "connecting";
    if (!isAway) {
      clearTimeout(this.#patience);
      this.#patience = null;
      this.#isLong = false;
    } else {
      this.#patience ??= setTimeout(() => {
        this.#isLong = true;
        this.#draw();
      }, PATIENCE_MS);
    }
    const texts = this.#texts;
    /** @type {[string, string, boolean] | null} */
    let said = null;
    if (status === "stopped") said = ["bad", texts.stopped, false];
    else if (status === "offline") said = ["warn", texts.offline, false];
    else if (error?.during === "load") said = ["bad", texts.loadFailed, true];
    else if (error && error.during !== "connection") said = ["bad", texts.changeFailed, false];
    else if (isAway && this.#isLong) said = ["warn", texts.reconnecting, false];
    const key = said?.join("|") ?? "";
    if (this.#ui.bar.dataset["said"] === key) return;
    this.#ui.bar.dataset["said"] = key;
    this.#ui.bar.replaceChildren();
    this.#ui.bar.hidden = said === null;
    if (!said) return;
    const [kind, text, canRetry] = said;
    this.#ui.bar.className = `bar ${kind}`;
    set(this.#ui.bar, "part", kind === "bad" ? "status status-error" : "status status-offline");
    this.#ui.bar.append(icon(kind === "bad" ? "alert" : "cloud"), element("span", {}, text));
    if (canRetry) {
      const onclick = () => void this.#store?.refresh().catch(() => {});
      this.#ui.bar.append(element("button", { type: "button", part: "retry", onclick }, texts.retry));
    } else if (kind === "bad" && status !== "stopped") {
      const onclick = () => this.#store?.clearError();
      this.#ui.bar.append(element("button", { type: "button", part: "retry", onclick }, texts.dismiss));
    }
  }

  /** @param {Snapshot} snapshot */
  #drawList({ notifications }) {
    const kept = new Set(notifications.map((it) => it.id));
    for (const [id, row] of this.#rows) {
      if (kept.has(id)) continue;
      this.#release(row);
      row.element.remove();
      this.#rows.delete(id);
    }
    // Elements that are in place are not touched.
    let place = this.#ui.list.firstElementChild;
    for (const it of notifications) {
      let row = this.#rows.get(it.id);
      if (!row) {
        row = new Row(it, this.#context);
        this.#rows.set(it.id, row);
      } else if (row.notification !== it) {
        row.update(it);
      }
      if (row.element === place) place = place.nextElementSibling;
      else this.#ui.list.insertBefore(row.element, place);
    }
    this.#ui.list.hidden = notifications.length === 0;
  }

  /** Keep the focus in the list when the row that has it goes. @param {Row} row */
  #release(row) {
    if (!row.element.contains(/** @type {ShadowRoot} */ (this.shadowRoot).activeElement)) return;
    const beside = row.element.nextElementSibling ?? row.element.previousElementSibling;
    const next = /** @type {HTMLElement | null} */ (beside?.querySelector(".main") ?? null);
    (next ?? this.#ui.panel).focus();
  }

  /** @param {boolean} isUnreadOnly */
  #drawEmpty(isUnreadOnly) {
    const texts = this.#texts;
    const kind = isUnreadOnly ? "unread" : "all";
    if (this.#ui.empty.dataset["kind"] === kind + texts.empty) return;
    this.#ui.empty.dataset["kind"] = kind + texts.empty;
    const content = [
      element("span", { class: "ring" }, icon(isUnreadOnly ? "checks" : "inbox")),
      element("b", {}, isUnreadOnly ? texts.emptyUnread : texts.empty),
      element("span", {}, isUnreadOnly ? texts.emptyUnreadHint : texts.emptyHint),
    ];
    this.#ui.empty.replaceChildren(
      ...(isUnreadOnly ? content : [element("slot", { name: "empty" }, ...content)]),
    );
  }

  // The popover

  /** @param {boolean} open */
  #toggled(open) {
    set(this.#ui.bell, "aria-expanded", String(open));
    this.#ui.panel.classList.toggle("open", open);
    if (open) {
      // In the top layer nothing of the page covers or clips it.
      if (this.#ui.panel.isConnected) this.#ui.panel.showPopover?.();
      this.#clearToasts();
      this.#place();
      this.#ui.panel.focus({ preventScroll: true });
      addEventListener("pointerdown", this.#outside, true);
      addEventListener("focusin", this.#outside, true);
      addEventListener("resize", this.#moved);
      addEventListener("scroll", this.#moved, { capture: true, passive: true });
      for (const row of this.#rows.values()) row.tick();
    } else {
      const root = /** @type {ShadowRoot} */ (this.shadowRoot);
      const hadFocus = this.#ui.panel.contains(root.activeElement);
      if (this.#ui.panel.matches(":popover-open")) this.#ui.panel.hidePopover();
      if (hadFocus) this.#ui.bell.focus({ preventScroll: true });
      removeEventListener("pointerdown", this.#outside, true);
      removeEventListener("focusin", this.#outside, true);
      removeEventListener("resize", this.#moved);
      removeEventListener("scroll", this.#moved, { capture: true });
    }
    this.#emit("streamer-toggle", { open });
  }

  #outside = (/** @type {Event} */ event) => {
    if (!event.composedPath().includes(this)) this.open = false;
  };

  #moved = (/** @type {Event} */ event) => {
    if (event.type === "resize" || !event.composedPath().includes(this.#ui.panel)) this.#place();
  };

  /** Put the popover below the bell, or above it, where there is more space. */
  #place() {
    const { style } = this.#ui.panel;
    if (innerWidth < SHEET_PX) {
      style.left = style.top = style.bottom = style.maxHeight = "";
      return;
    }
    const bell = this.#ui.bell.getBoundingClientRect();
    const width = this.#ui.panel.offsetWidth;
    const isRtl = getComputedStyle(this).direction === "rtl";
    const wanted = isRtl ? bell.left : bell.right - width;
    const left = Math.min(Math.max(wanted, MARGIN), innerWidth - width - MARGIN);
    const below = innerHeight - bell.bottom - 2 * MARGIN;
    const above = bell.top - 2 * MARGIN;
    const isBelow = below >= Math.min(420, above) || below >= above;
    style.left = `${left}px`;
    style.top = isBelow ? `${bell.bottom + MARGIN}px` : "auto";
    style.bottom = isBelow ? "auto" : `${innerHeight - bell.top + MARGIN}px`;
    style.maxHeight = `min(var(--streamer-height, 620px), ${Math.max(isBelow ? below : above, 160)}px)`;
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    if (event.key === "Escape") {
      event.stopPropagation();
      this.open = false;
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const items = /** @type {HTMLElement[]} */ ([...this.#ui.list.querySelectorAll(".main")]);
    if (items.length === 0) return;
    const active = /** @type {ShadowRoot} */ (this.shadowRoot).activeElement;
    const at = items.findIndex((it) => it.closest("li")?.contains(active));
    const next = at < 0 && step === 1 ? 0 : Math.min(Math.max(at + step, 0), items.length - 1);
    event.preventDefault();
    items[next]?.focus();
  }

  /**
   * @param {Notification} it
   * @param {Event} event
   */
  #select(it, event) {
    if (!this.#emit("streamer-select", { notification: it })) {
      event.preventDefault();
      return;
    }
    if (it.read_at === undefined) this.#store?.markRead(it.id);
  }

  /** @param {Notification} it */
  #remove(it) {
    this.#store?.remove(it.id);
  }

  // Toasts

  /** @param {Notification} it */
  #arrived(it) {
    if (!this.#emit("streamer-notification", { notification: it })) return;
    const speaker = isUrgent(it) ? this.#ui.urgent : this.#ui.polite;
    speaker.textContent = `${this.#texts.untitled}: ${nameOf(it, this.#texts)}`;
    if (this.open || this.hasAttribute("no-toasts")) return;
    const shown = toast(it, this.#context, () => this.#dismiss(shown));
    shown.dataset["id"] = it.id;
    this.#ui.toasts.append(shown);
    if (!this.#ui.toasts.matches(":popover-open")) this.#ui.toasts.showPopover?.();
    const wait = () => this.#toasts.set(shown, setTimeout(() => this.#dismiss(shown), TOAST_MS));
    const hold = () => clearTimeout(this.#toasts.get(shown));
    for (const name of ["pointerenter", "focusin"]) shown.addEventListener(name, hold);
    for (const name of ["pointerleave", "focusout"]) shown.addEventListener(name, wait);
    shown.querySelector(".main")?.addEventListener("click", () => this.#dismiss(shown));
    // What is an emergency stays until somebody has seen it.
    if (it.priority === "emergency") this.#toasts.set(shown, null);
    else wait();
    if (this.#toasts.size > TOASTS_MAX) {
      this.#dismiss(/** @type {HTMLElement} */ (this.#toasts.keys().next().value));
    }
  }

  /** @param {HTMLElement} shown */
  #dismiss(shown) {
    clearTimeout(this.#toasts.get(shown));
    this.#toasts.delete(shown);
    shown.remove();
    if (this.#toasts.size === 0 && this.#ui.toasts.matches(":popover-open")) {
      this.#ui.toasts.hidePopover();
    }
  }

  #clearToasts() {
    for (const it of [...this.#toasts.keys()]) this.#dismiss(it);
  }

  /**
   * @param {string} name
   * @param {object} detail
   * @returns {boolean} False if a listener has prevented the default.
   */
  #emit(name, detail) {
    const event = new CustomEvent(name, { bubbles: true, composed: true, cancelable: true, detail });
    return this.dispatchEvent(event);
  }

  /** @returns {string | undefined} */
  #language() {
    const found = this.closest("[lang]") ?? document.documentElement;
    return found.getAttribute("lang") || undefined;
  }
}

/**
 * @param {string} module Where a module of the client came from.
 * @returns {string | undefined} The server that serves it under `/client`, if one does.
 */
function serverOf(module) {
  const found = /^(https?:.*\/)client\/([0-9a-f]{16}\/)?component\/element\.js$/.exec(module);
  return found?.[1];
}

/**
 * @param {string} url
 * @returns {GetToken}
 */
function fetcher(url) {
  return async ({ signal }) => {
    const response = await fetch(url, { credentials: "same-origin", cache: "no-store", signal });
    if (response.status === 204 || response.status === 401) return null;
    if (!response.ok) throw new Error(`${url} answered ${response.status}`);
    const text = (await response.text()).trim();
    return text.startsWith("{") ? JSON.parse(text) : text || null;
  };
}
