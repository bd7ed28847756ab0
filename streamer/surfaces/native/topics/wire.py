"""
Topics and mutes as bytes. Pure: no I/O, no services.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ....service.inboxes.topics import JoinedTopic

__all__ = ["encode_mutes", "encode_topics"]

_encode: Final = msgspec.json.Encoder().encode


def encode_topics(topics: Sequence[JoinedTopic]) -> bytes:
    """Return the topics that a player has joined."""
    shown = [{"topic": it.topic, "muted": it.muted} for it in topics]
    return _encode({"topics": shown})


def encode_mutes(types: Sequence[str], topics: Sequence[JoinedTopic]) -> bytes:
    """Return what a player does not want."""
    muted = [it.topic for it in topics if it.muted]
    return _encode({"types": types, "topics": muted})
