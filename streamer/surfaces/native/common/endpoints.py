"""
What the routes of the native surface have in common.

Decides how a request says who calls, whom it is about and what it has, and that what is
wrong is answered as a problem document. Knows Starlette. Knows no service.
"""

from __future__ import annotations

from typing import TypeVar

from starlette.datastructures import QueryParams
from starlette.requests import Request

from ....contract.binding import Endpoints
from ....core.access.rights import Caller
from ....core.streams.cursor import Cursor
from ....model import Player
from ....service.inboxes.inbox import parse_cursor
from ....transports.web.callers import Callers
from . import names, problems

__all__ = [
    "cursor_in",
    "endpoints",
    "player_of",
]

T = TypeVar("T")


def endpoints(callers: Callers) -> Endpoints[Caller]:
    """Return what binds operations of the surface to handlers that take a `Caller`."""
    return Endpoints(callers.of, lambda error, _: problems.problem(error))


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
