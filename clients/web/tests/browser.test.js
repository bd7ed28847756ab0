import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";

import { Pages, Server, eventually, launch, nightly, skip } from "./running_server.js";

const noBrowser = skip || (process.env.TEST_CHROMIUM ? false : "TEST_CHROMIUM is not set");

describe("in Chromium", { skip: noBrowser }, () => {
  /** @type {any} */
  let server;
  /** @type {any} */
  let pages;
  /** @type {any} */
  let browser;
  /** @type {any} */
  let context;
  let number = 0;
  let player = "";

  before(async () => {
    pages = await Pages.start();
    server = await Server.start({
      ...{ heartbeat_s: 1, drain_s: 0, allowed_origins: pages.origin },
    });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    pages.close();
    await server.discard();
  });
  afterEach(async () => {
    await context?.close();
    context = undefined;
    server.proxy.isCut = false;
    server.proxy.isDropping = false;
  });

  /** Open a page with a client of a new player. */
  async function visit(options = {}, token = {}) {
    player = `player${++number}`;
    context = await browser.newContext();
    return openTab({ token: await server.token(player, token), ...options });
  }

  async function openTab(options) {
    const page = await context.newPage();
    await page.goto(`${pages.origin}/`);
    await page.evaluate(
      async ([url, options]) => {
        const { StreamerClient } = await import("/src/index.js");
        const { storage, ...rest } = options;
        const client = new StreamerClient({
          ...{ url, pollMs: 100, ...rest },
          storage: storage && localStorage,
        });
        globalThis.client = client;
        globalThis.titles = [];
        globalThis.statuses = [];
        client.on("notification", ({ title }) => titles.push(title));
        client.on("status", (change) => statuses.push(change.status));
        void client.connect();
      },
      [server.url, options],
    );
    await status(page, "open");
    return page;
  }

  const status = (page, wanted) =>
    eventually(async () => (await page.evaluate(() => client.status)) === wanted, wanted);
  const titles = (page) => page.evaluate(() => titles);
  const has = async (page, expected) => {
    await eventually(async () => (await titles(page)).length >= expected.length, expected);
    assert.deepEqual(await titles(page), expected);
  };

  for (const transport of ["websocket", "sse", "eventsource", "poll"]) {
    test(`${transport}: nothing is lost when the line is cut or the server is killed`, async () => {
      const page = await visit({ transports: [transport] });
      await server.publish(player, "a");
      await has(page, ["a"]);
      server.proxy.isCut = true;
      server.proxy.cut();
      await server.publish(player, "b");
      server.proxy.isCut = false;
      await has(page, ["a", "b"]);
      if (transport === "eventsource") {
        await server.end("SIGKILL");
        await server.run();
      }
      await server.publish(player, "c");
      await has(page, ["a", "b", "c"]);
      await eventually(async () => (await page.evaluate(() => client.unread)) === 3);
    });
  }

  test("a dead line without FIN is noticed", async () => {
    const page = await visit({ transports: ["websocket"] });
    server.proxy.isSilent = true;
    await server.publish(player, "a");
    await eventually(() => page.evaluate(() => statuses.includes("waiting")));
    server.proxy.isSilent = false;
    await has(page, ["a"]);
  });

  test("offline is told, and the network's return reconnects at once", async () => {
    const page = await visit();
    await context.setOffline(true);
    server.proxy.isCut = true;
    server.proxy.cut();
    await status(page, "offline");
    await server.publish(player, "a");
    server.proxy.isCut = false;
    await context.setOffline(false);
    await has(page, ["a"]);
  });

  test("a page in the back/forward cache has no connection, and resumes", async () => {
    const page = await visit();
    await page.evaluate(() => {
      globalThis.kept = true;
    });
    await page.goto(`${pages.origin}/other/`);
    await server.publish(player, "a");
    await page.goBack({ waitUntil: "commit" });
    assert.equal(await page.evaluate(() => globalThis.kept), true, "not restored from the cache");
    await has(page, ["a"]);
  });

  test("the cursor survives the page", async () => {
    const page = await visit({ storage: true });
    await server.publish(player, "a");
    await has(page, ["a"]);
    await page.evaluate(() => client.close());
    await page.close();
    await server.publish(player, "b");
    const next = await openTab({ storage: true, token: await server.token(player) });
    await has(next, ["b"]);
  });

  test("marks survive the page", async () => {
    const page = await visit({ queue: true });
    const id = await server.publish(player, "a");
    await has(page, ["a"]);
    server.proxy.isCut = true;
    server.proxy.cut();
    assert.equal(await page.evaluate((id) => client.markRead({ ids: [id] }), id), undefined);
    await page.close();
    server.proxy.isCut = false;
    assert.equal(await server.unread(player), 1);
    await openTab({ queue: true, token: await server.token(player) });
    await eventually(async () => (await server.unread(player)) === 0);
  });

  test("a worker has a client, too", async () => {
    const page = await visit();
    const title = page.evaluate(
      ([url, token]) => {
        const code = `
          import { StreamerClient } from "${location.origin}/src/index.js";
          const client = new StreamerClient({ url: "${url}", token: "${token}" });
          client.on("notification", ({ title }) => postMessage(title));
          client.connect().then(() => postMessage("open"));`;
        const blob = new Blob([code], { type: "text/javascript" });
        const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
        return new Promise((resolve) => {
          worker.onmessage = ({ data }) => {
            if (data === "open") globalThis.isOpen = true;
            else resolve(data);
          };
        });
      },
      [server.url, await server.token(player)],
    );
    await eventually(() => page.evaluate(() => globalThis.isOpen));
    await server.publish(player, "a");
    assert.equal(await title, "a");
  });

  describe("a laptop that was closed for two hours", { skip: nightly }, () => {
    const SLEEP_MS = 7_200_000;

    /**
     * Open tabs of a new player, whose clock can jump to the present. `tokens[i]` has the
     * members of the `i`th token; the page's `reasons` say why each was asked for.
     */
    async function open({ count = 1, tokens = [], ...options } = {}) {
      player = `player${++number}`;
      context = await browser.newContext();
      await context.clock.install({ time: Date.now() - SLEEP_MS });
      let given = 0;
      await context.exposeFunction("askToken", () => server.token(player, tokens[given++]));
      const tabs = [];
      while (tabs.length < count) {
        const page = await context.newPage();
        tabs.push(page);
        await page.goto(`${pages.origin}/`);
        await page.evaluate(
          async ([url, options]) => {
            const { StreamerClient } = await import("/src/index.js");
            globalThis.titles = [];
            globalThis.changes = [];
            globalThis.reasons = [];
            globalThis.tokens = [];
            const getToken = async ({ reason }) => {
              reasons.push(reason);
              tokens.push(await askToken());
              return tokens.at(-1);
            };
            globalThis.client = new StreamerClient({ url, getToken, ...options });
            client.on("notification", ({ title }) => titles.push(title));
            client.on("status", (change) => changes.push(change));
            void client.connect();
          },
          [server.url, options],
        );
        await status(page, "open");
      }
      return tabs;
    }

    /** The lid is closed: the lines die, time passes, and no timer of the pages runs. */
    async function sleep(meanwhile = async () => {}) {
      await context.clock.pauseAt(Date.now() - SLEEP_MS + 1_000);
      server.proxy.lose();
      for (const title of ["b", "c"]) await server.publish(player, title);
      await meanwhile();
      await context.clock.fastForward(SLEEP_MS);
      await context.clock.resume();
    }

    const streams = () => server.proxy.streams.length;

    for (const transport of ["websocket", "sse", "eventsource"]) {
      test(`${transport}: resumes once, and nothing is lost`, async () => {
        const [page] = await open({ transports: [transport] });
        await server.publish(player, "a");
        await has(page, ["a"]);
        const before = streams();
        await sleep();
        await has(page, ["a", "b", "c"]);
        await eventually(async () => (await page.evaluate(() => client.unread)) === 3);
        await server.publish(player, "d");
        await has(page, ["a", "b", "c", "d"]);
        assert.equal(streams() - before, 1);
      });
    }

    test("a token that ended meanwhile is renewed before it reconnects", async () => {
      const [page] = await open({ tokens: [{ ttl_s: 20 }] });
      const ended = await page.evaluate(() => tokens[0]);
      await server.publish(player, "a");
      await has(page, ["a"]);
      const before = streams();
      await sleep(async () => {
        // This takes longer than other facts: servers accept a token for a while longer.
        while (await server.accepts(ended)) await new Promise((next) => setTimeout(next, 500));
      });
      await has(page, ["a", "b", "c"]);
      assert.equal(streams() - before, 1);
      // None of them is `refused`: the old token was not tried again.
      assert.deepEqual(await page.evaluate(() => reasons), ["first", "expiring", "reconnect"]);
      assert.notEqual(await page.evaluate(() => tokens.at(-1)), ended);
    });

    test("it does not hammer while there is no server behind the network yet", async () => {
      const [page] = await open({ transports: ["websocket"] });
      await page.evaluate(() => {
        Math.random = () => 0.5;
      });
      server.proxy.isDropping = true;
      const before = streams();
      await sleep();
      const delays = () =>
        page.evaluate(() => changes.map(({ delayMs }) => delayMs).filter((it) => it > 0));
      for (let count = 1; count <= 8; count++) {
        await eventually(async () => (await delays()).length === count);
        await status(page, "waiting");
        // The first wait is for the line that died, each other one for an attempt.
        assert.equal(streams() - before, count - 1);
        await context.clock.fastForward((await delays()).at(-1));
      }
      assert.deepEqual(
        await delays(),
        [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000],
      );
      server.proxy.isDropping = false;
      await has(page, ["b", "c"]);
    });

    test("all tabs get everything over one connection again", async () => {
      const tabs = await open({ count: 3, tabs: true });
      await server.publish(player, "a");
      for (const tab of tabs) await has(tab, ["a"]);
      const before = streams();
      await sleep();
      for (const tab of tabs) await has(tab, ["a", "b", "c"]);
      await server.publish(player, "d");
      for (const tab of tabs) await has(tab, ["a", "b", "c", "d"]);
      assert.equal(streams() - before, 1);
    });
  });

  describe("tabs", () => {
    /** The tabs, and how many of them are connected. */
    async function open(count, options = {}) {
      const first = await visit({ tabs: true, ...options });
      const token = await server.token(player);
      const tabs = [first];
      while (tabs.length < count) tabs.push(await openTab({ tabs: true, token, ...options }));
      return tabs;
    }

    const streams = () => server.proxy.streams.length;

    test("all tabs have one connection, and all get everything once", async () => {
      const before = streams();
      const tabs = await open(nightly ? 6 : 100);
      assert.equal(streams() - before, 1);
      await server.publish(player, "a");
      await server.everyone("b");
      for (const tab of tabs) await has(tab, ["a", "b"]);
      await tabs.at(-1).evaluate(() => client.markRead({ all: true }));
      for (const tab of tabs) {
        await eventually(async () => (await tab.evaluate(() => client.unread)) === 0);
      }
    });

    test("another tab takes over when the leader closes, and nothing is lost", async () => {
      const [leader, second, third] = await open(3);
      await server.publish(player, "a");
      for (const tab of [leader, second, third]) await has(tab, ["a"]);
      await leader.close();
      await server.publish(player, "b");
      for (const tab of [second, third]) await has(tab, ["a", "b"]);
      await second.close();
      await server.publish(player, "c");
      await has(third, ["a", "b", "c"]);
      assert.equal(await third.evaluate(() => client.unread), 3);
    });

    test("a tab that opens later begins where the others are", async () => {
      const [first] = await open(1);
      await server.publish(player, "a");
      await has(first, ["a"]);
      const second = await openTab({ tabs: true, token: await server.token(player) });
      assert.equal(await second.evaluate(() => client.unread), 1);
      assert.equal(
        await second.evaluate(() => client.cursor),
        await first.evaluate(() => client.cursor),
      );
      await server.publish(player, "b");
      await has(first, ["a", "b"]);
      await has(second, ["b"]);
    });

    test("a tab with an old cursor gets what it has missed from the pages", async () => {
      const id = await (async () => {
        player = `player${++number}`;
        return server.publish(player, "a");
      })();
      await server.publish(player, "b");
      context = await browser.newContext();
      const token = await server.token(player);
      const first = await openTab({ tabs: true, token });
      await server.publish(player, "c");
      await has(first, ["c"]);
      const second = await openTab({ tabs: true, token, cursor: id });
      await has(second, ["b", "c"]);
      assert.equal(await second.evaluate(() => client.unread), 3);
    });

    test("a refusal for good stops all tabs", async () => {
      player = `player${++number}`;
      context = await browser.newContext();
      const token = await server.token(player, { ttl_s: 8 });
      const tabs = [await openTab({ tabs: true, token }), await openTab({ tabs: true, token })];
      for (const tab of tabs) {
        await status(tab, "stopped");
        const { kind, code } = await tab.evaluate(() => ({ ...client.statusChange.error }));
        assert.deepEqual({ kind, code }, { kind: "refused", code: 4200 });
      }
    });

    test("a leader in the back/forward cache leaves its place, and comes back", async () => {
      const [leader, second] = await open(2);
      await leader.goto(`${pages.origin}/other/`);
      await server.publish(player, "a");
      await has(second, ["a"]);
      await leader.goBack({ waitUntil: "commit" });
      await has(leader, ["a"]);
      await server.publish(player, "b");
      for (const tab of [leader, second]) await has(tab, ["a", "b"]);
    });

    test("a frozen leader loses its place", { skip: nightly }, async () => {
      const [leader, second, third] = await open(3);
      // Its script runs no more, and it keeps the lock.
      const frozen = leader.evaluate(() => {
        const end = Date.now() + 35_000;
        while (Date.now() < end);
      });
      await second.waitForTimeout(1_000);
      await server.publish(player, "a");
      for (const tab of [second, third]) await has(tab, ["a"]);
      await frozen;
      await has(leader, ["a"]);
      await server.publish(player, "b");
      for (const tab of [leader, second, third]) await has(tab, ["a", "b"]);
    });
  });
});
