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

from ..core.schedule import AHEAD_MAX_MS, LATE_AFTER_MS, Schedule, State
from ..model import App, Log, Player, iso_time, new_epoch, new_tag, parse_app
from .inbox import DAY_MS, INLINE_MAX
from .keys import (
    BUCKETS,
    bucket_of,
    cards_key,
    channel,
    devices_key,
    due_apps_key,
    due_key,
    inbox_keys,
    lease_key,
    mutes_key,
    named_key,
    recipients_key,
    schedule_key,
    schedules_key,
    sending_key,
    sends_key,
    slots_key,
)
from .leases import alive_nodes
from .link import Link, Prepared, Reply, Script, ScriptCall
from .replicated import Replicated

__all__ = ["Due", "Entered", "Timetable", "new_schedule_id"]

KEPT_MS: Final = 90 * DAY_MS
"""How long a schedule that is sent or cancelled can be asked for."""

INDEX_MS: Final = 31 * DAY_MS + KEPT_MS

RECIPIENTS_MS: Final = AHEAD_MAX_MS + KEPT_MS
"""A schedule whose recipients are gone would be sent to nobody. So they stay as long as
it may wait, and for the longest outage that it may be late by."""

_SCHEDULE: Final = Script("schedule", behind=("_inbox", "_schedule"))
_CANCEL: Final = Script("cancel", behind=("_inbox", "_schedule"))
_FIRE: Final = Script("fire", behind=("_inbox", "_append", "_device", "_schedule"))
_BEGIN: Final = Script("begin", behind=("_inbox", "_schedule"))
_ENLIST: Final = Script("enlist")
_DELIVER: Final = Script(
    "deliver", behind=("_inbox", "_append", "_device", "_schedule")
)
_FINISH: Final = Script("finish", behind=("_inbox", "_schedule"))

# Asked all the time, and answered with nothing most of it.
_EARLIEST: Final = Prepared(
    [("ZRANGE", due_apps_key(bucket), 0, 0, "WITHSCORES") for bucket in range(BUCKETS)]
)
_BEING_SENT: Final = Prepared(
    [("ZRANGE", sending_key(bucket), 0, -1) for bucket in range(BUCKETS)]
)


