"""
Whether and when to reconnect. Values in, values out: no clock, no sleep, no I/O.

Decides by the range of a close code, so a server may have codes that this client does
not know::

    4000-4099  reconnect with back-off; so do all others, such as 1001 and 1006
    4100-4199  reconnect after the server's delay, plus jitter
    4200-4299  do not reconnect; 4200 may be tried once more with another token

A refused handshake is treated as the close code with the same meaning.

All this is for a stream that has been connected. One that never was has as many
attempts as a request.

Back-off has full jitter: the wait is random, between 0 and a limit that doubles. So
clients that lost their connections together do not reconnect together.
"""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple

from .errors import Error, Refused, TokenExpired, Unavailable

__all__ = [
    "ATTEMPTS_MAX",
    "ATTEMPTS_S",
    "SYSTEM_CLOCK",
    "Clock",
    "Ending",
    "NewToken",
    "Reconnect",
    "Stop",
    "Wait",
    "ending_of_status",
    "full_jitter_s",
    "parse_retry_after",
]

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 20.0
STABLE_S: Final = 10.0
"""A connection that lasted so long, or delivered something new, resets the back-off."""
ATTEMPTS_MAX: Final = 6
"""Attempts of a request, and of the first connection of a stream."""
ATTEMPTS_S: Final = 60.0
"""None of these attempts begins later than this after the first one."""
DELAY_MAX_S: Final = 300.0
"""A longer delay is regarded as a mistake: the client would look dead."""

TOKEN_INVALID: Final = 4200
FORBIDDEN: Final = 4201
PROTOCOL: Final = 4203
TOO_MANY_LISTENERS: Final = 4101
NODE_FULL: Final = 4102

_TRANSIENT: Final = frozenset({408, 425, 429})
"""The 4xx statuses that mean "later"."""
_FINAL: Final = frozenset({400, 401, 403, 426})
"""Statuses that a server has for a stream, and that stay the same."""


class Clock(NamedTuple):
    """Time and randomness, as arguments, so that tests control both."""

    now_s: Callable[[], float]
    """Monotonic seconds."""
    sleep: Callable[[float], Awaitable[None]]
    random: Callable[[], float]
    """Uniform in [0, 1)."""
    unix_s: Callable[[], float] = time.time
    """Unix time, in seconds."""
    timeout: Callable[[float], AbstractAsyncContextManager[object]] = asyncio.timeout
    """Raises `TimeoutError` in its block after so many seconds."""


# Jitter separates clients; it need not be unpredictable.
SYSTEM_CLOCK: Final = Clock(time.monotonic, asyncio.sleep, random.random)


class Ending(NamedTuple):
    """
    How a connection ended, or why there was none.

    `code` is a WebSocket close code, or None without one. `delay_s` is the delay that
    the server asks for, or None without one. `status` and `detail` are those of the
    response to a handshake. `is_unreachable` means that nobody answers at the address.
    """

    code: int | None
    reason: str
    delay_s: float | None = None
    status: int | None = None
    detail: str = ""
    is_unreachable: bool = False


class Wait(NamedTuple):
    """Reconnect after `delay_s` seconds."""

    delay_s: float


class NewToken(NamedTuple):
    """Get another token and reconnect at once."""


class Stop(NamedTuple):
    """Do not reconnect."""

    error: Error


class Reconnect:
    """
    The decisions of one stream, over all its connections.

    Args:
        has_token_source: Whether the client can get another token.
        random: Uniform in [0, 1).
        url: The address of the stream, for the errors.
    """

    def __init__(
        self, *, has_token_source: bool, random: Callable[[], float], url: str = ""
    ) -> None:
        self._has_token_source = has_token_source
        self._random = random
        self._url = url
        self._was_open = False
        self._first_ended_at_s: float | None = None
        self._attempt = 0
        self._renewed = False
        self._opened_at_s: float | None = None

    def mark_open(self, now_s: float) -> None:
        """Note that a connection is open and has received ``hello``."""
        self._opened_at_s = now_s
        self._was_open = True

    def mark_proved(self) -> None:
        """Note that the connection works: it has delivered something new."""
        self._attempt = 0
        self._renewed = False

    def after(self, ending: Ending, now_s: float) -> Wait | NewToken | Stop:
        """Decide what to do after `ending`. Call once per connection or attempt."""
        opened_at_s, self._opened_at_s = self._opened_at_s, None
        if opened_at_s is not None and now_s - opened_at_s >= STABLE_S:
            self.mark_proved()
        code = ending.code or 0
        if code == TOKEN_INVALID:
            return self._token_refused(ending)
        self._renewed = False
        if self._was_open and ending.status not in (None, *_FINAL):
            # The server has accepted the same request before. This is another one's
            # answer: of a network that wants a login, of a proxy during a restart.
            code = 0 if 4200 <= code <= 4299 else code
        if 4200 <= code <= 4299:
            return Stop(self._refusal(Refused, code, ending))
        delay_s = full_jitter_s(self._attempt, self._random())
        self._attempt += 1
        if 4100 <= code <= 4199 and ending.delay_s is not None:
            delay_s += min(max(ending.delay_s, 0.0), DELAY_MAX_S)
        if self._was_open or self._may_begin_at(now_s, delay_s):
            return Wait(delay_s)
        return Stop(
            Unavailable(
                ending.reason,
                attempt_count=self._attempt,
                status=ending.status,
                detail=ending.detail,
                url=self._url,
            )
        )

    def _may_begin_at(self, now_s: float, delay_s: float) -> bool:
        """Return whether a first connection has another attempt after `delay_s`."""
        if self._first_ended_at_s is None:
            self._first_ended_at_s = now_s
        return (
            self._attempt < ATTEMPTS_MAX
            and now_s + delay_s <= self._first_ended_at_s + ATTEMPTS_S
        )

    def _token_refused(self, ending: Ending) -> NewToken | Stop:
        # Once in a row: a source whose new token is refused as well would be called
        # in an endless loop without a wait.
        if self._renewed or not self._has_token_source:
            return Stop(self._refusal(TokenExpired, TOKEN_INVALID, ending))
        self._renewed = True
        return NewToken()

    def _refusal(self, kind: type[Refused], code: int, ending: Ending) -> Refused:
        return kind(
            code,
            ending.reason,
            status=ending.status,
            detail=ending.detail,
            url=self._url,
        )


def full_jitter_s(attempt: int, fraction: float) -> float:
    """Return the wait before retry `attempt`, from 0; `fraction` is in [0, 1)."""
    # The exponent is bounded because 2.0**1024 overflows on a very long outage.
    return fraction * min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 16))


def ending_of_status(
    status: int, reason: str, retry_after_s: float | None, detail: str = ""
) -> Ending:
    """Return the ending that a handshake refused with HTTP `status` is."""
    if status == 401:
        code = TOKEN_INVALID
    elif status == 403:
        code = FORBIDDEN
    elif status == 409:
        code = TOO_MANY_LISTENERS
    elif status >= 500 or status in _TRANSIENT:
        code = NODE_FULL
    else:
        # A wrong cursor, path or method stays wrong.
        code = PROTOCOL
    return Ending(code, reason, retry_after_s, status, detail)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """
    Return how many seconds a ``Retry-After`` asks for, None if it cannot be read.

    Reads both forms of RFC 9110 section 10.2.3. `now_s` is Unix time. The result is at
    most `DELAY_MAX_S`.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        # More digits are a mistake, and int() refuses thousands of them.
        return min(float(value[:9]), DELAY_MAX_S)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return min(max(date.timestamp() - now_s, 0.0), DELAY_MAX_S)
