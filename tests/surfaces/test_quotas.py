"""An app over its quota, in the response of every surface."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
import pytest_asyncio

from streamer.core.quotas import QuotaOverrides
from streamer.errors import Error, OverQuota, Quota
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.surfaces.lootlocker.refusals import refusal as lootlocker
from streamer.surfaces.rallyhere.refusals import refusal as rallyhere
from streamer.surfaces.teak.refusals import refusal as teak
from streamer.surfaces.walletwerk.refusals import refusal as walletwerk

from .conftest import Mint, Start

HELLO = {"to": {"players": ["alice"]}, "title": "hello"}

AddKey = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture(loop_scope="module")
async def client(
    start: Start, redis: RedisConnection, mint: Mint
) -> httpx2.AsyncClient:
    """Return a client of a server on which ``demo`` has one byte per day."""
    await Apps(redis).update(
        mint.name(),
        lambda record: msgspec.structs.replace(
            record, quotas=QuotaOverrides(bytes_per_day=1)
        ),
    )
    return (await start()).client


@pytest_asyncio.fixture(loop_scope="module")
async def bearer(backend_key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {backend_key}"}


@pytest_asyncio.fixture(loop_scope="module")
async def spent(
    client: httpx2.AsyncClient, bearer: dict[str, str]
) -> httpx2.AsyncClient:
    """Return that client, with the quota used up."""
    sent = await client.post("/v1/notifications", json=HELLO, headers=bearer)
    assert sent.status_code == 200, sent.text
    return client


def told_to_wait(answer: Any) -> Any:
    """Return the body of a 429 with a retry time."""
    assert answer.status_code == 429, answer.text
    assert 1 <= int(answer.headers["retry-after"]) <= 86_400 * 400
    return answer.json()


async def test_the_native_surface_names_the_quota(
    spent: httpx2.AsyncClient, bearer: dict[str, str]
) -> None:
    answer = await spent.post("/v1/notifications", json=HELLO, headers=bearer)

    problem = told_to_wait(answer)
    assert problem["type"] == "about:over-quota"
    assert problem["quota"] == "bytes_per_day"
    assert problem["detail"] == "the app has used its quota of 1 bytes per day"


@pytest.mark.parametrize(
    ("refuse", "said"),
    [
        (rallyhere, {"auth_success": True, "error_code": "quota_exceeded"}),
        (lambda error: lootlocker(error, "r"), {"code": "rate_limited"}),
        (lambda error: teak(error, "/v2/schedule"), {"status": "rate_limit"}),
        (walletwerk, {"success": False}),
    ],
    ids=["rallyhere", "lootlocker", "teak", "walletwerk"],
)
def test_every_vendor_surface_has_a_response_for_it(
    refuse: Callable[[Error], Any], said: dict[str, Any]
) -> None:
    answer = refuse(OverQuota(Quota.PLAYERS, 7, retry_after_s=9))

    body = json.loads(answer.body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "9")
    assert body == body | said
    assert "quota of 7 players" in str(body)


async def test_an_app_over_its_quota_does_not_affect_others(
    spent: httpx2.AsyncClient, add_key: AddKey, bearer: dict[str, str]
) -> None:
    other = {"Authorization": f"Bearer {await add_key(app='other')}"}

    answer = await spent.post("/v1/notifications", json=HELLO, headers=other)

    assert answer.status_code == 200


async def test_stored_notifications_stay_readable(
    spent: httpx2.AsyncClient, mint: Mint, bearer: dict[str, str]
) -> None:
    page = await spent.get("/v1/players/me/notifications", headers=mint.bearer("alice"))

    assert len(page.json()["notifications"]) == 1