class Entered(NamedTuple):
    """
    What became of `Timetable.add`: it is there, or was before, or had no slot.

    `created_ms` is when it was entered, by the store's clock; 0 unless it was.
    """

    added: bool
    full: bool = False
    created_ms: int = 0


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
        confirmed: The way of entering, where replicas have to confirm it. What was
            written before, the recipients, is confirmed with it.
        retention_ms: Age at which an entry leaves an inbox.
        entries_max: Entries kept per player.
        clock_ms: Gives the time to use; 0 means the store's own.

    """

    def __init__(
        self,
        link: Link,
        *,
        confirmed: Replicated | None = None,
        retention_ms: int = 90 * DAY_MS,
        entries_max: int = 10_000,
        clock_ms: Callable[[], int] = lambda: 0,
    ) -> None:
        self._link = link
        self._entering = confirmed or link
        self._retention_ms = retention_ms
        self._entries_max = entries_max
        self._clock_ms = clock_ms

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreAway."""
        return self._clock_ms() or await self._link.now_ms()

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

    async def keep_recipients(self, schedule: Schedule) -> None:
        """Let a schedule's recipients stay as long as if it was entered only now."""
        commands = [
            (
                "PEXPIRE",
                recipients_key(bucket, schedule.app, schedule.id),
                RECIPIENTS_MS,
            )
            for bucket in schedule.buckets
        ]
        for reply in await self._link.call_many(commands, write=True):
            _ok(reply)

    async def add(self, schedule: Schedule, *, slots_max: int = 0) -> Entered:
        """
        Enter a schedule, in one step. One that is there already stays as it is.

        Args:
            schedule: What to enter; of its times only `due_ms` is looked at, and not
                its state.
            slots_max: How many of its campaign's may hold a slot; 0 for no limit.

        Raises:
            StoreAway: It was not entered.
            OutcomeUnknown: Adding it again is harmless.

        """
        (entered,) = await self.add_many([schedule], slots_max=slots_max)
        if isinstance(entered, Exception):
            raise entered
        return entered

    async def add_many(
        self, schedules: Sequence[Schedule], *, slots_max: int = 0
    ) -> list[Entered | Exception]:
        """
        Enter schedules in one packet, each in a step of its own; see `add`.

        Failures are items of the list, of the classes that `add` raises.

        Raises:
            StoreAway: None was entered.

        """
        calls = [self._add_call(schedule, slots_max) for schedule in schedules]
        return [
            reply if isinstance(reply, Exception) else _entered(*reply)
            for reply in await self._entering.run_many(calls)
        ]

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
        self,
        due: Due,
        *,
        campaign: str = "",
        due_ms: int | None = None,
        fragment: bytes = b"",
        expires_ms: int = 0,
    ) -> tuple[State | None, bool]:
        """
        Cancel a schedule, or with `due_ms` move it, if it has not begun.

        One that is moved may get another `fragment`, that says when it expires then.
        With a cancelled one goes back the slot of its `campaign`. Returns the state it
        is in then (None: there is none), and whether that was done by this call. Raises
        as `add`; a second call is harmless.
        """
        state, done = await self._link.run(
            _CANCEL,
            (*self._places(due), self._slots(due, campaign)),
            (
                *self._times(),
                due.member,
                due.id,
                "" if due_ms is None else due_ms,
                KEPT_MS,
                *((fragment, expires_ms) if fragment else ()),
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
        """
        Return what is due, the earliest first: about `limit` of it, and some of all.

        An app in a bucket has the same share of the limit as any other in any other,
        and at least one, however many of its schedules are due. O(buckets + shares).
        Raises StoreAway.
        """
        behind = ("-inf", now_ms, "WITHSCORES", "LIMIT", 0)
        buckets = [
            bucket
            for bucket, reply in enumerate(await self._link.ask(_EARLIEST))
            if (earliest := _ok(reply)) and float(earliest[1]) <= now_ms
        ]
        found = await self._link.call_many(
            [
                ("ZRANGEBYSCORE", due_apps_key(bucket), *behind, limit)
                for bucket in buckets
            ]
        )
        places = [
            (bucket, _app(name))
            for bucket, reply in zip(buckets, found, strict=True)
            for name in _ok(reply)[::2]
        ]
        share = max(1, limit // max(1, len(places)))
        replies = await self._link.call_many(
            [("ZRANGEBYSCORE", due_key(*place), *behind, share) for place in places]
        )
        dues: list[tuple[float, Due]] = []
        for (bucket, _), reply in zip(places, replies, strict=True):
            members = _ok(reply)
            dues += [
                (float(due_ms), _due(bucket, member))
                for member, due_ms in zip(members[::2], members[1::2], strict=True)
            ]
        return [due for _, due in sorted(dues)]

    async def sending(self) -> list[Due]:
        """Return the schedules whose audience is being served. Raises StoreAway."""
        return [
            _due(bucket, member)
            for bucket, reply in enumerate(await self._link.ask(_BEING_SENT))
            for member in _ok(reply)
        ]

    async def fire(self, schedules: Sequence[Schedule]) -> int:
        """
        Fire schedules that have one player each; return how many were fired here.

        One that is not due, or was fired or cancelled by somebody else, is passed over.
        Raises as `Link.run`; firing again is harmless.
        """
        return sum(await self.fire_each(schedules))

    async def fire_each(self, schedules: Sequence[Schedule]) -> list[bool]:
        """Fire schedules as `fire` does; return of each whether it was fired here."""
        nodes: Sequence[bytes] = ()
        if any(schedule.to_latest for schedule in schedules):
            nodes = await alive_nodes(self._link)
        calls = [self._fire_call(schedule, nodes) for schedule in schedules]
        return [bool(_ok(reply)) for reply in await self._link.run_many(calls)]

    async def begin(self, dues: Sequence[Due]) -> list[bool]:
        """Begin to send schedules that have an audience; see `fire_each`."""
        calls = [
            ScriptCall(
                _BEGIN,
                (*self._places(due), sending_key(due.bucket)),
                (*self._times(), due.member),
            )
            for due in dues
        ]
        return [bool(_ok(reply)) for reply in await self._link.run_many(calls)]

    async def enlist_cards(
        self, schedule: Schedule, buckets: Sequence[int]
    ) -> dict[int, int]:
        """
        Write down the players of a campaign's active cards as recipients, once.

        Returns how many there are in each bucket, be they served or not.
        """
        calls = [
            ScriptCall(
                _ENLIST,
                (
                    recipients_key(bucket, schedule.app, schedule.id),
                    cards_key(bucket, schedule.app, schedule.campaign),
                ),
                (RECIPIENTS_MS,),
            )
            for bucket in buckets
        ]
        replies = await self._link.run_many(calls)
        return {
            bucket: _ok(reply) for bucket, reply in zip(buckets, replies, strict=True)
        }

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
        nodes = await alive_nodes(self._link) if schedule.to_latest else []
        args: list[str | bytes | int] = [
            *self._times(),
            self._entries_max,
            new_epoch(),
            INLINE_MAX,
            schedule.fragment,
            schedule.due_ms,
            LATE_AFTER_MS + schedule.spread_ms,
            _due_member(schedule),
            schedule.type,
            schedule.expires_ms,
            schedule.collapse_key,
            len(nodes),
            *nodes,
        ]
        for player in players:
            log = Log(schedule.app, player)
            keys += [*inbox_keys(log), mutes_key(log)]
            if nodes:
                keys += [devices_key(log), lease_key(log)]
            args += [player, channel(log), new_tag()]
        served: int = await self._link.run(_DELIVER, keys, args)
        return served

    async def finish(self, schedule: Schedule, counts: Mapping[int, int]) -> None:
        """
        Note that buckets are served, and how many recipients each had.

        With the last bucket the schedule is sent. Doing it again changes nothing.
        """
        due = _due_of(schedule)
        keys = (self._record(due), sending_key(due.bucket))
        buckets = len(schedule.buckets)
        calls = [
            ScriptCall(
                _FINISH,
                keys,
                (*self._times(), due.member, bucket, count, buckets, KEPT_MS),
            )
            for bucket, count in counts.items()
        ]
        # A list's end has to outlast everybody who may still be at it, and no longer.
        expire = [
            ("PEXPIRE", recipients_key(bucket, due.app, due.id), DAY_MS)
            for bucket in counts
        ]
        for reply in await self._link.run_many(calls, after=expire):
            _ok(reply)

    async def served(self, schedule: Schedule) -> set[int]:
        """Return the buckets of a schedule that are served. Raises StoreAway."""
        names = await self._link.call("HKEYS", self._record(_due_of(schedule)))
        return {int(name[1:]) for name in names if name[1:].isdigit()}

    def _add_call(self, schedule: Schedule, slots_max: int) -> ScriptCall:
        due = _due_of(schedule)
        keys = [*self._places(due), *self._indexes(schedule)]
        if slots_max:
            keys.append(self._slots(due, schedule.campaign))
        args: list[str | bytes | int] = [
            *self._times(),
            due.member,
            due.id,
            schedule.due_ms,
            slots_max,
            INDEX_MS,
        ]
        fields = {
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
        for name, value in fields.items():
            args += [name, value]
        return ScriptCall(_SCHEDULE, keys, args)

    def _fire_call(self, schedule: Schedule, nodes: Sequence[bytes]) -> ScriptCall:
        assert schedule.player is not None
        due = _due_of(schedule)
        log = Log(schedule.app, schedule.player)
        keys = [*inbox_keys(log), mutes_key(log), *self._places(due)]
        if schedule.to_latest:
            keys += [devices_key(log), lease_key(log)]
        return ScriptCall(
            _FIRE,
            keys,
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
                *nodes,
            ),
        )

    def _times(self) -> tuple[int, int]:
        return self._retention_ms, self._clock_ms()

    def _places(self, due: Due) -> tuple[str, str, str]:
        """Return the record's key, and those by which it is found when it is due."""
        return self._record(due), due_key(due.bucket, due.app), due_apps_key(due.bucket)

    @staticmethod
    def _record(due: Due) -> str:
        return schedule_key(due.bucket, due.app, due.id)

    @staticmethod
    def _slots(due: Due, campaign: str) -> str:
        # Without a campaign a key of the same slot that nothing is ever in.
        return slots_key(due.app, campaign) if campaign else f"{{{due.bucket}}}:slots:"

    @staticmethod
    def _indexes(schedule: Schedule) -> list[str]:
        due = _due_of(schedule)
        keys = [schedules_key(due.bucket, due.app)]
        if schedule.player is not None and schedule.label:
            keys.append(named_key(Log(due.app, schedule.player), schedule.label))
        if schedule.campaign:
            keys.append(sends_key(due.app, schedule.campaign))
        return keys


def _app(name: bytes) -> App:
    app = parse_app(name.decode())
    assert app is not None
    return app


def _due(bucket: int, member: bytes) -> Due:
    app, _, schedule_id = member.partition(b":")
    return Due(bucket, _app(app), schedule_id.decode())


def _due_of(schedule: Schedule) -> Due:
    due = parse_due(schedule.app, schedule.id)
    assert due is not None
    return due


def _entered(outcome: int, created_ms: int) -> Entered:
    return Entered(outcome == 1, full=outcome == -1, created_ms=int(created_ms))


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
        to_latest=bool(number(b"latest")),
        type=text(b"type"),
        expires_ms=number(b"expires"),
        ttl_ms=number(b"ttl"),
        collapse_key=text(b"collapse"),
    )
