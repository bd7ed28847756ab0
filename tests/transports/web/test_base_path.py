"""A prefix of all paths."""

from __future__ import annotations

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamer.transports.web.base_path import BasePath


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    path = f"{Request(scope).url.path} {scope['raw_path'].decode()}"
    await Response(path)(scope, receive, send)


async def get(path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(BasePath(show, "/push"))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("/push/v1/stream", "/v1/stream /v1/stream"),
        ("/v1/stream", "/v1/stream /v1/stream"),  # the proxy has removed it
        ("/push/", "/ /"),
        ("/pushed/v1", "/pushed/v1 /pushed/v1"),
        ("/push/push/a", "/push/a /push/a"),
    ],
)
async def test_paths_are_the_same_with_and_without_the_prefix(
    sent: str, seen: str
) -> None:
    assert (await get(sent)).text == seen


async def test_the_prefix_alone_leads_to_the_root() -> None:
    answer = await get("/push")
    assert (answer.status_code, answer.headers["location"]) == (308, "/push/")
