"""The id and the log line of a request in a whole server."""

from __future__ import annotations

import logging
from typing import Any

import httpx2
import pytest

from ..conftest import Mint, Server, Start


async def test_an_internal_error_has_the_request_id(
    server: Server,
    answered_client: httpx2.AsyncClient,
    mint: Mint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a fault")

    monkeypatch.setattr(server.app._components.inboxes, "page", broken)
    answer = await answered_client.get(
        "/v1/players/me/notifications", headers=mint.bearer("alice")
    )

    assert answer.status_code == 500
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("wanted", [True, False])
async def test_the_access_log_can_be_disabled(
    start: Start, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    server = await start(access_log=wanted)

    with caplog.at_level(logging.INFO):
        await server.client.get("/openapi.json")

    told = [r for r in caplog.records if r.name == "streamer.access"]
    assert len(told) == wanted
