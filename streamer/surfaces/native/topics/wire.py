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
    """Return a response with the topics that a player is subscribed to."""
    items = [{"topic": it.topic, "muted": it.muted} for it in topics]
    return _encode({"topics": items})


def encode_mutes(types: Sequence[str], topics: Sequence[JoinedTopic]) -> bytes:
    """Return a response with the types and topics that a player has muted."""
    muted = [it.topic for it in topics if it.muted]
    return _encode({"types": types, "topics": muted})
