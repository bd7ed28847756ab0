// The page /console in Chromium, on a real server.

import assert from "node:assert/strict";

import { SERVER, api, browser, newPlayer, pageOf, publish, server, test, violations } from "./setup.js";

const WAIT = { timeout: 20_000 };
const HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>";
const TURNED = "safe\u202Egnp.exe\u0007\u2066";

/** A browser that is logged in with a new key of a role. */
async function visit(t, role, options, name = "Ann") {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (it) => it.type() === "error" && faults.push(it.text()));
  page.on("dialog", (dialog) => {
    faults.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  const foreign = [];
  page.on("request", (it) => !it.url().startsWith(SERVER) && !it.url().startsWith("data:") && foreign.push(it.url()));
  const key = await server.consoleKey(role, "--name", name);
  // The first key turns the console on within five seconds.
  for (;;) {
    const response = await page.goto(`${SERVER}console`);
    if (response.ok()) break;
    await page.waitForTimeout(200);
  }
  await page.getByLabel("Console key").fill(key);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("link", { name: "Overview" }).waitFor(WAIT);
  // That nobody is logged in yet is a 401, which the browser reports.
  faults.length = 0;
  const open = async (path) => {
    await page.evaluate((hash) => (location.hash = hash), `#/${path}`);
  };
  return { page, context, faults, foreign, key, open };
}

const ofPlayer = (player) => `player/${encodeURIComponent(player)}`;

test("a wrong key is refused, a right one stays logged in across a reload", async (t) => {
  const { page, faults } = await visit(t, "viewer");
  await page.reload();
  await page.getByRole("link", { name: "Overview" }).waitFor(WAIT);
  assert.deepEqual(faults, []);

  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("Console key").fill("sk_wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("This is no console key").waitFor(WAIT);

  const stored = await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length]);
  assert.deepEqual(stored, ["", 0, 0]);
});

test("the end of a session that was left does not disturb the login", async (t) => {
  const { page } = await visit(t, "viewer");
  await page.clock.install();
  await page.reload();
  await page.getByRole("button", { name: "Log out" }).click(WAIT);
  await page.getByText("You have logged out.").waitFor(WAIT);
  await page.getByLabel("Console key").fill("being typed");

  await page.clock.fastForward("09:00:00");

  assert.equal(await page.getByLabel("Console key").inputValue(), "being typed");
  assert.equal(await page.locator("#problem").textContent(), "You have logged out.");
});

test("nobody is told to have logged out while the session lives", async (t) => {
  const { page } = await visit(t, "viewer");
  await page.route("**/session", (route) => route.fulfill({ status: 503, json: { detail: "the store is unavailable" } }));

  await page.getByRole("button", { name: "Log out" }).click(WAIT);

  await page.getByText("the store is unavailable").waitFor(WAIT);
  await page.getByRole("link", { name: "Overview" }).waitFor(WAIT);
  await page.unroute("**/session");
  await page.getByRole("button", { name: "Log out" }).click(WAIT);
  await page.getByText("You have logged out.").waitFor(WAIT);
});

test("a revoked key ends the session at its next request", async (t) => {
  const { page, open } = await visit(t, "viewer", {}, "to be revoked");
  await open("app");
  const row = page.locator("tr", { hasText: "to be revoked" });
  const id = await row.locator("code").first().textContent(WAIT);
  await server.revoke(id);

  await open("overview");

  await page.getByText("The session has ended: log in again.").waitFor(WAIT);
});

test("the overview shows the processes, the charts and the store", async (t) => {
  const { page, faults, foreign } = await visit(t, "viewer");
  await publish("someone", "counted");

  await page.locator("table code").first().waitFor(WAIT);
  await page.locator(".chart svg").nth(5).waitFor(WAIT);

  assert.match(await page.locator(".facts").textContent(), /Durabilityalways/);
  assert.equal(await page.getByRole("link", { name: "Publish" }).count(), 0);
  assert.deepEqual(faults, []);
  assert.deepEqual(foreign, []);
});

