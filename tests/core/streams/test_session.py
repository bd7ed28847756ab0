"""Sessions with a sink that records its events, and a clock set by the tests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer import errors
from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.batch_writer import ONE_BY_ONE, BatchWriter
from streamer.core.streams.client_messages import Authenticate, MarkRead
from streamer.core.streams.codec import ENVELOPE_BYTES, SseCodec, WebSocketCodec
from streamer.core.streams.cursor import Cursor, audience_key
from streamer.core.streams.session import MESSAGES_PER_S, Session, SessionLimits
from streamer.core.streams.subscription import History, ReadFrom, Start, State
from streamer.errors import Disconnect
from streamer.model import (
    ZERO,
    App,
    Entry,
    Gap,
    Log,
    Position,
    Topic,
    decode_id,
    encode_position,
    everyone_log,
    topic_log,
)

NEWS = topic_log(App("app"), Topic("news"))
LIMITS = SessionLimits(heartbeat_s=25, send_buffer_bytes=10_000, send_age_s=10)


class RecordingSink:
    """A sink that records everything."""

    batch_writer: BatchWriter = ONE_BY_ONE

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.waiting_bytes = 0
        self.since_s: float | None = None
        self.closed: list[Disconnect] = []
        self.aborted: list[Disconnect] = []

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        if self.waiting_bytes and self.waiting_bytes + len(event) > buffer_bytes_max:
            return False
        self.events.append(event)
        self.waiting_bytes += len(event)
        return True

    def buffered(self) -> int:
        return self.waiting_bytes

    def waiting_since_s(self) -> float | None:
        return self.since_s

    def close(self, disconnect: Disconnect) -> None:
        self.closed.append(disconnect)

    def abort(self, disconnect: Disconnect) -> None:
        self.aborted.append(disconnect)

    def take_all(self) -> list[dict[str, Any]]:
        """Return the events, as if the client had read them all."""
        events, self.events = self.events, []
        self.waiting_bytes = 0
        return [json.loads(event) for event in events]


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def session(sink: RecordingSink) -> Session:
    return make_session(sink)


def make_session(
    sink: RecordingSink,
    read_from: ReadFrom = Start.LATEST,
    *,
    expires_at_s: float | None = None,
    device: str = "",
) -> Session:
    return Session(
        read_from,
        codec=WebSocketCodec(),
        sink=sink,
        limits=LIMITS,
        pinged_at_s=0,
        expires_at_s=expires_at_s,
        device=device,
    )


def position(offset: int) -> Position:
    return Position(1, offset, offset, offset)


def entry(offset: int, fragment: bytes = b'"title":"t"}') -> Entry:
    return Entry(1, offset, offset, offset, fragment)


def read_own(
    session: Session,
    *entries: Entry,
    head: int,
    gap: Gap | None = None,
    marks: int = 0,
    unread: int = 3,
) -> None:
    """Let the session read its player's own log."""
    read_from = session.subscription.begin_read()
    first = entries[0].offset - 1 if entries else head
    start = read_from if isinstance(read_from, Position) else position(first)
    history = History(start, position(head), [*entries], gap)
    if not session.congested:
        session.on_history(read_from, history, unread=unread, marks=marks)


def sub_of(
    session: Session,
    log: Log = NEWS,
    read_from: ReadFrom = Start.LATEST,
    *,
    joined: Position = ZERO,
    is_member: bool = True,
) -> AudienceSubscription:
    return AudienceSubscription(
        log, session, read_from, joined_at=joined, is_member=is_member
    )


def with_audiences(session: Session, *starts: ReadFrom) -> list[AudienceSubscription]:
    """Give the session audiences, each read from a position or a start."""
    logs = [NEWS, everyone_log(NEWS.app)]
    audience_subscriptions = [
        sub_of(session, log, start) for log, start in zip(logs, starts, strict=False)
    ]
    session.set_audiences(tuple(audience_subscriptions))
    return audience_subscriptions


