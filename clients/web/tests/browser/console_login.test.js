// Logging in to the console with an OpenID Connect issuer, in Chromium.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after } from "node:test";

import { Server, eventually, freePort, runProgram } from "../running_server.js";
import { browser, test, violations } from "./setup.js";

const WAIT = { timeout: 20_000 };

const issuerPort = await freePort();
const ISSUER = `http://127.0.0.1:${issuerPort}`;
const server = browser
  ? await Server.start((url) => ({
      console_url: `${url}/console`,
      console_oidc_issuer: ISSUER,
      console_oidc_client_id: "console",
      console_oidc_client_secret: "a secret: 100%",
      console_oidc_roles: "game-ops=operator,cs=support:demo",
    }))
  : null;
let issuer = null;

async function startIssuer() {
  issuer = runProgram("tests.oidc_issuer", "--port", String(issuerPort), "--redirect", `${server.url}/console`);
  await eventually(async () => (await fetch(`${ISSUER}/keys`).catch(() => null))?.ok, "the issuer is ready");
}

async function endIssuer() {
  if (!issuer || issuer.exitCode !== null || issuer.signalCode) return;
  issuer.kill("SIGKILL");
  await once(issuer, "exit");
}

if (browser) {
  await startIssuer();
  after(async () => {
    await endIssuer();
    await server.discard();
  });
}

async function visit(t, path = "", options = {}) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(error.message));
  // Without a session there is a 401, which the browser reports.
  page.on("console", (it) => it.type() === "error" && !it.text().includes("401") && faults.push(it.text()));
  await page.goto(`${server.url}/console${path}`);
  const leave = page.getByRole("button", { name: `Log in with 127.0.0.1:${issuerPort}` });
  await leave.waitFor(WAIT);
  return { page, context, faults, leave };
}

test("a person logs in with the issuer, acts, and logs out there", async (t) => {
  const { page, context, faults, leave } = await visit(t, "#/player/kim");
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press("Enter"); // The button has the focus.
  await page.getByRole("link", { name: "bob" }).click(WAIT);

  await page.getByRole("button", { name: "Compensate" }).waitFor(WAIT);
  const place = new URL(page.url());
  assert.equal(place.origin + place.pathname, `${server.url}/console`);
  assert.equal(place.search, "?app=demo");
  assert.equal(place.hash, "#/player/kim");
  assert.match(await page.locator("#who").textContent(), /bob@studio\.example, support/);
  const cookies = await context.cookies(`${server.url}/console/api/x`);
  assert.deepEqual(
    cookies.map((it) => [it.name, it.httpOnly, it.sameSite]),
    [["streamer_console", true, "Strict"]],
  );

  await page.getByRole("button", { name: "Compensate" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Title").fill("Sorry");
  await dialog.getByLabel("Reason").fill("lost a chest");
  await dialog.getByRole("button", { name: "Send" }).click();
  await page.locator(".inbox > li", { hasText: "Sorry" }).waitFor(WAIT);

  await page.reload();
  await page.getByRole("button", { name: "Compensate" }).waitFor(WAIT);
  await page.getByRole("button", { name: "Log out" }).click();
  await leave.waitFor(WAIT);
  assert.equal((await context.cookies()).filter((it) => it.name === "streamer_console").length, 0);
  assert.deepEqual(faults, []);
});

test("who has no role reads why", async (t) => {
  const { page, leave } = await visit(t);
  await leave.click();
  await page.getByRole("link", { name: "eve" }).click(WAIT);

  await page.getByText("You have no role in this console").waitFor(WAIT);
  assert.equal(new URL(page.url()).pathname, "/console/api/callback");
});

test("a person with several apps chooses one, for this tab", async (t) => {
  await server.createApp("second");
  const { page, context, leave } = await visit(t);
  await leave.click();
  await page.getByRole("link", { name: "ann" }).click(WAIT);
  await page.getByRole("link", { name: "Overview" }).waitFor(WAIT);
  const other = await context.newPage();
  await other.goto(`${server.url}/console?app=second#/app`);

  await other.locator("main dd", { hasText: "second" }).first().waitFor(WAIT);
  await other.getByLabel("App", { exact: true }).selectOption("demo");
  await other.locator("main dd", { hasText: "demo" }).first().waitFor(WAIT);
  assert.equal(new URL(other.url()).search, "?app=demo");
  assert.equal(await page.locator("#app select").inputValue(), "demo");

  await other.goto(`${server.url}/console?app=nobodys#/app`);
  await other.locator("main dd", { hasText: "demo" }).first().waitFor(WAIT);
});

test("keys go on while the issuer is down", async (t) => {
  const { page } = await visit(t);
  await endIssuer();
  const key = await server.consoleKey("viewer");
  await eventually(async () => {
    await page.reload();
    return page.getByLabel("Console key").isVisible();
  }, "the server knows the key");
  // What the server knows of the issuer stays in use, so the browser meets the failure.
  await page.getByLabel("Console key").fill(key);
  await page.getByRole("button", { name: "Log in with the key" }).click();

  await page.getByRole("link", { name: "Overview" }).waitFor(WAIT);
  await startIssuer();
});
