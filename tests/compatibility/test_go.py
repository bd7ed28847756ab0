"""WebSocket libraries of Go, with their defaults."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ..e2e.processes import GUARD_S, ServerProcess
from ..e2e.readers import Api
from .stacks import GO

# Building takes a minute where Go's standard library was not built before.
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]

LARGEST = "x" * 64_000


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program, built of modules that were downloaded before."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    program = tmp_path_factory.mktemp("go") / "readers"
    built = subprocess.run(
        ["go", "build", "-buildvcs=false", "-o", str(program), "."],
        cwd=GO,
        env=os.environ | {"GOPROXY": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "module lookup disabled" in built.stderr:
        pytest.skip("`go mod download` has not run in tests/compatibility/go")
    assert built.returncode == 0, built.stderr
    return program


async def read(program: Path, *arguments: object) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        str(program), *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(GUARD_S):
        printed, _ = await process.communicate()
    return printed.decode().splitlines()


@pytest.mark.parametrize(
    ("library", "limit"),
    [
        pytest.param(
            "coder",
            1 << 20,
            marks=pytest.mark.stack(
                "coder/websocket (Go)",
                "deflate is offered; largest notification",
                setting="`SetReadLimit(1 << 20)`; its default is 32 KiB",
            ),
        ),
        pytest.param(
            "gorilla",
            "",
            marks=pytest.mark.stack(
                "gorilla/websocket (Go)", "deflate is offered; largest notification"
            ),
        ),
    ],
)
async def test_a_library_of_go_receives_the_largest_notification(
    server: ServerProcess,
    backend: Api,
    player: str,
    token: str,
    readers: Path,
    library: str,
    limit: object,
) -> None:
    await backend.published(player, data=LARGEST)
    url = f"ws://127.0.0.1:{server.port}/v1/stream?cursor=earliest"

    *kinds, size = await read(readers, library, url, token, limit)

    assert kinds == ["hello", "notification"]
    assert int(size) > len(LARGEST)


async def test_without_its_limit_a_large_notification_is_an_error(
    server: ServerProcess, backend: Api, player: str, token: str, readers: Path
) -> None:
    await backend.published(player, data=LARGEST)
    url = f"ws://127.0.0.1:{server.port}/v1/stream?cursor=earliest"

    kinds = await read(readers, "coder", url, token, "")

    assert kinds[0] == "hello"
    assert kinds[-1].startswith("error: ")
