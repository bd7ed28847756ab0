"""A part of the disk stays free: the rule, and the store that follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.core.store_health import DISK_FULL_LIMIT
from streamer.errors import StoreFull
from streamer.model import App, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.server import disk
from streamer.store.server.disk import Disk, DiskState, disk_state, reserve_of
from streamer.store.server.embedded import Embedded

MIB = 1_048_576
GUARD_S = 60
FULL, ROOMY = Disk(100 * MIB, 9 * MIB, 0), Disk(100 * MIB, 50 * MIB, 0)


def test_a_tenth_of_a_disk_is_kept_free_and_256_mib_at_most() -> None:
    assert reserve_of(100 * MIB) == 10 * MIB
    assert reserve_of(1_000_000 * MIB) == 256 * MIB


def test_a_full_disk_is_no_longer_full_when_a_quarter_more_is_free() -> None:
    def is_full(free: float, *, was_full: bool) -> bool:
        found = Disk(100 * MIB, int(free * MIB), 0)
        return disk_state(found, was_full=was_full).is_full

    assert is_full(9.9, was_full=False) and not is_full(10, was_full=False)
    assert is_full(12.4, was_full=True) and not is_full(12.5, was_full=True)


def test_a_log_is_rewritten_only_if_there_is_space_for_a_second_one() -> None:
    for free, expected in ((29, False), (30, True)):
        found = Disk(100 * MIB, free * MIB, 20 * MIB)
        assert disk_state(found, was_full=False) == DiskState(False, expected)


def test_a_disk_of_unknown_size_is_not_judged() -> None:
    """Some file systems of a network or a user's process report zero."""
    found = Disk(0, 0, 20 * MIB)
    assert disk_state(found, was_full=False) == DiskState(False, True)


def test_the_disk_of_a_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "one").write_bytes(bytes(1_000))
    (tmp_path / "appendonlydir" / "two").write_bytes(bytes(500))

    found = disk.read_disk(tmp_path)

    assert 0 < found.free <= found.total
    assert found.log == 1_500


async def test_a_store_refuses_publishes_while_its_disk_is_full(
    tmp_path: Path,
    store_binary: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is the same process before and after, and keeps its limit of memory."""
    found = [FULL]
    monkeypatch.setattr(disk, "read_disk", lambda _: found[0])
    monkeypatch.setattr(disk, "CHECK_S", 0.01)
    embedded = await Embedded.start(
        tmp_path / "data", binary=store_binary, memory=64 * MIB, password="secret"
    )
    redis = RedisConnection(embedded.url, name="test")
    inbox, log = Inbox(redis), Log(App("app"), Player("p"))
    try:
        # A disk that is full at the start, before anything is written.
        with pytest.raises(StoreFull):
            await inbox.append(log, [b'"body":"b"}'])
        assert await settings(redis) == [DISK_FULL_LIMIT, 0]

        found[0] = ROOMY
        await until(lambda: "takes publishes again" in caplog.text)
        assert await settings(redis) == [64 * MIB, 100]
        (stored,) = (await inbox.append(log, [b'"body":"b"}'])).stored

        found[0] = FULL
        await until(lambda: caplog.text.count("refuses publishes") == 2)
        with pytest.raises(StoreFull):
            await inbox.append(log, [b'"body":"b"}'])
        # What takes next to nothing is done.
        await inbox.mark_ids(log, [stored])
    finally:
        await redis.close()
        await embedded.stop()
    assert "has only 9.0 MiB left: the store refuses publishes" in caplog.text
    assert "has 50.0 MiB: the store takes publishes again" in caplog.text


async def settings(redis: RedisConnection) -> list[int]:
    names = "maxmemory", "auto-aof-rewrite-percentage"
    replies = [await redis.call("CONFIG", "GET", name) for name in names]
    return [int(reply[1]) for reply in replies]


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(GUARD_S):
        while not fact():  # noqa: ASYNC110 - the log has no event
            await asyncio.sleep(0.01)
