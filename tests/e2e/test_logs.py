"""What a running server writes to its log, and what it never writes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest

from streamer.core.access.tokens import mint
from streamer.model import Player

from .processes import ServerProcess, eventually
from .readers import TRANSPORTS, Api, SseStream, StreamRefused, WsStream

TITLE = "nobody but the player reads this"


async def lines_of(server: ServerProcess, request_id: str, *, count: int) -> list[Any]:
    """Return the log lines of a request, once there are `count`."""
    matches: list[Any] = []

    def complete() -> bool:
        whole = server.logged.rpartition("\n")[0].splitlines()
        records = [json.loads(line) for line in whole]
        matches[:] = [one for one in records if one.get("request_id") == request_id]
        return len(matches) >= count

    await eventually(complete)
    return matches


async def test_a_request_has_one_log_line_with_its_id(
    server: ServerProcess, backend: Api, player: str
) -> None:
    answer = await backend.http.get(f"/v1/players/{player}/notifications?limit=7")

    (line,) = await lines_of(server, answer.headers["x-request-id"], count=1)
    assert line.pop("duration_ms") > 0
    assert re.fullmatch(r"\d{4}-.*Z", line.pop("at"))
    assert line == {
        "level": "info",
        "logger": "streamer.access",
        "message": "GET /v1/players/{player}/notifications 200",
        "request_id": answer.headers["x-request-id"],
        "method": "GET",
        "route": "/v1/players/{player}/notifications",
        "status": 200,
        "bytes": len(answer.content),
        "app": "demo",
        "player": "",
        "client": "127.0.0.1",
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_has_a_log_line_at_its_start_and_at_its_end(
    server: ServerProcess, token: str, player: str, transport: str
) -> None:
    request_id = f"stream-{transport}-{player}".replace("player-", "")
    headers = {"X-Request-Id": request_id}
    stream = await TRANSPORTS[transport].open(server.port, token, headers=headers)
    await stream.until("hello")
    (opened,) = await lines_of(server, request_id, count=1)
    if isinstance(stream, WsStream):
        answer = stream.connection.response
        assert answer is not None
        assert answer.headers["x-request-id"] == request_id
    elif isinstance(stream, SseStream):
        assert stream.headers["x-request-id"] == request_id
    stream.cut()

    _, ended = await lines_of(server, request_id, count=2)
    assert (opened["route"], opened["status"]) == (
        "/v1/stream",
        {"sse": 200, "websocket": 101}[transport],
    )
    assert ended["logger"] == "streamer.service.streams.connection_log"
    assert (ended["transport"], ended["app"]) == (transport, "demo")
    assert (ended["code"], ended["reason"]) == (None, "left")
    assert ended["duration_ms"] >= 0


async def test_a_protocol_violation_is_logged_with_its_close_code(
    server: ServerProcess, token: str, player: str
) -> None:
    request_id = player.replace("player-", "breaks-")
    stream = await WsStream.open(
        server.port, token, headers={"X-Request-Id": request_id}
    )
    await stream.until("hello")
    await stream.connection.send("not a message")

    _, ended = await lines_of(server, request_id, count=2)
    assert (ended["code"], ended["reason"]) == (4203, "protocol")


async def test_the_log_has_no_personal_data_and_no_credentials(
    server: ServerProcess, backend: Api, player: str, token: str
) -> None:
    key = backend.http.headers["authorization"].removeprefix("Bearer ")
    (id_,) = await backend.published(player, title=TITLE, data={"secret": TITLE})
    async with Api(server.port, token) as own:
        answer = await own.http.post("/v1/tickets", json={})
        ticket = answer.json()["ticket"]
        await own.http.get("/v1/players/me/notifications", params={"after": id_})
    await backend.http.get(f"/v1/players/{player}/notifications/{id_}")
    await backend.http.get(f"/nowhere/{player}?ticket={ticket}")
    stream = await SseStream.open(server.port, None, ticket=ticket, cursor=id_)
    await stream.until("hello")
    stream.cut()
    with pytest.raises(StreamRefused):
        await WsStream.open(server.port, None, ticket=ticket)
    last = await backend.http.get(f"/v1/players/{player}/notifications")
    await lines_of(server, last.headers["x-request-id"], count=1)

    for secret in (player, token, key, ticket, id_, TITLE):
        assert secret not in server.logged


# Refusals.


async def refusals(server: ServerProcess, **members: Any) -> list[Any]:
    """Return the lines that have these members, once there is one."""
    matches: list[Any] = []

    def found() -> bool:
        whole = server.logged.rpartition("\n")[0].splitlines()
        records = [json.loads(line) for line in whole]
        matches[:] = [it for it in records if members.items() <= it.items()]
        return bool(matches)

    await eventually(found)
    return matches


async def test_a_refused_credential_is_logged_with_its_app_and_player(
    server: ServerProcess, backend: Api, player: str
) -> None:
    good = await server.token(player)
    async with Api(server.port, good) as own:
        answer = await own.http.get("/v1/players/me/notifications")
    (line,) = await lines_of(server, answer.headers["x-request-id"], count=1)
    known_as = line["player"]

    forged = good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")
    an_hour_ago_s = int(time.time()) - 3_600
    expired = mint(
        await server.record("demo"), Player(player), ttl_s=60, now_s=an_hour_ago_s
    )
    for token, reason, expected in (
        (expired, "expired", known_as),
        (forged, "signature", ""),
    ):
        async with Api(server.port, token) as own:
            answer = await own.http.get("/v1/players/me/notifications")
        (line,) = await lines_of(server, answer.headers["x-request-id"], count=1)
        assert (line["status"], line["refusal"]) == (401, "unauthenticated")
        assert (line["reason"], line["app"]) == (reason, "demo")
        assert (line["player"], line["client"]) == (expected, "127.0.0.1")


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_refusal_within_a_stream_is_logged_with_its_close_code(
    server: ServerProcess, player: str, transport: str
) -> None:
    request_id = player.replace("player-", f"refused-{transport}-")
    stream = await TRANSPORTS[transport].open(
        server.port, "sk_wrong", headers={"X-Request-Id": request_id}, refusals="stream"
    )
    await stream.until("bye")
    stream.cut()

    (line,) = await lines_of(server, request_id, count=1)
    assert (line["refusal"], line["reason"]) == ("unauthenticated", "unknown_key")
    assert line["code"] == 4200


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400, "malformed"),
        (b"GET /%b HTTP/1.1\r\n" % (b"x" * 20_000), 414, "url_too_long"),
        (
            b"GET / HTTP/1.1\r\na: %b\r\n\r\n" % (b"x" * 70_000),
            431,
            "headers_too_large",
        ),
        (
            b"GET /v1/stream HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 12\r\n\r\n",
            426,
            "no_websocket_upgrade",
        ),
    ],
)
async def test_what_is_no_request_is_logged_with_its_reason(
    server: ServerProcess, sent: bytes, status: int, reason: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    assert f" {status} ".encode() in await reader.readline()
    writer.close()

    line, *_ = await refusals(server, refusal="not_http", reason=reason)
    assert (line["status"], line["client"]) == (status, "127.0.0.1")
    assert line["logger"] == "streamer.access"
