"""`streamer backup` and `streamer restore`, as an operator uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .processes import ServerProcess
from .readers import Api, SseStream


async def test_a_restored_store_serves_and_tells_what_it_has_lost(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path / "first")
    other = ServerProcess(tmp_path / "second")
    archive = tmp_path / "backup.tar.gz"
    try:
        await server.start()
        key, token = await server.key(), await server.token("alice")
        async with Api(server.port, key) as backend:
            kept = await backend.published("alice", title="kept")
            result = server.run(
                *("backup", str(archive), "--data-dir", str(server.data_dir))
            )
            assert result.returncode == 0, result.stderr
            assert "verified: a store loads it" in result.stdout
            await backend.published("alice", title="lost")
        stream = await SseStream.open(server.port, token)
        cursor = (await stream.until("hello")).data["cursor"]
        stream.cut()

        result = other.run(
            *("restore", str(archive), "--data-dir", str(other.data_dir))
        )
        assert result.returncode == 0, result.stderr
        await other.start()
        async with Api(other.port, key) as backend:
            assert [one["id"] for one in await backend.inbox("alice")] == kept
        stream = await SseStream.open(other.port, token, cursor=cursor)
        gap = await stream.until("gap")
        assert gap.data["reason"] == "ahead"
        stream.cut()
    finally:
        server.discard()
        other.discard()


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_an_external_store_has_means_of_its_own(command: str, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    config = tmp_path / "streamer.toml"
    config.write_text('redis = "redis://127.0.0.1:1"\n')
    result = server.run(command, str(tmp_path / "file"), "--config", str(config))
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {command} is for the embedded store")
