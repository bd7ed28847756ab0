"""
The embedded store: a private Valkey that this process starts, watches and stops.

Knows processes, signals and the options that make a server durable. Knows nothing of
its content. `directory` manages the files and the lock.

This module handles the following pitfalls:

- The server takes no lock, and two servers on one directory destroy the log. The child
  inherits the locked descriptor, so the lock is held until the server itself exits,
  however its supervisor has ended.
- A child survives a killed parent. On Linux the kernel ends it with the thread that
  started it, which therefore has to be the main thread. Elsewhere the next start finds
  the orphan by the lock and shuts it down.
- Ctrl-C reaches the whole process group, and the store has to outlive the drain, so the
  server gets a process group of its own.
- The path of a socket has at most about 100 bytes, and data directories may be longer.
  The server binds relative to its working directory; clients use a short link.
- A server that cannot read its append-only log reports that in its log file only, so
  the error of a failed start quotes the end of that file.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from ...core.store_health import DISK_FULL_LIMIT
from . import directory, disk
from .directory import DirectoryInUse
from .disk import DiskState
from .password import with_password
from .server_binary import StoreFailed, find_server

__all__ = ["DirectoryInUse", "Embedded", "StoreFailed", "attach"]

STOP_S: Final = 10.0
"""How long a server may take to sync and close its log before it is killed."""
START_S: Final = 30.0
"""How long a starting server may not respond. While it loads its log, it does."""
LOG_BYTES_MAX: Final = 1_048_576

_logger = logging.getLogger(__name__)

LOGGED: Final = (
    *("--appendonly", "yes", "--save", ""),
    *("--maxmemory-policy", "noeviction"),
)
"""With ``--appendfsync always``, acknowledged writes survive a kill and a power cut."""

_REWRITE_PERCENTAGE: Final = 100
"""The store's default: it rewrites its log when that has doubled."""

_PING_EVERY_S: Final = 0.002
_FIND_EVERY_S: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1
_TAIL_LINES: Final = 5
_TAIL_BYTES: Final = 8_192
_LOG_PREFIX = re.compile(
    r"^\d+:(signal-handler \(\d+\)|\S+ \d+ \w+ \d+ [\d:.]+ [.*#-]) "
)
# Messages of every start, whether or not something is wrong.
_NOISE = re.compile(
    "Memory overcommit|oO0OoO0OoO0Oo|version=|Configuration loaded|Server initialized"
)


