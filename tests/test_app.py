"""Which paths a server has, by its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx2
import pytest

from streamer.app import build
from streamer.config import VENDORS, Config
from streamer.openapi import SURFACES, document

Make = Callable[[Config], httpx2.AsyncClient]

PATHS = {
    "rallyhere": "/notification/v1/player/me",
    "lootlocker": "/server/notifications/v1",
    "gateway": "/gateway/notifications/v1/demo",
    "teak": "/v2/schedule",
    "walletwerk": "/campaigns/c/notifications",
}
"""A path below a prefix of each vendor, not all of them with a GET."""


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def make(config: Config) -> httpx2.AsyncClient:
            # No store is needed for what is answered before it is asked.
            app = build(config, "redis://127.0.0.1:1")
            client = httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app.asgi), base_url="http://here"
            )
            stack.push_async_callback(client.aclose)
            return client

        yield make


async def is_native_404(client: httpx2.AsyncClient, path: str) -> bool:
    answer = await client.get(path)
    media = answer.headers.get("content-type")
    return answer.status_code == 404 and media == "application/problem+json"


def test_the_vendors_of_the_settings_are_those_of_the_contract() -> None:
    assert tuple(it.name for it in SURFACES if it.name in VENDORS) == VENDORS
    assert PATHS.keys() == set(VENDORS)


@pytest.mark.parametrize("chosen", [*((it,) for it in VENDORS), VENDORS, ()])
async def test_only_chosen_vendors_answer(make: Make, chosen: tuple[str, ...]) -> None:
    client = make(Config(surfaces=chosen))
    titles = {it.name: it.title for it in SURFACES}
    published = (await client.get("/openapi.json")).json()
    tags = {
        it["tags"][0] for path in published["paths"].values() for it in path.values()
    }
    landing = (await client.get("/")).text

    for vendor, path in PATHS.items():
        is_chosen = vendor in chosen
        assert await is_native_404(client, path) is not is_chosen, vendor
        assert (titles[vendor] in tags) is is_chosen
        assert (titles[vendor] in landing) is is_chosen
    assert published == document(chosen)
    assert "Native" in tags and "Native" in landing
    # The native API is there, and wants a credential.
    assert (await client.get("/v1/players/me/notifications")).status_code == 401


async def test_the_native_api_may_be_named(make: Make) -> None:
    client = make(Config(surfaces=("native",)))

    assert (await client.get("/v1/players/me/notifications")).status_code == 401
    assert all([await is_native_404(client, path) for path in PATHS.values()])


async def test_the_documentation_can_be_hidden(make: Make) -> None:
    client = make(Config(docs=False))

    for path in ("/docs", "/docs/", "/docs/viewer.js", "/openapi.json"):
        assert await is_native_404(client, path), path
    landing = (await client.get("/")).text
    assert "docs" not in landing and "openapi" not in landing
    assert 'href="readyz"' in landing
