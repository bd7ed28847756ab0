"""Adds schedules for tests of the timetable, and reads what has become of them."""

from __future__ import annotations

from typing import Any

from streamer.core.schedule import Schedule, ScheduleState
from streamer.core.streams.subscription import Start
from streamer.model import App, Log, Player
from streamer.store.keys import BUCKETS, bucket_of
from streamer.store.logs.inbox import Inbox
from streamer.store.scheduling.schedule_records import ScheduleRef, new_schedule_id
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON

__all__ = [
    "APP",
    "FRAGMENT",
    "audience",
    "campaign",
    "received",
    "reminder",
    "serve",
    "state_of",
]

APP = App("app")
FRAGMENT = b'"body":"b"}'


def reminder(player: str, due_ms: int = NOON, **fields: Any) -> Schedule:
    """Return a schedule for one player."""
    made = Schedule(
        APP,
        new_schedule_id(bucket_of(APP, player)),
        ScheduleState.PENDING,
        due_ms,
        0,
        FRAGMENT,
        player=Player(player),
        total=1,
    )
    return made._replace(**fields)


async def campaign(
    timetable: Timetable, *, name: str = "c", slots_max: int = 0, **fields: Any
) -> tuple[Schedule, bool]:
    """Add a schedule for a campaign; return it, and whether a slot was free."""
    made = Schedule(
        APP,
        new_schedule_id(bucket_of(APP, name)),
        ScheduleState.PENDING,
        NOON,
        0,
        FRAGMENT,
        campaign=name,
        buckets=tuple(range(BUCKETS)),
    )._replace(**fields)
    entered = await timetable.add(made, slots_max=slots_max)
    return made, not entered.full


async def audience(timetable: Timetable, *players: str, **fields: Any) -> Schedule:
    """Add a schedule for players."""
    made = Schedule(
        APP,
        new_schedule_id(7),
        ScheduleState.PENDING,
        NOON,
        0,
        FRAGMENT,
        total=len(players),
    )
    names = [Player(player) for player in players]
    buckets = await timetable.recipients.enlist(ScheduleRef.of(made), names)
    made = made._replace(buckets=tuple(buckets), **fields)
    assert (await timetable.add(made)).added
    return made


async def received(inbox: Inbox, player: str) -> list[bytes]:
    read = await inbox.read_after(
        Log(APP, Player(player)), Start.EARLIEST, count=10_000
    )
    return [entry.fragment for entry in read.history.entries]


async def state_of(timetable: Timetable, schedule: Schedule) -> ScheduleState:
    found = await timetable.get(schedule.app, schedule.id)
    assert found is not None
    return found.state


async def serve(timetable: Timetable, schedule: Schedule, *, limit: int = 100) -> None:
    """Serve the whole audience of a schedule that is being sent."""
    if schedule.campaign:
        await timetable.recipients.enlist_cards(schedule, schedule.buckets)
    for bucket in schedule.buckets:
        while True:
            players, count = await timetable.recipients.next_players(
                schedule, bucket, limit=limit
            )
            if count is not None:
                await timetable.recipients.finish(schedule, {bucket: count})
                break
            await timetable.recipients.deliver(schedule, bucket, players)
