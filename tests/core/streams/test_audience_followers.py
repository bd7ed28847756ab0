"""
A pass over an audience's followers in portions: what happens in between stays exact.

Five readers in groups of two and two and one; a turn of the event loop has room for one
group. `Interleaved` begins an entry and lets two things happen, each between any two
turns, and checks what each connection got. All combinations are tried.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from streamer.core.portions import Portions
from streamer.core.streams.audience_followers import INDIVIDUAL_COST
from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.broadcast_group import GROUP_MAX
from streamer.core.streams.session import Session
from streamer.core.streams.subscription import ReadFrom, Start
from streamer.errors import DRAINING
from streamer.hub import Hub
from streamer.model import Entry, Log
from streamer.service.streams.catch_up import TURN

from .test_broadcast_group import EVERYONE, CountingWriter, Side, make_entry

READERS = 5
GROUP = 2


class Portioned(Side):
    """A side whose turns are begun by hand."""

    def __init__(self, *, per_turn: int = GROUP, group_max: int = GROUP) -> None:
        super().__init__(Session)
        self.delivered: list[int] = []
        self.hub = Hub(
            on_delivered=lambda log, entry: self.delivered.append(entry.offset),
            portions=Portions(per_turn, waiting_max=1_000),
            group_max=group_max,
        )

    def turn(self) -> None:
        self.hub.portions.begin_turn()
        self.hub.portions.go_on()

    def settle(self) -> None:
        """Let turns pass and reads be made until nothing is left to do."""
        # The log of a reader that has ended and is still there stays in `needs_read`.
        for _ in range(4):
            while self.hub.portions:
                self.turn()
            self.catch_up()
        assert not self.hub.portions

    def join_all(self, count: int) -> None:
        """Let readers come, and group all of them by a first entry."""
        for number in range(count):
            self.come(number, Start.LATEST, device="", is_member=True)
        self.settle()
        self.append(EVERYONE, make_entry(1), announced=True)
        self.settle()
        self.turn()
        self.delivered.clear()


class Interleaved(Portioned):
    """Checks what each connection got."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[int, Session] = {}
        self.subs: dict[int, AudienceSubscription] = {}
        self.join_all(READERS)
        self.has_lost = False
        self.ephemerals = 0

    def come(
        self, number: int, read_from: ReadFrom, *, device: str, is_member: bool
    ) -> None:
        super().come(number, read_from, device=device, is_member=is_member)
        self.sessions[number] = self.readers[number]
        (self.subs[number],) = self.readers[number].audience_subscriptions

    def newest(self) -> Entry:
        return self.logs[EVERYONE][-1]

    def send(self, *, announced: bool = True, **more: Any) -> None:
        self.has_lost |= not announced
        entry = make_entry(self.newest().offset + 1, **more)
        self.append(EVERYONE, entry, announced=announced)

    def newcomer(self, read_from: ReadFrom) -> None:
        self.come(len(self.sessions), read_from, device="", is_member=True)

    def send_own(self, number: int) -> None:
        if number in self.readers:
            log = self.own(number)
            offset = len(self.logs[log]) + 1
            entry = Entry(1, offset, offset, offset, b'"title":"own"}')
            self.append(log, entry, announced=True)

    def go(self, number: int) -> None:
        if number in self.readers:
            self.leave(number)

    def check(self) -> None:
        self.settle()
        if self.has_lost:
            # As the position check does. Otherwise nobody may have missed anything.
            self.hub.mark_stale(EVERYONE)
            self.settle()
        head = self.newest().offset
        for number, session in self.sessions.items():
            messages = [json.loads(event) for event in self.pipes[number].events]
            titles = [
                message["notification"]["title"]
                for message in messages
                if message["type"] == "notification"
            ]
            got = [int(title) for title in titles if title.isdigit()]
            began_at = self.subs[number].began_at
            begin = 0 if began_at is None else began_at.offset
            assert not any(message["type"] == "gap" for message in messages)
            if number in self.readers and session.ended is None:
                assert got == list(range(begin + 1, head + 1))
                assert session.unread == len(got) + titles.count("own")
                assert titles.count("own") == len(self.logs[self.own(number)])
            else:
                assert got == list(range(begin + 1, begin + 1 + len(got)))
            assert titles.count("passing") <= self.ephemerals
            if number in self.readers and session.ended is None and number < READERS:
                assert titles.count("passing") == self.ephemerals
        assert len(self.hub.followers(EVERYONE)) == len(self.readers)
        assert self.hub.is_in_sync(EVERYONE, self.newest().position, 0)
        assert not self.hub._delivering

    def pass_ephemeral(self) -> None:
        self.ephemerals += 1
        self.hub.broadcast_ephemeral(EVERYONE, b'{"title":"passing"}')

    def announce_again(self) -> None:
        self.hub.dispatch(EVERYONE, self.newest())


