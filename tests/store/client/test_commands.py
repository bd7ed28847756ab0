"""Encoded commands: every way of encoding one gives the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamer.store.client import commands
from streamer.store.client.commands import (
    KeyedCommand,
    Script,
    commands_in,
    commands_used,
    pack_all,
)


@pytest.mark.parametrize("key", ["k", "", "a longer key", "schlüssel", "k\r\n$3\r\n"])
@pytest.mark.parametrize("args", [(), ("field",), ("one", "two", "drei äpfel")])
def test_a_keyed_command_is_encoded_as_a_whole_one(
    key: str, args: tuple[str, ...]
) -> None:
    command = KeyedCommand("HMGET", *args)

    assert command.on(key) == pack_all([("HMGET", key, *args)])
    assert command.on("another") == pack_all([("HMGET", "another", *args)])


FILES = sorted((Path(commands.__file__).parents[1] / "lua").rglob("*.lua"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_script_names_the_commands_that_it_runs(path: Path) -> None:
    text = path.read_text()
    code = "\n".join(line for line in text.splitlines() if line[:2] != "--")
    # A command is the first argument of a call, or undoes one: { 'XDEL', key, ... }.
    run = re.findall(r"(?:call|ask)\(\s*'([A-Z]+)'|\{ '([A-Z]+)', key", code)

    assert commands_in(text) == {one or other for one, other in run}


def test_the_commands_of_a_script_are_those_of_all_its_files() -> None:
    script = Script("mark", includes=("_announce", "_whole", "_inbox", "_marks"))

    assert {"SPUBLISH", "XDEL", "XRANGE", "HINCRBY", "GETBIT"} <= script.commands
    assert script.commands < commands_used()
    assert "XADD" not in script.commands
    assert "XADD" in commands_used()
