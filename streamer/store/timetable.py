"""
The timetable: what is to be sent, when, and how far it has got.

Decides how a schedule is written, moved, cancelled and fired, each one script in one
slot. Knows the scripts in ``lua/`` and the shape of their replies. Knows nothing of
who may do what, nor of when to look: `service.scheduler` does.

An id names its own place: its first byte is the bucket of its record, so no index is
needed to find it. A schedule for one player lies in the player's bucket, so that taking
it out of the timetable and appending it to the inbox is one step. A schedule for an
audience is begun in its own bucket, which decides a race with a cancellation, and then
served bucket by bucket, each step taking recipients off a list and appending to their
logs at once. Whoever dies in between leaves a list that says where to go on.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..core.schedule import LATE_AFTER_MS, Schedule, State
from ..model import App, Log, Player, iso_time, new_epoch, new_tag, parse_app
from .inbox import DAY_MS, INLINE_MAX
from .keys import (
    BUCKETS,
    bucket_of,
    cards_key,
    channel,
    due_key,
    inbox_keys,
    recipients_key,
    schedule_key,
    schedules_key,
    sending_key,
)
from .link import Link, Reply, Script, ScriptCall

__all__ = ["Due", "Entered", "Timetable", "new_schedule_id"]

KEPT_MS: Final = 90 * DAY_MS
"""How long a schedule that is sent or cancelled can be asked for."""

INDEX_MS: Final = 31 * DAY_MS + KEPT_MS
RECIPIENTS_MS: Final = 32 * DAY_MS

_SCHEDULE: Final = Script("schedule", behind=("_inbox", "_schedule"))
_CANCEL: Final = Script("cancel", behind=("_inbox", "_schedule"))
_FIRE: Final = Script("fire", behind=("_inbox", "_append", "_schedule"))
_BEGIN: Final = Script("begin", behind=("_inbox", "_schedule"))
_ENLIST: Final = Script("enlist")
_DELIVER: Final = Script("deliver", behind=("_inbox", "_append", "_schedule"))
_FINISH: Final = Script("finish", behind=("_inbox", "_schedule"))


class Entered(NamedTuple):
    """What became of `Timetable.add`: it is there, or was before, or had no slot."""

    added: bool
    full: bool = False


class Due(NamedTuple):
    """A schedule's name in the timetable."""

    bucket: int
    app: App
    id: str

    @property
    def member(self) -> str:
        return f"{self.app}:{self.id}"


def new_schedule_id(bucket: int, *, seed: str = "") -> str:
    """
    Return an id for a schedule in `bucket`: a UUID of version 8 (RFC 9562, 5.8).

    With a `seed` the same id comes again: a repeated request names the same schedule.
    """
    raw = hashlib.sha256(seed.encode()).digest() if seed else secrets.token_bytes(16)
    number = int.from_bytes(bytes([bucket]) + raw[1:16])
    number = number & ~(0xF << 76 | 0b11 << 62) | 0x8 << 76 | 0b10 << 62
    return str(uuid.UUID(int=number))


def parse_due(app: App, schedule_id: str) -> Due | None:
    """Return the place that an id names, or None if it is none of ours."""
    try:
        number = uuid.UUID(schedule_id)
    except ValueError:
        return None
    if str(number) != schedule_id or number.version != 8:
        return None
    return Due(number.bytes[0], app, schedule_id)


