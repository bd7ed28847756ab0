// <streamer-inbox> in Chromium, on a real server.

import assert from "node:assert/strict";

import { ELEMENT, SERVER, api, browser, inboxPage, newPlayer, openPage, pageOf, publish, test, violations } from "./setup.js";

/** A page with the element for a player, in a browser profile of its own. */
async function visit(t, player, { attributes, more, options, policy } = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const opened = await openPage(context, inboxPage(player.token, attributes, more), { policy });
  const inbox = opened.page.locator("streamer-inbox");
  await inbox.locator(".bell").waitFor();
  return { ...opened, context, inbox, items: inbox.locator("li") };
}

async function isConnected(page) {
  await page.waitForFunction(
    () => document.querySelector("streamer-inbox").store?.getSnapshot().status === "open",
  );
  await page.waitForFunction(
    () => document.querySelector("streamer-inbox").store.getSnapshot().loading === null,
  );
}

test("the badge counts, the list shows, and what arrives is a toast", async (t) => {
  const player = await newPlayer();
  await publish(player.player, "first", "second");
  const { page, inbox, items, faults } = await visit(t, player);
  await isConnected(page);
  assert.equal(await inbox.locator(".badge").textContent(), "2");
  assert.equal(
    await inbox.locator(".bell").getAttribute("aria-label"),
    "Notifications, 2 unread",
  );

  await publish(player.player, { title: "third", body: "it arrives" });
  await inbox.locator(".toast", { hasText: "third" }).waitFor();
  assert.equal(await inbox.locator(".badge").textContent(), "3");
  await inbox.locator(".bell").click();
  assert.equal(await inbox.locator(".toast").count(), 0);
  assert.deepEqual(await items.locator(".name").allTextContents(), ["third", "second", "first"]);

  await publish(player.player, "fourth");
  await items.filter({ hasText: "fourth" }).waitFor();
  assert.equal(await inbox.locator(".toast").count(), 0);
  assert.deepEqual(faults, []);
});

test("marks and deletions reach the server", async (t) => {
  const player = await newPlayer();
  const [one, , three] = await publish(player.player, "one", "two", "three");
  const { page, inbox, items } = await visit(t, player);
  await isConnected(page);
  await inbox.locator(".bell").click();
  await items.nth(2).locator(".main").click();
  await inbox.locator(".badge", { hasText: "2" }).waitFor();
  await page.waitForFunction(() => !document.querySelector("streamer-inbox").store.getSnapshot().pending);
  let server = await pageOf(player);
  assert.deepEqual(
    server.notifications.filter((it) => it.read_at).map((it) => it.id),
    [one],
  );

  await items.nth(2).hover();
  await items.nth(2).getByRole("button", { name: "Mark as unread: one" }).click();
  await inbox.locator(".badge", { hasText: "3" }).waitFor();
  await items.nth(0).hover();
  await items.nth(0).getByRole("button", { name: "Delete: three" }).click();
  await inbox.getByRole("button", { name: "Mark all as read" }).click();
  await inbox.locator(".badge").waitFor({ state: "hidden" });
  await page.waitForFunction(() => !document.querySelector("streamer-inbox").store.getSnapshot().pending);
  server = await pageOf(player);
  assert.equal(server.unread, 0);
  assert.ok(server.notifications.every((it) => it.id !== three));
  assert.equal(await items.count(), 2);
});

test("older notifications are loaded on demand, and the tab shows what is unread", async (t) => {
  const player = await newPlayer();
  await publish(player.player, ...Array.from({ length: 13 }, (_, i) => `number ${i}`));
  await api("POST", "v1/players/me/notifications/read", { all: true }, player.token);
  await publish(player.player, "unread one");
  const { page, inbox, items } = await visit(t, player, { attributes: 'page-size="5"' });
  await isConnected(page);
  await inbox.locator(".bell").click();
  assert.equal(await items.count(), 5);
  await inbox.getByRole("button", { name: "Load more" }).click();
  await items.nth(9).waitFor();
  await inbox.getByRole("button", { name: "Load more" }).click();
  await items.nth(13).waitFor();
  assert.equal(await inbox.getByRole("button", { name: "Load more" }).count(), 0);

  await inbox.locator(".filters").getByRole("button", { name: /^Unread/ }).click();
  await items.nth(1).waitFor({ state: "detached" });
  await items.first().waitFor();
  assert.deepEqual(await items.locator(".name").allTextContents(), ["unread one"]);
  await items.locator(".main").click();
  await inbox.getByText("All caught up").waitFor();
});

