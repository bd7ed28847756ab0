"""
The data directory of the embedded store: its lock, its marker, its socket.

Knows the files below, file locks, and the maximum length of a socket's path. Knows
nothing of the server but that it listens on the socket.

The directory contains::

    lock            flock: one server at a time; the file names the holder
    valkey.sock     the server's socket; only the owner may connect
    store.json      marker: a store was served from here, so there must be a log; its
                    format, and the deployments in it
    appendonlydir/  the server's append-only log; writes are synced before the reply
    store.log       the server's log messages
    password        if it exists: what the server requires of every connection

A server without its append-only log starts empty and reports nothing. The marker
distinguishes a new directory from one that has lost its log. It repeats the records of
the deployments, by namespace, so that a directory tells whose it is without a server,
and a log that was put into another's directory is noticed.
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

from ...core.deployment import FORMAT, Deployment, format_problem
from .server_binary import StoreFailed

__all__ = [
    "LOCK",
    "LOG",
    "SOCKET",
    "DirectoryInUse",
    "drop_lock",
    "holds_store",
    "make_private",
    "mirror_deployment",
    "refuse_unusable",
    "remove_link",
    "send_command",
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
"""How long to wait for a holder of the lock that is about to exit."""
REPLY_S: Final = 1.0

_LOCK_EVERY_S: Final = 0.02
_HOLDER_BYTES_MAX: Final = 4_096


class Holder(msgspec.Struct, frozen=True):
    """The holder of a data directory, as written into its lock file."""

    supervisor: int
    """Process id of the process that started the server."""
    temporary: bool
    """Whether the server runs for one command only."""
    space: str
    """The system in which the process id is valid; see `_process_space`."""


class MarkerHead(msgspec.Struct, frozen=True):
    """What the marker of every format has; that of format 1 does not name it."""

    format: int = 1
    version: str = ""


class Marker(msgspec.Struct, frozen=True):
    """The content of the marker."""

    format: int
    created_at_ms: int
    version: str = ""
    """The version of streamer that began the format, if that is another one."""
    deployments: dict[str, Deployment] = {}
    """The records of the deployments in the store, by namespace."""


class DirectoryInUse(StoreFailed):
    """Another process serves this data directory."""

    def __init__(self, data_dir: Path, holder: Holder | None) -> None:
        who = f"process {holder.supervisor}" if holder else "a process that is starting"
        super().__init__(
            f"{data_dir} is in use by {who}; "
            "stop it, or use another directory with --data-dir"
        )


async def take_lock(data_dir: Path, *, temporary: bool, password: str = "") -> int:
    """
    Return a descriptor that holds the directory's lock, with this process in the file.

    Creates the directory if it is missing. Waits for a holder that is starting or that
    runs for one command. Shuts down an orphan, whose supervisor is dead and which may
    require `password`, and waits.

    Raises:
        DirectoryInUse: Another process holds the lock and keeps running.
        StoreFailed: The directory cannot be created or written.
    """
    lock = _open_lock(data_dir)
    try:
        await _await_lock(data_dir, lock, password)
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
    """Remove this process from the lock file and close it."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
    os.close(lock)


def holds_store(data_dir: Path) -> bool:
    """Whether a store was ever served from `data_dir`."""
    return (data_dir / MARKER).exists()


def refuse_unusable(data_dir: Path) -> None:
    """
    Raise `StoreFailed` if a store was served from here that cannot be served again.

    Its log is gone, or its data have another format.
    """
    marker = _read_marker(data_dir)
    if marker and (problem := format_problem(marker.format, marker.version)):
        other = "" if marker.format > FORMAT else ": use another data directory"
        raise StoreFailed(f"the store in {data_dir} {problem}{other}")
    if holds_store(data_dir) and not (data_dir / MANIFEST).exists():
        raise StoreFailed(
            f"{data_dir} contained a store whose log ({MANIFEST}) is missing; restore "
            f"it from a backup or, to start empty, delete {data_dir / MARKER}"
        )


