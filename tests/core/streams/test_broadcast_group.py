"""
Grouped readers behave as individual readers do, and cost less.

`World` has one hub whose readers may be grouped and one whose readers never are. Every
event happens to both, and in both each reader gets the same bytes, has the same unread
count and sends the same cursor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from streamer.core.counters import TransportCounters
from streamer.core.streams.audience_followers import CURSOR_INTERVAL_S
from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.batch_writer import ONE_BY_ONE, DeliveryProfile
from streamer.core.streams.codec import WebSocketCodec
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import History, ReadFrom, Start
from streamer.errors import DRAINING, SLOW, Disconnect
from streamer.hub import Hub
from streamer.model import ZERO, App, Entry, Log, Player, Position, everyone_log

EVERYONE = everyone_log(App("a"))
LIMITS = SessionLimits(send_buffer_bytes=10_000)


class CountingWriter:
    """A batch writer that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def write_all(
        self, sinks: Iterable[Any], event: bytes, buffer_bytes_max: int
    ) -> list[Any]:
        self.calls += 1
        return ONE_BY_ONE.write_all(sinks, event, buffer_bytes_max)


class RecordingSink:
    """A sink that keeps its events."""

    def __init__(self, batch_writer: CountingWriter) -> None:
        self.batch_writer = batch_writer
        self.events: list[bytes] = []
        self.is_full = False
        self.ended: Disconnect | None = None

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        if self.is_full:
            return False
        self.events.append(event)
        return True

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        return all(self.write(event, buffer_bytes_max) for event in events)

    def buffered(self) -> int:
        return 0

    def waiting_since_s(self) -> float | None:
        return None

    def close(self, disconnect: Disconnect) -> None:
        self.ended = disconnect

    def abort(self, disconnect: Disconnect) -> None:
        self.ended = disconnect


class Ungrouped(Session):
    """A session that is never grouped."""

    def delivery_profile(self) -> tuple[DeliveryProfile, Any] | None:
        return None


class Side:
    """A hub, and its readers by number."""

    def __init__(self, kind: type[Session]) -> None:
        self.hub = Hub()
        self.kind = kind
        self.batch_writer = CountingWriter()
        self.codec = WebSocketCodec()
        self.counters = TransportCounters("websocket")
        self.readers: dict[int, Session] = {}
        self.pipes: dict[int, RecordingSink] = {}
        self.cursor_owners: list[set[str]] = []
        self.logs: dict[Log, list[Entry]] = {EVERYONE: []}
        self.now_s = 0.0

    def own(self, number: int) -> Log:
        return Log(App("a"), Player(f"p{number}"))

    def come(
        self, number: int, read_from: ReadFrom, *, device: str, is_member: bool
    ) -> None:
        pipe = self.pipes[number] = RecordingSink(self.batch_writer)
        session = self.readers[number] = self.kind(
            read_from,
            codec=self.codec,
            sink=pipe,
            limits=LIMITS,
            pinged_at_s=0,
            connection=str(number),
            device=device,
            transport=self.counters,
        )
        sub = AudienceSubscription(
            EVERYONE, session, read_from, joined_at=ZERO, is_member=is_member
        )
        session.set_audiences((sub,))
        self.logs.setdefault(self.own(number), [])
        self.hub.attach(self.own(number), session)
        self.hub.attach_audience(sub)

    def leave(self, number: int) -> None:
        session = self.readers.pop(number)
        self.hub.detach(self.own(number), session)
        audience_subscriptions, session.audience_subscriptions = (
            session.audience_subscriptions,
            (),
        )
        for sub in audience_subscriptions:
            self.hub.detach_audience(sub)

    def append(self, log: Log, entry: Entry, *, announced: bool) -> None:
        self.logs[log].append(entry)
        if announced:
            self.hub.dispatch(log, entry)

    def catch_up(self) -> None:
        for log in list(self.hub.needs_read):
            readers_by_position = self.hub.readers_by_position(log)
            if not readers_by_position:
                self.hub.needs_read.discard(log)
            for read_from, followers in readers_by_position.items():
                for follower in followers:
                    follower.own_subscription().begin_read()
                history = self.history(log, read_from)
                for follower in followers:
                    if not follower.congested:
                        follower.on_history(read_from, history)

    def history(self, log: Log, read_from: ReadFrom) -> History:
        entries = self.logs[log]
        head = entries[-1].position if entries else ZERO
        if read_from is Start.LATEST:
            return History(head, head, [])
        offset = read_from.offset if isinstance(read_from, Position) else 0
        start = read_from if isinstance(read_from, Position) else ZERO
        return History(start, head, entries[offset:])

    def send_cursors(self) -> None:
        self.now_s += CURSOR_INTERVAL_S
        due: list[Any] = list(self.hub.take_due_cursor_updates(self.now_s))
        self.cursor_owners.append({reader.connection for reader in due})
        for reader in due:
            reader.send_cursor()


