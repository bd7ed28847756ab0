"""The first events of a stream: which, in which order, with which cursors."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.codec import ENVELOPE_BYTES
from streamer.core.streams.cursor import Cursor, audience_key
from streamer.core.streams.greeting import Beginning, Greeting
from streamer.core.streams.subscription import Delivery
from streamer.model import (
    ZERO,
    App,
    Entry,
    Gap,
    Position,
    Topic,
    everyone_log,
    topic_log,
)

APP = App("app")
LOGS = [topic_log(APP, Topic("news")), everyone_log(APP)]
NEWS, EVERYONE = SUBS = [
    AudienceSubscription(log, None, ZERO, joined_at=ZERO, is_member=True)  # type: ignore[arg-type]
    for log in LOGS
]
ROOM = 10_000
ONE = ENVELOPE_BYTES + len(b'"n":1}')
"""Bytes of each entry as an event."""


def at(offset: int) -> Position:
    return Position(1, offset, offset, offset)


def entry(offset: int, at_us: int | None = None) -> Entry:
    return Entry(1, offset if at_us is None else at_us, offset, offset, b'"n":1}')


def greeting(*beginnings: Beginning) -> Greeting:
    made = Greeting()
    for beginning in beginnings:
        made.add(beginning)
    return made


def offsets_in(cursor: str) -> tuple[int, ...]:
    """Return the offsets that a cursor names: own, of news, of everyone's log."""
    parsed = Cursor.parse(cursor)
    assert parsed is not None
    there = [parsed.audiences.get(audience_key(log), ZERO) for log in LOGS]
    return parsed.own.offset, *(position.offset for position in there)


def test_it_is_complete_with_the_own_log_and_each_audience() -> None:
    one = greeting(Beginning(NEWS, at(1), Delivery([])))

    assert not one.is_complete([NEWS])
    one.add(Beginning(None, at(1), Delivery([])))

    assert one.is_complete([NEWS])
    assert not one.is_complete(SUBS)


def test_it_knows_which_logs_have_been_read() -> None:
    one = greeting(Beginning(NEWS, at(1), Delivery([])))

    assert one.has(NEWS)
    assert not one.has(EVERYONE)
    assert not one.has(None)


def test_an_audience_that_is_left_is_dropped() -> None:
    one = greeting(
        Beginning(None, at(1), Delivery([])), Beginning(NEWS, at(1), Delivery([]))
    )

    one.keep([EVERYONE])

    assert one.has(None)
    assert not one.has(NEWS)
    assert not one.is_complete([EVERYONE])


def test_hello_names_the_position_of_the_client_in_every_log() -> None:
    one = greeting(
        Beginning(EVERYONE, at(3), Delivery([])),
        Beginning(None, at(1), Delivery([entry(2)])),
        Beginning(NEWS, at(2), Delivery([])),
    )

    assert offsets_in(one.first_events(SUBS, ROOM).cursor) == (1, 2, 3)


def test_the_gaps_come_first_and_move_the_cursor_one_after_the_other() -> None:
    one = greeting(
        Beginning(None, at(1), Delivery([entry(10)], Gap.TRIMMED, at(9))),
        Beginning(NEWS, at(2), Delivery([], Gap.EPOCH, at(7))),
    )

    first = one.first_events([NEWS], ROOM)

    assert offsets_in(first.cursor) == (1, 2, 0)
    (own, own_gap, own_cursor, _), (news, news_gap, news_cursor, _) = first.gaps
    assert (own, own_gap, offsets_in(own_cursor)) == (None, Gap.TRIMMED, (9, 2, 0))
    assert (news, news_gap, offsets_in(news_cursor)) == (NEWS, Gap.EPOCH, (9, 7, 0))


def test_entries_of_several_logs_are_merged_by_time() -> None:
    one = greeting(
        Beginning(None, at(0), Delivery([entry(1, 10), entry(2, 30)])),
        Beginning(NEWS, at(0), Delivery([entry(1, 20)])),
    )

    runs = one.first_events([NEWS], ROOM).runs

    assert [(sub, [e.offset for e in entries]) for sub, entries, _ in runs] == [
        (None, [1]),
        (NEWS, [1]),
        (None, [2]),
    ]


def test_only_entries_of_the_own_log_have_a_tail() -> None:
    one = greeting(
        Beginning(None, at(0), Delivery([entry(1, 10), entry(2, 30)])),
        Beginning(NEWS, at(0), Delivery([entry(1, 20)])),
    )

    tails = [tail for *_, tail in one.first_events([NEWS], ROOM).runs]

    assert tails[1] is None
    assert tails[0] != tails[2]


@given(
    st.lists(st.tuples(st.sampled_from([None, *SUBS]), st.integers(1, 9)), max_size=12),
    st.integers(1, 12),
)
def test_every_entry_comes_or_is_read_again_from_the_position_before_it(
    moments: list[tuple[AudienceSubscription | None, int]], room: int
) -> None:
    entries: dict[AudienceSubscription | None, list[Entry]] = {
        sub: [] for sub in (None, *SUBS)
    }
    for sub, at_us in sorted(moments, key=lambda moment: moment[1]):
        entries[sub].append(entry(len(entries[sub]) + 1, at_us))
    one = greeting(
        *(Beginning(sub, ZERO, Delivery(those)) for sub, those in entries.items())
    )

    first = one.first_events(SUBS, room * ONE)

    assert sum(len(run) for _, run, _ in first.runs) == min(room, len(moments))
    for sub, those in entries.items():
        delivered = [e for whose, run, _ in first.runs if whose is sub for e in run]
        assert delivered == those[: len(delivered)]
        last = delivered[-1].position if delivered else ZERO
        if len(delivered) < len(those):
            assert first.postponed[sub] == last
        else:
            assert sub not in first.postponed


def test_one_entry_comes_however_large_it_is() -> None:
    one = greeting(Beginning(None, at(0), Delivery([entry(1), entry(2)])))

    first = one.first_events([], 1)

    assert [[e.offset for e in run] for _, run, _ in first.runs] == [[1]]
    assert first.postponed == {None: at(1)}
