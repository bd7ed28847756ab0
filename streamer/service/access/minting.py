"""
Tokens for players, minted for a backend.

Decides which tokens a caller may mint. Knows `core.access.tokens` and the apps in the
store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...core.access.rights import Caller
from ...core.access.tokens import TOKEN_BYTES_MAX, mint
from ...errors import FieldError, Forbidden, Invalid
from ...model import Log, Player
from ...store.access.apps import Apps

__all__ = ["MintedToken", "TokenMint"]


class MintedToken(NamedTuple):
    """A token and when it expires, Unix time."""

    token: str
    expires_at_s: int


class TokenMint:
    """Mints tokens with the secrets of `apps` at `clock`, Unix time in seconds."""

    def __init__(self, apps: Apps, *, clock: Callable[[], float] = time.time) -> None:
        self._apps = apps
        self._clock = clock

    async def mint(
        self,
        caller: Caller,
        player: Player,
        *,
        permissions: Sequence[str],
        topics: Sequence[str],
        ttl_s: int,
    ) -> MintedToken:
        """
        Mint a token for a player of the caller's app.

        Raises:
            Forbidden: The caller may not mint tokens, or not with these permissions; or
                another party issues the app's tokens.
            Invalid: A permission is unknown, or the token would be too long.
            Unavailable: The store is unavailable.
        """
        caller.require_scope("tokens:mint")
        caller.require_grant(permissions)
        record = await self._apps.get(caller.app)
        if record is None or record.algorithm != "HS256":
            raise Forbidden("an app whose tokens are signed with its own secret")
        (not_before_s,) = await self._apps.revoked_before_s([Log(caller.app, player)])
        now_s = max(int(self._clock()), record.not_before_s, not_before_s)
        try:
            token = mint(
                record,
                player,
                permissions=permissions,
                topics=topics,
                ttl_s=ttl_s,
                now_s=now_s,
            )
        except ValueError as exc:
            raise Invalid(FieldError(("body", "permissions"), str(exc))) from exc
        if len(token) > TOKEN_BYTES_MAX:
            problem = (
                f"make a token of {len(token)} bytes, at most {TOKEN_BYTES_MAX} allowed"
            )
            raise Invalid(FieldError(("body", "topics"), problem))
        return MintedToken(token, now_s + ttl_s)
