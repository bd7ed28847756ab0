"""
Which route a request is for, and what becomes of one that has none or fails.

Decides in which order routes are tried: as they are given, but for those that cannot
match. Knows Starlette's routes, and ASGI. Knows nothing of what any of them answers.

With sixty routes the one that is asked for most is tried late, and trying them was a
tenth of a page. So routes are looked up by the first two segments of their paths; one
that has a parameter there, or is a mount, is among those of every other. What Starlette
has around a request in case that it fails is here once instead of three times.
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

__all__ = ["Application", "Faults", "Routing"]

_SEGMENTS: Final = 2


class Application(Starlette):
    """
    A Starlette application with a router and a stack of its own.

    Args:
        routes: In the order in which they are tried.
        middleware: What is around them, the outermost first.
        refuse: Returns the answer to a request for a path or method without a route.
        fail: Returns the answer to a request that failed; the server logs why.

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
        self._fail = fail

    def build_middleware_stack(self) -> ASGIApp:
        """Return what each request goes through; Starlette asks for it once."""
        asgi: ASGIApp = self.router
        for kind, args, kwargs in reversed(self.user_middleware):
            asgi = kind(asgi, *args, **kwargs)
        return Faults(asgi, self._fail)


class Routing(Router):
    """
    The routes of an application, which are not added to later.

    Args:
        routes: In the order in which they are tried.
        refuse: Returns the answer to a request for a path or method without a route.

    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        refuse: Callable[[Scope, HTTPException], Response],
    ) -> None:
        # A redirect to another spelling would be built from the caller's Host.
        super().__init__(routes, redirect_slashes=False)
        self._refuse = refuse
        heads = [_head_of(route) for route in routes]
        self._anywhere = [
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
        # Where there is an app, Starlette's routers raise what they have no route for.
        scope.setdefault("app", self)
        try:
            await self._pass_on(scope, receive, send)
        except HTTPException as error:
            await self._refuse(scope, error)(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        partly: Route | None = None
        head = tuple(scope["path"].split("/", _SEGMENTS + 1)[: _SEGMENTS + 1])
        for route in self._by_head.get(head, self._anywhere):
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope["route"] = route
                scope.update(found)
                await route.handle(scope, receive, send)
                return
            if match is Match.PARTIAL and partly is None:
                assert isinstance(route, Route), "others have no methods"
                partly, found_partly = route, found
        if partly is not None:
            scope["route"] = partly
            scope.update(found_partly)
            await partly.handle(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            raise HTTPException(http.HTTPStatus.NOT_FOUND)


class Faults:
    """
    An ASGI application around another, which answers where the other fails.

    What it failed with goes on to the server, which logs it.

    Args:
        app: The other.
        answer: Returns the answer, which is sent unless one has begun.

    """

    def __init__(self, app: ASGIApp, answer: Callable[[Scope], Response]) -> None:
        self._app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        def discard_sample(message: Message) -> Awaitable[None]:
            nonlocal begun
            begun = True
            return send(message)

        try:
            await self._app(scope, receive, discard_sample)
        except Exception:
            if scope["type"] == "http" and not begun:
                await self._answer(scope)(scope, receive, send)
            raise


def _head_of(route: BaseRoute) -> tuple[str, ...] | None:
    """Return the segments that a route's paths begin with, None if it has not two."""
    if isinstance(route, Mount):
        return None
    assert isinstance(route, Route | WebSocketRoute)
    fixed, parameter, _ = route.path.partition("{")
    segments = fixed.split("/")
    # One that a parameter is in, or begins, is no fixed one.
    whole = segments[:-1] if parameter else segments
    if parameter and len(whole) <= _SEGMENTS:
        return None
    return tuple(whole[: _SEGMENTS + 1])
