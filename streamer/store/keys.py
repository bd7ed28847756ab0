"""
Every key and channel of the store: name, type, content, lifetime.

Knows names only. All keys of one player carry the hash tag of the player's bucket, one
of 256, so that one script may touch them on a cluster and one scheduler can poll all
buckets however many apps there are. The player comes last: it may hold any character.

Per player, with b = bucket of (app, player):

``{b}:log:app:player`` stream
    One item per entry, id ``<at_ms>-<offset>``; fields ``t`` the tag, ``n`` the
    fragment. Lives for the retention after the last append.
``{b}:state:app:player`` hash
    ``epoch``; ``head``, ``ms`` and ``tag`` of the newest entry; ``base`` (every offset
    below it is done); ``marks``, a count of changes to the read marks. Lives twice as
    long as the log, so that a player who was away finds offsets going on.
``{b}:done:app:player`` string
    Bitmap of done offsets from ``base``, a multiple of 8, on. Lives as the log does.
``{b}:reads:app:player`` hash
    When an entry was marked: offset -> ms, and ``<=N`` -> ms where all up to N were.
    Lives as the log does.
``{b}:lease:app:player`` hash
    Open listeners: ``node:connection`` -> instance. Lives for a day after the last one
    was taken; a lease is void earlier when its node's heartbeat is.
``{b}:live:app:player`` sharded channel
    Announcements, see `relay`.

Per idempotency key, each for 24 hours:

``{b}:once:app:player:key`` string
    What became of the key for that player; b is the player's, so that the append
    itself can write it.
``{k}:request:app:key`` string
    Digest of the request that used the key; k is the bucket of (app, key).

Of the timetable, b being the bucket that a schedule's id begins with: its player's
where it has a single one, its campaign's where it has one, else a random one:

``{b}:due`` zset
    ``app:id`` of every pending schedule -> due time in ms.
``{b}:sending`` zset
    ``app:id`` of every schedule whose audience is being served -> since when, in ms.
``{b}:schedule:app:id`` hash
    The schedule; see `timetable`. Lives for 90 days after it was sent or cancelled.
``{b}:schedules:app``, ``{b}:named:app:player:label``, ``{b}:sends:app:campaign`` zsets
    Indexes: id -> when it was made. Live as long as what they list can.
``{b}:slots:app:campaign`` set
    Schedules that hold one of a campaign's few slots.
``{r}:to:app:id`` list
    Recipients of a schedule in bucket r that are not served yet, and a last item with
    their number. Lives for as long as a schedule can wait, and a day.

Global:

``streamer:apps`` hash: app -> record.
``streamer:keys`` hash: digest of a backend key -> record.
``streamer:nodes`` zset: node -> its last heartbeat, in ms of the store's clock.
"""

from __future__ import annotations

import zlib
from typing import Final

from ..model import App, Log

__all__ = [
    "APPS",
    "BUCKETS",
    "KEYS",
    "NODES",
    "bucket_of",
    "cards_key",
    "channel",
    "due_key",
    "inbox_keys",
    "lease_key",
    "named_key",
    "once_key",
    "recipients_key",
    "request_key",
    "schedule_key",
    "schedules_key",
    "sending_key",
    "sends_key",
    "slots_key",
]

BUCKETS: Final = 256

APPS: Final = "streamer:apps"
KEYS: Final = "streamer:keys"
NODES: Final = "streamer:nodes"


def _bucket(app: App, name: str) -> int:
    # CRC-32 is the same on every node and version, which `hash()` is not.
    return zlib.crc32(f"{app}\0{name}".encode()) % BUCKETS


def _around_kind(log: Log) -> tuple[str, str]:
    app, player = log
    return f"{{{_bucket(app, player)}}}:", f":{app}:{player}"


def inbox_keys(log: Log) -> tuple[str, str, str, str]:
    """Return the keys that every inbox script takes, in their order."""
    head, tail = _around_kind(log)
    return (
        f"{head}state{tail}",
        f"{head}log{tail}",
        f"{head}done{tail}",
        f"{head}reads{tail}",
    )


def lease_key(log: Log) -> str:
    return "lease".join(_around_kind(log))


def channel(log: Log) -> str:
    return "live".join(_around_kind(log))


def once_key(log: Log, idempotency_key: str) -> str:
    return f"{'once'.join(_around_kind(log))}:{idempotency_key}"


def bucket_of(app: App, name: str) -> int:
    """Return the bucket of a player, or of anything else that has a name in an app."""
    return _bucket(app, name)


def due_key(bucket: int) -> str:
    return f"{{{bucket}}}:due"


def sending_key(bucket: int) -> str:
    return f"{{{bucket}}}:sending"


def schedule_key(bucket: int, app: App, schedule_id: str) -> str:
    return f"{{{bucket}}}:schedule:{app}:{schedule_id}"


def schedules_key(bucket: int, app: App) -> str:
    return f"{{{bucket}}}:schedules:{app}"


def named_key(log: Log, label: str) -> str:
    return f"{'named'.join(_around_kind(log))}:{label}"


def sends_key(app: App, campaign: str) -> str:
    return f"{{{_bucket(app, campaign)}}}:sends:{app}:{campaign}"


def slots_key(app: App, campaign: str) -> str:
    return f"{{{_bucket(app, campaign)}}}:slots:{app}:{campaign}"


def recipients_key(bucket: int, app: App, schedule_id: str) -> str:
    return f"{{{bucket}}}:to:{app}:{schedule_id}"


def cards_key(bucket: int, app: App, campaign: str) -> str:
    return f"{{{bucket}}}:cards:{app}:{campaign}"


def request_key(app: App, idempotency_key: str) -> str:
    return f"{{{_bucket(app, idempotency_key)}}}:request:{app}:{idempotency_key}"
