// The code in INBOX.md as it is printed, in a page of another origin than the server's.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { compile } from "svelte/compiler";

import { PAGE_PORT, api, browser, newPlayer, publish, server, test } from "./setup.js";

const WEB = fileURLToPath(new URL("../..", import.meta.url));
const ORIGIN = `http://127.0.0.1:${PAGE_PORT}`;

const page = await readFile(join(WEB, "INBOX.md"), "utf-8");
const BLOCKS = page.matchAll(/^```(\w+)\n(.*?)^```$/gms);
const [element, style, react, vue, svelte, store, ...rest] = [...BLOCKS].map(
  ([, language, text]) => ({ language, text }),
);

/** The client that the other examples take from that of React. */
const CLIENT = `
  import { StreamerClient } from "streamer-client";
  const getToken = async () => (await fetch("/token")).json();
  const client = new StreamerClient({ url: "https://push.example", getToken });`;

/** The address of this test instead of that of the examples. */
const local = (text) => text.replaceAll("https://push.example", server.url);

/** Make one file of a module and of what it imports from the package. */
async function bundle(contents, components = {}) {
  const { outputFiles } = await build({
    ...{ stdin: { contents: local(contents), resolveDir: WEB, loader: "jsx" }, jsx: "automatic" },
    ...{ bundle: true, format: "esm", write: false, logLevel: "error" },
    plugins: [
      {
        name: "components",
        setup({ onResolve, onLoad }) {
          onResolve({ filter: /\.svelte$/ }, ({ path }) => ({ path, namespace: "component" }));
          onLoad({ filter: /./, namespace: "component" }, ({ path }) => ({
            contents: compile(components[path], { generate: "client" }).js.code,
            resolveDir: WEB,
          }));
        },
      },
    ],
  });
  return outputFiles[0].text;
}

/** Open a page of the game, whose backend gives its visitor the token of a new player. */
async function visit(t, html, script = "") {
  const { player } = await newPlayer();
  const context = await browser.newContext({ colorScheme: "light" });
  t.after(() => context.close());
  const tab = await context.newPage();
  const faults = [];
  tab.on("pageerror", (error) => faults.push(error.message));
  await context.route(`${ORIGIN}/**`, async (route) => {
    const path = new URL(route.request().url()).pathname;
    if (path === "/token") await route.fulfill({ json: await api("POST", "v1/tokens", { player }) });
    else if (path === "/main.js") {
      await route.fulfill({ contentType: "text/javascript", body: script });
    } else {
      const body = `<!doctype html><title>A game</title>${local(html)}`;
      await route.fulfill({ contentType: "text/html", body });
    }
  });
  await publish(player, "kept");
  await tab.goto(`${ORIGIN}/`);
  return { tab, player, faults };
}

const ROOT = '<div id="root"></div><script type="module" src="/main.js"></script>';

/** Check that an example draws what the inbox has and what arrives, and how many of them. */
async function drawn(t, script) {
  const { tab, player, faults } = await visit(t, ROOT, script);
  await tab.locator("li", { hasText: "kept" }).waitFor();
  await tab.getByText("1 unread").waitFor();
  await publish(player, "new");
  await tab.locator("li", { hasText: "new" }).waitFor();
  await tab.getByText("2 unread").waitFor();
  return { tab, faults };
}

test("every example of the page is run here", () => {
  const languages = [element, style, react, vue, svelte, store].map(({ language }) => language);
  assert.deepEqual(languages, ["html", "css", "jsx", "js", "js", "js"]);
  assert.deepEqual(rest, []);
});

test("the element: two lines are an inbox", async (t) => {
  const { tab, player, faults } = await visit(t, element.text);
  await tab.locator(".badge", { hasText: "1" }).waitFor();
  await publish(player, "new");
  await tab.locator(".toast", { hasText: "new" }).waitFor();
  await tab.locator(".bell").click();
  assert.deepEqual(await tab.locator("li .name").allTextContents(), ["new", "kept"]);
  assert.deepEqual(faults, []);
});

test("the element: its look follows a style sheet of the page", async (t) => {
  const { tab } = await visit(t, `<style>${style.text}</style>${element.text}`);
  const badge = tab.locator(".badge", { hasText: "1" });
  await badge.waitFor();
  const computed = (it, name) => it.evaluate((e, name) => getComputedStyle(e)[name], name);
  assert.equal(await computed(badge, "backgroundColor"), "rgb(10, 125, 90)");
  await tab.locator(".bell").click();
  assert.equal(await computed(tab.locator(".panel"), "borderTopLeftRadius"), "6px");
});

test("React", async (t) => {
  const { tab, faults } = await drawn(t, await bundle(react.text));
  await tab.getByRole("button", { name: "2 unread" }).click();
  await tab.getByRole("button", { name: "0 unread" }).waitFor();
  assert.deepEqual(faults, []);
});

test("Vue", async (t) => {
  const [imports, body] = vue.text.split("\n\n");
  const script = `${imports}\n${CLIENT}
    import { createApp, h } from "vue";
    createApp({
      setup() {
        ${body}
        return () => [
          h("p", unread.value + " unread, " + status.value),
          h("button", { onClick: () => store.markAllRead() }, "Read"),
          notifications.value.map(({ id, title }) => h("li", { key: id }, title)),
        ];
      },
    }).mount("#root");`;
  const { tab, faults } = await drawn(t, await bundle(script));
  await tab.getByText("2 unread, open").waitFor();
  await tab.getByRole("button").click();
  await tab.getByText("0 unread, open").waitFor();
  assert.deepEqual(faults, []);
});

test("Svelte", async (t) => {
  const component = `<script>
      const { client } = $props();
      ${svelte.text}
    </script>
    <p>{$unread} unread, {$status}</p>
    <button onclick={() => store.markAllRead()}>Read</button>
    {#each $notifications as { id, title } (id)}<li>{title}</li>{/each}`;
  const script = `${CLIENT}
    import { mount } from "svelte";
    import Inbox from "Inbox.svelte";
    mount(Inbox, { target: document.getElementById("root"), props: { client } });`;
  const { tab, faults } = await drawn(t, await bundle(script, { "Inbox.svelte": component }));
  await tab.getByText("2 unread, open").waitFor();
  await tab.getByRole("button").click();
  await tab.getByText("0 unread, open").waitFor();
  assert.deepEqual(faults, []);
});

test("the store", async (t) => {
  const script = `${CLIENT}
    globalThis.snapshots = [];
    function draw(snapshot) {
      snapshots.push(snapshot);
      const items = snapshot.notifications.map(({ title }) => "<li>" + title + "</li>");
      root.innerHTML = snapshot.unread + " unread" + items.join("");
    }
    ${store.text}`;
  const { tab, faults } = await drawn(t, await bundle(script));
  // The first one is still what it was, as the page says.
  const { loading, notifications } = await tab.evaluate(() => snapshots[0]);
  assert.deepEqual({ loading, notifications }, { loading: "first", notifications: [] });
  assert.deepEqual(faults, []);
});
