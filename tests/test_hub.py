"""The hub: which readers are offered an entry, and which logs need a read."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.core.streams.audience_subscription import (
    AudienceSubscription,
)
from streamer.core.streams.subscription import (
    Delivery,
    History,
    ReadFrom,
    Start,
    State,
    Subscription,
)
from streamer.core.streams.unread_count import InboxCount
from streamer.errors import REPLACED, Disconnect
from streamer.hub import Hub
from streamer.model import ZERO, App, Entry, Log, Player, Position, everyone_log

LOG = Log(App("a"), Player("p"))
OTHER = Log(App("a"), Player("q"))
EVERYONE = everyone_log(App("a"))


def position(offset: int) -> Position:
    return Position(1, offset, offset, offset)


def entry(offset: int) -> Entry:
    return Entry(1, offset, offset, offset, b"x")


Double: Any = object
"""A base of test doubles with only those members of a protocol that the hub uses."""


class RecordingReader(Double):  # type: ignore[misc]
    """A reader that records its deliveries."""

    joining = False
    congested = False

    def __init__(self, connection: str = "c", *, at: int = 1) -> None:
        self.subscription = Subscription(position(at))
        self.connection = connection
        self.got: list[int] = []
        self.marks: list[tuple[int, bytes]] = []
        self.ended: Disconnect | None = None

    @property
    def stream(self) -> RecordingReader:
        return self

    def own_subscription(self) -> Subscription:
        return self.subscription

    def deliver_next(self, entry: Entry, position: Position) -> None:
        self.subscription.live_at = position
        self.got.append(entry.offset)

    def offer(self, entry: Entry) -> None:
        self.got += [e.offset for e in self.subscription.on_live(entry).entries]

    def on_history(
        self, read_from: ReadFrom, history: History, count: InboxCount | None = None
    ) -> None:
        delivery = self.subscription.on_history(read_from, history)
        self.got += [e.offset for e in delivery.entries]

    def on_mark(self, *, marks: int, body: bytes) -> None:
        self.marks.append((marks, body))

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.ended = disconnect

    def tick(self, now_s: float, unix_s: float) -> None:
        pass

    def settle(self) -> None:
        """Become live at its position."""
        read_from = self.subscription.begin_read()
        assert isinstance(read_from, Position)
        self.on_history(read_from, History(read_from, read_from, []))


@pytest.fixture
def hub() -> Hub:
    return Hub()


def attached(hub: Hub, *readers: RecordingReader, log: Log = LOG) -> None:
    for reader in readers:
        hub.attach(log, reader)
        reader.settle()
    hub.needs_read.clear()


def test_every_reader_of_the_log_is_offered_an_entry_and_no_other(hub: Hub) -> None:
    one, two, other = RecordingReader(), RecordingReader(), RecordingReader()
    attached(hub, one, two)
    attached(hub, other, log=OTHER)

    hub.dispatch(LOG, entry(2))

    assert (one.got, two.got, other.got) == ([2], [2], [])
    assert not hub.needs_read


def test_an_entry_without_readers_is_dropped(hub: Hub) -> None:
    hub.dispatch(LOG, entry(2))
    hub.broadcast_mark(LOG, marks=1, body=b"")
    hub.end_replaced(LOG, "c")
    hub.mark_stale(LOG)

    assert not hub.needs_read
    assert not hub.logs


def test_a_reader_that_joins_needs_a_read() -> None:
    woken: list[int] = []
    hub = Hub(lambda: woken.append(1))

    hub.attach(LOG, RecordingReader())

    assert hub.needs_read == {LOG}
    assert woken


def test_a_log_with_a_hole_needs_a_read(hub: Hub) -> None:
    reader = RecordingReader()
    attached(hub, reader)

    hub.dispatch(LOG, entry(3))

    assert reader.got == []
    assert hub.needs_read == {LOG}


def test_every_reader_of_a_stale_log_is_marked(hub: Hub) -> None:
    one, two, other = RecordingReader(), RecordingReader(), RecordingReader()
    attached(hub, one, two)
    attached(hub, other, log=OTHER)

    hub.mark_stale(LOG)

    assert one.subscription.state is two.subscription.state is State.REPLAYING
    assert other.subscription.state is State.LIVE
    assert hub.needs_read == {LOG}


def test_readers_that_need_a_read_are_grouped_by_position(hub: Hub) -> None:
    one, two, three, live = (
        RecordingReader(at=1),
        RecordingReader(at=1),
        RecordingReader(at=5),
        RecordingReader(at=9),
    )
    attached(hub, live)
    for reader in (one, two, three):
        hub.attach(LOG, reader)

    assert hub.readers_by_position(LOG) == {
        position(1): [one, two],
        position(5): [three],
    }
    assert hub.readers_by_position(OTHER) == {}


def test_marks_reach_every_reader(hub: Hub) -> None:
    one, two = RecordingReader(), RecordingReader()
    attached(hub, one, two)

    hub.broadcast_mark(LOG, marks=4, body=b'"all":true')

    assert one.marks == two.marks == [(4, b'"all":true')]


def test_only_the_replaced_connection_ends(hub: Hub) -> None:
    one, two = RecordingReader("one"), RecordingReader("two")
    attached(hub, one, two)

    hub.end_replaced(LOG, "two")

    assert one.ended is None
    assert two.ended == REPLACED


def test_the_last_reader_to_leave_removes_the_log(hub: Hub) -> None:
    one, two = RecordingReader(), RecordingReader()
    hub.attach(LOG, one)
    hub.attach(LOG, two)

    assert not hub.detach(LOG, one)
    assert len(hub) == 1
    assert hub.detach(LOG, two)

    assert len(hub) == 0
    assert not hub.logs
    assert not hub.needs_read


def test_a_reader_may_leave_during_a_delivery(hub: Hub) -> None:
    class Leaving(RecordingReader):
        def deliver_next(self, entry: Entry, position: Position) -> None:
            super().deliver_next(entry, position)
            hub.detach(LOG, self)

    leaving, staying = Leaving(), RecordingReader()
    attached(hub, leaving, staying)

    hub.dispatch(LOG, entry(2))

    assert leaving.got == staying.got == [2]
    assert [*hub.all_readers()] == [staying]


def test_all_readers_may_change_during_the_iteration(hub: Hub) -> None:
    readers = [RecordingReader() for _ in range(4)]
    attached(hub, *readers[:2])
    attached(hub, *readers[2:], log=OTHER)

    seen = 0
    for reader in hub.all_readers():
        seen += 1
        hub.detach(LOG if reader in readers[:2] else OTHER, reader)

    assert seen == 4
    assert len(hub) == 0


# Audiences.


class JoiningOwner(Double):  # type: ignore[misc]
    """The owner of subscriptions, still joining."""

    joining = True
    congested = False
    ended = None

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    stream = None

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        raise AssertionError("it has not begun")

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None: ...


def make_subscription(read_from: ReadFrom) -> AudienceSubscription:
    return AudienceSubscription(
        EVERYONE, JoiningOwner(), read_from, joined_at=ZERO, is_member=True
    )


def live_subscription(hub: Hub, at: int) -> AudienceSubscription:
    """Return an attached, live subscription."""
    sub = make_subscription(position(at))
    hub.attach_audience(sub)
    sub.own_subscription().begin_read()
    read_from = position(at)
    sub.on_history(read_from, History(read_from, read_from, []))
    hub.needs_read.clear()
    return sub


@pytest.mark.parametrize("read_from", [Start.LATEST, position(5)])
def test_a_subscription_at_the_position_of_others_needs_no_read(
    hub: Hub, read_from: ReadFrom
) -> None:
    before = live_subscription(hub, at=5)
    late = make_subscription(read_from)

    hub.attach_audience(late)

    assert late.began_at == position(5)
    assert late.own_subscription().live_at is before.own_subscription().live_at
    assert isinstance(late.owner, JoiningOwner)
    assert late.owner.deliveries == [Delivery([])]
    assert not hub.needs_read


@pytest.mark.parametrize("read_from", [Start.EARLIEST, position(4), position(6), ZERO])
def test_a_subscription_from_another_position_needs_a_read(
    hub: Hub, read_from: ReadFrom
) -> None:
    live_subscription(hub, at=5)
    late = make_subscription(read_from)

    hub.attach_audience(late)

    assert late.began_at is None
    assert hub.needs_read == {EVERYONE}


def test_a_subscription_without_live_neighbours_needs_a_read(hub: Hub) -> None:
    live_subscription(hub, at=5).own_subscription().mark_stale()
    late = make_subscription(Start.LATEST)

    hub.attach_audience(late)

    assert late.began_at is None
    assert hub.needs_read == {EVERYONE}
