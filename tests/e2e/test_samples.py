"""The samples of the pages in other languages, run as they are printed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.core.access.signatures import print_secret

from .processes import GUARD_S, ServerProcess
from .readers import Api

ROOT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
PAGE = (ROOT / "docs" / "tokens.md").read_text("utf-8")

COMMANDS = {
    "python": [sys.executable, "-c"],
    "js": ["node", "-e"],
    "bash": ["bash", "-euo", "pipefail", "-c"],
}
NEEDED = {"python": sys.executable, "js": "node", "bash": "openssl"}


def sample(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    "language",
    [
        pytest.param(
            "python",
            marks=pytest.mark.stack("joserfc (PyPI)", "HS256 with an app's secret"),
        ),
        pytest.param(
            "js",
            marks=pytest.mark.stack("jsonwebtoken (npm)", "HS256 with an app's secret"),
        ),
        pytest.param(
            "bash", marks=pytest.mark.stack("OpenSSL", "HS256 with an app's secret")
        ),
    ],
)
async def test_a_backend_signs_tokens_with_the_printed_secret(
    server: ServerProcess, language: str
) -> None:
    if not shutil.which(NEEDED[language]):
        pytest.skip(f"{NEEDED[language]} is not installed")
    if language == "js" and not (NODE / "node_modules").exists():
        pytest.skip("`npm ci` has not run in tests/e2e/node")
    record = await server.record("demo")

    signed = await asyncio.to_thread(
        subprocess.run,
        [*COMMANDS[language], sample(language)],
        env={**os.environ, "APP": "demo", "SECRET": print_secret(record.secret)},
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=True,
    )

    async with Api(server.port, signed.stdout.strip()) as alice:
        page = await alice.http.get("/v1/players/me/notifications")
    assert page.status_code == 200, page.text
