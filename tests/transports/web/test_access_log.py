from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Message
from starlette.websockets import WebSocket

from streamer.core.counters import Counters
from streamer.errors import (
    Defect,
    Error,
    FieldError,
    ForeignOrigin,
    Invalid,
    Limit,
    LimitReached,
    OverQuota,
    Quota,
    Unauthenticated,
)
from streamer.model import App, Player
from streamer.service.node.player_names import PlayerNames
from streamer.service.node.request_context import (
    note_app,
    note_player,
    note_refusal,
    request_id,
)
from streamer.transports.web.access_log import (
    CLIENT_CLOSED_REQUEST,
    NO_ROUTE,
    AccessLog,
)

SECRET = "tk_secret"


async def greet(request: Request) -> Response:
    note_app(App("game"))
    return Response(request_id(), headers={"X-Own": "1"})


async def fail(request: Request) -> Response:
    raise RuntimeError("an internal error")


async def welcome(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def decline(websocket: WebSocket) -> None:
    await websocket.close()


async def broken(request: Request, error: Exception) -> Response:
    return Response(request_id(), 500)


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def asgi(counters: Counters) -> AccessLog:
    routes = [
        Route("/players/{player}", greet),
        Route("/fail", fail),
        WebSocketRoute("/welcome", welcome),
        WebSocketRoute("/decline", decline),
    ]
    app = Starlette(routes=routes, exception_handlers={Exception: broken})
    return AccessLog(app, counters, lines=True)


async def get(asgi: AccessLog, path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(asgi, raise_app_exceptions=False)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path, headers=named)


async def upgrade(asgi: AccessLog, path: str) -> list[Message]:
    """Request a WebSocket; return the messages of the app."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b""}
    await asgi(scope, receive, send)
    return sent


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO)

    def lines() -> list[dict[str, Any]]:
        records = [r for r in caplog.records if r.name == "streamer.access"]
        return [vars(record)["fields"] for record in records]

    return lines


async def test_a_request_keeps_its_own_id(asgi: AccessLog) -> None:
    response = await get(asgi, "/players/a", X_Request_Id="from-a_proxy-1")

    assert response.headers["x-request-id"] == response.text == "from-a_proxy-1"
    assert response.headers["x-own"] == "1"


@pytest.mark.parametrize("given", ["", "a b", "a.b", 'a"', "x" * 65])
async def test_a_malformed_id_is_replaced(asgi: AccessLog, given: str) -> None:
    response = await get(asgi, "/players/a", X_Request_Id=given)

    assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])


async def test_a_failed_request_has_its_id_in_response_and_log(
    asgi: AccessLog, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    response = await get(asgi, "/fail", X_Request_Id="the-request")

    assert (response.status_code, response.text) == (500, "the-request")
    assert lines()[0]["status"] == 500


async def test_a_record_has_the_route_but_not_the_path_or_the_query(
    asgi: AccessLog, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    await get(asgi, f"/players/alice?ticket={SECRET}", Authorization=SECRET)

    (line,) = lines()
    assert line.pop("duration_ms") >= 0
    assert line == {
        "method": "GET",
        "route": "/players/{player}",
        "status": 200,
        "bytes": 16,
        "app": "game",
        "player": "",
        "client": "127.0.0.1",
    }
    assert not re.search(f"alice|{SECRET}", json.dumps(line))


async def test_a_request_without_a_route_is_recorded_as_unknown(
    asgi: AccessLog, lines: Callable[[], list[dict[str, Any]]], counters: Counters
) -> None:
    await get(asgi, "/players/alice/secrets")

    assert (lines()[0]["route"], lines()[0]["status"]) == (NO_ROUTE, 404)
    assert counters.requests == {("GET", NO_ROUTE, 404): 1}


async def test_a_websocket_is_recorded_once_when_it_opens(
    asgi: AccessLog, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    accept, _ = await upgrade(asgi, "/welcome")

    assert dict(accept["headers"])[b"x-request-id"]
    assert [(line["route"], line["status"]) for line in lines()] == [("/welcome", 101)]


async def test_a_declined_websocket_is_recorded_as_403(
    asgi: AccessLog, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    await upgrade(asgi, "/decline")

    assert [line["status"] for line in lines()] == [403]


async def test_a_request_without_a_response_is_recorded_as_499(
    counters: Counters,
) -> None:
    async def silent(*asgi: Any) -> Any:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    await AccessLog(silent, counters, lines=True)(scope, *[silent] * 2)

    assert counters.requests == {("GET", NO_ROUTE, CLIENT_CLOSED_REQUEST): 1}


async def test_requests_are_counted_without_a_log(
    asgi: AccessLog, counters: Counters, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    await get(AccessLog(asgi._app, counters, lines=False), "/players/a")

    assert lines() == []
    assert counters.requests.total() == 1


# Callers and refusals.


async def refuse(request: Request) -> Response:
    note_app(App("game"))
    note_player(Player("alice"))
    note_refusal(REFUSALS[request.path_params["name"]])
    return Response(status_code=400)


REFUSALS: dict[str, Error] = {
    "expired": Unauthenticated(Defect.EXPIRED),
    "claim": Unauthenticated(Defect.CLAIM, "aud"),
    "limit": LimitReached(Limit.LISTENERS_PER_PLAYER),
    "quota": OverQuota(Quota.PLAYERS, 1_000),
    "origin": ForeignOrigin("an allowed origin: 'https://evil.example'"),
    "invalid": Invalid(FieldError(("query", "secret"), "is secret")),
}


def refusing(**options: Any) -> AccessLog:
    routes = [Route("/refuse/{name}", refuse), Route("/readyz", greet)]
    return AccessLog(Starlette(routes=routes), Counters(), lines=True, **options)


@pytest.mark.parametrize(
    ("name", "refusal", "reason"),
    [
        ("expired", "unauthenticated", "expired"),
        ("claim", "unauthenticated", "claim aud"),
        ("limit", "limit_reached", "listeners_per_player"),
        ("quota", "over_quota", "players"),
        ("origin", "foreign_origin", ""),
        ("invalid", "invalid", "query"),
    ],
)
async def test_a_refusal_is_logged_with_its_reason(
    lines: Callable[[], list[dict[str, Any]]], name: str, refusal: str, reason: str
) -> None:
    await get(refusing(), f"/refuse/{name}")

    (line,) = lines()
    assert (line["refusal"], line["reason"]) == (refusal, reason)
    assert line["client"] == "127.0.0.1"


async def test_a_player_is_logged_as_the_setting_says(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    for players in (
        PlayerNames("hash", "key"),
        PlayerNames("hash", "key"),
        PlayerNames("hash", "other key"),
        PlayerNames("hash", ""),
        PlayerNames("name", ""),
        PlayerNames("none", ""),
    ):
        await get(refusing(players=players), "/refuse/expired")

    first, same, other, unnamed, name, nothing = (it["player"] for it in lines())
    assert first == same
    assert len({first, other, unnamed, "alice"}) == 4
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert (name, nothing) == ("alice", "")


async def test_successful_probes_can_be_left_out(
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    for probes in (False, True):
        await get(refusing(probes=probes), "/readyz")

    assert [line["route"] for line in lines()] == ["/readyz"]
