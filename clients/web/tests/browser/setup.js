// Chromium with pages of a real server's origin, and that server, with its demo.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, test as run } from "node:test";
import { chromium } from "playwright-core";

import { Server, freePort, skip } from "../running_server.js";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // A page that a test makes up has no address, so it could not connect to this machine.
  "--disable-features=LocalNetworkAccessChecks",
];

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

const executablePath = process.env.TEST_CHROMIUM;
const isRunning = !skip && !!executablePath;

/** Where a page of another origin is served that the server allows. */
export const PAGE_PORT = String(isRunning ? await freePort() : 0);

export const server = isRunning
  ? await Server.start({
      demo_page: true,
      allowed_origins: `http://127.0.0.1:${PAGE_PORT}`,
    })
  : null;
export const browser = isRunning
  ? await chromium.launch({ executablePath, args: ARGUMENTS })
  : null;
if (isRunning) {
  after(async () => {
    await browser.close();
    await server.discard();
  });
}

/** The server's URL, through a proxy that can be cut. */
export const SERVER = `${server?.url}/`;

/** A test that is skipped where there is no browser, or no server to start. */
export const test = isRunning ? run : run.skip;

export async function api(method, path, body, credential = server.key) {
  const response = await fetch(new URL(path, SERVER), {
    method,
    headers: { Authorization: `Bearer ${credential}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

let number = 0;

/** A player of its own for each test. */
export async function newPlayer(more = {}) {
  const player = `player-${++number}`;
  return { player, token: await server.token(player, more) };
}

export async function publish(player, ...messages) {
  const list = messages.map((it) => ({
    to: { players: [player] },
    ...(typeof it === "string" ? { title: it } : it),
  }));
  const answers = await api("POST", "v1/notifications", list);
  return answers.map((it) => it.results[0].id);
}

export function pageOf({ token }, query = "") {
  return api("GET", `v1/players/me/notifications${query}`, undefined, token);
}

/**
 * Open a page of the server's origin with this HTML. It fails a test if the page has an
 * uncaught error, or something in the console that is one.
 */
export async function openPage(context, html, { policy = "" } = {}) {
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (it) => it.type() === "error" && faults.push(it.text()));
  page.on("dialog", (dialog) => {
    faults.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  await page.route("**/test.html", (route) =>
    route.fulfill({
      contentType: "text/html; charset=utf-8",
      headers: policy ? { "Content-Security-Policy": policy } : {},
      body: html,
    }),
  );
  await page.goto(new URL("test.html", SERVER).href);
  return { page, faults };
}

export const ELEMENT = '<script type="module" src="client/streamer-inbox.js"></script>';

/** A page with the element, as an application writes it. */
export function inboxPage(token, attributes = "", more = "") {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>A game</title>
    <meta name="viewport" content="width=device-width, initial-scale=1">
    ${ELEMENT}<main><h1>A game</h1><button id="before">Play</button>
    <streamer-inbox token="${token}" ${attributes}></streamer-inbox>
    <button id="after">Quit</button></main>${more}`;
}

/** What axe finds wrong with a page as it is now, each with where it is. */
export async function violations(page) {
  // A page's policy does not hold for what a debugger does.
  await page.evaluate(readFileSync(AXE, "utf8"));
  // Colors are compared when nothing moves any more.
  await page.waitForFunction(() =>
    [document, ...[...document.querySelectorAll("streamer-inbox")].map((it) => it.shadowRoot)]
      .flatMap((root) => root.getAnimations())
      .every((it) => it.playState !== "running"),
  );
  const found = await page.evaluate(() => globalThis.axe.run());
  return found.violations.map((it) => `${it.id}: ${it.nodes.map((n) => n.html).join("\n")}`);
}