class Embedded:
    """
    A private server process; the module describes the pitfalls that it avoids.

    Created by `start`. The caller has to watch `wait`, because the host has to end with
    its store, and to call `stop`.
    """

    def __init__(
        self,
        data_dir: Path,
        process: subprocess.Popen[bytes],
        *,
        lock: int,
        log_start: int,
        memory: int = 0,
    ) -> None:
        self.data_dir = data_dir
        self._socket = directory.socket_path(data_dir)
        self.url = directory.socket_url(self._socket)
        self._process = process
        self._lock: int | None = lock
        self._memory = memory
        self._password = ""
        self._disk = DiskState(is_full=False, may_rewrite=True)
        self._watching: asyncio.Task[None] | None = None
        self._log_start = log_start
        self._ended: Future[int] = Future()
        # A running future cannot be cancelled, so a cancelled waiter does not cancel it
        # for the others.
        self._ended.set_running_or_notify_cancel()
        threading.Thread(
            target=lambda: self._ended.set_result(process.wait()),
            name="embedded-store",
            daemon=True,
        ).start()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        port: int = 0,
        fsync: str = "always",
        memory: int = 0,
        password: str = "",
        temporary: bool = False,
        binary: Path | None = None,
    ) -> Embedded:
        """
        Start a server on `data_dir`, and return when it responds.

        Creates the directory if it is missing. Must be called from the main thread: on
        Linux the server ends with the thread that started it.

        Args:
            data_dir: Directory of the store's data.
            port: Port of 127.0.0.1 to listen on, in addition to the socket; 0 for none.
            fsync: When a write reaches the disk: ``always`` before its reply,
                ``everysec`` within two seconds.
            memory: Limit of the memory for data, in bytes; 0 for none. A store that is
                full starts, and refuses commands that take memory.
            password: What the server requires of every connection, also over the
                socket; empty for nothing. A server with a port should have one.
            temporary: Whether the server runs for one command. Another start on the
                same directory then waits instead of failing.
            binary: Server program to use instead of the one that is found.

        Raises:
            DirectoryInUse: Another process serves the directory.
            StoreFailed: The server cannot run; quotes its log messages.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded store starts from the main thread only")
        binary = binary or find_server()
        data_dir = _absolute(data_dir)
        lock = await directory.take_lock(
            data_dir, temporary=temporary, password=password
        )
        try:
            directory.refuse_unusable(data_dir)
            embedded = _spawn(binary, data_dir, lock, fsync=fsync, memory=memory)
        except BaseException:
            directory.drop_lock(lock)
            raise
        try:
            await embedded._wait_ready()
            directory.write_marker(data_dir)
            await embedded._open(port, password)
            # Before the first write: on a disk that is full already, too.
            await embedded._check_disk()
            embedded._watching = asyncio.create_task(
                embedded._watch_disk(), name="disk of the store"
            )
        except BaseException:
            await embedded.stop()
            raise
        return embedded

    async def wait(self) -> int:
        """Return the server's exit status when it exits; negative for a signal."""
        return await asyncio.wrap_future(self._ended)

    async def stop(self) -> None:
        """
        Stop the server and unlock the directory. Idempotent.

        SIGTERM lets the server sync and close its log; SIGKILL follows after `STOP_S`.
        """
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        try:
            if not self._ended.done():
                self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self.wait()
        finally:
            if self._lock is not None:
                directory.drop_lock(self._lock)
                directory.remove_link(self.data_dir)
                self._lock = None

    def log_tail(self) -> str:
        """Return the last lines that the server has logged since its start."""
        try:
            with open(self.data_dir / directory.LOG, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [_LOG_PREFIX.sub("", line).strip() for line in text.splitlines()]
        messages = [line for line in lines if line and not _NOISE.search(line)]
        return "\n".join(messages[-_TAIL_LINES:])

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            reply = await directory.send_command(self._socket, b"PING")
            if reply.startswith(b"+PONG"):
                return
            if reply:  # It is loading its log, which may take long.
                deadline = time.monotonic() + START_S
            if self._ended.done():
                self._fail(f"did not start (status {self._ended.result()})")
            if time.monotonic() > deadline:
                self._fail(f"did not respond within {START_S:.0f} s")
            await asyncio.sleep(_PING_EVERY_S)

    async def _open(self, port: int, password: str) -> None:
        """Require the password, and then listen on the port."""
        # Not by options of the command, which other users can read.
        commands = [("requirepass", password)] if password else []
        commands += [("port", str(port))] if port else []
        authenticated = ""
        for name, value in commands:
            reply = await directory.send_command(
                self._socket, f"CONFIG SET {name} {value}".encode(), authenticated
            )
            if not reply.startswith(b"+OK"):
                words = reply.decode(errors="replace").strip()
                shown = f"port {port}" if name == "port" else name
                self._fail(f"does not accept {shown}: {words}")
            authenticated = password
        self._password = password
        if password:
            self.url = with_password(self.url, password)

    async def _watch_disk(self) -> None:
        while True:
            await asyncio.sleep(disk.CHECK_S)
            await self._check_disk()

    async def _check_disk(self) -> None:
        """Have the store refuse what takes space while the disk has no more of it."""
        try:
            found = await asyncio.to_thread(disk.read_disk, self.data_dir)
        except OSError as exc:
            # The store says so itself, when it writes.
            _logger.debug("cannot look at the disk of %s: %s", self.data_dir, exc)
            return
        state = disk.disk_state(found, was_full=self._disk.is_full)
        if state == self._disk:
            return
        limit = DISK_FULL_LIMIT if state.is_full else self._memory
        percentage = _REWRITE_PERCENTAGE if state.may_rewrite else 0
        words = f"maxmemory {limit} auto-aof-rewrite-percentage {percentage}"
        command = f"CONFIG SET {words}".encode()
        reply = await directory.send_command(self._socket, command, self._password)
        if not reply.startswith(b"+OK"):
            return  # It ends, or is busy. The next look tries again.
        before, self._disk = self._disk, state
        free_mib = found.free / 2**20
        if state.is_full and not before.is_full:
            _logger.error(
                "the disk of %s has only %.1f MiB left: the store refuses publishes, "
                "schedules and joins, and serves the rest. Free space",
                *(self.data_dir, free_mib),
            )
        elif before.is_full and not state.is_full:
            _logger.warning(
                "the disk of %s has %.1f MiB: the store takes publishes again",
                *(self.data_dir, free_mib),
            )
        elif before.may_rewrite and not state.may_rewrite:
            _logger.warning(
                "the disk of %s has only %.1f MiB left: the store does not rewrite its "
                "log of %.1f MiB",
                *(self.data_dir, free_mib, found.log / 2**20),
            )

    def _fail(self, how: str) -> None:
        messages = self.log_tail() or "no log messages"
        raise StoreFailed(f"the embedded store in {self.data_dir} {how}: {messages}")


@contextlib.asynccontextmanager
async def attach(
    data_dir: Path, *, memory: int = 0, password: str = ""
) -> AsyncIterator[str]:
    """
    Give the URL of the store in `data_dir`.

    A server that runs on the directory is used and keeps running. Otherwise one is
    started for the duration of the context, with the limit `memory`. Either requires
    the `password`, if there is one.

    Raises:
        StoreFailed: A running server does not respond, or none can be started.
    """
    url, embedded = await _start_or_find(data_dir, memory, password)
    try:
        yield url
    finally:
        if embedded is not None:
            await embedded.stop()


async def _start_or_find(
    data_dir: Path, memory: int, password: str
) -> tuple[str, Embedded | None]:
    # A running server may be starting or stopping; soon it responds or has exited.
    deadline = time.monotonic() + directory.LOCK_WAIT_S
    while True:
        try:
            embedded = await Embedded.start(
                data_dir, memory=memory, password=password, temporary=True
            )
        except DirectoryInUse as exc:
            path = directory.socket_path(_absolute(data_dir))
            reply = await directory.send_command(path, b"PING", password)
            if reply.startswith(b"+PONG"):
                url = directory.socket_url(path)
                return (with_password(url, password) if password else url), None
            if time.monotonic() > deadline:
                words = reply.decode(errors="replace").strip() or "no response"
                raise StoreFailed(
                    f"{exc}; it does not respond at {path} ({words})"
                ) from exc
        else:
            return embedded.url, embedded
        await asyncio.sleep(_FIND_EVERY_S)


def _absolute(data_dir: Path) -> Path:
    return data_dir.expanduser().absolute()


def _spawn(
    binary: Path, data_dir: Path, lock: int, *, fsync: str, memory: int
) -> Embedded:
    network = ("--port", "0", "--bind", "127.0.0.1")
    listen = (*network, "--unixsocket", directory.SOCKET, "--unixsocketperm", "700")
    log_options = (*LOGGED, "--appendfsync", fsync)
    limit = ("--maxmemory", str(memory))
    command = (str(binary), *listen, *log_options, *limit, "--loglevel", "warning")
    try:
        with open(data_dir / directory.LOG, "ab") as log:
            if log.tell() > LOG_BYTES_MAX:
                log.truncate(0)
            log_start = os.fstat(log.fileno()).st_size
            process = _popen(command, data_dir, log=log.fileno(), lock=lock)
    except OSError as exc:
        raise StoreFailed(
            f"cannot start {binary} in {data_dir}: {exc.strerror}"
        ) from exc
    return Embedded(data_dir, process, lock=lock, log_start=log_start, memory=memory)


def _popen(
    command: tuple[str, ...], data_dir: Path, *, log: int, lock: int
) -> subprocess.Popen[bytes]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of a fork in a process with threads. Only one
        # system call runs between fork and exec, and it takes no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command,
            cwd=data_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            process_group=0,
            umask=0o077,  # The log contains the secrets of all apps.
            preexec_fn=_ending_with(os.getpid()),
        )


def _ending_with(parent: int) -> Callable[[], None] | None:
    """Return a function for the child to call before exec, to end with `parent`."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # Not in the forked child.

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # It has exited before the call.
            os._exit(1)

    return end_with_parent
