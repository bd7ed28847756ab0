"""Events of any content, read by a strict parser of each transport's format."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer import errors
from streamer.core.streams.codec import Codec, Hello, SseCodec, WebSocketCodec
from streamer.core.streams.cursor import tail_of
from streamer.model import (
    App,
    Entry,
    Gap,
    Notification,
    Position,
    Property,
    Resource,
    Topic,
    encode_fragment,
    encode_id,
    encode_position,
    everyone_log,
    topic_log,
)

HOSTILE = "\r\n\x00\x1b\x7f\x85\u2028\u2029\ufeff:data: id: event:retry:\n\n"
POSITION = Position(1, 1_764_000_000_000, 7, 99)
NEWS = topic_log(App("app"), Topic("news"))
TAIL = tail_of([(NEWS, POSITION)])
OLD_ID = encode_id(1_764_000_000_000, 6, 98)

text = st.text(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=40,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | text,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4)
    ),
    max_leaves=12,
)
notifications = st.builds(
    Notification,
    type=text,
    title=text,
    body=text,
    data=values,
    properties=st.lists(st.builds(Property, text, text), max_size=3).map(tuple),
    resource=st.none() | st.builds(Resource, text, text),
    source=text,
)


REPLACING = Entry(*POSITION, b'"title":"t"}', replaces=OLD_ID)
WITHDRAWING = Entry(*POSITION, b"", withdraws=OLD_ID)


class Block(NamedTuple):
    """An event as an event stream's parser dispatches it."""

    event: str
    data: str
    id: str | None
    retry: int | None


def parse_sse(stream: bytes) -> list[Block]:
    """
    Parse an event stream by the rules of the HTML Standard, 9.2.6.

    Lines end with CR LF, LF or CR. Input that the standard ignores, because browsers
    have to, is an error here: unknown fields, comments, NUL in an id, and an unfinished
    block at the end.
    """
    lines = re.split("\r\n|\n|\r", stream.decode("utf-8", "strict"))
    assert lines.pop() == "", "the last line is not ended"
    blocks: list[Block] = []
    event, last_id, retry, dirty = "", None, None, False
    data: list[str] = []
    for line in lines:
        if not line:
            assert dirty, "an empty block"
            assert data, "a block without data, which some parsers dispatch"
            blocks.append(Block(event, "\n".join(data), last_id, retry))
            event, data, last_id, retry, dirty = "", [], None, None, False
            continue
        dirty = True
        name, colon, value = line.partition(":")
        assert colon, f"no field: {line!r}"
        value = value.removeprefix(" ")
        if name == "event":
            assert not event
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            assert last_id is None
            assert "\0" not in value
            last_id = value
        elif name == "retry":
            assert value.isascii()
            assert value.isdigit()
            retry = int(value)
        else:
            raise AssertionError(f"unknown field {name!r}")
    assert not dirty, "an unfinished block"
    return blocks


def entry_of(notification: Notification) -> Entry:
    return Entry(*POSITION, encode_fragment(notification))


@settings(max_examples=150, deadline=None)
@given(notifications)
@pytest.mark.row("F4")
def test_any_notification_is_exactly_one_sse_event(notification: Notification) -> None:
    entry = entry_of(notification)

    (block,) = parse_sse(SseCodec().entry(entry, TAIL))

    assert block.event == ""
    assert block.id == encode_position(POSITION) + TAIL
    assert block.retry is None
    assert_same(json.loads(block.data), notification)


@settings(max_examples=150, deadline=None)
@given(notifications)
def test_any_notification_is_one_json_message(notification: Notification) -> None:
    message = json.loads(WebSocketCodec().entry(entry_of(notification), TAIL).decode())

    assert message["type"] == "notification"
    assert message["cursor"] == encode_position(POSITION) + TAIL
    assert_same(message["notification"], notification)


