"""Server-Sent Events as messages, whatever the bytes look like."""

from __future__ import annotations

import json

import pytest

from streamer_client.sse import EVENT_CHARACTERS_MAX, EventParser
from streamer_client.wire import Unreadable, decode

NOTE = {"id": "n1", "created_at": "2026-11-20T22:52:39.123Z", "title": "grüße 😀"}
EVENTS = (
    f"id: c1\ndata: {json.dumps(NOTE, ensure_ascii=False)}\n\n"
    'event: ping\ndata: {}\n\nevent: unread\ndata: {"unread": 3}\n\n'
)


def messages(*chunks: bytes) -> list[object]:
    parser = EventParser()
    return [json.loads(text) for chunk in chunks for text in parser.feed(chunk)]


EXPECTED = [
    {"type": "notification", "notification": NOTE, "cursor": "c1"},
    {"type": "ping"},
    {"type": "unread", "unread": 3},
]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
def test_events_are_messages_wherever_chunks_end(line_end: str, size: int) -> None:
    data = (EVENTS + ": end\n").replace("\n", line_end).encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]

    assert messages(*chunks) == EXPECTED


def test_an_event_without_its_empty_line_has_not_arrived() -> None:
    assert messages(b'event: unread\ndata: {"unread": 3}\n') == []


def test_the_id_of_a_named_event_is_its_cursor() -> None:
    withdrawn = b'id: c1\nevent: withdrawn\ndata: {"id":"n1"}\n\n'
    data = withdrawn + b"id: c2\nevent: x\ndata: {}\n\n"

    assert messages(data) == [
        {"type": "withdrawn", "cursor": "c1", "id": "n1"},
        {"type": "x", "cursor": "c2"},
    ]


def test_comments_and_unknown_fields_are_passed_over() -> None:
    data = b"\xef\xbb\xbf: hi\n\nretry: 5\n\nid: c9\n\nglitter\nevent:ping\ndata:{}\n\n"

    assert messages(data) == [{"type": "ping"}]


def test_an_id_belongs_to_its_event_only() -> None:
    data = b"id: c1\ndata: {}\n\ndata: {}\n\n"

    assert messages(data) == [
        {"type": "notification", "notification": {}, "cursor": "c1"},
        {"type": "notification", "notification": {}},
    ]


@pytest.mark.parametrize("data", ["{", '{"id": "n', "[]", "7", "", "{}}"])
@pytest.mark.parametrize("name", ["", "event: gap\n"])
def test_an_event_that_cannot_be_read_is_not_passed_over(name: str, data: str) -> None:
    texts = list(EventParser().feed(f"{name}data: {data}\n\n".encode()))

    for text in texts:
        with pytest.raises(Unreadable):
            decode(text)
    assert len(texts) == (1 if data else 0)


def test_an_event_that_never_ends_is_an_error() -> None:
    parser = EventParser()

    with pytest.raises(ValueError, match="too long"):
        for _ in range(5):
            list(parser.feed(b"data: " + b"x" * (EVENT_CHARACTERS_MAX // 4)))