test("markup, scripts and links of other schemes do nothing", async (t) => {
  const player = await newPlayer();
  const markup = [
    "<img src=x onerror='window.pwned=1'>",
    "<script>window.pwned=1</script>",
    "</bdi></li></ul><svg/onload=window.pwned=1>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "\u202egnp.exe\u2066 \u2067\u0000",
  ];
  const links = [
    "javascript:window.pwned=1",
    " JaVa\tScRiPt:window.pwned=1",
    "data:text/html,<script>opener.pwned=1</script>",
    "vbscript:msgbox(1)",
    "blob:http://x/1",
    "file:///etc/passwd",
    "http://[broken",
  ];
  const { page, inbox, items, faults } = await visit(t, player);
  await isConnected(page);
  await publish(
    player.player,
    ...markup.map((it) => ({ title: it.replace("\0", ""), body: it.replace("\0", ""), type: "<b>" })),
    ...links.map((url) => ({ title: `link ${url}`, resource: { url } })),
    { title: "relative", resource: { url: "#quest" } },
    { title: "elsewhere", resource: { url: "https://other.example/x?y" } },
  );
  await inbox.locator(".toast", { hasText: "elsewhere" }).waitFor();
  await inbox.locator(".bell").click();
  await items.nth(markup.length + links.length + 1).waitFor();

  const hrefs = await inbox.locator("li a").evaluateAll((all) =>
    all.map((it) => [it.getAttribute("href"), it.target, it.rel]),
  );
  assert.deepEqual(hrefs, [
    ["https://other.example/x?y", "_blank", "noopener noreferrer nofollow"],
    [`${SERVER}test.html#quest`, "", ""],
  ]);
  for (const tag of ["img", "script", "b", "iframe"]) {
    assert.equal(await inbox.locator(`li ${tag}`).count(), 0, tag);
  }
  assert.equal(await items.filter({ hasText: "<img src=x onerror" }).count(), 1);
  assert.equal((await items.allTextContents()).join().includes("\u202e"), false);
  for (const item of await items.locator("button.main").all()) await item.click();
  await items.filter({ hasText: "relative" }).locator("a").click();
  await page.waitForURL("**/test.html#quest");

  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.deepEqual(faults, []);
});

