"""
streamer: a real-time notification push server. This page is its architecture.

A game's backend publishes a notification to players, to a topic, or to everyone. The
server stores the notification in each player's inbox and pushes it at once to every
open connection of that player: WebSocket for game clients, Server-Sent Events for
browsers, long poll where neither works. The inbox is REST: newest-first pages, read
marks, unread counts.

One notification, end to end
============================
::

    POST on any surface -> wire.py decodes the body
      -> publisher: rights, quotas, idempotency
      -> one Lua script: assign the offset, append, announce    acknowledged from here
           -> every node with a reader: pubsub -> hub.dispatch  (in portions)
                -> each session: is it the next entry? Write it.
                   Otherwise the log needs a read
                     -> catch_up: read the log after the reader's position

    GET a page -> the inbox reads the log newest first, with marks -> wire.py encodes

Six ideas
=========
**The log is the truth; Pub/Sub is the wake-up.** An append is one atomic script in the
store: it gives the entry the next offset, stores it, and announces it. An announcement
may be lost, repeated or late, and nothing relies on it. The server re-reads the log
from a reader's position when the reader sees a hole, loses its subscription, or is due
for its periodic check (every 15 s, which finds the loss of the *last* message).
Joining, catching up and checking are one mechanism: `core.streams.subscription` has its
rules, `service.streams.catch_up` drives it.

**A position is epoch, offset and tag.** The offsets of a log ascend by one, without
holes. The epoch changes when the log is lost. The tag is random per entry; it reveals a
store that lost its tail and assigned the same offsets again. A reader gets every entry
after its position, or an explicit gap and the position at which the stream goes on. An
id contains time, offset and tag, so it leads to its entry without an index, and one
cursor works on every transport.

**Entries are never removed from the middle.** A notification that is withdrawn,
replaced or expired keeps its offset and has *ended*: no page shows it, nothing counts
it, and readers pass over it. A control entry informs the clients that were offline. One
bit per offset records what is read or ended, so counting is counting bits.

**An audience is a log, too.** A notification to a topic or to everyone is stored once,
in the log of that audience, and merged with the player's own log when it is read. The
player's part is only what differs: the position at which the player joined, and the
player's marks. A stream therefore has one subscription per log, and its cursor is a
vector of positions. An audience's event is the same bytes for every reader, and that
makes it cheap: the readers that have everything form a broadcast group, which keeps one
position for all of them. It is also why the position in that log is sent separately, a
moment later. Between logs delivery is at least once; clients drop what they have seen.

**The core decides, the edges carry.** `core` and `hub` take values and return values:
no async, no clock, no sockets. Transports carry what they decide, the store remembers
it, and surfaces translate requests and responses and do nothing else.

**Everything has a bound, and no write is repeated.** Every queue, body and list has a
named limit. A reader over its limit is closed and resumes from its cursor; it delays
nobody. A write whose response was lost is never repeated by the server: the caller gets
an error that says so, and repeats the request with its idempotency key.

Packages
========
The folders of every layer have the same domain nouns (streams, inboxes or logs,
publishing, scheduling, access), so "where is X in layer Y" is one guess.
::

    names            apps, players and topics: which names are valid, and the same
    errors, model    the error tree and close codes; notification, entry, position, ids
    store_url        the URL of an external store, and its options
    origins          web origins, and which are allowed
    config           the settings; the only reader of the environment, except for
                     OTEL_… (service.tracing)
    compiled/        IN C: the fan-out loop, and entries as JSON and as events; their
                     twins in Python
    core/            DECIDES. Values in, values out
      streams/       subscription (history merged with live entries), session (one
                     stream), greeting (its beginning), unread_count,
                     audience_subscription, audience_followers, broadcast_group and
                     batch_writer (the readers of an audience), cursor, views (what a
                     player sees of audiences), codec (events as bytes),
                     client_messages
      access/        apps, tokens, claims (where a token has them), signatures, rights,
                     roles (of the console), id_tokens (of people who log in there)
      ...            schedule, agenda, quotas, limits, store_health, deployment,
                     json_limits, counters, portions (work in several turns),
                     trace_context (of a sampled trace, as text)
    store/           REMEMBERS. Everything Redis: keys; deployment (the record of whose
                     store it is); lua/, a script per step
      client/        connection (multiplexed), address (where the store is), sentinel
                     (who tells where), asking (several servers in turn), commands,
                     replies, subscriber (a connection for subscriptions, kept open),
                     pubsub (announcements), unannounced (those that the store
                     refused), replicated (writes that replicas confirm), faults
                     (what fails, told seldom), damage, health, trial (tries every
                     command), scanning (walks through all keys), terms (what the
                     record of the deployment allows);
                     for a Redis Cluster slots (which primary has a key),
                     cluster_address (the map of them), cluster (a connection per
                     primary), cluster_subscriber (the same for subscriptions)
      server/        embedded (the private Valkey), directory, memory, disk,
                     password, running, backup, server_binary
      logs/          inbox, appending, entries, page_reads, own_logs and shared_logs (of
                     players and of audiences, read without scripts), newest_entries
                     (of audiences, kept by the node), numbered, receipts, views,
                     mutes, trimming, settings
      scheduling/    timetable, notices, firing, recipients, schedule_records,
                     inspection (for doctor), campaigns, registered_texts
      access/        apps, removal (of an app), tickets, short_lived, quotas, rates,
                     sandboxes (what the demo stores)
      presence/      leases, devices, sightings (who is online), node_channel
                     (questions to all nodes)
      privacy/       audit_log, pseudonyms (hashes in place of players' names), traces
                     (what names a player), erasures (the list), files (of the store)
    hub              FANS OUT. A map from log to the readers of this process
    service/         DOES. What a surface can ask for
      streams/       admission and admission_queue (slots, leases, drain), departures
                     (many that leave at once), catch_up (reads for stale readers),
                     stream_audiences (the audiences of a stream), position_check
                     (finds lost announcements), recounts (numbers of unread that may be
                     wrong), expiries (when entries expire), poll_waiter, timer_wheel,
                     probe, connection_log
      inboxes/       inbox, merge (several logs, one inbox), page_merge (one page of
                     them), search, numbered, receipts, topics, audiences
      publishing/    publisher, drafts, idempotency
      privacy/       audit (what operators have done), purging (removing a text),
                     erasure and export (of a player)
      scheduling/    schedules, planning, scheduler, sender, campaigns
      access/        authenticator, key_sets (keys of foreign issuers), key_uses (when
                     keys were last used), failures (of authentication, by address),
                     revocation, tickets, minting, demo_sessions (what /demo
                     gives to anybody), console_sessions, console_logins (with an
                     issuer), oidc_issuer, outgoing (requests to issuers)
      tracing/       spans (their names and attributes), otel (makes them), starting
                     (whether there are any); publishing, scheduling and deliveries
                     with spans around them
      inspection/    nodes (asks all nodes), questions, local_node (answers for this
                     one), history (what it remembers), operations
      node/          quotas, in_flight, store_watch, deployment_check, request_context,
                     player_names, fast_log, load_history (the last hour, sampled),
                     console_facts, loop_lag, garbage (when it is collected)
    transports/      CARRY
      server/        http_protocol, handshake_protocol and websocket_protocol (under
                     uvicorn), direct (requests answered beneath ASGI),
                     idle_connections, read_first (before a client's time is over),
                     websocket_input, handle, refusal, sockets, hangup
      streams/       opening, sse, websocket, longpoll; detached and detached_websocket
                     (streams that have left ASGI), framing, inbound, commands
      web/           requests, callers, routing, access_log, forwarded (by
                     proxies), base_path, traced_exchange (requests with a span)
    contract/        DECLARES. operation (how a surface declares one), binding (routes
                     from declarations), direct (those answered beneath ASGI),
                     document and pages (OpenAPI, /docs),
                     static_file, client_files (/client: the web client), fallbacks,
                     responses, refusals, query_fields, schemas
    metrics/         registry (every metric), exposition, scraping
    surfaces/        TRANSLATE. native/ rallyhere/ lootlocker/ gateway/ teak/
                     walletwerk/ operations/: wire (pure), routes, contract
    openapi          the contract of all surfaces together
    components, app  the composition root: builds everything, opens nothing
    server           the host: sockets, signals, drain; starts uvicorn
    workers/         several such processes on one port: supervisor, slot (one worker),
                     process, port, control_channel (between supervisor and worker)
    bench/           MEASURES. The load test: scenarios, target, runner, load/
    cli/             serve, scheduler, store, app, key, token, logout, export, erase,
                     erasures, audit, config, publish, tail, trim, inspect, connections,
                     disconnect, presence, doctor, health, backup, restore

Imports run one way: names <- errors, model, origins, store_url <- compiled <- core <-
store, hub <- service <- transports <- contract, metrics <- surfaces <- components,
openapi, asyncapi <- app <- server, workers <- bench <- cli. Every layer but core and
store may read `config`. Constructors receive their dependencies; there are no module
globals to look things up in. `tests/test_layout.py` enforces all of this.

Glossary
========
One word per thing, in code and documents. The store's keys are listed in `store.keys`.
::

    app             an isolated tenant: its players, topics, keys and tokens
    deployment      the nodes that work on the same data, and that data
    namespace       what every key and channel of a deployment begins with
    player          a recipient; names an inbox within an app
    audience        a topic, or everyone
    notification    what is published; immutable
    log             the retained entries of one player or one audience
    entry           a notification, or a control entry, at its offset in a log
    inbox           a player's own log and those of the player's audiences, with marks
    ended           withdrawn, replaced or expired: the entry keeps its offset, unshown
    position        epoch, offset and tag: a point in one log
    cursor          a vector of positions, one per log: a point in a stream or inbox
    gap             an explicit notice that entries after a position cannot be delivered
    reader          what receives entries in this process: a session or a waiting poll
    subscription    one reader in one log: replaying or live
    grouped         a reader in a broadcast group; the others are individual
    stale           a subscription that may have missed something and needs a read
    catch-up        the reads that bring stale readers up to date
    peek            a comparison of a log's head with its readers, without a read
    session         one stream: greeting, subscriptions, unread count, limits
    hub             this process's map from log to readers
    announcement    what a script publishes about a log by Pub/Sub
    lease           a player's slot for an open connection, under its node's heartbeat
    admission       the decision whether a connection may open, and its slot
    drain           sending readers away before a node stops
    timetable       the schedules that are due, by bucket
    bucket          a hash tag (one of 256): what shares it shares a Redis Cluster slot
    surface, wire   one public API; the pure translation of its requests and responses
    probe           a notification that a node sends to itself, for readiness
    ticket          a short-lived credential for EventSource, which cannot send headers

FAST PATHS
==========
A fast path is a second implementation of something hot. Each has a twin that is
complete, a test that holds both equal, and a benchmark that justifies it. Nothing else
in this code is implemented twice. ``docs/decisions/0030`` has the rule.
::

    Append of a batch in which nothing can end
        path   lua/logs/_append_fast.lua
        twin   lua/logs/append.lua, the general append
        test   tests/store/logs/test_inbox.py
        bench  bench/publish.py
    Page: entries read beside the script
        path   store.logs.inbox
        twin   lua/logs/page.lua
        test   tests/store/logs/test_page_reads.py
        bench  bench/page.py
    State of an audience's log by plain commands
        path   store.logs.shared_logs
        twin   lua/logs/audience.lua
        test   tests/service/inboxes/test_page_reads_twin.py
        bench  bench/lists.py
    Newest entries of an audience's log, kept while it is the same
        path   store.logs.newest_entries
        twin   the ranges that service.inboxes.page_merge reads
        test   tests/service/inboxes/test_page_reads_twin.py
        bench  bench/lists.py
    State of a player's own log by plain commands
        path   store.logs.own_logs
        twin   lua/logs/page.lua
        test   tests/service/inboxes/test_page_reads_twin.py
        bench  bench/lists.py
    Views of topics by plain commands
        path   store.logs.views
        twin   lua/views/views.lua
        test   tests/service/inboxes/test_page_reads_twin.py
        bench  bench/lists.py
    Read times of a page by one command
        path   store.logs.views
        twin   lua/views/view_read_at.lua
        test   tests/service/inboxes/test_page_reads_twin.py
        bench  bench/lists.py
    First match of a filter, remembered
        path   service.inboxes.search
        twin   the same search, without what was learned
        test   tests/service/inboxes/test_page_reads_twin.py
        bench  bench/lists.py
    Names of a log's keys, encoded without caches
        path   store.logs.appending
        twin   store.keys
        test   tests/store/logs/test_appending.py
        bench  bench/grow.py
    Peek at a log instead of a read
        path   service.streams.position_check
        twin   service.streams.catch_up
        test   tests/service/streams/test_position_check.py
        bench  bench/fanout.py
    Peek at a player's views instead of a script
        path   store.logs.views
        twin   lua/views/views.lua
        test   tests/store/logs/test_views.py
        bench  bench/connect.py
    Commands encoded once
        path   store.client.commands
        twin   the same commands, encoded by each call
        test   tests/store/client/test_connection.py
        bench  bench/publish.py
    One position for a whole audience
        path   core.streams.broadcast_group
        twin   core.streams.audience_subscription
        test   tests/core/streams/test_broadcast_group.py
        bench  bench/fanout.py
    Fan-out loop in C
        path   compiled/fanout.c
        twin   compiled.fanout
        test   tests/compiled/test_fanout.py
        bench  bench/fanout.py
    Entries as JSON in C
        path   compiled/entries.c
        twin   compiled.entries
        test   tests/compiled/test_entries.py
        bench  bench/page.py
    Notifications as events in C
        path   compiled/entries.c
        twin   compiled.events
        test   tests/compiled/test_events.py
        bench  bench/resume.py
    Write past the transport
        path   transports.server.handle
        twin   the transport's write
        test   tests/transports/server/test_handle.py
        bench  bench/fanout.py
    WebSocket handshake judged from its headers
        path   transports.server.handshake_protocol
        twin   the server protocol of `websockets`
        test   tests/transports/server/test_handshake_protocol.py
        bench  bench/connect.py
    A lone pong recognized without a parser
        path   transports.streams.inbound
        twin   the parser of `websockets`
        test   tests/transports/streams/test_inbound.py
        bench  bench/fanout.py
    Route found by the head of the path
        path   transports.web.routing
        twin   Starlette's router
        test   tests/transports/web/test_routing.py
        bench  bench/page.py
    Frequent operations answered beneath ASGI
        path   contract.direct
        twin   the same endpoints through ASGI
        test   tests/surfaces/test_direct.py
        bench  bench/direct.py
    Log line without a record
        path   service.node.fast_log
        twin   the record, as logging passes it to a handler
        test   tests/service/node/test_fast_log.py
        bench  bench/direct.py
    Head and body of a response in one write
        path   transports.server.http_protocol
        twin   uvicorn's two writes
        test   tests/transports/server/test_http_protocol.py
        bench  bench/page.py
    Head of a stream with its first events in one write
        path   transports.streams.detached
        twin   the head alone, when no event follows in time
        test   tests/transports/streams/test_detached.py
        bench  bench/connect.py

Processes
=========
`streamer serve` is complete by itself: it runs a private Valkey over a Unix socket,
synced to disk before every response. With ``--redis URL`` the process is one of any
number of equal nodes, on one store or on the primaries of a Redis Cluster. The process
owns its background tasks, and a task that fails ends the process: a server that answers
and delivers nothing is worse than one that restarts. On SIGTERM a node stops being
ready, stops accepting connections, closes its streams spread over a few seconds, each
with a ``bye``, and exits.

With ``--workers N`` a node is N processes on one port under a supervisor, which also
runs the embedded store. The supervisor holds the listening sockets and lends them to
the workers, so a worker can be killed or replaced and no client is refused.

``docs/README.md`` is the index of the reference, ``clients/PROTOCOL.md`` documents the
stream's protocol, ``docs/decisions`` why things are as they are, and `store.keys` every
key in Redis.
"""
