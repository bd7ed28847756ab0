"""Streams over a sink that keeps what it is given, and a clock of our own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer import errors
from streamer.core.codec import SseCodec, WebSocketCodec
from streamer.core.session import (
    MESSAGES_PER_S,
    Authenticate,
    MarkRead,
    Session,
    SessionLimits,
)
from streamer.core.subscription import Gap, History, Place, Start, State
from streamer.errors import Disconnect
from streamer.model import ZERO, Entry, Position, encode_cursor

LIMITS = SessionLimits(heartbeat_s=25, send_buffer_bytes=10_000, send_age_s=10)


class Kept:
    """A sink that takes everything and tells."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.waiting_bytes = 0
        self.since_s: float | None = None
        self.closed: list[Disconnect] = []
        self.aborted: list[Disconnect] = []

    def write(self, event: bytes) -> None:
        self.events.append(event)
        self.waiting_bytes += len(event)

    def buffered(self) -> int:
        return self.waiting_bytes

    def waiting_since_s(self) -> float | None:
        return self.since_s

    def close(self, disconnect: Disconnect) -> None:
        self.closed.append(disconnect)

    def abort(self, disconnect: Disconnect) -> None:
        self.aborted.append(disconnect)

    def take_all(self) -> list[dict[str, Any]]:
        """Return what the reader got, and let it have taken it."""
        events, self.events = self.events, []
        self.waiting_bytes = 0
        return [json.loads(event) for event in events]


@pytest.fixture
def sink() -> Kept:
    return Kept()


@pytest.fixture
def session(sink: Kept) -> Session:
    return a_session(sink)


def a_session(
    sink: Kept, place: Place = Start.LATEST, *, expires_at_s: float | None = None
) -> Session:
    return Session(
        place,
        codec=WebSocketCodec(),
        sink=sink,
        limits=LIMITS,
        pinged_at_s=0,
        expires_at_s=expires_at_s,
    )


def position(offset: int) -> Position:
    return Position(1, offset, offset, offset)


def entry(offset: int, fragment: bytes = b'"title":"t"}') -> Entry:
    return Entry(1, offset, offset, offset, fragment)


def give(
    session: Session, *entries: Entry, head: int, gap: Gap | None = None, marks: int = 0
) -> None:
    """Let the session read its log."""
    asked = session.subscription.ask()
    first = entries[0].offset - 1 if entries else head
    start = asked if isinstance(asked, Position) else position(first)
    history = History(start, position(head), [*entries], gap)
    session.history(asked, history, unread=3, marks=marks)


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_a_stream_begins_with_hello(session: Session, sink: Kept) -> None:
    assert session.joining

    give(session, head=4, marks=7)

    assert sink.take_all() == [
        {
            "type": "hello",
            "cursor": encode_cursor(position(4)),
            "heartbeat_s": 25,
            "unread": 3,
            "marks_version": 7,
        }
    ]
    assert not session.joining


def test_nothing_but_a_ping_comes_before_hello(session: Session, sink: Kept) -> None:
    session.offer(entry(1))
    session.marked(marks=1, unread=0, body=b'"all":true')
    session.tick(25, 0)

    assert kinds(sink.take_all()) == ["ping"]


def test_hello_comes_once(session: Session, sink: Kept) -> None:
    give(session, head=4)
    session.subscription.doubt()

    give(session, entry(5), head=5)

    assert kinds(sink.take_all()) == ["hello", "notification"]


def test_a_gap_is_told_before_what_follows_it(sink: Kept) -> None:
    session = a_session(sink, position(1))
    asked = session.subscription.ask()
    session.offer(entry(10))

    head = position(9)
    session.history(asked, History(head, head, [], Gap.TRIMMED), unread=0, marks=0)

    hello, gap, notification = sink.take_all()
    # Whoever is cut off between the two comes back with it and hears of the gap.
    assert hello["cursor"] == encode_cursor(position(1))
    assert gap == {"type": "gap", "reason": "trimmed", "cursor": encode_cursor(head)}
    assert notification["cursor"] == encode_cursor(position(10))


def test_a_place_of_nothing_is_greeted_with_the_zero_cursor(sink: Kept) -> None:
    session = a_session(sink, ZERO)

    session.history(
        session.subscription.ask(), History(ZERO, ZERO, []), unread=0, marks=0
    )

    assert sink.take_all()[0]["cursor"] == encode_cursor(ZERO)


