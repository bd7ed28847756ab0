"""
A reader's subscription to an audience's log, and streams that merge two logs.

`TwoLogs` is a player's log, an audience's log, announcements that get lost, and a
client that may lose its connection at any moment and resumes from the last cursor it
has seen. In every order of events the client gets all entries of both logs in order,
and none twice unless it lost its connection.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.batch_writer import ONE_BY_ONE, BatchWriter
from streamer.core.streams.codec import WebSocketCodec
from streamer.core.streams.cursor import Cursor, audience_key
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import Delivery, History, ReadFrom, Start, State
from streamer.errors import DRAINING, Disconnect
from streamer.model import (
    ZERO,
    App,
    Entry,
    Gap,
    Log,
    Player,
    Position,
    Topic,
    decode_id,
    everyone_log,
)

LOG = everyone_log(App("app"))
OWN = Log(App("app"), Player("p"))


def position(offset: int) -> Position:
    return Position(1, offset, offset, offset) if offset else ZERO


def entry(offset: int) -> Entry:
    return Entry(1, offset, offset, offset, b'"title":"t"}')


class RecordingOwner:
    """A reader that records its deliveries."""

    def __init__(self) -> None:
        self.joining = False
        self.congested = False
        self.topics: tuple[Topic, ...] = ()
        self.deliveries: list[Delivery] = []
        self.taken: list[Entry] = []
        self.ended: Disconnect | None = None

    stream = None

    def on_audience(self, sub: AudienceSubscription, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def deliver_audience(self, sub: AudienceSubscription, entry: Entry) -> None:
        self.taken.append(entry)

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        self.ended = disconnect
        self.delay_ms = delay_ms


@pytest.fixture
def owner() -> RecordingOwner:
    return RecordingOwner()


def sub_of(
    owner: RecordingOwner,
    read_from: ReadFrom = Start.LATEST,
    *,
    joined: Position = ZERO,
) -> AudienceSubscription:
    return AudienceSubscription(LOG, owner, read_from, joined_at=joined, is_member=True)


def read(
    sub: AudienceSubscription,
    *offsets: int,
    head: int,
    gap: Gap | None = None,
) -> None:
    read_from = sub.own_subscription().begin_read()
    start = read_from if isinstance(read_from, Position) else position(head)
    history = History(start, position(head), [entry(o) for o in offsets], gap)
    sub.on_history(read_from, history)


def test_a_subscription_begins_with_its_first_read_even_if_that_is_empty(
    owner: RecordingOwner,
) -> None:
    sub = sub_of(owner)
    assert sub.joining

    read(sub, head=3)

    assert sub.began_at == position(3)
    assert owner.deliveries == [Delivery([])]


def test_before_a_gap_a_subscription_begins_at_the_clients_position(
    owner: RecordingOwner,
) -> None:
    sub = sub_of(owner, position(1))

    read(sub, head=9, gap=Gap.TRIMMED)

    assert sub.began_at == position(1)
    assert owner.deliveries == [Delivery([], Gap.TRIMMED, position(9))]


def test_an_empty_read_causes_no_delivery(owner: RecordingOwner) -> None:
    sub = sub_of(owner, joined=position(5))
    read(sub, head=3)
    sub.own_subscription().mark_stale()

    read(sub, 4, 5, head=5)

    assert owner.deliveries == [Delivery([])]
    assert sub.own_subscription().read_from == position(5)


def test_entries_before_the_player_joined_are_left_out(
    owner: RecordingOwner,
) -> None:
    sub = sub_of(owner, position(1), joined=position(2))
    read(sub, 2, 3, head=3)
    assert [e.offset for e in owner.deliveries[0].entries] == [3]

    # The position of joining does not apply to another epoch of the log.
    renewed = entry(1)._replace(epoch=2)
    sub.own_subscription().mark_stale()
    read_from = sub.own_subscription().begin_read()
    assert isinstance(read_from, Position)
    head = renewed.position
    sub.on_history(read_from, History(head, head, [], Gap.EPOCH))
    sub.offer(renewed._replace(offset=2))

    assert [e.offset for e in owner.deliveries[-1].entries] == [2]


def test_live_entries_before_the_stream_begins_require_a_read(
    owner: RecordingOwner,
) -> None:
    owner.joining = True
    sub = sub_of(owner)
    read(sub, head=1)

    sub.offer(entry(2))

    assert sub.own_subscription().state is State.REPLAYING
    assert len(owner.deliveries) == 1


def test_the_next_live_entry_is_delivered(owner: RecordingOwner) -> None:
    sub = sub_of(owner)
    read(sub, head=1)

    sub.deliver_next(entry(2), entry(2).position)

    assert owner.taken == [entry(2)]
    assert sub.own_subscription().read_from == position(2)


def test_ending_a_subscription_ends_its_reader(owner: RecordingOwner) -> None:
    sub_of(owner).end(DRAINING, delay_ms=7)

    assert (owner.ended, owner.delay_ms) == (DRAINING, 7)


class Client:
    """One connection: records its entries of each log, and the last cursor."""

    batch_writer: BatchWriter = ONE_BY_ONE

    def __init__(self, cursor: Cursor | None) -> None:
        self.cursor = cursor
        read_from: ReadFrom = cursor.own if cursor else ZERO
        self.session = Session(
            read_from,
            codec=WebSocketCodec(),
            sink=self,
            limits=SessionLimits(send_buffer_bytes=1_500),
            pinged_at_s=0,
            cursor=cursor,
        )
        mark = audience_key(LOG)
        there: ReadFrom = cursor.audiences.get(mark, ZERO) if cursor else ZERO
        self.audience_subscription = AudienceSubscription(
            LOG, self.session, there, joined_at=ZERO, is_member=True
        )
        self.session.set_audiences((self.audience_subscription,))
        self.got: tuple[list[int], list[int]] = ([], [])
        self.waiting_bytes = 0

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        if self.waiting_bytes and self.waiting_bytes + len(event) > buffer_bytes_max:
            return False
        self.waiting_bytes += len(event)
        message: dict[str, Any] = json.loads(event)
        if message["type"] == "notification":
            position = decode_id(message["notification"]["id"])
            assert position is not None
            self.got["cursor" not in message].append(position.offset)
        if "cursor" in message:
            self.cursor = Cursor.parse(message["cursor"])
        return True

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        return all(self.write(event, buffer_bytes_max) for event in events)

    def buffered(self) -> int:
        return self.waiting_bytes

    def waiting_since_s(self) -> float | None:
        return None

    def close(self, disconnect: Disconnect) -> None:
        pass

    def abort(self, disconnect: Disconnect) -> None:
        pass


class TwoLogs:
    """Two logs and their reader, with random events."""

    def __init__(self, data: st.DataObject) -> None:
        self.rng = data.draw(st.randoms(use_true_random=False))
        self.heads = [0, 0]
        self.times: list[list[int]] = [[], []]
        self.now = 0
        self.client = Client(None)
        self.under: list[tuple[ReadFrom, History | None] | None] = [None, None]
        self.queues: list[list[Entry]] = [[], []]
        self.has = [0, 0]
        """The last offset that the client has of each log."""

    def entry(self, log: int, offset: int) -> Entry:
        return entry(offset)._replace(at_us=self.times[log][offset - 1])

    def position(self, log: int, offset: int) -> Position:
        return self.entry(log, offset).position if offset else ZERO

    def follower(self, log: int) -> Session | AudienceSubscription:
        return self.client.audience_subscription if log else self.client.session

    def publish(self, log: int) -> None:
        self.now += self.rng.randrange(3)
        self.heads[log] += 1
        self.times[log].append(self.now)
        self.queues[log].append(self.entry(log, self.heads[log]))

    def on_audience(self, log: int) -> None:
        if self.queues[log]:
            entry = self.queues[log].pop(0)
            if self.rng.random() < 0.8:
                self.follower(log).offer(entry)
                self.note()

    def read(self, log: int) -> None:
        follower, under = self.follower(log), self.under[log]
        if under is None:
            replaying = follower.own_subscription().state is State.REPLAYING
            if replaying and not follower.congested:
                self.under[log] = (follower.own_subscription().begin_read(), None)
        elif under[1] is None:
            start = under[0]
            assert isinstance(start, Position)
            last = min(start.offset + 2, self.heads[log])
            entries = [self.entry(log, o) for o in range(start.offset + 1, last + 1)]
            head = self.position(log, self.heads[log])
            self.under[log] = (start, History(start, head, entries))
        else:
            self.under[log] = None
            if not follower.congested:
                follower.on_history(under[0], under[1])
                self.note()

    def cut_off(self) -> None:
        """Resume from the last cursor; entries after it come again."""
        cursor = self.client.cursor
        self.client = Client(cursor)
        self.under = [None, None]
        self.queues = [[], []]
        if cursor is not None:
            there = cursor.audiences.get(audience_key(LOG), ZERO)
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
        for follower in (self.client.session, self.client.audience_subscription):
            follower.own_subscription().mark_stale()
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
def test_no_order_of_events_in_two_logs_loses_repeats_or_misorders_entries(
    data: st.DataObject,
) -> None:
    two_logs = TwoLogs(data)
    for _ in range(data.draw(st.integers(10, 150))):
        chance, log = two_logs.rng.random(), two_logs.rng.randrange(2)
        if chance < 0.25:
            two_logs.publish(log)
        elif chance < 0.5:
            two_logs.on_audience(log)
        elif chance < 0.8:
            two_logs.read(log)
        elif chance < 0.9:
            two_logs.client.waiting_bytes = 0
        elif chance < 0.95:
            two_logs.client.session.send_cursor()
        elif chance < 0.98:
            two_logs.follower(log).own_subscription().mark_stale()
        else:
            two_logs.cut_off()
        if two_logs.client.session.ended:
            two_logs.cut_off()

    two_logs.settle()
