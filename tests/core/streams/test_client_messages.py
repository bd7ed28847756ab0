"""Messages of a client: the limits of each, and what is not in the protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer.core.streams.client_messages import (
    MARK_IDS_MAX,
    REF_CHARS_MAX,
    TOPICS_MAX,
    parse_message,
)


def is_accepted(**message: Any) -> bool:
    return parse_message(json.dumps(message)) is not None


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe"])
@pytest.mark.parametrize(
    ("topics", "accepted"),
    [(0, False), (1, True), (TOPICS_MAX, True), (TOPICS_MAX + 1, False)],
)
def test_the_number_of_topics_is_limited(
    kind: str, topics: int, *, accepted: bool
) -> None:
    assert is_accepted(type=kind, topics=["t"] * topics) == accepted


@pytest.mark.parametrize(
    ("ids", "accepted"), [(0, True), (MARK_IDS_MAX, True), (MARK_IDS_MAX + 1, False)]
)
def test_the_number_of_marked_ids_is_limited(ids: int, *, accepted: bool) -> None:
    assert is_accepted(type="read", ids=["i"] * ids) == accepted


@pytest.mark.parametrize(
    "message",
    [
        {"type": "read", "all": True},
        {"type": "subscribe", "topics": ["t"]},
        {"type": "unsubscribe", "topics": ["t"]},
        {"type": "ack", "cursor": "c"},
    ],
)
def test_a_reference_is_limited(message: dict[str, Any]) -> None:
    assert is_accepted(**message, ref="r" * REF_CHARS_MAX)
    assert not is_accepted(**message, ref="r" * (REF_CHARS_MAX + 1))


@pytest.mark.parametrize(
    ("mark", "accepted"),
    [
        ({}, False),
        ({"all": False}, False),
        ({"all": True}, True),
        ({"up_to": "id"}, True),
        ({"ids": []}, True),
        ({"ids": [], "all": True}, False),
        ({"up_to": "id", "ids": ["i"]}, False),
        ({"up_to": "id", "all": False}, True),
    ],
)
def test_a_mark_says_in_exactly_one_way_what_is_read(
    mark: dict[str, Any], *, accepted: bool
) -> None:
    assert is_accepted(type="read", **mark) == accepted


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"type":"other"}', "[" * 100_000])
def test_other_texts_are_not_in_the_protocol(text: str) -> None:
    assert parse_message(text) is None
