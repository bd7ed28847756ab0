"""
Operations bound to their handlers, as routes.

Decides how a declaration becomes a route: path and method come from the operation,
operations of one path share one route, and errors become the responses of the surface's
own table. So the document and the routes cannot disagree. Knows Starlette's routes.
Knows nothing of any surface.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import Error, StoreUnavailable
from ..service.node.request_context import note_refusal
from ..transports.web.requests import refuse_misspelled
from .operation import Operation

__all__ = [
    "Endpoint",
    "Endpoints",
    "Handler",
    "as_for_reader",
    "bind",
    "bind_websocket",
]

C = TypeVar("C")
Handler = Callable[[Request, C], Awaitable[Response]]


class Endpoints(Generic[C]):
    """
    Binds operations to handlers that may raise any `Error`.

    Args:
        identify: Returns the caller of a request, in the form the handlers take.
        refuse: Returns the surface's response to an error.
        misspelled: Whether to refuse parameters of the query that are misspelled.

    """

    def __init__(
        self,
        identify: Callable[[Request], Awaitable[C]],
        refuse: Callable[[Error, Request], Response],
        *,
        misspelled: bool = False,
    ) -> None:
        self._identify = identify
        self._refuse = refuse
        self._misspelled = misspelled

    def bind(self, *bound: tuple[Operation, Handler[C]]) -> list[BaseRoute]:
        """Return the routes of operations, in the order of matching."""
        return bind(
            (
                operation,
                Endpoint(
                    self._identify,
                    handler,
                    self._refuse_of(operation),
                    self._known(operation),
                ),
            )
            for operation, handler in bound
        )

    def _known(self, operation: Operation) -> frozenset[str]:
        """Return the names that a misspelled parameter may have been meant to be."""
        if not self._misspelled:
            return frozenset()
        return frozenset(it.name for it in operation.parameters if it.where == "query")

    def _refuse_of(self, operation: Operation) -> Callable[[Error, Request], Response]:
        refuse = self._refuse
        if not operation.only_reads:
            return refuse
        return lambda error, request: refuse(as_for_reader(error), request)


def as_for_reader(error: Error) -> Error:
    """
    Return an error as the client of a request that only reads is told it.

    Reading may take commands that write, such as the lease of a poll, and to a client
    that reads "nothing was stored" would say that its notifications are lost.
    """
    # Not a subclass of it: a full store has its own text.
    if type(error) is StoreUnavailable and error.write:
        return StoreUnavailable(error.words, where=error.where, write=False)
    return error


class Endpoint(Generic[C]):
    """
    An ASGI application that answers one operation; see `Endpoints`.

    It is not a function of a request, since Starlette would wrap that twice: the
    wrappers cost a publish 5 % of its time, and would do nothing here.
    """

    __slots__ = ("_handler", "_identify", "_known", "_refuse")

    def __init__(
        self,
        identify: Callable[[Request], Awaitable[C]],
        handler: Handler[C],
        refuse: Callable[[Error, Request], Response],
        known: frozenset[str] = frozenset(),
    ) -> None:
        self._identify = identify
        self._handler = handler
        self._refuse = refuse
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.respond(Request(scope, receive))
        await response(scope, receive, send)

    async def respond(self, request: Request, *, knows_query: bool = False) -> Response:
        """
        Return the response to a request.

        With `knows_query` every parameter of the query is known to be one of the
        operation's.
        """
        try:
            caller = await self._identify(request)
            if self._known and not knows_query and request.scope["query_string"]:
                refuse_misspelled(request.query_params, self._known)
            return await self._handler(request, caller)
        except Error as error:
            note_refusal(error)
            return self._refuse(error, request)


class Methods:
    """
    An ASGI application that passes a request to the operation of its method.

    `operations` has the operations of one path. They share a route, so that a 405 lists
    all methods in ``Allow``.
    """

    __slots__ = ("_apps", "operations")

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._apps: dict[str, ASGIApp] = {}

    def add(self, operation: Operation, app: ASGIApp) -> None:
        assert operation.method not in self._apps, f"{operation.path} is bound twice"
        self.operations.append(operation)
        self._apps[operation.method] = app
        if operation.method == "GET":
            self._apps["HEAD"] = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return self._apps[scope["method"]](scope, receive, send)

    def app(self, operation: Operation) -> ASGIApp:
        """Return the application that answers one of `operations`."""
        return self._apps[operation.method]


def bind(bound: Iterable[tuple[Operation, ASGIApp]]) -> list[BaseRoute]:
    """
    Return routes that pass requests for operations to ASGI applications.

    The order of routes is the order in which their paths first occur.
    """
    by_path: dict[str, Methods] = {}
    for operation, app in bound:
        for path in _templates(operation):
            by_path.setdefault(path, Methods()).add(operation, app)
    return [
        Route(path, methods, methods=[it.method for it in methods.operations])
        for path, methods in by_path.items()
    ]


def bind_websocket(operation: Operation, app: ASGIApp) -> list[BaseRoute]:
    """Return routes that pass WebSockets on an operation's paths to `app`."""
    assert operation.websocket, f"{operation.path} declares no WebSocket"
    return [WebSocketRoute(path, app) for path in _templates(operation)]


def _templates(operation: Operation) -> list[str]:
    """Return an operation's paths in Starlette's syntax, with convertors."""
    templates = [operation.path, *operation.other_paths]
    for parameter in operation.parameters:
        if parameter.where == "path" and parameter.has_slashes:
            plain, convertible = f"{{{parameter.name}}}", f"{{{parameter.name}:path}}"
            templates = [it.replace(plain, convertible) for it in templates]
    return templates
