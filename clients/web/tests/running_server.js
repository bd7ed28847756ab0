/** A real server as a process, and a page server with Chromium, for tests. */

import { spawn, execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, extname } from "node:path";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";

/** `python -m streamer`, as a list in JSON; without it these tests are skipped. */
const COMMAND = JSON.parse(process.env.TEST_SERVER_COMMAND ?? "null");
export const skip = COMMAND ? false : "TEST_SERVER_COMMAND is not set";

/** Why a test that takes long is skipped. */
export const nightly = process.env.TEST_NIGHTLY ? false : "TEST_NIGHTLY is not set";

const GUARD_MS = 60_000;
const WEB = fileURLToPath(new URL("..", import.meta.url));
const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** Wait until `fact` is true, by polling. @param {() => any} fact */
export async function eventually(fact, what = String(fact)) {
  const deadline = performance.now() + GUARD_MS;
  for (;;) {
    const value = await fact();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * A port that is free now, and that the system assigns to no other socket by itself: the
 * server that gets it binds it later.
 */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 10_000);
    const server = createServer();
    const isFree = await new Promise((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** A program of the repository's tests in Python, such as `tests.oidc_issuer`. */
export function runProgram(...words) {
  const env = { ...process.env, PYTHONPATH: "clients/conformance" };
  return spawn(COMMAND[0], ["-m", ...words], { cwd: ROOT, env, stdio: "ignore" });
}

/** `streamer serve` on a data directory of its own, behind a proxy that can be cut. */
export class Server {
  /** @param {Record<string, unknown> | ((url: string) => Record<string, unknown>)} [settings] */
  static async start(settings = {}) {
    const server = new Server();
    server.folder = await mkdtemp(join(tmpdir(), "streamer-web-"));
    server.port = await freePort();
    server.proxy = await Proxy.start(server.port);
    server.url = `http://127.0.0.1:${server.proxy.port}`;
    server.settings = typeof settings === "function" ? settings(server.url) : settings;
    await server.run();
    server.key = await server.#print("key", "--app", "demo");
    return server;
  }

  async run() {
    const [program, ...rest] = COMMAND;
    const options = ["serve", "--port", String(this.port), "--data-dir", this.folder];
    this.process = spawn(program, [...rest, ...options], {
      env: this.#environment(),
      stdio: "ignore",
    });
    await eventually(async () => {
      const response = await fetch(`http://127.0.0.1:${this.port}/readyz`).catch(() => null);
      return response?.ok;
    }, "the server is ready");
  }

  /** @param {NodeJS.Signals} [signal] */
  async end(signal = "SIGKILL") {
    if (this.process.exitCode !== null || this.process.signalCode) return;
    this.process.kill(signal);
    await once(this.process, "exit");
  }

  async discard() {
    this.proxy.close();
    await this.end("SIGTERM");
    await rm(this.folder, { recursive: true, force: true });
  }

  /** @param {string} player */
  async token(player, members = {}) {
    const { token } = await this.#post("v1/tokens", { player, ...members });
    return token;
  }

  /** A key with a role in the console. @param {string} role */
  consoleKey(role, ...options) {
    return this.#print("key", "create", "--app", "demo", "--role", role, ...options);
  }

  /** @param {string} name */
  createApp(name) {
    return this.#print("app", "create", name);
  }

  /** @param {string} id */
  revoke(id) {
    return this.#print("key", "revoke", id);
  }

  /** Whether a player's token is good. @param {string} token */
  async accepts(token) {
    const { status } = await fetch(`http://127.0.0.1:${this.port}/v1/players/me/notifications`, {
      headers: { Authorization: `Bearer ${token}` },
    });
    return status !== 401;
  }

  /** Publish to a player; return the id. */
  async publish(player, title, members = {}) {
    const message = { to: { players: [player] }, title, ...members };
    const { results } = await this.#post("v1/notifications", message);
    return results[0].id;
  }

  async everyone(title) {
    await this.#post("v1/notifications", { to: { everyone: true }, title });
  }

  async unread(player) {
    const { unread } = await this.#post("v1/unread", { players: [player] });
    return unread[0].unread;
  }

  async #post(path, body) {
    const response = await fetch(`http://127.0.0.1:${this.port}/${path}`, {
      method: "POST",
      headers: { Authorization: `Bearer ${this.key}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(await response.text());
    return response.json();
  }

  #environment() {
    const settings = Object.entries(this.settings).map(([name, value]) => [
      `STREAMER_${name.toUpperCase()}`,
      String(value),
    ]);
    return { ...process.env, HOME: this.folder, ...Object.fromEntries(settings) };
  }

  async #print(...words) {
    const [program, ...rest] = COMMAND;
    const all = [...rest, ...words, "--data-dir", this.folder];
    const { stdout } = await promisify(execFile)(program, all, { env: this.#environment() });
    return stdout.trim().split("\n").at(-1).trim();
  }
}

const isStream = (head) => /^GET \S*\/v1\/stream\b/.test(head);

/** A TCP proxy that counts requests, and can cut, lose or swallow connections. */
export class Proxy {
  #sockets = new Set();
  /** Heads of the HTTP requests that came through. @type {string[]} */
  requests = [];
  /** Accept, and cut at once. */
  isCut = false;
  /** Accept, take one request, and cut without an answer. */
  isDropping = false;
  /** Connections that can become dead lines. */
  #lines = new Set();

  static async start(target) {
    const proxy = new Proxy();
    proxy.server = createServer((socket) => proxy.#carry(socket, target));
    proxy.server.listen(0, "127.0.0.1");
    await once(proxy.server, "listening");
    proxy.port = proxy.server.address().port;
    return proxy;
  }

  #carry(socket, target) {
    if (this.isCut) return socket.destroy();
    if (this.isDropping) {
      socket.on("error", () => {});
      socket.once("data", (data) => {
        this.#note(data);
        socket.destroy();
      });
      return;
    }
    const other = connect(target, "127.0.0.1");
    const line = { socket, other, isStream: false, isDead: false };
    this.#lines.add(line);
    // The end of one is the end of the other.
    for (const [from, to] of [[socket, other], [other, socket]]) {
      this.#sockets.add(from);
      from.on("data", (data) => {
        if (from === socket && this.#note(data)) line.isStream = isStream(this.requests.at(-1));
        if (!this.isSilent && !line.isDead) to.write(data);
      });
      from.on("close", () => {
        this.#sockets.delete(from);
        this.#lines.delete(line);
        if (!line.isDead || from === socket) to.destroy();
      });
      from.on("error", () => {});
    }
  }

  /** Note the head of a request, if this is one. */
  #note(data) {
    const isHead = /^[A-Z]+ \//.test(data);
    if (isHead) this.requests.push(String(data).split("\r\n", 1)[0]);
    return isHead;
  }

  /**
   * Make dead lines of all streams: the server sees an end, the clients nothing. Idle
   * connections are cut, as a browser does it itself when it gets another network.
   */
  lose() {
    for (const line of this.#lines) {
      line.isDead = line.isStream;
      (line.isStream ? line.other : line.socket).destroy();
    }
  }

  /** Streams that were opened. */
  get streams() {
    return this.requests.filter(isStream);
  }

  /** Cut all connections. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  close() {
    this.cut();
    this.server.close();
  }
}

const TYPES = { ".js": "text/javascript", ".html": "text/html" };

/** Serves this package, an empty page at `/`, and what a test adds. */
export class Pages {
  /** Bodies of HTML and others by their path. @type {Map<string, string>} */
  added = new Map();

  static async start() {
    const pages = new Pages();
    pages.server = createHttpServer(async ({ url }, response) => {
      const path = new URL(url, "http://a").pathname;
      try {
        const added = pages.added.get(path);
        if (added !== undefined) {
          const type = path.endsWith(".js") ? "text/javascript" : "text/html";
          response.writeHead(200, { "Content-Type": type }).end(added);
          return;
        }
        const body = path.endsWith("/")
          ? "<!doctype html><meta charset=utf-8><title>page</title>"
          : await readFile(join(WEB, path));
        const type = TYPES[extname(path)] ?? "text/html";
        response.writeHead(200, { "Content-Type": type }).end(body);
      } catch {
        response.writeHead(404).end();
      }
    });
    pages.server.listen(0, "127.0.0.1");
    await once(pages.server, "listening");
    pages.origin = `http://127.0.0.1:${pages.server.address().port}`;
    return pages;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** Start Chromium; return `null` where it or playwright-core is missing. */
export async function launch() {
  const executablePath = process.env.TEST_CHROMIUM;
  if (!executablePath) return null;
  const { chromium } = await import("playwright-core");
  return chromium.launch({
    executablePath,
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
      "--enable-features=BackForwardCache",
    ],
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}
