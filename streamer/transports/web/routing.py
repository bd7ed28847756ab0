"""
The routing of requests, and the responses to those without a route and those that fail.

Tries routes in their order, without those that cannot match. Knows Starlette's routes,
and ASGI. Knows nothing of what the routes do.

To try all sixty routes in turn took a tenth of a page. So they are looked up by the
head of the path, its first two segments; a route with a parameter there, or a mount, is
tried for every head. Starlette catches exceptions in three layers around a request;
here it is one.
"""

from __future__ import annotations

import http
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ...errors import Invalid
from ...service.node.request_context import note_refusal
from .requests import require_utf8

__all__ = ["Application", "ErrorResponder", "Routing"]

_SEGMENTS: Final = 2


class Application(Starlette):
    """
    A Starlette application with `Routing`, and one layer that catches exceptions.

    Args:
        routes: The routes, in the order in which they are tried.
        middleware: Middleware around the routes, the outermost first.
        refuse: Returns the response to a request for a path or method without a route.
        fail: Returns the response to a request that failed; the server logs why.

    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        middleware: Sequence[Middleware] = (),
        refuse: Callable[[Scope, HTTPException], Response],
        fail: Callable[[Scope], Response],
    ) -> None:
        super().__init__(middleware=middleware)
        self.router = Routing(routes, refuse=refuse)
        self.failed = fail

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application that handles requests; Starlette calls this once."""
        asgi: ASGIApp = self.router
        for kind, args, kwargs in reversed(self.user_middleware):
            asgi = kind(asgi, *args, **kwargs)
        return ErrorResponder(asgi, self.failed)

    def __call__(  # type: ignore[override]  # a call less for each step of a request
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        scope["app"] = self
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        return self.middleware_stack(scope, receive, send)


class Routing(Router):
    """
    A router with a fixed set of routes.

    Args:
        routes: The routes, in the order in which they are tried.
        refuse: Returns the response to a request for a path or method without a route,
            and to one whose path or query is not UTF-8.

    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        refuse: Callable[[Scope, HTTPException], Response],
    ) -> None:
        # A redirect to a path with or without a slash would contain the caller's Host.
        super().__init__(routes, redirect_slashes=False)
        self._refuse = refuse
        heads = [_head_of(route) for route in routes]
        self._without_head = [
            route for route, head in zip(routes, heads, strict=True) if head is None
        ]
        self._by_head = {
            wanted: [
                route
                for route, head in zip(routes, heads, strict=True)
                if head in (None, wanted)
            ]
            for wanted in {head for head in heads if head is not None}
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # With an app in the scope, Starlette's routers raise an exception for a request
        # without a route, instead of responding to it.
        scope.setdefault("app", self)
        try:
            require_utf8(scope)
            await self._find(scope)(scope, receive, send)
        except Invalid as error:
            note_refusal(error)
            refusal = HTTPException(http.HTTPStatus.BAD_REQUEST, str(error))
            await self._refuse(scope, refusal)(scope, receive, send)
        except HTTPException as error:
            await self._refuse(scope, error)(scope, receive, send)

    def _find(self, scope: Scope) -> ASGIApp:
        """
        Return what handles a request, and add its route to the scope.

        Raises HTTPException if the path has no route.
        """
        partial_match: Route | None = None
        head = tuple(scope["path"].split("/", _SEGMENTS + 1)[: _SEGMENTS + 1])
        for route in self._by_head.get(head, self._without_head):
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                scope["route"] = route
                scope.update(child_scope)
                # A WebSocket's `handle` would only call it, in each step of a connect.
                return route.app if type(route) is WebSocketRoute else route.handle
            if match is Match.PARTIAL and partial_match is None:
                assert isinstance(route, Route), "others have no methods"
                partial_match, partial_scope = route, child_scope
        if partial_match is not None:
            scope["route"] = partial_match
            scope.update(partial_scope)
            return partial_match.handle
        if scope["type"] == "websocket":
            return WebSocketClose()
        raise HTTPException(http.HTTPStatus.NOT_FOUND)


class ErrorResponder:
    """
    An ASGI application around another, which responds if the other raises an exception.

    The exception is raised again, and the server logs it.

    Args:
        app: The other application.
        respond: Returns the response, which is sent unless one has begun.

    """

    def __init__(self, app: ASGIApp, respond: Callable[[Scope], Response]) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        def send_and_note(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            has_begun = True
            return send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if scope["type"] == "http" and not has_begun:
                await self._respond(scope)(scope, receive, send)
            raise


def _head_of(route: BaseRoute) -> tuple[str, ...] | None:
    """Return the head of a route's paths; None for a mount or a parameter in it."""
    if isinstance(route, Mount):
        return None
    assert isinstance(route, Route | WebSocketRoute)
    fixed, parameter, _ = route.path.partition("{")
    segments = fixed.split("/")
    # A segment with a parameter in it is not fixed.
    fixed_segments = segments[:-1] if parameter else segments
    if parameter and len(fixed_segments) <= _SEGMENTS:
        return None
    return tuple(fixed_segments[: _SEGMENTS + 1])