Event = Callable[[Interleaved], None]


def full(side: Interleaved, number: int) -> None:
    side.pipes[number].is_full = True


def of_reader(number: int) -> dict[str, Event]:
    return {
        f"{number} leaves": lambda side: side.go(number),
        f"{number} ends": lambda side: side.sessions[number].end(DRAINING),
        f"{number} is full": lambda side: full(side, number),
        f"{number} gets its own": lambda side: side.send_own(number),
    }


EVENTS: dict[str, Event] = {
    **of_reader(0),
    **of_reader(3),
    "a newcomer": lambda side: side.newcomer(Start.LATEST),
    "one that resumes": lambda side: side.newcomer(side.logs[EVERYONE][0].position),
    "one that has all": lambda side: side.newcomer(side.newest().position),
    "stale": lambda side: side.hub.mark_stale(EVERYONE),
    "reads": Side.catch_up,
    "announced again": Interleaved.announce_again,
    "lost": lambda side: side.send(announced=False),
    "the next": Interleaved.send,
    "for a device": lambda side: side.send(device="tv"),
    "in no log": Interleaved.pass_ephemeral,
    "cursors": Side.send_cursors,
}
TURNS = 3


@pytest.mark.parametrize("first", EVENTS)
def test_every_connection_stays_complete_and_in_order(first: str) -> None:
    for second, at in itertools.product(
        EVENTS, itertools.combinations_with_replacement(range(TURNS), 2)
    ):
        side = Interleaved()
        side.send()
        for turn in range(TURNS):
            for event, its_turn in zip((first, second), at, strict=True):
                if its_turn == turn:
                    EVENTS[event](side)
            side.turn()
        try:
            side.check()
        except AssertionError as error:
            raise AssertionError(f"{first}, {second} before turns {at}") from error


def test_a_reader_that_leaves_between_two_portions_gets_no_more() -> None:
    side = Interleaved()
    before = len(side.pipes[3].events)
    side.send()

    side.leave(3)
    side.settle()

    assert len(side.pipes[3].events) == before
    assert len(side.pipes[4].events) == len(side.pipes[0].events)


def test_an_entry_counts_as_delivered_when_all_have_been_offered_it() -> None:
    side = Interleaved()

    assert not side.hub.dispatch(EVERYONE, make_entry(2))

    assert not side.delivered
    side.turn()
    assert not side.delivered
    side.turn()
    assert side.delivered == [2]


def test_an_entry_that_fits_into_the_turn_is_delivered_at_once() -> None:
    side = Portioned(per_turn=100)
    side.join_all(READERS)

    assert side.hub.dispatch(EVERYONE, make_entry(2))
    assert not side.delivered


def test_a_log_is_in_sync_while_its_newest_entry_is_on_its_way() -> None:
    side = Interleaved()
    side.send()

    newest = side.newest().position
    assert side.hub.is_in_sync(EVERYONE, newest, 0)
    side.send(announced=False)
    assert not side.hub.is_in_sync(EVERYONE, side.newest().position, 0)