def test_a_read_for_another_place_does_not_begin_the_stream(sink: Kept) -> None:
    session = a_session(sink, position(5))
    session.subscription.ask()

    session.history(
        position(4), History(position(4), position(4), []), unread=0, marks=0
    )

    assert sink.events == []
    assert session.joining


def test_marks_that_the_feed_lost_are_made_up_for(session: Session, sink: Kept) -> None:
    give(session, head=1, marks=5)
    session.marked(marks=6, unread=1, body=b'"all":true')
    sink.take_all()
    session.subscription.doubt()
    give(session, head=1, marks=6)
    assert sink.take_all() == []

    session.subscription.doubt()
    give(session, head=1, marks=8)

    assert sink.take_all() == [
        {"type": "read", "ids": None, "unread": 3, "marks_version": 8}
    ]


def test_a_mark_made_while_joining_is_not_lost(session: Session, sink: Kept) -> None:
    asked = session.subscription.ask()
    session.marked(marks=6, unread=1, body=b'"all":true')
    history = History(position(1), position(1), [])

    session.history(asked, history, unread=3, marks=5)

    assert session.subscription.state is State.REPLAYING
    give(session, head=1, marks=6)
    assert kinds(sink.take_all()) == ["hello", "read"]


def test_history_that_weighs_too_much_is_taken_in_portions(sink: Kept) -> None:
    # Each of the entries fits; all of them together are five times the buffer.
    session = a_session(sink, position(0))
    entries = [entry(n, b'"body":"%b"}' % (b"x" * 1_000)) for n in range(1, 51)]
    got: list[int] = []
    for _ in range(50):
        done = len(got)
        give(session, *entries[done:], head=50)
        assert session.ended is None
        got += kinds(sink.take_all()).count("notification") * [done]
        if session.subscription.state is State.LIVE:
            break

    assert len(got) == 50
    assert session.subscription.place == position(50)


def test_the_largest_entry_passes_though_it_fills_the_buffer(sink: Kept) -> None:
    session = a_session(sink, position(0))

    give(session, entry(1, b'"body":"%b"}' % (b"x" * 9_000)), head=1)

    assert kinds(sink.take_all()) == ["hello", "notification"]


def test_a_full_buffer_cuts_the_reader_as_slow(session: Session, sink: Kept) -> None:
    give(session, head=0)
    for n in range(1, 200):
        session.offer(entry(n))

    assert session.ended == errors.SLOW
    assert sink.aborted == [errors.SLOW]
    assert sink.waiting_bytes <= LIMITS.send_buffer_bytes
    assert sink.closed == []


def test_one_event_larger_than_the_buffer_is_no_slowness(sink: Kept) -> None:
    session = a_session(sink)
    give(session, head=0)
    sink.take_all()

    session.offer(entry(1, b'"body":"%b"}' % (b"x" * 20_000)))

    assert session.ended is None


def test_a_reader_is_congested_before_it_is_slow(session: Session, sink: Kept) -> None:
    give(session, head=0)
    assert not session.congested

    sink.waiting_bytes = LIMITS.send_buffer_bytes // 4 + 1

    assert session.congested


def test_what_waits_too_long_cuts_the_reader(session: Session, sink: Kept) -> None:
    sink.since_s = 100.0

    session.tick(109.9, 0)
    assert session.ended is None
    session.tick(110.0, 0)

    assert session.ended == errors.SLOW
    assert sink.aborted == [errors.SLOW]


def test_a_farewell_that_is_not_taken_is_cut_off(session: Session, sink: Kept) -> None:
    # Its slot and its lease would be held for as long as the client likes.
    sink.since_s = 100.0
    session.end(errors.TOKEN_INVALID)

    session.tick(110.0, 0)

    assert session.ended == errors.TOKEN_INVALID
    assert sink.aborted == [errors.TOKEN_INVALID]


def test_an_ended_stream_asks_for_no_history(session: Session) -> None:
    session.end(errors.DRAINING)

    assert session.congested


def test_a_ping_comes_every_heartbeat(session: Session, sink: Kept) -> None:
    for now_s in range(101):
        session.tick(now_s, 0)

    assert sink.take_all() == [{"type": "ping"}] * 4


def test_a_stream_ends_when_its_token_does(sink: Kept) -> None:
    session = a_session(sink, expires_at_s=1_000)
    session.tick(0, 999.9)
    assert session.ended is None

    session.tick(0, 1_000)

    assert session.ended == errors.TOKEN_INVALID
    assert sink.closed == [errors.TOKEN_INVALID]
    (bye,) = sink.take_all()
    assert bye == {
        "type": "bye",
        "code": 4200,
        "reason": "token invalid or expired",
        "reconnect": False,
        "delay_ms": 0,
    }


