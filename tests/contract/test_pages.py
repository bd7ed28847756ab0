"""The served API description: the document, and the page with its files."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from importlib.metadata import version

import httpx2
import pytest
from starlette.applications import Starlette

from streamer.asyncapi import stream_document
from streamer.contract.pages import Pages
from streamer.openapi import document


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    pages = Pages(document, stream_document)
    transport = httpx2.ASGITransport(Starlette(routes=pages.routes()))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://here"
    ) as client:
        yield client


async def test_the_document_is_served(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == document()


async def test_the_document_of_the_stream_is_served(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/asyncapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == stream_document()


@pytest.mark.parametrize(
    "path",
    [
        *("/openapi.json", "/asyncapi.json", "/docs"),
        *("/docs/start.js", "/docs/viewer.js", "/docs/viewer.css"),
    ],
)
async def test_a_cached_file_is_not_sent_again(
    client: httpx2.AsyncClient, path: str
) -> None:
    etag = (await client.get(path)).headers["etag"]

    again = await client.get(path, headers={"If-None-Match": etag})

    assert (again.status_code, again.content) == (304, b"")


async def test_the_page_loads_files_of_this_server_only(
    client: httpx2.AsyncClient,
) -> None:
    page = (await client.get("/docs")).text

    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) == 4
    for source in sources:
        if not source.startswith("data:"):
            assert not source.startswith("/"), "it would miss a proxy's prefix"
            assert (await client.get(f"/{source}")).status_code == 200, source


async def test_the_document_is_found_below_a_prefix(client: httpx2.AsyncClient) -> None:
    assert 'url: "openapi.json"' in (await client.get("/docs/start.js")).text
    assert document()["servers"] == [{"url": "./"}]


async def test_the_root_leads_to_the_documentation(client: httpx2.AsyncClient) -> None:
    page = (await client.get("/")).text

    assert f"streamer {version('streamer-server')}" in page
    links = re.findall(r'<a href="([^"]+)"', page)
    assert links == ["docs", "openapi.json", "asyncapi.json", "healthz", "readyz"]


async def test_the_root_leads_to_the_demo_first() -> None:
    pages = Starlette(routes=Pages(document, dict, demo=True).routes())
    transport = httpx2.ASGITransport(pages)
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        page = (await client.get("/")).text

    assert re.findall(r'<a href="([^"]+)"', page)[0] == "demo"


async def test_the_policy_allows_scripts_of_this_server_only(
    client: httpx2.AsyncClient,
) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


async def test_the_viewer_reads_openapi_3_1(client: httpx2.AsyncClient) -> None:
    # Swagger UI does since 5.0; an older version shows only an error.
    viewer = (await client.get("/docs/viewer.js")).text

    version = re.search(r'PACKAGE_VERSION:"(\d+)\.', viewer)
    assert version is not None and int(version[1]) >= 5
