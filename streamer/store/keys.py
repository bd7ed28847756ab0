"""
Every key and channel in Redis: name, type, content and lifetime.

This page is the reference. The functions below build the names and know nothing else.

Names
=====
``{b}:log:app:player`` is a pattern: ``app`` is the app's name, ``player`` the player's
as `model.parse_player` returns it. The player comes last, because its name may contain
any character, colons too. The braces are part of the key. They hold its hash tag, a
*bucket* from 0 to 255, so keys of one bucket share a slot of Redis Cluster and one
script can use them together. A bucket is the CRC-32 of the app, a zero byte and a
second name, modulo 256; the letter in a pattern says which name::

    {b}  the player's       {k}  that of the item itself, such as a card or a request
    {c}  the empty name     {s}  the schedule's, see Timetable

All keys of one player have one bucket. However many apps there are, a scheduler has 256
buckets to look at.

An audience (a topic, or everyone) has a log too. In place of ``player`` its keys have
the character U+0001 followed by ``t`` and the topic, or by ``e`` for everyone. No
player's name can contain that character.

Times are Unix time in ms by the store's clock, except where another unit is named.
``at_us`` is the time of an entry, in microseconds.
*Retention* is the age at which entries leave a log, 90 days by default. *No expiry*
means that the key stays until its content is deleted.

The newest entry of the player ``ann`` of the app ``demo``, and where her log stands::

    redis-cli XREVRANGE '{19}:log:demo:ann' + - COUNT 1
    redis-cli HGETALL '{19}:state:demo:ann'

Logs
====
Six keys per log, of a player or an audience. An entry is *done* when it is read or has
ended (expired, withdrawn or replaced); what is not done is unread.

``{b}:log:app:player`` stream
    One item per entry, with the id ``<at_us>-<offset>``. Fields: ``t`` the tag, ``n``
    the fragment, and, if the entry has them, ``d`` the only device it is for, ``r`` the
    id of the notification that it replaces, ``w`` the id of the notification that it
    withdraws. An entry with ``w`` is a control entry; its fragment is empty.
    Expires: retention + 1 day after the last append, renewed at most once an hour.
``{b}:state:app:player`` hash
    ``epoch``; ``head``, ``at_us`` and ``tag``, the offset, time and tag of the newest
    entry; ``base``, below which every offset is done; ``marks``, a count of changes to
    the read marks; ``range``, the highest offset up to which all entries were marked at
    once; ``acked``, the highest offset that a client has acknowledged. Once the log has
    had an entry that can end, also ``ended``, how many have expired, and ``ends_at``,
    when the next one expires.
    Expires: after twice the lifetime of the log, so that offsets continue when a player
    returns after a long absence.
``{b}:done:app:player`` string
    Bitmap, one bit per offset from ``base`` on: 1 is done. ``base`` is a multiple of 8.
    Expires with the log.
``{b}:reads:app:player`` hash
    When entries were marked as read: offset -> time; ``<=N`` -> time at which all
    entries up to offset N were.
    Expires with the log.
``{b}:ends:app:player`` zset
    Offset -> how the entry ends. A score of 9 or more is the time at which it will
    expire. An entry that has ended has the negative of that time, or 1 for withdrawn, 2
    for replaced, 3 for a control entry. If it was read before it ended, its score is
    half a unit further from 0.
    Expires with the log.
``{b}:collapse:app:player`` hash
    Collapse key -> ``at_us offset tag`` of the newest entry with that key.
    Expires with the log.

Beside the log of a player:

``{b}:mutes:app:player`` set
    Types of notification that the player has muted, at most 100. No expiry.
``{b}:views:app:player`` hash
    The audiences that the player has joined, with the player's marks in each;
    ``lua/views/_view.lua`` lists the fields. No expiry while the player has joined a
    topic, otherwise twice the retention + 2 days after the last read.
``{b}:live:app:player`` sharded channel
    Announcements; `store.client.pubsub` has the format. An audience has one too.

Beside the log of an audience:

``{b}:tally:app:audience`` hash
    How many players have read or acknowledged an entry: ``read <offset>``, ``acked
    <offset>``. Expires with the log.

Connections
===========
``{b}:lease:app:player`` hash
    Leases of open connections: ``node:connection`` -> the client's instance, or an
    empty string. A lease is void if its node has no heartbeat in ``streamer:nodes``.
    Expires: 25 hours after the last lease was acquired or renewed.
``{b}:devices:app:player`` hash
    Devices of these connections: ``node:connection`` -> ``device time``, the time of
    its last use. An item without a lease means nothing. Expires as the leases do.

Idempotency
===========
Both expire after 24 hours.

``{b}:once:app:digest of the key:player`` string
    Result of the appends to this player's log under an idempotency key: the digest of
    the request, then what ``lua/logs/append.lua`` returned. In the player's slot, so
    that the append writes it.
``{k}:request:app:key`` string
    Digest of the request that used the idempotency key.

Credentials
===========
``{b}:revoked:app:player`` string
    Unix time in *seconds* before which the player's tokens are revoked. Expires when
    all of those have expired, after 24 hours and 1 minute.
``{k}:ticket:digest`` string
    A ticket, by its digest: ``used first ends caller``. ``used`` is 0 or 1, ``first``
    the time by which it has to be used, ``ends`` the time at which its token expires,
    ``caller`` JSON. The bucket is the CRC-32 of the digest alone.
    Expires: after 1 minute if unused, 3 minutes after the last renewal while its stream
    is open, 2 minutes after the stream has closed.
``{k}:session:digest`` string
    A server session, by the digest of its token: the digest of the backend key that
    opened it. The bucket is the CRC-32 of the digest alone. Expires 24 hours after it
    was opened or renewed.

Timetable
=========
A schedule's id begins with its bucket, {s}: that of its player if it has a single one,
that of its campaign if it has one, otherwise a random one.

``{s}:due:app`` zset
    ``app:id`` of each pending schedule of an app -> the time it is due. No expiry.
``{s}:due`` zset
    App -> the time its first pending schedule is due. No expiry.
``{s}:notices`` sharded channel
    Notices for schedulers; `store.scheduling.notices` has the format.
``{s}:sending`` zset
    ``app:id`` of each schedule that is being sent to an audience -> when that began.
    No expiry.
``{s}:schedule:app:id`` hash
    The schedule; `store.scheduling.schedule_records` has the fields. Expires 90 days
    after it was sent or cancelled.
``{s}:schedules:app`` zset
    All schedules of an app in the bucket: id -> when it was created. Expires 121 days
    after the last one was added, as the next two do.
``{s}:named:app:digest of the label:player`` zset
    The same for one player's schedules with a label.
``{s}:sends:app:campaign`` zset
    The same for the sends of a campaign.
``{s}:slots:app:campaign`` set
    Ids of the schedules that hold one of a campaign's slots. No expiry.
``{b}:to:app:id`` list
    Recipients of a schedule in bucket b that are not served yet. The last item is a
    zero byte and their total number; it stays when all are served.
    Expires: after 120 days, the longest wait and the longest outage, or 1 day after
    the bucket was served.

Campaigns
=========
None of these keys expires.

``{c}:campaigns:app`` hash
    Campaign -> its record, JSON.
``{k}:card:app:campaign`` hash
    Card -> ``status version buckets player``. This record is authoritative. The bucket
    is the card's; ``buckets`` are all that its players were in.
``{b}:cards:app:campaign`` hash
    A copy in the bucket of the player, for sending: card -> ``status version player``,
    or ``moved version`` if the card has left the bucket.

Apps
====
``{k}:message:app:identifier`` string
    Text registered under an identifier. No expiry.
``{k}:rate:app:operation`` list
    Times of the last calls of an operation that were admitted, newest first. Expires
    after 1 s.
``{k}:quota:app:publishes``, ``{k}:quota:app:bytes`` string
    Permits left in a token bucket, and the time of that: ``left time``. Expires when
    the bucket is full again.
``{k}:quota:app:pending`` zset
    Schedules that hold one of the app's schedule slots: id -> the time they are due.
    Expires after 31 days.
``{k}:quota:app:players:period`` HyperLogLog
    Players who were sent something in a period of 30 days, counted if the app has a
    quota of players. All periods share a bucket. Expires one period after the last
    count that includes it.

Global
======
None of these keys expires.

``streamer:apps`` hash
    App -> its record, JSON.
``{streamer:apps}:audiences`` hash
    JSON of [issuer, audience] -> app. In the slot of ``streamer:apps``.
``streamer:keys`` hash
    Digest of a backend key -> its record, JSON.
``streamer:nodes`` zset
    Node -> its last heartbeat. Nodes without one for an hour are deleted.
``streamer:fence`` string
    Empty; written to be waited for by ``WAIT``, see `store.client.replicated`.
"""

