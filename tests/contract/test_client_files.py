"""The served modules of the web client: where they are, and how they are cached."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from streamer.app import build
from streamer.config import Config
from streamer.contract.client_files import ClientFiles, client_folder

ROOT = Path(__file__).parents[2]
INDEX = b"import './part/one.js';\n"


@pytest.fixture
def files(tmp_path: Path) -> ClientFiles:
    folder = tmp_path / "src"
    (folder / "part").mkdir(parents=True)
    (folder / "index.js").write_bytes(INDEX)
    (folder / "part" / "one.js").write_bytes(b"export const one = 1;\n")
    (folder / "notes.txt").write_text("not a module")
    (tmp_path / "outside.js").write_text("not of the client")
    return ClientFiles(folder)


@pytest.fixture
async def client(files: ClientFiles) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(Starlette(routes=files.routes()))
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://here"
    ) as client:
        yield client


async def test_a_module_has_the_type_that_browsers_require(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/client/index.js")

    assert answer.content == INDEX
    assert answer.headers["content-type"].split(";")[0] == "text/javascript"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_pages_of_other_origins_may_load_it(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/client/part/one.js")

    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_without_a_version_it_is_revalidated(client: httpx2.AsyncClient) -> None:
    first = await client.get("/client/index.js")

    again = await client.get(
        "/client/index.js", headers={"If-None-Match": first.headers["etag"]}
    )

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")


async def test_below_its_version_it_is_kept(
    client: httpx2.AsyncClient, files: ClientFiles
) -> None:
    answer = await client.get(f"/client/{files.version}/part/one.js")

    assert answer.content == b"export const one = 1;\n"
    assert "immutable" in answer.headers["cache-control"]


async def test_below_another_version_there_is_nothing(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/client/0123456789abcdef/index.js")

    assert answer.status_code == 404


def test_the_version_is_that_of_the_content(files: ClientFiles, tmp_path: Path) -> None:
    (tmp_path / "src" / "part" / "one.js").write_bytes(b"export const one = 2;\n")
    changed = ClientFiles(tmp_path / "src").version
    (tmp_path / "src" / "part" / "one.js").write_bytes(b"export const one = 1;\n")

    assert changed != files.version == ClientFiles(tmp_path / "src").version


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip, br", "gzip"), ("identity", None), ("gzip;q=0", None)],
)
async def test_it_is_compressed_for_those_who_accept_it(
    client: httpx2.AsyncClient, accepted: str, encoding: str | None
) -> None:
    request = client.build_request(
        "GET", "/client/index.js", headers={"Accept-Encoding": accepted}
    )
    answer = await client.send(request, stream=True)
    raw = b"".join([chunk async for chunk in answer.aiter_raw()])

    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert (gzip.decompress(raw) if encoding else raw) == INDEX


@pytest.mark.parametrize(
    "path",
    ["notes.txt", "../outside.js", "%2e%2e/outside.js", "part/", "", "nothing.js"],
)
async def test_nothing_else_is_served(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(f"/client/{path}")

    assert answer.status_code == 404


def test_a_clone_serves_its_own_folder() -> None:
    assert client_folder() == ROOT / "clients" / "web" / "src"


@pytest.mark.parametrize("base_path", ["", "/push"])
async def test_the_server_serves_every_module_with_what_it_imports(
    base_path: str,
) -> None:
    app = build(Config(base_path=base_path), "unix:///nowhere")
    transport = httpx2.ASGITransport(app.asgi)
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        root = f"{base_path}/client/"
        for path in client_folder().rglob("*.js"):
            name = path.relative_to(client_folder())
            module = await client.get(f"{root}{name}")
            assert module.content == path.read_bytes(), name
            text = re.sub(r"/\*.*?\*/", "", module.text, flags=re.S)
            for other in re.findall(r"""(?:from|import)\s*\(?["'](\.[^"']+)""", text):
                imported = await client.get(str(module.url.join(other)))
                assert imported.status_code == 200, f"{name} imports {other}"
