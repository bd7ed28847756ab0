"""
Every key and channel in Redis: name, type, content and lifetime.

This page is the reference. `Keys` builds the names of one deployment, and knows nothing
else.

Names
=====
``ns:{b}:log:app:player`` is a pattern. ``ns`` is the *namespace*, the setting
`namespace`: every key begins with it and a colon, so that deployments can share a
store, and nothing of another has to be touched. ``app`` is the app's name, ``player``
the player's as `model.parse_player` returns it. The player comes last, because its name
may contain any character, colons too. The braces are part of the key. They hold its
hash tag, a *bucket* from 0 to 255, so keys of one bucket share a slot of Redis Cluster
and one script can use them together. A bucket is the CRC-32 of the app, a zero byte and
a second name, modulo 256; the letter in a pattern says which name::

    {b}  the player's       {k}  that of the item itself, such as a card or a request
    {c}  the empty name     {s}  the schedule's, see Timetable

All keys of one player have one bucket. However many apps there are, a scheduler has 256
buckets to look at.

Channels begin with ``ns@db``: Pub/Sub knows no databases, so the number of the database
is in the name, 0 included. The bucket of a channel is that of its log, and so is its
slot.

An audience (a topic, or everyone) has a log too. In place of ``player`` its keys have
the character U+0001 followed by ``t`` and the topic, or by ``e`` for everyone. No
player's name can contain that character.

Times are Unix time in ms by the store's clock, except where another unit is named.
``at_us`` is the time of an entry, in microseconds.
*Retention* is the age at which entries leave a log, 90 days by default. *No expiry*
means that the key stays until its content is deleted.

The newest entry of the player ``ann`` of the app ``demo``, where her log stands, and
what is announced about it, in the default namespace::

    redis-cli XREVRANGE 'streamer:{19}:log:demo:ann' + - COUNT 1
    redis-cli HGETALL 'streamer:{19}:state:demo:ann'
    redis-cli SSUBSCRIBE 'streamer@0:{19}:live:demo:ann'

Logs
====
Six keys per log, of a player or an audience. An entry is *done* when it is read or has
ended (expired, withdrawn or replaced); what is not done is unread.

``ns:{b}:log:app:player`` stream
    One item per entry, with the id ``<at_us>-<offset>``. Fields: ``t`` the tag, ``n``
    the fragment, and, if the entry has them, ``d`` the only device it is for, ``r`` the
    id of the notification that it replaces, ``w`` the id of the notification that it
    withdraws. An entry with ``w`` is a control entry; its fragment is empty.
    Expires: retention + 1 day after the last append, renewed at most once an hour.
``ns:{b}:state:app:player`` hash
    ``epoch``; ``head``, ``at_us`` and ``tag``, the offset, time and tag of the newest
    entry; ``base``, below which every offset is done; ``marks``, a count of changes to
    the read marks; ``range``, the highest offset up to which all entries were marked at
    once; ``acked``, the highest offset that a client has acknowledged. Once the log has
    had an entry that can end, also ``ended``, how many have expired, and ``ends_at``,
    when the next one expires.
    Expires: after twice the lifetime of the log, so that offsets continue when a player
    returns after a long absence.
``ns:{b}:done:app:player`` string
    Bitmap, one bit per offset from ``base`` on: 1 is done. ``base`` is a multiple of 8.
    Expires with the log.
``ns:{b}:reads:app:player`` hash
    When entries were marked as read: offset -> time; ``upto`` -> ``N:time`` for each of
    the last hundred marks of all entries up to an offset N; ``floor``: the times of
    lower offsets were deleted. Older versions write ``<=N`` -> time instead, and
    so do newer ones beside them.
    Expires with the log.
``ns:{b}:ends:app:player`` zset
    Offset -> how the entry ends. A score of 9 or more is the time at which it will
    expire. An entry that has ended has the negative of that time, or 1 for withdrawn, 2
    for replaced, 3 for a control entry. If it was read before it ended, its score is
    half a unit further from 0.
    Expires with the log.
``ns:{b}:collapse:app:player`` hash
    Collapse key -> ``at_us offset tag`` of the newest entry with that key.
    Expires with the log.

Beside the log of a player:

``ns:{b}:mutes:app:player`` set
    Types of notification that the player has muted, at most 100. No expiry.
``ns:{b}:views:app:player`` hash
    The audiences that the player has joined, with the player's marks in each;
    ``lua/views/_view.lua`` lists the fields. No expiry while the player has joined a
    topic, otherwise twice the retention + 2 days after the last read.
``ns@db:{b}:live:app:player`` sharded channel
    Announcements; `store.client.pubsub` has the format. An audience has one too.

Beside the log of an audience:

``ns:{b}:tally:app:audience`` hash
    How many players have read or acknowledged entries: ``read <offset>``, ``acked
    <offset>``. ``read <offset>+<size>`` counts for each entry of a block from an offset
    on; the size is a power of two. ``floor``: what is below was deleted. Expires with
    the log.

Beside any stream of an app:

``ns:{b}:rewriting:app`` stream
    The copy that takes the place of a stream that is written again. No command sees it:
    it exists only while the script runs.

Connections
===========
``ns:{b}:lease:app:player`` hash
    Leases of open connections: ``node:connection`` -> the client's instance, or an
    empty string. A lease is void if its node has no heartbeat in ``ns:nodes``.
    Expires: 25 hours after the last lease was acquired or renewed.
``ns:{b}:devices:app:player`` hash
    Devices of these connections: ``node:connection`` -> ``device time``, the time of
    its last use. An item without a lease means nothing. Expires as the leases do.
``ns:{b}:seen:app:player`` string
    When a connection of the player closed last. Expires after 30 days.
``ns@db:{k}:questions`` sharded channel
    Questions to all nodes; `store.presence.node_channel` has the format. The bucket of
    this channel and of the next is that of the word ``nodes`` in no app.
``ns@db:{k}:answers:node`` sharded channel
    Answers to a node that has asked.

Idempotency
===========
Both expire after 24 hours.

``ns:{b}:once:app:digest of the key:player`` string
    Result of the appends to this player's log under an idempotency key: the digest of
    the request, then what ``lua/logs/append.lua`` returned. In the player's slot, so
    that the append writes it.
``ns:{k}:request:app:digest of the key`` string
    Digest of the request that used the idempotency key. A backend may write names of
    players into its keys, so it has a digest in place of the key.

Credentials
===========
``ns:{b}:revoked:app:digest of the player`` string
    Unix time in *seconds* before which the player's tokens are revoked. It outlives the
    erasure of the player, and so has a digest in place of the name. Expires when all of
    those tokens have expired, after 24 hours and 1 minute.
``ns:{k}:ticket:digest`` string
    A ticket, by its digest: ``used first ends caller``. ``used`` is 0 or 1, ``first``
    the time by which it has to be used, ``ends`` the time at which its token expires,
    ``caller`` JSON. The bucket is the CRC-32 of the digest alone.
    Expires: after 1 minute if unused, 3 minutes after the last renewal while its stream
    is open, 2 minutes after the stream has closed.
``ns:{k}:session:digest`` string
    A server session, by the digest of its token: the digest of the backend key that
    opened it. The bucket is the CRC-32 of the digest alone. Expires 24 hours after it
    was opened or renewed. A session of the console, by the digest of ``console``, a
    zero byte and its secret: ``ends digest``, the time at which it ends and the digest
    of its key; or, by that of ``console person`` and so on, JSON of whom an issuer has
    named. Expires then, `console_session_s` after the login at the latest. The time
    in ms at which all sessions of a person were ended, by the digest of ``console
    ended`` and so on; expires after 24 hours, the longest session. That the
    state of a login was used, by the digest of ``console login`` and so on: 1. Expires
    10 minutes after the login began.

Timetable
=========
A schedule's id begins with its bucket, {s}: that of its player if it has a single one,
that of its campaign if it has one, otherwise a random one.

``ns:{s}:due:app`` zset
    ``app:id`` of each pending schedule of an app -> the time it is due; and of each
    paused one -> the time at which it is cancelled unless it was resumed. No expiry.
``ns:{s}:due`` zset
    App -> the time its first pending schedule is due. No expiry.
``ns@db:{s}:notices`` sharded channel
    Notices for schedulers; `store.scheduling.notices` has the format.
``ns:{s}:sending`` zset
    ``app:id`` of each schedule that is being sent to an audience -> when that began.
    No expiry.
``ns:{s}:paused:app`` zset
    ``app:id`` of each paused schedule of an app -> when it was paused. No expiry.
``ns:{s}:schedule:app:id`` hash
    The schedule; `store.scheduling.schedule_records` has the fields. Expires 90 days
    after it was sent or cancelled.
``ns:{s}:schedules:app`` zset
    All schedules of an app in the bucket: id -> when it was created. Expires 121 days
    after the last one was added, as the next two do.
``ns:{s}:named:app:digest of the label:player`` zset
    The same for one player's schedules with a label.
``ns:{s}:sends:app:campaign`` zset
    The same for the sends of a campaign.
``ns:{s}:slots:app:campaign`` set
    Ids of the schedules that hold one of a campaign's slots. No expiry.
``ns:{b}:to:app:id`` list
    Recipients of a schedule in bucket b that are not served yet. The last item is a
    zero byte and their total number; it stays when all are served.
    Expires: after 120 days, the longest wait and the longest outage, or 1 day after
    the bucket was served.

Campaigns
=========
None of these keys expires.

``ns:{c}:campaigns:app`` hash
    Campaign -> its record, JSON.
``ns:{k}:card:app:campaign`` hash
    Card -> ``status version buckets player``. This record is authoritative. The bucket
    is the card's; ``buckets`` are all that its players were in.
``ns:{b}:cards:app:campaign`` hash
    A copy in the bucket of the player, for sending: card -> ``status version player``,
    or ``moved version`` if the card has left the bucket.

Apps
====
``ns:{k}:message:app:identifier`` string
    Text registered under an identifier. No expiry.
``ns:{k}:sandboxes:app`` zset
    Sandboxes of the demo that are not removed yet -> when they were opened, Unix time
    in *seconds*. No expiry.
``ns:{k}:rate:app:operation`` list
    Times of the last calls of an operation that were admitted, newest first. Expires
    after 1 s.
``ns:{k}:quota:app:publishes``, ``ns:{k}:quota:app:bytes`` string
    Permits left in a token bucket, and the time of that: ``left time``. Expires when
    the bucket is full again.
``ns:{k}:quota:app:pending`` zset
    Schedules that hold one of the app's schedule slots: id -> the time they are due.
    Expires after 31 days.
``ns:{k}:quota:app:players:period`` HyperLogLog
    Players who were sent something in a period of 30 days, counted if the app has a
    quota of players. All periods share a bucket. Expires one period after the last
    count that includes it.

``ns:{k}:audit:app`` stream
    Administrative operations on the app, oldest first: one item per operation, with the
    field ``e``, an `audit_log.AuditEntry` as JSON. The last 10,000. No expiry.

Global
======
None of these keys expires.

``ns:deployment`` string
    The record of the deployment, JSON: ``format``, ``id``, ``name``, ``version``,
    ``level``, ``raised_by``. The first key that is written. Later only the level rises;
    `core.deployment` says what it means.
``ns:apps`` hash
    App -> its record, JSON.
``ns:{ns:apps}:audiences`` hash
    JSON of [issuer, audience] -> app. In the slot of ``ns:apps``.
``ns:keys`` hash
    Digest of a backend key -> its record, JSON.
``ns:{ns:keys}:used`` hash
    Digest of a backend key -> its last use, to the minute. In the slot of ``ns:keys``.
``ns:nodes`` zset
    Node -> its last heartbeat. Nodes without one for an hour are deleted.
``ns:{ns:nodes}:levels`` hash
    Node -> the level that it can read, see ``ns:deployment``. Older versions write
    none. In the slot of ``ns:nodes``.
``ns:audit`` stream
    The same as ``ns:{k}:audit:app`` for operations on apps, which outlive the app.
``ns:pseudonyms`` string
    Key of the hashes by which audit logs and the list of erasures name players: 64
    hexadecimal digits. Never changed.
``ns:erasures`` hash
    Players that were erased: ``app hash`` -> ``state at``, the time of the last
    erasure. The state is ``stored`` until the store's files are rewritten, then
    ``done``.
``ns:erasing`` hash
    Erasures that have begun and not removed everything yet: ``app hash`` -> the
    player's name. Empty at rest.
``ns:removing`` hash
    Apps that are being removed -> when that began.
``ns:fence`` string
    Empty; written to be waited for by ``WAIT``, see `store.client.replicated`. In a
    cluster ``ns:{n}:fence``, with a number that leads to the primary that is waited
    for; it is deleted in the same step.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from functools import lru_cache
from typing import Final, NamedTuple

from ..model import App, Log
from ..store_url import NAMESPACE

__all__ = [
    "BUCKETS",
    "NODES_BUCKET",
    "InboxKeys",
    "KeyParts",
    "Keys",
    "bucket_of",
    "keys_of",
]

BUCKETS: Final = 256
"""Hash tags in use. Part of every key, so it cannot change in a store with data."""


def bucket_of(app: App, name: str) -> int:
    """Return the bucket of a player, or of another name within an app."""
    # CRC-32 is the same on every node and in every version of Python, unlike `hash`.
    return zlib.crc32(f"{app}\0{name}".encode()) % BUCKETS


NODES_BUCKET: Final = bucket_of(App(""), "nodes")
"""The bucket of the channels of nodes."""


def _bucket_of_digest(digest: bytes) -> int:
    return zlib.crc32(digest) % BUCKETS


def _digest(text: str) -> str:
    # A label or key may contain any character, as a player's name may, and only one of
    # them can be the last part of a key.
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class KeyParts(NamedTuple):
    """A key ``ns:{bucket}:kind:app:rest``. A ticket's digest is in place of the app."""

    bucket: int
    kind: str
    app: str
    rest: str


