import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { InboxStore, createInboxStore } from "../src/store.js";
import { FakeClient, notification, settled } from "./fake_client.js";

const titles = (store) => store.getSnapshot().notifications.map((it) => it.title);
const unread = (store) => store.getSnapshot().unread;

function page(numbers, more = {}) {
  const notifications = numbers.map((n) => (typeof n === "number" ? notification(n) : n));
  return { notifications, next: null, unread: 0, cursor: "c", ...more };
}

/** A store that has read its first page. */
async function loaded(numbers = [], { count = 0, options, ...more } = {}) {
  const client = new FakeClient();
  client.unread = count;
  const store = createInboxStore(client, options);
  client.take("page").answer(page(numbers, { unread: count, ...more }));
  await settled();
  return { client, store };
}

test("the first page is loaded when the stream is open", async () => {
  const client = new FakeClient();
  client.status = "idle";
  const store = createInboxStore(client);

  assert.equal(client.status, "connecting");
  assert.equal(store.getSnapshot().loading, "first");
  assert.equal(client.requests.length, 0);
  client.move("open");
  client.take("page").answer(page([2, 1]));
  await settled();

  assert.deepEqual(titles(store), ["number 2", "number 1"]);
  assert.equal(store.getSnapshot().loading, null);
});

test("without a connection the first page is loaded all the same", async () => {
  const client = new FakeClient();
  client.status = "idle";
  const store = createInboxStore(client);
  client.move("waiting");
  client.take("page").answer(page([1], { unread: 1 }));
  await settled();

  assert.deepEqual(titles(store), ["number 1"]);
  assert.equal(unread(store), 1);
});

test("a page that was read before the stream had a place is read again", async () => {
  const client = new FakeClient();
  client.status = "idle";
  client.cursor = null;
  const store = createInboxStore(client);
  client.move("waiting");
  client.take("page").answer(page([1]));
  await settled();
  client.move("open");
  client.take("page").answer(page([2, 1]));
  await settled();

  assert.deepEqual(titles(store), ["number 2", "number 1"]);
});

test("a notification appears where its id belongs, once", async () => {
  const { client, store } = await loaded([5, 1]);
  client.emit("notification", notification(3));
  client.emit("notification", notification(3));
  client.emit("notification", notification(9));

  assert.deepEqual(titles(store), ["number 9", "number 5", "number 3", "number 1"]);
});

test("what arrives while a page is read is in the list", async () => {
  const client = new FakeClient();
  const store = createInboxStore(client);
  client.emit("notification", notification(7));
  client.emit("withdrawn", { id: notification(2).id });
  client.take("page").answer(page([3, 2, 1]));
  await settled();

  assert.deepEqual(titles(store), ["number 7", "number 3", "number 1"]);
});

test("what is not kept is announced and not listed", async () => {
  const { client, store } = await loaded([1]);
  const arrived = [];
  store.onArrival((it) => arrived.push(it.title));
  client.topics = ["match"];
  client.emit("notification", { ...notification(2), id: "0000000a-0000-4000-8000-00000000000a" });
  client.emit("notification", notification(3, { topic: "match" }));
  client.emit("notification", notification(4, { topic: "news" }));

  assert.deepEqual(arrived, ["number 2", "number 3", "number 4"]);
  assert.deepEqual(titles(store), ["number 4", "number 1"]);
});

test("a withdrawn or replaced notification leaves the list", async () => {
  const { client, store } = await loaded([3, 2, 1]);
  client.emit("withdrawn", { id: notification(3).id });
  client.emit("replaced", { id: notification(1).id, by: notification(4).id });
  client.emit("withdrawn", { id: "unknown" });

  assert.deepEqual(titles(store), ["number 2"]);
});

test("an expired notification leaves the list", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const client = new FakeClient();
    let now = 1_000_000;
    const store = createInboxStore(client, { now: () => now });
    const expires_at = new Date(now + 5000).toISOString();
    client.take("page").answer(page([notification(2, { expires_at }), 1]));
    await settled();
    assert.equal(titles(store).length, 2);
    now += 5000;
    mock.timers.tick(5000);

    assert.deepEqual(titles(store), ["number 1"]);
  } finally {
    mock.timers.reset();
  }
});

test("snapshots never change, and are the same object until something does", async () => {
  const { client, store } = await loaded([1]);
  const before = store.getSnapshot();
  assert.equal(store.getSnapshot(), before);
  assert.ok(Object.isFrozen(before) && Object.isFrozen(before.notifications));
  client.emit("notification", notification(2));
  await settled();

  assert.notEqual(store.getSnapshot(), before);
  assert.equal(before.notifications.length, 1);
});