from __future__ import annotations

import hashlib
import zlib
from functools import lru_cache
from typing import Final, NamedTuple

from ..model import App, Log

__all__ = [
    "APPS",
    "AUDIENCES",
    "BUCKETS",
    "FENCE",
    "KEYS",
    "NODES",
    "InboxKeys",
    "bucket_of",
    "campaigns_key",
    "card_key",
    "cards_key",
    "channel",
    "devices_key",
    "due_apps_key",
    "due_channel",
    "due_key",
    "inbox_keys",
    "lease_key",
    "logs_pattern",
    "message_key",
    "mutes_key",
    "named_key",
    "once_key",
    "players_key",
    "quota_key",
    "rate_key",
    "recipients_key",
    "request_key",
    "revoked_key",
    "schedule_key",
    "schedules_key",
    "sending_key",
    "sends_key",
    "session_key",
    "slots_key",
    "state_key",
    "tally_key",
    "ticket_key",
    "views_key",
]

BUCKETS: Final = 256
"""Hash tags in use. Part of every key, so it cannot change in a store with data."""

APPS: Final = "streamer:apps"
AUDIENCES: Final = f"{{{APPS}}}:audiences"
KEYS: Final = "streamer:keys"
NODES: Final = "streamer:nodes"
FENCE: Final = "streamer:fence"


