// The hooks with the real frameworks. React draws into a DOM made by happy-dom.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Window } from "happy-dom";
import { FakeClient, notification, settled } from "./fake_client.js";

/** @type {Window} */
let window;

before(() => {
  window = new Window();
  // React looks for these when it is loaded.
  Object.assign(globalThis, {
    window,
    document: window.document,
    navigator: window.navigator,
    IS_REACT_ACT_ENVIRONMENT: true,
  });
});
after(() => window.happyDOM.close());

const first = () => ({ notifications: [notification(1)], next: null, unread: 1, cursor: "c" });

test("React: components draw what they use of the state, and follow it", async () => {
  const { act, createElement: h, StrictMode } = await import("react");
  const { createRoot } = await import("react-dom/client");
  const hooks = await import("../src/hooks/react.js");
  const client = new FakeClient();
  client.unread = 1;
  const drawn = { badge: 0, list: 0 };
  const arrived = [];
  const onArrival = (it) => arrived.push(it.title);

  function Badge() {
    drawn.badge++;
    return h("b", {}, String(hooks.useUnread()));
  }
  function List() {
    drawn.list++;
    hooks.useArrival(onArrival);
    const inbox = hooks.useInbox();
    const items = hooks.useNotifications().map((it) =>
      h("li", { key: it.id, onClick: () => inbox.markRead(it.id) }, it.title),
    );
    return h("ul", { title: hooks.useStatus() }, items);
  }

  const place = window.document.createElement("div");
  const root = createRoot(place);
  await act(async () => {
    root.render(h(hooks.InboxProvider, { client }, h(Badge), h(List)));
  });
  await act(async () => {
    client.take("page").answer(first());
    await settled();
  });
  assert.equal(place.innerHTML, '<b>1</b><ul title="open"><li>number 1</li></ul>');

  drawn.badge = drawn.list = 0;
  await act(async () => {
    client.emit("notification", notification(2));
    await settled();
  });
  assert.deepEqual(arrived, ["number 2"]);
  assert.deepEqual(drawn, { badge: 0, list: 1 });

  await act(async () => {
    place.querySelector("li").click();
    await settled();
  });
  assert.match(place.innerHTML, /<b>0<\/b>/);
  assert.equal(client.take("markRead").args[0].ids.length, 1);

  await act(async () => root.unmount());
  assert.equal(client.listeners, 0);

  // Strict mode mounts everything twice.
  const strict = createRoot(place);
  await act(async () => {
    strict.render(h(StrictMode, {}, h(hooks.InboxProvider, { client }, h(List))));
  });
  const listening = client.listeners;
  await act(async () => strict.unmount());
  assert.ok(listening > 0);
  assert.equal(client.listeners, 0);
});

test("React: a hook without a provider says what is missing", async () => {
  const { createElement: h } = await import("react");
  const { renderToString } = await import("react-dom/server");
  const { useUnread } = await import("../src/hooks/react.js");

  assert.throws(() => renderToString(h(() => h("b", {}, useUnread()))), /InboxProvider/);
});

test("React: a page is drawn on a server without a DOM or a connection", async () => {
  const { createElement: h } = await import("react");
  const { renderToString } = await import("react-dom/server");
  const { InboxProvider, useUnread } = await import("../src/hooks/react.js");
  const client = new FakeClient();
  client.status = "idle";

  const html = renderToString(
    h(InboxProvider, { client }, h(() => h("b", {}, useUnread()))),
  );

  assert.equal(html, "<b>0</b>");
  assert.equal(client.status, "idle");
});

test("Vue: values follow the state until the scope ends", async () => {
  const { effectScope, watchEffect } = await import("vue");
  const { useInbox } = await import("../src/hooks/vue.js");
  const client = new FakeClient();
  client.unread = 1;
  const seen = [];
  const scope = effectScope();
  const inbox = scope.run(() => {
    const made = useInbox(client);
    watchEffect(() => seen.push(made.notifications.value.length), { flush: "sync" });
    return made;
  });
  client.take("page").answer(first());
  await settled();
  assert.deepEqual(seen, [0, 1]);
  assert.equal(inbox.unread.value, 1);
  void inbox.store.markRead(notification(1).id);
  await settled();
  assert.equal(inbox.unread.value, 0);
  scope.stop();

  assert.equal(client.listeners, 0);
});

test("Svelte: stores follow the state while somebody subscribes", async () => {
  const { get } = await import("svelte/store");
  const { inboxStores } = await import("../src/hooks/svelte.js");
  const client = new FakeClient();
  client.unread = 1;
  const inbox = inboxStores(client);
  assert.equal(client.listeners, 0);
  const seen = [];
  const end = inbox.notifications.subscribe((it) => seen.push(it.length));
  client.take("page").answer(first());
  await settled();
  assert.equal(seen.at(-1), 1);
  assert.equal(get(inbox.unread), 1);
  assert.equal(get(inbox.status), "open");
  end();

  assert.equal(client.listeners, 0);
});
