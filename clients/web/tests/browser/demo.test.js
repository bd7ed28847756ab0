// The page /demo in Chromium, on a real server.

import assert from "node:assert/strict";

import { Server } from "../running_server.js";
import { SERVER, browser, server, test, violations } from "./setup.js";

const WAIT = { timeout: 20_000 };

async function visit(t, options) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const faults = [];
  async function tab() {
    const page = await context.newPage();
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("dialog", (dialog) => {
      faults.push(dialog.message());
      void dialog.dismiss();
    });
    await page.goto(SERVER);
    await page.getByRole("link").first().click();
    await page.waitForURL("**/demo");
    for (const name of ["alice", "bob"]) {
      await page.locator(`#${name} .status.open`).waitFor(WAIT);
    }
    return page;
  }
  return { tab, faults, page: await tab() };
}

async function publish(page, to, title) {
  await page.locator(".to label", { hasText: to }).click();
  await page.locator("[name=title]").fill(title);
  await page.locator("#publish .primary").click();
}

/** Titles in the order in which they arrived. */
async function arrived(page, name) {
  return page.locator(`#${name} .message b bdi`).allTextContents();
}

test("what is published arrives at its player alone, and says how long it took", async (t) => {
  const { page, faults } = await visit(t);
  await publish(page, "Alice", "for Alice");
  await page.locator("#alice .message", { hasText: "for Alice" }).waitFor(WAIT);
  await page.locator("#alice .message small", { hasText: /\d+ ms|after/ }).waitFor(WAIT);
  await publish(page, "Bob", "<img src=x onerror=alert(1)>");
  await page.locator("#bob .message", { hasText: "<img src=x" }).waitFor(WAIT);

  assert.deepEqual(await arrived(page, "alice"), ["for Alice"]);
  assert.deepEqual(await arrived(page, "bob"), ["<img src=x onerror=alert(1)>"]);
  assert.equal(await page.locator("#alice .badge").textContent(), "1");
  assert.equal(await page.locator("#bob img").count(), 0);
  assert.deepEqual(faults, []);
});

test("a topic reaches who has joined it", async (t) => {
  const { page } = await visit(t);
  await page.locator("#bob .switch").click();
  await page.locator("#bob .note", { hasText: "joined" }).waitFor(WAIT);
  await publish(page, "Topic", "to all who follow");
  await page.locator("#bob .message", { hasText: "to all who follow" }).waitFor(WAIT);
  await page.locator("#bob .bell").click();
  await page.locator("#bob li .meta", { hasText: "news" }).waitFor(WAIT);

  assert.deepEqual(await arrived(page, "alice"), []);
});

test("a broken line resumes with everything, once and in order", async (t) => {
  const { page } = await visit(t);
  await publish(page, "Alice", "before");
  await page.locator("#alice .message", { hasText: "before" }).waitFor(WAIT);
  await page.locator("#alice .break").click();
  await page.locator("#alice .status.lost").waitFor(WAIT);
  await page.locator("#burst").click();
  await page.locator("#result", { hasText: "stored" }).waitFor(WAIT);
  await page.waitForFunction(() => document.querySelectorAll("#bob .message").length === 0);
  assert.deepEqual(await arrived(page, "alice"), ["before"]);
  await page.locator("#alice .break").click();
  await page.locator("#alice .message").nth(5).waitFor(WAIT);

  assert.deepEqual(await arrived(page, "alice"), [
    "before",
    ...[1, 2, 3, 4, 5].map((n) => `before #${n}`),
  ]);
  assert.match(await page.locator("#alice .back").textContent(), /Resumed after/);
});

test("two tabs have one connection for each player, and are in step", async (t) => {
  const { page, tab, faults } = await visit(t);
  const before = server.proxy.streams.length;
  const other = await tab();
  assert.equal(server.proxy.streams.length, before);

  await publish(other, "Alice", "in both");
  for (const it of [page, other]) {
    await it.locator("#alice .message", { hasText: "in both" }).waitFor(WAIT);
    await it.locator("#alice .badge", { hasText: "1" }).waitFor(WAIT);
  }
  await page.locator("#alice .bell").click();
  await page.locator("#alice streamer-inbox li .main").click();
  await other.locator("#alice .badge").waitFor({ state: "hidden", ...WAIT });

  // The tab that holds the connection goes; the other one takes over.
  await page.close();
  await publish(other, "Alice", "after the first tab");
  await other.locator("#alice .message", { hasText: "after the first tab" }).waitFor(WAIT);
  assert.deepEqual(faults, []);
});

test("a session that is over is replaced by another one", async (t) => {
  const { page, faults } = await visit(t);
  await publish(page, "Alice", "in the first session");
  await page.locator("#alice .message").waitFor(WAIT);
  await page.evaluate(() => localStorage.setItem("streamer-demo-session", "0".repeat(24)));
  const loaded = page.waitForEvent("load", WAIT);
  await page.locator("#alice .break").click();
  await page.locator("#alice .status.lost").waitFor(WAIT);
  await page.locator("#alice .break").click();
  await loaded;
  await page.locator("#alice .status.open").waitFor(WAIT);
  await publish(page, "Alice", "in the second one");
  await page.locator("#alice .message", { hasText: "in the second one" }).waitFor(WAIT);

  assert.deepEqual(await arrived(page, "alice"), ["in the second one"]);
  assert.deepEqual(faults, []);
});

test("it works below a prefix of a proxy", async (t) => {
  const prefixed = await Server.start({ demo_page: true, base_path: "/push" });
  t.after(() => prefixed.discard());
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${prefixed.url}/push/`);
  await page.getByRole("link").first().click();
  await page.waitForURL("**/push/demo");
  await page.locator("#alice .status.open").waitFor(WAIT);
  await publish(page, "Alice", "below a prefix");
  await page.locator("#alice .message", { hasText: "below a prefix" }).waitFor(WAIT);

  assert.ok(prefixed.proxy.requests.every((it) => it.split(" ")[1].startsWith("/push/")));
});

for (const [width, scheme] of [[1280, "dark"], [360, "light"]]) {
  test(`the page fits ${width} px, and axe finds nothing, ${scheme}`, async (t) => {
    const { page } = await visit(t, {
      viewport: { width, height: 800 },
      colorScheme: scheme,
    });
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
    await publish(page, "Bob", "seen by axe");
    await page.locator("#bob .message", { hasText: "seen by axe" }).waitFor(WAIT);
    await page.locator("#alice .break").click();
    await page.locator("#alice .cut").waitFor(WAIT);
    assert.deepEqual(await violations(page), []);
  });
}
