"""
The token of a client, when it ends, and getting another.

Knows nothing of HTTP or WebSocket: who was refused says so with `renew`, and who holds
a connection asks with `renewal_in_s` when to come for another.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from .model import Token

__all__ = ["Credential", "TokenSource"]

TokenSource = Callable[[], str | Token | Awaitable[str | Token]]
"""
Gives a token: a coroutine function, or a plain one, which is called in a thread.

What it raises reaches the caller of the client, so it retries by itself where that
makes sense.
"""

RENEWAL_FRACTION: Final = (0.75, 0.9)
"""How much of what is left of a token passes before another is asked for: at random
between the two, so that clients that came together do not ask together."""
RENEWAL_DELAY_MIN_S: Final = 1.0
"""Keeps a source of tokens that live for moments from being asked all the time."""


class Credential:
    """
    A token shared by all requests and streams of a client.

    Args:
        token: The token to begin with; None asks `source` at first use.
        source: Where to get another.
        unix_s: Wall time.

    Raises:
        ValueError: There is neither.
    """

    def __init__(
        self,
        token: str | Token | None,
        source: TokenSource | None,
        *,
        unix_s: Callable[[], float],
    ) -> None:
        if token is None and source is None:
            raise ValueError("a client needs a token or a token_source")
        self._source = source
        self._unix_s = unix_s
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._expires_at_s: float | None = None
        if token is not None:
            self._set_token(token)

    @property
    def can_renew(self) -> bool:
        """Whether there is a source of further tokens."""
        return self._source is not None

    async def token(self) -> str:
        """Return the token to use."""
        return self._token if self._token is not None else await self.renew(None)

    async def renew(self, refused: str | None) -> str:
        """
        Return a token other than `refused`, from the source if need be.

        Several callers refused with the same token cause one call of the source.
        """
        async with self._lock:
            if self._token is None or self._token == refused:
                assert self._source is not None
                self._set_token(await _call_source(self._source))
            assert self._token is not None
            return self._token

    def renewal_in_s(self, fraction: float) -> float | None:
        """
        Return in how many seconds to get another token; `fraction` is in [0, 1).

        None is never: nobody gives another, or it is not known when this one ends, or
        it has ended by this machine's clock and is good all the same.
        """
        if self._source is None or self._expires_at_s is None:
            return None
        left_s = self._expires_at_s - self._unix_s()
        if left_s <= 0:
            return None
        first, last = RENEWAL_FRACTION
        return max(RENEWAL_DELAY_MIN_S, left_s * (first + (last - first) * fraction))

    def _set_token(self, token: str | Token) -> None:
        if isinstance(token, str):
            token = Token(token)
        self._token = token.token
        if token.expires_at is not None:
            self._expires_at_s = token.expires_at.timestamp()
        else:
            self._expires_at_s = _expiry(token.token)


async def _call_source(source: TokenSource) -> str | Token:
    call = getattr(source, "__call__", None)  # noqa: B004 - what is looked for is how
    if inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(call):
        token = source()
    else:
        # It may block, on a request of its own for example, and nothing else may.
        token = await asyncio.to_thread(source)
    if inspect.isawaitable(token):
        return await token
    assert isinstance(token, str | Token)
    return token


class _Claims(msgspec.Struct, frozen=True):
    exp: float


def _expiry(token: str) -> float | None:
    """
    Return when a JSON Web Token ends, None for whatever else it is.

    A hint: nothing but the time of asking for another depends on it.
    """
    parts = token.split(".")
    if len(parts) != 3:
        return None
    claims = parts[1]
    try:
        raw = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
        return msgspec.json.decode(raw, type=_Claims).exp
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        return None