test("several changes of one turn are told once", async () => {
  const { client, store } = await loaded([]);
  let calls = 0;
  const end = store.subscribe(() => calls++);
  for (let n = 1; n <= 50; n++) client.emit("notification", notification(n));
  await settled();
  assert.equal(calls, 1);
  end();
  client.emit("notification", notification(51));
  await settled();

  assert.equal(calls, 1);
});

// Marks

test("a mark is visible at once and stays when the server confirms it", async () => {
  const { client, store } = await loaded([2, 1], { count: 2 });
  const marking = store.markRead(notification(1).id);
  assert.equal(unread(store), 1);
  assert.ok(store.getSnapshot().notifications[1].read_at);
  assert.equal(store.getSnapshot().pending, true);
  const request = client.take("markRead");
  assert.deepEqual(request.args[0], { ids: [notification(1).id] });
  request.answer(1);
  await marking;
  assert.equal(unread(store), 1);
  client.emit("read", { ids: [notification(1).id], read: true, unread: 1 });
  client.count(1);

  assert.equal(unread(store), 1);
  assert.equal(store.getSnapshot().pending, false);
  assert.ok(store.getSnapshot().notifications[1].read_at);
});

test("the number does not go back when the stream is faster than the answer", async () => {
  const { client, store } = await loaded([2, 1], { count: 2 });
  void store.markRead(notification(1).id);
  client.emit("read", { ids: [notification(1).id], read: true, unread: 1 });
  client.count(1);
  assert.equal(unread(store), 1);
  client.take("markRead").answer(1);
  await settled();

  assert.equal(unread(store), 1);
  assert.equal(store.getSnapshot().pending, false);
});

test("a mark that is refused is undone, and nothing else is", async () => {
  const { client, store } = await loaded([3, 2, 1], { count: 3 });
  const refused = store.markRead(notification(1).id);
  void store.markRead(notification(2).id);
  client.emit("notification", notification(4));
  client.count(4);
  assert.equal(unread(store), 2);
  client.take("markRead").refuse(new Error("no"));
  await assert.rejects(refused, /no/);

  assert.equal(unread(store), 3);
  const { notifications, error } = store.getSnapshot();
  assert.deepEqual(notifications.map((it) => !!it.read_at), [false, false, true, false]);
  assert.equal(error.during, "mark");
  assert.match(error.error.message, /no/);
});

test("a refused mark that nobody waits for is no unhandled rejection", async () => {
  const { client, store } = await loaded([1], { count: 1 });
  void store.markRead(notification(1).id);
  client.take("markRead").refuse(new Error("no"));
  await settled();
  await settled();

  assert.equal(unread(store), 1);
});

test("everything is marked up to that moment, not what arrives after", async () => {
  const { client, store } = await loaded([2, 1], { count: 7 });
  const marking = store.markAllRead();
  assert.equal(unread(store), 0);
  client.emit("notification", notification(3));
  client.count(8);
  assert.equal(unread(store), 1);
  assert.equal(store.getSnapshot().notifications[0].read_at, undefined);
  client.take("markRead").answer(1);
  await marking;
  client.emit("read", { all: true, read: true, unread: 1 });

  assert.equal(unread(store), 1);
});

test("all marked on another device marks the list", async () => {
  const { client, store } = await loaded([2, 1], { count: 2 });
  client.emit("read", { all: true, read: true, unread: 0 });
  client.emit("notification", notification(3));
  client.count(1);

  assert.deepEqual(
    store.getSnapshot().notifications.map((it) => !!it.read_at),
    [false, true, true],
  );
  assert.equal(unread(store), 1);
});

test("a removed mark is optimistic too", async () => {
  const { client, store } = await loaded([notification(1, { read_at: "2026-01-01T00:00:00Z" })]);
  void store.markUnread([notification(1).id]);
  assert.equal(unread(store), 1);
  assert.equal(store.getSnapshot().notifications[0].read_at, undefined);
  client.take("markUnread").refuse(new Error("no"));
  await settled();

  assert.equal(unread(store), 0);
  assert.ok(store.getSnapshot().notifications[0].read_at);
});

test("marks of which the server does not say which read the page again", async () => {
  const { client, store } = await loaded([1], { count: 1 });
  client.emit("read", { ids: null, read: true, unread: 0 });
  client
    .take("page")
    .answer(page([notification(1, { read_at: "2026-01-01T00:00:00Z" })], { unread: 0 }));
  await settled();

  assert.ok(store.getSnapshot().notifications[0].read_at);
  assert.equal(unread(store), 0);
});

