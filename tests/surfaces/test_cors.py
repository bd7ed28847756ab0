"""Requests of pages of other origins: preflights, and what the pages may read."""

from __future__ import annotations

import pytest

from .conftest import Mint, Start

PAGE = "https://eu.game.example"
INBOX = "/v1/players/me/notifications"


@pytest.mark.parametrize(
    "headers",
    [
        "authorization",
        "cache-control, pragma",
        "x-requested-with",
        "traceparent, tracestate, baggage, sentry-trace",
        "x-b3-traceid, x-datadog-trace-id, newrelic",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "PATCH", "PUT"])
async def test_a_page_may_send_the_headers_of_its_libraries(
    start: Start, method: str, headers: str
) -> None:
    server = await start(allowed_origins=("https://*.game.example",))

    answer = await server.client.options(
        INBOX,
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["access-control-allow-headers"] == headers
    assert method in answer.headers["access-control-allow-methods"]


async def test_a_page_of_another_origin_may_not(start: Start) -> None:
    server = await start(allowed_origins=("https://*.game.example",))

    answer = await server.client.options(
        INBOX,
        headers={
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "GET",
        },
    )

    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("page", [PAGE, "capacitor://localhost", "null"])
async def test_a_page_may_read_what_its_libraries_need(
    start: Start, mint: Mint, page: str
) -> None:
    allowed = ("https://*.game.example", "capacitor://localhost", "null")
    server = await start(allowed_origins=allowed)
    headers = {"Authorization": f"Bearer {mint('alice')}", "Origin": page}

    answer = await server.client.get(INBOX, headers=headers)

    assert answer.headers["access-control-allow-origin"] == page
    assert "ETag" in answer.headers["access-control-expose-headers"]
