"""
The stored form of a schedule: its id, its keys and its record.

Decides how ids are made, and how records are encoded and parsed. Knows the fields of
the record; the scripts in ``lua/`` read some of them. Knows nothing of which script is
called, nor when.

The first byte of an id is the bucket of the record, so no index is needed to find it. A
schedule for one player is in the player's bucket, so that one script can remove it from
the timetable and append it to the player's log.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Mapping
from typing import Final, NamedTuple

from ...core.schedule import Schedule, ScheduleState
from ...core.trace_context import TraceContext
from ...model import App, iso_time, parse_app
from ..keys import BUCKETS, Keys
from ..logs.settings import DAY_MS

__all__ = [
    "KEPT_MS",
    "PAUSED_MAX_MS",
    "ScheduleRef",
    "due_at_json",
    "new_schedule_id",
    "new_schedule_ref",
    "parse_member",
    "parse_record",
    "parse_schedule_id",
    "record_args",
    "require_app",
]

KEPT_MS: Final = 90 * DAY_MS
"""How long a schedule is kept after it was sent or cancelled."""

PAUSED_MAX_MS: Final = 90 * DAY_MS
"""How long a schedule may be paused; then it is cancelled."""


class ScheduleRef(NamedTuple):
    """Identifies a schedule: its bucket, app and id."""

    bucket: int
    app: App
    id: str

    @classmethod
    def of(cls, schedule: Schedule) -> ScheduleRef:
        """Return the reference of a schedule with an id of `new_schedule_id`."""
        ref = parse_schedule_id(schedule.app, schedule.id)
        assert ref is not None
        return ref

    @property
    def member(self) -> str:
        """Its member in zsets of schedules, some of which have several apps."""
        return f"{self.app}:{self.id}"

    def record_key(self, keys: Keys) -> str:
        """Return the key of its record."""
        return keys.schedule(*self)

    def keys(self, keys: Keys) -> tuple[str, str, str]:
        """Return the keys of its record and of the zsets that find it when due."""
        return (
            keys.schedule(*self),
            keys.due(self.bucket, self.app),
            keys.due_apps(self.bucket),
        )


def new_schedule_id(bucket: int, *, seed: str = "") -> str:
    """
    Return an id for a schedule in `bucket`: a UUID of version 8 (RFC 9562, 5.8).

    The same `seed` gives the same id, so a repeated request names the same schedule.
    """
    raw = hashlib.sha256(seed.encode()).digest() if seed else secrets.token_bytes(16)
    number = int.from_bytes(bytes([bucket]) + raw[1:16])
    number = number & ~(0xF << 76 | 0b11 << 62) | 0x8 << 76 | 0b10 << 62
    return str(uuid.UUID(int=number))


def new_schedule_ref(app: App, bucket: int | None, *, seed: str = "") -> ScheduleRef:
    """
    Return a reference for a new schedule; without a bucket, in a random one.

    The same `seed` gives the same reference, including a random bucket.
    """
    if bucket is None:
        # A byte of the digest that the id does not contain.
        raw = hashlib.sha256(seed.encode()).digest()[-1] if seed else None
        bucket = raw if raw is not None else secrets.randbelow(BUCKETS)
    assert 0 <= bucket < BUCKETS
    return ScheduleRef(bucket, app, new_schedule_id(bucket, seed=seed))


def parse_schedule_id(app: App, schedule_id: str) -> ScheduleRef | None:
    """Return the reference that an id is part of, or None if it is no schedule id."""
    try:
        number = uuid.UUID(schedule_id)
    except ValueError:
        return None
    if str(number) != schedule_id or number.version != 8:
        return None
    return ScheduleRef(number.bytes[0], app, schedule_id)


def parse_member(bucket: int, member: bytes) -> ScheduleRef:
    """
    Return the reference of a `ScheduleRef.member` in a bucket.

    Raises:
        ValueError: It is the member of no schedule in this bucket.

    """
    app, _, schedule_id = member.partition(b":")
    ref = parse_schedule_id(require_app(app), schedule_id.decode())
    if ref is None or ref.bucket != bucket:
        raise ValueError("not the member of a schedule in this bucket")
    return ref


def require_app(name: bytes) -> App:
    """
    Return a stored name as an app. It was valid when it was stored.

    Raises:
        ValueError: It is not the name of an app.

    """
    app = parse_app(name.decode())
    if app is None:
        raise ValueError("not the name of an app")
    return app


def due_at_json(schedule: Schedule) -> str:
    """Return the member that is inserted into a fragment that is sent late."""
    return f'"due_at":"{iso_time(schedule.due_ms)}"'


def record_args(schedule: Schedule) -> list[str | bytes | int]:
    """
    Return the fields of a schedule's record, each followed by its value.

    The scripts add its times and its state.
    """
    fields: dict[str, str | bytes | int] = {
        "fragment": schedule.fragment,
        "player": schedule.player or "",
        "campaign": schedule.campaign,
        "buckets": ",".join(map(str, schedule.buckets)),
        "total": schedule.total,
        "spread": schedule.spread_ms,
        "source": schedule.source,
        "label": schedule.label,
        "latest": int(schedule.to_latest),
        "type": schedule.type,
        "expires": schedule.expires_ms,
        "ttl": schedule.ttl_ms,
        "collapse": schedule.collapse_key,
    }
    if schedule.spelling:
        fields["spelling"] = schedule.spelling
    if schedule.trace is not None:
        fields["trace"] = schedule.trace.record
    return [part for field in fields.items() for part in field]


def parse_record(ref: ScheduleRef, reply: list[bytes]) -> Schedule | None:
    """Return the schedule of a record, or None if there is no such record."""
    if not reply:
        return None
    fields: Mapping[bytes, bytes] = dict(zip(reply[::2], reply[1::2], strict=True))

    def number(name: bytes) -> int:
        return int(fields.get(name, b"0"))

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    player = text(b"player")
    return Schedule(
        ref.app,
        ref.id,
        ScheduleState(text(b"state")),
        number(b"due"),
        number(b"created"),
        fields[b"fragment"],
        player=player or None,
        campaign=text(b"campaign"),
        buckets=tuple(int(b) for b in text(b"buckets").split(",") if b),
        total=number(b"total"),
        delivered=number(b"delivered"),
        spread_ms=number(b"spread"),
        begun_ms=number(b"begun"),
        settled_ms=number(b"settled"),
        source=text(b"source"),
        label=text(b"label"),
        to_latest=bool(number(b"latest")),
        type=text(b"type"),
        expires_ms=number(b"expires"),
        ttl_ms=number(b"ttl"),
        collapse_key=text(b"collapse"),
        spelling=text(b"spelling"),
        trace=TraceContext.of_record(text(b"trace")),
        paused_ms=number(b"paused"),
        resumed_ms=number(b"resumed"),
        held_ms=number(b"held"),
    )