def write_marker(data_dir: Path) -> None:
    """Record, durably, that a store is served from here. Call it before any write."""
    if holds_store(data_dir):
        return
    if not (data_dir / MANIFEST).exists():
        raise StoreFailed(f"the embedded store in {data_dir} writes no log")
    _write_marker(data_dir, Marker(FORMAT, time.time_ns() // 1_000_000))


def mirror_deployment(data_dir: Path, namespace: str, deployment: Deployment) -> None:
    """
    Repeat the record of a deployment in the marker of its data directory.

    Raises:
        StoreFailed: The marker names another deployment, or cannot be written.

    """
    marker = _read_marker(data_dir)
    if marker is None:
        raise StoreFailed(f"{data_dir / MARKER} is missing, but its store runs")
    known = marker.deployments.get(namespace)
    if known == deployment:
        return
    if known is not None and known.id != deployment.id:
        raise StoreFailed(
            f"{data_dir / MARKER} names {known} for the namespace {namespace!r}, and "
            f"the log beside it holds {deployment}: restore the log and {MARKER} from "
            f"the same backup or, to keep this log, delete {data_dir / MARKER}"
        )
    deployments = {**marker.deployments, namespace: deployment}
    try:
        _write_marker(
            data_dir, msgspec.structs.replace(marker, deployments=deployments)
        )
    except OSError as exc:
        raise _unusable(data_dir, exc) from exc


def socket_path(data_dir: Path) -> Path:
    """
    Return the path of the server's socket, by a short link if `data_dir` is too long.

    Each process that connects creates the link, because a service with a private
    ``/tmp`` and a shell on the same machine do not see each other's links.
    """
    path = data_dir / SOCKET
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        link = _short_link(data_dir)
        make_private(link.parent)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(data_dir)
        path = link / SOCKET
    return path


def socket_url(path: Path) -> str:
    """Return the URL of a socket for a Redis client."""
    return f"unix://{quote(str(path))}"


def remove_link(data_dir: Path) -> None:
    """Remove the short link to `data_dir`, if `socket_path` has created one."""
    with contextlib.suppress(OSError):
        _short_link(data_dir).unlink()


async def send_command(path: Path, command: bytes, password: str = "") -> bytes:
    """
    Return the first line of the server's reply, or b"" if there is none.

    With a password it authenticates first; the reply is that to AUTH if that fails.
    """
    try:
        async with asyncio.timeout(REPLY_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                if password:
                    writer.write(f"AUTH {password}\r\n".encode())
                    if not (reply := await reader.readline()).startswith(b"+OK"):
                        return reply
                writer.write(command + b"\r\n")
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return b""


def _read_marker(data_dir: Path) -> Marker | None:
    path = data_dir / MARKER
    try:
        encoded = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise StoreFailed(f"cannot read {path}: {exc.strerror}") from exc
    try:
        head = msgspec.json.decode(encoded, type=MarkerHead)
        if head.format != FORMAT:
            return Marker(head.format, 0, head.version)
        return msgspec.json.decode(encoded, type=Marker)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise StoreFailed(
            f"{path} is not valid: {exc}; restore it from a backup, or delete it if "
            "the log beside it is the right one"
        ) from exc


def _write_marker(data_dir: Path, marker: Marker) -> None:
    """Write the marker durably. After a crash the old or the new one is there."""
    new = data_dir / f"{MARKER}.{os.getpid()}"
    with open(new, "wb") as file:
        file.write(msgspec.json.encode(marker))
        file.flush()
        os.fsync(file.fileno())
    new.replace(data_dir / MARKER)
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _open_lock(data_dir: Path) -> int:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise _unusable(data_dir, exc) from exc


def _unusable(data_dir: Path, exc: OSError) -> StoreFailed:
    return StoreFailed(f"cannot use the data directory {data_dir}: {exc.strerror}")


async def _await_lock(data_dir: Path, lock: int, password: str) -> None:
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
            await send_command(socket_path(data_dir), b"SHUTDOWN", password)
        leaving = holder is None or holder.temporary or orphaned
        if not leaving or time.monotonic() > deadline:
            raise DirectoryInUse(data_dir, holder)
        await asyncio.sleep(_LOCK_EVERY_S)


def _read_holder(lock: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(lock, _HOLDER_BYTES_MAX, 0), type=Holder)
    except msgspec.DecodeError:
        return None  # It has the lock and has not written the file yet.


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
    Return an identifier of the system in which process ids are unique.

    Containers that share a directory do not see each other's processes, and must not
    mistake a running server for an orphan. Empty if the system has no such identifier.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # Not Linux, so there are no such containers.
        return ""


def _short_link(data_dir: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:32]
    return Path(f"/tmp/streamer-{os.geteuid()}", digest)


def make_private(directory: Path) -> None:
    """
    Create a directory that only this user can read, or make it so.

    Raises:
        StoreFailed: It belongs to another user.
        OSError: It cannot be created.

    """
    # Any user can create names in /tmp, so an existing directory has to be our own.
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise StoreFailed(f"{directory} belongs to another user; remove it")
    if stat.S_IMODE(status.st_mode) != 0o700:
        directory.chmod(0o700)