def test_the_readers_of_an_event_that_fails_read_their_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    side = Interleaved()

    def fail(*args: object) -> list[Any]:
        raise ValueError

    side.append(EVERYONE, make_entry(2), announced=True)
    with monkeypatch.context() as patch:
        patch.setattr(side.batch_writer, "write_all", fail)
        with pytest.raises(ValueError):
            side.turn()

    side.check()


class CountingTurns(Portioned):
    """Counts the writes of each turn, with the sizes of a node."""

    def __init__(self) -> None:
        super().__init__(per_turn=TURN, group_max=GROUP_MAX)

    def writes(self) -> int:
        return sum(len(pipe.events) for pipe in self.pipes.values())

    def per_turn(self) -> list[int]:
        counts = []
        while self.hub.portions:
            before = self.writes()
            self.turn()
            counts.append(self.writes() - before)
        return counts


@pytest.fixture(scope="module")
def many() -> CountingTurns:
    side = CountingTurns()
    side.join_all(2_600)
    return side


def test_a_turn_writes_to_no_more_grouped_readers_than_its_share(
    many: CountingTurns,
) -> None:
    many.turn()
    calls, before = many.batch_writer.calls, many.writes()

    many.append(EVERYONE, make_entry(2), announced=True)
    counts = [many.writes() - before, *many.per_turn()]

    assert max(counts) <= TURN
    assert sum(counts) == 2_600
    assert many.batch_writer.calls - calls == -(-2_600 // GROUP_MAX)


def test_a_turn_with_announcements_has_room_for_a_group(many: CountingTurns) -> None:
    many.turn()
    many.append(EVERYONE, make_entry(3), announced=True)
    portions = many.hub.portions

    while portions:
        before = many.writes()
        portions.begin_turn()
        assert portions.take(1)
        while portions.take(1):
            pass
        portions.go_on()

        assert many.writes() > before


def test_a_turn_writes_to_fewer_individual_readers(many: CountingTurns) -> None:
    many.turn()
    before = many.writes()

    many.append(EVERYONE, make_entry(4, device="tv"), announced=True)
    counts = [many.writes() - before, *many.per_turn()]

    assert max(counts) <= TURN // INDIVIDUAL_COST
    assert sum(counts) == 2_600


def test_the_readers_of_one_player_are_written_to_in_portions() -> None:
    side = Portioned(per_turn=TURN, group_max=GROUP_MAX)
    log = Log(EVERYONE.app, side.own(0).player)
    side.own = lambda number: log  # type: ignore[method-assign]
    for number in range(400):
        side.come(number, Start.LATEST, device="", is_member=True)
    side.settle()
    side.turn()
    pipes = side.pipes.values()
    before = sum(len(pipe.events) for pipe in pipes)
    counts: list[int] = []

    side.append(log, make_entry(1), announced=True)
    side.append(log, make_entry(2), announced=True)
    while True:
        counts.append(sum(len(pipe.events) for pipe in pipes) - before - sum(counts))
        if not side.hub.portions:
            break
        side.turn()

    assert max(counts) <= TURN // INDIVIDUAL_COST
    assert sum(counts) == 800
    for pipe in pipes:
        titles = [
            json.loads(event)["notification"]["title"] for event in pipe.events[-2:]
        ]
        assert titles == ["1", "2"]


def test_grouped_readers_that_leave_make_room_for_others() -> None:
    side = Portioned(per_turn=1_000, group_max=10)
    side.join_all(40)
    for number in range(0, 40, 2):
        side.leave(number)
    for number in range(40, 60):
        side.come(number, Start.LATEST, device="", is_member=True)
    side.settle()
    side.turn()
    writer: CountingWriter = side.batch_writer
    side.append(EVERYONE, make_entry(2), announced=True)
    side.turn()
    calls = writer.calls

    side.append(EVERYONE, make_entry(3), announced=True)

    assert writer.calls - calls == 4
