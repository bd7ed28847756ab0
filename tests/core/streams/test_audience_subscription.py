"""
A reader's place in an audience's log, and streams woven of two logs.

`Woven` is a player's log, an audience's, feeds that drop, and a client that is cut off
at any moment and comes back with the last cursor it has seen. Whatever the order, it
gets everything of both logs in order; and no more than once unless it was cut off.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.streams.audience_subscription import Strand
from streamer.core.streams.broadcast_group import ONE_BY_ONE, Outlet
from streamer.core.streams.codec import WebSocketCodec
from streamer.core.streams.cursor import Cursor, audience_mark
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import (
    Delivery,
    Gap,
    History,
    Place,
    Start,
    State,
)
from streamer.errors import DRAINING, Disconnect
from streamer.model import (
    ZERO,
    App,
    Entry,
    Log,
    Player,
    Position,
    decode_id,
    everyone_log,
)

LOG = everyone_log(App("app"))
OWN = Log(App("app"), Player("p"))


def position(offset: int) -> Position:
    return Position(1, offset, offset, offset) if offset else ZERO


def entry(offset: int) -> Entry:
    return Entry(1, offset, offset, offset, b'"title":"t"}')


class Noting:
    """A listener that notes what it hears."""

    def __init__(self) -> None:
        self.joining = False
        self.congested = False
        self.heard: list[Delivery] = []
        self.taken: list[Entry] = []
        self.ended: Disconnect | None = None

    def fit(self, history: History) -> History:
        return history

    def hear(self, strand: Strand, delivery: Delivery) -> None:
        self.heard.append(delivery)

    def take_from(self, strand: Strand, entry: Entry) -> None:
        self.taken.append(entry)

    def passing(self, notification: bytes) -> None:
        pass

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.ended = disconnect


@pytest.fixture
def listener() -> Noting:
    return Noting()


def strand_of(
    listener: Noting, place: Place = Start.LATEST, *, joined: Position = ZERO
) -> Strand:
    return Strand(LOG, listener, place, joined=joined, durable=True)


def read(strand: Strand, *offsets: int, head: int, gap: Gap | None = None) -> None:
    asked = strand.subscription.ask()
    start = asked if isinstance(asked, Position) else position(head)
    history = History(start, position(head), [entry(o) for o in offsets], gap)
    strand.history(asked, history, unread=0, marks=0)


def test_a_strand_begins_with_its_first_read_also_where_that_is_empty(
    listener: Noting,
) -> None:
    strand = strand_of(listener)
    assert strand.joining

    read(strand, head=3)

    assert strand.begin == position(3)
    assert listener.heard == [Delivery([])]


def test_a_strand_with_a_gap_to_follow_begins_where_the_client_is(
    listener: Noting,
) -> None:
    strand = strand_of(listener, position(1))

    read(strand, head=9, gap=Gap.TRIMMED)

    assert strand.begin == position(1)
    assert listener.heard == [Delivery([], Gap.TRIMMED, position(9))]


def test_a_read_that_brings_nothing_is_not_heard_of(listener: Noting) -> None:
    strand = strand_of(listener, joined=position(5))
    read(strand, head=3)
    strand.subscription.doubt()

    read(strand, 4, 5, head=5)

    assert listener.heard == [Delivery([])]
    assert strand.subscription.place == position(5)


def test_what_lies_before_joining_is_left_out_of_the_log_it_was_in(
    listener: Noting,
) -> None:
    strand = strand_of(listener, position(1), joined=position(2))
    read(strand, 2, 3, head=3)
    assert [e.offset for e in listener.heard[0].entries] == [3]

    # Of a log that was begun anew there is nothing the player was too late for.
    anew = entry(1)._replace(epoch=2)
    strand.subscription.doubt()
    asked = strand.subscription.ask()
    assert isinstance(asked, Position)
    head = anew.position
    strand.history(asked, History(head, head, [], Gap.EPOCH), unread=0, marks=0)
    strand.offer(anew._replace(offset=2))

    assert [e.offset for e in listener.heard[-1].entries] == [2]


def test_live_entries_wait_for_the_stream_to_begin(listener: Noting) -> None:
    listener.joining = True
    strand = strand_of(listener)
    read(strand, head=1)

    strand.offer(entry(2))

    assert strand.subscription.state is State.REPLAYING
    assert len(listener.heard) == 1


def test_the_next_live_entry_is_handed_on(listener: Noting) -> None:
    strand = strand_of(listener)
    read(strand, head=1)

    strand.take(entry(2), entry(2).position)

    assert listener.taken == [entry(2)]
    assert strand.subscription.place == position(2)


def test_a_strand_ends_its_reader(listener: Noting) -> None:
    strand_of(listener).end(DRAINING)

    assert listener.ended == DRAINING


class Client:
    """One connection: notes what it is given in each log, and the last cursor."""

    outlet: Outlet = ONE_BY_ONE

    def __init__(self, cursor: Cursor | None) -> None:
        self.cursor = cursor
        place: Place = cursor.own if cursor else ZERO
        self.session = Session(
            place,
            codec=WebSocketCodec(),
            sink=self,
            limits=SessionLimits(send_buffer_bytes=1_500),
            pinged_at_s=0,
            cursor=cursor,
        )
        mark = audience_mark(LOG)
        there: Place = cursor.audiences.get(mark, ZERO) if cursor else ZERO
        self.strand = Strand(LOG, self.session, there, joined=ZERO, durable=True)
        self.session.rewoven((self.strand,))
        self.got: tuple[list[int], list[int]] = ([], [])
        self.waiting_bytes = 0

    def write(self, event: bytes, most: int) -> bool:
        if self.waiting_bytes and self.waiting_bytes + len(event) > most:
            return False
        self.waiting_bytes += len(event)
        message: dict[str, Any] = json.loads(event)
        if message["type"] == "notification":
            place = decode_id(message["notification"]["id"])
            assert place is not None
            self.got["cursor" not in message].append(place.offset)
        if "cursor" in message:
            self.cursor = Cursor.parse(message["cursor"])
        return True

    def buffered(self) -> int:
        return self.waiting_bytes

    def waiting_since_s(self) -> float | None:
        return None

    def close(self, disconnect: Disconnect) -> None:
        pass

    def abort(self, disconnect: Disconnect) -> None:
        pass


class Woven:
    """Two logs and who reads them, at random."""

    def __init__(self, data: st.DataObject) -> None:
        self.rng = data.draw(st.randoms(use_true_random=False))
        self.heads = [0, 0]
        self.times: list[list[int]] = [[], []]
        self.now = 0
        self.client = Client(None)
        self.under: list[tuple[Place, History | None] | None] = [None, None]
        self.queues: list[list[Entry]] = [[], []]
        self.has = [0, 0]
        """Up to where the client has each log."""

    def entry(self, log: int, offset: int) -> Entry:
        return entry(offset)._replace(at_ms=self.times[log][offset - 1])

    def place(self, log: int, offset: int) -> Position:
        return self.entry(log, offset).position if offset else ZERO

    def follower(self, log: int) -> Session | Strand:
        return self.client.strand if log else self.client.session

    def publish(self, log: int) -> None:
        self.now += self.rng.randrange(3)
        self.heads[log] += 1
        self.times[log].append(self.now)
        self.queues[log].append(self.entry(log, self.heads[log]))

    def hear(self, log: int) -> None:
        if self.queues[log]:
            heard = self.queues[log].pop(0)
            if self.rng.random() < 0.8:
                self.follower(log).offer(heard)
                self.note()

    def read(self, log: int) -> None:
        follower, under = self.follower(log), self.under[log]
        if under is None:
            replaying = follower.subscription.state is State.REPLAYING
            if replaying and not follower.congested:
                self.under[log] = (follower.subscription.ask(), None)
        elif under[1] is None:
            place = under[0]
            assert isinstance(place, Position)
            last = min(place.offset + 2, self.heads[log])
            found = [self.entry(log, o) for o in range(place.offset + 1, last + 1)]
            head = self.place(log, self.heads[log])
            self.under[log] = (place, History(place, head, found))
        else:
            self.under[log] = None
            if not follower.congested:
                follower.history(under[0], under[1], unread=0, marks=0)
                self.note()

    def cut_off(self) -> None:
        """Come back with the last cursor; what came since then comes again."""
        cursor = self.client.cursor
        self.client = Client(cursor)
        self.under = [None, None]
        self.queues = [[], []]
        if cursor is not None:
            there = cursor.audiences.get(audience_mark(LOG), ZERO)
            assert cursor.own.offset <= self.has[0]
            assert there.offset <= self.has[1]
            self.has = [cursor.own.offset, there.offset]

    def note(self) -> None:
        for log, got in enumerate(self.client.got):
            for offset in got:
                assert offset == self.has[log] + 1, "lost, doubled or out of order"
                self.has[log] = offset
            got.clear()

    def settle(self) -> None:
        for follower in (self.client.session, self.client.strand):
            follower.subscription.doubt()
        for _ in range(4 * sum(self.heads) + 40):
            self.client.waiting_bytes = 0
            for log in (0, 1):
                self.read(log)
        assert self.has == self.heads


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
@pytest.mark.row("C5")
def test_no_order_of_events_in_two_logs_loses_repeats_or_misorders(
    data: st.DataObject,
) -> None:
    woven = Woven(data)
    for _ in range(data.draw(st.integers(10, 150))):
        chance, log = woven.rng.random(), woven.rng.randrange(2)
        if chance < 0.25:
            woven.publish(log)
        elif chance < 0.5:
            woven.hear(log)
        elif chance < 0.8:
            woven.read(log)
        elif chance < 0.9:
            woven.client.waiting_bytes = 0
        elif chance < 0.95:
            woven.client.session.tell_cursor()
        elif chance < 0.98:
            woven.follower(log).subscription.doubt()
        else:
            woven.cut_off()
        if woven.client.session.ended:
            woven.cut_off()

    woven.settle()