def read_audience(
    sub: AudienceSubscription,
    *entries: Entry,
    head: int,
    gap: Gap | None = None,
) -> None:
    """Let a subscription read its audience's log."""
    read_from = sub.own_subscription().begin_read()
    first = entries[0].offset - 1 if entries else head
    start = read_from if isinstance(read_from, Position) else position(first)
    if not sub.congested:
        history = History(start, position(head), [*entries], gap)
        sub.on_history(read_from, history, unread=0, marks=0)


def offsets_in(cursor: str) -> tuple[int, ...]:
    """Return the offsets in a cursor: own, of the topic news, of everyone's log."""
    parsed = Cursor.parse(cursor)
    assert parsed is not None
    audiences = [NEWS, everyone_log(NEWS.app)]
    there = [parsed.audiences.get(audience_key(log), ZERO) for log in audiences]
    return (parsed.own.offset, *(position.offset for position in there))


def offsets(events: list[dict[str, Any]]) -> list[int]:
    """Return the offsets of the notifications among some events."""
    found = []
    for event in events:
        if event["type"] == "notification":
            position = decode_id(event["notification"]["id"])
            assert position is not None
            found.append(position.offset)
    return found


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_a_stream_begins_with_hello(session: Session, sink: RecordingSink) -> None:
    assert session.joining

    read_own(session, head=4, marks=7)

    assert sink.take_all() == [
        {
            "type": "hello",
            "cursor": encode_position(position(4)),
            "heartbeat_s": 25,
            "unread": 3,
            "marks_version": 7,
        }
    ]
    assert not session.joining


def test_only_a_ping_may_precede_hello(session: Session, sink: RecordingSink) -> None:
    session.offer(entry(1))
    session.on_mark(marks=1, unread=0, body=b'"all":true')
    session.tick(25, 0)

    assert kinds(sink.take_all()) == ["ping"]


def test_hello_comes_once(session: Session, sink: RecordingSink) -> None:
    read_own(session, head=4)
    session.subscription.mark_stale()

    read_own(session, entry(5), head=5)

    assert kinds(sink.take_all()) == ["hello", "notification"]


def test_a_gap_precedes_the_entries_after_it(sink: RecordingSink) -> None:
    session = make_session(sink, position(1))
    read_from = session.subscription.begin_read()
    session.offer(entry(10))

    head = position(9)
    session.on_history(
        read_from, History(head, head, [], Gap.TRIMMED), unread=0, marks=0
    )

    hello, gap, notification, _ = sink.take_all()
    # A client that loses its connection in between resumes here and gets the gap.
    assert hello["cursor"] == encode_position(position(1))
    assert gap == {"type": "gap", "reason": "trimmed", "cursor": encode_position(head)}
    assert notification["cursor"] == encode_position(position(10))
    assert session.transport.gaps == {Gap.TRIMMED: 1}


def test_a_stream_from_the_zero_position_begins_with_the_zero_cursor(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, ZERO)

    session.on_history(
        session.subscription.begin_read(), History(ZERO, ZERO, []), unread=0, marks=0
    )

    assert sink.take_all()[0]["cursor"] == encode_position(ZERO)


def test_a_read_from_another_position_does_not_begin_the_stream(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(5))
    session.subscription.begin_read()

    session.on_history(
        position(4), History(position(4), position(4), []), unread=0, marks=0
    )

    assert sink.events == []
    assert session.joining


def test_a_lost_announcement_of_marks_is_made_up_for(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=1, marks=5)
    session.on_mark(marks=6, unread=1, body=b'"all":true')
    sink.take_all()
    session.subscription.mark_stale()
    read_own(session, head=1, marks=6)
    assert sink.take_all() == []

    session.subscription.mark_stale()
    read_own(session, head=1, marks=8)

    assert sink.take_all() == [
        {"type": "read", "ids": None, "unread": 3, "marks_version": 8}
    ]


