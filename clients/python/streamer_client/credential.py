"""
The token of a client: when it expires, and how to get another one.

Knows nothing of HTTP or WebSocket. A request that was refused calls `renew`; an open
connection asks `renewal_in_s` when to renew.
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
Returns a token: a coroutine function, or a plain one, which is called in a thread.

The caller of the client gets the exceptions that it raises, so it should retry what is
worth a retry.
"""

RENEWAL_FRACTION: Final = (0.75, 0.9)
"""
Part of the token's remaining life after which it is renewed. It is random between the
two, so that clients that connected together do not renew together.
"""
RENEWAL_DELAY_MIN_S: Final = 1.0
"""Keeps a source of very short-lived tokens from being called without a pause."""


class Credential:
    """
    A token shared by all requests and streams of a client.

    Args:
        token: The first token; None calls `source` at the first use.
        source: Returns another token.
        unix_s: Unix time, in seconds.

    Raises:
        ValueError: Neither `token` nor `source` is given.
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
        """Return the current token."""
        return self._token if self._token is not None else await self.renew(None)

    async def renew(self, refused: str | None) -> str:
        """
        Return a token other than `refused`, from the source if necessary.

        Several callers whose same token was refused cause one call of the source.
        """
        async with self._lock:
            if self._token is None or self._token == refused:
                assert self._source is not None
                self._set_token(await _call_source(self._source))
            assert self._token is not None
            return self._token

    def renewal_in_s(self, fraction: float) -> float | None:
        """
        Return in how many seconds to renew the token; `fraction` is in [0, 1).

        Return None for never: there is no source, the expiry is unknown, or the token
        has expired by this machine's clock although the server accepts it.
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
    call = getattr(source, "__call__", None)  # noqa: B004 - the method itself is needed
    if inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(call):
        token = source()
    else:
        # It may block, for example on an HTTP request.
        token = await asyncio.to_thread(source)
    if inspect.isawaitable(token):
        return await token
    assert isinstance(token, str | Token)
    return token


class _Claims(msgspec.Struct, frozen=True):
    exp: float


def _expiry(token: str) -> float | None:
    """
    Return when a JSON Web Token expires, in Unix seconds; None for other tokens.

    This is a hint, which decides only when the token is renewed.
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
