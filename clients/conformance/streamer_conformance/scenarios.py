"""
The scenarios: what a client of the protocol has to do, as data.

A scenario is a list of steps; a step is an object with one member, its name, and the
value says the rest. ``README.md`` describes the steps. The functions here only write
them; `export` returns all scenarios as plain objects, for runners in other languages.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["ABSENT", "BACKOFF_RANDOM", "SCENARIOS", "Scenario", "export"]

ABSENT: Final = {"$absent": True}
"""Stands for a member that must be missing."""
BACKOFF_RANDOM: Final = 0.5
"""What clients with the capability `random` use instead of a random fraction."""

EXPIRING: Final = "$expires"
"""Stands for a token that expires in 40 seconds."""

SCALE: Final = 0.2
"""Real seconds per second of the protocol, where a scenario waits for nothing."""
HEARTBEAT_S: Final = 3600
"""No heartbeat is due within a scenario that is not about heartbeats."""

WS: Final = ("websocket",)
SSE: Final = ("sse", "eventsource")
HEADERS: Final = ("websocket", "sse")
ALL: Final = ("websocket", "sse", "eventsource")

_HERE: Final = Path(__file__)
VECTORS: Final = (
    # Beside this module in a wheel, beside the package in a clone.
    _HERE.with_name("counting.json")
    if _HERE.with_name("counting.json").exists()
    else _HERE.parents[1] / "counting.json"
)

Step = dict[str, Any]
Steps = Sequence[Step]


class Scenario(NamedTuple):
    """One scenario; it is played on each of its transports."""

    name: str
    section: str
    """Of PROTOCOL.md."""
    steps: tuple[Step, ...]
    transports: tuple[str, ...]
    needs: tuple[str, ...]
    """Capabilities of the driver."""
    scale: float

    def missing(
        self, transport: str, transports: Sequence[str], capabilities: Sequence[str]
    ) -> list[str]:
        """Return what a driver lacks for this scenario."""
        lacks = [it for it in self.needs if it not in capabilities]
        known = transport in transports or transport == "auto"
        return lacks if known else [transport, *lacks]


SCENARIOS: list[Scenario] = []


def scenario(
    name: str,
    section: str,
    *steps: Step | Steps,
    transports: tuple[str, ...] = ALL,
    needs: tuple[str, ...] = (),
    scale: float = SCALE,
) -> None:
    flat: list[Step] = []
    for step in steps:
        flat += [step] if isinstance(step, dict) else step
    SCENARIOS.append(Scenario(name, section, tuple(flat), transports, needs, scale))


def export() -> list[dict[str, Any]]:
    """Return all scenarios as JSON values."""
    return [one._asdict() for one in SCENARIOS]


# Messages of the server.


def hello(cursor: str = "c0", **members: Any) -> dict[str, Any]:
    return {
        "type": "hello",
        "cursor": cursor,
        "heartbeat_s": HEARTBEAT_S,
        "unread": 0,
        "marks_version": 1,
        **members,
    }


def id_of(number: int, version: int = 7) -> str:
    return f"0197f1c2-0000-{version}000-8000-{number:012d}"


def note(
    number: int, cursor: str | None = "", version: int = 7, **members: Any
) -> dict[str, Any]:
    """Notification `number`: with its own cursor, another one, or (None) without."""
    message: dict[str, Any] = {"type": "notification"}
    if cursor is not None:
        message["cursor"] = cursor or f"c{number}"
    content = {
        "id": id_of(number, version),
        "created_at": "2026-11-20T22:52:39.123Z",
        "title": f"Number {number}",
    }
    return {**message, "notification": content | members}


def bye(code: int, delay_ms: int | None = None) -> dict[str, Any]:
    message = {
        "type": "bye",
        "code": code,
        "reason": "why",
        "reconnect": not 4200 <= code <= 4299,
    }
    return message if delay_ms is None else {**message, "delay_ms": delay_ms}


# Steps.


def connect(**options: Any) -> Step:
    return {"connect": options}


def attempt(**expected: Any) -> Step:
    return {"attempt": expected}


def say(*messages: dict[str, Any]) -> list[Step]:
    return [{"say": message} for message in messages]


def opened(message: dict[str, Any] | None = None, **expected: Any) -> list[Step]:
    """Take an attempt, accept it, and greet."""
    return [attempt(**expected), {"accept": True}, *say(message or hello())]


def ended(code: int, delay_ms: int | None = None) -> list[Step]:
    """End with a `bye` and a close."""
    return [*say(bye(code, delay_ms)), {"end": {"code": code, "reason": "why"}}]


def gets(*numbers: int, **members: Any) -> list[Step]:
    """Expect these notifications, in this order, and nothing in between."""
    return [
        {
            "expect": {
                "event": "notification",
                "notification": {"id": id_of(number), **members},
            }
        }
        for number in numbers
    ]


def expect(event: str, **members: Any) -> Step:
    return {"expect": {"event": event, **members}}


def stopped(code: int) -> list[Step]:
    """Expect the end of the stream, and that it is one."""
    return [expect("stopped", code=code), {"idle": 1.0}]


def stored(cursor: str | None) -> Step:
    return {"stored": cursor}


def shows(number: int | None) -> Step:
    return {"number": number}


DROP: Final[Step] = {"drop": True}
SETTLED: Final[Step] = {"settled": True}
BEGIN: Final[list[Step]] = [connect(), *opened(cursor=None), shows(0)]
"""A new stream that has been greeted."""
ALIVE: Final[list[Step]] = [*say(note(99)), *gets(99)]
"""What is said on the present connection still arrives."""


# Opening and resuming.

scenario(
    "the cursor of hello makes the first reconnect lossless",
    "6",
    BEGIN,
    DROP,
    opened(cursor="c0"),
    ALIVE,
)
scenario(
    "a cursor of its own is better than that of hello",
    "6",
    connect(cursor="own"),
    opened(hello("c5"), cursor="own"),
    shows(0),
    DROP,
    attempt(cursor="own"),
    transports=HEADERS,
)
scenario(
    "earliest stays until a notification, a cursor or a gap replaces it",
    "3",
    connect(cursor="earliest"),
    opened(cursor="earliest"),
    shows(0),
    DROP,
    opened(cursor="earliest"),
    say(note(1)),
    gets(1),
    DROP,
    attempt(cursor="c1"),
    transports=HEADERS,
)
scenario(
    "it resumes from the cursor of the last notification",
    "7",
    BEGIN,
    say(note(1), note(2)),
    gets(1, 2),
    stored("c2"),
    DROP,
    opened(hello("c2"), cursor="c2"),
    say(note(3)),
    gets(3),
)
scenario(
    "a cursor message moves the cursor for notifications without one",
    "6",
    BEGIN,
    say(note(1, None, everyone=True)),
    gets(1),
    stored("c0"),
    say({"type": "cursor", "cursor": "c7"}),
    say(note(2, None, topic="news")),
    gets(2),
    stored("c7"),
    DROP,
    attempt(cursor="c7"),
)
scenario(
    "each connection of a stream has the same instance",
    "5",
    BEGIN,
    DROP,
    opened(same_instance=True),
    DROP,
    attempt(same_instance=True),
    transports=HEADERS,
)
scenario(
    "a stream asks for its topics on each connection",
    "5",
    connect(topics=["match/1", "news"]),
    opened(topics=["match/1", "news"]),
    shows(0),
    DROP,
    attempt(topics=["match/1", "news"]),
)
scenario(
    "ping may come before hello",
    "6",
    connect(),
    attempt(),
    {"accept": True},
    say({"type": "ping"}, hello()),
    shows(0),
    ALIVE,
)
scenario(
    "a message of an unknown type may come before hello",
    "6",
    connect(),
    attempt(),
    {"accept": True},
    say({"type": "glitter", "cursor": "no", "amount": 7}, hello()),
    shows(0),
    stored("c0"),
    ALIVE,
)
scenario(
    "bye may come before hello",
    "6",
    connect(),
    attempt(),
    {"accept": True},
    ended(4104, 100),
    opened(after_s=0.1),
    ALIVE,
)
scenario(
    "the credential goes into a first message",
    "5",
    connect(auth="message", token="t7"),
    opened(token="t7"),
    ALIVE,
    transports=WS,
    needs=("first_message",),
)
scenario(
    "a new stream of the same program has another instance",
    "5",
    BEGIN,
    {"restart": True},
    opened(other_instance=True),
    transports=HEADERS,
)
scenario(
    "each EventSource is opened with a ticket",
    "10",
    connect(token="t7"),
    opened(token="t7", ticket=True, cursor=None),
    say(note(1)),
    gets(1),
    DROP,
    opened(token="t7", ticket=True, cursor="c1"),
    ALIVE,
    transports=("eventsource",),
)

# Notifications.

scenario(
    "a notification that an earlier connection has delivered is dropped",
    "7",
    BEGIN,
    say(note(1, None, topic="news"), note(2)),
    gets(1, 2),
    DROP,
    opened(hello("c0", unread=1), cursor="c2"),
    say(note(1, None, topic="news"), note(2), note(3)),
    gets(3),
    stored("c3"),
)
scenario(
    "five hundred repeats are recognized",
    "7",
    BEGIN,
    say(*(note(number, None, topic="news") for number in range(1, 501))),
    gets(*range(1, 501)),
    DROP,
    opened(),
    say(*(note(number, None, topic="news") for number in range(1, 502))),
    gets(501),
)
scenario(
    "notifications arrive in the order of the stream",
    "7",
    BEGIN,
    say(*(note(number) for number in range(1, 301))),
    gets(*range(1, 301)),
    stored("c300"),
)
scenario(
    "a message may be long",
    "11",
    BEGIN,
    say(note(1, body="x" * 900_000)),
    gets(1, body="x" * 900_000),
    ALIVE,
)
TEXT: Final = 'grüße 😀 \u2028\u2029 \x01\x7f "\\/ <b>&amp; \r\n\t שלום'
scenario(
    "text arrives unchanged, whatever is in it",
    "2",
    BEGIN,
    say(note(1, title=TEXT, data={TEXT: [TEXT]})),
    gets(1, title=TEXT, data={TEXT: [TEXT]}),
)
scenario(
    "the character NUL arrives unchanged",
    "2",
    BEGIN,
    say(note(1, title="a\0b", data={"a\0b": ["\0"]})),
    gets(1, title="a\0b", data={"a\0b": ["\0"]}),
    needs=("nul",),
)
scenario(
    "no data is another thing than null",
    "2",
    BEGIN,
    say(note(1, data=None), note(2), note(3, data=False), note(4, data="")),
    gets(1, data=None),
    gets(2, data=ABSENT),
    gets(3, data=False),
    gets(4, data=""),
)
scenario(
    "integers of 53 bits, fractions and nested values arrive unchanged",
    "2",
    BEGIN,
    say(note(1, data={"a": [2**53 - 1, -(2**53) + 1, 0.25, 1e300, {"b": []}]})),
    gets(1, data={"a": [2**53 - 1, -(2**53) + 1, 0.25, 1e300, {"b": []}]}),
)
scenario(
    "integers of 64 bits arrive unchanged",
    "11",
    BEGIN,
    say(note(1, data=[2**64 - 1, -(2**63), 2**53 + 1])),
    gets(1, data=[2**64 - 1, -(2**63), 2**53 + 1]),
    needs=("int64",),
)
scenario(
    "integers of 64 bits do no harm",
    "11",
    BEGIN,
    say(note(1, data=[2**64 - 1, -(2**63)])),
    gets(1),
    ALIVE,
)
DEEP: Final[Any] = json.loads("[" * 63 + "1" + "]" * 63)
scenario(
    "data may be 64 levels deep",
    "11",
    BEGIN,
    say(note(1, data=DEEP)),
    gets(1, data=DEEP),
    ALIVE,
)
PAIRS: Final = [{"key": "k", "value": "1"}, {"key": "k", "value": ""}]
scenario(
    "properties keep their order and their repeated keys",
    "2",
    BEGIN,
    say(note(1, properties=PAIRS)),
    gets(1, properties=PAIRS),
)
scenario(
    "a notification that is not stored moves no cursor",
    "2",
    BEGIN,
    say(note(1), note(2, None, version=4)),
    gets(1),
    expect("notification", notification={"id": id_of(2, 4)}),
    stored("c1"),
    shows(1),
    DROP,
    attempt(cursor="c1"),
)
scenario(
    "unknown members, priorities and sources do no harm",
    "2",
    BEGIN,
    say(
        {
            **note(1, priority="shouting", source="elsewhere", glitter=[1]),
            "sparkle": {"a": 1},
        }
    ),
    gets(1, title="Number 1"),
    ALIVE,
)
scenario(
    "a withdrawn notification is told, also one that is unknown",
    "6",
    BEGIN,
    say(
        note(1),
        {"type": "withdrawn", "cursor": "c2", "id": id_of(1)},
        {"type": "withdrawn", "id": id_of(77)},
    ),
    gets(1),
    expect("withdrawn", notification_id=id_of(1)),
    expect("withdrawn", notification_id=id_of(77)),
    stored("c2"),
    DROP,
    attempt(cursor="c2"),
)
scenario(
    "a replaced notification is told before the one that replaces it",
    "6",
    BEGIN,
    say(
        note(1, collapse_key="k"),
        {"type": "replaced", "id": id_of(1), "by": id_of(2)},
        note(2, collapse_key="k"),
    ),
    gets(1),
    expect("replaced", notification_id=id_of(1), by=id_of(2)),
    gets(2),
)

# Gaps.

for reason in ("too_far", "trimmed", "epoch", "ahead", "diverged", "moonlight"):
    scenario(
        f"after a gap of the reason {reason} the stream continues at its cursor"
        if reason != "moonlight"
        else "a gap of an unknown reason is a gap, too",
        "7",
        connect(cursor="old"),
        opened(hello("old"), cursor="old"),
        say(
            {"type": "gap", "reason": reason, "cursor": "g1"},
            {"type": "unread", "unread": 12},
        ),
        expect("gap", reason=reason),
        stored("g1"),
        shows(12),
        DROP,
        opened(hello("g1"), cursor="g1"),
        say(note(1)),
        gets(1),
        stored("c1"),
    )
scenario(
    "a gap may be of one topic, or of what was sent to everyone",
    "6",
    BEGIN,
    say(
        {"type": "gap", "reason": "trimmed", "cursor": "g1", "topic": "news"},
        {"type": "gap", "reason": "trimmed", "cursor": "g2", "everyone": True},
    ),
    expect("gap", topic="news"),
    expect("gap", everyone=True),
    stored("g2"),
    ALIVE,
)


# The number of unread.


def counting() -> None:
    """Make a scenario of each vector of the counting rule."""
    for case in json.loads(VECTORS.read_text("utf-8"))["cases"]:
        steps: list[Step] = [connect(topics=case["topics"])]
        is_open = False
        said = False
        before: int | None = None
        delivered: set[str] = set()
        earlier: set[str] = set()
        """Ids that an earlier connection has delivered."""
        for message, number in case["steps"]:
            if message["type"] == "hello":
                if said:
                    steps.append(DROP)
                    is_open = False
                message = message | {"heartbeat_s": HEARTBEAT_S}
                said = True
            if not is_open:
                steps += [attempt(), {"accept": True}]
                is_open = True
                earlier |= delivered
            steps += say(message)
            id_ = message.get("notification", {}).get("id")
            is_repeat = id_ in earlier or message.get("by") in earlier
            if message["type"] in _PASSED and not is_repeat:
                steps.append({"pass": message["type"]})
            if id_ is not None:
                delivered.add(id_)
            # A repeat is no event. The server confirms the number after the replay.
            if number != before and not is_repeat:
                steps.append(shows(number))
            before = number
        numbers = sorted({number for _, number in case["steps"] if number is not None})
        steps += [SETTLED, shows(before), {"numbers_among": numbers}]
        scenario(f"unread: {case['name']}", "6", *steps)


_PASSED: Final = frozenset({"notification", "withdrawn", "replaced", "gap"})
"""Events that a scenario cannot pass over."""

counting()

scenario(
    "marks that were made while it was disconnected are told",
    "6",
    BEGIN,
    DROP,
    opened(hello("c0", unread=0, marks_version=5), cursor="c0"),
    expect("read", ids=ABSENT),
    ALIVE,
)
scenario(
    "marks of other devices are told",
    "6",
    BEGIN,
    say(
        {"type": "read", "ids": [id_of(1)], "unread": 4, "marks_version": 2},
        {"type": "read", "up_to": "c1", "unread": 3, "marks_version": 3},
        {"type": "read", "all": True, "unread": 0, "marks_version": 4},
    ),
    expect("read", ids=[id_of(1)], number=4),
    expect("read", up_to="c1", number=3),
    expect("read", all=True, number=0),
    say(
        {
            "type": "read",
            "read": False,
            "ids": [id_of(1)],
            "unread": 1,
            "marks_version": 5,
        }
    ),
    expect("read", ids=[id_of(1)], read=False, number=1),
)

# Closing.

CODES: Final = {
    4000: "slow",
    4001: "resync",
    4002: "silent",
    4050: "a code of a newer server",
    4100: "draining",
    4101: "too many listeners",
    4102: "node full",
    4103: "rate",
    4104: "store away",
    4105: "issuer away",
    4150: "a code of a newer server",
}
for code, word in CODES.items():
    scenario(
        f"bye {code} ({word}): it reconnects and resumes",
        "9",
        BEGIN,
        say(note(1)),
        gets(1),
        ended(code, 50),
        opened(hello("c1"), cursor="c1", after_s=0.05 if code >= 4100 else 0.0),
        ALIVE,
    )
FINAL_CODES: Final = {
    4201: "forbidden",
    4202: "replaced by the same instance",
    4203: "protocol",
    4250: "a code of a newer server",
}
for code, word in FINAL_CODES.items():
    scenario(
        f"bye {code} ({word}): it stops and says so",
        "9",
        BEGIN,
        ended(code),
        stopped(code),
    )
scenario(
    "a close frame without a bye counts by its code",
    "9",
    BEGIN,
    [
        step
        for code in (4000, 4100, 1000, 1001, 1009, 1011, 1012, 3000, 4300)
        for step in (
            {"end": {"code": code}},
            *opened(hello("c0"), cursor="c0"),
            *say(note(code)),
            *gets(code),
            *say({"type": "cursor", "cursor": "c0"}),
            stored("c0"),
        )
    ],
    transports=WS,
)
scenario(
    "a close frame with 4201 and without a bye ends the stream",
    "9",
    BEGIN,
    {"end": {"code": 4201, "reason": "forbidden"}},
    stopped(4201),
    transports=WS,
)
scenario(
    "a lost connection is resumed",
    "9",
    BEGIN,
    say(note(1)),
    gets(1),
    DROP,
    opened(hello("c1"), cursor="c1"),
    ALIVE,
)
scenario(
    "an end without a bye is resumed",
    "9",
    BEGIN,
    say(note(1)),
    gets(1),
    {"end": {"code": 1006}},
    opened(hello("c1"), cursor="c1"),
    ALIVE,
    transports=SSE,
)
scenario(
    "the delay of a bye is waited for, plus jitter",
    "9",
    BEGIN,
    ended(4100, 4000),
    opened(after_s=4.0, backoff=0),
    ALIVE,
    scale=0.05,
)
scenario(
    "a bye counts although the close never arrives",
    "9",
    BEGIN,
    say(bye(4100, 100)),
    {"freeze": True},
    opened(cursor="c0"),
    ALIVE,
)
scenario(
    "a bye that forbids to reconnect counts although the close never arrives",
    "9",
    BEGIN,
    say(bye(4201)),
    {"freeze": True},
    stopped(4201),
)
scenario(
    "a node that drains leads to the next one, and nothing is lost",
    "9",
    BEGIN,
    say(note(1)),
    say(note(2)),
    ended(4100, 200),
    gets(1, 2),
    attempt(cursor="c2", after_s=0.2),
    {"refuse": {"status": 503, "code": 4100, "reason": "draining", "retry_after": 1}},
    opened(hello("c2"), cursor="c2", after_s=1.0),
    say(note(3)),
    gets(3),
    scale=0.1,
)


# Never hammer.


def hammered(*steps: Step | Steps, count: int = 3) -> list[Step]:
    """End each of `count` connections at once; each wait may be twice the last."""
    flat: list[Step] = [*BEGIN, DROP]
    for number in range(count):
        flat.append(attempt(backoff=number))
        for step in steps:
            flat += [step] if isinstance(step, dict) else step
    flat += [
        attempt(backoff=count),
        # A tenth of what full jitter takes on average; less is not a matter of luck.
        {"elapsed": 0.1 * sum(0.25 * 2**number for number in range(count + 1))},
    ]
    return flat


scenario(
    "it does not hammer a server that greets and drops",
    "9",
    hammered({"accept": True}, say(hello()), DROP),
    scale=0.1,
)
scenario(
    "it does not hammer a server that drops without a word",
    "9",
    hammered(DROP),
    scale=0.1,
)
scenario(
    "it does not hammer a server that accepts the stream and ends it",
    "9",
    hammered({"accept": True}, {"end": {"code": 1000}}),
    scale=0.1,
)
scenario(
    "it does not hammer a server that refuses",
    "9",
    hammered({"refuse": {"status": 503, "code": 4102, "reason": "node full"}}),
    scale=0.1,
)
scenario(
    "a delay of 0 is no permission to hammer",
    "9",
    hammered({"accept": True}, say(hello()), ended(4103, 0)),
    scale=0.1,
)
scenario(
    "a connection that only repeats itself has not proved itself",
    "9",
    connect(),
    opened(cursor=None),
    say(note(1, None, everyone=True)),
    gets(1),
    DROP,
    hammered(
        {"accept": True},
        say(hello(), note(1, None, everyone=True), {"type": "unread", "unread": 1}),
        DROP,
    )[len(BEGIN) + 1 :],
    scale=0.1,
)

# Refusals.

scenario(
    "400: it stops and says so",
    "5",
    connect(),
    attempt(),
    {"refuse": {"status": 400, "code": 4203, "reason": "invalid"}},
    stopped(4203),
)
scenario(
    "401 without a source of tokens: it stops and says so",
    "5",
    connect(),
    attempt(),
    {"refuse": {"status": 401, "code": 4200, "reason": "unauthenticated"}},
    stopped(4200),
)
scenario(
    "401: one new token and one attempt, at once",
    "9",
    connect(token_source=True),
    attempt(token="t0"),
    {"refuse": {"status": 401, "code": 4200, "reason": "unauthenticated"}},
    {"token_wanted": "t1"},
    opened(token="t1"),
    ALIVE,
    needs=("token_source",),
)
scenario(
    "401 twice: it stops and says so",
    "9",
    connect(token_source=True),
    attempt(token="t0"),
    {"refuse": {"status": 401, "code": 4200, "reason": "unauthenticated"}},
    {"token_wanted": "t1"},
    attempt(token="t1"),
    {"refuse": {"status": 401, "code": 4200, "reason": "unauthenticated"}},
    stopped(4200),
    needs=("token_source",),
)
scenario(
    "403: it stops and says so",
    "5",
    connect(),
    attempt(),
    {"refuse": {"status": 403, "code": 4201, "reason": "forbidden"}},
    stopped(4201),
)
scenario(
    "409: it waits for Retry-After, plus jitter",
    "5",
    connect(),
    attempt(),
    {"refuse": {"status": 409, "code": 4101, "reason": "limit", "retry_after": 5}},
    opened(after_s=5.0, backoff=0),
    ALIVE,
    scale=0.04,
)
scenario(
    "503: it waits for Retry-After, plus jitter",
    "5",
    connect(),
    attempt(),
    {"refuse": {"status": 503, "code": 4104, "reason": "away", "retry_after": 5}},
    opened(after_s=5.0, backoff=0),
    ALIVE,
    scale=0.04,
)
scenario(
    "426: a WebSocket that arrived without its upgrade ends the stream",
    "5",
    connect(),
    attempt(),
    {"http": {"status": 426, "headers": {"Upgrade": "websocket"}}},
    expect("stopped"),
    {"idle": 2.0},
    transports=WS,
    # A client that gets only "failed" for a refused handshake cannot tell it.
    needs=("statuses",),
)
scenario(
    "a Retry-After that cannot be read does no harm",
    "5",
    connect(),
    attempt(),
    {"http": {"status": 503, "headers": {"Retry-After": "soon"}}},
    opened(),
    ALIVE,
)
HTML: Final = "<!doctype html><title>Welcome</title><h1>Please log in to this network"
for status, what in (
    (200, "the page of a captive portal"),
    (429, "a proxy that limits requests"),
    (502, "a proxy without a server"),
    (504, "a proxy that waited too long"),
    (511, "a network that wants a login"),
):
    scenario(
        f"{what} ({status}) is waited out",
        "4" if status in (429, 502, 504) else "9",
        BEGIN,
        say(note(1)),
        gets(1),
        DROP,
        attempt(cursor="c1"),
        {"http": {"status": status, "body": HTML}},
        attempt(cursor="c1", backoff=1),
        {"http": {"status": status, "body": HTML}},
        opened(hello("c1"), cursor="c1"),
        ALIVE,
    )

# Heartbeats.

scenario(
    "it answers ping with pong",
    "8",
    BEGIN,
    say({"type": "ping"}),
    {"receive": {"type": "pong"}},
    ALIVE,
    transports=WS,
)
scenario(
    "it sends ping when nothing arrives, and an answer keeps the connection",
    "8",
    connect(),
    opened(hello(heartbeat_s=10)),
    {"receive": {"type": "ping"}},
    say({"type": "pong"}),
    {"receive": {"type": "ping"}},
    say({"type": "pong"}),
    ALIVE,
    transports=WS,
    scale=0.02,
)
scenario(
    "a dead line is dropped after 2.5 heartbeats of silence",
    "8",
    connect(),
    opened(hello(heartbeat_s=2)),
    say(note(1)),
    gets(1),
    {"freeze": True},
    opened(hello("c1"), cursor="c1", after_s=5.0),
    ALIVE,
    scale=0.04,
)
scenario(
    "the heartbeat is that of hello",
    "8",
    BEGIN,
    {"idle": 80},
    ALIVE,
    scale=0.005,
)
scenario(
    "a server that accepts and does not greet is left after a while",
    "6",
    connect(),
    attempt(),
    {"accept": True},
    # Less than the 30 s that a client should allow, and more than it may spin.
    opened(after_s=5.0),
    ALIVE,
    scale=0.02,
)
scenario(
    "a handshake that is never answered is left after a while",
    "9",
    connect(),
    attempt(),
    {"silence": True},
    opened(after_s=1.0),
    ALIVE,
    scale=0.02,
)
scenario(
    "a proxy that holds the stream back is left after a while",
    "10",
    connect(),
    opened(hello(heartbeat_s=2)),
    shows(0),
    {"freeze": True},
    opened(hello(heartbeat_s=HEARTBEAT_S), after_s=5.0),
    ALIVE,
    transports=SSE,
    scale=0.04,
)

# Tokens and clocks.

scenario(
    "a token that ends on an open stream is replaced, and the stream resumes",
    "9",
    connect(token_source=True),
    opened(token="t0"),
    say(note(1)),
    gets(1),
    ended(4200),
    {"token_wanted": "t1"},
    opened(hello("c1"), token="t1", cursor="c1"),
    say(note(2)),
    gets(2),
    ended(4200),
    {"token_wanted": "t2"},
    opened(hello("c2"), token="t2", cursor="c2"),
    ALIVE,
    needs=("token_source",),
)
scenario(
    "a client without a token asks for one before it connects",
    "1",
    connect(token=None, token_source=True),
    {"token_wanted": "t1"},
    opened(token="t1"),
    ALIVE,
    needs=("token_source",),
)
scenario(
    "a token that ends is renewed on the open stream",
    "6",
    connect(token=EXPIRING, token_source=True),
    opened(),
    shows(0),
    {"token_wanted": "t1"},
    {"receive": {"type": "auth", "token": "t1"}},
    ALIVE,
    transports=WS,
    needs=("token_source",),
    scale=0.04,
)
scenario(
    "a token that ended while the computer slept is replaced",
    "9",
    connect(token_source=True),
    opened(token="t0"),
    say(note(1)),
    gets(1),
    {"tell": {"cmd": "sleep", "s": 7200}},
    SETTLED,
    DROP,
    attempt(token="t0", cursor="c1"),
    {"refuse": {"status": 401, "code": 4200, "reason": "unauthenticated"}},
    {"token_wanted": "t1"},
    opened(hello("c1"), token="t1", cursor="c1"),
    ALIVE,
    needs=("token_source", "clock"),
)
scenario(
    "a clock that is set ahead or back does no harm",
    "9",
    BEGIN,
    {"tell": {"cmd": "sleep", "s": 7200}},
    SETTLED,
    DROP,
    opened(),
    say(note(1)),
    gets(1),
    {"tell": {"cmd": "sleep", "s": -7200}},
    SETTLED,
    DROP,
    opened(cursor="c1"),
    ALIVE,
    needs=("clock",),
)

# Messages that cannot be read.

scenario(
    "messages and events of unknown types do no harm",
    "6",
    BEGIN,
    say(
        {"type": "glitter", "unread": 9, "cursor": "no"},
        {"type": "Notification", "id": "no"},
        note(1),
    ),
    gets(1),
    shows(1),
    stored("c1"),
    transports=WS,
)
scenario(
    "a notification that cannot be read is not passed over",
    "13",
    BEGIN,
    say(note(1)),
    gets(1),
    say({"type": "notification", "cursor": "c2", "notification": {"id": 7}}),
    opened(hello("c1"), cursor="c1"),
    say(note(2), note(3)),
    gets(2, 3),
)
scenario(
    "a message that is cut short is not passed over",
    "13",
    BEGIN,
    say(note(1)),
    gets(1),
    {"raw": '{"type":"notification","cursor":"c2","notific'},
    opened(hello("c1"), cursor="c1"),
    say(note(2)),
    gets(2),
    transports=WS,
)
scenario(
    "an event that is cut short is not passed over",
    "13",
    BEGIN,
    say(note(1)),
    gets(1),
    {"raw": 'id: c2\ndata: {"id": "0197\n\n'},
    opened(hello("c1"), cursor="c1"),
    say(note(2)),
    gets(2),
    transports=SSE,
)
scenario(
    "it does not hammer a server whose messages it cannot read",
    "13",
    hammered(
        {"accept": True},
        say(hello(), {"type": "notification", "cursor": "c2", "notification": 7}),
        {"gone": True},
    ),
    scale=0.1,
)

# The bytes of a WebSocket.

scenario(
    "a message may come in fragments, with ping frames in between",
    "6",
    BEGIN,
    {"fragments": ['{"type":"unread","un', "", 'read":', "5}"]},
    shows(5),
    ALIVE,
    transports=WS,
)

# The bytes of Server-Sent Events.

for line_end, what in (("\r\n", "CR LF"), ("\r", "CR")):
    scenario(
        f"lines may end with {what}",
        "10",
        BEGIN,
        {"block": {"message": note(1), "line_end": line_end}},
        {"block": {"message": note(2), "line_end": line_end}},
        # A CR at the end of a chunk may be half of a line end.
        {"block": {"message": note(3), "line_end": line_end, "bytes": 1}},
        {"raw": ": a comment\n\n"},
        gets(1, 2, 3),
        transports=SSE,
    )
scenario(
    "characters may be split between chunks",
    "10",
    BEGIN,
    {"block": {"message": note(1, title=TEXT), "bytes": 1}},
    gets(1, title=TEXT),
    {"block": {"message": note(2, title=TEXT), "bytes": 3}},
    gets(2, title=TEXT),
    transports=SSE,
)
scenario(
    "comments, unknown fields and a byte-order mark do no harm",
    "10",
    connect(),
    attempt(),
    {"accept": True},
    {"raw": "\ufeff: welcome\n\n"},
    say(hello()),
    {"raw": ":\n\n: a comment\nglitter: 1\n\nretry\n\n"},
    {"raw": f"id:c1\ndata:{json.dumps(note(1)['notification'])}\n\n"},
    gets(1),
    stored("c1"),
    {"raw": 'event: glitter\ndata: {"unread": 9}\n\n'},
    ALIVE,
    shows(2),
    transports=SSE,
)
scenario(
    "an event without its empty line has not arrived",
    "10",
    BEGIN,
    say(note(1)),
    gets(1),
    {"raw": f"id: c2\ndata: {json.dumps(note(2)['notification'])}\n"},
    DROP,
    opened(hello("c1"), cursor="c1"),
    say(note(2)),
    gets(2),
    transports=("sse",),
)
scenario(
    "a retry field is no permission to hammer",
    "10",
    hammered({"accept": True}, {"raw": "retry: 0\n\n"}, {"end": {"code": 1000}}),
    transports=("sse",),
    scale=0.1,
)

# What a client asks for.

scenario(
    "a mark is carried out and answered",
    "6",
    connect(),
    opened(hello(unread=3)),
    shows(3),
    {"do": {"cmd": "mark", "ids": [id_of(1), id_of(2)]}},
    {"marked": {"what": {"ids": [id_of(1), id_of(2)]}, "unread": 1}},
    {"result": {"ok": True, "unread": 1}},
    needs=("mark",),
)
scenario(
    "marks up to a cursor, and of everything",
    "6",
    BEGIN,
    {"do": {"cmd": "mark", "up_to": "c5"}},
    {"marked": {"what": {"up_to": "c5"}, "unread": 1}},
    {"result": {"ok": True, "unread": 1}},
    {"do": {"cmd": "mark", "all": True}},
    {"marked": {"what": {"all": True}, "unread": 0}},
    {"result": {"ok": True, "unread": 0}},
    needs=("mark",),
)
scenario(
    "the number follows the message read, not the reply",
    "6",
    connect(),
    opened(hello(unread=3)),
    shows(3),
    {"do": {"cmd": "mark", "ids": [id_of(1)]}},
    {"marked": {"what": {"ids": [id_of(1)]}, "unread": 2}},
    {"result": {"ok": True}},
    SETTLED,
    shows(3),
    say({"type": "read", "ids": [id_of(1)], "unread": 2, "marks_version": 2}),
    shows(2),
    needs=("mark",),
)
scenario(
    "a mark whose connection is lost is sent again",
    "6",
    BEGIN,
    {"do": {"cmd": "mark", "ids": [id_of(1)]}},
    {"mark_lost": {"ids": [id_of(1)]}},
    {"marked": {"what": {"ids": [id_of(1)]}, "unread": 0}},
    {"result": {"ok": True}},
    needs=("mark",),
)
scenario(
    "a mark that was made without a connection is kept and sent later",
    "6",
    BEGIN,
    DROP,
    attempt(),
    {"silence": True},
    {"do": {"cmd": "mark", "ids": [id_of(1)]}},
    DROP,
    opened(),
    {"marked": {"what": {"ids": [id_of(1)]}, "unread": 0}},
    {"result": {"ok": True}},
    transports=WS,
    needs=("mark", "queue"),
)
scenario(
    "an acknowledgement is carried out",
    "6",
    BEGIN,
    say(note(1)),
    gets(1),
    {"do": {"cmd": "ack", "cursor": "c1"}},
    {"acked": "c1"},
    {"result": {"ok": True}},
    needs=("ack",),
)
scenario(
    "a topic that was added is asked for by the next connection",
    "6",
    BEGIN,
    {"do": {"cmd": "subscribe", "topics": ["match/1"]}},
    {"replied": {"type": "subscribe", "topics": ["match/1"]}},
    {"result": {"ok": True}},
    say(note(1, None, topic="match/1")),
    gets(1),
    {"numbers_among": [0]},
    DROP,
    opened(topics=["match/1"]),
    {"do": {"cmd": "unsubscribe", "topics": ["match/1"]}},
    {"replied": {"type": "unsubscribe", "topics": ["match/1"]}},
    {"result": {"ok": True}},
    DROP,
    attempt(topics=[""]),
    transports=WS,
    needs=("subscribe",),
)
scenario(
    "a command that is refused is told, and the stream continues",
    "6",
    BEGIN,
    {"do": {"cmd": "subscribe", "topics": ["secret"]}},
    {"refused": {"type": "subscribe", "topics": ["secret"]}},
    {"result": {"ok": False}},
    ALIVE,
    transports=WS,
    needs=("subscribe",),
)
scenario(
    "a client that does not keep up stops reading",
    "9",
    BEGIN,
    {"tell": {"cmd": "pause"}},
    SETTLED,
    {"full": note(1, body="x" * 100_000)},
    needs=("pause",),
    transports=HEADERS,
)

# The network.

scenario(
    "it makes no attempt while the network is away, and one when it is back",
    "9",
    BEGIN,
    {"tell": {"cmd": "offline"}},
    SETTLED,
    DROP,
    {"idle": 2.0},
    {"tell": {"cmd": "online"}},
    opened(cursor="c0"),
    ALIVE,
    needs=("network",),
)

# A client that finds a transport by itself.

AUTO: Final = ("auto",)
for name, failure in (
    (
        "a proxy without WebSockets (426)",
        [{"http": {"status": 426, "headers": {"Upgrade": "websocket"}}}],
    ),
    ("a proxy that drops WebSockets", [DROP]),
    (
        "a proxy that answers WebSockets with a page",
        [{"http": {"status": 200, "body": HTML}}],
    ),
):
    scenario(
        f"{name} leads to another transport",
        "5",
        connect(),
        {"fallback": {"attempts_max": 6, "steps": failure}},
        opened(),
        say(note(1)),
        gets(1),
        DROP,
        transports=AUTO,
        needs=("auto",),
    )
scenario(
    "one lost connection is no reason for another transport",
    "9",
    BEGIN,
    DROP,
    attempt(is_websocket=True),
    transports=AUTO,
    needs=("auto",),
)

# Pages instead of a stream.

PAGE_PATH: Final = "/v1/players/me/notifications"


def page(*numbers: int, **members: Any) -> Step:
    found = [note(number)["notification"] for number in numbers]
    body = {
        "notifications": found,
        "next": f"c{numbers[-1]}" if numbers else None,
        "unread": 0,
        "cursor": f"c{numbers[-1]}" if numbers else "c0",
        **members,
    }
    return {"answer": {"status": 200, "body": body}}


def asked(after: str, **expected: Any) -> Step:
    query = {"order": "oldest", "after": after}
    return {"request": {"method": "GET", "path": PAGE_PATH, "query": query, **expected}}


def held(after: str, **expected: Any) -> Step:
    """Expect a request for a page that permits the server to wait."""
    return asked(after, waits=True, **expected)


POLL: Final = ("poll",)
NOTHING: Final = page(next=None)
WAITING: Final = [connect(cursor="c0"), asked("c0"), NOTHING]
"""A client whose first page was empty: its next request may wait."""

scenario(
    "pages give what a stream would give, each once",
    "4",
    connect(cursor="c0"),
    asked("c0", token="t0"),
    page(1, 2),
    gets(1, 2),
    asked("c2"),
    page(3),
    gets(3),
    stored("c3"),
    asked("c3"),
    page(unread=5, cursor="c3", next="c3"),
    shows(5),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a gap of a page is a gap",
    "4",
    connect(cursor="old"),
    asked("old"),
    page(5, gap="trimmed"),
    expect("gap", reason="trimmed"),
    gets(5),
    asked("c5"),
    transports=POLL,
    scale=0.04,
)
scenario(
    "pages are not requested before Retry-After",
    "4",
    connect(cursor="c0"),
    asked("c0"),
    {"answer": {"status": 503, "headers": {"Retry-After": "5"}}},
    asked("c0", after_s=5.0),
    page(1),
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a page that is refused with 401 leads to one new token",
    "4",
    connect(cursor="c0", token_source=True),
    asked("c0", token="t0"),
    {"answer": {"status": 401}},
    {"token_wanted": "t1"},
    asked("c0", token="t1"),
    page(1),
    gets(1),
    transports=POLL,
    needs=("token_source",),
    scale=0.04,
)
scenario(
    "pages that are refused with 403 end the stream",
    "4",
    connect(cursor="c0"),
    asked("c0"),
    {"answer": {"status": 403}},
    expect("stopped", code=4201),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a poll waits for the first notification and continues after it",
    "4",
    WAITING,
    held("c0"),
    {"wait": 10},
    page(1, 2, next=None, unread=2),
    gets(1, 2),
    stored("c2"),
    shows(2),
    held("c2"),
    page(3, next=None, unread=3),
    gets(3),
    shows(3),
    held("c3"),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a poll continues at the cursor of the page, also of an empty one",
    "4",
    WAITING,
    held("c0"),
    {"wait": 20},
    page(next=None, cursor="c5"),
    stored("c5"),
    held("c5"),
    page(6, next=None, cursor="c7"),
    gets(6),
    stored("c7"),
    held("c7"),
    transports=POLL,
    scale=0.04,
)
scenario(
    "pages repeat nothing that an earlier connection has delivered",
    "7",
    connect(cursor="c0"),
    asked("c0"),
    page(1, next=None),
    gets(1),
    held("c1"),
    {"answer": {"status": 503, "headers": {"Retry-After": "1"}}},
    asked("c1"),
    page(1, 2, next=None),
    gets(2),
    stored("c2"),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a wait that has brought nothing is followed by the next",
    "4",
    WAITING,
    held("c0"),
    {"wait": 20},
    NOTHING,
    held("c0"),
    {"wait": 20},
    NOTHING,
    held("c0"),
    page(1, next=None),
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a number of unread that changes during a wait is told",
    "4",
    connect(cursor="c0"),
    asked("c0"),
    page(next=None, unread=3),
    shows(3),
    held("c0"),
    page(next=None, unread=2),
    shows(2),
    asked("c0"),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a poll that is answered at once, and empty, is not repeated at once",
    "4",
    WAITING,
    asked("c0"),
    NOTHING,
    asked("c0", after_s=2.0),
    NOTHING,
    asked("c0", after_s=2.0),
    page(1, next=None),
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "it does not hammer a server that answers each poll with the same page",
    "4",
    connect(cursor="c0"),
    [
        step
        for _ in range(8)
        for step in (
            {"request": {"method": "GET", "path": "/v1/players/me/notifications"}},
            page(1, next=None, unread=1),
        )
    ],
    {"elapsed": 10},
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "it does not hammer a server whose count changes in each poll",
    "4",
    connect(cursor="c0"),
    [
        step
        for number in range(8)
        for step in (asked("c0"), page(next=None, unread=number))
    ],
    {"elapsed": 10},
    transports=POLL,
    scale=0.04,
)
scenario(
    "a gap ends a wait, and the poll continues behind it",
    "4",
    WAITING,
    held("c0"),
    {"wait": 5},
    page(8, next=None, gap="trimmed", unread=1),
    expect("gap", reason="trimmed"),
    gets(8),
    stored("c8"),
    held("c8"),
    transports=POLL,
    scale=0.04,
)
scenario(
    "401 to a poll that waits: one new token, and the poll continues",
    "4",
    connect(cursor="c0", token_source=True),
    asked("c0", token="t0"),
    NOTHING,
    held("c0", token="t0"),
    {"answer": {"status": 401}},
    {"token_wanted": "t1"},
    asked("c0", token="t1"),
    page(1, next=None),
    gets(1),
    transports=POLL,
    needs=("token_source",),
    scale=0.04,
)
for status, name in ((409, "too many listeners"), (503, "a node that is full")):
    scenario(
        f"{status} to a poll that waits ({name}): it waits for Retry-After",
        "4",
        WAITING,
        held("c0"),
        {"answer": {"status": status, "headers": {"Retry-After": "5"}}},
        asked("c0", after_s=5.0),
        page(1, next=None),
        gets(1),
        transports=POLL,
        scale=0.04,
    )
scenario(
    "a node that drains answers a poll, and the next one continues",
    "4",
    WAITING,
    held("c0"),
    {"wait": 5},
    NOTHING,
    asked("c0"),
    {"answer": {"status": 503, "headers": {"Retry-After": "2"}}},
    asked("c0", after_s=2.0),
    page(1, next=None),
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a proxy that gives up a poll does no harm",
    "4",
    WAITING,
    held("c0"),
    {"wait": 10},
    {"answer": {"status": 504, "body": "<html>too late</html>"}},
    asked("c0"),
    page(1, next=None),
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a poll whose connection is lost continues at its cursor",
    "4",
    WAITING,
    held("c0"),
    {"answer": {"drop": True}},
    asked("c0"),
    page(1, next=None),
    gets(1),
    transports=POLL,
    scale=0.04,
)
scenario(
    "a poll that is never answered is left after a while",
    "4",
    WAITING,
    held("c0"),
    asked("c0", after_s=20.0),
    page(1, next=None),
    gets(1),
    transports=POLL,
    scale=0.04,
)

# HTTP.

PUBLISH: Final = {"method": "POST", "path": "/v1/notifications", "same_key": True}
scenario(
    "a publish has one key over all its attempts",
    "4",
    connect(),
    opened(),
    {"do": {"cmd": "publish", "body": {"to": {"players": ["bob"]}, "title": "x"}}},
    {"request": PUBLISH},
    {"answer": {"status": 503, "headers": {"Retry-After": "2"}}},
    {"request": {**PUBLISH, "after_s": 2.0}},
    {"answer": {"drop": True}},
    {"request": PUBLISH},
    {"answer": {"status": 429}},
    {"request": PUBLISH},
    {
        "answer": {
            "status": 200,
            "body": {"results": [{"to": "bob", "id": id_of(1)}]},
        }
    },
    {"result": {"ok": True}},
    transports=WS,
    needs=("publish",),
    scale=0.04,
)
scenario(
    "a publish that is wrong is not repeated",
    "4",
    connect(),
    opened(),
    {"do": {"cmd": "publish", "body": {"to": {"players": ["bob"]}, "title": "x"}}},
    {"request": PUBLISH},
    {"answer": {"status": 422, "body": {"type": "about:invalid", "title": "invalid"}}},
    {"result": {"ok": False}},
    transports=WS,
    needs=("publish",),
)
scenario(
    "a page is requested again after a 503 and a lost connection",
    "4",
    connect(),
    opened(),
    {"do": {"cmd": "page", "query": {"limit": "5"}}},
    {"request": {"method": "GET", "path": PAGE_PATH, "query": {"limit": "5"}}},
    {"answer": {"status": 503, "headers": {"Retry-After": "1"}}},
    {"request": {"method": "GET", "path": PAGE_PATH, "after_s": 1.0}},
    {"answer": {"drop": True}},
    {"request": {"method": "GET", "path": PAGE_PATH}},
    page(2, 1),
    {"result": {"ok": True, "body": {"cursor": "c1", "unread": 0}}},
    transports=WS,
    needs=("page",),
    scale=0.04,
)


def expiring_token(in_s: float) -> str:
    """Return a token that looks like a JSON Web Token and expires in `in_s`."""
    claims = json.dumps({"exp": time.time() + in_s}).encode()
    middle = base64.urlsafe_b64encode(claims).decode().rstrip("=")
    return f"e30.{middle}.c2ln"
