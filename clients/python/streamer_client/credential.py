"""
The token of a client, and getting another when it is refused.

Knows nothing of HTTP or WebSocket: who was refused says so with `renew`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["Credential", "TokenSource"]

TokenSource = Callable[[], Awaitable[str]]


class Credential:
    """
    A token shared by all requests and streams of a client.

    Args:
        token: The token to begin with; None asks `source` at first use.
        source: Where to get another. What it raises reaches the caller of the
            client, so it retries by itself where that makes sense.

    Raises:
        ValueError: There is neither.
    """

    def __init__(self, token: str | None, source: TokenSource | None) -> None:
        if token is None and source is None:
            raise ValueError("a client needs a token or a token_source")
        self._token = token
        self._source = source
        self._lock = asyncio.Lock()

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
                self._token = await self._source()
            return self._token
