/**
 * A player: the inbox as the player sees it, what has ended, topics and mutes; actions.
 *
 * The page refreshes itself while it is seen. What is typed is in a dialog or in the
 * search, which a refresh does not touch; the focus stays where it is.
 */

import { api, ofPlayer } from "./api.js";
import { acting, clipped, confirmed, field, fill, foreign, h, isSelecting, redraw, shown, since, table, tell, tick } from "./dom.js";
import { messageFields, messageOf, preview } from "./message.js";
import { bytes, clock, counted, duration, number, visible } from "./text.js";

const REFRESH_MS = 5_000;

export function player({ argument, may }) {
  const input = h("input", { name: "player", required: true, value: argument, autocomplete: "off", spellcheck: "false", maxlength: 255 });
  const search = h(
    "form.search",
    {
      role: "search",
      onsubmit(event) {
        event.preventDefault();
        location.hash = `#/player/${encodeURIComponent(input.value)}`;
      },
    },
    h("label", {}, h("span.away", {}, "Player"), input),
    h("button.primary", { type: "submit" }, "Look up"),
  );
  const place = h("div.page");
  const element = h("div.page", {}, h("h1", {}, "Player"), search, place);
  if (!argument) {
    setTimeout(() => input.focus());
    fill(place, h("p.empty", {}, "Type the name of a player, exactly as your backend writes it."));
    return { element };
  }
  return { element, ...card(argument, place, may) };
}

