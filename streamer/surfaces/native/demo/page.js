/**
 * The page: two players with the web client, and a form that publishes to them.
 */

import { StreamerClient } from "../client/index.js";
import "../client/streamer-inbox.js";
import { Line } from "./line.js";

const SERVER = new URL("..", import.meta.url);
const SESSION = "streamer-demo-session";
const FEED_MAX = 60;

const $ = (selector, within = document) => within.querySelector(selector);

/** When a notification was published, by its id; of this tab only. */
const sentAt = new Map();
const listeners = new Set();

async function post(path, body, fetch = globalThis.fetch) {
  const response = await fetch(new URL(path, SERVER), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? `HTTP ${response.status}`);
  return answer;
}

/** Return tokens: of the session that this browser has, or of a new one. */
async function open(fetch) {
  const session = localStorage.getItem(SESSION) ?? undefined;
  const opened = await post("demo/session", { session }, fetch);
  // A second tab that opened one at the same moment must not have another one.
  if ((localStorage.getItem(SESSION) ?? undefined) === session) {
    localStorage.setItem(SESSION, opened.session);
  }
  return opened;
}

class Player {
  #name;
  #place;
  #feed;
  #client;
  #topic;
  #line;
  #lostAt = 0;

  constructor(name, { session, topic }) {
    this.#name = name;
    this.#topic = topic;
    this.#place = $(`#${name}`);
    this.#place.append($("#player").content.cloneNode(true));
    const title = name[0].toUpperCase() + name.slice(1);
    $("h2", this.#place).textContent = title;
    $(".avatar", this.#place).textContent = title[0];
    this.#feed = $(".feed", this.#place);
    this.#line = new Line(name);
    this.#client = new StreamerClient({
      url: SERVER,
      getToken: async () => {
        const { session: current, players, expires_at } = await open(this.#line.fetch);
        // The session has ended: show the next one.
        if (current !== session) location.reload();
        return { token: players.find((it) => it.name === name).token, expires_at };
      },
      fetch: this.#line.fetch,
      WebSocket: this.#line.WebSocket,
      transports: ["websocket", "sse"],
      tabs: true,
      queue: true,
    });
    this.#follow();
    this.#controls();
    const inbox = $("streamer-inbox", this.#place);
    inbox.texts = { topic: (it) => (it === topic ? "news" : it) };
    inbox.client = this.#client;
  }

  #follow() {
    const client = this.#client;
    client.on("status", (change) => this.#status(change));
    client.on("notification", (it) => this.#arrived(it));
    client.on("gap", ({ reason }) => this.#say("cut", `gap: ${reason}`));
    listeners.add((id) => this.#tell(id));
  }

  #status({ status, previous, transport }) {
    const shown = $(".status", this.#place);
    const words = {
      open: ["open", `live${transport ? ` over ${transport}` : ""}`],
      connecting: ["wait", "connecting"],
      waiting: ["lost", "no connection"],
      offline: ["lost", "no network"],
      stopped: ["lost", "refused by the server"],
      closed: ["lost", "closed"],
    }[status] ?? ["wait", status];
    shown.className = `status ${words[0]}`;
    shown.textContent = words[1];
    if (status === "open" && this.#lostAt) {
      const seconds = ((performance.now() - this.#lostAt) / 1000).toFixed(1);
      this.#lostAt = 0;
      this.#say("back", `Resumed after ${seconds} s, from the last cursor`);
    } else if (previous === "open" && status !== "open") {
      this.#lostAt = performance.now();
      this.#say("cut", "The line is broken");
    }
  }

  #arrived(notification) {
    const entry = document.createElement("li");
    entry.className = "message";
    entry.dataset.id = notification.id;
    entry.dataset.at = performance.now();
    const head = document.createElement("b");
    head.append(bdi(notification.title ?? ""), document.createElement("small"));
    entry.append(head);
    if (notification.body) {
      const body = document.createElement("p");
      body.append(bdi(notification.body));
      entry.append(body);
    }
    this.#add(entry);
    this.#tell(notification.id);
  }

  /** Say how long a notification took, as soon as both ends are known. */
  #tell(id) {
    const entry = this.#feed.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (!entry || !sentAt.has(id)) return;
    const ms = Math.max(Number(entry.dataset.at) - sentAt.get(id), 0);
    const label = $("small", entry);
    label.textContent = ms < 1000 ? `${ms.toFixed(0)} ms` : `after ${(ms / 1000).toFixed(1)} s`;
    label.classList.toggle("late", ms >= 1000);
  }

  #say(kind, text) {
    const entry = document.createElement("li");
    entry.className = kind;
    entry.textContent = text;
    this.#add(entry);
  }

  #add(entry) {
    this.#feed.append(entry);
    while (this.#feed.childElementCount > FEED_MAX) this.#feed.firstElementChild.remove();
    this.#feed.scrollTop = this.#feed.scrollHeight;
  }

  #controls() {
    const button = $(".break", this.#place);
    const draw = () => {
      const { isBroken } = this.#line;
      button.textContent = isBroken ? "Mend my line" : "Break my line";
      button.setAttribute("aria-pressed", isBroken);
    };
    draw();
    button.addEventListener("click", () => this.#line.toggle());
    this.#line.addEventListener("change", draw);

    const news = $(".news", this.#place);
    news.setAttribute("aria-label", `${this.#name} follows the topic news`);
    const { inbox } = this.#client;
    void inbox.topics().then(
      (topics) => (news.checked = topics.some((it) => it.topic === this.#topic)),
      () => {},
    );
    news.addEventListener("change", async () => {
      try {
        await (news.checked ? inbox.join(this.#topic) : inbox.leave(this.#topic));
        this.#say("note", news.checked ? "joined the topic news" : "left the topic news");
      } catch (error) {
        news.checked = !news.checked;
        this.#say("cut", error.message);
      }
    });
  }
}

function bdi(text) {
  const made = document.createElement("bdi");
  made.dir = "auto";
  made.textContent = text;
  return made;
}

function publishing(session) {
  const form = $("#publish");
  const result = $("#result");
  let number = 0;

  async function publish(title) {
    const { to, body, priority } = Object.fromEntries(new FormData(form));
    const started = performance.now();
    const { id } = await post("demo/publish", { session, to, title, body, priority });
    const took = performance.now() - started;
    if (id) {
      sentAt.set(id, started);
      for (const tell of listeners) tell(id);
    }
    result.textContent = `200 in ${took.toFixed(0)} ms, stored and synced: ${id ?? "muted"}`;
  }

  async function reporting(work) {
    try {
      await work();
    } catch (error) {
      result.textContent = error.message;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void reporting(() => publish(form.elements.title.value));
  });
  $("#burst").addEventListener("click", () => {
    void reporting(async () => {
      if (!form.reportValidity()) return;
      for (let i = 0; i < 5; i++) await publish(`${form.elements.title.value} #${++number}`);
    });
  });
}

try {
  for (const it of document.querySelectorAll(".here")) it.textContent = SERVER.href;
  $("#tab").addEventListener("click", () => window.open(location.href, "_blank"));
  let opened = await open();
  // What is in the browser now is the session of all its tabs.
  if (opened.session !== localStorage.getItem(SESSION)) opened = await open();
  publishing(opened.session);
  for (const { name } of opened.players) new Player(name, opened);
} catch (error) {
  const failure = $("#failure");
  failure.hidden = false;
  failure.textContent = `The demo cannot start: ${error.message}`;
}
