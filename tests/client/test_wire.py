"""How the client reads the text of a message."""

from __future__ import annotations

import pytest

from streamer_client.seen import SeenIds
from streamer_client.wire import (
    Bye,
    Hello,
    NotificationMessage,
    Unreadable,
    decode,
)


def test_fields_of_a_newer_server_are_ignored() -> None:
    message = decode('{"type":"hello","cursor":"c","heartbeat_s":9,"colour":"red"}')

    assert message == Hello("c", 9)


def test_types_of_a_newer_server_are_ignored() -> None:
    assert decode('{"type":"weather","cursor":1}') is None


def test_a_priority_of_a_newer_server_is_passed_on() -> None:
    message = decode(
        '{"type":"notification","cursor":"c","notification":{"id":"n",'
        '"created_at":"2026-11-20T22:52:39.123Z","priority":"cosmic","data":null}}'
    )

    assert isinstance(message, NotificationMessage)
    assert message.notification.priority == "cosmic"
    assert message.notification.data is None


def test_a_bye_needs_no_delay() -> None:
    assert decode('{"type":"bye","code":4000,"reason":"slow"}') == Bye(4000, "slow")


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"ping"}',
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"type":7}',
        '{"type":"hello"}',
        '{"type":"bye","code":"4000"}',
        '{"type":"notification","cursor":"c"}',
        '{"type":"notification","cursor":"c","notification":{"id":"n"}}',
        '{"type":"notification","cursor":"c","notification":{"id":"n",'
        '"created_at":"yesterday"}}',
        '{"type":"gap","reason":"epoch"}',
        '{"type":"ping"} trailing',
        '{"type":"\\ud800"',
        "[" * 100_000,
        '{"type":"x","data":' + "[" * 100_000,
    ],
)
def test_what_might_hide_a_notification_is_unreadable(data: str | bytes) -> None:
    with pytest.raises(Unreadable):
        decode(data)


def test_a_repeat_is_detected_only_across_connections() -> None:
    seen = SeenIds()

    assert not seen.is_repeat("a")
    assert not seen.is_repeat("a")
    seen.begin_connection()
    assert seen.is_repeat("a")
    assert seen.is_repeat("a")
    assert not seen.is_repeat("b")


def test_the_memory_of_ids_is_bounded_and_forgets_the_oldest() -> None:
    seen = SeenIds(ids_max=2)
    for id in "abc":
        seen.is_repeat(id)
    seen.begin_connection()

    assert seen.is_repeat("b")
    assert seen.is_repeat("c")
    assert not seen.is_repeat("a")
