"""
The operations that are answered beneath ASGI.

Decides which requests are: those for an operation whose declaration says so, in the
plain form in which programs send them. All others go through ASGI, which answers every
request. Both ways share the declaration, the endpoint with its handler and its
refusals, and the record in the access log; what is missing here are the layers that
would do nothing for such a request. Knows Starlette's routes. Knows nothing of any
surface.

A request is plain if its path and query have no character that is encoded or would
have to be, and if it does not come from a page of another origin, whose response gets
the headers of CORS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope

from ..transports.server.direct import Answer, Headers, Respond
from ..transports.web.access_log import AccessLog, Exchange
from ..transports.web.forwarded import TrustedProxies
from .binding import Endpoint, Methods

__all__ = ["DirectOperations"]

_SEGMENT: Final = "[A-Za-z0-9._~:@-]+"
"""A parameter in a path that needs no decoding."""

_VALUE: Final = "[A-Za-z0-9._~:-]*"
"""A value in a query that needs no decoding."""

_VARY: Final = (b"vary", b"Origin")
"""What Starlette's CORS adds to the response to a request without an Origin."""

_PARAMETER: Final = re.compile(r"\{(\w+)(?::path)?\}")


class DirectOperations:
    """
    Answers requests for declared operations; see `transports.server.direct.DirectApp`.

    Args:
        routes: The routes of the app, in the order in which they are tried.
        log: Records requests.
        fail: Returns the response to a request that failed; the server logs why.
        proxies: Whose headers are believed; None if nobody's are.
        prefix: A prefix of paths that is removed, if it is there.
        allows_origins: Whether pages of other origins may send requests.

    """

    def __init__(
        self,
        routes: Iterable[BaseRoute],
        log: AccessLog,
        *,
        fail: Callable[[Scope], Response],
        proxies: TrustedProxies | None = None,
        prefix: str = "",
        allows_origins: bool = False,
    ) -> None:
        self._proxies = proxies
        self._prefix = prefix.encode()
        self._allows_origins = allows_origins
        self._fixed: dict[tuple[str, str], _Direct] = {}
        self._patterns: dict[str, list[tuple[re.Pattern[str], _Direct]]] = {}
        added = (_VARY,) if allows_origins else ()
        for method, route, direct in _direct_in(routes, log, fail, added):
            if "{" in route.path:
                pattern = _PARAMETER.sub(rf"(?P<\1>{_SEGMENT})", route.path)
                compiled = re.compile(pattern, re.ASCII)
                self._patterns.setdefault(method, []).append((compiled, direct))
            else:
                self._fixed[method, route.path] = direct

    def find(self, scope: Scope, target: bytes) -> Answer | None:
        """Return what answers a request, None if it has to go through ASGI."""
        if self._allows_origins and any(it[0] == b"origin" for it in scope["headers"]):
            return None
        if self._prefix and target.startswith(self._prefix + b"/"):
            target = target[len(self._prefix) :]
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("latin-1")
        direct = self._fixed.get((scope["method"], path))
        params: dict[str, str] = {}
        if direct is None:
            for pattern, candidate in self._patterns.get(scope["method"], ()):
                if match := pattern.fullmatch(path):
                    direct, params = candidate, match.groupdict()
                    break
            else:
                return None
        if query and not direct.knows(query):
            return None
        scope["path"] = path
        scope["raw_path"] = raw_path
        scope["query_string"] = query
        scope["path_params"] = params
        scope["route"] = direct.route
        if self._proxies is not None:
            self._proxies.apply(scope)
        return direct.answer


class _Direct:
    """One operation at one path."""

    __slots__ = (
        *("_added", "_endpoint", "_exchange", "_fail", "_log", "_query", "route"),
    )

    def __init__(
        self,
        endpoint: Endpoint[Any],  # of any kind of caller
        route: Route,
        parameters: Iterable[str],
        log: AccessLog,
        fail: Callable[[Scope], Response],
        added: Headers,
    ) -> None:
        self.route = route
        self._added = added
        self._endpoint = endpoint
        self._log = log
        self._exchange = log.exchange
        self._fail = fail
        names = "|".join(map(re.escape, parameters))
        pair = rf"(?:{names})={_VALUE}"
        self._query = re.compile(rf"{pair}(?:&{pair})*".encode()) if names else None

    def knows(self, query: bytes) -> bool:
        """Whether a query is plain, and has no other parameters than declared."""
        return self._query is not None and self._query.fullmatch(query) is not None

    async def answer(self, scope: Scope, receive: Receive, respond: Respond) -> None:
        exchange = self._exchange(self._log, scope, None)
        try:
            try:
                response = await self._endpoint.respond(
                    Request(scope, receive), knows_query=True
                )
            except Exception:
                await _send(self._fail(scope), (), exchange, respond)
                raise
            await _send(response, self._added, exchange, respond)
        finally:
            exchange.record()


async def _send(
    response: Response, added: Headers, exchange: Exchange, respond: Respond
) -> None:
    body = bytes(response.body)
    named = exchange.begin(response.status_code, len(body))
    headers = [*response.raw_headers, *added, named]
    await respond(response.status_code, headers, body)


def _direct_in(
    routes: Iterable[BaseRoute],
    log: AccessLog,
    fail: Callable[[Scope], Response],
    added: Headers,
) -> Iterator[tuple[str, Route, _Direct]]:
    for route in routes:
        if isinstance(route, Route) and isinstance(route.endpoint, Methods):
            for operation in route.endpoint.operations:
                endpoint = route.endpoint.app(operation)
                if operation.direct is not None:
                    assert isinstance(endpoint, Endpoint), operation.name
                    parameters = operation.direct
                    direct = _Direct(endpoint, route, parameters, log, fail, added)
                    yield operation.method, route, direct