def assert_same(wire: dict[str, Any], notification: Notification) -> None:
    assert wire["id"] == Entry(*POSITION, b"").id
    assert wire["title"] == notification.title
    assert wire["type"] == notification.type
    assert wire["body"] == notification.body
    assert wire["source"] == notification.source
    assert wire["data"] == notification.data
    assert [(p["key"], p["value"]) for p in wire.get("properties", [])] == [
        (p.key, p.value) for p in notification.properties
    ] or any(not p.key or not p.value for p in notification.properties)
    if notification.resource:
        assert wire["resource"]["url"] == notification.resource.url


@given(text, text, st.integers(0, 10**9), st.integers(0, 10**9))
def test_every_other_event_is_one_sse_event_and_one_message(
    problem: str, ref: str, unread: int, marks: int
) -> None:
    body = json.dumps({"ids": [problem]}, ensure_ascii=False)[1:-1]
    # json.dumps escapes the other control characters itself.
    body = body.replace("\x7f", "\\u007f")
    for codec in (SseCodec(), WebSocketCodec()):
        events = [
            codec.hello(Hello("cursor", 25, unread, marks)),
            codec.gap(Gap.TRIMMED, "cursor", None),
            codec.gap(Gap.TRIMMED, "cursor", NEWS),
            codec.replaced(REPLACING),
            codec.entry(WITHDRAWING, TAIL),
            codec.entry(WITHDRAWING, None),
            codec.unread(unread),
            codec.read(marks=marks, unread=unread, body=body.encode()),
            codec.ping(),
            codec.bye(errors.DRAINING, 5),
        ]
        for event in events:
            assert len(read(codec, event)) == 1
    websocket = WebSocketCodec()
    assert json.loads(websocket.error(ref, problem)) == {
        "type": "error",
        "ref": ref,
        "problem": problem,
    }
    assert json.loads(websocket.reply(ref, unread))["ref"] == ref


def read(codec: Codec, events: bytes) -> list[tuple[str, Any]]:
    """Return the kind and the content of each event."""
    if isinstance(codec, SseCodec):
        return [(block.event, json.loads(block.data)) for block in parse_sse(events)]
    message = json.loads(events)
    return [(message.pop("type"), message)]


@pytest.mark.parametrize("codec", [SseCodec(), WebSocketCodec()])
def test_both_transports_carry_the_same_events(codec: Codec) -> None:
    cursor = encode_position(POSITION)

    assert read(codec, codec.hello(Hello("c", 25, 3, 17))) == [
        (
            "hello",
            {"cursor": "c", "heartbeat_s": 25, "unread": 3, "marks_version": 17},
        )
    ]
    gap = {"reason": "too_far", "cursor": cursor}
    everyone = everyone_log(NEWS.app)
    assert read(codec, codec.gap(Gap.TOO_FAR, cursor, None)) == [("gap", gap)]
    assert read(codec, codec.gap(Gap.TOO_FAR, cursor, NEWS)) == [
        ("gap", {**gap, "topic": "news"})
    ]
    assert read(codec, codec.gap(Gap.TOO_FAR, cursor, everyone)) == [
        ("gap", {**gap, "everyone": True})
    ]
    assert read(codec, codec.replaced(REPLACING)) == [
        ("replaced", {"id": OLD_ID, "by": REPLACING.id})
    ]
    assert read(codec, codec.unread(7)) == [("unread", {"unread": 7})]
    assert read(codec, codec.read(marks=4, unread=2, body=b'"all":true')) == [
        ("read", {"all": True, "unread": 2, "marks_version": 4})
    ]
    assert read(codec, codec.ping()) == [("ping", {})]
    assert read(codec, codec.bye(errors.SLOW, 0)) == [
        ("bye", {"code": 4000, "reason": "slow", "reconnect": True, "delay_ms": 0})
    ]


def test_only_events_that_move_the_reader_have_an_id_in_sse() -> None:
    codec = SseCodec()
    assert parse_sse(codec.hello(Hello("c", 25, 3, 17)))[0].id == "c"
    assert parse_sse(codec.gap(Gap.EPOCH, "g", None))[0].id == "g"
    assert parse_sse(codec.entry(WITHDRAWING, ""))[0].id == encode_position(POSITION)
    for event in (
        codec.entry(entry_of(Notification(title="t")), None),
        codec.entry(WITHDRAWING, None),
        codec.replaced(REPLACING),
        codec.unread(1),
        codec.read(marks=4, unread=2, body=b'"all":true'),
        codec.ping(),
        codec.bye(errors.SLOW, 0),
    ):
        assert parse_sse(event)[0].id is None


