"""`streamer erase` on a running server: no trace is left, not even in files."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from pathlib import Path

from .processes import ServerProcess
from .readers import Api, SseStream

GUARD_S = 60
# Random, so that no file has them compressed.
NAME, OTHER = secrets.token_hex(16), secrets.token_hex(16)
TEXT, KEPT = secrets.token_hex(40), secrets.token_hex(40)


def files_with(folder: Path, text: str) -> list[str]:
    """Return the files of a data directory that contain a text."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_socket():
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # A log that was replaced just now.
                continue
            if text.encode() in content:
                found.append(path.name)
    return found


async def gone(folder: Path, text: str) -> None:
    """Wait until no file contains a text: the store unlinks an old log in a thread."""
    async with asyncio.timeout(GUARD_S):
        while files_with(folder, text):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_erased_player_is_in_no_file_and_comes_back_with_no_backup(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path / "first")
    other = ServerProcess(tmp_path / "second")
    archive, listed = tmp_path / "backup.tar", tmp_path / "erasures.jsonl"
    at = ("--data-dir", str(server.data_dir))
    try:
        await server.start()
        key, token = await server.key(), await server.token(NAME)
        stream = await SseStream.open(server.port, token)
        async with Api(server.port, key) as backend:
            await backend.published(NAME, title=TEXT)
            await backend.published(OTHER, title=KEPT)
            assert server.run("backup", str(archive), *at).returncode == 0
            assert files_with(server.data_dir, TEXT)

            exported = server.run("export", NAME, "--app", "demo", *at)
            assert exported.returncode == 0, exported.stderr
            lines = [json.loads(line) for line in exported.stdout.splitlines()]
            assert TEXT in exported.stdout and KEPT not in exported.stdout
            assert lines[-1]["kind"] == "end"

            refused = server.run("erase", NAME, "--app", "demo", *at)
            assert refused.returncode == 1  # Nobody has confirmed it.
            assert len(await backend.inbox(NAME)) == 1
            result = server.run("erase", NAME, "--app", "demo", "--yes", *at)

            assert result.returncode == 0, result.stderr
            assert "the store has rewritten its log" in result.stdout
            for text in (NAME, TEXT):
                await gone(server.data_dir, text)
            assert files_with(server.data_dir, KEPT)
            assert (await stream.end()).code == 4205
            assert await backend.inbox(NAME) == []
        result = server.run("erasures", *at)
        assert result.returncode == 0, result.stderr
        assert NAME not in result.stdout
        beside = server.data_dir / "erasures-streamer.jsonl"
        assert beside.read_text() == result.stdout
        assert beside.stat().st_mode & 0o777 == 0o600
        listed.write_text(result.stdout)

        there = ("--data-dir", str(other.data_dir))
        result = other.run("restore", str(archive), "--erasures", str(listed), *there)
        assert result.returncode == 0, result.stderr
        assert "erased 1 players again" in result.stdout
        await gone(other.data_dir, NAME)
        await other.start()
        async with Api(other.port, key) as backend:
            assert await backend.inbox(NAME) == []
            assert len(await backend.inbox(OTHER)) == 1
        result = other.run("erasures", "--replay", str(listed), *there)
        assert "erased 0 players again" in result.stdout
    finally:
        server.discard()
        other.discard()


async def test_a_server_rewrites_the_files_after_an_erasure_by_its_api(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path / "data")
    try:
        await server.start()
        key = await server.key(scopes=("admin", "notifications:send"))
        async with Api(server.port, key) as backend:
            await backend.published(NAME, title=TEXT)
            answer = await backend.http.post(f"/v1/players/{NAME}/erasure")
            assert answer.json()["files"] == "pending"
            for text in (NAME, TEXT):
                await gone(server.data_dir, text)
    finally:
        server.discard()


def erased_in(listed: Path) -> set[str]:
    """Return the hashes of the players in a list of erasures."""
    return {json.loads(line)["player"] for line in listed.read_text().splitlines()[1:]}


async def test_an_old_store_beside_a_newer_list_brings_nobody_back(
    tmp_path: Path,
) -> None:
    """Somebody has copied the files of the store back, and not used `restore`."""
    server = ServerProcess(tmp_path / "data")
    at = ("--data-dir", str(server.data_dir))
    listed, log = server.data_dir / "erasures-streamer.jsonl", "appendonlydir"
    try:
        await server.start()
        key = await server.key()
        async with Api(server.port, key) as backend:
            await backend.published(NAME, title=TEXT)
            await backend.published(OTHER, title=KEPT)
        shutil.copytree(server.data_dir / log, tmp_path / "old")
        erased = server.run("erase", NAME, "--app", "demo", "--yes", *at)
        assert erased.returncode == 0, erased.stderr
        first = erased_in(listed)
        await server.stop()
        shutil.rmtree(server.data_dir / log)
        shutil.copytree(tmp_path / "old", server.data_dir / log)
        assert files_with(server.data_dir, TEXT)

        await server.start()

        await gone(server.data_dir, TEXT)
        async with Api(server.port, key) as backend:
            assert await backend.inbox(NAME) == []
            assert len(await backend.inbox(OTHER)) == 1
        erased = server.run("erase", OTHER, "--app", "demo", "--yes", *at)
        assert erased.returncode == 0, erased.stderr
        assert len(erased_in(listed)) == 2
        assert first < erased_in(listed)
    finally:
        server.discard()
