"""
streamer: a real-time notification push server, and how it is built.

A game's backend publishes a notification to players. The server keeps it in each
player's inbox and pushes it at once to every open connection of that player: WebSocket
for game clients, Server-Sent Events for browsers, long poll where neither works. The
inbox is REST: newest-first pages, read marks, unread counts.

One notification, end to end
============================
::

    POST on any surface -> its wire.py decodes
      -> publisher: rights, quotas, idempotency
      -> one script: number, append, announce              acknowledged from here on
           -> every node with a listener: relay -> hub.dispatch (never waits)
                -> each session: next in order? write it. A hole? It is behind.
                     -> feeds: read the log from its place, go on

    GET a page -> inbox reads the log newest first with its marks -> wire.py encodes

Six ideas carry the rest
========================
**The log is the truth, Pub/Sub is the wake-up.** An append is one atomic script in the
store: it gives the entry the next offset, stores it, and announces it. Announcements
may be lost, doubled or late; nobody relies on them. A reader that sees a hole, has
lost its feed, or is doubted in its turn (once in 15 s, which is what finds the loss of
the *last* message) is read for from its place. That is one mechanism for joining,
catching up and checking; `core.streams.subscription` holds its rules,
`service.streams.catch_up` drives it.

**A place is epoch, offset and tag.** Offsets of a log go up by one without holes; the
epoch changes when the log is lost; the tag is random per entry and shows when a store
that lost its tail hands out offsets again. A reader gets everything after its place, or
an explicit gap and the place where the stream goes on. An id carries time, offset and
tag, so it leads to its entry without an index, and one cursor serves every transport.

**Nothing is taken out of the middle.** A notification that is withdrawn, replaced or
expired stays at its offset and is over: no page shows it, nothing counts it, readers go
past it. An entry of its own tells those who were away. What is done with, read or over,
is one bit per offset, so that counting is counting bits.

**An audience is a log too.** What is for a topic or for everyone is stored once, in
that audience's log, and merged with the player's own when it is looked at. With the
player is kept only what differs: since when it has joined, and its marks. A stream is
woven of one strand per log, each with its own subscription; its cursor is a vector of
places. That an audience's event is the same bytes for everybody is what makes it cheap:
those who have all there is are a crowd, of whom everything is noted once. It is also
why the place in that log is told apart from it, a moment later, or now and then where
much is said: between logs delivery is at least once, and clients drop what they have
seen.

**The core decides, the edges carry.** `core` and `hub` are values in, values out: no
async, no clock, no sockets. What they decide is carried by transports, remembered by
the store, and asked for by surfaces, which translate and do nothing else.

**Nothing is unbounded, and nothing is sent twice.** Every queue, body and list has a
named limit. A reader over its limit is cut and comes back with its cursor, which costs
it nothing; it delays nobody. A write whose answer was lost is never repeated behind the
caller's back: the caller is told, and repeats it with an idempotency key.

Packages
========
Each layer has the same domain nouns for its folders: streams, inboxes (logs in the
store), publishing, scheduling, access. So "where is X in layer Y" is one guess.
::

    errors, model    the error tree and close codes; notification, entry, position, ids
    config           the settings; the only reader of the environment
    compiled/        IN C: the loop of a fan-out, and entries as JSON, if there was a
                     compiler; and the same in Python
    core/            DECIDES. Values in, values out
      streams/       subscription (history merged with live), session (one stream),
                     audience_subscription and broadcast_group (an audience's readers),
                     cursor, views (what a player sees of audiences), codec (events as
                     bytes), client_messages
      access/        apps, tokens, signatures, rights
      ...            schedule, quotas, limits, store_health, json_limits, counters
    store/           REMEMBERS. Everything Redis: keys; lua/, a script per atomic step
      client/        connection (multiplexed), commands, replies, pubsub
                     (announcements), replicated (writes that replicas confirm), health
      server/        embedded (the private Valkey), directory, server_binary
      logs/          inbox, appending, entries, page_reads, numbered, receipts, views,
                     mutes
      scheduling/    timetable, firing, recipients, schedule_records, campaigns,
                     registered_texts
      access/        apps, tickets, quotas, rates
      presence/      leases, devices
    hub              FANS OUT. log -> readers of this process
    service/         DOES. What a surface may ask for
      streams/       admission and admission_queue (being let in, drained), catch_up
                     (keeping readers complete), stream_audiences (of which logs),
                     position_check (in what nobody has announced), poll_waiter,
                     timer_wheel, probe, connection_log
      inboxes/       inbox, merge (many logs, one inbox), search, numbered, receipts,
                     topics, audiences
      publishing/    publisher, drafts, idempotency
      scheduling/    schedules, planning, scheduler, sender, campaigns
      access/        authenticator, key_sets (foreign issuers' keys), revocation,
                     tickets, minting
      node/          quotas, in_flight, store_watch, request_context, fast_log
    transports/      CARRY
      server/        the protocol classes under uvicorn, handle, refusal, sockets
      streams/       opening, sse, websocket, longpoll; detached and detached_websocket
                     (a stream that has left ASGI), outbox (one that has to stay),
                     framing, inbound, commands
      web/           requests, callers, routing, access_log
    contract/        WRITES DOWN. The words in which surfaces declare their operations;
                     the OpenAPI document, and the page, made from that
    metrics/         registry (every metric), exposition, scraping
    surfaces/        TRANSLATE. native/ rallyhere/ lootlocker/ gateway/ teak/
                     walletwerk/ operations/: wire (pure), routes, and contract, which
                     says what they hold
    openapi          the contract of all surfaces together
    components, app  the composition root: builds everything, opens nothing
    server           the host: sockets, signals, drain; starts uvicorn
    workers/         several such processes on one port: supervisor, slot (one of them),
                     process, port, control_channel (between the two)
    cli/             serve, scheduler, store, app, key, token, publish, tail, doctor

Imports run one way: errors, model <- compiled <- core <- store, hub <- service <-
transports <- contract, metrics <- surfaces <- components, openapi <- app <- server,
workers <- cli; `config` may be read by all but core and store. Parts get what they need
by their constructor; there are no module globals to look things up in.
`tests/test_layout.py` holds this.

Processes
=========
`streamer serve` is complete by itself: it runs a private Valkey over a unix socket,
synced to disk before every answer. With ``--redis URL`` it is one of any number of
equal nodes. The process owns its background parts, and a part that dies ends the
process: a server that answers and delivers nothing is worse than one that is restarted.
On SIGTERM a node stops being ready, stops accepting, sends its readers away spread over
a few seconds, each with a ``bye``, and ends.

With ``--workers N`` a node is N processes on one port under a supervisor, which also
runs the embedded store. The supervisor holds the listening sockets and lends them to
the workers, so that a worker may be killed or replaced and nobody who connects is
refused.

The stream's protocol is written down in ``clients/PROTOCOL.md``, the names of all keys
in `store.keys`.
"""
