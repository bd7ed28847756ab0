"""
Commands as they are written: one by one, prepared, and runs of scripts.

Decides how a command becomes bytes, and what of one may be written beforehand. Knows
the request half of RESP and the scripts in ``lua/``. Knows no connection, and nothing
of what comes back.
"""

from __future__ import annotations

import hashlib
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
    "Prepared",
    "Script",
    "ScriptCall",
    "pack_all",
    "pack_args",
]

Command = tuple[str | bytes | int, ...]
Packed = bytes  # commands, or a part of one, as they are sent

# hiredis types its argument as a tuple of one.
_pack: Final[Callable[[Command], Packed]] = hiredis.pack_command  # type: ignore[assignment]


def pack_args(*args: str | bytes | int) -> Packed:
    """Return a part of a command as it is sent; see `PackedCall`."""
    return _pack(args).partition(b"\r\n")[2]


def pack_all(commands: Iterable[Command | Packed]) -> Packed:
    """Return commands as they are sent, those that are not yet written too."""
    return b"".join([it if isinstance(it, Packed) else _pack(it) for it in commands])


class KeyedCommand:
    """
    A command that is always the same but for its key; that much is written once.

    Args:
        name: The command.
        args: What follows the key.

    """

    def __init__(self, name: str, *args: str) -> None:
        self._head = b"*%d\r\n%b" % (2 + len(args), pack_args(name))
        self._args = pack_args(*args) if args else b""

    def on(self, key: str) -> Packed:
        """Return it for a key, a third of what writing all of it would take."""
        raw = key.encode()
        return b"%b$%d\r\n%b\r\n%b" % (self._head, len(raw), raw, self._args)


class Script:
    """
    A Lua script by its digest.

    Args:
        name: Its file in ``lua/`` without the ending.
        includes: Files of functions that it uses, in the same way.

    """

    def __init__(self, name: str, *, includes: Sequence[str] = ()) -> None:
        folder = Path(__file__).parents[1] / "lua"
        parts = [*includes, name]
        self.name = name
        self.text = "\n".join((folder / f"{part}.lua").read_text() for part in parts)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.packed_sha = pack_args("EVALSHA", self.sha)


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
    One run of a script, all but written: by `pack_args`, in as many parts as it takes.

    `length` is how many arguments `packed` is: the number of keys, these, and what is
    behind them.
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


class Prepared:
    """Commands that are sent together again and again, and are written once."""

    __slots__ = ("count", "packed")

    def __init__(self, commands: Sequence[Command]) -> None:
        self.count = len(commands)
        self.packed = pack_all(commands)
