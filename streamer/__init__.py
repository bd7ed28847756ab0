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

The rooms
=========
::

    errors, model    the error tree and close codes; notification, entry, position, ids
    config           the settings; the only reader of the environment
    compiled/        IN C. the loop of a fan-out, and entries as JSON, if there was a
                     compiler; and in Python
    core/            DECIDES. subscription (history merged with live), session (one
                     stream), messages (what its client says), strand (its part in an
                     audience), crowd (all parts in one audience), cursor, views (what
                     a player sees of audiences), codec (events as bytes), access, apps,
                     signatures and tokens (who may what), limits, quotas, values,
                     figures (what is counted)
    store/           REMEMBERS. Everything Redis: keys, lua/ (one script per atomic
                     step), commands (as they are written), link (one multiplexed
                     connection), inbox, appending, views, overview, receipts, mutes,
                     leases, relay (announcements), replicated (writes that replicas
                     confirm), apps, quotas, tickets, embedded (the
                     private Valkey); timetable (what is to be sent, and when),
                     scheduled (its records), firing (what is due), recipients
                     (whom an audience's schedule serves)
    hub              FANS OUT. log -> readers of this process
    service/         DOES. publisher, audiences, merging (many logs, one inbox),
                     inboxes, searching, listing, memberships (topics and mutes),
                     receipts, feeds, weaving and positions (keeping readers complete,
                     of which logs, and in what nobody has said), listening (being let
                     in, drained), turns, wheel (its time), authenticator, key_sets
                     (foreign issuers' keys), sweep (credentials taken back), tickets,
                     minting, requests and quotas (what an app may use), schedules and
                     planning (what is to be sent, and when), repetition (idempotency
                     keys), scheduler and sender (what is due), campaigns, store_watch
                     (is the store what was promised?), serving, lines and journal (what
                     the log says of requests and streams)
    transports/      CARRY. websocket, sse, longpoll; detached, detached_websocket (a
                     stream that has left ASGI, and writes past its transport where it
                     may: handle), inbound, framing, commands; outbox (one that has to
                     stay); access_log, around every request, and
                     routing (the application, its routes by their heads); the
                     protocol classes under uvicorn that keep HTTP clean and let go, and
                     the handshake between them
    contract/        WRITES DOWN. The words in which surfaces declare their operations;
                     the OpenAPI document, and the page, made from that
    surfaces/        TRANSLATE. native/ rallyhere/ lootlocker/ gateway/ teak/
                     walletwerk/ operations/: wire (pure), routes, and contract,
                     which says what they hold; what Prometheus is told
    openapi          the contract of all surfaces together
    components, app  the composition root: builds everything, opens nothing
    server           the host: sockets, signals, drain; starts uvicorn
    workers/         several such processes on one port: supervisor, slot (one of them),
                     process, port, and the line between the two
    cli/             serve, scheduler, store, app, key, token, publish, tail, doctor

Imports run one way: errors, model <- compiled <- core <- store, hub <- service <-
transports <- contract <- surfaces <- components, openapi <- app <- server, workers <- cli;
`config` may be read by all but core and store. Parts get what they need by their
constructor; there are no module globals to look things up in. `tests/test_layout.py`
holds this.

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
