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
from streamer.core.streams.session import (
    MARKS_UNSENT_MAX,
    MESSAGES_PER_S,
    Session,
    SessionLimits,
)
from streamer.core.streams.subscription import History, ReadFrom, Start, State
from streamer.core.streams.unread_count import InboxCount
from streamer.core.streams.views import Audience, View
from streamer.errors import Disconnect
from streamer.model import (
    ZERO,
    App,
    Entry,
    Gap,
    Log,
    Player,
    Position,
    Topic,
    decode_id,
    encode_position,
    everyone_log,
    topic_log,
)

OWN = Log(App("app"), Player("p"))
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

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        return all(self.write(event, buffer_bytes_max) for event in events)

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
    audiences: dict[Log, int] | None = None,
) -> None:
    """Let the session read its player's own log."""
    read_from = session.subscription.begin_read()
    first = entries[0].offset - 1 if entries else head
    start = read_from if isinstance(read_from, Position) else position(first)
    history = History(start, position(head), [*entries], gap)
    before = unread - sum(e.is_shown for e in entries)
    if not session.congested:
        counted = count_of(
            session,
            head,
            unread=unread,
            marks=marks,
            before=before,
            audiences=audiences,
        )
        session.on_history(read_from, history, counted)


def attach(session: Session) -> list[tuple[Log, bool]]:
    """Attach the session to its log; return the list of its requests for a count."""
    asked: list[tuple[Log, bool]] = []
    session.log = OWN
    session.on_count_doubtful = lambda log, at_once: asked.append((log, at_once))
    return asked


def count_of(
    session: Session,
    head: int,
    *,
    unread: int = 3,
    marks: int = 0,
    before: int = 0,
    audiences: dict[Log, int] | None = None,
) -> InboxCount:
    """
    Count an inbox up to `head` in the own log and up to the heads of `audiences`.

    By default that is where the session is in them. Their entries are all read.
    """
    members = [sub for sub in session.audience_subscriptions if sub.is_member]
    heads: dict[Log, Position] = {}
    for sub in members:
        at = sub.read_from
        heads[sub.log] = at if isinstance(at, Position) else ZERO
    for log, offset in (audiences or {}).items():
        heads[log] = position(offset)
    return InboxCount(
        position(head) if head else ZERO,
        unread,
        marks,
        {sub.log: View(sub.log, ZERO, base=10**6) for sub in members},
        {log: Audience(at, 1, 0, b"") for log, at in heads.items()},
        before,
    )


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
        sub.on_history(read_from, history)


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
    session.on_mark(marks=1, body=b'"all":true')
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
    counted = count_of(session, 9, unread=8, before=1)
    session.on_history(read_from, History(head, head, [], Gap.TRIMMED), counted)

    hello, gap, unread, notification, again = sink.take_all()
    # A client that loses its connection in between resumes here and gets the gap.
    assert (hello["cursor"], hello["unread"]) == (encode_position(position(1)), 1)
    assert gap == {"type": "gap", "reason": "trimmed", "cursor": encode_position(head)}
    assert unread == {"type": "unread", "unread": 8}
    assert notification["cursor"] == encode_position(position(10))
    assert again == {"type": "unread", "unread": 9}
    assert session.transport.gaps == {Gap.TRIMMED: 1}


def test_a_stream_from_the_zero_position_begins_with_the_zero_cursor(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, ZERO)

    session.on_history(session.subscription.begin_read(), History(ZERO, ZERO, []))

    assert sink.take_all()[0]["cursor"] == encode_position(ZERO)


def test_a_read_from_another_position_does_not_begin_the_stream(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(5))
    session.subscription.begin_read()

    session.on_history(position(4), History(position(4), position(4), []))

    assert sink.events == []
    assert session.joining


