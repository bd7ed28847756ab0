"""
A small application on Starlette, of an afternoon's work, to compare with.

Broadcast in a loop of ``send_text``; one endpoint that parses a body and calls one
script; one that checks a token and makes one read.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio
from joserfc import jwt
from joserfc.jwk import OctKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

__all__ = ["app"]

_STORE = """
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 10000, '*', 'm', ARGV[1])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return id
"""

_sockets: dict[str, set[WebSocket]] = defaultdict(set)
_queues: dict[str, set[asyncio.Queue[str]]] = defaultdict(set)
_key = OctKey.import_key(os.environ.get("BENCH_SECRET", "x" * 32))
_claims = jwt.JWTClaimsRegistry(aud={"essential": True, "value": "demo"})
_store = redis.asyncio.from_url(os.environ.get("BENCH_STORE") or "redis://localhost")
_script = _store.register_script(_STORE)


async def listen(websocket: WebSocket) -> None:
    name = websocket.path_params["name"]
    await websocket.accept()
    _sockets[name].add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        _sockets[name].discard(websocket)


async def follow(request: Request) -> Response:
    name = request.path_params["name"]
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def events() -> AsyncIterator[str]:
        _queues[name].add(queue)
        try:
            yield ": open\n\n"
            while True:
                yield f"data: {await queue.get()}\n\n"
        finally:
            _queues[name].discard(queue)

    return StreamingResponse(events(), media_type="text/event-stream")


async def publish(request: Request) -> Response:
    name, text = request.path_params["name"], (await request.body()).decode()
    for websocket in list(_sockets[name]):
        await websocket.send_text(text)
    for queue in list(_queues[name]):
        queue.put_nowait(text)
    return Response(status_code=202)


async def store(request: Request) -> Response:
    body = await request.json()
    player = body["to"]["players"][0]
    stored = await _script(keys=[f"log:{player}"], args=[json.dumps(body)])
    return Response(b'{"id":"%b"}' % stored, media_type="application/json")


async def page(request: Request) -> Response:
    token = request.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, _key, algorithms=["HS256"]).claims
    _claims.validate(claims)
    etag_before = request.headers.get("if-none-match")
    entries: Any = await _store.xrevrange(
        f"log:{claims['sub']}", count=1 if etag_before else 20
    )
    etag = f'"{entries[0][0].decode()}"' if entries else '"0"'
    if etag_before == etag:
        return Response(status_code=304, headers={"ETag": etag})
    body = b'{"notifications":[%b]}' % b",".join(fields[b"m"] for _, fields in entries)
    return Response(body, headers={"ETag": etag}, media_type="application/json")


app = Starlette(
    routes=[
        WebSocketRoute("/ws/{name}", listen),
        Route("/sse/{name}", follow),
        Route("/pub/{name}", publish, methods=["POST"]),
        Route("/store", store, methods=["POST"]),
        Route("/page", page),
    ]
)
