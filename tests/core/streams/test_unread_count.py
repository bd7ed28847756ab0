"""Counts of an inbox, for a stream that has delivered less or more than was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.core.streams.unread_count import (
    UNCOUNTED_MAX,
    InboxCount,
    UnreadCount,
    delivered_beyond,
    with_uncounted,
)
from streamer.core.streams.views import Audience, View
from streamer.model import ZERO, App, Log, Position, Topic, topic_log

NEWS: Log = topic_log(App("app"), Topic("news"))


def at(offset: int, epoch: int = 1) -> Position:
    return Position(epoch, offset, offset, offset) if offset else ZERO


def test_nothing_is_beyond_the_position_that_was_counted_to() -> None:
    assert delivered_beyond(at(4), at(4), ()) == 0


def test_an_entry_that_was_counted_and_not_delivered_makes_the_count_useless() -> None:
    assert delivered_beyond(at(5), at(4), ()) is None


def test_entries_beyond_are_counted_without_those_that_count_for_nobody() -> None:
    assert delivered_beyond(at(4), at(9), (3, 6, 9)) == 3


def test_entries_before_the_player_joined_are_not_counted() -> None:
    assert delivered_beyond(at(4), at(9), (), joined=at(7)) == 2
    assert delivered_beyond(at(4), at(9), (), joined=at(12)) == 0


def test_a_position_of_joining_in_a_lost_log_means_nothing() -> None:
    assert delivered_beyond(at(4), at(9), (), joined=at(7, epoch=2)) == 5


def test_a_count_of_a_lost_log_is_useless() -> None:
    assert delivered_beyond(at(4, epoch=2), at(9), ()) is None


def test_a_count_of_a_log_without_entries_is_not() -> None:
    assert delivered_beyond(ZERO, at(2), ()) == 2
    assert delivered_beyond(ZERO, ZERO, ()) == 0


def test_a_count_from_before_all_remembered_offsets_is_useless() -> None:
    uncounted: tuple[int, ...] = ()
    for offset in range(1, UNCOUNTED_MAX + 6):
        uncounted = with_uncounted(uncounted, offset)

    assert len(uncounted) == UNCOUNTED_MAX
    assert delivered_beyond(at(4), at(UNCOUNTED_MAX + 5), uncounted) is None
    assert delivered_beyond(at(6), at(UNCOUNTED_MAX + 5), uncounted) == 0


def test_the_unread_of_all_logs_are_added() -> None:
    count = InboxCount(
        at(3),
        2,
        7,
        {NEWS: View(NEWS, at(1))},
        {NEWS: Audience(at(5), 1, 0, b"")},
    )

    assert count.unread == 2 + 4


def test_an_audience_is_counted_up_to_a_position() -> None:
    count = InboxCount(
        at(3),
        2,
        7,
        {NEWS: View(NEWS, at(1))},
        {NEWS: Audience(at(5), 1, 0, b"")},
    )

    assert count.unread_in(NEWS, at(3)) == 2
    assert count.unread_in(NEWS, at(9)) == 4
    assert count.unread_in(NEWS, ZERO) == 0
    assert count.unread_in(NEWS, at(3, epoch=2)) == 4, "a lost log's position"
    assert count.unread_in(NEWS, at(3, epoch=0)) == 2, "a bare id's position"


@given(st.integers(0, 5), st.integers(0, 5))
def test_what_a_group_has_counted_is_not_counted_twice(
    grouped: int, unread: int
) -> None:
    count = UnreadCount(3, is_doubtful=True)

    count.set(unread, grouped)

    assert count.counted + grouped == unread
    assert not count.is_doubtful