def test_a_read_mark_is_sent_with_the_count_that_includes_it(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    read_own(session, head=1, marks=5)
    sink.take_all()

    session.on_mark(marks=7, body=b'"all":true')

    assert asked == [(OWN, True)]
    assert not session.on_count(count_of(session, 1, unread=2, marks=6))
    assert sink.take_all() == []
    assert session.on_count(count_of(session, 1, unread=0, marks=7))
    assert sink.take_all() == [
        {"type": "read", "all": True, "unread": 0, "marks_version": 7}
    ]


def test_marks_that_nothing_announced_are_sent_after_the_second_count(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=1, marks=5)
    sink.take_all()

    # The announcement may be on its way.
    assert not session.on_count(count_of(session, 1, unread=2, marks=8))
    assert sink.take_all() == [{"type": "unread", "unread": 2}]
    assert session.on_count(count_of(session, 1, unread=2, marks=8))

    assert sink.take_all() == [
        {"type": "read", "ids": None, "unread": 2, "marks_version": 8}
    ]
    assert session.on_count(count_of(session, 1, unread=2, marks=8))
    assert sink.take_all() == []


def test_an_announcement_that_arrives_after_the_count_is_sent_as_it_is(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=1, marks=5)
    sink.take_all()
    assert not session.on_count(count_of(session, 1, unread=2, marks=6))
    session.on_mark(marks=6, body=b'"ids":["a"]')

    assert session.on_count(count_of(session, 1, unread=2, marks=6))

    assert sink.take_all() == [
        {"type": "unread", "unread": 2},
        {"type": "read", "ids": ["a"], "unread": 2, "marks_version": 6},
    ]


def test_marks_beyond_a_bound_are_sent_without_ids(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=1)
    sink.take_all()
    for n in range(1, MARKS_UNSENT_MAX + 2):
        session.on_mark(marks=n, body=b'"ids":["a"]')

    assert session.on_count(count_of(session, 1, marks=MARKS_UNSENT_MAX + 1))

    (read,) = sink.take_all()
    assert read["ids"] is None
    assert read["marks_version"] == MARKS_UNSENT_MAX + 1


def test_a_mark_made_while_joining_is_not_lost(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    read_from = session.subscription.begin_read()
    session.on_mark(marks=6, body=b'"all":true')
    history = History(position(1), position(1), [])

    session.on_history(read_from, history, count_of(session, 1, unread=3, marks=5))

    assert kinds(sink.take_all()) == ["hello"]
    assert asked[-1] == (OWN, True)
    assert session.on_count(count_of(session, 1, unread=0, marks=6))
    assert kinds(sink.take_all()) == ["read"]


def test_a_mark_that_hello_includes_is_not_sent(
    session: Session, sink: RecordingSink
) -> None:
    read_from = session.subscription.begin_read()
    session.on_mark(marks=6, body=b'"all":true')
    history = History(position(1), position(1), [])

    session.on_history(read_from, history, count_of(session, 1, unread=0, marks=6))

    (hello,) = sink.take_all()
    assert (hello["unread"], hello["marks_version"]) == (0, 6)


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
    session.on_mark(marks=1, body=b'"all":true')
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


def test_hello_counts_as_of_its_cursor(sink: RecordingSink) -> None:
    session = make_session(sink, position(1))

    read_own(session, entry(2), entry(3), head=3, unread=5)

    hello, *notifications, unread = sink.take_all()
    assert hello["unread"] == 3
    assert kinds(notifications) == ["notification", "notification"]
    # For a client that drops repeats without counting them.
    assert unread == {"type": "unread", "unread": 5}


def test_replayed_entries_that_were_read_elsewhere_are_corrected_at_once(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(1))
    read_from = session.subscription.begin_read()
    history = History(position(1), position(3), [entry(2), entry(3)])

    session.on_history(read_from, history, count_of(session, 3, unread=3, before=3))

    hello, _, _, unread = sink.take_all()
    assert hello["unread"] == 3
    assert unread == {"type": "unread", "unread": 3}


def test_hello_counts_an_audience_up_to_where_the_stream_begins(
    sink: RecordingSink,
) -> None:
    session = make_session(sink, position(1))
    (news,) = with_audiences(session, position(2))
    counted = count_of(session, 1, unread=1, before=1, audiences={NEWS: 4})
    counted = counted._replace(views={NEWS: View(NEWS, ZERO)})
    read_from = session.subscription.begin_read()
    session.on_history(read_from, History(position(1), position(1), []), counted)

    read_audience(news, entry(3), entry(4), head=4)

    hello, _, _, unread = sink.take_all()
    assert hello["unread"] == 1 + 2
    assert unread == {"type": "unread", "unread": 1 + 4}


def test_an_audience_that_moves_while_the_stream_joins_is_counted_again(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    (news,) = with_audiences(session, Start.LATEST)
    counted = count_of(session, 1, unread=1, before=1, audiences={NEWS: 2})
    counted = counted._replace(views={NEWS: View(NEWS, ZERO)})
    read_from = session.subscription.begin_read()
    session.on_history(read_from, History(position(1), position(1), []), counted)

    read_audience(news, head=3)

    assert sink.take_all()[-1] == {"type": "unread", "unread": 1 + 3}
    assert asked == [(OWN, True)]


def test_a_stream_begins_after_the_first_read_of_every_log(
    session: Session, sink: RecordingSink
) -> None:
    news, everyone = with_audiences(session, Start.LATEST, Start.LATEST)

    read_audience(everyone, head=5)
    read_own(session, head=4, audiences={NEWS: 3})
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

    session.on_history(read_from, history)
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

    hello, gap, unread, notification, *_ = sink.take_all()
    # A client that loses its connection in between resumes here and gets the gap.
    assert offsets_in(hello["cursor"]) == (4, 1, 0)
    assert unread["type"] == "unread"
    assert (gap["type"], gap["reason"], gap["topic"]) == ("gap", "trimmed", "news")
    # Its own entry has not been sent yet.
    assert offsets_in(gap["cursor"]) == (4, 9, 0)
    assert offsets_in(notification["cursor"]) == (5, 9, 0)


def test_a_gap_in_the_own_log_does_not_move_the_audiences(sink: RecordingSink) -> None:
    session = make_session(sink, position(4))
    (news,) = with_audiences(session, position(1))
    read_audience(news, entry(2), head=2)

    read_own(session, head=9, gap=Gap.TRIMMED)

    _, gap, unread, notification, *_ = sink.take_all()
    assert unread["type"] == "unread"
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
    news.on_history(read_from, History(head, head, [], Gap.AHEAD))

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


def test_a_withdrawal_is_sent_and_a_count_asked_for(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    read_own(session, head=4, unread=3)
    sink.take_all()

    session.offer(entry(5, b"")._replace(withdraws=entry(4).id))

    (withdrawn,) = sink.take_all()
    assert withdrawn == {
        "type": "withdrawn",
        "cursor": encode_position(position(5)),
        "id": entry(4).id,
    }
    assert asked == [(OWN, False)]
    assert session.on_count(count_of(session, 5, unread=2))
    assert sink.take_all() == [{"type": "unread", "unread": 2}]


def test_a_replacement_is_announced_before_the_notification(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    read_own(session, head=4, unread=3)
    sink.take_all()

    session.offer(entry(5)._replace(replaces=entry(4).id))

    replaced, notification = sink.take_all()
    assert replaced == {"type": "replaced", "id": entry(4).id, "by": entry(5).id}
    assert notification["cursor"] == encode_position(position(5))
    assert asked == [(OWN, False)]
    assert session.on_count(count_of(session, 5, unread=3))
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


def test_a_count_is_sent_if_it_is_another_than_the_clients(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=4, unread=3)
    sink.take_all()

    assert session.on_count(count_of(session, 4, unread=3))
    assert sink.take_all() == []
    assert session.on_count(count_of(session, 4, unread=5))
    assert sink.take_all() == [{"type": "unread", "unread": 5}]


def test_a_count_waits_for_what_it_counts(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    read_own(session, head=4, unread=3, audiences={NEWS: 1})
    read_audience(news, head=1)
    sink.take_all()
    counted = count_of(session, 4, unread=4, audiences={NEWS: 2})

    assert not session.on_count(counted)
    assert not session.on_count(count_of(session, 5, unread=4))
    assert sink.take_all() == []

    news.offer(entry(2))
    assert session.on_count(counted)
    assert kinds(sink.take_all()) == ["notification"]
    assert session.unread == 4


def test_what_was_delivered_beyond_a_count_is_added(
    session: Session, sink: RecordingSink
) -> None:
    (news,) = with_audiences(session, Start.LATEST)
    read_own(session, head=4, unread=3, audiences={NEWS: 1})
    read_audience(news, head=1)
    before = count_of(session, 4, unread=1, audiences={NEWS: 1})
    session.offer(entry(5))
    news.offer(entry(2))
    news.offer(entry(3, b"")._replace(withdraws=entry(1).id))
    sink.take_all()

    assert session.on_count(before)

    assert sink.take_all() == [{"type": "unread", "unread": 1 + 2}]


def test_a_count_of_other_audiences_is_of_no_use(
    session: Session, sink: RecordingSink
) -> None:
    other = count_of(session, 4)
    with_audiences(session, Start.LATEST)
    read_own(session, head=4)
    sink.take_all()

    assert not session.on_count(other)


def test_a_stream_that_shows_no_count_needs_none(sink: RecordingSink) -> None:
    class Silent(WebSocketCodec):
        def unread(self, unread: int) -> bytes:
            return b""

    session = Session(
        position(1), codec=Silent(), sink=sink, limits=LIMITS, pinged_at_s=0
    )
    asked = attach(session)
    read_own(session, entry(2), head=2)
    session.offer(entry(3)._replace(replaces=entry(2).id))

    assert session.on_count(count_of(session, 9))

    assert asked == []
    assert kinds(sink.take_all())[:2] == ["hello", "notification"]


def test_every_read_of_the_own_log_is_followed_by_a_count(
    session: Session,
) -> None:
    # The announcement of a mark may have been lost with that of an entry.
    asked = attach(session)
    read_own(session, head=4)
    assert asked == []
    session.subscription.mark_stale()

    read_own(session, head=4)

    assert asked == [(OWN, False)]


def test_a_count_waits_for_all_portions_of_a_read(
    session: Session, sink: RecordingSink
) -> None:
    read_own(session, head=0, unread=0)
    session.subscription.mark_stale()
    sink.take_all()

    for done in range(0, 6, 2):
        assert not session.on_count(count_of(session, 6, unread=6))
        read_own(session, entry(done + 1), entry(done + 2), head=6, unread=6)

    assert session.on_count(count_of(session, 6, unread=6))
    assert kinds(sink.take_all()) == ["notification"] * 6


def test_a_gap_of_an_open_stream_is_followed_by_the_number(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    read_own(session, head=4, unread=3)
    session.subscription.mark_stale()
    sink.take_all()

    read_own(session, head=9, gap=Gap.TRIMMED, unread=3)

    assert (OWN, True) in asked
    assert session.on_count(count_of(session, 9, unread=3))
    assert kinds(sink.take_all()) == ["gap", "unread"]


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


def test_an_audiences_withdrawal_asks_for_a_count(
    session: Session, sink: RecordingSink
) -> None:
    asked = attach(session)
    (news,) = with_audiences(session, Start.LATEST)
    read_own(session, head=4, unread=3, audiences={NEWS: 1})
    read_audience(news, head=1)

    news.offer(entry(2, b"")._replace(withdraws=entry(1).id))

    assert asked == [(OWN, False)]
    sink.take_all()
    assert session.on_count(count_of(session, 4, unread=2))
    assert sink.take_all() == [{"type": "unread", "unread": 2}]


def test_a_topic_that_the_player_and_the_stream_have_is_told_by_number(
    session: Session, sink: RecordingSink
) -> None:
    # The client does not know that the player is subscribed as well.
    asked = attach(session)
    session.topics = (Topic("news"),)
    news = sub_of(session)
    session.set_audiences((news,))
    read_own(session, head=4, unread=3, audiences={NEWS: 1})
    read_audience(news, head=1)
    sink.take_all()

    news.offer(entry(2))
    news.deliver_next(entry(3), position(3))

    assert session.unread == 3
    assert asked == [(OWN, False)] * 2
    assert session.on_count(count_of(session, 4, unread=5, audiences={NEWS: 3}))
    assert kinds(sink.take_all()) == ["notification", "notification", "unread"]


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
