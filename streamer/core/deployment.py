"""
The deployment whose data a store holds, and which nodes may work on it.

Decides what the record of a deployment says, which nodes it refuses, and which keys are
data of a format without such a record. Knows nothing of how the record is stored.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

__all__ = [
    "FORMAT",
    "Deployment",
    "format_problem",
    "holds_data",
    "name_problem",
    "parse_deployment",
]

FORMAT: Final = 2
"""
Version of the form of everything in a store, which this code reads and writes.

Format 1 was never released. It has no record, and its keys have no namespace.
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

    """

    format: int
    id: str
    name: str = ""
    version: str = ""

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