def test_a_mark_made_while_joining_is_not_lost(
    session: Session, sink: RecordingSink
) -> None:
    read_from = session.subscription.begin_read()
    session.on_mark(marks=6, unread=1, body=b'"all":true')
    history = History(position(1), position(1), [])

    session.on_history(read_from, history, unread=3, marks=5)

    assert session.subscription.state is State.REPLAYING
    read_own(session, head=1, marks=6)
    assert kinds(sink.take_all()) == ["hello", "read"]


def test_history_larger_than_the_buffer_is_taken_in_portions(
    sink: RecordingSink,
) -> None:
    # Each entry fits; all of them together are five times the buffer.
    session = make_session(sink, position(0))
    entries = [entry(n, b'"body":"%b"}' % (b"x" * 1_000)) for n in range(1, 51)]
    got: list[int] = []
    for _ in range(50):
        done = len(got)
        read_own(session, *entries[done:], head=50)
        assert session.ended is None
        got += kinds(sink.take_all()).count("notification") * [done]
        if session.subscription.state is State.LIVE:
            break

    assert len(got) == 50
    assert session.subscription.read_from == position(50)


def test_an_entry_that_fills_the_buffer_is_delivered(sink: RecordingSink) -> None:
    session = make_session(sink, position(0))

    read_own(session, entry(1, b'"body":"%b"}' % (b"x" * 9_000)), head=1, unread=1)

    assert kinds(sink.take_all()) == ["hello", "notification", "unread"]


def test_a_full_buffer_ends_the_stream_as_slow(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=0)
    for n in range(1, 200):
        session.offer(entry(n))

    assert session.ended == errors.SLOW
    assert sink.aborted == [errors.SLOW]
    assert sink.waiting_bytes <= LIMITS.send_buffer_bytes
    assert sink.closed == []


def test_one_event_larger_than_the_buffer_does_not_end_the_stream(
    sink: RecordingSink,
) -> None:
    session = make_session(sink)
    read_own(session, head=0)
    sink.take_all()

    session.offer(entry(1, b'"body":"%b"}' % (b"x" * 20_000)))

    assert session.ended is None


def test_a_reader_is_congested_before_it_is_slow(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=0)
    assert not session.congested

    sink.waiting_bytes = LIMITS.send_buffer_bytes // 4 + 1

    assert session.congested


def test_bytes_queued_for_too_long_end_the_stream(
    session: Session, sink: RecordingSink
) -> None:
    sink.since_s = 100.0

    session.tick(109.9, 0)
    assert session.ended is None
    session.tick(110.0, 0)

    assert session.ended == errors.SLOW
    assert sink.aborted == [errors.SLOW]


def test_a_bye_that_is_not_read_is_aborted(
    session: Session, sink: RecordingSink
) -> None:
    # Otherwise the client could hold its slot and its lease indefinitely.
    sink.since_s = 100.0
    session.end(errors.TOKEN_INVALID)

    session.tick(110.0, 0)

    assert session.ended == errors.TOKEN_INVALID
    assert sink.aborted == [errors.TOKEN_INVALID]


def test_an_ended_stream_gets_no_history(session: Session) -> None:
    session.end(errors.DRAINING)

    assert session.congested


def test_a_ping_comes_every_heartbeat(session: Session, sink: RecordingSink) -> None:
    for now_s in range(101):
        session.tick(now_s, 0)

    assert sink.take_all() == [{"type": "ping"}] * 4


def test_it_is_due_at_its_ping_and_sooner_while_bytes_are_queued(
    session: Session, sink: RecordingSink
) -> None:
    assert session.tick(10, 0) == LIMITS.heartbeat_s - 10

    sink.since_s = 10.0

    assert session.tick(11, 0) == LIMITS.send_age_s / 2


def test_a_stream_ends_when_its_token_does(sink: RecordingSink) -> None:
    session = make_session(sink, expires_at_s=1_000)
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


