"""The Procfile, as a process manager runs it: every line at once, in a shell."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .processes import ChildProcess, eventually, free_port, probe
from .readers import Api

ROOT = Path(__file__).parents[2]
STORE_PORT = "6390"


class Line(ChildProcess):
    """One line of the Procfile."""

    def __init__(self, folder: Path, name: str, text: str, env: dict[str, str]) -> None:
        super().__init__(folder / "log", name)
        self._spawn(["sh", "-c", f'cd "{folder}" && exec {text}'], env)


class Manager:
    """The processes of the Procfile, on ports of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.store_port = free_port(), free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
        self.env = kept | {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "STREAMER_PORT": str(self.port),
        }
        text = (ROOT / "Procfile").read_text().replace(STORE_PORT, str(self.store_port))
        self.lines = {
            name: Line(folder, name, command, self.env)
            for name, command in (line.split(": ", 1) for line in text.splitlines())
        }

    @property
    def logged(self) -> str:
        return "".join(line.logged + line.printed for line in self.lines.values())

    def run(self, *words: str) -> str:
        """Run a command beside the processes; return the last line it prints."""
        done = subprocess.run(
            ["streamer", *words],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    async def ready(self) -> None:
        async def is_ready() -> bool:
            for name, line in self.lines.items():
                assert not line.ended, f"{name}: {self.logged}"
            return await probe(self.port, "/readyz") == 200

        await eventually(is_ready, within_s=60)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    try:
        yield manager
    finally:
        for line in reversed(manager.lines.values()):
            line.discard()


@pytest.mark.stack("Procfile", "every line at once, in a shell")
async def test_the_procfile_runs_a_store_that_requires_its_password(
    manager: Manager,
) -> None:
    await manager.ready()
    assert not re.search("sk_|eyJ", manager.logged)
    where = f"redis://127.0.0.1:{manager.store_port}"
    key = manager.run(
        *("key", "create", "--app", "demo", "--expires", "1h", "--redis", where),
        *("--redis-password-file", ".streamer/password"),
    )

    with socket.create_connection(("127.0.0.1", manager.store_port)) as stranger:
        stranger.sendall(b"FLUSHALL\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")

    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    async with Api(manager.port, key) as backend:
        scheduled = await backend.http.post(
            "/v1/notifications",
            json={"to": {"players": ["ann"]}, "title": "later", "send_at": soon},
        )
        assert scheduled.status_code == 202, scheduled.text

        async def sent() -> bool:
            page = await backend.http.get("/v1/players/ann/notifications")
            return [one["title"] for one in page.json()["notifications"]] == ["later"]

        await eventually(sent)
    assert "Traceback" not in manager.logged
