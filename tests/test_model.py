"""Ids, positions, names and fragments: round trips, and invalid ones."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model import (
    AT_US_MAX,
    CURSOR_CHARS_MAX,
    EPOCH_MAX,
    OFFSET_MAX,
    TAG_MAX,
    ZERO,
    App,
    Entry,
    Log,
    Notification,
    Player,
    Position,
    Property,
    Resource,
    Topic,
    audience_log,
    decode_fragment,
    decode_id,
    decode_position,
    encode_fragment,
    encode_id,
    encode_position,
    everyone_log,
    iso_time,
    new_epoch,
    new_name,
    new_tag,
    new_tags,
    notification_json,
    topic_log,
)

positions = st.builds(
    Position,
    st.integers(0, EPOCH_MAX),
    st.integers(0, AT_US_MAX),
    st.integers(1, OFFSET_MAX),
    st.integers(0, TAG_MAX),
)


@given(positions)
def test_a_position_survives_a_round_trip(position: Position) -> None:
    cursor = encode_position(position)

    assert decode_position(cursor) == position
    assert len(cursor) == 27
    assert cursor.replace("-", "a").replace("_", "a").isalnum()


@given(positions)
def test_an_id_is_a_uuid_version_7_that_leads_to_its_entry(position: Position) -> None:
    id_ = position.id

    parsed = uuid.UUID(id_)
    assert str(parsed) == id_
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert decode_id(id_) == decode_id(id_.upper()) == position._replace(epoch=0)


@given(positions, positions)
def test_ids_sort_as_the_log_does(one: Position, other: Position) -> None:
    assert (one.id < other.id) == (one.order < other.order)


def test_a_log_is_a_players_a_topics_or_everyones() -> None:
    app = App("demo")
    player = Log(app, Player("p1"))
    topic = topic_log(app, Topic("news"))
    everyone = everyone_log(app)

    assert (player.name, topic.name, everyone.name) == ("p1", "\x01tnews", "\x01e")
    assert (player.is_audience, player.player, player.topic) == (False, "p1", None)
    assert (topic.is_audience, topic.topic) == (True, "news")
    assert (everyone.is_audience, everyone.topic) == (True, None)
    for audience in (topic, everyone):
        assert audience_log(app, audience.audience) == audience
        with pytest.raises(AssertionError):
            _ = audience.player


def test_the_zero_position_is_encoded() -> None:
    assert decode_position(encode_position(ZERO)) == ZERO
    # It is before the first entry, whatever the epoch.
    assert decode_position(encode_position(Position(7, 0, 0, 0))) == ZERO


def test_a_bare_id_is_a_position_of_an_unknown_epoch() -> None:
    assert decode_position(encode_id(5, 6, 7)) == Position(0, 5, 6, 7)


@given(st.text(max_size=40) | st.text("Az09-_=+/", min_size=25, max_size=29))
@pytest.mark.row("F4")
def test_any_text_is_a_position_or_none(text: str) -> None:
    position = decode_position(text)

    if position is not None and len(text) == 27:
        assert encode_position(position) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A" * 26,
        "A" * 28,
        "A" * 26 + "B",  # The last digit's unused bits are set.
        "A" * 26 + "=",
        "+" * 27,
        "/" * 27,
        "é" * 27,
        " " + "A" * 26,
        "\ud800" * 27,
        "00000000-0000-7000-8000-000000000000",  # Offset 0 has no entry.
        "00000000-0000-4000-8004-000000000000",  # Version 4.
        "00000000-0000-7000-c004-000000000000",  # Another variant.
        "00000000000070008004000000000000",  # No dashes.
        "00000000-0000-7000-8004-00000000000g",
        "00000000-0000-7000-8004-000000000000\n",
        "{00000000-0000-7000-8004-000000000000}",
        "\u0660" * 8 + "-0000-7000-8004-000000000000",
        "A" * (CURSOR_CHARS_MAX + 1),
    ],
)
def test_an_invalid_position_is_none(text: str) -> None:
    assert decode_position(text) is None


def test_a_fragment_survives_a_round_trip() -> None:
    notification = Notification(
        type="t",
        title="a\r\nb\0",
        data={"k": [1, None, "\u2028"]},
        properties=(Property("k", "v"), Property("k", "w")),
        priority="high",
        resource=Resource("/r", '"1"'),
    )

    fragment = encode_fragment(notification)

    assert decode_fragment(fragment) == notification
    assert not set(fragment) & set(range(0x20))


def test_null_data_differs_from_no_data() -> None:
    assert encode_fragment(Notification(data=None)) == b'"data":null}'
    with pytest.raises(ValueError, match="without any field"):
        encode_fragment(Notification())


def test_id_and_time_precede_the_fragment() -> None:
    entry = Entry(1, 1_700_000_000_123_999, 2, 3, b'"title":"t"}')

    assert json.loads(entry.json) == {
        "id": entry.id,
        "created_at": "2023-11-14T22:13:20.123Z",
        "title": "t",
    }


@given(positions)
def test_an_entry_is_written_with_its_id_at_any_position(position: Position) -> None:
    # Python writes no time after the year 9999.
    at_us = position.at_us % 253_402_300_800_000_000
    entry = Entry(1, at_us, position.offset, position.tag, b'"title":"t"}')

    assert entry.json == notification_json(entry.id, entry.at_ms, entry.fragment)


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
    ],
)
def test_times_are_rfc_3339(at_ms: int, text: str) -> None:
    assert iso_time(at_ms) == text


def test_random_numbers_stay_within_their_bits() -> None:
    assert all(1 <= new_epoch() <= EPOCH_MAX for _ in range(100))
    assert all(0 <= new_tag() <= TAG_MAX for _ in range(1_000))
    assert len(set(new_tags(3))) == 3
    assert len({new_tag() for _ in range(1_000)}) > 990


def test_a_child_process_does_not_repeat_the_tags_of_its_parent() -> None:
    script = """if True:
        import os
        from streamer.model import new_tag
        new_tag()
        child = os.fork()
        print(*(new_tag() for _ in range(4)), flush=True)
        if child:
            os.waitpid(child, 0)
    """
    printed = subprocess.check_output([sys.executable, "-c", script], text=True)
    parent, child = printed.splitlines()
    assert not {*parent.split()} & {*child.split()}


def test_names_are_unique_even_if_the_random_module_is_seeded() -> None:
    random.seed(1)
    first = new_name()
    random.seed(1)

    assert re.fullmatch(r"[0-9a-f]{16}", first)
    assert new_name() != first