def test_a_new_token_keeps_the_stream_open(sink: RecordingSink) -> None:
    session = make_session(sink, expires_at_s=1_000)
    session.renew(2_000)

    session.tick(0, 1_500)

    assert session.ended is None
    assert session.tick(0, 1_999) == 1

    session.tick(0, 2_000)

    assert session.ended == errors.TOKEN_INVALID


def test_nothing_comes_after_the_end(session: Session, sink: RecordingSink) -> None:
    read_own(session, head=0)
    session.end(errors.DRAINING, delay_ms=7)
    sink.take_all()

    session.offer(entry(1))
    read_own(session, entry(1), head=1)
    session.on_mark(marks=1, unread=0, body=b'"all":true')
    session.tick(1_000, 1_000)
    session.reply("r", 1)
    session.fail("r", "why")
    session.end(errors.FORBIDDEN)
    assert session.receive('{"type":"ping"}', 0) is None

    assert sink.events == []
    assert sink.closed == [errors.DRAINING]
    assert session.ended == errors.DRAINING


def test_a_bye_without_room_is_left_out(session: Session, sink: RecordingSink) -> None:
    sink.waiting_bytes = LIMITS.send_buffer_bytes

    session.end(errors.DRAINING)

    assert sink.events == []
    assert sink.aborted == [errors.SLOW]
    assert sink.closed == []


def test_a_ping_is_answered(session: Session, sink: RecordingSink) -> None:
    assert session.receive('{"type":"ping"}', 0) is None

    assert sink.take_all() == [{"type": "pong"}]


def test_a_pong_is_accepted(session: Session, sink: RecordingSink) -> None:
    assert session.receive('{"type":"pong","more":[1]}', 0) is None

    assert sink.events == []
    assert session.ended is None


def test_commands_are_returned_to_the_caller(session: Session) -> None:
    assert session.receive('{"type":"auth","token":"t"}', 0) == Authenticate("t")
    mark = session.receive('{"type":"read","all":true,"ref":"7"}', 0)
    assert mark == MarkRead(all=True, ref="7")