def test_bye_tells_event_source_when_to_reconnect() -> None:
    assert parse_sse(SseCodec().bye(errors.DRAINING, 1_234))[0].retry == 1_234
    # Without a delay the earlier one stays in force; with 0 it would reconnect at once.
    assert parse_sse(SseCodec().bye(errors.DRAINING, 0))[0].retry is None


def test_retry_is_part_of_the_event_that_follows() -> None:
    (block,) = parse_sse(SseCodec().retry(2_000) + SseCodec().ping())

    assert block == Block("ping", "{}", None, 2_000)


@pytest.mark.parametrize("codec", [SseCodec(), WebSocketCodec()])
def test_an_entry_is_encoded_once_for_all_readers(codec: Codec) -> None:
    first, second = (entry_of(Notification(title=t)) for t in "ab")

    assert codec.entry(first, TAIL) is codec.entry(first, TAIL)
    assert codec.entry(second, TAIL) != codec.entry(first, TAIL)
    assert codec.entry(first, "") != codec.entry(first, TAIL)
    assert codec.entry(first, None) is codec.entry(first, None)


@pytest.mark.parametrize("codec", [SseCodec(), WebSocketCodec()])
@pytest.mark.parametrize("tail", [None, "", TAIL])
def test_several_entries_are_written_as_each_of_them_once_for_all_readers(
    codec: Codec, tail: str | None
) -> None:
    entries = [entry_of(Notification(title=title)) for title in "abc"]

    events = codec.entries(entries, tail)

    assert events == [codec.entry(entry, tail) for entry in entries]
    assert codec.entries(list(entries), tail) is events
    assert codec.entries(entries[1:], tail) == events[1:]
    assert codec.entries(entries, "other") != events


def test_an_audiences_notification_has_no_cursor() -> None:
    # So the bytes are the same for every reader of the audience.
    entry = entry_of(Notification(title="t"))

    (block,) = parse_sse(SseCodec().entry(entry, None))
    assert block.id is None
    assert "cursor" not in json.loads(WebSocketCodec().entry(entry, None))


def test_a_withdrawal_names_the_withdrawn_notification() -> None:
    (block,) = parse_sse(SseCodec().entry(WITHDRAWING, TAIL))
    assert (block.event, json.loads(block.data)) == ("withdrawn", {"id": OLD_ID})
    assert json.loads(WebSocketCodec().entry(WITHDRAWING, TAIL)) == {
        "type": "withdrawn",
        "cursor": encode_position(POSITION) + TAIL,
        "id": OLD_ID,
    }


def test_a_cursor_moves_event_source_and_is_an_event() -> None:
    (block,) = parse_sse(SseCodec().cursor("c"))

    assert block == Block("cursor", '{"cursor":"c"}', "c", None)
    assert json.loads(WebSocketCodec().cursor("c")) == {"type": "cursor", "cursor": "c"}


@pytest.mark.parametrize("codec", [SseCodec(), WebSocketCodec()])
def test_an_ephemeral_notification_has_no_cursor(codec: Codec) -> None:
    notification = b'{"title":"t"}'

    event = codec.ephemeral(notification)

    if isinstance(codec, SseCodec):
        assert event == b"data: %b\n\n" % notification
    assert b"id:" not in event
    assert b"cursor" not in event
    assert notification in event
    assert codec.ephemeral(notification) is event


@pytest.mark.parametrize(
    "stream",
    [b"data: a\rdata: b", b"data: a", b"\n", b"what: x\n\n", b"data: \xff\n\n"],
)
def test_the_parser_can_fail(stream: bytes) -> None:
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        parse_sse(stream)


def test_the_parser_ends_a_line_at_a_lone_cr() -> None:
    assert parse_sse(b"data: a\rid: b\r\n\r") == [Block("", "a", "b", None)]