def make_entry(offset: int, **more: Any) -> Entry:
    return Entry(1, offset, offset, offset, b'"title":"%d"}' % offset, **more)


class World(RuleBasedStateMachine):
    """Random events on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side(Session), Side(Ungrouped))
        self.count = 0
        self.has_lost = False

    def any_reader(self, picked: int) -> int:
        there = sorted(self.sides[0].readers)
        return there[picked % len(there)]

    def send(self, log: Log, *, announced: bool = True, **more: Any) -> None:
        offset = len(self.sides[0].logs[log]) + 1
        entry = make_entry(offset, **more)
        for side in self.sides:
            side.append(log, entry, announced=announced)

    @rule(device=st.sampled_from(["", "", "tv"]), is_member=st.booleans())
    def come(self, device: str, *, is_member: bool) -> None:
        self.count += 1
        for side in self.sides:
            if self.has_lost:
                # Readers may differ about the head; which of them is asked is not
                # specified.
                side.hub.mark_stale(EVERYONE)
                side.catch_up()
            side.come(self.count, Start.LATEST, device=device, is_member=is_member)
        self.has_lost = False

    @precondition(lambda self: self.sides[0].readers)
    @rule(picked=st.integers(0, 9))
    def leave(self, picked: int) -> None:
        number = self.any_reader(picked)
        for side in self.sides:
            side.leave(number)

    @rule()
    def send_to_all(self) -> None:
        self.send(EVERYONE)

    @rule()
    def send_to_all_again(self) -> None:
        self.send(EVERYONE)

    @precondition(lambda self: self.sides[0].logs[EVERYONE])
    @rule()
    def announce_twice(self) -> None:
        for side in self.sides:
            side.hub.dispatch(EVERYONE, side.logs[EVERYONE][-1])

    @rule()
    def lose_an_announcement(self) -> None:
        self.send(EVERYONE, announced=False)
        self.has_lost = True

    @rule()
    def send_to_a_device(self) -> None:
        self.send(EVERYONE, device="tv")

    @rule()
    def replace(self) -> None:
        self.send(EVERYONE, replaces="1-1")

    @rule()
    def withdraw(self) -> None:
        self.send(EVERYONE, withdraws="1-1")

    @precondition(lambda self: self.sides[0].readers)
    @rule(picked=st.integers(0, 9))
    def send_to_one(self, picked: int) -> None:
        self.send(self.sides[0].own(self.any_reader(picked)))

    @rule()
    def announce_ephemeral(self) -> None:
        notification = b'{"title":"now"}'
        for side in self.sides:
            side.hub.broadcast_ephemeral(EVERYONE, notification)

    @rule()
    def mark_stale(self) -> None:
        for side in self.sides:
            side.hub.mark_stale(EVERYONE)

    @precondition(lambda self: self.sides[0].readers)
    @rule(picked=st.integers(0, 9))
    def end(self, picked: int) -> None:
        number = self.any_reader(picked)
        for side in self.sides:
            side.readers[number].end(DRAINING)

    @precondition(lambda self: self.sides[0].readers)
    @rule(picked=st.integers(0, 9))
    def stop_taking(self, picked: int) -> None:
        number = self.any_reader(picked)
        for side in self.sides:
            side.pipes[number].is_full = True

    @precondition(lambda self: self.sides[0].readers)
    @rule(picked=st.integers(0, 9))
    def be_a_member(self, picked: int) -> None:
        number = self.any_reader(picked)
        for side in self.sides:
            for sub in side.readers[number].audience_subscriptions:
                sub.leave_group()
                sub.is_member = True

    @rule()
    def catch_up(self) -> None:
        for side in self.sides:
            side.catch_up()

    @rule()
    def send_cursors(self) -> None:
        for side in self.sides:
            side.send_cursors()

    @invariant()
    def each_has_got_the_same(self) -> None:
        one, other = self.sides
        for number, pipe in one.pipes.items():
            assert pipe.events == other.pipes[number].events
            assert pipe.ended == other.pipes[number].ended
        assert one.cursor_owners == other.cursor_owners
        assert one.counters.deliveries == other.counters.deliveries

    @invariant()
    def each_is_at_the_same_place(self) -> None:
        one, other = self.sides
        for number, reader in one.readers.items():
            others = other.readers[number]
            assert reader.unread == others.unread
            assert reader._cursor_tail() == others._cursor_tail()
            assert len(one.hub.followers(EVERYONE)) == len(one.readers)
            for sub, same in zip(
                reader.audience_subscriptions,
                others.audience_subscriptions,
                strict=True,
            ):
                assert sub.read_from == same.read_from
                assert sub.live_at == same.live_at
        assert one.hub.needs_read == other.hub.needs_read
        head = one.hub.head(EVERYONE)
        if head is not None and None not in {
            s.live_at for r in one.readers.values() for s in r.audience_subscriptions
        }:
            assert one.hub.is_in_sync(EVERYONE, head, 0) == other.hub.is_in_sync(
                EVERYONE, head, 0
            )


World.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestWorld = World.TestCase


@pytest.fixture
def side() -> Side:
    """Ten readers, all grouped."""
    side = Side(Session)
    for number in range(10):
        side.come(number, Start.LATEST, device="", is_member=True)
    side.catch_up()
    side.append(EVERYONE, make_entry(1), announced=True)
    for pipe in side.pipes.values():
        pipe.events.clear()
    return side


def test_an_entry_is_written_to_all_grouped_readers_in_one_call(side: Side) -> None:
    calls = side.batch_writer.calls

    side.append(EVERYONE, make_entry(2), announced=True)

    assert side.batch_writer.calls == calls + 1
    assert {tuple(pipe.events) for pipe in side.pipes.values()} == {
        (b'{"type":"notification","notification":%b}' % make_entry(2).json,)
    }


def test_an_entry_that_is_not_for_all_is_delivered_individually_and_all_regroup(
    side: Side,
) -> None:
    calls = side.batch_writer.calls

    side.append(EVERYONE, make_entry(2, device="tv"), announced=True)
    assert side.batch_writer.calls == calls
    side.append(EVERYONE, make_entry(3), announced=True)
    side.append(EVERYONE, make_entry(4), announced=True)

    assert side.batch_writer.calls == calls + 2
    assert {len(pipe.events) for pipe in side.pipes.values()} == {3}


def test_a_slow_reader_is_closed_and_the_others_go_on(side: Side) -> None:
    side.pipes[3].is_full = True

    side.append(EVERYONE, make_entry(2), announced=True)
    side.append(EVERYONE, make_entry(3), announced=True)

    assert side.pipes[3].ended == SLOW
    assert [len(pipe.events) for pipe in side.pipes.values()] == [2] * 3 + [0] + [2] * 6


def test_a_reader_that_has_ended_gets_nothing(side: Side) -> None:
    side.readers[5].end(DRAINING)
    said = list(side.pipes[5].events)

    side.append(EVERYONE, make_entry(2), announced=True)

    assert side.pipes[5].events == said


def test_grouped_readers_are_at_the_newest_entry(side: Side) -> None:
    side.append(EVERYONE, make_entry(2), announced=True)

    (sub,) = side.readers[0].audience_subscriptions
    assert sub.read_from == side.hub.head(EVERYONE) == make_entry(2).position
    assert sub.own_subscription().read_from == make_entry(2).position


def test_the_last_reader_to_leave_removes_the_log(side: Side) -> None:
    for number in range(10):
        side.leave(number)

    assert not side.hub.logs
    assert side.hub.head(EVERYONE) is None


def test_a_newcomer_to_a_group_is_not_owed_the_cursor_of_those_before(
    side: Side,
) -> None:
    side.append(EVERYONE, make_entry(2), announced=True)
    side.hub.mark_stale(EVERYONE)
    side.catch_up()
    side.come(10, Start.LATEST, device="", is_member=True)
    side.catch_up()
    # A duplicate of the newest entry groups all of them at their position.
    side.hub.dispatch(EVERYONE, make_entry(2))

    side.send_cursors()

    assert side.cursor_owners == [{str(number) for number in range(10)}]


def test_grouped_readers_get_their_cursors_at_intervals(side: Side) -> None:
    def due(now_s: float) -> int:
        return len(list(side.hub.take_due_cursor_updates(now_s)))

    side.append(EVERYONE, make_entry(2), announced=True)
    assert due(100) == 10
    side.append(EVERYONE, make_entry(3), announced=True)
    assert due(100 + CURSOR_INTERVAL_S / 2) == 0
    assert due(100 + CURSOR_INTERVAL_S) == 10
    assert due(100 + 2 * CURSOR_INTERVAL_S) == 0
