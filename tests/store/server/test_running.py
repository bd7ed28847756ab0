"""Records of the data directories that are being served."""

from __future__ import annotations

import stat
from pathlib import Path

from streamer.store.server import directory
from streamer.store.server.running import (
    is_running,
    recorded_as_running,
    running_directories,
)


def records(tmp: Path) -> list[Path]:
    return list(tmp.glob("streamer-*/running/*"))


async def test_a_directory_is_listed_while_its_lock_is_held(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    lock = await directory.take_lock(data_dir, temporary=False)
    with recorded_as_running(data_dir, tmp_path):
        assert running_directories(tmp_path) == [data_dir]
        assert is_running(data_dir)

        # As after a kill: the record stays, and the lock is free.
        directory.drop_lock(lock)

        assert running_directories(tmp_path) == []
        assert not is_running(data_dir)
    assert records(tmp_path) == []


def test_nothing_is_listed_where_nothing_was_recorded(tmp_path: Path) -> None:
    assert running_directories(tmp_path / "missing") == []
    assert not is_running(tmp_path / "missing")


def test_records_are_private(tmp_path: Path) -> None:
    with recorded_as_running(tmp_path / "data", tmp_path):
        (record,) = records(tmp_path)
        for folder in (record.parent, record.parent.parent):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_record_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with recorded_as_running(tmp_path / "data", tmp_path / "file"):
        assert running_directories(tmp_path / "file") == []