class Timetable:
    """
    All schedules of the store.

    Args:
        link: The way to the store.
        retention_ms: Age at which an entry leaves an inbox.
        entries_max: Entries kept per player.
        clock_ms: Gives the time to use; 0 means the store's own.

    """

    def __init__(
        self,
        link: Link,
        *,
        retention_ms: int = 90 * DAY_MS,
        entries_max: int = 10_000,
        clock_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._link = link
        self._retention_ms = retention_ms
        self._entries_max = entries_max
        self._clock_ms = clock_ms

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreAway."""
        seconds, micros = await self._link.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def enlist(self, due: Due, players: Iterable[Player]) -> list[int]:
        """
        Write down the recipients of a schedule that is yet to be added.

        Returns their buckets. Doing it again changes nothing. Raises as `Link.run`.
        """
        by_bucket: dict[int, list[Player]] = {}
        for player in players:
            by_bucket.setdefault(bucket_of(due.app, player), []).append(player)
        calls = [
            ScriptCall(
                _ENLIST,
                (recipients_key(bucket, due.app, due.id),),
                (RECIPIENTS_MS, *names),
            )
            for bucket, names in by_bucket.items()
        ]
        for reply in await self._link.run_many(calls):
            if isinstance(reply, Exception):
                raise reply
        return sorted(by_bucket)

    async def add(
        self,
        schedule: Schedule,
        *,
        indexes: Sequence[str] = (),
        slots: str = "",
        slots_max: int = 0,
    ) -> Entered:
        """
        Enter a schedule, in one step. One that is there already stays as it is.

        Args:
            schedule: What to enter; its state and times but `due_ms` are not looked at.
            indexes: Keys of zsets in its slot that shall list it.
            slots: Key of a set in its slot, of which it has to get one of `slots_max`.
            slots_max: How many may be in there; 0 for no such limit.

        Raises:
            StoreAway: It was not entered.
            OutcomeUnknown: Adding it again is harmless.

        """
        due = _due_of(schedule)
        fields = {
            "fragment": schedule.fragment,
            "player": schedule.player or "",
            "campaign": schedule.campaign,
            "buckets": ",".join(map(str, schedule.buckets)),
            "total": schedule.total,
            "spread": schedule.spread_ms,
            "source": schedule.source,
            "label": schedule.label,
        }
        keys = [
            self._record(due),
            due_key(due.bucket),
            schedules_key(due.bucket, due.app),
            *indexes,
        ]
        if slots_max:
            keys.append(slots)
        args: list[str | bytes | int] = [
            *self._times(),
            due.member,
            due.id,
            schedule.due_ms,
            slots_max,
            INDEX_MS,
        ]
        for name, value in fields.items():
            args += [name, value]
        entered = await self._link.run(_SCHEDULE, keys, args)
        return Entered(added=entered == 1, full=entered == -1)

    async def get(self, app: App, schedule_id: str) -> Schedule | None:
        """Return a schedule of an app, or None. Raises StoreAway."""
        due = parse_due(app, schedule_id)
        if due is None:
            return None
        (schedule,) = await self.get_many([due])
        return schedule

    async def get_many(self, dues: Sequence[Due]) -> list[Schedule | None]:
        """Return schedules in the order asked for. Raises StoreAway."""
        replies = await self._link.call_many(
            [("HGETALL", self._record(due)) for due in dues]
        )
        return [
            _schedule(due, _ok(reply)) for due, reply in zip(dues, replies, strict=True)
        ]

    async def cancel(
        self, due: Due, *, slots: str = "", due_ms: int | None = None
    ) -> tuple[State | None, bool]:
        """
        Cancel a schedule, or with `due_ms` move it, if it has not begun.

        Returns the state it is in then (None: there is none), and whether that was
        done by this call. Raises as `add`; a second call is harmless.
        """
        state, done = await self._link.run(
            _CANCEL,
            (self._record(due), due_key(due.bucket), slots or self._no_slots(due)),
            (
                *self._times(),
                due.member,
                due.id,
                "" if due_ms is None else due_ms,
                KEPT_MS,
            ),
        )
        return (State(state.decode()) if state else None), bool(done)

    async def listed(self, index: str, *, bucket: int, app: App) -> list[Schedule]:
        """Return what an index lists, oldest first. Raises StoreAway."""
        ids = await self._link.call("ZRANGE", index, 0, -1)
        dues = [Due(bucket, app, name.decode()) for name in ids]
        return [schedule for schedule in await self.get_many(dues) if schedule]

    async def page(
        self, app: App, *, after: tuple[int, str], limit: int
    ) -> list[Schedule]:
        """
        Return an app's schedules by time of making, then id, behind `after`.

        O(buckets x limit). Raises StoreAway.
        """
        # Several may have been made in the same ms, some of them behind `after`.
        commands = [
            (
                "ZRANGEBYSCORE",
                schedules_key(bucket, app),
                after[0],
                "+inf",
                "WITHSCORES",
                "LIMIT",
                0,
                limit + 100,
            )
            for bucket in range(BUCKETS)
        ]
        found: list[tuple[int, str, int]] = []
        for bucket, reply in enumerate(await self._link.call_many(commands)):
            names = _ok(reply)
            for name, score in zip(names[::2], names[1::2], strict=True):
                found.append((int(score), name.decode(), bucket))
        found = sorted(item for item in found if item[:2] > after)[:limit]
        dues = [Due(bucket, app, name) for _, name, bucket in found]
        return [schedule for schedule in await self.get_many(dues) if schedule]

    # What a scheduler does.

    async def due(self, now_ms: int, *, limit: int) -> list[Due]:
        """Return up to `limit` due schedules of each bucket. Raises StoreAway."""
        return await self._members(
            ("ZRANGEBYSCORE", due_key(bucket), "-inf", now_ms, "LIMIT", 0, limit)
            for bucket in range(BUCKETS)
        )

    async def sending(self) -> list[Due]:
        """Return the schedules whose audience is being served. Raises StoreAway."""
        return await self._members(
            ("ZRANGE", sending_key(bucket), 0, -1) for bucket in range(BUCKETS)
        )

    async def fire(self, schedules: Sequence[Schedule]) -> int:
        """
        Fire schedules that have one player each; return how many were fired here.

        One that is not due, or was fired or cancelled by somebody else, is passed over.
        Raises as `Link.run`; firing again is harmless.
        """
        replies = await self._link.run_many([self._fire_call(s) for s in schedules])
        return sum(_ok(reply) for reply in replies)

    async def begin(self, dues: Sequence[Due]) -> None:
        """Begin to send schedules that have an audience; see `fire`."""
        calls = [
            ScriptCall(
                _BEGIN,
                (self._record(due), due_key(due.bucket), sending_key(due.bucket)),
                (*self._times(), due.member),
            )
            for due in dues
        ]
        for reply in await self._link.run_many(calls):
            _ok(reply)

    async def enlist_cards(self, schedule: Schedule, bucket: int) -> None:
        """Write down a campaign's active cards in a bucket as recipients, once."""
        keys = (
            recipients_key(bucket, schedule.app, schedule.id),
            cards_key(bucket, schedule.app, schedule.campaign),
        )
        await self._link.run(_ENLIST, keys, (RECIPIENTS_MS,))

    async def waiting(
        self, schedule: Schedule, bucket: int, *, limit: int
    ) -> tuple[list[Player], int | None]:
        """
        Return the next recipients of a schedule in a bucket.

        When there are none left, the second is how many there were in all; it is None
        as long as there are some, or if nobody has written them down.
        """
        names = await self._link.call(
            "LRANGE", recipients_key(bucket, schedule.app, schedule.id), 0, limit - 1
        )
        players = [Player(name.decode()) for name in names if name[:1] != b"\0"]
        if not players and names:
            return [], int(names[0][1:])
        return players, None

    async def deliver(
        self, schedule: Schedule, bucket: int, players: Sequence[Player]
    ) -> int:
        """Serve recipients if they are the next ones; return how many were served."""
        keys = [recipients_key(bucket, schedule.app, schedule.id)]
        args: list[str | bytes | int] = [
            *self._times(),
            self._entries_max,
            new_epoch(),
            INLINE_MAX,
            schedule.fragment,
            schedule.due_ms,
            LATE_AFTER_MS + schedule.spread_ms,
            _due_member(schedule),
        ]
        for player in players:
            log = Log(schedule.app, player)
            keys += inbox_keys(log)
            args += [player, channel(log), new_tag()]
        served: int = await self._link.run(_DELIVER, keys, args)
        return served

    async def finish(self, schedule: Schedule, bucket: int, count: int) -> bool:
        """Note that a bucket is served; return whether the schedule is sent."""
        due = _due_of(schedule)
        sent = await self._link.run(
            _FINISH,
            (self._record(due), sending_key(due.bucket)),
            (
                *self._times(),
                due.member,
                bucket,
                count,
                len(schedule.buckets),
                KEPT_MS,
            ),
        )
        return bool(sent)

    async def served(self, schedule: Schedule) -> set[int]:
        """Return the buckets of a schedule that are served. Raises StoreAway."""
        names = await self._link.call("HKEYS", self._record(_due_of(schedule)))
        return {int(name[1:]) for name in names if name[1:].isdigit()}

    def _fire_call(self, schedule: Schedule) -> ScriptCall:
        assert schedule.player is not None
        due = _due_of(schedule)
        log = Log(schedule.app, schedule.player)
        return ScriptCall(
            _FIRE,
            (*inbox_keys(log), self._record(due), due_key(due.bucket)),
            (
                *self._times(),
                self._entries_max,
                new_epoch(),
                channel(log),
                INLINE_MAX,
                due.member,
                new_tag(),
                LATE_AFTER_MS,
                _due_member(schedule),
                KEPT_MS,
            ),
        )

    async def _members(self, commands: Iterable[tuple[str | int, ...]]) -> list[Due]:
        found = []
        for bucket, reply in enumerate(await self._link.call_many(list(commands))):
            for member in _ok(reply):
                app, _, schedule_id = member.decode().partition(":")
                name = parse_app(app)
                assert name is not None
                found.append(Due(bucket, name, schedule_id))
        return found

    def _times(self) -> tuple[int, int]:
        return self._retention_ms, self._clock_ms()

    @staticmethod
    def _record(due: Due) -> str:
        return schedule_key(due.bucket, due.app, due.id)

    @staticmethod
    def _no_slots(due: Due) -> str:
        # A key of the same slot that nothing is ever in.
        return f"{{{due.bucket}}}:slots:"


def _due_of(schedule: Schedule) -> Due:
    due = parse_due(schedule.app, schedule.id)
    assert due is not None
    return due


def _due_member(schedule: Schedule) -> str:
    return f'"due_at":"{iso_time(schedule.due_ms)}"'


def _ok(reply: Reply) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def _schedule(due: Due, reply: list[bytes]) -> Schedule | None:
    if not reply:
        return None
    fields: Mapping[bytes, bytes] = dict(zip(reply[::2], reply[1::2], strict=True))

    def number(name: bytes) -> int:
        return int(fields.get(name, b"0"))

    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    player = text(b"player")
    return Schedule(
        due.app,
        due.id,
        State(text(b"state")),
        number(b"due"),
        number(b"created"),
        fields[b"fragment"],
        player=Player(player) if player else None,
        campaign=text(b"campaign"),
        buckets=tuple(int(b) for b in text(b"buckets").split(",") if b),
        total=number(b"total"),
        delivered=number(b"delivered"),
        spread_ms=number(b"spread"),
        begun_ms=number(b"begun"),
        settled_ms=number(b"settled"),
        source=text(b"source"),
        label=text(b"label"),
    )
