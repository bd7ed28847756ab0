"""Events of a stream: audiences, withdrawals and replacements, counts and marks."""

from __future__ import annotations

from typing import Any

import pytest

from streamer_client import Client, Gap, Notification, Read, Unread

from .scripted import (
    ScriptedServer,
    audience_note,
    gap,
    hello,
    note,
    says,
    take,
)


def greeting(unread: int, marks_version: int = 1, cursor: str = "c0") -> dict[str, Any]:
    return {**hello(cursor), "unread": unread, "marks_version": marks_version}


def moved(cursor: str) -> dict[str, Any]:
    return {"type": "cursor", "cursor": cursor}


def replaced(id: str, by: str) -> dict[str, Any]:
    return {"type": "replaced", "id": id, "by": by}


async def test_audience_messages_come_once_across_reconnects(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(hello("c0"), audience_note(1), audience_note(2)),
        says(hello("c0"), audience_note(1), audience_note(2), audience_note(3)),
        says(hello("c0"), audience_note(2), audience_note(3), note(4), stay=True),
    ]
    stream = client.notifications()

    assert await take(stream, 4) == ["n1", "n2", "n3", "n4"]
    assert server.cursors == [None, "c0", "c0"]
    assert stream.cursor == "c4"


async def test_a_stream_resumes_from_the_last_cursor_message(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(hello("c0"), audience_note(1), moved("c1"), audience_note(2)),
        says(hello("c1"), audience_note(2), moved("c2"), stay=True),
    ]
    stream = client.notifications()
    cursors = []
    for _ in range(4):
        await anext(stream)
        cursors.append(stream.cursor)

    assert cursors == ["c0", "c1", "c1", "c2"]
    assert server.cursors == [None, "c1"]


async def test_a_notification_has_its_cursor_or_none(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(hello("c0"), note(1), audience_note(2, topic="news"), stay=True)
    ]
    stream = client.notifications()

    own, audience = await anext(stream), await anext(stream)

    assert isinstance(own, Notification)
    assert isinstance(audience, Notification)
    assert (own.cursor, audience.cursor) == ("c1", None)
    assert (own.topic, audience.topic) == (None, "news")


async def test_withdrawals_and_replacements_are_events(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [
        says(
            hello("c0"),
            note(1),
            {"type": "withdrawn", "cursor": "c2", "id": "n1"},
            {"type": "withdrawn", "id": "n9"},
            replaced("n8", "n3"),
            note(3),
            stay=True,
        )
    ]
    stream = client.notifications()

    assert await take(stream, 3) == ["n1", "-n1", "-n9"]
    assert stream.cursor == "c2"
    assert await take(stream, 2) == ["n8>n3", "n3"]


async def test_a_repeated_replacement_is_dropped_with_its_event(
    server: ScriptedServer, client: Client
) -> None:
    again = [replaced("n1", "n2"), audience_note(2)]
    server.script = [
        says(hello("c0"), audience_note(1), *again),
        says(hello("c0"), *again, note(3), stay=True),
    ]

    assert await take(client.notifications(), 4) == ["n1", "n1>n2", "n2", "n3"]


@pytest.mark.parametrize("audience", [{"topic": "news"}, {"everyone": True}])
async def test_a_gap_names_its_audience(
    server: ScriptedServer, client: Client, audience: dict[str, Any]
) -> None:
    server.script = [says(hello("c0"), gap("trimmed", "c9") | audience, stay=True)]
    stream = client.notifications()

    assert await anext(stream) == Gap("trimmed", "c9", **audience)
    assert stream.cursor == "c9"


async def test_the_unread_count_continues_from_the_last_number(
    server: ScriptedServer, client: Client
) -> None:
    not_kept = audience_note(6, topic="joined")
    not_kept["notification"]["id"] = "934048fd-73f3-4ce2-8fa7-981408765b6b"
    server.script = [
        says(
            greeting(3),
            note(1),
            audience_note(2),
            audience_note(3, topic="joined"),
            audience_note(4, topic="asked"),
            audience_note(5, unheard_of=True),
            not_kept,
            {"type": "unread", "unread": 2},
            note(7),
            {"type": "read", "all": True, "unread": 0, "marks_version": 2},
            note(8),
            stay=True,
        )
    ]
    stream = client.notifications(topics=["asked"])
    counts = []
    for _ in range(11):
        await anext(stream)
        counts.append(stream.unread)

    assert counts == [3, 4, 5, 6, 6, 6, 6, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"ids": ["n1"]}, Read(unread=1, marks_version=2, ids=("n1",))),
        ({"ids": None}, Read(unread=1, marks_version=2)),
        ({"up_to": "c1"}, Read(unread=1, marks_version=2, up_to="c1")),
        ({"all": True}, Read(unread=1, marks_version=2, all=True)),
        (
            {"read": False, "ids": ["n1"]},
            Read(unread=1, marks_version=2, ids=("n1",), read=False),
        ),
    ],
)
async def test_a_read_event_says_what_was_marked(
    server: ScriptedServer, client: Client, message: dict[str, Any], event: Read
) -> None:
    mark = {"type": "read", "unread": 1, "marks_version": 2}
    server.script = [says(hello("c0"), mark | message, stay=True)]

    assert await anext(client.notifications()) == event


async def test_marks_made_while_disconnected_are_an_event_without_ids(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(greeting(3, 17)), says(greeting(1, 18), stay=True)]
    stream = client.notifications()

    assert await anext(stream) == Unread(3)
    assert await anext(stream) == Read(unread=1, marks_version=18)


async def test_a_hello_without_changes_is_no_event(
    server: ScriptedServer, client: Client
) -> None:
    server.script = [says(greeting(3)), says(greeting(3), note(1), stay=True)]

    assert await take(client.notifications(), 2) == ["unread:3", "n1"]
