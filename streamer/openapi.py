"""
The contract of this server: the declarations of all surfaces as one OpenAPI document.

Knows which surfaces exist and what applies to every path. `app` serves the document.
Tests check it against the routes, the tables of errors, and every response they get.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import metadata
from typing import Final

from .config import VENDORS
from .contract.client_files import CLIENT
from .contract.document import write
from .contract.operation import Surface
from .contract.pages import PAGES
from .contract.schemas import Schema
from .surfaces.gateway.contract import GATEWAY
from .surfaces.lootlocker.contract import LOOTLOCKER
from .surfaces.native.console.contract import CONSOLE
from .surfaces.native.contract import NATIVE
from .surfaces.native.demo.contract import DEMO
from .surfaces.operations.contract import OPERATIONS
from .surfaces.rallyhere.contract import RALLYHERE
from .surfaces.teak.contract import TEAK
from .surfaces.walletwerk.contract import WALLETWERK

__all__ = ["SURFACES", "UNPUBLISHED", "document", "surfaces_of"]

SURFACES: Final = (
    NATIVE,
    RALLYHERE,
    LOOTLOCKER,
    GATEWAY,
    TEAK,
    WALLETWERK,
    OPERATIONS,
    PAGES,
    CLIENT,
    DEMO,
)
"""In the order of the document."""

UNPUBLISHED: Final = (CONSOLE,)
"""Not in the document: their operations belong to a page of this server."""

ABOUT: Final = """
Notifications for players of games: published once, kept in an inbox, and pushed to
every open connection. The native API is this server's own. The others are the APIs of
vendors, on the same inboxes.

Every path that supports `GET` supports `HEAD`. An unsupported method returns 405 with
`Allow`, an unknown path 404, an internal error 500. A request that is not valid HTTP
returns 400, and the connection is closed. Every other response has an `X-Request-Id`
header: the one of the request if it is well-formed, otherwise a new one.
"""

UNROUTED: Final = {
    414: "The URL is too long.",
    431: "The headers are too long.",
}


def surfaces_of(vendors: Collection[str]) -> tuple[Surface, ...]:
    """Return the surfaces of a server on which these vendors' paths answer."""
    others = set(VENDORS) - set(vendors)
    return tuple(surface for surface in SURFACES if surface.name not in others)


def document(vendors: Collection[str] = VENDORS) -> Schema:
    """Return the contract as an OpenAPI document, with these vendors' paths."""
    version = metadata.version("streamer-server")
    return write(
        surfaces_of(vendors),
        title="streamer",
        version=version,
        description=ABOUT,
        unrouted=UNROUTED,
    )