class InboxKeys(NamedTuple):
    """The keys of a log, in the order in which every inbox script takes them."""

    state: str
    log: str
    done: str
    reads: str
    ends: str
    collapse: str


class Keys:
    """
    The names of one deployment, which `keys_of` returns.

    Args:
        namespace: What every key and channel begins with.
        database: Number of the store's database. Only channels have it.

    """

    def __init__(self, namespace: str, database: int) -> None:
        self.namespace = namespace
        self._channels = f"{namespace}@{database}"
        self.apps = f"{namespace}:apps"
        self.audiences = f"{namespace}:{{{self.apps}}}:audiences"
        self.backend_keys = f"{namespace}:keys"
        self.key_uses = f"{namespace}:{{{self.backend_keys}}}:used"
        self.nodes = f"{namespace}:nodes"
        self.node_levels = f"{namespace}:{{{self.nodes}}}:levels"
        self.fence = f"{namespace}:fence"
        self.deployment = f"{namespace}:deployment"
        # One slot for all nodes, so that each needs one connection for them.
        self._node_channels = f"{self._channels}:{{{NODES_BUCKET}}}"
        self.questions = f"{self._node_channels}:questions"
        self.audit_of_apps = f"{namespace}:audit"
        self.pseudonyms = f"{namespace}:pseudonyms"
        self.erasures = f"{namespace}:erasures"
        self.erasing = f"{namespace}:erasing"
        self.removing = f"{namespace}:removing"
        self._parts = re.compile(
            rb"%b:\{(\d+)\}:([a-z]+):([^:]*):?(.*)" % re.escape(namespace.encode()),
            re.DOTALL,
        )
        self._tags = [self._tag(bucket) for bucket in range(BUCKETS)]
        # A script takes several keys of one log.
        self._cached_affixes = lru_cache(maxsize=4_096)(self.affixes)
        self._cached_channel = lru_cache(maxsize=4_096)(self.channel_of)

    def fence_of(self, number: int) -> str:
        """Return the key of a fence in some slot of a cluster."""
        return f"{self._tag(number)}fence"

    def inbox(self, log: Log) -> InboxKeys:
        """Return the six keys of a log."""
        head, tail = self._cached_affixes(log)
        return InboxKeys(
            f"{head}state{tail}",
            f"{head}log{tail}",
            f"{head}done{tail}",
            f"{head}reads{tail}",
            f"{head}ends{tail}",
            f"{head}collapse{tail}",
        )

    def state(self, log: Log) -> str:
        """Return the first of a log's keys alone."""
        # Not cached: peeks take the state of every log in turn, and would evict the
        # logs that are used again soon.
        return "state".join(self.affixes(log))

    def audience(self, log: Log) -> tuple[str, str, str]:
        """Return the first three keys of a log, all that pages of an audience need."""
        head, tail = self._cached_affixes(log)
        return f"{head}state{tail}", f"{head}log{tail}", f"{head}done{tail}"

    def tally(self, audience: Log) -> str:
        return "tally".join(self._cached_affixes(audience))

    def views(self, log: Log) -> str:
        return "views".join(self._cached_affixes(log))

    def mutes(self, log: Log) -> str:
        return "mutes".join(self._cached_affixes(log))

    def lease(self, log: Log) -> str:
        return "lease".join(self._cached_affixes(log))

    def devices(self, log: Log) -> str:
        return "devices".join(self._cached_affixes(log))

    def seen(self, log: Log) -> str:
        return "seen".join(self._cached_affixes(log))

    def answers(self, node: str) -> str:
        return f"{self._node_channels}:answers:{node}"

    def channel(self, log: Log) -> str:
        return self._cached_channel(log)

    def once(self, log: Log, idempotency_key: str) -> str:
        kind = f"once:{log.app}:{_digest(idempotency_key)}"
        return f"{self._tag(bucket_of(log.app, log.name))}{kind}:{log.name}"

    def revoked(self, log: Log) -> str:
        return f"{self._tag(bucket_of(*log))}revoked:{log.app}:{_digest(log.name)}"

    def of_player(self, log: Log, kind: str) -> str:
        """Return the key of a kind whose last part is the player's name."""
        return kind.join(self.affixes(log))

    def ticket(self, digest: bytes) -> str:
        return f"{self._tag(_bucket_of_digest(digest))}ticket:{digest.hex()}"

    def session(self, digest: bytes) -> str:
        return f"{self._tag(_bucket_of_digest(digest))}session:{digest.hex()}"

    def due(self, bucket: int, app: App) -> str:
        return f"{self._tag(bucket)}due:{app}"

    def due_apps(self, bucket: int) -> str:
        return f"{self._tag(bucket)}due"

    def notices(self, bucket: int) -> str:
        return f"{self._channels}:{{{bucket}}}:notices"

    def sending(self, bucket: int) -> str:
        return f"{self._tag(bucket)}sending"

    def paused(self, bucket: int, app: App) -> str:
        return f"{self._tag(bucket)}paused:{app}"

    def schedule(self, bucket: int, app: App, schedule_id: str) -> str:
        return f"{self._tag(bucket)}schedule:{app}:{schedule_id}"

    def schedules(self, bucket: int, app: App) -> str:
        return f"{self._tag(bucket)}schedules:{app}"

    def named(self, log: Log, label: str) -> str:
        kind = f"named:{log.app}:{_digest(label)}"
        return f"{self._tag(bucket_of(log.app, log.name))}{kind}:{log.name}"

    def sends(self, app: App, campaign: str) -> str:
        return f"{self._tag(bucket_of(app, campaign))}sends:{app}:{campaign}"

    def slots(self, app: App, campaign: str) -> str:
        return f"{self._tag(bucket_of(app, campaign))}slots:{app}:{campaign}"

    def no_slots(self, bucket: int) -> str:
        """Return a key of a bucket that is never written."""
        return f"{self._tag(bucket)}slots:"

    def recipients(self, bucket: int, app: App, schedule_id: str) -> str:
        return f"{self._tag(bucket)}to:{app}:{schedule_id}"

    def cards(self, bucket: int, app: App, campaign: str) -> str:
        return f"{self._tag(bucket)}cards:{app}:{campaign}"

    def cards_of_bucket(self, bucket: int, app: App, campaign: str) -> str:
        """Return the key of the cards that are in a bucket themselves."""
        return f"{self._tag(bucket)}card:{app}:{campaign}"

    def card(self, app: App, campaign: str, card: str) -> str:
        return self.cards_of_bucket(bucket_of(app, card), app, campaign)

    def campaigns(self, app: App) -> str:
        return f"{self._tag(bucket_of(app, ''))}campaigns:{app}"

    def message(self, app: App, identifier: str) -> str:
        return f"{self._tag(bucket_of(app, identifier))}message:{app}:{identifier}"

    def sandboxes(self, app: App) -> str:
        return f"{self._tag(bucket_of(app, 'sandboxes'))}sandboxes:{app}"

    def rewriting(self, app: App, name: str) -> str:
        return f"{self._tag(bucket_of(app, name))}rewriting:{app}"

    def audit(self, app: App) -> str:
        return f"{self._tag(bucket_of(app, 'audit'))}audit:{app}"

    def rate(self, app: App, operation: str) -> str:
        return f"{self._tag(bucket_of(app, operation))}rate:{app}:{operation}"

    def quota(self, app: App, name: str) -> str:
        return f"{self._tag(bucket_of(app, name))}quota:{app}:{name}"

    def players(self, app: App, period: int) -> str:
        # The periods are counted together by one command, so they share a slot.
        return f"{self.quota(app, 'players')}:{period}"

    def request(self, app: App, idempotency_key: str) -> str:
        bucket = bucket_of(app, idempotency_key)
        return f"{self._tag(bucket)}request:{app}:{_digest(idempotency_key)}"

    def logs_pattern(self, app: App | None) -> str:
        """Return a pattern for SCAN that matches the logs of an app, or of all apps."""
        # The names of a namespace and of an app contain no character that a pattern
        # interprets.
        return f"{self.namespace}:{{*}}:log:{app or '*'}:*"

    def app_pattern(self, app: App, kind: str = "*") -> str:
        """
        Return a pattern for SCAN that matches, among others, the keys of an app.

        With `kind` those of this kind.
        """
        return f"{self.namespace}:{{*}}:{kind}:{app}*"

    def every_pattern(self, kind: str) -> str:
        """Return a pattern for SCAN that matches the keys of a kind."""
        return f"{self.namespace}:{{*}}:{kind}:*"

    def split(self, key: bytes) -> KeyParts | None:
        """Return the parts of a key with a bucket, None for any other key."""
        if (match := self._parts.fullmatch(key)) is None:
            return None
        bucket, kind, app, rest = match.groups()
        return KeyParts(int(bucket), kind.decode(), app.decode(), rest.decode())

    def app_of(self, key: bytes) -> str:
        """Return the name of the app that a key of this deployment belongs to."""
        parts = key[len(self.namespace) + 1 :].split(b":", 3)
        return parts[2].decode() if len(parts) > 2 else ""

    def _tag(self, bucket: int) -> str:
        return f"{self.namespace}:{{{bucket}}}:"

    def channel_of(self, log: Log) -> str:
        """Return the channel of a log. `channel` remembers it."""
        app, name = log
        return f"{self._channels}:{{{bucket_of(app, name)}}}:live:{app}:{name}"

    def affixes(self, log: Log) -> tuple[str, str]:
        """Return what precedes the kind in the keys of a log, and what follows it."""
        app, name = log
        return self._tags[bucket_of(app, name)], f":{app}:{name}"


@lru_cache(maxsize=64)
def keys_of(namespace: str = NAMESPACE, database: int = 0) -> Keys:
    """Return the names of a deployment, which share one cache in this process."""
    return Keys(namespace, database)