def _bucket(app: App, name: str) -> int:
    # CRC-32 is the same on every node and in every version of Python, unlike `hash`.
    return zlib.crc32(f"{app}\0{name}".encode()) % BUCKETS


def _affixes(log: Log) -> tuple[str, str]:
    app, name = log
    return f"{{{_bucket(app, name)}}}:", f":{app}:{name}"


# A script takes several keys of one log.
_cached_affixes: Final = lru_cache(maxsize=4_096)(_affixes)


def _digest(text: str) -> str:
    # A label or key may contain any character, as a player's name may, and only one of
    # them can be the last part of a key.
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _player_affixes(log: Log) -> tuple[str, str]:
    return f"{{{_bucket(log.app, log.name)}}}:", f":{log.name}"


class InboxKeys(NamedTuple):
    """The keys of a log, in the order in which every inbox script takes them."""

    state: str
    log: str
    done: str
    reads: str
    ends: str
    collapse: str


def inbox_keys(log: Log) -> InboxKeys:
    """Return the six keys of a log."""
    head, tail = _cached_affixes(log)
    return InboxKeys(
        f"{head}state{tail}",
        f"{head}log{tail}",
        f"{head}done{tail}",
        f"{head}reads{tail}",
        f"{head}ends{tail}",
        f"{head}collapse{tail}",
    )


