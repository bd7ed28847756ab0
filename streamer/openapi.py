"""
The contract of this server: what all surfaces say of themselves, as one document.

Knows which surfaces there are and what is true of every path. `app` serves it, and the
tests hold it against the routes, the tables of errors, and every answer they get.
"""

from __future__ import annotations

from importlib import metadata
from typing import Final

from .contract.document import write
from .contract.pages import PAGES
from .contract.schemas import Schema
from .surfaces.gateway.contract import GATEWAY
from .surfaces.lootlocker.contract import LOOTLOCKER
from .surfaces.native.contract import NATIVE
from .surfaces.operations.contract import OPERATIONS
from .surfaces.rallyhere.contract import RALLYHERE
from .surfaces.teak.contract import TEAK
from .surfaces.walletwerk.contract import WALLETWERK

__all__ = ["SURFACES", "document"]

SURFACES: Final = (
    NATIVE,
    RALLYHERE,
    LOOTLOCKER,
    GATEWAY,
    TEAK,
    WALLETWERK,
    OPERATIONS,
    PAGES,
)
"""In the order of reading."""

ABOUT: Final = """
Notifications for a game's players: published once, kept in an inbox, pushed to every
open connection. The native surface is this server's own; the others are those of
vendors, on the same inboxes.

What is true of every path: what takes `GET` takes `HEAD`; another method is a 405 with
`Allow`, an unknown path a 404. What is no proper HTTP is a 400 before any surface sees
it, and the connection is closed. A fault of ours is a 500. Every answer of a surface
has an `X-Request-Id`, the caller's where it is well-formed.
"""

UNREAD: Final = {
    414: "The path and the query are too long to be read.",
    431: "The headers are too long to be read.",
}


def document() -> Schema:
    """Return the contract as an OpenAPI document."""
    version = metadata.version("streamer-server")
    return write(
        SURFACES, title="streamer", version=version, description=ABOUT, unread=UNREAD
    )
