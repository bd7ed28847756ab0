"""
Damage: keys of the store that do not hold what this server has written.

Decides how damage is counted and logged, and how what has failed is left alone for a
while. Knows parts of the process and keys by their names only.

A key may have another type or another content than the scripts wrote: somebody has
edited it, or has restored a part of a backup. Whatever works through many keys has to
pass over a damaged one, and go on. The damage is logged, counted, and tried again
later, since an operator may repair it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from time import monotonic
from typing import Any, Final, TypeVar

from redis.exceptions import ResponseError

from ...errors import Unavailable
from .replies import Reply

__all__ = ["Aside", "Damage", "StoreDamaged", "of_parts", "own", "parsed"]

LOG_EVERY_S: Final = 60.0

ASIDE_S: Final = 60.0
"""How long what has failed is left alone."""

ASIDE_MAX: Final = 10_000

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class StoreDamaged(ResponseError):
    """A key does not hold what this server has written. Nothing was done."""


def own(reply: Reply) -> Reply:
    """
    Return a reply, or the failure of its command alone, as an item.

    Raises:
        Unavailable: The failure concerns the whole store.

    """
    if isinstance(reply, Unavailable):
        raise reply
    return reply


def of_parts(replies: Sequence[Reply]) -> Sequence[Reply]:
    """
    Return replies about several parts of the store, of which some may be away.

    What is away is an item of `Unavailable`.

    Raises:
        Unavailable: All of them are.

    """
    if replies and all(isinstance(reply, Unavailable) for reply in replies):
        raise replies[0]
    return replies


def parsed(parse: Callable[..., T], *args: Any) -> T | StoreDamaged:
    """Return what `parse` returns for replies; StoreDamaged if they make no sense."""
    try:
        return parse(*args)
    except Exception as error:  # Whatever bytes that no script has written lead to.
        return StoreDamaged(f"unreadable: {type(error).__name__}: {error}")


class Damage:
    """
    Counts damaged keys, and logs one of each part at most once a minute.

    Args:
        clock_s: A monotonic clock, in seconds.

    """

    def __init__(self, clock_s: Callable[[], float] = monotonic) -> None:
        self._clock_s = clock_s
        self._silent_until_s: dict[str, float] = {}
        self._unlogged: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        """How often each part has met a damaged key."""

    def note(self, part: str, where: str, problem: object) -> None:
        """Note that a part passes over what is damaged at `where`, mostly a key."""
        self.counts[part] += 1
        now_s = self._clock_s()
        if now_s < self._silent_until_s.get(part, now_s):
            self._unlogged[part] += 1
            return
        self._silent_until_s[part] = now_s + LOG_EVERY_S
        others = self._unlogged.pop(part, 0)
        more = f" ({others} more since the last line)" if others else ""
        _logger.error("%s: damaged in the store: %s: %s%s", part, where, problem, more)


class Aside:
    """
    Things that have failed, which are left alone for `ASIDE_S`.

    At most `ASIDE_MAX`. Beyond, what has been left alone longest is tried again.

    Args:
        clock_s: A monotonic clock, in seconds.

    """

    def __init__(self, clock_s: Callable[[], float] = monotonic) -> None:
        self._clock_s = clock_s
        self._until_s: dict[Hashable, float] = {}

    def add(self, *things: Hashable) -> None:
        """Leave things alone from now on."""
        for thing in things:
            self._until_s.pop(thing, None)
            self._until_s[thing] = self._clock_s() + ASIDE_S
        while len(self._until_s) > ASIDE_MAX:
            del self._until_s[next(iter(self._until_s))]

    def __contains__(self, thing: Hashable) -> bool:
        return bool(self._until_s) and thing in self.current()

    def current(self) -> dict[Hashable, float]:
        """Return what is left alone now. O(things that are no longer)."""
        now_s = self._clock_s()
        while self._until_s:
            first = next(iter(self._until_s))
            if self._until_s[first] > now_s:
                break
            del self._until_s[first]
        return self._until_s
