"""
The wheels in an empty environment, with dependencies from the package index.

Other interpreters than this one: ``STREAMER_TEST_PYTHONS``, paths with ``:`` between.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from ..e2e.processes import KEY, TOKEN, free_port
from .conftest import ROOT, run

PYTHONS = [
    sys.executable,
    *filter(None, os.getenv("STREAMER_TEST_PYTHONS", "").split(":")),
]

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=PYTHONS)
def installed(
    request: pytest.FixtureRequest,
    wheels: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of the programs of an environment that has the server's wheel."""
    folder = tmp_path_factory.mktemp("installed")
    run(request.param, "-m", "venv", "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    # The versions that the other tests run with; without hashes, which wheels of ours
    # cannot have.
    pins = re.findall(
        r"^\S+==.*?(?= \\$)", (ROOT / "requirements.lock").read_text(), re.M
    )
    (folder / "pins.txt").write_text("\n".join(pins))
    run(
        *(programs / "pip", "install", "--quiet", "--constraint", "pins.txt"),
        *("--find-links", wheels["server"].parent, "streamer-server"),
        cwd=folder,
    )
    return programs


@contextmanager
def serving(programs: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Run ``streamer serve`` on a store of its own; give its URL and greeting."""
    port = free_port()
    with subprocess.Popen(
        [
            *(programs / "streamer", "serve", "--demo"),
            *("--port", str(port), "--data-dir", "data"),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        greeting = ""
        while not greeting.endswith("/me/notifications\n"):
            line = server.stdout.readline()
            assert line, f"the server ended: {greeting}"
            greeting += line
        try:
            yield f"http://127.0.0.1:{port}", greeting
        finally:
            server.terminate()
            server.communicate()


def credentials(greeting: str) -> tuple[str, str]:
    key, token = KEY.search(greeting), TOKEN.search(greeting)
    assert key is not None
    assert token is not None
    return key[1], token[1]


async def test_the_main_job(installed: Path, tmp_path: Path) -> None:
    streamer = installed / "streamer"
    with serving(installed, tmp_path) as (url, greeting):
        key, token = credentials(greeting)
        tailing = await asyncio.create_subprocess_exec(
            *(streamer, "tail", "--url", url, "--token", token, "--cursor", "earliest"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        assert tailing.stdout is not None
        message = ("--player", "alice", "--title", "Hello")
        run(streamer, "publish", "--url", url, "--key", key, *message, cwd=tmp_path)
        async with asyncio.timeout(60):
            line = await tailing.stdout.readline()
        tailing.terminate()
        await tailing.wait()

    assert line.endswith(b"Hello\n")


async def test_a_wheel_serves_the_web_client_and_the_demo(
    installed: Path, tmp_path: Path
) -> None:
    source = ROOT / "clients" / "web" / "src" / "index.js"
    with serving(installed, tmp_path) as (url, _), httpx2.Client(base_url=url) as http:
        assert http.get("/client/index.js").content == source.read_bytes()
        script = http.get("/demo/page.js").text
        (path,) = set(re.findall(r'"\.\./(client/\w+/)index\.js"', script))
        assert "immutable" in http.get(f"/{path}index.js").headers["cache-control"]
        assert http.post("/demo/session", json={}).status_code == 200


def test_the_doctor_finds_the_library(
    installed: Path, tmp_path: Path, wheels: dict[str, Path]
) -> None:
    printed = run(installed / "streamer", "doctor", "--data-dir", "data", cwd=tmp_path)

    compiled = re.search(r"^ok .* compiled$", printed, re.M) is not None
    assert compiled == (not wheels["server"].name.endswith("-any.whl"))


def test_the_installation_is_consistent(
    installed: Path, tmp_path: Path, wheels: dict[str, Path]
) -> None:
    run(installed / "pip", "check", cwd=tmp_path)
    version = run(installed / "streamer", "--version", cwd=tmp_path)

    assert version.split()[-1] == wheels["server"].name.split("-")[1]


@pytest.fixture
def client_removed(
    installed: Path, wheels: dict[str, Path], tmp_path: Path
) -> Iterator[None]:
    pip = installed / "pip"
    run(pip, "uninstall", "--quiet", "--yes", "streamer-client", cwd=tmp_path)
    yield
    run(pip, "install", "--quiet", "--no-deps", wheels["client"], cwd=tmp_path)


@pytest.mark.usefixtures("client_removed")
def test_the_server_works_without_the_client(installed: Path, tmp_path: Path) -> None:
    with serving(installed, tmp_path) as (url, greeting):
        _, token = credentials(greeting)
        tail = subprocess.run(
            [installed / "streamer", "tail", "--url", url, "--token", token],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert tail.returncode == 1
    assert "pip install streamer-client" in tail.stderr
