"""
Every key and channel of the store: name, type, content, lifetime.

Knows names only. All keys of one player carry the hash tag of the player's bucket, one
of 256, so that one script may touch them on a cluster and one scheduler can poll all
buckets however many apps there are. The player comes last: it may hold any character.

Per player, with b = bucket of (app, player):

``{b}:log:app:player`` stream
    One item per entry, id ``<at_ms>-<offset>``; fields ``t`` the tag, ``n`` the
    fragment; then, where it has them, ``d`` the device it is for, ``r`` the id that it
    takes the place of, and ``w`` the id that it withdraws: such a one is no
    notification, and its fragment is empty. Lives for the retention after the last
    append.
``{b}:state:app:player`` hash
    ``epoch``; ``head``, ``ms`` and ``tag`` of the newest entry; ``base`` (every offset
    below it is done); ``marks``, a count of changes to the read marks; ``range``, the
    highest offset up to which all were marked; ``ended``, how many have expired, there
    since an entry of the log first could end; ``ends_at``, when the next one expires,
    in ms; ``acked``, the highest offset that a client said it has. Lives twice as long
    as the log, so that a player who was away finds offsets going on.
``{b}:done:app:player`` string
    Bitmap of done offsets from ``base``, a multiple of 8, on: read, or ended. Lives as
    the log does.
``{b}:reads:app:player`` hash
    When an entry was marked: offset -> ms, and ``<=N`` -> ms where all up to N were.
    Lives as the log does.
``{b}:ends:app:player`` zset
    Offsets of entries that end or have ended -> when, in ms to come; or, in the past,
    the same as a negative number, 1 for withdrawn, 2 for replaced, 3 for no
    notification at all, each half a unit further from 0 where it had been read before
    that. Lives as the log does.
``{b}:collapse:app:player`` hash
    Collapse key -> ``ms offset tag`` of the newest entry with it. Lives as the log
    does.
``{b}:mutes:app:player`` set
    Types of notification that the player does not want. Has no end.
``{b}:views:app:player`` hash
    What the player sees of audiences; its fields are told of in ``lua/_view.lua``. Has
    no end while there is a topic in it, else twice the retention after the last look.
``{b}:tally:app:audience`` hash
    How many players have read or confirmed an audience's entries: ``read <offset>`` and
    ``acked <offset>``. Lives as the log does.
``{b}:lease:app:player`` hash
    Open listeners: ``node:connection`` -> instance. Lives for a day after the last one
    was taken; a lease is void earlier when its node's heartbeat is.
``{b}:devices:app:player`` hash
    On which device a listener is, where it says so, and when that was last used:
    ``node:connection`` -> ``device ms``. Lives as the leases do, without which an item
    means nothing.
``{b}:live:app:player`` sharded channel
    Announcements, see `pubsub`.

An audience, a topic or everyone, has a log too, under a name that no player can have:
the character 1 with ``t`` and the topic, or with ``e``. It has the keys above as far as
they are needed.

Per idempotency key, each for 24 hours:

``{b}:once:app:digest of the key:player`` string
    What became of the key for that player; b is the player's, so that the append
    itself can write it.
``{k}:request:app:key`` string
    Digest of the request that used the key; k is the bucket of (app, key).

Of credentials:

``{b}:revoked:app:player`` string
    Unix time in seconds before which the player's tokens do not count. Lives until all
    of these have expired, a day and some.
``{k}:ticket:digest`` string
    A ticket by its digest; k is the digest's bucket. Four parts with a space between:
    whether it was used, 0 or 1; ms until when it has to be; ms at which its token ends;
    its caller as JSON. Lives for a minute, then while its stream is open and two
    minutes more.
``{k}:session:digest`` string
    A server session by its token's digest: the digest of the backend key that opened
    it. Lives for 24 hours after it was opened or renewed.

Of the timetable, b being the bucket that a schedule's id begins with: its player's
where it has a single one, its campaign's where it has one, else a random one:

``{b}:due:app`` zset
    ``app:id`` of every pending schedule of an app -> due time in ms.
``{b}:due`` zset
    App -> when the first of its pending schedules is due.
``{b}:sending`` zset
    ``app:id`` of every schedule whose audience is being served -> since when, in ms.
``{b}:schedule:app:id`` hash
    The schedule; see `scheduled`. Lives for 90 days after it was sent or cancelled.
``{b}:schedules:app``, ``{b}:named:app:label:player``, ``{b}:sends:app:campaign`` zsets
    Indexes: id -> when it was made; the label as a digest. Live as long as what they
    list can.
``{b}:slots:app:campaign`` set
    Schedules that hold one of a campaign's few slots. Has no end.
``{r}:to:app:id`` list
    Recipients of a schedule in bucket r that are not served yet, and a last item with
    their number. Lives for 90 days longer than a schedule waits, so that no outage is
    long enough to lose them.

Of campaigns, all without an end; a card is one of 1 to 128 characters' names:

``{c}:campaigns:app`` hash
    campaign -> record; c is the bucket of the app alone.
``{k}:card:app:campaign`` hash
    Card -> ``status version buckets player``: what holds, k being the card's bucket.
``{b}:cards:app:campaign`` hash
    The same by the bucket of the player, for sending: card -> ``status version
    player``, or ``moved version`` where the card has left.

Of an app:

``{k}:message:app:identifier`` string
    Text registered under an identifier; k is the bucket of (app, identifier). No end.
``{k}:rate:app:operation`` list
    When the last calls of an operation were let through, in ms. Lives for a second.
``{k}:quota:app:publishes``, ``{k}:quota:app:bytes`` string
    What is left in a bucket, and at what ms: ``left ms``. Lives until it is full.
``{k}:quota:app:pending`` zset
    Schedules that hold one of the app's places: id -> due ms. Lives for a month.
``{k}:quota:app:players:period`` HyperLogLog
    Players that were sent something within a period of 30 days, of an app that may have
    only so many. Lives as long as it is looked at, and a month more.

Global:

``streamer:apps`` hash: app -> record.
``{streamer:apps}:audiences`` hash: JSON of [issuer, audience] -> app; in the same slot.
``streamer:keys`` hash: digest of a backend key -> record.
``streamer:nodes`` zset: node -> its last heartbeat, in ms of the store's clock.
``streamer:fence`` string, empty: written to be waited for, see `replicated`.
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
    "due_key",
    "inbox_keys",
    "lease_key",
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
    "tally_key",
    "ticket_key",
    "views_key",
]

BUCKETS: Final = 256

APPS: Final = "streamer:apps"
AUDIENCES: Final = f"{{{APPS}}}:audiences"
KEYS: Final = "streamer:keys"
NODES: Final = "streamer:nodes"
FENCE: Final = "streamer:fence"


def _bucket(app: App, name: str) -> int:
    # CRC-32 is the same on every node and version, which `hash()` is not.
    return zlib.crc32(f"{app}\0{name}".encode()) % BUCKETS


def _affixes(log: Log) -> tuple[str, str]:
    app, name = log
    return f"{{{_bucket(app, name)}}}:", f":{app}:{name}"


# A script takes a handful of keys of one log.
_cached_affixes: Final = lru_cache(maxsize=4_096)(_affixes)


def _digest(text: str) -> str:
    # Text may hold any character, as the player may: only one of them can be last.
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _player_affixes(log: Log) -> tuple[str, str]:
    return f"{{{_bucket(log.app, log.name)}}}:", f":{log.name}"


class InboxKeys(NamedTuple):
    """The keys that every inbox script takes, in their order."""

    state: str
    log: str
    done: str
    reads: str
    ends: str
    collapse: str


def inbox_keys(log: Log) -> InboxKeys:
    """Return the keys of a log."""
    head, tail = _cached_affixes(log)
    return InboxKeys(
        f"{head}state{tail}",
        f"{head}log{tail}",
        f"{head}done{tail}",
        f"{head}reads{tail}",
        f"{head}ends{tail}",
        f"{head}collapse{tail}",
    )


def state_key(log: Log) -> str:
    """Return the first of a log's keys alone."""
    # That of each log there is, in turn: those who come back soon shall stay cached.
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
    """Return the bucket of a player, or of anything else that has a name in an app."""
    return _bucket(app, name)


def due_key(bucket: int, app: App) -> str:
    return f"{{{bucket}}}:due:{app}"


def due_apps_key(bucket: int) -> str:
    return f"{{{bucket}}}:due"


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
    # Those of all periods are counted together, so they share a slot.
    return f"{quota_key(app, 'players')}:{period}"


def request_key(app: App, idempotency_key: str) -> str:
    return f"{{{_bucket(app, idempotency_key)}}}:request:{app}:{idempotency_key}"
