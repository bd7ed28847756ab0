"""
Requests and responses about tokens and tickets, as bytes.

Decides the types and limits of fields. Pure: no I/O, no services.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ...core.access.tokens import TTL_MAX_S
from ...errors import FieldError, Invalid
from ...model import Player, iso_time, parse_player
from ...service.access.minting import MintedToken
from ...service.access.tickets import FIRST_USE_S

__all__ = ["TicketBody", "TokenBody", "encode_ticket", "encode_token"]

TTL_S: Final = 3_600
"""The default lifetime: a leaked token is valid for an hour at most."""

_Text = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,255}\Z")]

_encode: Final = msgspec.json.Encoder().encode


class TokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/tokens``. `permissions` is absent or not empty."""

    player: str
    permissions: Annotated[list[_Text], Meta(min_length=1, max_length=16)] | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=TTL_MAX_S)] = TTL_S
    topics: Annotated[list[_Text], Meta(max_length=16)] = []

    def recipient(self) -> Player:
        """
        Return the player, normalised.

        Raises:
            Invalid: The name is not a player name.

        """
        player = parse_player(self.player)
        if player is None:
            raise Invalid(FieldError(("body", "player"), "is not a player name"))
        return player


class TicketBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/tickets``: an empty object."""


def encode_token(minted: MintedToken) -> bytes:
    expires_at = iso_time(minted.expires_at_s * 1_000)
    return _encode({"token": minted.token, "expires_at": expires_at})


def encode_ticket(ticket: str) -> bytes:
    return _encode({"ticket": ticket, "expires_in_s": FIRST_USE_S})
