"""The commands of the README and of the vendors' page, on a real server."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import GUARD_S, ServerProcess, command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
VENDORS = (ROOT / "docs" / "vendors.md").read_text("utf-8")

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = [
    pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed"),
    pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed"),
]


def blocks(page: str, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(page) if name == language]


def is_for_a_running_server(block: str) -> bool:
    # The recipes for production start servers of their own, on fixed ports.
    return "python3 -m venv" not in block and "streamer serve" not in block


def paste(server: ServerProcess, text: str) -> str:
    """Run the commands of a page as a user would; return the output."""
    text = text.replace("http://127.0.0.1:8080", server.url)
    text = text.replace(".venv/bin/streamer", shlex.join(command()))
    # These run until they are stopped.
    open_ended = rf"^({re.escape(shlex.join(command()))} tail|curl -N)"
    text = re.sub(open_ended, r"( timeout 2 \1", text, flags=re.MULTILINE)
    text = re.sub(r"^\( timeout.*$", r"\g<0> || [ $? = 124 ] )", text, flags=re.M)
    text = re.sub(r"\bcurl ", "curl -sS --fail-with-body ", text)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env=server.environment()
        | {"STREAMER_DATA_DIR": str(server.data_dir), "STREAMER_CLI_URL": server.url},
        capture_output=True,
        text=True,
        timeout=3 * GUARD_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.stack("curl", "every command of the README")
def test_the_commands_of_the_readme_work(server: ServerProcess) -> None:
    commands = "".join(filter(is_for_a_running_server, blocks(README, "sh")))

    printed = paste(server, commands)

    assert "Hello" in printed
    assert '"to":{"topic":"news"}' in printed
    assert "event: hello" in printed
    assert '"state":"pending"' in printed
    assert '"token":"ey' in printed
    assert "alice is o" in printed  # nline, or ffline


@pytest.mark.stack("curl", "every command of [vendors](vendors.md)")
def test_the_commands_of_the_vendors_page_work(server: ServerProcess) -> None:
    (credentials,) = [b for b in blocks(README, "sh") if b.startswith("KEY=")]
    (commands,) = blocks(VENDORS, "sh")

    printed = paste(server, credentials + commands)

    assert '"notification_id"' in printed  # RallyHere
    assert '"pagination"' in printed  # LootLocker
    assert '"status":"Success"' in printed  # the casino gateway
    assert '"status":"ok"' in printed  # Teak
    assert '"recipientCount":1' in printed  # WalletWerk


async def test_the_program_of_the_readme_works(
    server: ServerProcess, tmp_path: Path
) -> None:
    program = tmp_path / "listen.py"
    (text,) = blocks(README, "python")
    program.write_text(text.replace("http://127.0.0.1:8080", server.url))
    publish = ["publish", "--player", "carol", "--title", "Hello"]
    options = ["--url", server.url, "--key", await server.key()]
    await asyncio.to_thread(server.run, *publish, *options)

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        str(program),
        env=server.environment() | {"TOKEN": await server.token("carol")},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(GUARD_S):
            assert await process.stdout.readline() == b"Hello\n"
    finally:
        process.kill()
        await process.wait()
