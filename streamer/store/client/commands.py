"""
Commands as bytes: single commands, and runs of scripts.

Decides how a command is encoded and which part of it can be encoded in advance. Knows
requests in RESP and the scripts in ``lua/``. Knows nothing of connections and replies.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import hiredis

__all__ = [
    "Call",
    "Command",
    "KeyedCommand",
    "Packed",
    "PackedCall",
    "Script",
    "ScriptCall",
    "commands_in",
    "commands_used",
    "pack_all",
    "pack_args",
]

Command = tuple[str | bytes | int, ...]
Packed = bytes  # commands, or a part of one, encoded in RESP

# hiredis types its argument as a tuple of one.
_pack: Final[Callable[[Command], Packed]] = hiredis.pack_command  # type: ignore[assignment]


def pack_args(*args: str | bytes | int) -> Packed:
    """Return arguments encoded in RESP, as a part of a command; see `PackedCall`."""
    return _pack(args).partition(b"\r\n")[2]


def pack_all(commands: Iterable[Command | Packed]) -> Packed:
    """Return commands encoded in RESP. Packed ones are taken as they are."""
    return b"".join([it if isinstance(it, Packed) else _pack(it) for it in commands])


class KeyedCommand:
    """
    A command of which only the key changes. The rest is encoded once.

    Args:
        name: The command.
        args: Arguments after the key.

    """

    def __init__(self, name: str, *args: str) -> None:
        self._head = b"*%d\r\n%b" % (2 + len(args), pack_args(name))
        self._args = pack_args(*args) if args else b""

    def on(self, key: str) -> Packed:
        """Return the command for a key, three times as fast as encoding all of it."""
        raw = key.encode()
        return b"%b$%d\r\n%b\r\n%b" % (self._head, len(raw), raw, self._args)


_FILES: Final = {
    path.stem: path for path in (Path(__file__).parents[1] / "lua").rglob("*.lua")
}


ALLOW_OOM: Final = "#!lua flags=allow-oom\n"
"""First line of a script that a full store runs."""


class Script:
    """
    A Lua script and its digest.

    What a full store does with a script depends on the first line of its file. With
    ``#!lua flags=allow-oom`` the store runs it. With ``#!lua`` it refuses it before it
    begins. Without such a line it refuses the first command that takes memory, unless
    the script has written before.

    Args:
        name: Its file below ``lua/``, without the suffix. No two have the same name.
        includes: Files, named the same way, whose text goes before the script's.
        allow_oom: Whether a full store runs it, whatever the first line says.

    """

    def __init__(
        self, name: str, *, includes: Sequence[str] = (), allow_oom: bool = False
    ) -> None:
        flags, own = "", _FILES[name].read_text()
        if own.startswith("#!"):
            # The store reads it in the first line only.
            flags, _, own = own.partition("\n")
            flags += "\n"
        if allow_oom:
            flags = ALLOW_OOM
        parts = [*(_FILES[part].read_text() for part in includes), own]
        self.name = name
        self.text = flags + "\n".join(parts)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.packed_sha = pack_args("EVALSHA", self.sha)

    @property
    def commands(self) -> frozenset[str]:
        """The commands that it may run, as it and its includes name them."""
        return commands_in(self.text)


def commands_used() -> frozenset[str]:
    """Return all commands that any script runs. A store has to allow each."""
    return frozenset().union(*(commands_in(it.read_text()) for it in _FILES.values()))


def commands_in(text: str) -> frozenset[str]:
    """Return the commands that the comments at the heads of scripts name."""
    named = re.findall(r"^-- Commands  (.*(?:\n--          .*)*)$", text, re.MULTILINE)
    return frozenset(" ".join(named).replace("--", " ").split())


class ScriptCall(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes | int]

    def by_digest(self) -> Command:
        keys, args = self.keys, self.args
        return ("EVALSHA", self.script.sha, len(keys), *keys, *args)

    def by_text(self) -> Command:
        keys, args = self.keys, self.args
        return ("EVAL", self.script.text, len(keys), *keys, *args)


class PackedCall(NamedTuple):
    """
    One run of a script whose keys and arguments are encoded already, by `pack_args`.

    `length` is the number of arguments in `packed`: the number of keys, the keys, and
    the script's arguments.
    """

    script: Script
    length: int
    packed: Packed

    def by_digest(self) -> Packed:
        script, length, packed = self
        return b"*%d\r\n%b%b" % (length + 2, script.packed_sha, packed)

    def by_text(self) -> Packed:
        script, length, packed = self
        text = pack_args("EVAL", script.text)
        return b"*%d\r\n%b%b" % (length + 2, text, packed)


Call = ScriptCall | PackedCall
