"""Cursors: a round trip, and forged ones, which are invalid or lead to a position."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.streams.cursor import Cursor, audience_key, tail_of
from streamer.model import (
    AT_US_MAX,
    CURSOR_CHARS_MAX,
    TAG_MAX,
    ZERO,
    App,
    Log,
    Position,
    Topic,
    encode_position,
    everyone_log,
    topic_log,
)

APP = App("app")
POSITION = Position(7, 1_764_000_000_000, 9, 5)

positions = st.builds(
    Position,
    st.integers(0, 2**32 - 1),
    st.integers(0, AT_US_MAX),
    st.integers(1, 2**32 - 1),
    st.integers(0, TAG_MAX),
)
audiences = st.one_of(
    st.just(everyone_log(APP)),
    st.builds(
        lambda name: topic_log(APP, Topic(name)),
        st.from_regex(r"[A-Za-z0-9_.:/-]{1,128}", fullmatch=True),
    ),
)
texts = st.one_of(
    st.text(max_size=80),
    st.from_regex(r"[A-Za-z0-9_-]{27}(\.[A-Za-z0-9_-]{33}){0,3}", fullmatch=True),
)


def with_one(key: str = "AAAAAA", position: str | None = None) -> str:
    position = encode_position(POSITION) if position is None else position
    return f"{encode_position(POSITION)}.{key}{position}"


@given(st.just(ZERO) | positions, st.dictionaries(audiences, positions, max_size=33))
def test_a_cursor_survives_a_round_trip(
    own: Position, there: dict[Log, Position]
) -> None:
    by_key = {audience_key(log): position for log, position in there.items()}
    cursor = Cursor(own, by_key)

    text = cursor.text

    assert Cursor.parse(text) == cursor
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", text)
    assert text == encode_position(own) + tail_of(there.items()) or len(by_key) < len(
        there
    )


@given(texts)
def test_any_text_is_a_cursor_or_none(text: str) -> None:
    cursor = Cursor.parse(text)

    if cursor is not None:
        # It may be a bare id, which has another text, but names the same positions.
        assert Cursor.parse(cursor.text) == cursor


def test_the_own_position_comes_first_and_alone_without_audiences() -> None:
    assert Cursor(POSITION).text == encode_position(POSITION)
    assert Cursor.parse(encode_position(POSITION)) == Cursor(POSITION)


def test_a_bare_id_is_a_cursor_of_an_unknown_epoch() -> None:
    cursor = Cursor.parse("019abc00-0000-7000-8000-040000000005")

    assert cursor is not None
    assert cursor.own.epoch == 0
    assert not cursor.audiences


def test_the_part_of_an_unknown_audience_is_kept() -> None:
    cursor = Cursor.parse(with_one("______"))

    assert cursor == Cursor(POSITION, {"______": POSITION})


def test_an_audience_without_entries_has_a_part_without_a_position() -> None:
    news, everyone = topic_log(APP, Topic("news")), everyone_log(APP)

    tail = tail_of([(news, ZERO), (everyone, POSITION)])

    assert tail == (
        f".{audience_key(news)}.{audience_key(everyone)}{encode_position(POSITION)}"
    )
    assert Cursor.parse(encode_position(POSITION) + tail) == Cursor(
        POSITION, {audience_key(news): ZERO, audience_key(everyone): POSITION}
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "x",
        with_one() + ".",
        "." + with_one(),
        with_one("AAAAA"),
        with_one("AAAAAAA"),
        with_one(position=encode_position(ZERO)),
        with_one(position=encode_position(POSITION)[:-1]),
        with_one(position="019abc00-0000-7000-8000-040000000005"),
        with_one("......"),
        with_one("é" * 6),
        with_one("\r\n\r\nid"),
        encode_position(POSITION) + "." + encode_position(POSITION),
    ],
)
def test_a_badly_forged_cursor_is_none(text: str) -> None:
    assert Cursor.parse(text) is None


def test_a_cursor_that_is_too_long_is_none() -> None:
    text = encode_position(POSITION)
    for n in range(60):
        text += f".{n:06}{encode_position(POSITION)}"
        assert (Cursor.parse(text) is None) == (len(text) > CURSOR_CHARS_MAX)


def test_a_cursor_with_all_audiences_of_a_reader_is_short_enough() -> None:
    # Everyone, sixteen topics of the player and sixteen of the stream.
    assert 27 + 33 * 34 <= CURSOR_CHARS_MAX


def test_the_audiences_of_a_player_have_distinct_keys() -> None:
    logs = [topic_log(APP, Topic(f"topic-{n}")) for n in range(1_000)]

    assert len({audience_key(log) for log in [*logs, everyone_log(APP)]}) == 1_001
