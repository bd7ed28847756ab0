"""
The data directory of the embedded store: its lock, its marker, its socket's path.

Knows the files below, file locks and how long a socket's path may be. Knows nothing
of the server but that it listens on the socket.

The directory holds::

    lock            flock: one server at a time; its text says who holds it
    valkey.sock     where the server listens; only the owner may connect
    store.json      marker: a store was served from here, so a log must be here
    appendonlydir/  the server's log: every write is synced before its reply
    store.log       the server's own words

A server whose log is gone starts empty without a word; the marker is what tells a new
directory from one that lost its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from .server_binary import StoreFailed

__all__ = [
    "LOG",
    "SOCKET",
    "DirectoryInUse",
    "ask",
    "drop_lock",
    "holds_store",
    "refuse_lost_log",
    "remove_link",
    "socket_path",
    "socket_url",
    "take_lock",
    "write_marker",
]

LOCK: Final = "lock"
SOCKET: Final = "valkey.sock"
MARKER: Final = "store.json"
LOG: Final = "store.log"
MANIFEST: Final = "appendonlydir/appendonly.aof.manifest"

SOCKET_PATH_BYTES_MAX: Final = 100
"""`sun_path` has 108 bytes on Linux and 104 on macOS, both with the final NUL."""

LOCK_WAIT_S: Final = 10.0
"""How long to wait for a holder of the lock that is about to go."""
ANSWER_S: Final = 1.0

_LOCK_EVERY_S: Final = 0.02
_HOLDER_BYTES_MAX: Final = 4_096


class Holder(msgspec.Struct, frozen=True):
    """Who holds a data directory, as written into its lock file."""

    supervisor: int
    """Process that started the server."""
    temporary: bool
    """Whether it will be gone after one command."""
    space: str
    """Where its process id means something; see `_process_space`."""


class DirectoryInUse(StoreFailed):
    """Another process serves this data directory."""

    def __init__(self, data_dir: Path, holder: Holder | None) -> None:
        who = f"process {holder.supervisor}" if holder else "a process that is starting"
        super().__init__(
            f"{data_dir} is in use by {who}; one server at a time can have it. "
            "Stop that one, or choose another directory with --data-dir"
        )


async def take_lock(data_dir: Path, *, temporary: bool) -> int:
    """
    Return a descriptor that holds the directory's lock, with our name in the file.

    Makes the directory if need be. Waits for a holder that is starting, that is there
    for one command, or whose supervisor is dead; such an orphan is shut down.

    Raises:
        DirectoryInUse: Somebody holds it and stays.
        StoreFailed: The directory cannot be made or written.
    """
    lock = _open_lock(data_dir)
    try:
        await _await_lock(data_dir, lock)
        os.ftruncate(lock, 0)
        holder = Holder(os.getpid(), temporary, _process_space())
        os.pwrite(lock, msgspec.json.encode(holder), 0)
    except OSError as exc:
        os.close(lock)
        raise _unusable(data_dir, exc) from exc
    except BaseException:
        os.close(lock)
        raise
    return lock


def drop_lock(lock: int) -> None:
    """Take our name out of the lock file and close it."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
    os.close(lock)


def holds_store(data_dir: Path) -> bool:
    """Whether a store was ever served from `data_dir`."""
    return (data_dir / MARKER).exists()


def refuse_lost_log(data_dir: Path) -> None:
    """Raise `StoreFailed` if a store was served from here and its log is gone."""
    if holds_store(data_dir) and not (data_dir / MANIFEST).exists():
        raise StoreFailed(
            f"{data_dir} held a store, and its log ({MANIFEST}) is gone. Bring it "
            f"back from a copy; or, to start empty, remove {data_dir / MARKER}"
        )


def write_marker(data_dir: Path) -> None:
    """Note that a store is served from here, for good, before anybody writes to it."""
    marker = data_dir / MARKER
    if marker.exists():
        return
    if not (data_dir / MANIFEST).exists():
        raise StoreFailed(f"the embedded store in {data_dir} does not keep a log")
    with open(marker, "xb") as file:
        file.write(msgspec.json.encode({"created_at_ms": time.time_ns() // 1_000_000}))
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def socket_path(data_dir: Path) -> Path:
    """
    Return the server's socket in `data_dir`, through a short link if that is deep.

    The link is made by whoever connects: a service with a private ``/tmp`` and a shell
    beside it do not see each other's.
    """
    path = data_dir / SOCKET
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        link = _short_link(data_dir)
        _make_private(link.parent)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(data_dir)
        path = link / SOCKET
    return path


def socket_url(path: Path) -> str:
    """Return the URL of a socket as a Redis client reads it."""
    return f"unix://{quote(str(path))}"


def remove_link(data_dir: Path) -> None:
    """Remove the short link to `data_dir`, if `socket_path` made one."""
    with contextlib.suppress(OSError):
        _short_link(data_dir).unlink()


async def ask(path: Path, command: bytes) -> bytes:
    """Return the first line the server answers, or nothing where it does not."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(command + b"\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


def _open_lock(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise _unusable(data_dir, exc) from exc


def _unusable(data_dir: Path, exc: OSError) -> StoreFailed:
    return StoreFailed(f"the data directory {data_dir} cannot be used: {exc.strerror}")


async def _await_lock(data_dir: Path, lock: int) -> None:
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(lock)
        else:
            return
        orphaned = holder is not None and _is_dead(holder)
        if orphaned:
            await ask(socket_path(data_dir), b"SHUTDOWN")
        leaving = holder is None or holder.temporary or orphaned
        if not leaving or time.monotonic() > deadline:
            raise DirectoryInUse(data_dir, holder)
        await asyncio.sleep(_LOCK_EVERY_S)


def _read_holder(lock: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(lock, _HOLDER_BYTES_MAX, 0), type=Holder)
    except msgspec.DecodeError:
        return None  # It took the lock and has not written its name yet.


def _is_dead(holder: Holder) -> bool:
    if holder.space != _process_space():
        return False
    try:
        os.kill(holder.supervisor, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _process_space() -> str:
    """
    Return what a process id is unique in, as far as the system tells.

    Containers that share a directory do not see each other's processes, and must not
    take a living server for an orphan.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # Not Linux, where there are no such containers.
        return ""


def _short_link(data_dir: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:32]
    return Path(f"/tmp/streamer-{os.geteuid()}", digest)


def _make_private(directory: Path) -> None:
    # Anybody can make names in /tmp: what is there already has to be ours.
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StoreFailed(f"{directory} belongs to somebody else; remove it")
    if stat.S_IMODE(status.st_mode) != 0o700:
        directory.chmod(0o700)