test("more ids than a request may have are sent in parts", async () => {
  const { client, store } = await loaded([]);
  const ids = Array.from({ length: 1500 }, (_, n) => notification(n).id);
  const marking = store.markRead(ids);
  const first = client.take("markRead");
  first.answer(0);
  await settled();
  const second = client.take("markRead");
  second.answer(0);
  await marking;

  assert.deepEqual([first.args[0].ids.length, second.args[0].ids.length], [1000, 500]);
});

test("a mark that is kept for later stays visible until the stream tells of it", async () => {
  const { client, store } = await loaded([1], { count: 1 });
  client.move("offline");
  void store.markRead(notification(1).id);
  client.take("markRead").answer(undefined);
  await settled();
  assert.equal(unread(store), 0);
  client.move("open");
  client.count(1);
  assert.equal(unread(store), 0);
  client.emit("read", { ids: [notification(1).id], read: true, unread: 0 });

  assert.equal(unread(store), 0);
  assert.equal(store.getSnapshot().pending, false);
});

test("the number does not go back when a kept mark was sent before the stream opened", async () => {
  const { client, store } = await loaded([2, 1], { count: 2 });
  client.move("offline");
  void store.markRead(notification(1).id);
  client.take("markRead").answer(undefined);
  await settled();
  assert.equal(unread(store), 1);
  client.move("open");
  client.emit("read", { ids: null, read: true, unread: 1 });
  client.count(1);
  assert.equal(unread(store), 1);
  const read = notification(1, { read_at: "2026-01-01T00:00:00Z" });
  client.take("page").answer(page([2, read], { unread: 1 }));
  await settled();

  assert.equal(unread(store), 1);
  assert.equal(store.getSnapshot().pending, false);
});

test("a deleted notification is gone at once, and is back if that is refused", async () => {
  const { client, store } = await loaded([2, 1], { count: 2 });
  const refused = store.remove(notification(2).id);
  assert.deepEqual(titles(store), ["number 1"]);
  assert.equal(unread(store), 1);
  client.take("delete").refuse(new Error("no"));
  await assert.rejects(refused);
  assert.deepEqual(titles(store), ["number 2", "number 1"]);
  assert.equal(unread(store), 2);

  void store.remove(notification(2).id);
  client.take("delete").answer();
  await settled();
  client.emit("withdrawn", { id: notification(2).id });
  assert.equal(unread(store), 1);
  client.count(1);

  assert.deepEqual(titles(store), ["number 1"]);
  assert.equal(unread(store), 1);
  assert.equal(store.getSnapshot().pending, false);
});

test("deleting what is gone already succeeds", async () => {
  const { client, store } = await loaded([1], { count: 1 });
  const removing = store.remove(notification(1).id);
  client.take("delete").refuse(Object.assign(new Error("404"), { status: 404 }));
  await removing;

  assert.deepEqual(titles(store), []);
  assert.equal(store.getSnapshot().error, null);
});

// Pages

test("older pages are appended until there is none", async () => {
  const { client, store } = await loaded([4, 3], { next: "n1", options: { pageSize: 2 } });
  assert.equal(store.getSnapshot().hasMore, true);
  const loading = store.loadMore();
  await settled();
  assert.equal(store.getSnapshot().loading, "more");
  const request = client.take("page");
  assert.equal(request.args[0].before, "n1");
  assert.equal(request.args[0].limit, 2);
  request.answer(page([2, 1]));
  await loading;
  await store.loadMore();

  assert.deepEqual(titles(store), ["number 4", "number 3", "number 2", "number 1"]);
  assert.equal(store.getSnapshot().hasMore, false);
  assert.equal(client.requests.length, 0);
});

test("loading more twice reads each page once", async () => {
  const { client, store } = await loaded([4], { next: "n1" });
  const both = [store.loadMore(), store.loadMore()];
  await settled();
  client.take("page").answer(page([3]));
  await Promise.all(both);

  assert.deepEqual(titles(store), ["number 4", "number 3"]);
  assert.equal(client.requests.length, 0);
});

test("an empty page with more behind it is skipped", async () => {
  const { client, store } = await loaded([4], { next: "n1" });
  const loading = store.loadMore();
  await settled();
  client.take("page").answer(page([], { next: "n2" }));
  await settled();
  client.take("page").answer(page([1]));
  await loading;

  assert.deepEqual(titles(store), ["number 4", "number 1"]);
});

