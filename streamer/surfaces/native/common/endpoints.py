"""
What the routes of the native surface have in common.

Decides how a request identifies its caller and player, and that errors become problem
documents. Knows Starlette. Knows no service.
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
    """Return endpoints whose handlers take a `Caller`."""
    return Endpoints(
        callers.of, lambda error, _: problems.problem(error), misspelled=True
    )


def player_of(request: Request, caller: Caller) -> Player:
    """
    Return the player of a path. ``me`` is the player of the caller's token.

    Raises:
        Forbidden: The path has ``me``, and the caller is not a player.
        Invalid: The path has no valid player name.

    """
    text = request.path_params["player"]
    return caller.require_player() if text == "me" else names.player_in_path(text)


def cursor_in(query: QueryParams, name: str) -> Cursor | None:
    """Return a cursor of a query, None if it is absent. Raises Invalid."""
    text = query.get(name)
    return parse_cursor(text, "query", name) if text else None