def test_a_fresh_token_keeps_the_stream_open(sink: Kept) -> None:
    session = a_session(sink, expires_at_s=1_000)
    session.renew(2_000)

    session.tick(0, 1_500)

    assert session.ended is None


def test_nothing_comes_after_the_end(session: Session, sink: Kept) -> None:
    give(session, head=0)
    session.end(errors.DRAINING, delay_ms=7)
    sink.take_all()

    session.offer(entry(1))
    give(session, entry(1), head=1)
    session.marked(marks=1, unread=0, body=b'"all":true')
    session.tick(1_000, 1_000)
    session.reply("r", 1)
    session.fail("r", "why")
    session.end(errors.FORBIDDEN)
    assert session.receive('{"type":"ping"}', 0) is None

    assert sink.events == []
    assert sink.closed == [errors.DRAINING]
    assert session.ended == errors.DRAINING


def test_a_farewell_without_room_is_left_out(session: Session, sink: Kept) -> None:
    sink.waiting_bytes = LIMITS.send_buffer_bytes

    session.end(errors.DRAINING)

    assert sink.events == []
    assert sink.aborted == [errors.SLOW]
    assert sink.closed == []


def test_a_ping_is_answered(session: Session, sink: Kept) -> None:
    assert session.receive('{"type":"ping"}', 0) is None

    assert sink.take_all() == [{"type": "pong"}]


def test_a_pong_is_fine(session: Session, sink: Kept) -> None:
    assert session.receive('{"type":"pong","more":[1]}', 0) is None

    assert sink.events == []
    assert session.ended is None


def test_commands_come_out_for_somebody_who_may_wait(session: Session) -> None:
    assert session.receive('{"type":"auth","token":"t"}', 0) == Authenticate("t")
    mark = session.receive('{"type":"read","all":true,"ref":"7"}', 0)
    assert mark == MarkRead(all=True, ref="7")


def test_only_commands_with_a_reference_are_answered(
    session: Session, sink: Kept
) -> None:
    session.reply("", 1)
    session.fail("", "why")
    assert sink.events == []

    session.reply("a", 1)
    session.fail("b", "why")

    assert sink.take_all() == [
        {"type": "reply", "ref": "a", "unread": 1},
        {"type": "error", "ref": "b", "problem": "why"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '"ping"',
        "{",
        '{"type":"nonsense"}',
        '{"type":"auth"}',
        '{"type":"auth","token":1}',
        '{"type":"auth","token":"t","more":1}',
        '{"type":"read"}',
        '{"type":"read","all":false}',
        '{"type":"read","all":true,"ids":[]}',
        '{"type":"read","ids":["a"],"up_to":"b"}',
        '{"type":"read","ids":[1]}',
        '{"type":"read","ids":' + json.dumps(["a"] * 1_001) + "}",
        '{"type":"read","all":true,"ref":"' + "r" * 65 + '"}',
        '{"type":"read","all":true,"what":1}',
        "[" * 100_000,
        '{"type":' * 50_000,
        '{"type":"auth","token":"\ud800"}',
        "\x00",
    ],
)
def test_what_is_no_message_ends_the_stream(
    text: str, session: Session, sink: Kept
) -> None:
    assert session.receive(text, 0) is None

    assert session.ended == errors.PROTOCOL
    assert kinds(sink.take_all()) == ["bye"]


def test_too_many_messages_a_second_end_the_stream(
    session: Session, sink: Kept
) -> None:
    for _ in range(MESSAGES_PER_S - 1):
        session.receive('{"type":"pong"}', 100.0)
    assert session.ended is None

    session.receive('{"type":"pong"}', 100.0)
    session.receive('{"type":"pong"}', 100.0)

    assert session.ended == errors.AHEAD_OF_RATE
    assert sink.take_all()[-1]["delay_ms"] == 1_000


def test_an_sse_stream_says_the_same(sink: Kept) -> None:
    session = Session(
        position(1), codec=SseCodec(), sink=sink, limits=LIMITS, pinged_at_s=0
    )

    give(session, entry(2), head=2)
    session.end(errors.DRAINING, delay_ms=1_500)

    hello, notification, bye = sink.events
    assert b"event: hello\n" in hello
    assert notification.startswith(b"id: ")
    assert bye.startswith(b"retry: 1500\nevent: bye\n")
