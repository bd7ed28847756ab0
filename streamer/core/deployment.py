"""
The deployment whose data a store holds, and which nodes may work on it.

Decides what the record of a deployment says, which nodes it refuses, and which keys are
data of a format without such a record. Knows nothing of how the record is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

__all__ = [
    "FORMAT",
    "LEVEL",
    "LISTED_MARKS",
    "PAUSES",
    "SPELLED_CARDS",
    "Deployment",
    "common_level",
    "format_problem",
    "holds_data",
    "level_problem",
    "name_problem",
    "parse_deployment",
]

FORMAT: Final = 2
"""
Version of the form of everything in a store, which this code reads and writes.

Format 1 was never released. It has no record, and its keys have no namespace.
"""

SPELLED_CARDS: Final = 1
"""From this level on the record of a card may name another spelling of its player."""

LISTED_MARKS: Final = 1
"""From this level on marks of all entries up to an offset are a list in one field."""

PAUSES: Final = 1
"""From this level on schedules may be paused."""

LEVEL: Final = 1
"""
How much of the format this code reads. It reads all lower levels, too.

Nodes of several versions work beside each other during an upgrade, so what an older
version cannot read is not written before every node can: the record has the level up to
which data may go, and it rises when the last node has told that it reads more. What is
new in a level is named by a constant with the number of that level. Versions that know
nothing of levels read level 0.
"""

_FORMAT_1: Final = re.compile(
    rb"\{\d{1,3}\}:(?:log|state|done|reads|ends|collapse|mutes|views|tally|once|revoked|"
    rb"ticket|session|due|sending|schedule|schedules|named|sends|slots|to|campaigns|"
    rb"cards?|message|quota|request)(?::|$)|\{streamer:apps\}:audiences$"
)
"""Keys of format 1 in a bucket, except those that a running node recreates."""
_FORMAT_1_NAMESPACE: Final = "streamer"
"""What the keys of format 1 that are in no bucket begin with."""

_RENEWED: Final = rb"(?!lease:|devices:|rate:|\w+:\.)"
"""
Keys that do not prove that a deployment has data. A running node recreates them after
the store was emptied, and may write them before it has written the record: the keys of
connections, and of the apps ``.probe`` and ``.trial``.
"""


class Deployment(msgspec.Struct, frozen=True):
    """
    The record of a deployment.

    Args:
        format: The `FORMAT` of its data.
        id: Identifies it; random.
        name: Its name for people, given when it began; empty means none.
        version: The version of streamer that began it.
        level: The `LEVEL` up to which its data may go. It only rises.
        raised_by: The version of streamer that raised the level last.

    """

    format: int
    id: str
    name: str = ""
    version: str = ""
    level: int = 0
    raised_by: str = ""

    def __str__(self) -> str:
        name = f"{self.name!r}" if self.name else "without a name"
        return f"the deployment {name} (id {self.id})"


class _Head(msgspec.Struct):
    """What the record of every format has."""

    format: int
    version: str = ""


def parse_deployment(encoded: bytes) -> Deployment:
    """
    Return the record that a store has.

    Of a record of a higher format only the format and the version are known.

    Raises:
        ValueError: It is no such record.

    """
    try:
        head = msgspec.json.decode(encoded, type=_Head)
        if head.format > FORMAT:
            return Deployment(head.format, "", version=head.version)
        record = msgspec.json.decode(encoded, type=Deployment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from error
    if record.format < FORMAT:
        raise ValueError(f"format {record.format} has no record")
    if record.level < 0:
        raise ValueError(f"level {record.level} is negative")
    return record


def format_problem(format_: int, version: str = "") -> str | None:
    """
    Return why data of a format cannot be used, None if it can.

    Args:
        format_: The format.
        version: The version of streamer that began it, if that is known.

    """
    if format_ == FORMAT:
        return None
    if format_ > FORMAT:
        newer = f"streamer {version} or later" if version else "a newer streamer"
        return (
            f"has store format {format_}, and this version reads format {FORMAT}: "
            f"install {newer}"
        )
    return (
        f"has store format {format_}, which no release has written, and this version "
        f"reads format {FORMAT}"
    )


def level_problem(deployment: Deployment) -> str | None:
    """Return why this version must not work on a deployment, None if it may."""
    if deployment.level <= LEVEL:
        return None
    version = deployment.raised_by
    newer = f"streamer {version} or later" if version else "a newer streamer"
    return (
        f"has level {deployment.level} of store format {deployment.format}, and this "
        f"version reads level {LEVEL}: install {newer}"
    )


def common_level(nodes: Iterable[bytes], told: Mapping[bytes, bytes]) -> int:
    """
    Return the level that all nodes can read, at most `LEVEL`; 0 without a node.

    Args:
        nodes: The names of the nodes.
        told: The level that each has told, by its name. Older versions tell none.

    """
    levels = [int(it) if (it := told.get(node, b"")).isdigit() else 0 for node in nodes]
    return min([LEVEL, *levels]) if levels else 0


def name_problem(deployment: Deployment, name: str) -> str | None:
    """
    Return why a node must not work on a deployment, None if it may.

    Args:
        deployment: The deployment.
        name: The name that the settings of the node require; empty means any.

    """
    if not name or name == deployment.name:
        return None
    return (
        f"holds {deployment}, and the setting `deployment` of this node is {name!r}: "
        "correct it, or the URL or namespace of the store"
    )


def holds_data(key: bytes, namespace: str) -> bool:
    """
    Whether a key is data of a namespace, other than its record.

    Keys of format 1 in a bucket had no namespace; they belong to the default one.
    """
    own = rb"%b:\{\d{1,3}\}:%b" % (re.escape(namespace).encode(), _RENEWED)
    if re.match(own, key) is not None:
        return True
    return namespace == _FORMAT_1_NAMESPACE and _FORMAT_1.match(key) is not None
