"""Backups of the embedded store, taken while it runs and rewrites its log."""

from __future__ import annotations

import asyncio
import contextlib
import io
import shutil
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from redis.exceptions import ResponseError

from streamer.store.client.connection import RedisConnection
from streamer.store.server import backup
from streamer.store.server.backup import restore_backup, write_backup
from streamer.store.server.directory import MANIFEST, MARKER, refuse_unusable
from streamer.store.server.embedded import Embedded
from streamer.store.server.server_binary import StoreFailed

from ...e2e.processes import eventually

TWICE = "redis.call('INCR', KEYS[1]) return redis.call('INCR', KEYS[1])"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def redis(data_dir: Path, store_binary: Path) -> AsyncIterator[RedisConnection]:
    """Give a connection to a store that runs on `data_dir`."""
    store = await Embedded.start(data_dir, binary=store_binary)
    redis = RedisConnection(store.url)
    yield redis
    await redis.close()
    await store.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "backup.tar"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Return a directory to restore into."""
    folder = tmp_path / "restored"
    folder.mkdir()
    return folder


async def content(data_dir: Path, binary: Path, key: str) -> int:
    """Return a number of the store that is in a directory."""
    store = await Embedded.start(data_dir, binary=binary, temporary=True)
    try:
        redis = RedisConnection(store.url)
        value = await redis.call("GET", key)
        await redis.close()
    finally:
        await store.stop()
    assert isinstance(value, bytes)
    return int(value)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> set[int]:
    """Return the modes of the files in a folder."""
    return {mode(path) for path in folder.rglob("*") if path.is_file()}


async def test_a_backup_has_what_was_acknowledged_before(
    redis: RedisConnection, data_dir: Path, tmp_path: Path, store_binary: Path
) -> None:
    acknowledged = 0
    stopping = False

    async def write() -> None:
        nonlocal acknowledged
        while not stopping:
            # A script is a transaction in the log: of the two, both or none.
            reply = await redis.call("EVAL", TWICE, 1, "n")
            assert isinstance(reply, int)
            acknowledged = reply

    async def rewrite() -> None:
        while not stopping:
            with contextlib.suppress(ResponseError):  # the last one still runs
                await redis.call("BGREWRITEAOF")
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(write()), asyncio.create_task(rewrite())]
    await eventually(lambda: acknowledged)
    floors: list[int] = []
    while len(floors) < 8:
        await asyncio.sleep(0.02)
        floors.append(acknowledged)
        await asyncio.to_thread(write_backup, data_dir, tmp_path / f"{len(floors)}.tar")
    stopping = True
    await asyncio.gather(*tasks)
    for number, floor in enumerate(floors, start=1):
        restored = tmp_path / f"restored{number}"
        restore_backup(tmp_path / f"{number}.tar", restored)
        value = await content(restored, store_binary, "n")
        assert floor <= value <= acknowledged
        assert value % 2 == 0


async def test_a_log_that_is_replaced_meanwhile_is_opened_again(
    redis: RedisConnection,
    data_dir: Path,
    archive: Path,
    empty: Path,
    store_binary: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await redis.call("SET", "n", 7)
    read = backup._read_manifest
    first = read(data_dir)
    answers = [first.replace(".1.base", ".0.base"), first, first + "# new\n"]

    def changing(data_dir: Path) -> str:
        return answers.pop(0) if answers else read(data_dir)

    monkeypatch.setattr(backup, "_read_manifest", changing)
    write_backup(data_dir, archive)
    assert answers == []
    restore_backup(archive, empty)
    assert await content(empty, store_binary, "n") == 7


async def test_a_command_that_is_cut_off_is_dropped(
    redis: RedisConnection,
    data_dir: Path,
    archive: Path,
    empty: Path,
    store_binary: Path,
    tmp_path: Path,
) -> None:
    await redis.call("SET", "n", 7)
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns("*.sock"))
    (log,) = (copy / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(
            b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1\r\n8\r\n*1\r"
        )
    write_backup(copy, archive)
    restore_backup(archive, empty)
    assert await content(empty, store_binary, "n") == 7


@pytest.mark.parametrize("name", ["backup.tar", "backup.tar.gz"])
async def test_only_the_owner_may_read_a_backup(
    name: str, redis: RedisConnection, data_dir: Path, tmp_path: Path, empty: Path
) -> None:
    await redis.call("SET", "secret", 1)
    about = write_backup(data_dir, tmp_path / name)
    assert mode(tmp_path / name) == 0o600
    assert restore_backup(tmp_path / name, empty) == about
    assert modes(empty) == {0o600}


async def test_a_backup_is_written_to_no_file_that_others_have_prepared(
    redis: RedisConnection, data_dir: Path, archive: Path
) -> None:
    await redis.call("SET", "secret", 1)
    prepared = archive.with_name(f"{archive.name}.part")
    prepared.write_text("readable by all")
    prepared.chmod(0o644)
    write_backup(data_dir, archive)
    assert mode(archive) == 0o600
    assert prepared.read_text() == "readable by all"


def test_a_backup_replaces_nothing(data_dir: Path, archive: Path) -> None:
    data_dir.mkdir()
    (data_dir / MARKER).touch()
    archive.write_text("precious")
    with pytest.raises(StoreFailed, match="exists"):
        write_backup(data_dir, archive)
    assert archive.read_text() == "precious"


async def test_a_backup_that_fails_leaves_nothing(
    redis: RedisConnection,
    data_dir: Path,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await redis.call("SET", "n", 7)

    def full(self: object, member: object, file: object) -> None:
        raise OSError(28, "No space left on device", str(archive))

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        write_backup(data_dir, archive)
    assert [path for path in archive.parent.iterdir() if "backup" in path.name] == []


def test_a_directory_without_a_store_is_refused(data_dir: Path, archive: Path) -> None:
    data_dir.mkdir()
    with pytest.raises(StoreFailed, match="contains no store"):
        write_backup(data_dir, archive)


async def test_a_store_is_never_replaced(
    redis: RedisConnection, data_dir: Path, archive: Path
) -> None:
    await redis.call("SET", "n", 7)
    write_backup(data_dir, archive)
    with pytest.raises(StoreFailed, match="contains a store"):
        restore_backup(archive, data_dir)
    assert await redis.call("GET", "n") == b"7"


async def test_what_is_left_of_a_log_is_never_removed(
    redis: RedisConnection, data_dir: Path, archive: Path, empty: Path
) -> None:
    await redis.call("SET", "n", 7)
    write_backup(data_dir, archive)
    left = empty / "appendonlydir" / "appendonly.aof.1.incr.aof"
    left.parent.mkdir()
    left.write_text("precious")
    with pytest.raises(StoreFailed, match="parts of one"):
        restore_backup(archive, empty)
    assert left.read_text() == "precious"


class TestDamage:
    """Archives that are not what was written, and what is left of a restore."""

    @pytest.fixture
    async def archive(
        self, redis: RedisConnection, data_dir: Path, archive: Path
    ) -> Path:
        await redis.call("SET", "n", "x" * 10_000)
        write_backup(data_dir, archive)
        return archive

    def refused(self, archive: Path, empty: Path, match: str) -> None:
        with pytest.raises(StoreFailed, match=match):
            restore_backup(archive, empty)
        assert list(empty.iterdir()) == []

    def test_a_changed_byte(self, archive: Path, empty: Path) -> None:
        data = bytearray(archive.read_bytes())
        data[data.index(b"xxxx") + 5_000] ^= 1
        archive.write_bytes(data)
        self.refused(archive, empty, r"is damaged: .*incr\.aof")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.85])
    def test_an_archive_that_ends_early(
        self, share: float, archive: Path, empty: Path
    ) -> None:
        # The last members' padding is not part of the share.
        size = archive.read_bytes().rindex(b"}") + 1
        archive.write_bytes(archive.read_bytes()[: int(size * share)])
        self.refused(archive, empty, "no complete backup")

    def test_a_text(self, archive: Path, empty: Path) -> None:
        archive.write_text("not a backup")
        self.refused(archive, empty, "no complete backup")

    @pytest.mark.parametrize(
        "name", ["../evil", "/etc/evil", "appendonlydir/../../evil", "password"]
    )
    def test_a_foreign_file(
        self, name: str, archive: Path, empty: Path, tmp_path: Path
    ) -> None:
        self._add(archive, tarfile.TarInfo(name))
        self.refused(archive, empty, "it contains")
        assert not (tmp_path / "evil").exists()

    def test_a_link(self, archive: Path, empty: Path) -> None:
        link = tarfile.TarInfo("appendonlydir/link")
        link.type = tarfile.SYMTYPE
        link.linkname = "/etc/passwd"
        self._add(archive, link)
        self.refused(archive, empty, "is no file")

    def test_a_file_more_than_the_digests_name(
        self, archive: Path, empty: Path
    ) -> None:
        self._add(archive, tarfile.TarInfo("appendonlydir/more"))
        self.refused(archive, empty, "is damaged: its files")

    def _add(self, archive: Path, member: tarfile.TarInfo) -> None:
        with tarfile.open(archive, "a") as tar:
            tar.addfile(member, io.BytesIO())

    def test_an_interrupted_restore_is_no_store_and_can_be_repeated(
        self,
        archive: Path,
        empty: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        replace = Path.replace

        def interrupted(self: Path, target: Path) -> Path:
            if self.name == "appendonlydir":
                raise OSError(5, "Input/output error", str(self))
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(StoreFailed, match="Input/output error"):
            restore_backup(archive, empty)
        with pytest.raises(StoreFailed, match="is missing; restore it"):
            refuse_unusable(empty)
        monkeypatch.undo()
        restore_backup(archive, empty)
        refuse_unusable(empty)
        assert (empty / MANIFEST).exists()
        assert msgspec.json.decode((empty / MARKER).read_bytes())
