"""
Announcements that the store refused.

Decides how they are counted and logged. Knows the reply of a script that could not
announce what it has done (``lua/_announce``). Knows nothing of what was announced.

A store that refuses ``SPUBLISH``, for example by an access list without channels, loses
nothing: the entry is stored, and the position check of every node delivers it, as it
does after a lost announcement. It is later, so an operator has to know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from .replies import Reply

__all__ = ["Unannounced", "result_of"]

LOG_EVERY_S: Final = 60.0

_UNANNOUNCED: Final = b"UNANNOUNCED"

_logger = logging.getLogger(__name__)


class Unannounced:
    """
    Counts refused announcements, and logs the store's words at most once a minute.

    Args:
        clock_s: A monotonic clock, in seconds.

    """

    def __init__(self, clock_s: Callable[[], float] = monotonic) -> None:
        self._clock_s = clock_s
        self._silent_until_s = float("-inf")
        self.count = 0
        self.words = ""
        """What the store said of the last one."""

    def note(self, words: bytes) -> None:
        """Count a script whose announcement was refused, with the store's words."""
        self.count += 1
        self.words = words.decode(errors="replace")
        now_s = self._clock_s()
        if now_s < self._silent_until_s:
            return
        self._silent_until_s = now_s + LOG_EVERY_S
        _logger.error(
            "the store refuses to announce (SPUBLISH); streams get what was stored"
            " late, by the position check; allow the channels: %s",
            self.words,
        )


def result_of(reply: Reply, unannounced: Unannounced) -> Reply:
    """Return the result of a script, and note a refusal that its reply contains."""
    if isinstance(reply, list) and len(reply) == 3 and reply[0] == _UNANNOUNCED:
        unannounced.note(reply[1])
        return reply[2]
    return reply