test("what players and backends write is shown as text", async (t) => {
  const player = `p-${HOSTILE}-${TURNED.slice(0, 5)}`;
  const name = "eve<b>";
  const { page, faults, open } = await visit(t, "support", {}, HOSTILE.slice(0, 60));
  const id = (
    await publish(name, { title: HOSTILE + TURNED, body: HOSTILE, type: "<b>type</b>", data: { x: HOSTILE } })
  )[0];
  await publish(name, { title: "withdrawn", body: TURNED });
  await api("PUT", `v1/players/${encodeURIComponent(name)}/topics/news`);

  await open(ofPlayer(name));
  await page.locator(".inbox > li").nth(1).waitFor(WAIT);

  const shown = await page.locator(".inbox > li", { hasText: "<img" }).textContent();
  assert.ok(shown.includes("<img src=x onerror=alert(1)><script>alert(2)</script>"));
  assert.ok(shown.includes("U+202E") && shown.includes("U+0007") && shown.includes("U+2066"));
  assert.ok(!/[\u202e\u0007\u2066]/.test(await page.locator("main").textContent()));
  assert.equal(await page.locator("main img, main script, main b").count(), 0);
  for (const path of ["app", "schedules", ofPlayer(player)]) {
    await open(path);
    await page.locator("main h1").waitFor(WAIT);
    await page.waitForLoadState("networkidle");
    assert.equal(await page.locator("main img, main script, header img").count(), 0, path);
  }
  assert.ok(id);
  // An invalid name is a 400, which the browser reports; nothing else may be there.
  assert.deepEqual(faults.filter((it) => !it.includes("400")), []);
});