function card(name, place, may) {
  const failure = h("p.failure", { role: "alert", hidden: true });
  const current = h("p.note", {}, "…");
  const facts = h("dl.facts", { "aria-label": "The player" });
  const inbox = h("section.card", { "aria-label": "Inbox" });
  const entries = h("section.card", { "aria-label": "All entries" });
  const live = h("section.card", { "aria-label": "Connections" });
  const groups = h("section.card", { "aria-label": "Topics and mutes" });
  let stopped = false;
  let timer;
  let pages = 1;

  const send = async (method, path, body) => {
    await api.send(method, ofPlayer(name, path), body);
    await refresh();
  };

  const act = (label, action, { kind = "", key = label } = {}) => {
    const button = h(kind ? `button.${kind}` : "button", { type: "button", "data-key": key, onclick: () => acting(button, action) }, label);
    return button;
  };

  async function compensate(title, start, verb) {
    const reason = h("textarea", { name: "reason", required: true, maxlength: 500, rows: 2 }, start.reason ?? "");
    const data = await confirmed(
      title,
      [
        h("p.note", {}, "To ", foreign(name), ". It is stored in the inbox and pushed to open streams."),
        messageFields(start),
        field("Reason", reason, "Goes into the audit log, not to the player"),
      ],
      verb,
      { dangerous: false },
    );
    if (!data) return;
    await api.publish({ message: { to: { players: [name] }, ...messageOf(data) }, reason: data.get("reason") });
    tell("Stored in the inbox.");
    await refresh();
  }

  async function revoke() {
    const data = await confirmed(
      "Revoke all tokens?",
      h("p", {}, "Streams of ", foreign(name), " end within 30 s, and the game has to get a new token from your backend."),
      "Revoke tokens",
    );
    if (!data) return;
    await send("DELETE", "tokens");
    tell("All tokens issued so far are revoked.");
  }

  async function disconnect(connection) {
    const stop = h("input", { type: "checkbox", name: "stop" });
    const data = await confirmed(
      connection ? "Close this connection?" : "Close all connections?",
      [
        h("p", {}, "The client of ", foreign(name), " returns within seconds and resumes where it was."),
        h("label.check", {}, stop, h("span", {}, "Tell it to stay away until the game connects again")),
      ],
      "Disconnect",
    );
    if (!data) return;
    const body = { ...(connection ? { connection } : {}), reconnect: !data.get("stop") };
    const answer = await api.send("POST", ofPlayer(name, "disconnect"), body);
    tell(answer.silent?.length ? `Closed; ${counted(answer.silent.length, "process", "processes")} did not answer.` : "Closed.");
    await refresh();
  }

  async function withdraw(it) {
    const isOwn = !it.audience && !it.topic;
    const data = await confirmed(
      "Withdraw this notification?",
      [
        preview(it),
        h("p", {}, isOwn ? "It disappears from the inbox and from open streams." : "It disappears from the inbox of this player only."),
        isOwn && h("label.check", {}, h("input", { type: "checkbox", name: "purge" }), h("span", {}, "Remove its text from the store at once")),
      ],
      "Withdraw",
    );
    if (!data) return;
    await send("DELETE", `notifications/${it.id}${data.get("purge") ? "?purge=true" : ""}`);
    tell("Withdrawn.");
  }

  async function receipt(it) {
    const { trace: found, silent } = await api.get(ofPlayer(name, `notifications/${it.id}/trace`));
    const now = Date.now();
    const row = (label, value) => value && [h("dt", {}, label), h("dd", {}, value)];
    const written = found.written.map((one) =>
      h("li", {}, `${clock(one.at, now)} to ${one.transport} on ${visible(one.host)}:${one.pid}`, one.replayed ? ", when it resumed" : ""),
    );
    await shown(
      "Receipt",
      h(
        "dl.receipt",
        {},
        row("Stored", clock(found.stored_at, now)),
        row("Announced", found.announced.length ? `to ${counted(found.announced.length, "process", "processes")} with readers` : "to no process that remembers it: nobody was online, or it is long ago"),
        row("Written", written.length ? h("ul", {}, written) : "to no connection that is remembered"),
        row(
          "Acknowledged",
          found.acknowledged
            ? found.acknowledged_at
              ? clock(found.acknowledged_at, now)
              : "by a client of the player"
            : "not yet: no client has confirmed it",
        ),
        row("Read", found.read_at ? clock(found.read_at, now) : "not yet"),
        row("Expires", found.expires_at && clock(found.expires_at, now)),
        row("State", found.state),
        row("Id", h("code", {}, it.id)),
        row("Silent", silent.length > 0 && `${counted(silent.length, "process", "processes")} did not answer`),
      ),
    );
  }

  let isBusy = false;
  let isDue = false;

  /** Show the present state: at once, or after the refresh that has begun before. */
  async function refresh() {
    if (isBusy) {
      isDue = true;
      return;
    }
    clearTimeout(timer);
    isBusy = true;
    try {
      do {
        isDue = false;
        await update();
      } while (isDue && !stopped);
    } finally {
      isBusy = false;
    }
    if (!stopped && !document.hidden) timer = setTimeout(refresh, REFRESH_MS);
  }

  async function update() {
    try {
      const [summary, seen, all, page] = await Promise.all([
        api.get(ofPlayer(name, "summary")),
        api.get(ofPlayer(name, "inspection"), { notifications: 0 }),
        api.get(ofPlayer(name, "entries")),
        inboxPages(),
      ]);
      if (stopped) return;
      failure.hidden = true;
      current.textContent = `Live: as of ${clock(Date.now(), Date.now()).slice(0, 8)}.`;
      // A text that is being selected stays; the next refresh shows what is new.
      if (!isSelecting(place)) redraw(place, () => show(summary, seen, all.entries, page));
      tick(place, Date.now());
    } catch (error) {
      if (stopped) return;
      failure.textContent = `This is not current: ${error.message}`;
      failure.hidden = false;
    }
  }

  const onVisibility = () => !document.hidden && !stopped && void refresh();
  document.addEventListener("visibilitychange", onVisibility);

  async function inboxPages() {
    let found;
    for (let i = 0; i < pages; i++) {
      const page = await api.get(ofPlayer(name, "notifications"), { limit: 20, before: found?.next });
      found = { ...page, notifications: [...(found?.notifications ?? []), ...page.notifications] };
      if (!page.next) break;
    }
    return found;
  }

  let before = "";
  function show(summary, seen, all, page) {
    const state = JSON.stringify([summary, seen, all, page], (_, it) => (typeof it === "bigint" ? `${it}` : it));
    if (state === before) return;
    before = state;
    const now = Date.now();
    const fact = (label, value) => h("div", {}, h("dt", {}, label), h("dd", {}, value));
    fill(
      facts,
      fact("Player", foreign(name)),
      fact("Online", seen.online ? counted(seen.connections.length, "connection") : seen.last_seen_at ? ["last seen ", since(seen.last_seen_at, now)] : "no"),
      fact("Unread", number(summary.unread)),
      fact("Topics", number(summary.topics.length)),
      fact("Muted types", number(summary.muted_types.length)),
    );
    fill(live, connections(seen, now));
    fill(
      inbox,
      h("h2", {}, "Inbox, as the player sees it"),
      page.notifications.length === 0
        ? h("p.empty", {}, "The inbox is empty. A wrong name looks the same: players exist once something is sent to them.")
        : h("ol.inbox", {}, page.notifications.map((it) => item(it, now))),
      h(
        "div.buttons",
        {},
        page.next &&
          act("Older", async () => {
            pages++;
            before = "";
            await refresh();
          }),
        may("support") && summary.unread > 0 && act("Mark all as read", () => send("POST", "notifications/read", { all: true })),
      ),
    );
    fill(
      entries,
      h("h2", {}, "Sent to this player, with what has ended"),
      table(
        "Entries",
        ["Stored", "State", "Title", "Ends"],
        all.map((it) => [
          clock(it.stored_at, now),
          h(`span.state.${it.state}`, {}, it.state),
          it.notification ? clipped(it.notification.title ?? it.notification.type ?? "") : "text purged",
          it.expires_at ? since(it.expires_at, now) : "",
        ]),
        "Nothing was sent to this player alone within the retention.",
      ),
    );
    fill(
      groups,
      h("h2", {}, "Topics and mutes"),
      table(
        "Topics",
        ["Topic", "Shown", "Action"],
        summary.topics.map((it) => [
          foreign(it.topic),
          it.muted ? "muted" : "yes",
          may("support") && act("Unsubscribe", () => send("DELETE", `topics/${encodeURIComponent(it.topic)}`), { key: `unsubscribe ${it.topic}` }),
        ]),
        "Subscribed to no topic. Messages to everyone are in the inbox nevertheless.",
      ),
      summary.muted_types.length > 0 &&
        h("p", {}, "Muted types, which are not stored for this player: ", summary.muted_types.map((it, i) => [i ? ", " : "", foreign(it)])),
    );
  }

  function connections(seen, now) {
    const place = (it) => `${visible(it.host)}:${it.pid}`;
    return [
      h("h2", {}, "Connections"),
      table(
        "Open connections",
        ["Since", "Transport", "State", "Process", "Device", "Address", "Buffer", "Action"],
        seen.connections.map((it) => [
          since(it.connected_at, now),
          it.transport,
          [it.state, it.lag ? `, ${number(it.lag)} behind` : ""],
          place(it),
          it.device ? foreign(it.device) : "",
          it.client ? foreign(it.client) : "",
          [bytes(it.buffer_bytes), it.stuck_ms ? `, stuck for ${duration(it.stuck_ms / 1000)}` : ""],
          may("support") && act("Disconnect", () => disconnect(it.id), { key: `disconnect ${it.id}` }),
        ]),
        "No connection is open.",
      ),
      seen.silent.length > 0 && h("p.note", {}, `${counted(seen.silent.length, "process", "processes")} did not answer: `, seen.silent.map((it, i) => [i ? ", " : "", h("code", {}, it)])),
      h("h3", {}, "Last closed and refused"),
      table(
        "Closed and refused",
        ["At", "What", "Why", "Process", "Address"],
        [
          ...seen.closed.map((it) => [it.closed_at, `closed ${it.transport}`, [it.reason, it.code ? ` (${it.code})` : ""], place(it), it.client]),
          ...seen.refused.map((it) => [it.at, `refused ${it.transport}`, [it.refusal, " ", foreign(it.reason)], place(it), it.client]),
        ]
          .sort((a, b) => (a[0] < b[0] ? 1 : -1))
          .map(([at, what, why, process, client]) => [clock(at, now), what, why, process, client ? foreign(client) : ""]),
        "Nothing that a process remembers.",
      ),
    ];
  }

  function item(it, now) {
    const isRead = !!it.read_at;
    const from = it.topic ? ["topic ", foreign(it.topic)] : it.audience ? [visible(it.audience)] : null;
    return h(
      isRead ? "li.read" : "li",
      {},
      preview(it),
      h(
        "p.meta",
        {},
        h("span", {}, `${clock(it.created_at, now)}, `, since(it.created_at, now)),
        h("span.tag", {}, isRead ? ["read ", since(it.read_at, now)] : "unread"),
        from && h("span.tag", {}, from),
        it.expires_at && h("span.tag", {}, "expires ", since(it.expires_at, now)),
      ),
      h(
        "div.buttons",
        {},
        act("Receipt", () => receipt(it), { key: `receipt ${it.id}` }),
        may("support") &&
          act(
            isRead ? "Mark as unread" : "Mark as read",
            () => send("POST", `notifications/${isRead ? "unread" : "read"}`, { ids: [it.id] }),
            { key: `mark ${it.id}` },
          ),
        may("support") && act("Withdraw", () => withdraw(it), { key: `withdraw ${it.id}` }),
      ),
    );
  }

  const actions =
    may("support") &&
    h(
      "div.buttons.actions",
      {},
      act("Compensate", () => compensate("Compensate a player", {}, "Send"), { kind: "primary" }),
      act("Send a test", () =>
        compensate("Send a test", { title: "Test", body: "Sent by support: please ignore it.", type: "test", reason: "test" }, "Send"),
      ),
      act("Disconnect", () => disconnect("")),
      act("Revoke tokens", revoke, { kind: "danger" }),
    );
  fill(place, current, failure, facts, actions, inbox, live, entries, groups);
  void refresh();
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    },
  };
}