def test_only_commands_with_a_reference_are_answered(
    session: Session, sink: RecordingSink
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
def test_a_message_outside_the_protocol_ends_the_stream(
    text: str, session: Session, sink: RecordingSink
) -> None:
    assert session.receive(text, 0) is None

    assert session.ended == errors.PROTOCOL
    assert kinds(sink.take_all()) == ["bye"]


def test_too_many_messages_a_second_end_the_stream(
    session: Session, sink: RecordingSink
) -> None:
    for _ in range(MESSAGES_PER_S - 1):
        session.receive('{"type":"pong"}', 100.0)
    assert session.ended is None

    session.receive('{"type":"pong"}', 100.0)
    session.receive('{"type":"pong"}', 100.0)

    assert session.ended == errors.RATE_EXCEEDED
    assert sink.take_all()[-1]["delay_ms"] == 1_000


def test_an_sse_stream_has_the_same_events(sink: RecordingSink) -> None:
    session = Session(
        position(1), codec=SseCodec(), sink=sink, limits=LIMITS, pinged_at_s=0
    )

    read_own(session, entry(2), head=2)
    session.end(errors.DRAINING, delay_ms=1_500)

    hello, notification, unread, bye = sink.events
    assert b"event: hello\n" in hello
    assert notification.startswith(b"id: ")
    assert unread.startswith(b"event: unread\n")
    assert bye.startswith(b"retry: 1500\nevent: bye\n")


def test_the_first_entries_of_a_stream_are_counted_once(sink: RecordingSink) -> None:
    session = make_session(sink, position(1))

    read_own(session, entry(2), entry(3), head=3, unread=5)

    hello, *_, unread = sink.take_all()
    # `hello` has counted these entries, and the client counts them again.
    assert hello["unread"] == 5
    assert unread == {"type": "unread", "unread": 5}


def test_a_stream_begins_after_the_first_read_of_every_log(
    session: Session, sink: RecordingSink
) -> None:
    news, everyone = with_audiences(session, Start.LATEST, Start.LATEST)

    read_audience(everyone, head=5)
    read_own(session, head=4)
    assert session.joining
    assert sink.take_all() == []
    read_audience(news, head=3)

    (hello,) = sink.take_all()
    assert offsets_in(hello["cursor"]) == (4, 3, 5)
    assert not session.joining


@pytest.mark.parametrize("own_first", [True, False])
def test_the_first_read_of_a_log_never_waits(session: Session, own_first: bool) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    if own_first:
        read_own(session, head=1)
    else:
        read_audience(news, head=1)

    # The log that has begun waits for the other one.
    assert session.congested is own_first
    assert news.congested is not own_first


def test_a_stream_that_ends_while_joining_needs_no_more_reads(
    session: Session,
) -> None:
    (news,) = with_audiences(session, Start.LATEST)

    session.end(errors.DRAINING)

    assert session.congested
    assert news.congested


def test_missed_entries_of_all_logs_are_ordered_by_time(sink: RecordingSink) -> None:
    session = make_session(sink, position(1))
    news, everyone = with_audiences(session, position(2), position(3))

    read_own(session, entry(2), entry(3)._replace(at_us=30), head=3)
    read_audience(
        news, entry(3)._replace(at_us=10), entry(4)._replace(at_us=40), head=4
    )
    read_audience(everyone, entry(4)._replace(at_us=20), head=4)

    _, *events = sink.take_all()
    assert offsets(events) == [2, 3, 4, 3, 4]
    # Entries of audiences have no cursor. Each of the others names exactly the entries
    # that came before it.
    assert [offsets_in(e["cursor"]) for e in events if "cursor" in e] == [
        (2, 2, 3),
        (3, 3, 4),
    ]


def test_a_client_lost_during_the_first_events_misses_nothing(
    sink: RecordingSink,
) -> None:
    # Its last cursor leads to every entry that it has not got, at any moment.
    session = make_session(sink, position(0))
    (news,) = with_audiences(session, position(0))
    own = [entry(n)._replace(at_us=2 * n) for n in (1, 2, 3)]
    theirs = [entry(n)._replace(at_us=2 * n + 1) for n in (1, 2, 3)]
    read_own(session, *own, head=3)
    read_audience(news, *theirs, head=3)
    session.send_cursor()

    has = [0, 0]
    for event in sink.take_all():
        if event["type"] == "notification":
            has["cursor" not in event] += 1
        if "cursor" in event:
            there = offsets_in(event["cursor"])
            assert there[0] <= has[0]
            assert there[1] <= has[1]
    assert has == [3, 3]


def test_own_entries_between_the_read_and_hello_come_once(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(1))
    (news,) = with_audiences(session, position(1))
    read_own(session, entry(2), head=2)
    session.offer(entry(3))
    assert session.subscription.state is State.REPLAYING
    read_audience(news, head=1)

    read_own(session, entry(3), head=3)
    session.offer(entry(4))

    assert offsets(sink.take_all()) == [2, 3, 4]


def test_own_entries_that_arrive_before_the_read_follow_it(sink: RecordingSink) -> None:
    session = make_session(sink, position(1))
    (news,) = with_audiences(session, position(1))
    read_from = session.subscription.begin_read()
    session.offer(entry(3))
    history = History(position(1), position(2), [entry(2)])

    session.on_history(read_from, history, unread=0, marks=0)
    read_audience(news, head=1)

    assert offsets(sink.take_all()) == [2, 3]


def test_an_audiences_entries_that_arrive_while_joining_are_read_later(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    read_audience(news, head=1)
    news.offer(entry(2))
    read_own(session, head=0)

    assert news.own_subscription().state is State.REPLAYING
    read_audience(news, entry(2), head=2)

    assert offsets(sink.take_all()) == [2]


def test_a_gap_in_an_audience_names_it_and_moves_only_its_position(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(4))
    (news,) = with_audiences(session, position(1))
    read_own(session, entry(5), head=5)

    read_audience(news, head=9, gap=Gap.TRIMMED)

    hello, gap, notification, _ = sink.take_all()
    # A client that loses its connection in between resumes here and gets the gap.
    assert offsets_in(hello["cursor"]) == (4, 1, 0)
    assert (gap["type"], gap["reason"], gap["topic"]) == ("gap", "trimmed", "news")
    # Its own entry has not been sent yet.
    assert offsets_in(gap["cursor"]) == (4, 9, 0)
    assert offsets_in(notification["cursor"]) == (5, 9, 0)


def test_a_gap_in_the_own_log_does_not_move_the_audiences(sink: RecordingSink) -> None:
    session = make_session(sink, position(4))
    (news,) = with_audiences(session, position(1))
    read_audience(news, entry(2), head=2)

    read_own(session, head=9, gap=Gap.TRIMMED)

    _, gap, notification, _ = sink.take_all()
    assert "topic" not in gap
    assert offsets_in(gap["cursor"]) == (9, 1, 0)
    assert offsets([notification]) == [2]


def test_a_live_audiences_gap_precedes_the_entries_held(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    read_own(session, head=4)
    read_audience(news, head=1)
    sink.take_all()
    news.own_subscription().mark_stale()
    read_from = news.own_subscription().begin_read()
    news.offer(entry(10))

    head = position(9)
    news.on_history(read_from, History(head, head, [], Gap.AHEAD), unread=0, marks=0)

    gap, notification = sink.take_all()
    assert offsets_in(gap["cursor"]) == (4, 9, 0)
    assert offsets([notification]) == [10]


def test_an_audiences_entries_have_no_cursor_and_it_is_sent_after_them(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    moved: list[Session] = []
    session.on_cursor_moved = moved.append
    read_own(session, head=4)
    read_audience(news, head=1)
    sink.take_all()

    news.offer(entry(2))
    assert moved == [session]
    session.send_cursor()
    session.offer(entry(5))

    live, cursor, own = sink.take_all()
    assert list(live) == ["type", "notification"]
    assert cursor["type"] == "cursor"
    assert offsets_in(cursor["cursor"]) == (4, 2, 0)
    assert offsets_in(own["cursor"]) == (5, 2, 0)


def test_no_cursor_is_sent_before_the_stream_has_begun(
    session: Session, sink: RecordingSink
) -> None:
    with_audiences(session, Start.LATEST)

    session.send_cursor()

    assert sink.events == []


def test_an_audiences_entries_before_the_player_joined_are_left_out(
    session: Session, sink: RecordingSink
) -> None:
    news = sub_of(session, read_from=position(1), joined=position(3))
    session.set_audiences((news,))
    read_own(session, head=0)

    read_audience(news, entry(2), entry(3), entry(4), head=4)

    assert offsets(sink.take_all()) == [4]
    assert news.own_subscription().read_from == position(4)


def test_a_withdrawal_is_sent_and_the_count_is_read_again_at_once(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=4, unread=3)
    sink.take_all()

    session.offer(entry(5, b"")._replace(withdraws=entry(4).id))

    (withdrawn,) = sink.take_all()
    assert withdrawn == {
        "type": "withdrawn",
        "cursor": encode_position(position(5)),
        "id": entry(4).id,
    }
    assert session.subscription.state is State.REPLAYING
    read_own(session, head=5, unread=2)
    assert sink.take_all() == [{"type": "unread", "unread": 2}]


def test_a_replacement_is_announced_before_the_notification(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=4, unread=3)
    sink.take_all()

    session.offer(entry(5)._replace(replaces=entry(4).id))

    replaced, notification = sink.take_all()
    assert replaced == {"type": "replaced", "id": entry(4).id, "by": entry(5).id}
    assert notification["cursor"] == encode_position(position(5))
    read_own(session, head=5, unread=3)
    assert sink.take_all() == [{"type": "unread", "unread": 3}]


def test_an_ended_entry_is_left_out_but_its_replacement_is_announced(
    sink: RecordingSink,
) -> None:
    # The client may show the first; the second came and ended while it was offline.
    session = make_session(sink, position(1))
    second = entry(2, b"")._replace(replaces=entry(1).id, ended=True)
    third = entry(3)._replace(replaces=entry(2).id)

    read_own(session, second, third, head=3)

    _, *events = sink.take_all()
    assert kinds(events) == ["replaced", "replaced", "notification", "unread"]
    assert [event["id"] for event in events[:2]] == [entry(1).id, entry(2).id]
    assert session.subscription.read_from == position(3)


def test_the_count_is_corrected_after_the_same_difference_twice(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=4, unread=3)
    sink.take_all()

    def checked(unread: int) -> list[dict[str, Any]]:
        session.subscription.mark_stale()
        read_own(session, head=4, unread=unread)
        return sink.take_all()

    assert checked(3) == []
    assert checked(5) == []  # An audience's entry may be on its way.
    assert checked(3) == []
    assert checked(5) == []
    assert checked(6) == []  # And another.
    assert checked(6) == [{"type": "unread", "unread": 6}]
    assert checked(6) == []


def test_a_difference_of_the_count_survives_new_entries(
    session: Session, sink: RecordingSink
) -> None:
    # One has expired. New entries do not delay the correction.
    read_own(session, head=4, unread=3)
    session.subscription.mark_stale()
    read_own(session, head=4, unread=2)
    session.offer(entry(5))
    session.subscription.mark_stale()
    sink.take_all()

    read_own(session, head=5, unread=3)

    assert sink.take_all() == [{"type": "unread", "unread": 3}]


def test_the_count_is_not_checked_before_all_entries_have_come(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=0, unread=0)
    session.subscription.mark_stale()
    sink.take_all()

    for done in range(0, 6, 2):
        read_own(session, entry(done + 1), entry(done + 2), head=6, unread=6)

    assert kinds(sink.take_all()) == ["notification"] * 6


def test_marks_of_a_lost_announcement_come_after_all_entries(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=0, unread=0)
    session.subscription.mark_stale()
    sink.take_all()

    read_own(session, entry(1), head=2, unread=1, marks=1)
    read_own(session, entry(2), head=2, unread=1, marks=1)

    *_, read = sink.take_all()
    assert (read["type"], read["unread"]) == ("read", 1)
    session.subscription.mark_stale()
    read_own(session, head=2, unread=1, marks=1)
    assert sink.take_all() == []


def test_entries_of_the_streams_own_topics_are_not_counted(
    session: Session, sink: RecordingSink
) -> None:
    own = sub_of(session, is_member=False)
    session.set_audiences((own,))
    read_own(session, head=4, unread=3)
    read_audience(own, head=1)
    own.offer(entry(2))
    sink.take_all()

    for _ in range(2):
        session.subscription.mark_stale()
        read_own(session, head=4, unread=3)

    assert sink.take_all() == []


def test_after_an_audiences_withdrawal_the_next_count_is_believed(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    read_own(session, head=4, unread=3)
    read_audience(news, head=1)
    news.offer(entry(2, b"")._replace(withdraws=entry(1).id))
    sink.take_all()
    session.subscription.mark_stale()

    read_own(session, head=4, unread=2)

    assert sink.take_all() == [{"type": "unread", "unread": 2}]


def test_an_audience_that_is_left_while_joining_is_not_waited_for(
    session: Session, sink: RecordingSink
) -> None:
    _, everyone = with_audiences(session, Start.LATEST, Start.LATEST)
    read_own(session, head=4)
    read_audience(everyone, head=5)
    assert sink.events == []

    session.set_audiences((everyone,))

    (hello,) = sink.take_all()
    assert offsets_in(hello["cursor"]) == (4, 0, 5)


def test_the_read_of_an_audience_that_is_left_while_joining_is_dropped(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(4))
    news, everyone = with_audiences(session, position(1), position(1))
    read_audience(news, entry(2), head=2)
    session.set_audiences((everyone,))
    read_own(session, head=4)

    read_audience(everyone, head=1)

    assert kinds(sink.take_all()) == ["hello"]


def test_an_audience_that_is_joined_while_joining_is_waited_for(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    read_own(session, head=4)
    everyone = sub_of(session, everyone_log(NEWS.app))
    session.set_audiences((news, everyone))
    read_audience(news, head=1)
    assert sink.events == []

    read_audience(everyone, head=2)

    (hello,) = sink.take_all()
    assert offsets_in(hello["cursor"]) == (4, 1, 2)


def test_an_audience_that_is_joined_while_live_is_in_later_cursors(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=4)
    moved: list[Session] = []
    session.on_cursor_moved = moved.append
    news = sub_of(session, read_from=position(1), joined=position(1))
    session.set_audiences((news,))
    assert moved

    read_audience(news, entry(2), head=2)
    session.offer(entry(5))

    _, joined, own = sink.take_all()
    assert offsets([joined]) == [2]
    assert offsets_in(own["cursor"]) == (5, 2, 0)


@pytest.mark.parametrize(("device", "count"), [("phone", 1), ("tablet", 0), ("", 1)])
def test_an_entry_for_another_device_is_left_out_and_passed_over(
    sink: RecordingSink, device: str, count: int
) -> None:
    session = make_session(sink, device=device)
    read_own(session, head=0)
    sink.take_all()

    session.offer(entry(1)._replace(device="phone"))
    session.offer(entry(2))

    events = sink.take_all()
    assert len(events) == count + 1
    assert events[-1]["cursor"] == encode_position(position(2))


def test_logs_that_together_exceed_the_buffer_are_sent_in_portions(
    sink: RecordingSink,
) -> None:
    # One entry of each log fits. The entries of all three logs at once would end the
    # stream as slow, again and again.
    session = make_session(sink, position(0))
    audience_subscriptions = with_audiences(session, position(0), position(0))
    large = b'"body":"%b"}' % (b"x" * 4_500)
    got: list[int] = []
    for _ in range(10):
        done = [session.subscription.position.offset]
        done += [
            sub.own_subscription().position.offset for sub in audience_subscriptions
        ]
        followers: list[Session | AudienceSubscription] = [
            session,
            *audience_subscriptions,
        ]
        for follower, at in zip(followers, done, strict=True):
            entries = [entry(n, large) for n in range(at + 1, 4)]
            if isinstance(follower, Session):
                read_own(follower, *entries, head=3)
            else:
                read_audience(follower, *entries, head=3)
            got += offsets(sink.take_all())

    assert session.ended is None
    assert sorted(got) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_logs_of_a_stream_share_the_room_for_history(sink: RecordingSink) -> None:
    # Together their portions fit, so that no entry is read twice.
    session = make_session(sink, position(0))
    news, everyone = with_audiences(session, position(0), position(0))
    entries = [entry(n, b"x" * 100) for n in range(1, 31)]

    read_own(session, *entries, head=30)
    read_audience(news, *entries, head=30)
    read_audience(everyone, *entries, head=30)

    third = LIMITS.send_buffer_bytes // 2 // 3 // (100 + ENVELOPE_BYTES)
    assert third == 5
    assert session.subscription.read_from == position(third)
    assert news.read_from == everyone.read_from == position(third)


def test_an_ephemeral_notification_comes_once_the_stream_has_begun(
    session: Session, sink: RecordingSink
) -> None:
    session.send_ephemeral(b'{"title":"early"}')
    read_own(session, head=4)

    session.send_ephemeral(b'{"title":"t"}')

    _, passing = sink.take_all()
    assert passing == {"type": "notification", "notification": {"title": "t"}}