test("support compensates a player, marks and withdraws", async (t) => {
  const { player, token } = await newPlayer();
  const { page, faults, open } = await visit(t, "support");
  await open(ofPlayer(player));

  await page.getByRole("button", { name: "Compensate" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Title").fill("Sorry for the crash");
  await dialog.getByLabel("Reason").fill("lost a chest");
  await dialog.getByRole("button", { name: "Send" }).click();
  await page.locator(".inbox > li", { hasText: "Sorry for the crash" }).waitFor(WAIT);
  assert.equal((await pageOf({ token })).notifications[0].title, "Sorry for the crash");
  assert.ok(!JSON.stringify(await pageOf({ token })).includes("lost a chest"));

  await page.getByRole("button", { name: "Mark as read", exact: true }).click();
  await page.getByRole("button", { name: "Mark as unread" }).waitFor(WAIT);
  assert.equal((await pageOf({ token })).unread, 0);

  await page.getByRole("button", { name: "Receipt" }).click();
  await dialog.getByText("not yet: no client has confirmed it").waitFor(WAIT);
  await page.keyboard.press("Escape");

  await page.getByRole("button", { name: "Withdraw" }).click();
  await dialog.getByRole("button", { name: "Withdraw" }).click();
  await page.locator(".state.withdrawn").waitFor(WAIT);
  assert.deepEqual((await pageOf({ token })).notifications, []);
  assert.deepEqual(faults, []);
});

test("a player's page is live, and leaves focus, selection and what is typed alone", async (t) => {
  const { player } = await newPlayer();
  await publish(player, "first");
  const { page, faults, open } = await visit(t, "support", { viewport: { width: 360, height: 760 } });
  await open(ofPlayer(player));
  const shown = (title) => page.locator(".inbox > li", { hasText: title }).waitFor(WAIT);
  const focused = () => page.evaluate(() => document.activeElement.dataset.key);
  await shown("first");

  // A notification arrives while a dialog is open. Closing it focuses the redrawn button.
  await page.getByRole("button", { name: "Compensate" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").getByLabel("Title").fill("being typed");
  await publish(player, "second");
  await shown("second");
  assert.equal(await page.getByRole("dialog").getByLabel("Title").inputValue(), "being typed");
  await page.keyboard.press("Escape");
  assert.equal(await focused(), "Compensate");

  // A button keeps the focus after it is pressed, and after the list is redrawn.
  const [id] = await publish(player, "third");
  await shown("third");
  await page.locator(`[data-key="mark ${id}"]`).focus();
  await page.keyboard.press("Enter");
  await page.locator(".inbox > li.read").waitFor(WAIT);
  await page.waitForFunction((key) => document.activeElement.dataset.key === key, `mark ${id}`);
  await publish(player, "fourth");
  await shown("fourth");
  assert.equal(await focused(), `mark ${id}`);

  // If the button that opened a dialog is redrawn, the new button gets the focus back.
  await page.locator(`[data-key="receipt ${id}"]`).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor(WAIT);
  await publish(player, "fifth");
  await shown("fifth");
  await page.keyboard.press("Escape");
  await page.waitForFunction((key) => document.activeElement.dataset.key === key, `receipt ${id}`);

  // A text that is being selected stays until it is let go.
  await page.locator(".inbox h3", { hasText: "third" }).selectText();
  await publish(player, "sixth");
  const before = await page.getByText("Live: as of").textContent();
  await page.waitForFunction((it) => [...document.querySelectorAll("p.note")].some((p) => p.textContent.startsWith("Live") && p.textContent !== it), before);
  assert.equal(await page.evaluate(() => String(getSelection())), "third");
  await page.evaluate(() => getSelection().removeAllRanges());
  await shown("sixth");
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  assert.deepEqual(faults, []);
});

test("a long word of others does not break the words of the console", async (t) => {
  const { player } = await newPlayer();
  await publish(player, { title: "W".repeat(300), type: "x".repeat(64) });
  const { page, open } = await visit(t, "support");
  await open(ofPlayer(player));
  const state = page.getByLabel("All entries").locator(".state");
  await state.waitFor(WAIT);

  // One line, in a column beside the long word.
  const height = await state.evaluate((it) => it.getClientRects().length);
  assert.equal(height, 1);
  const clipped = await page.getByLabel("All entries").locator(".clip").evaluate((it) => it.clientHeight);
  assert.ok(clipped < 90, `${clipped} pixels`);
});

test("an operator publishes to a topic after a dry run, and pauses and cancels a schedule", async (t) => {
  const { player, token } = await newPlayer();
  await api("PUT", `v1/players/${player}/topics/console`);
  const { page, faults, open } = await visit(t, "operator");
  await open("publish");

  await page.getByRole("radio", { name: "Topic" }).check();
  await page.getByRole("textbox", { name: "Topic" }).fill("console");
  await page.getByLabel("Title").fill("To the topic");
  await page.getByRole("button", { name: "Whom does it reach?" }).click();
  await page.getByText("not counted: the store has the topics").waitFor(WAIT);
  await page.getByRole("button", { name: "Publish …" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Publish" }).click();
  await page.getByText("It is stored and on its way.").waitFor(WAIT);
  assert.equal((await pageOf({ token })).notifications[0].title, "To the topic");

  await page.getByRole("radio", { name: "Everyone" }).check();
  await page.getByLabel("Title").fill("Later");
  const at = new Date(Date.now() + 3_600_000 - new Date().getTimezoneOffset() * 60_000);
  await page.getByLabel("Send at").fill(at.toISOString().slice(0, 16));
  await page.getByRole("button", { name: "Publish …" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Publish" }).click();
  await page.getByText("It is scheduled").waitFor(WAIT);
  await open("schedules");
  const due = page.getByLabel("Pending schedules").locator("tr", { hasText: "Later" });
  await due.getByRole("button", { name: "Pause" }).click();
  await due.getByText("paused").waitFor(WAIT);
  await due.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
  await due.getByText("pending").waitFor(WAIT);
  await due.getByRole("button", { name: "Pause" }).click();
  await due.getByText("paused").waitFor(WAIT);
  await due.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel the schedule" }).click();
  await page.getByLabel("All schedules").locator("tr", { hasText: "Later" }).getByText("cancelled").waitFor(WAIT);
  assert.deepEqual(faults, []);
});

test("every page is used by keyboard, fits 360 pixels, and axe finds nothing", async (t) => {
  const { player } = await newPlayer();
  await publish(player, { title: "A title", body: "A body", priority: "high" }, "Another");
  for (const colorScheme of ["light", "dark"]) {
    const { page, faults, open } = await visit(t, "operator", { colorScheme, viewport: { width: 360, height: 760 } });
    for (const path of ["overview", ofPlayer(player), "publish", "schedules", "app"]) {
      await open(path);
      await page.locator("main h1").waitFor(WAIT);
      await page.waitForLoadState("networkidle");
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.equal(width, 360, path);
      assert.deepEqual(await violations(page), [], `${path}, ${colorScheme}`);
    }
    await open(ofPlayer(player));
    await page.locator(".inbox > li").first().waitFor(WAIT);
    await page.getByRole("button", { name: "Compensate" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor(WAIT);
    assert.deepEqual(await violations(page), [], `dialog, ${colorScheme}`);
    await page.keyboard.press("Escape");
    assert.equal(await page.getByRole("dialog").count(), 0);
    assert.deepEqual(faults, []);
  }
});