def logs_pattern(app: App | None) -> str:
    """Return a pattern for SCAN that matches the logs of an app, or of all apps."""
    # The name of an app contains no character that a pattern interprets.
    return f"{{*}}:log:{app or '*'}:*"


def state_key(log: Log) -> str:
    """Return the first of a log's keys alone."""
    # Not cached: peeks take the state of every log in turn, and would evict the logs
    # that are used again soon.
    return "state".join(_affixes(log))


def tally_key(audience: Log) -> str:
    return "tally".join(_cached_affixes(audience))


def views_key(log: Log) -> str:
    return "views".join(_cached_affixes(log))


def mutes_key(log: Log) -> str:
    return "mutes".join(_cached_affixes(log))


def lease_key(log: Log) -> str:
    return "lease".join(_cached_affixes(log))


def devices_key(log: Log) -> str:
    return "devices".join(_cached_affixes(log))


def channel(log: Log) -> str:
    return "live".join(_cached_affixes(log))


def once_key(log: Log, idempotency_key: str) -> str:
    return f"once:{log.app}:{_digest(idempotency_key)}".join(_player_affixes(log))


def revoked_key(log: Log) -> str:
    return "revoked".join(_cached_affixes(log))


def ticket_key(digest: bytes) -> str:
    return f"{{{zlib.crc32(digest) % BUCKETS}}}:ticket:{digest.hex()}"


def session_key(digest: bytes) -> str:
    return f"{{{zlib.crc32(digest) % BUCKETS}}}:session:{digest.hex()}"


def bucket_of(app: App, name: str) -> int:
    """Return the bucket of a player, or of another name within an app."""
    return _bucket(app, name)


def due_key(bucket: int, app: App) -> str:
    return f"{{{bucket}}}:due:{app}"


def due_apps_key(bucket: int) -> str:
    return f"{{{bucket}}}:due"


def due_channel(bucket: int) -> str:
    return f"{{{bucket}}}:notices"


def sending_key(bucket: int) -> str:
    return f"{{{bucket}}}:sending"


def schedule_key(bucket: int, app: App, schedule_id: str) -> str:
    return f"{{{bucket}}}:schedule:{app}:{schedule_id}"


def schedules_key(bucket: int, app: App) -> str:
    return f"{{{bucket}}}:schedules:{app}"


def named_key(log: Log, label: str) -> str:
    return f"named:{log.app}:{_digest(label)}".join(_player_affixes(log))


def sends_key(app: App, campaign: str) -> str:
    return f"{{{_bucket(app, campaign)}}}:sends:{app}:{campaign}"


def slots_key(app: App, campaign: str) -> str:
    return f"{{{_bucket(app, campaign)}}}:slots:{app}:{campaign}"


def recipients_key(bucket: int, app: App, schedule_id: str) -> str:
    return f"{{{bucket}}}:to:{app}:{schedule_id}"


def cards_key(bucket: int, app: App, campaign: str) -> str:
    return f"{{{bucket}}}:cards:{app}:{campaign}"


def card_key(app: App, campaign: str, card: str) -> str:
    return f"{{{_bucket(app, card)}}}:card:{app}:{campaign}"


def campaigns_key(app: App) -> str:
    return f"{{{_bucket(app, '')}}}:campaigns:{app}"


def message_key(app: App, identifier: str) -> str:
    return f"{{{_bucket(app, identifier)}}}:message:{app}:{identifier}"


def rate_key(app: App, operation: str) -> str:
    return f"{{{_bucket(app, operation)}}}:rate:{app}:{operation}"


def quota_key(app: App, name: str) -> str:
    return f"{{{_bucket(app, name)}}}:quota:{app}:{name}"


def players_key(app: App, period: int) -> str:
    # The periods are counted together by one command, so they share a slot.
    return f"{quota_key(app, 'players')}:{period}"


def request_key(app: App, idempotency_key: str) -> str:
    return f"{{{_bucket(app, idempotency_key)}}}:request:{app}:{idempotency_key}"