test("a page that cannot be read is an error, and is read again on demand", async () => {
  const client = new FakeClient();
  const store = createInboxStore(client);
  client.take("page").refuse(new Error("down"));
  await settled();
  assert.equal(store.getSnapshot().error.during, "load");
  const again = store.refresh();
  client.take("page").answer(page([1]));
  await again;

  assert.equal(store.getSnapshot().error, null);
  assert.deepEqual(titles(store), ["number 1"]);
});

test("a gap reads the list again, with what arrived meanwhile", async () => {
  const { client, store } = await loaded([1]);
  client.emit("gap", { reason: "too_far", cursor: "d", before: "c" });
  client.emit("notification", notification(9));
  client.take("page").answer(page([8, 7], { next: "n" }));
  await settled();

  assert.deepEqual(titles(store), ["number 9", "number 8", "number 7"]);
  assert.equal(store.getSnapshot().hasMore, true);
});

test("the list is bounded, and its end is read again on demand", async () => {
  const { client, store } = await loaded([2, 1], { options: { max: 2 } });
  client.emit("notification", notification(3));
  assert.deepEqual(titles(store), ["number 3", "number 2"]);
  void store.loadMore();
  await settled();

  assert.equal(client.take("page").args[0].before, notification(2).id);
});

// Filters

test("another filter reads its own page and drops the former one", async () => {
  const client = new FakeClient();
  const store = createInboxStore(client);
  const slow = client.take("page");
  const filtering = store.setFilter({ type: ["quest"] });
  const request = client.take("page");
  assert.deepEqual(request.args[0].type, ["quest"]);
  slow.answer(page([1]));
  request.answer(page([notification(2, { type: "quest" })]));
  await filtering;
  client.emit("notification", notification(3, { type: "ad" }));
  client.emit("notification", notification(4, { type: "quest" }));

  assert.deepEqual(titles(store), ["number 4", "number 2"]);
  assert.deepEqual(store.getSnapshot().filter, { type: ["quest"] });
});

test("with a filter for unread ones a mark takes a notification away", async () => {
  const { client, store } = await loaded([2, 1], { count: 2, options: { filter: { unread: true } } });
  void store.markRead(notification(2).id);
  assert.deepEqual(titles(store), ["number 1"]);
  client.take("markRead").refuse(new Error("no"));
  await settled();

  assert.deepEqual(titles(store), ["number 2", "number 1"]);
});

test("a missing priority is medium", async () => {
  const { client, store } = await loaded([], { options: { filter: { priority: "medium" } } });
  client.emit("notification", notification(1));
  client.emit("notification", notification(2, { priority: "high" }));

  assert.deepEqual(titles(store), ["number 1"]);
});

// Life

test("a client that is refused for good is an error of the connection", async () => {
  const { client, store } = await loaded([]);
  client.move("stopped", { error: new Error("4201") });

  assert.equal(store.getSnapshot().status, "stopped");
  assert.equal(store.getSnapshot().error.during, "connection");
});

test("a stopped store listens to nothing, and reads the list again when it starts", async () => {
  const { client, store } = await loaded([1]);
  store.stop();
  assert.equal(client.listeners, 0);
  client.emit("notification", notification(2));
  assert.deepEqual(titles(store), ["number 1"]);
  store.start().start();
  client.take("page").answer(page([2, 1]));
  await settled();

  assert.deepEqual(titles(store), ["number 2", "number 1"]);
  assert.equal(client.requests.length, 0);
});

test("an answer after the stop changes nothing", async () => {
  const client = new FakeClient();
  const store = new InboxStore(client).start();
  const request = client.take("page");
  store.stop();
  request.answer(page([1]));
  await settled();

  assert.deepEqual(titles(store), []);
});

test("nothing of a player is shown to the next one", async () => {
  const { client, store } = await loaded([2, 1], { count: 2 });
  void store.markRead(notification(1).id);
  const slow = store.refresh();
  const request = client.take("markRead") && client.take("page");
  client.move("connecting");
  client.emit("reset");
  assert.deepEqual(titles(store), []);
  assert.equal(unread(store), 0);
  assert.equal(store.getSnapshot().pending, false);
  request.answer(page([2, 1], { unread: 2 }));
  await slow;
  assert.deepEqual(titles(store), []);
  client.move("open");
  client.take("page").answer(page([9]));
  await settled();

  assert.deepEqual(titles(store), ["number 9"]);
});
