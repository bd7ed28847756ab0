"""
Every interleaving of small cases, and many of large ones, against a plain model.

A `World` is a log that may lose its tail, announcements that may be dropped or doubled,
one read in progress that may be late, and a reader. `explore` walks every order of
events that a `Case` allows, lets each end settle with a last stale mark, and checks
what the reader got: the log's entries in order, none missing, none twice, or an
explicit gap and then the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.streams.subscription import (
    PENDING_MAX,
    Delivery,
    History,
    ReadFrom,
    Start,
    State,
    Subscription,
    follows_directly,
)
from streamer.model import ZERO, Entry, Gap, Position

SMALL: Final = b"x"


class Case(NamedTuple):
    """The events that may happen in a world, at any time and in any order."""

    messages: int
    drops: int = 0
    doubles: int = 0
    doubts: int = 0
    losses: int = 0
    """How often the store loses its log; each time Pub/Sub is interrupted."""
    cuts: int = 0
    """How often it loses the newest entry or two, and goes on from there."""
    trims: int = 0
    before: int = 0
    """Messages in the log before the reader joins."""
    page: int = 2
    large: frozenset[int] = frozenset()
    """Messages, counted from 1, that are announced without a fragment."""


class Store(NamedTuple):
    """The log in the store; `entries` are all of the epoch, trimmed ones included."""

    epoch: int = 0
    entries: tuple[Entry, ...] = ()
    floor: int = 1

    @property
    def head(self) -> Position:
        if self.entries:
            return self.entries[-1].position
        return Position(self.epoch, 0, 0, 0)

    def append(self, epoch: int, number: int, fragment: bytes) -> Store:
        epoch = self.epoch or epoch
        entry = Entry(epoch, number, self.head.offset + 1, number, fragment)
        return self._replace(epoch=epoch, entries=(*self.entries, entry))

    def cut(self, count: int) -> Store:
        return self._replace(entries=self.entries[:-count])

    def read(self, read_from: ReadFrom, limit: int, *, trusting: bool) -> History:
        """Read as the script does. A `trusting` read compares only offsets."""
        if read_from is Start.LATEST:
            return History(self.head, self.head, [])
        if read_from is Start.EARLIEST:
            start = Position(self.epoch, 0, self.floor - 1, 0)
        else:
            assert isinstance(read_from, Position)
            start = read_from._replace(epoch=self.epoch)
            gap = self._gap(read_from)
            if trusting and gap in (Gap.EPOCH, Gap.DIVERGED, Gap.AHEAD):
                gap = None
            if gap is not None:
                return History(self.head, self.head, [], gap)
        first = max(start.offset, self.floor - 1)
        return History(start, self.head, [*self.entries[first : first + limit]])

    def _gap(self, position: Position) -> Gap | None:
        if position.epoch not in (0, self.epoch):
            return Gap.EPOCH
        if position.offset > self.head.offset:
            return Gap.AHEAD
        if position.offset + 1 < self.floor:
            return Gap.TRIMMED
        kept = position.offset >= self.floor or position.offset == self.head.offset
        if position.offset and kept and position != self._at(position.offset):
            return Gap.DIVERGED
        return None

    def _at(self, offset: int) -> Position:
        return self.entries[offset - 1].position


class Under(NamedTuple):
    """A read in progress: not carried out yet, or with its result on the way."""

    read_from: ReadFrom
    answer: History | None = None


Announced = Entry | None
"""An announcement; None is the confirmation of a new subscription."""


class World:
    """One state of everything, and the steps that lead from it."""

    __slots__ = (
        "case",
        "got",
        "left",
        "queue",
        "store",
        "subscription",
        "under",
    )

    def __init__(
        self, case: Case, read_from: ReadFrom, kind: type[Subscription]
    ) -> None:
        self.case = case
        self.store = Store()
        for _ in range(case.before):
            self.store = self.store.append(1, len(self.store.entries) + 1, SMALL)
        self.subscription = kind(read_from)
        self.left = case
        self.queue: tuple[Announced, ...] = ()
        self.under: Under | None = None
        self.got: tuple[Entry | Position, ...] = ()
        """What the reader got; after a position the stream goes on from there."""

    def copy(self) -> World:
        other = object.__new__(type(self))
        for name in World.__slots__:
            setattr(other, name, getattr(self, name))
        old = self.subscription
        new = object.__new__(type(old))
        new._read_from, new.live_at, new._stale = (
            old._read_from,
            old.live_at,
            old._stale,
        )
        new._pending = None if old._pending is None else list(old._pending)
        other.subscription = new
        return other

    def key(self) -> object:
        s = self.subscription
        pending = None if s._pending is None else tuple(s._pending)
        under = self.under and (self.under.read_from, repr(self.under.answer))
        reader = (s.read_from, s.state, s._stale, pending, under)
        return (self.store, self.left, self.queue, self.got, reader)

    def steps(self) -> Iterator[str]:
        """Name the steps that can happen next."""
        left = self.left
        if left.messages:
            yield "publish"
        if self.queue:
            yield "announce"
            if left.drops and self.queue[0] is not None:
                yield "drop"
            if left.doubles and self.queue[0] is not None:
                yield "double"
        if self.under is None:
            if self.subscription.state is State.REPLAYING:
                yield "ask"
        else:
            yield "answer" if self.under.answer is None else "reply"
        if left.doubts:
            yield "doubt"
        if left.losses and self.store.epoch:
            yield "lose"
        kept = self.store.head.offset + 1 - self.store.floor
        if left.cuts:
            yield from [f"cut {count}" for count in (1, 2) if count <= kept]
        if left.trims and kept:
            yield "trim"

    def step(self, name: str) -> None:
        """Let a step happen."""
        left = self.left
        if name == "publish":
            number = self.case.before + self.case.messages - left.messages + 1
            self.left = left._replace(messages=left.messages - 1)
            epoch = 1 + self.case.losses - left.losses
            self.store = self.store.append(epoch, number, SMALL)
            entry = self.store.entries[-1]
            if number in self.case.large:
                entry = entry._replace(fragment=b"")
            self.queue += (entry,)
        elif name == "announce":
            self._announce(self.queue[0])
            self.queue = self.queue[1:]
        elif name == "drop":
            self.left = left._replace(drops=left.drops - 1)
            self.queue = self.queue[1:]
        elif name == "double":
            # Once here and once after everything else.
            self.left = left._replace(doubles=left.doubles - 1)
            self._announce(self.queue[0])
            self.queue = (*self.queue[1:], self.queue[0])
        elif name == "ask":
            self.under = Under(self.subscription.begin_read())
        elif name == "answer":
            self._answer()
        elif name == "reply":
            self._reply()
        elif name == "doubt":
            self.left = left._replace(doubts=left.doubts - 1)
            self.subscription.mark_stale()
        elif name == "lose":
            self.left = left._replace(losses=left.losses - 1)
            self.store = Store()
            self.queue += (None,)
        elif name.startswith("cut"):
            self.left = left._replace(cuts=left.cuts - 1)
            self.store = self.store.cut(int(name[4:]))
            self.queue += (None,)
        elif name == "trim":
            self.left = left._replace(trims=left.trims - 1)
            self.store = self.store._replace(floor=self.store.floor + 1)
        else:
            raise AssertionError(name)

    def settle(self) -> int:
        """Let everything settle, with a last position check; count the reads."""
        self.subscription.mark_stale()
        reads = 0
        while self.under or self.subscription.state is State.REPLAYING:
            if self.under is None:
                reads += 1
                assert reads < 2 * len(self.store.entries) + 10, "reads without an end"
            self.step(
                "ask"
                if self.under is None
                else "answer"
                if self.under.answer is None
                else "reply"
            )
        return reads

    def judge(self) -> None:
        """Compare what the reader got with the log."""
        # An entry that the log has lost may come again after the gap: its announcement
        # may be late by any time.
        kept = [item for item in self.got if item in self.store.entries]
        assert len(set(kept)) == len(kept), "an entry came twice"
        segments: list[tuple[Position, list[Entry]]] = []
        for item in self.got:
            if isinstance(item, Position):
                segments.append((item, []))
                continue
            start, segment = segments[-1]
            before = segment[-1].position if segment else start
            assert item.offset == before.offset + 1, "out of order"
            assert item.epoch == before.epoch or before.is_zero, "epochs mixed"
            segment.append(item)
        start, segment = segments[-1]
        rest = [*self.store.entries[start.offset :]]
        assert segment == rest, "not what is in the log"
        faults = self.case.losses + self.case.cuts
        # One fault may cause two gaps: an entry of the lost past can come in between.
        assert len(segments) - 1 <= 2 * faults + self.case.trims, "too many gaps"

    def _announce(self, entry: Announced) -> None:
        if entry is None:
            self.subscription.mark_stale()
            return
        # As the hub does, once for all readers at the same position.
        live_at = self.subscription.live_at
        if live_at is not None and follows_directly(entry, live_at):
            self.subscription.live_at = entry.position
            self.got += (entry,)
        else:
            self._deliver(self.subscription.on_live(entry))

    def _answer(self) -> None:
        assert self.under is not None
        answer = self.store.read(
            self.under.read_from,
            self.case.page,
            trusting=isinstance(self.subscription, OffsetsAlone),
        )
        self.under = Under(self.under.read_from, answer)

    def _reply(self) -> None:
        assert self.under is not None
        read_from, answer = self.under
        assert answer is not None
        self.under = None
        if not self.got:
            self.got = (answer.head if answer.gap else answer.start,)
        self._deliver(self.subscription.on_history(read_from, answer))

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.gap:
            assert delivery.resumed_at is not None
            self.got += (delivery.resumed_at,)
        self.got += tuple(delivery.entries)


class NoStaleMarks(Subscription):
    """Control: only holes make the reader replay."""

    __slots__ = ()

    def mark_stale(self) -> None:
        if self.read_from is None or isinstance(self.read_from, Start):
            super().mark_stale()

    def on_live(self, entry: Entry) -> Delivery:
        if self.state is State.LIVE and entry.offset > self.position.offset + 1:
            super().mark_stale()
        return super().on_live(entry)


class NoDeduplication(Subscription):
    """Control: every live entry is delivered, seen or not."""

    __slots__ = ()

    def on_live(self, entry: Entry) -> Delivery:
        if self.state is State.LIVE and entry.offset <= self.position.offset:
            return Delivery([entry])
        return super().on_live(entry)


class OffsetsAlone(Subscription):
    """Control: neither epochs nor tags are compared, here or in the store."""

    __slots__ = ()

    def on_live(self, entry: Entry) -> Delivery:
        if self.state is State.LIVE and entry.offset <= self.position.offset:
            return Delivery([])
        return super().on_live(entry)


class IgnoresLateMarks(Subscription):
    """Control: a read settles a stale mark that was set after it began."""

    __slots__ = ()

    def on_history(self, read_from: ReadFrom, page: History) -> Delivery:
        self._stale = False
        return super().on_history(read_from, page)


def explore(
    case: Case, *starts: ReadFrom, kind: type[Subscription] = Subscription
) -> int:
    """Walk every interleaving from each start; return the number of states."""
    seen: set[object] = set()
    for read_from in starts:
        waiting = [World(case, read_from, kind)]
        while waiting:
            world = waiting.pop()
            key = (read_from, world.key())
            if key in seen:
                continue
            seen.add(key)
            for name in world.steps():
                after = world.copy()
                after.step(name)
                waiting.append(after)
            if not world.left.messages and not world.queue:
                end = world.copy()
                end.settle()
                end.judge()
    return len(seen)


def position(offset: int, *, epoch: int = 1) -> Position:
    return Position(epoch, offset, offset, offset)


def entry(offset: int, *, epoch: int = 1, tag: int = 0) -> Entry:
    return Entry(epoch, offset, offset, tag or offset, SMALL)


def offsets(delivery: Delivery) -> list[int]:
    return [entry.offset for entry in delivery.entries]


def page(start: int, *found: int, head: int) -> History:
    return History(position(start), position(head), [entry(o) for o in found])


def is_replaying(subscription: Subscription) -> bool:
    return subscription.state is State.REPLAYING


def live_at(offset: int) -> Subscription:
    subscription = Subscription(position(offset))
    subscription.on_history(subscription.begin_read(), page(offset, head=offset))
    assert subscription.state is State.LIVE
    return subscription


CASES: Final = {
    "five messages": (Case(5), (Start.LATEST, Start.EARLIEST)),
    "two are dropped": (Case(4, drops=2, doubts=1), (Start.LATEST,)),
    "two are doubled": (Case(4, doubles=2), (Start.LATEST,)),
    "dropped, doubled, doubted": (
        Case(3, drops=1, doubles=1, doubts=2),
        (Start.LATEST, ZERO),
    ),
    "a past of three pages": (
        Case(2, before=5, drops=1, doubles=1, doubts=1),
        (position(1), Start.EARLIEST),
    ),
    "large ones": (Case(4, drops=1, doubts=1, large=frozenset({2, 3})), (ZERO,)),
    "the log is lost": (
        Case(3, before=2, losses=1, drops=1, doubts=1),
        (position(2), position(1)),
    ),
    "the tail is lost and grows again": (
        Case(4, before=2, cuts=1, drops=1),
        (position(2), position(1)),
    ),
    "the tail is lost twice": (Case(3, before=1, cuts=2, drops=1), (position(1),)),
    "the log is trimmed past the reader": (
        Case(3, before=3, trims=2, drops=1, doubts=1),
        (position(1), Start.EARLIEST),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.row("C5")
def test_no_interleaving_loses_repeats_or_misorders_entries(name: str) -> None:
    case, starts = CASES[name]

    states = explore(case, *starts)

    assert states > 100


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        (NoStaleMarks, Case(2, drops=1)),
        (NoDeduplication, Case(2, doubles=1)),
        (OffsetsAlone, Case(2, before=2, cuts=1)),
        (IgnoresLateMarks, Case(3, before=2, cuts=1, drops=1)),
    ],
)
@pytest.mark.row("C5")
def test_the_search_detects_a_flawed_merge(
    kind: type[Subscription], case: Case
) -> None:
    with pytest.raises(AssertionError):
        explore(case, position(case.before) if case.before else ZERO, kind=kind)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.data())
@pytest.mark.row("C5")
def test_no_long_history_loses_repeats_or_misorders_entries(
    data: st.DataObject,
) -> None:
    cuts = data.draw(st.integers(0, 2))
    case = Case(
        messages=data.draw(st.integers(1, 100)),
        drops=data.draw(st.integers(0, 40)),
        doubles=data.draw(st.integers(0, 40)),
        doubts=data.draw(st.integers(0, 5)),
        losses=data.draw(st.integers(0, 2)),
        cuts=cuts,
        # Trimmed entries cannot be compared: one that was replaced by another and
        # trimmed since is not missed.
        trims=0 if cuts else data.draw(st.integers(0, 5)),
        before=data.draw(st.integers(0, 30)),
        page=data.draw(st.integers(1, 20)),
        large=frozenset(data.draw(st.sets(st.integers(1, 180), max_size=20))),
    )
    starts: list[ReadFrom] = [ZERO, Start.LATEST, Start.EARLIEST]
    if case.before:
        starts.append(position(data.draw(st.integers(1, case.before))))
    world = World(case, data.draw(st.sampled_from(starts)), Subscription)
    rng = data.draw(st.randoms(use_true_random=False))
    while steps := [n for n in world.steps() if n != "ask" or rng.random() < 0.3]:
        world.step(rng.choice(steps))
        if not world.left.messages and not world.queue and rng.random() < 0.1:
            break

    world.settle()

    world.judge()


def test_a_hole_makes_the_reader_replay() -> None:
    subscription = live_at(3)
    assert offsets(subscription.on_live(entry(4))) == [4]

    assert offsets(subscription.on_live(entry(6))) == []
    assert is_replaying(subscription)

    read_from = subscription.begin_read()
    assert read_from == position(4)
    assert offsets(subscription.on_history(read_from, page(4, 5, 6, head=6))) == [5, 6]
    assert subscription.state is State.LIVE


def test_entries_held_during_a_read_follow_it() -> None:
    subscription = Subscription(position(1))
    read_from = subscription.begin_read()
    subscription.on_live(entry(3))
    subscription.on_live(entry(4))

    delivery = subscription.on_history(read_from, page(1, 2, 3, head=3))

    assert offsets(delivery) == [2, 3, 4]
    assert subscription.state is State.LIVE


def test_more_entries_than_are_held_cost_a_read_and_no_entry() -> None:
    subscription = Subscription(position(0))
    last = PENDING_MAX + 10
    read_from = subscription.begin_read()
    for offset in range(1, last + 1):
        subscription.on_live(entry(offset))

    first = subscription.on_history(read_from, page(0, head=0))
    assert is_replaying(subscription)
    second = subscription.on_history(
        subscription.begin_read(), page(0, *range(1, last + 1), head=last)
    )

    assert offsets(first) + offsets(second) == list(range(1, last + 1))
    assert subscription.state is State.LIVE


def test_an_entry_of_a_lost_past_does_not_keep_the_reader_replaying() -> None:
    # The store lost entry 5 after it had announced 6: the log ends at 4.
    subscription = live_at(4)
    subscription.on_live(entry(6))

    subscription.on_history(subscription.begin_read(), page(4, head=4))

    assert subscription.state is State.LIVE


def test_a_stale_mark_outlives_the_read_in_progress() -> None:
    subscription = Subscription(position(1))
    read_from = subscription.begin_read()
    subscription.mark_stale()

    delivery = subscription.on_history(read_from, page(1, 2, head=2))

    assert offsets(delivery) == [2]
    assert subscription.state is State.REPLAYING


def test_a_read_for_another_reader_does_not_settle_a_stale_mark() -> None:
    # The mark was set after the read began: an entry announced before may be lost.
    subscription = Subscription(position(1))

    subscription.on_history(position(1), page(1, head=1))

    assert subscription.state is State.REPLAYING


def test_a_read_from_another_position_is_ignored() -> None:
    subscription = Subscription(position(5))
    subscription.begin_read()

    assert subscription.on_history(position(4), page(4, 5, head=5)) == Delivery([])
    assert subscription.read_from == position(5)


def test_a_gap_names_the_position_at_which_the_stream_goes_on() -> None:
    subscription = Subscription(position(5))
    head = position(9)

    delivery = subscription.on_history(
        subscription.begin_read(), History(head, head, [], Gap.TRIMMED)
    )

    assert delivery == Delivery([], Gap.TRIMMED, head)
    assert offsets(subscription.on_live(entry(10))) == [10]


def test_an_entry_of_a_new_epoch_is_no_duplicate() -> None:
    subscription = live_at(3)

    subscription.on_live(entry(1, epoch=2))

    assert subscription.state is State.REPLAYING


def test_a_reader_at_the_zero_position_accepts_any_epoch() -> None:
    subscription = Subscription(Start.LATEST)
    subscription.on_history(subscription.begin_read(), History(ZERO, ZERO, []))

    assert offsets(subscription.on_live(entry(1, epoch=7))) == [1]


@pytest.mark.parametrize("offset", [2, 3])
def test_a_late_copy_of_another_past_makes_the_reader_stale(offset: int) -> None:
    subscription = live_at(3)

    subscription.on_live(Entry(1, 99, offset, 99, SMALL))

    assert subscription.state is State.REPLAYING


def test_a_late_copy_is_dropped() -> None:
    subscription = live_at(3)

    assert (
        subscription.on_live(entry(3)) == subscription.on_live(entry(2)) == Delivery([])
    )
    assert subscription.state is State.LIVE
