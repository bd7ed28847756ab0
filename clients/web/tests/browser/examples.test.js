// The examples, as a reader of their README runs them. Their packages are those of this
// folder, so nothing is installed.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { PAGE_PORT as PORT, browser, publish, server, test } from "./setup.js";

const WEB = fileURLToPath(new URL("../..", import.meta.url));

/** A copy of an example, with `node_modules` as `npm install` makes it. */
async function install(t, name) {
  const folder = await mkdtemp(join(tmpdir(), "streamer-example-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await cp(join(WEB, "examples", name), folder, { recursive: true });
  const modules = join(folder, "node_modules");
  await cp(join(WEB, "package.json"), join(modules, "streamer-client", "package.json"));
  await cp(join(WEB, "src"), join(modules, "streamer-client", "src"), { recursive: true });
  for (const it of await readdir(join(WEB, "node_modules"))) {
    if (it.startsWith(".")) continue;
    await symlink(join(WEB, "node_modules", it), join(modules, it));
  }
  return folder;
}

/** Start a program; return what waits for a line of its output. */
function start(t, folder, environment, ...command) {
  const child = spawn(process.execPath, command, {
    cwd: folder,
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  t.after(async () => {
    child.kill();
    if (child.exitCode === null && !child.signalCode) await once(child, "exit");
  });
  return async (pattern) => {
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`it ended before ${pattern}`);
      const found = pattern.exec(value.replace(/\x1b\[\d*m/g, ""));
      if (found) return found;
    }
  };
}

async function openPage(t, url) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  await page.goto(url);
  return { page, faults };
}

test("node: it prints what arrives", async (t) => {
  const folder = await install(t, "node");
  const token = await server.token("follower");
  const environment = { STREAMER_URL: server.url, STREAMER_TOKEN: token };
  const line = start(t, folder, environment, "follow.js");
  // What is published before the stream begins does not arrive.
  while (!server.proxy.streams.length) await new Promise((r) => setTimeout(r, 20));
  const publishing = setInterval(() => void publish("follower", "Hello"), 200);
  t.after(() => clearInterval(publishing));

  await line(/Hello$/);
});

test("page: the bell shows the inbox of who is signed in", async (t) => {
  const folder = await install(t, "page");
  // The page is of another origin than the server, which has to allow it.
  const environment = { STREAMER_URL: server.url, STREAMER_KEY: server.key, PORT };
  const line = start(t, folder, environment, "server.js");
  const [url] = await line(/http:\S+/);
  await publish("alice", "for Alice");
  const { page, faults } = await openPage(t, url);
  await page.locator(".badge", { hasText: "1" }).waitFor();
  await page.locator(".bell").click();
  await page.locator("li", { hasText: "for Alice" }).waitFor();

  assert.deepEqual(faults, []);
});

test("vite-react: it is built, and draws the inbox while it is developed", async (t) => {
  const folder = await install(t, "vite-react");
  const environment = { STREAMER_URL: server.url, STREAMER_KEY: server.key };
  const vite = join("node_modules", "vite", "bin", "vite.js");
  const built = start(t, folder, environment, vite, "build");
  await built(/built in/);
  assert.ok((await readdir(join(folder, "dist", "assets"))).some((it) => it.endsWith(".js")));

  const line = start(t, folder, environment, vite, "--port", "0", "--host", "127.0.0.1");
  const [url] = await line(/http:\S+/);
  await publish("alice", "drawn by React");
  const { page, faults } = await openPage(t, url);
  await page.locator("li", { hasText: "drawn by React" }).waitFor();
  await page.locator("small", { hasText: "open" }).waitFor();
  await page.getByRole("button", { name: "Mark all as read" }).click();
  await page.locator("h1", { hasText: "0 unread" }).waitFor();

  assert.deepEqual(faults, []);
});
