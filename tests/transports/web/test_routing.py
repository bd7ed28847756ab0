"""Routing, compared with Starlette's own router."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from streamer.transports.web.routing import ErrorResponder, Routing


class NamedEndpoint:
    """An endpoint that responds with its name and its parameters."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        params = scope["path_params"]
        await PlainTextResponse(f"{self.name} {params}")(scope, receive, send)


def route(path: str, *methods: str) -> Route:
    return Route(path, NamedEndpoint(f"{path} {methods}"), methods=methods)


async def listen(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def not_found(request: Request) -> Response:
    raise HTTPException(404)


ROUTES = [
    route("/v1/players/{player:path}/notes", "GET"),
    route("/v1/players/{player:path}/notes/read", "POST"),
    route("/v1/players/{player:path}/notes/{id}", "GET", "DELETE"),
    route("/v1/players", "GET"),
    route("/v1/players", "POST"),
    WebSocketRoute("/v1/stream", listen),
    route("/v1/stream", "GET"),
    route("/v1/{room}", "GET"),
    route("/healthz", "GET"),
    Route("/absent", not_found),
    Mount("/game", Router([route("/v1/players/{id}", "GET")], redirect_slashes=False)),
    route("/{anything:path}/end", "GET"),
]


def refused(scope: Scope, error: HTTPException) -> Response:
    return PlainTextResponse(f"refused {error.detail}", error.status_code)


@pytest.fixture
def routing() -> Routing:
    return Routing(ROUTES, refuse=refused)


async def request(asgi: Any, method: str, path: str) -> tuple[int, str]:
    transport = httpx2.ASGITransport(asgi)
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        response = await client.request(method, path)
        return response.status_code, response.text


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1/", "/v1/players", "/v1/players/", "/v1/rooms", "/healthz"),
        *("/v1/players/a/notes", "/v1/players/a/b/notes", "/v1/players//notes"),
        *("/v1/players/a/notes/read", "/v1/players/a/notes/1", "/v1/playersa/notes"),
        *("/v1/stream", "/v1/stream/end", "/v1/players/a/end", "/healthz/end", "/end"),
        *("/game", "/game/v1/players/1", "/game/v1/players", "/healthz/", "//players"),
        *("/v1/players/a%2Fb/notes", "/v1%2Fplayers/a/notes", "/V1/players"),
    ],
)
async def test_a_request_gets_the_same_route_as_with_starlette(
    routing: Routing, method: str, path: str
) -> None:
    plain = Router(ROUTES, redirect_slashes=False)
    status, text = await request(plain, method, path)

    routed = await request(routing, method, path)

    if status in (404, 405):
        # Starlette responds with other texts.
        assert routed == (status, "" if method == "HEAD" else routed[1])
        assert routed[1].startswith("refused ") or method == "HEAD"
    else:
        assert routed == (status, text)


async def test_an_endpoint_that_raises_404_gets_the_same_response(
    routing: Routing,
) -> None:
    assert await request(routing, "GET", "/absent") == (404, "refused Not Found")


async def test_a_websocket_without_a_route_is_closed(routing: Routing) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/players", "headers": []}
    await routing(scope, receive, send)

    assert [message["type"] for message in sent] == ["websocket.close"]


# Failures.


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def broken_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ZeroDivisionError


@pytest.mark.parametrize(("app", "status"), [(broken, 500), (broken_late, 200)])
async def test_a_failure_gets_a_response_unless_one_has_begun(
    app: Any, status: int
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    with pytest.raises(ZeroDivisionError):
        await ErrorResponder(app, lambda scope: Response(status_code=500))(
            {"type": "http"}, receive, send
        )

    begun = [m["status"] for m in sent if m["type"] == "http.response.start"]
    assert begun == [status]
