"""
What the routes of the native surface have in common.

Decides how a request says who calls, whom it is about and what it has, and that what is
wrong is answered as a problem document. Knows Starlette. Knows no service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...core.access import Caller
from ...core.cursor import Cursor
from ...errors import Error
from ...model import Player
from ...service.inboxes import parse_cursor
from ...transports.callers import Callers
from ...transports.http import read_body
from . import names, wire
from .shapes import Shape

__all__ = [
    "BODY_BYTES_MAX",
    "NO_CONTENT",
    "Handler",
    "answering",
    "body_of",
    "cursor_of",
    "json",
    "player_of",
]

T = TypeVar("T")

BODY_BYTES_MAX: Final = 256 * 1024
NO_CONTENT: Final = 204

Handler = Callable[[Request, Caller], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def answering(callers: Callers, handler: Handler) -> Endpoint:
    """Let `handler` raise what is wrong; answer it as a problem document."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(request, await callers.of(request))
        except Error as error:
            return wire.problem(error)

    return endpoint


def player_of(request: Request, caller: Caller) -> Player:
    """
    Return the player that a path is about; ``me`` is the one of the caller's token.

    Raises:
        Forbidden: The caller is no player.
        Invalid: It is no player's name.

    """
    text = request.path_params["player"]
    return caller.require_me() if text == "me" else names.player_in_path(text)


def cursor_of(request: Request, name: str) -> Cursor | None:
    """Return the cursor of the query, None where there is none. Raises Invalid."""
    text = request.query_params.get(name)
    return parse_cursor(text, "query", name) if text else None


async def body_of(
    request: Request, shape: Shape[T], *, bytes_max: int = BODY_BYTES_MAX
) -> T:
    """Return the body of a request. Raises as `read_body` and `Shape.decode` do."""
    return shape.decode(await read_body(request, bytes_max))


def json(
    body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(body, status, headers=headers, media_type="application/json")
