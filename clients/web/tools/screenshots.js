// Takes the pictures of the documentation, of a real server:
//
//     TEST_CHROMIUM=/usr/bin/chromium TEST_SERVER_COMMAND='["streamer"]' \
//       node tools/screenshots.js ../../docs/pictures
//
// With `pngquant` they are a third of the size.

import { spawnSync } from "node:child_process";
import { join } from "node:path";

import { SERVER, api, browser, inboxPage, newPlayer, openPage, publish, server } from "../tests/browser/setup.js";

const [, , FOLDER = "."] = process.argv;
const MINUTE = 60_000;

/** Newest last, with their age in minutes and whether they are read. */
const NOTIFICATIONS = [
  [{ title: "Welcome to Skyward", body: "Your first chest is in the inbox.", type: "hint" }, 6 * 1440, true],
  [{ title: "Season two begins", body: "New islands, new ranks, and the old map in ruins.", topic: true }, 1440, true],
  [{ title: "You were promoted to captain", body: "Guild Nordwind" }, 300, true],
  [{ title: "The server restarts at 18:00", body: "Finish your match, ranked games that are cut count as a draw.", priority: "high" }, 52, false],
  [{ title: "Bob wants to be friends", body: "You have played 12 matches together.", resource: { url: "/friends/bob" } }, 9, false],
  [{ title: "Quest complete", body: "You earned 250 gold. Open your chest before midnight." }, 0, false],
];

async function save(page, name, options) {
  const path = join(FOLDER, `${name}.png`);
  await page.waitForFunction(() =>
    [document, ...[...document.querySelectorAll("streamer-inbox")].map((it) => it.shadowRoot)]
      .flatMap((root) => root.getAnimations())
      .every((it) => it.playState !== "running"),
  );
  await page.screenshot({ path, ...options });
  const { error, status } = spawnSync("pngquant", ["--force", "--ext", ".png", "--strip", "96", path]);
  console.log(path, error || status ? "not compressed" : "");
}

async function inbox(name, options, { toast } = {}) {
  const player = await newPlayer();
  await api("PUT", `v1/players/${player.player}/topics/news`);
  const ids = [];
  for (const [{ topic, ...message }] of NOTIFICATIONS) {
    if (topic) {
      const to = { topic: "news" };
      ids.push((await api("POST", "v1/notifications", { to, ...message })).results[0].id);
    } else {
      ids.push(...(await publish(player.player, message)));
    }
  }
  const read = ids.filter((_, i) => NOTIFICATIONS[i][2]);
  await api("POST", "v1/players/me/notifications/read", { ids: read }, player.token);

  const context = await browser.newContext({ deviceScaleFactor: 2, ...options });
  // Nobody waits six days for a picture.
  await context.route("**/notifications?*", async (route) => {
    const response = await route.fetch();
    const body = await response.json();
    for (const it of body.notifications) {
      const age = NOTIFICATIONS[ids.indexOf(it.id)]?.[1] ?? 0;
      it.created_at = new Date(Date.now() - age * MINUTE).toISOString();
    }
    await route.fulfill({ response, json: body });
  });
  const style = `<style>
    :root { color-scheme: light dark; --page: #eef0f4; --bar: #fff; --line: #e3e6eb; }
    @media (prefers-color-scheme: dark) { :root { --page: #0c0d10; --bar: #131418; --line: #25272e; } }
    body { margin: 0; background: var(--page); font: 16px system-ui, sans-serif; }
    main { display: flex; gap: 12px; align-items: center; padding: 10px 20px; background: var(--bar); border-bottom: 1px solid var(--line); }
    h1 { font-size: 17px; margin: 0 auto 0 0; letter-spacing: -.01em; } main > button { display: none; }
  </style>`;
  const html = inboxPage(player.token, "", style).replaceAll("A game", "Skyward");
  const { page } = await openPage(context, html);
  await page.locator(".badge").waitFor();
  if (toast) {
    await publish(player.player, { title: "Your match begins", body: "Bob and two others are waiting in the lobby." });
    await page.locator(".toast").waitFor();
    await publish(player.player, { title: "Last call", body: "The lobby closes in 30 seconds.", priority: "high" });
    await page.locator(".toast").nth(1).waitFor();
  } else {
    await page.locator(".bell").click();
    await page.locator("li").nth(5).waitFor();
    await page.mouse.move(0, 0);
  }
  await save(page, name);
  await context.close();
}

async function demo(name, options, { open, clip } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(`${SERVER}demo`);
  await page.locator("#bob .status.open").waitFor();
  await page.locator("#alice .status.open").waitFor();
  const send = async (to, title, body, priority = "medium") => {
    await page.locator(".to label", { hasText: to }).click();
    await page.fill("[name=title]", title);
    await page.fill("[name=body]", body);
    await page.selectOption("[name=priority]", priority);
    await page.click("#publish .primary");
    await page.waitForTimeout(150);
  };
  const seen = (player, title) => page.locator(`#${player} .message`, { hasText: title }).waitFor();
  await page.locator("#bob .switch").click();
  await page.locator("#bob .note").waitFor();
  await send("Alice", "Bob wants to be friends", "You have played 12 matches together.");
  await seen("alice", "Bob wants");
  await page.locator("#alice .break").click();
  await page.locator("#alice .status.lost").waitFor();
  await send("Topic", "Season two begins", "New islands, new ranks.");
  await send("Alice", "Your turn", "Bob has moved his knight.");
  await send("Alice", "Quest complete", "You earned 250 gold. Open your chest before midnight.");
  await page.waitForTimeout(900);
  await page.locator("#alice .break").click();
  await seen("alice", "Quest complete");
  await send("Bob", "The server restarts at 18:00", "Finish your match until then.", "high");
  await seen("bob", "The server restarts");
  await send("Bob", "Alice is online", "She plays on the third island.");
  await seen("bob", "Alice is online");
  if (open) await page.locator("#bob .bell").click();
  await page.mouse.move(0, 0);
  await page.evaluate(() => scrollTo(0, 0));
  await save(page, name, { clip });
  await context.close();
}

const desktop = { viewport: { width: 1180, height: 760 } };
await demo("demo", { ...desktop, colorScheme: "light" });
await demo("demo-dark", { ...desktop, colorScheme: "dark" }, { open: true });
const page = { viewport: { width: 560, height: 640 } };
await inbox("inbox", { ...page, colorScheme: "light" });
await inbox("inbox-dark", { ...page, colorScheme: "dark" });
const phone = { viewport: { width: 360, height: 720 }, isMobile: true, hasTouch: true };
await inbox("inbox-360", phone);
await demo("demo-360", { ...phone, deviceScaleFactor: 2 });
await inbox("toasts", { viewport: { width: 560, height: 360 }, colorScheme: "light" }, { toast: true });
await browser.close();
await server.discard();
