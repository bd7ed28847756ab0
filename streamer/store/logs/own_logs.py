"""
The states of players' own logs, read without the script while it would do nothing.

Decides which commands tell whether a page that a client has is current, and whether a
log has unread entries. Knows the version that the script ``page`` gives a log, and the
keys of logs. Knows nothing of audiences.

A client that asks again mostly gets the answer that nothing has changed. The version
says so, and its parts are fields of the state and the length of the log. The script
does one thing more: it ends entries whose time has come, and removes those that are too
old. Whether that is due tell the state and the time of the oldest entry, which the node
remembers; then, and whenever a log is not known, the script reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...model import AT_US_MAX, Log, Position
from ..client.commands import KeyedCommand, Packed
from ..client.damage import parsed
from ..keys import Keys
from .entries import Page
from .settings import LogSettings

__all__ = ["OwnLog", "OwnLogs"]

KNOWN_MAX: Final = 10_000
"""Logs that are remembered, a few hundred bytes each; at more, all are forgotten."""

_STATE: Final = KeyedCommand(
    *("HMGET", "epoch", "at_us", "head", "tag", "marks", "ended", "ends_at")
)
_LENGTH: Final = KeyedCommand("XLEN")
_OLDEST: Final = KeyedCommand("XRANGE", "-", "+", "COUNT", "1")


class OwnLog(NamedTuple):
    """
    The state of a player's own log: version, head, and number of unread entries.

    The number is None if it is not known for this version.
    """

    version: str
    head: Position
    unread: int | None


class _Known(NamedTuple):
    """
    What is known of a log.

    As long as `epoch` is the same, no entry is older than `oldest_us`. In `version` the
    log has `unread` unread entries, if that is known.
    """

    epoch: int
    oldest_us: int
    version: str
    unread: int | None


class _State(NamedTuple):
    head: Position
    version: str
    ends_at_us: int


class OwnLogs:
    """
    What a node knows of players' own logs.

    Args:
        keys: The keys of the store.
        settings: The settings of all logs.

    """

    def __init__(self, keys: Keys, settings: LogSettings) -> None:
        self._keys = keys
        self._settings = settings
        self._known: dict[Log, _Known] = {}

    def commands(self, log: Log, version: str, *, only_unread: bool) -> list[Packed]:
        """
        Return the commands whose replies `parse` parses; none if it takes the script.

        They are for a caller that has `version`, if it is not empty, or who reads
        nothing of a log without unread entries.
        """
        known = self._known.get(log)
        if known is None or not (version or (only_unread and known.unread == 0)):
            return []
        keys = self._keys.inbox(log)
        return [_STATE.on(keys.state), _LENGTH.on(keys.log)]

    def parse(self, log: Log, replies: Sequence[Any], now_us: int) -> OwnLog | None:
        """Return the state of a log, or None if the script has to read it."""
        known, state = self._known.get(log), _state_in(replies)
        if known is None or state is None:
            return None
        if state.head.epoch != known.epoch or 0 < state.ends_at_us <= now_us:
            return None
        if known.oldest_us < now_us - self._settings.retention_ms * 1_000:
            self._known.pop(log, None)
            return None
        unread = known.unread if state.version == known.version else None
        return OwnLog(state.version, state.head, unread)

    def learning(self, log: Log) -> list[Packed]:
        """Return the commands beside a script whose replies `learn` takes."""
        keys = self._keys.inbox(log)
        commands = [_STATE.on(keys.state), _LENGTH.on(keys.log)]
        if log not in self._known:
            # It returns a whole entry, which may be a large one.
            commands.append(_OLDEST.on(keys.log))
        return commands

    def learn(self, log: Log, page: Page, replies: Sequence[Any]) -> None:
        """Remember a log, by what the script has returned and the commands after it."""
        before, state = self._known.pop(log, None), _state_in(replies)
        if state is None or state.version != page.version:
            return  # It has no entry, or has changed in between.
        if len(replies) > 2:
            oldest_us = parsed(_time_of, replies[2])
        elif before is not None and before.epoch == state.head.epoch:
            oldest_us = before.oldest_us
        else:
            return
        if not isinstance(oldest_us, int):
            return
        unread = None
        if page.entries is not None:
            unread = page.unread
        elif before is not None and before.version == state.version:
            unread = before.unread
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        epoch = state.head.epoch
        self._known[log] = _Known(epoch, oldest_us, state.version, unread)


def _state_in(replies: Sequence[Any]) -> _State | None:
    """Return the state in replies; None if there is none, or it cannot be read."""
    if any(isinstance(reply, Exception) for reply in replies):
        return None
    state = parsed(_parse, *replies[:2])
    return state if isinstance(state, _State) else None


def _parse(fields: list[bytes | None], length: int) -> _State | None:
    if fields[0] is None:
        return None
    epoch, at_us, head, tag, marks, ended, ends_at = [int(it or 0) for it in fields]
    # Offsets have no holes.
    floor = head - length + 1
    version = f"{epoch}.{head}.{tag}.{floor}.{marks}.{ended}"
    return _State(Position(epoch, at_us, head, tag), version, ends_at * 1_000)


def _time_of(oldest: list[Any]) -> int:
    """Return the time of the oldest entry, the end of all times if there is none."""
    return int(oldest[0][0].partition(b"-")[0]) if oldest else AT_US_MAX
