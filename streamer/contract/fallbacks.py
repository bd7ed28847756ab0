"""
Responses to requests that no operation answers.

Decides which surface responds: a surface owns every path under its prefixes, so a
client of one vendor's API never sees a response in another format. Knows Starlette's
exception for a path or method without a route. Knows no format.
"""

from __future__ import annotations

import http
from collections.abc import Callable
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

__all__ = ["NOT_UTF8", "Fallback", "Fallbacks"]

NOT_UTF8: Final = HTTPException(
    http.HTTPStatus.BAD_REQUEST, "path: is not percent-encoded UTF-8"
)
"""An example of a request that `no_route` refuses for its target."""


class Fallback(NamedTuple):
    """
    A surface's responses to requests that none of its operations answers.

    Args:
        prefixes: Each ends with a slash. The surface owns the paths that begin with one
            of them, and the prefix without its slash.
        no_route: Returns the response to a path or method without an operation, and to
            one that is not UTF-8 (400). Takes the headers of the request.
        failed: Returns the response to a request that ended in an unexpected exception.
            None if the surface has no such response of its own.

    """

    prefixes: tuple[str, ...]
    no_route: Callable[[HTTPException, Headers], Response]
    failed: Callable[[Headers], Response] | None = None


class Fallbacks:
    """
    The fallbacks of all surfaces together.

    Args:
        no_route: Responds to paths without a surface.
        failed: Responds where no surface does.
        surfaces: The fallbacks of surfaces with prefixes.

    """

    def __init__(
        self,
        no_route: Callable[[HTTPException, Headers], Response],
        failed: Callable[[Headers], Response],
        *surfaces: Fallback,
    ) -> None:
        self._no_route = no_route
        self._failed = failed
        self._surfaces = surfaces

    def no_route(self, scope: Scope, error: HTTPException) -> Response:
        """Return the response to a path or method without a route."""
        surface = self._surface_of(scope)
        respond = surface.no_route if surface else self._no_route
        return respond(error, Headers(scope=scope))

    def failed(self, scope: Scope) -> Response:
        """Return the response to a request that failed. The server logs the cause."""
        surface = self._surface_of(scope)
        respond = (surface.failed if surface else None) or self._failed
        return respond(Headers(scope=scope))

    def _surface_of(self, scope: Scope) -> Fallback | None:
        path = f"{scope['path']}/"
        for surface in self._surfaces:
            if path.startswith(surface.prefixes):
                return surface
        return None