test("it works and has its style under a strict policy of the page", async (t) => {
  const player = await newPlayer();
  await publish(player.player, "hello");
  const { page, inbox, items, faults } = await visit(t, player, {
    policy: "default-src 'none'; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'",
  });
  await isConnected(page);
  await inbox.locator(".bell").click();
  await items.first().waitFor();

  assert.equal(await inbox.locator(".panel").evaluate((it) => getComputedStyle(it).position), "fixed");
  assert.deepEqual(faults, []);
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing, ${colorScheme}`, async (t) => {
    const player = await newPlayer();
    await publish(
      player.player,
      { title: "plain", body: "a body" },
      { title: "urgent", priority: "high" },
      { title: "a link", body: "there", resource: { url: "/x" } },
    );
    const { page, inbox, items } = await visit(t, player, {
      options: { colorScheme },
      attributes: 'page-size="2"',
      more: `<style>html { color-scheme: ${colorScheme}; }</style>`,
    });
    await isConnected(page);
    assert.deepEqual(await violations(page), [], "closed");
    await publish(player.player, { title: "a toast", priority: "emergency" });
    await inbox.locator(".toast").waitFor();
    assert.deepEqual(await violations(page), [], "with a toast");
    await inbox.locator(".bell").click();
    await items.nth(0).locator(".main").click();
    await items.nth(1).hover();
    assert.deepEqual(await violations(page), [], "open");
    await inbox.getByRole("button", { name: "Mark all as read" }).click();
    await inbox.locator(".filters").getByRole("button", { name: /^Unread/ }).click();
    await inbox.getByText("All caught up").waitFor();
    assert.deepEqual(await violations(page), [], "empty");
  });
}

test("the keyboard is enough, and the focus comes back", async (t) => {
  const player = await newPlayer();
  await publish(player.player, "one", "two", "three");
  const { page, inbox } = await visit(t, player);
  await isConnected(page);
  const focused = () =>
    page.evaluate(() => {
      const active = document.activeElement.shadowRoot?.activeElement ?? document.activeElement;
      return active.closest("li")?.querySelector(".name")?.textContent ?? active.className ?? active.id;
    });

  await page.focus("#before");
  await page.keyboard.press("Tab");
  assert.match(await focused(), /bell/);
  await page.keyboard.press("Enter");
  await inbox.locator(".panel.open").waitFor();
  assert.match(await focused(), /panel/);
  await page.keyboard.press("ArrowDown");
  assert.equal(await focused(), "three");
  await page.keyboard.press("End");
  assert.equal(await focused(), "one");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("Enter");
  await inbox.locator(".badge", { hasText: "2" }).waitFor();
  assert.equal(await focused(), "two");
  // The focus stays in the list when its row goes.
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await inbox.locator("li", { hasText: "two" }).waitFor({ state: "detached" });
  assert.equal(await focused(), "one");
  await page.keyboard.press("Escape");
  await inbox.locator(".panel.open").waitFor({ state: "detached" });
  assert.match(await focused(), /bell/);
  assert.equal(await inbox.locator(".bell").getAttribute("aria-expanded"), "false");
});

test("it closes when something else is used", async (t) => {
  const { page, inbox } = await visit(t, await newPlayer());
  await inbox.locator(".bell").click();
  await inbox.locator(".panel.open").waitFor();
  await page.mouse.click(5, 700);
  await inbox.locator(".panel.open").waitFor({ state: "detached" });

  assert.equal(await page.locator("streamer-inbox[open]").count(), 0);
});

for (const [width, direction] of [[1000, "ltr"], [1000, "rtl"], [360, "ltr"], [360, "rtl"]]) {
  test(`the popover is on the screen, ${width} px, ${direction}`, async (t) => {
    const player = await newPlayer();
    await publish(player.player, { title: "شكرا", body: "a body ".repeat(40) });
    const { page, inbox, items } = await visit(t, player, {
      options: { viewport: { width, height: 640 } },
      more: `<script>document.documentElement.dir = "${direction}"</script>`,
    });
    await isConnected(page);
    await inbox.locator(".bell").click();
    await items.first().waitFor();
    await page.waitForFunction(
      () => document.querySelector("streamer-inbox").shadowRoot.getAnimations().length === 0,
    );
    const panel = await inbox.locator(".panel").boundingBox();
    const mark = await inbox.locator(".mark").boundingBox();
    const middle = panel.x + panel.width / 2;

    assert.ok(panel.x >= 0 && panel.x + panel.width <= width, JSON.stringify(panel));
    assert.ok(panel.y >= 0 && panel.y + panel.height <= 640, JSON.stringify(panel));
    assert.equal(mark.x > middle, direction === "ltr");
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
  });
}

test("without a network it says so, and marks are sent when there is one", async (t) => {
  const player = await newPlayer();
  await publish(player.player, "one", "two");
  const { page, context, inbox, items } = await visit(t, player);
  await isConnected(page);
  await inbox.locator(".bell").click();
  await items.nth(1).waitFor();
  // Chromium lets open WebSockets live when it emulates this, so the connection is cut.
  await context.setOffline(true);
  await page.evaluate(() => {
    const { client } = document.querySelector("streamer-inbox");
    globalThis.lost = new Promise((resolve) =>
      client.on("status", (it) => it.status === "offline" && resolve()),
    );
  });
  await page.evaluate(() => globalThis.lost);
  await inbox.getByText("You are offline").waitFor();
  await items.nth(0).locator(".main").click();
  await inbox.locator(".badge", { hasText: "1" }).waitFor();
  assert.equal((await pageOf(player)).unread, 2);
  await context.setOffline(false);
  await inbox.getByText("You are offline").waitFor({ state: "detached" });
  for (let unread = 2; unread !== 1; ) ({ unread } = await pageOf(player));

  assert.equal(await inbox.locator(".badge").textContent(), "1");
});

test("a page that cannot be loaded can be tried again", async (t) => {
  const player = await newPlayer();
  await publish(player.player, "there it is");
  const context = await browser.newContext();
  t.after(() => context.close());
  let isDown = true;
  await context.route("**/v1/players/me/notifications?*", (route) =>
    isDown
      ? route.fulfill({ status: 403, contentType: "application/json", body: "{}" })
      : route.continue(),
  );
  const { page } = await openPage(context, inboxPage(player.token, "open"));
  const inbox = page.locator("streamer-inbox");
  await inbox.getByText("Notifications could not be loaded.").waitFor();
  isDown = false;
  await inbox.getByRole("button", { name: "Try again" }).click();
  await inbox.locator("li", { hasText: "there it is" }).waitFor();

  assert.equal(await inbox.getByText("could not be loaded").count(), 0);
});

test("a token that is refused is said", async (t) => {
  const { inbox } = await visit(t, { token: "not.a.token" });
  await inbox.locator(".bell").click();

  await inbox.getByText("Sign in again").waitFor();
});

test("the token of the page's backend is used, and nobody is signed in without one", async (t) => {
  const player = await newPlayer();
  await publish(player.player, "for the one who is signed in");
  const context = await browser.newContext();
  t.after(() => context.close());
  await context.route("**/signed-in", (route) => route.fulfill({ json: { token: player.token } }));
  await context.route("**/signed-out", (route) => route.fulfill({ status: 204 }));
  const { page } = await openPage(
    context,
    `<!doctype html><title>A game</title>${ELEMENT}
      <streamer-inbox id="in" token-url="/signed-in" open></streamer-inbox>
      <streamer-inbox id="out" token-url="/signed-out"></streamer-inbox>`,
  );
  await page.locator("#in li", { hasText: "who is signed in" }).waitFor();
  await page.waitForFunction(() => document.querySelector("#out").client.status === "stopped");

  assert.equal(await page.locator("#out li").count(), 0);
});

test("texts, colors and events belong to the page", async (t) => {
  const player = await newPlayer();
  await publish(player.player, { title: "zuerst", resource: { url: "#leads-away" } });
  const { page, inbox, items } = await visit(t, player, {
    attributes: 'theme="dark"',
    more: `<style>streamer-inbox { --streamer-accent: rgb(1 2 3); }
        streamer-inbox::part(badge) { background: rgb(4 5 6); }</style>
      <script>
        const inbox = document.querySelector("streamer-inbox");
        // Before the module is loaded.
        inbox.texts = { title: "Nachrichten", markAll: "Alle gelesen" };
        inbox.addEventListener("streamer-select", (event) => {
          event.preventDefault();
          globalThis.selected = event.detail.notification.title;
        });
        inbox.addEventListener("streamer-notification", (event) => event.preventDefault());
      </script>`,
  });
  await isConnected(page);
  await publish(player.player, "ohne Toast");
  await inbox.locator(".badge", { hasText: "2" }).waitFor();
  assert.equal(await inbox.locator(".toast").count(), 0);
  await inbox.locator(".bell").click();
  await inbox.getByRole("dialog", { name: "Nachrichten" }).waitFor();
  await inbox.getByRole("button", { name: "Alle gelesen" }).waitFor();
  await items.filter({ hasText: "zuerst" }).locator(".main").click();

  assert.equal(await page.evaluate(() => globalThis.selected), "zuerst");
  assert.ok(!page.url().includes("leads-away"));
  assert.equal((await pageOf(player)).unread, 2);
  const style = (selector, property) =>
    inbox.locator(selector).first().evaluate((it, name) => getComputedStyle(it)[name], property);
  assert.equal(await style(".badge", "backgroundColor"), "rgb(4, 5, 6)");
  assert.equal(await style(".mark", "backgroundColor"), "rgb(1, 2, 3)");
  assert.equal(await style(".panel", "backgroundColor"), "rgb(23, 24, 28)");
});

test("an element that is moved keeps its state, and one that is removed disconnects", async (t) => {
  const player = await newPlayer();
  const { page } = await visit(t, player);
  await isConnected(page);
  const statuses = await page.evaluate(async () => {
    const inbox = document.querySelector("streamer-inbox");
    const { client } = inbox;
    document.body.append(inbox);
    await new Promise((resolve) => setTimeout(resolve));
    const moved = inbox.client === client && client.status;
    inbox.remove();
    await new Promise((resolve) => setTimeout(resolve));
    return [moved, client.status];
  });

  assert.deepEqual(statuses, ["open", "closed"]);
});
