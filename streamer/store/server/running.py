"""
Records of the data directories that are being served, for the commands of their user.

A command whose home directory is another than the server's would look in another data
directory, and find no store or an old one. Knows files and file locks. Knows nothing of
which directory a command uses.

A record is a file in ``streamer-<uid>/running`` below the system's directory for
temporary files, with the path of the data directory. A server that was killed leaves it
behind, so a record counts only while the directory's lock is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from .directory import LOCK, make_private
from .server_binary import StoreFailed

__all__ = ["is_running", "recorded_as_running", "running_directories"]


@contextlib.contextmanager
def recorded_as_running(data_dir: Path, tmp: Path) -> Iterator[None]:
    """
    Record a data directory for the block.

    Nothing depends on it, so a record that cannot be written is left out.

    Args:
        data_dir: The data directory; its lock is held.
        tmp: The directory for temporary files.

    """
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:32]
    record = _folder(tmp) / digest
    with contextlib.suppress(OSError, StoreFailed):
        make_private(record.parent.parent)
        make_private(record.parent)
        record.write_bytes(os.fsencode(data_dir))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            record.unlink()


def running_directories(tmp: Path) -> list[Path]:
    """Return the data directories that this user's servers are serving, sorted."""
    found = []
    with contextlib.suppress(OSError):
        for record in _folder(tmp).iterdir():
            data_dir = Path(os.fsdecode(record.read_bytes()))
            if data_dir.is_absolute() and is_running(data_dir):
                found.append(data_dir)
    return sorted(found)


def is_running(data_dir: Path) -> bool:
    """Whether a process holds the lock of a data directory."""
    try:
        lock = os.open(data_dir / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(lock)
    return False


def _folder(tmp: Path) -> Path:
    return tmp / f"streamer-{os.geteuid()}" / "running"
