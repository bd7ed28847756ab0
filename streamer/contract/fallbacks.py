"""
The answers to requests that no operation answers.

Decides whose answer it is: a surface owns every path under its prefixes, so a client of
a vendor's API never sees another vendor's shape. Knows Starlette's exception for a path
or method without a route. Knows no shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

__all__ = ["Fallback", "Fallbacks"]


class Fallback(NamedTuple):
    """
    How a surface answers a request that none of its operations answers.

    Args:
        prefixes: The paths that are the surface's own.
        no_route: Returns the answer to a path or method that has no operation; takes
            the headers of the request.
        failed: Returns the answer to a request that ended in an unexpected exception,
            None where the answer is that of the server as a whole.

    """

    prefixes: tuple[str, ...]
    no_route: Callable[[HTTPException, Headers], Response]
    failed: Callable[[Headers], Response] | None = None


class Fallbacks:
    """
    The fallbacks of all surfaces together.

    Args:
        no_route: Answers where the path is under no surface's prefix.
        failed: Answers where no surface does.
        surfaces: Those that have prefixes.

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
        """Return the answer to a path or method that has no route."""
        surface = self._surface_of(scope)
        answer = surface.no_route if surface else self._no_route
        return answer(error, Headers(scope=scope))

    def failed(self, scope: Scope) -> Response:
        """Return the answer to a request that failed; the server logs why."""
        surface = self._surface_of(scope)
        answer = (surface.failed if surface else None) or self._failed
        return answer(Headers(scope=scope))

    def _surface_of(self, scope: Scope) -> Fallback | None:
        path: str = scope["path"]
        for surface in self._surfaces:
            if path.startswith(surface.prefixes):
                return surface
        return None
