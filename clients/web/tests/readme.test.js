import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

import { Pages, Server, eventually, launch, skip } from "./running_server.js";
import { sizes } from "./sizes.js";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const README = await readFile(`${ROOT}README.md`, "utf-8");
const BLOCKS = [...README.matchAll(/^```(\w+)\n(.*?)^```/gms)].map(([, name, text]) => ({
  name,
  text,
}));
const [page] = BLOCKS.filter(({ name }) => name === "html");
const [bundled, node, ...others] = BLOCKS.filter(({ name }) => name === "js");

test("the table has the sizes of the files", async () => {
  const rows = [...README.matchAll(/^\| (core|`([\w-]+)`.*?) \| ([\d,]+) \| ([\d,]+) \|$/gm)];
  assert.equal(rows.length, 5);
  for (const [, , name = "index", ...printed] of rows) {
    const { minified, served } = await sizes(`src/${name}.js`, name !== "index");
    for (const [i, size] of [minified, served].entries()) {
      const said = Number(printed[i].replace(",", ""));
      assert.ok(Math.abs(said - size) <= size * 0.05, `${name}: ${size}, not ${said}`);
    }
  }
});

test("the page of the inbox has the size of the element", async () => {
  const inbox = await readFile(`${ROOT}INBOX.md`, "utf-8");
  const [, printed] = /the\s+element\s+has\s+(\d+)\s+KB/.exec(inbox);
  const { minified } = await sizes("src/streamer-inbox.js");
  assert.ok(Math.abs(Number(printed) * 1_000 - minified) <= minified * 0.05, `${minified}`);
});

describe("the examples of the README", { skip }, () => {
  /** @type {any} */
  let server;
  /** @type {any} */
  let pages;
  /** @type {any} */
  let browser;
  /** A folder in which the package is installed. */
  let folder = "";

  before(async () => {
    pages = await Pages.start();
    server = await Server.start({ drain_s: 0, allowed_origins: pages.origin });
    browser = await launch();
    folder = await mkdtemp(join(tmpdir(), "streamer-readme-"));
    await mkdir(join(folder, "node_modules"));
    await symlink(ROOT, join(folder, "node_modules", "streamer-client"));
    pages.added.set("/my-game/token", await server.token("alice"));
  });
  after(async () => {
    await browser?.close();
    pages.close();
    await server.discard();
    await rm(folder, { recursive: true });
  });

  /** The addresses of this test instead of those of the example. @param {string} text */
  const local = (text) =>
    text
      .replace("https://push.game.example/client/", `${pages.origin}/src/`)
      .replaceAll("https://push.game.example", server.url);

  /** Publish until a fact is there: a stream from now on may not be open yet. */
  const published = (fact) =>
    eventually(async () => {
      await server.publish("alice", "Hello", { type: "friend_request" });
      return fact();
    });

  test("in Node", async () => {
    await writeFile(join(folder, "example.mjs"), node.text);
    const running = spawn(process.execPath, ["example.mjs"], {
      ...{ cwd: folder, stdio: ["ignore", "pipe", "inherit"] },
      env: { ...process.env, URL: server.url, TOKEN: await server.token("alice") },
    });
    let printed = "";
    running.stdout.on("data", (data) => {
      printed += data;
    });
    await published(() => printed.includes("Hello\n"));
    running.kill();
    await once(running, "exit");
  });

  describe("in Chromium", { skip: !process.env.TEST_CHROMIUM && "no Chromium" }, () => {
    test("in a page", async () => {
      pages.added.set("/page.html", local(page.text));
      const tab = await browser.newPage();
      await tab.goto(`${pages.origin}/page.html`);
      await published(async () => (await tab.textContent("#list")).includes("Hello"));
      await eventually(async () => Number(await tab.textContent("#unread")) > 0);
      await tab.close();
    });

    test("with a bundler", async () => {
      await writeFile(join(folder, "main.js"), local(bundled.text));
      const { outputFiles } = await build({
        ...{ entryPoints: ["main.js"], absWorkingDir: folder, outdir: "/bundle" },
        ...{ bundle: true, splitting: true, format: "esm", write: false },
      });
      for (const { path, text } of outputFiles) pages.added.set(path, text);
      pages.added.set("/bundled.html", '<script type="module" src="/bundle/main.js"></script>');
      const tab = await browser.newPage();
      let printed = "";
      tab.on("console", (message) => {
        printed += message.text();
      });
      await tab.goto(`${pages.origin}/bundled.html`);
      await published(() => printed.includes("Hello"));
      await tab.close();
    });

    test("of the project", async () => {
      const project = await readFile(`${ROOT}../../README.md`, "utf-8");
      const [[, text]] = project.matchAll(/^```js\n(.*?)^```/gms);
      const code = text.replace("http://127.0.0.1:8080", server.url);
      const { outputFiles } = await build({
        ...{ stdin: { contents: code, resolveDir: folder }, outdir: "/project" },
        ...{ bundle: true, splitting: true, format: "esm", write: false },
      });
      for (const { path, text } of outputFiles) pages.added.set(path, text);
      const script = `<body><b></b><script>
          var getToken = async () => (await fetch("/my-game/token")).text();
          var show = ({ title }) => document.body.append(title);
          var badge = document.querySelector("b"), signIn = console.error;
        </script><script type="module" src="/project/stdin.js"></script>`;
      pages.added.set("/project.html", script);
      const tab = await browser.newPage();
      await tab.goto(`${pages.origin}/project.html`);
      await published(async () => (await tab.textContent("body")).includes("Hello"));
      await eventually(async () => Number(await tab.textContent("b")) > 0);
      await tab.close();
    });

    for (const { text } of others) {
      test(text.split("\n", 1)[0], async () => {
        await server.publish("alice", "Hello", { type: "friend_request" });
        const tab = await browser.newPage();
        await tab.goto(`${pages.origin}/`);
        const failed = await tab.evaluate(
          async ([text, url]) => {
            const { StreamerClient } = await import("/src/index.js");
            const getToken = async () => (await fetch("/my-game/token")).text();
            const client = new StreamerClient({ url, getToken });
            const given = { StreamerClient, getToken, url };
            const all = text.includes("const client") ? given : { ...given, client };
            const names = Object.keys(all);
            const AsyncFunction = (async () => {}).constructor;
            await client.connect();
            try {
              await new AsyncFunction(...names, text)(...Object.values(all));
            } catch (error) {
              return String(error);
            }
            await client.close();
          },
          [text, server.url],
        );
        assert.equal(failed, undefined);
        await tab.close();
      });
    }
  });
});
