"""Encoded commands: every way of encoding one gives the same bytes."""

from __future__ import annotations

import pytest

from streamer.store.client.commands import KeyedCommand, pack_all


@pytest.mark.parametrize("key", ["k", "", "a longer key", "schlüssel", "k\r\n$3\r\n"])
@pytest.mark.parametrize("args", [(), ("field",), ("one", "two", "drei äpfel")])
def test_a_keyed_command_is_encoded_as_a_whole_one(
    key: str, args: tuple[str, ...]
) -> None:
    command = KeyedCommand("HMGET", *args)

    assert command.on(key) == pack_all([("HMGET", key, *args)])
    assert command.on("another") == pack_all([("HMGET", "another", *args)])
