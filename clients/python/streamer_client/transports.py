"""
Which transport a stream uses. Values in, values out: no I/O.

A stream begins with WebSocket. A proxy may let no WebSocket through, or hold back a
response that does not end; then the stream goes on to Server-Sent Events and finally to
pages that are requested again and again. What delivers nothing although the server
answers is the fault of a transport; a server that cannot be reached, or that refuses,
is not.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from .backoff import Ending

__all__ = ["Choice", "Transport"]

Transport: TypeAlias = Literal["auto", "websocket", "sse", "poll"]

_ORDER: Final[tuple[Transport, ...]] = ("websocket", "sse", "poll")
_OF_SERVER: Final = frozenset({400, 401, 403, 409, 429, 500, 502, 503, 504})
"""Statuses that another transport would get as well."""
FAILURES_MAX: Final = 2
"""Attempts without ``hello``, in a row, before the next transport."""
FAILURES_AFTER_SUCCESS_MAX: Final = 4
"""The same, for a transport that has worked: the client may have changed networks."""


class Choice:
    """The transport of the next attempt; `wanted` other than ``auto`` never changes."""

    def __init__(self, wanted: Transport) -> None:
        if wanted not in ("auto", *_ORDER):
            raise ValueError(f"{wanted!r} is not a transport")
        self._is_automatic = wanted == "auto"
        self.current: Transport = _ORDER[0] if self._is_automatic else wanted
        self._failure_count = 0
        self._has_worked = False

    def mark_open(self) -> None:
        """Note that there was a ``hello``."""
        self._has_worked = True
        self._failure_count = 0

    def after(self, ending: Ending) -> bool:
        """
        Note how an attempt without ``hello`` ended.

        Return whether the next attempt uses another transport, one that may work where
        this one does not.
        """
        if not self._is_automatic or ending.is_unreachable:
            return False
        is_bye = ending.code is not None and ending.status is None
        if is_bye or ending.status in _OF_SERVER:
            return False  # The server itself has refused.
        self._failure_count += 1
        allowed = FAILURES_AFTER_SUCCESS_MAX if self._has_worked else FAILURES_MAX
        # A proxy that answers instead of the server will do it again.
        if ending.status is None and self._failure_count < allowed:
            return False
        position = _ORDER.index(self.current) + 1
        self.current = _ORDER[position % len(_ORDER)]
        self._failure_count = 0
        self._has_worked = False
        return position < len(_ORDER)
