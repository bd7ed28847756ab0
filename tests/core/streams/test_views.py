"""A player's unread entries of an audience, compared with counting one by one."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.core.streams.views import Audience, View
from streamer.model import ZERO, App, Entry, Position, everyone_log

LOG = everyone_log(App("app"))
FAR = 2**32 - 100


def bitmap(base: int, offsets: set[int]) -> bytes:
    """Return the bitmap that SETBIT would have made of these offsets."""
    above = [offset for offset in offsets if offset >= base]
    if not above:
        return b""
    bits = bytearray((max(above) - base) // 8 + 1)
    for offset in above:
        at = offset - base
        bits[at // 8] |= 128 >> at % 8
    return bytes(bits)


def position(offset: int, epoch: int = 1) -> Position:
    return Position(epoch, offset, offset, offset) if offset else ZERO


class Case(NamedTuple):
    """A player's view of an audience, with each offset listed."""

    first: int
    """All offsets are relative to this one."""
    head: int
    floor: int
    joined: int
    read: set[int]
    ended: set[int]
    base: int
    dead_base: int

    @property
    def view(self) -> View:
        joined = position(self.first + self.joined)
        base = self.first + self.base
        done = bitmap(base, {self.first + offset for offset in self.read})
        return View(LOG, joined, base, done)

    @property
    def audience(self) -> Audience:
        base = self.first + self.dead_base
        ended = bitmap(base, {self.first + offset for offset in self.ended})
        head = position(self.first + self.head)
        return Audience(head, self.first + self.floor, base, ended)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    head = draw(st.integers(0, 60))
    floor = draw(st.integers(1, head + 1))
    offsets = st.sets(st.integers(0, head), max_size=30)
    return Case(
        first=draw(st.sampled_from([0, 8, 4_096, FAR - FAR % 8 - 64])),
        head=head,
        floor=floor,
        joined=draw(st.integers(0, head)),
        read=draw(offsets),
        ended=draw(offsets),
        base=8 * draw(st.integers(0, (head + 1) // 8)),
        # The store's bitmap begins at or below the oldest retained entry.
        dead_base=8 * draw(st.integers(0, floor // 8)),
    )


def is_unread(case: Case, offset: int) -> bool:
    kept = case.floor <= offset <= case.head
    done = offset < case.base or offset in case.read or offset in case.ended
    return kept and offset > case.joined and not done


@settings(max_examples=500, deadline=None)
@given(cases())
def test_the_unread_entries_are_counted(case: Case) -> None:
    expected = sum(is_unread(case, offset) for offset in range(1, case.head + 1))

    assert case.view.unread(case.audience) == expected


@settings(max_examples=200, deadline=None)
@given(cases())
def test_each_offset_is_done_or_not(case: Case) -> None:
    for offset in range(1, case.head + 1):
        done = offset < case.base or offset in case.read
        assert case.view.is_done(case.first + offset) == done


@given(cases())
def test_after_a_change_of_epoch_the_whole_log_is_unread(case: Case) -> None:
    # The marks in the lost log do not apply to the new one.
    head = position(case.head, epoch=2)
    audience = Audience(head, 1, 0, b"")
    lost = case.view._replace(joined=position(9), deleted=frozenset(range(100)))

    view = lost.at(audience)

    assert view.unread(audience) == case.head == lost.unread(audience)
    assert not view.is_done(1)
    assert all(view.shows(entry(offset, epoch=2)) for offset in (1, 9, 10))


def entry(offset: int, epoch: int = 1) -> Entry:
    return Entry(epoch, offset, offset, offset, b"x")


def test_a_muted_audience_has_nothing_unread_in_any_epoch() -> None:
    view = View(LOG, position(1), muted=True)

    for epoch in (1, 2):
        assert view.unread(Audience(position(5, epoch), 1, 0, b"")) == 0
        assert view.at(Audience(position(5, epoch), 1, 0, b"")).muted


def test_an_audience_without_entries_has_nothing_unread() -> None:
    assert View(LOG, ZERO).unread(Audience(ZERO, 1, 0, b"")) == 0
    assert View(LOG, position(3)).unread(Audience(ZERO, 1, 0, b"")) == 0


def test_a_player_that_joined_before_the_first_entry_has_all_of_them() -> None:
    view = View(LOG, ZERO)

    assert view.unread(Audience(position(4, epoch=9), 1, 0, b"")) == 4
    assert view.shows(entry(1, epoch=9))


def test_entries_after_joining_are_shown_unless_deleted() -> None:
    view = View(LOG, position(3), deleted=frozenset({5}))

    assert [o for o in range(1, 8) if view.shows(entry(o))] == [4, 6, 7]
    assert [o for o in range(1, 8) if view.reaches(entry(o))] == [4, 5, 6, 7]


def test_another_epoch_begins_a_log_of_which_nothing_is_deleted() -> None:
    view = View(LOG, position(3, epoch=1), deleted=frozenset({2, 5}))

    assert all(view.shows(entry(offset, epoch=2)) for offset in (1, 2, 3, 5))
    assert view.at(Audience(position(9, epoch=2), 1, 0, b"")) == View(
        LOG, Position(2, 0, 0, 0)
    )
