"""
What the routes of the native surface have in common.

Decides how a request says who calls, whom it is about and what it has, and that what is
wrong is answered as a problem document. Knows Starlette. Knows no service.
"""

from __future__ import annotations

from typing import Final, TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request

from ....contract.binding import Endpoints
from ....core.access.rights import Caller
from ....core.streams.cursor import Cursor
from ....model import Player
from ....service.inboxes.inbox import parse_cursor
from ....transports.web.callers import Callers
from ....transports.web.requests import int_in, read_body
from . import names, problems
from .body_types import BodyType

__all__ = [
    "BODY_BYTES_MAX",
    "PAGE_LIMIT",
    "PAGE_LIMIT_MAX",
    "body_of",
    "cursor_in",
    "endpoints",
    "limit_in",
    "limit_of",
    "player_of",
]

T = TypeVar("T")

BODY_BYTES_MAX: Final = 256 * 1024
PAGE_LIMIT: Final = 20
PAGE_LIMIT_MAX: Final = 100


def endpoints(callers: Callers) -> Endpoints[Caller]:
    """Return what binds operations of the surface to handlers that take a `Caller`."""
    return Endpoints(callers.of, lambda error, _: problems.problem(error))


def limit_of(request: Request) -> int:
    """Return how many a page is to have. Raises Invalid."""
    return limit_in(request.query_params)


def limit_in(query: QueryParams) -> int:
    """Return how many a page is to have by its query. Raises Invalid."""
    return int_in(query, "limit", PAGE_LIMIT, least=1, most=PAGE_LIMIT_MAX)


def player_of(request: Request, caller: Caller) -> Player:
    """
    Return the player that a path is about; ``me`` is the one of the caller's token.

    Raises:
        Forbidden: The caller is no player.
        Invalid: It is no player's name.

    """
    text = request.path_params["player"]
    return caller.require_player() if text == "me" else names.player_in_path(text)


def cursor_in(query: QueryParams, name: str) -> Cursor | None:
    """Return the cursor of a query, None where there is none. Raises Invalid."""
    text = query.get(name)
    return parse_cursor(text, "query", name) if text else None


async def body_of(
    request: Request, body_type: BodyType[T], *, bytes_max: int = BODY_BYTES_MAX
) -> T:
    """Return the body of a request. Raises as `read_body` and `BodyType.decode` do."""
    return body_type.decode(await read_body(request, bytes_max))
