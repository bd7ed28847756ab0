"""
The embedded store: one private Valkey, started, watched and stopped by this process.

Knows processes, signals and the options that make a server durable. Knows nothing of
what is stored, and leaves files and the lock to `directory`.

Traps that this module is about:

- The server takes no lock of its own; two on one directory ruin the log. The child
  inherits the locked descriptor, so the lock lasts until the server itself is gone,
  however its supervisor ended.
- A child outlives a killed parent. On Linux the kernel is asked to end it with the
  thread that started it, which therefore has to be the main one. Elsewhere the next
  start finds the orphan by the lock and shuts it down.
- Ctrl-C reaches the whole process group, and the store has to outlive the drain: the
  server gets a group of its own.
- A socket's path may have about 100 bytes and data directories are deep. The server
  binds relative to its working directory; clients go through a short link.
- A server that cannot read its log says so in its own log file only: a failed start
  carries those lines in its error.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
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

from . import directory
from .directory import DirectoryInUse
from .server_binary import StoreFailed, find_server

__all__ = ["DirectoryInUse", "Embedded", "StoreFailed", "attach"]

STOP_S: Final = 10.0
"""How long a stopping server may take to sync and close its log."""
START_S: Final = 30.0
"""How long a starting server may be silent. While it reads its log it is not."""
LOG_BYTES_MAX: Final = 1_048_576

LOGGED: Final = (
    *("--appendonly", "yes", "--save", ""),
    *("--maxmemory-policy", "noeviction"),
)
"""With ``--appendfsync always`` an answered write survives a kill and a power cut."""

_PING_EVERY_S: Final = 0.002
_FIND_EVERY_S: Final = 0.05
_PR_SET_PDEATHSIG: Final = 1
_TAIL_LINES: Final = 5
_TAIL_BYTES: Final = 8_192
_LOG_PREFIX = re.compile(
    r"^\d+:(signal-handler \(\d+\)|\S+ \d+ \w+ \d+ [\d:.]+ [.*#-]) "
)
# What servers say on every start, whether or not something is wrong.
_NOISE = re.compile(
    "Memory overcommit|oO0OoO0OoO0Oo|version=|Configuration loaded|Server initialized"
)


class Embedded:
    """
    A private server process; see the module for the traps it avoids.

    Made by `start`. Whoever starts one watches `wait` (a store that dies has to take
    its host with it) and calls `stop`.
    """

    def __init__(
        self,
        data_dir: Path,
        process: subprocess.Popen[bytes],
        *,
        lock: int,
        log_start: int,
    ) -> None:
        self.data_dir = data_dir
        self._socket = directory.socket_path(data_dir)
        self.url = directory.socket_url(self._socket)
        self._process = process
        self._lock: int | None = lock
        self._log_start = log_start
        self._ended: Future[int] = Future()
        # A running future cannot be cancelled, so one waiter that is cancelled does
        # not take the answer away from the others.
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
        temporary: bool = False,
        binary: Path | None = None,
    ) -> Embedded:
        """
        Start a server on `data_dir` and return when it answers.

        Makes the directory if need be. Call it from the main thread: on Linux the
        server ends with the thread that started it.

        Args:
            data_dir: Where the store is kept.
            port: Port of 127.0.0.1 to listen on as well; 0 is none.
            fsync: When a write reaches the disk: ``always`` is before its reply,
                ``everysec`` within two seconds.
            temporary: Whether the server is for one command. Whoever finds the
                directory held by such a one waits instead of giving up.
            binary: Server program to run instead of the one that is found.

        Raises:
            DirectoryInUse: It is served by another process.
            StoreFailed: The server cannot run there; says why, in its own words.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded store starts from the main thread only")
        binary = binary or find_server()
        data_dir = _absolute(data_dir)
        lock = await directory.take_lock(data_dir, temporary=temporary)
        try:
            directory.refuse_lost_log(data_dir)
            embedded = _spawn(binary, data_dir, lock, port=port, fsync=fsync)
        except BaseException:
            directory.drop_lock(lock)
            raise
        try:
            await embedded._answering()
            directory.write_marker(data_dir)
        except BaseException:
            await embedded.stop()
            raise
        return embedded

    async def wait(self) -> int:
        """Return the server's exit status when it ends; negative is a signal."""
        return await asyncio.wrap_future(self._ended)

    async def stop(self) -> None:
        """
        End the server and give the directory free; again is harmless.

        SIGTERM lets it sync and close its log; SIGKILL follows after `STOP_S`.
        """
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

    def last_words(self) -> str:
        """Return the last lines the server logged since its start, without noise."""
        try:
            with open(self.data_dir / directory.LOG, "rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [_LOG_PREFIX.sub("", line).strip() for line in text.splitlines()]
        said = [line for line in lines if line and not _NOISE.search(line)]
        return "\n".join(said[-_TAIL_LINES:])

    async def _answering(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            answer = await directory.ask(self._socket, b"PING")
            if answer.startswith(b"+PONG"):
                return
            if answer:  # It is reading its log, which takes as long as it takes.
                deadline = time.monotonic() + START_S
            if self._ended.done():
                self._fail(f"did not start (status {self._ended.result()})")
            if time.monotonic() > deadline:
                self._fail(f"gave no answer within {START_S:.0f} s")
            await asyncio.sleep(_PING_EVERY_S)

    def _fail(self, how: str) -> None:
        said = self.last_words() or "it said nothing"
        raise StoreFailed(f"the embedded store in {self.data_dir} {how}: {said}")


@contextlib.asynccontextmanager
async def attach(data_dir: Path) -> AsyncIterator[str]:
    """
    Give the URL of the store in `data_dir`, running or not.

    Where a server runs on it, that one is used and left alone. Otherwise one is
    started for as long as the context lasts.

    Raises:
        StoreFailed: There is a server and it does not answer, or none can be started.
    """
    url, embedded = await _start_or_find(data_dir)
    try:
        yield url
    finally:
        if embedded is not None:
            await embedded.stop()


async def _start_or_find(data_dir: Path) -> tuple[str, Embedded | None]:
    # The one that runs may be starting or stopping: it answers soon, or it is gone.
    deadline = time.monotonic() + directory.LOCK_WAIT_S
    while True:
        try:
            embedded = await Embedded.start(data_dir, temporary=True)
        except DirectoryInUse as exc:
            path = directory.socket_path(_absolute(data_dir))
            if (await directory.ask(path, b"PING")).startswith(b"+PONG"):
                return directory.socket_url(path), None
            if time.monotonic() > deadline:
                raise StoreFailed(f"{exc}; it does not answer at {path}") from exc
        else:
            return embedded.url, embedded
        await asyncio.sleep(_FIND_EVERY_S)


def _absolute(data_dir: Path) -> Path:
    return data_dir.expanduser().absolute()


def _spawn(
    binary: Path, data_dir: Path, lock: int, *, port: int, fsync: str
) -> Embedded:
    network = ("--port", str(port), "--bind", "127.0.0.1") if port else ("--port", "0")
    listen = (*network, "--unixsocket", directory.SOCKET, "--unixsocketperm", "700")
    log_options = (*LOGGED, "--appendfsync", fsync)
    command = (str(binary), *listen, *log_options, "--loglevel", "warning")
    try:
        with open(data_dir / directory.LOG, "ab") as log:
            if log.tell() > LOG_BYTES_MAX:
                log.truncate(0)
            log_start = os.fstat(log.fileno()).st_size
            process = _popen(command, data_dir, log=log.fileno(), lock=lock)
    except OSError as exc:
        raise StoreFailed(
            f"{binary} cannot be started in {data_dir}: {exc.strerror}"
        ) from exc
    return Embedded(data_dir, process, lock=lock, log_start=log_start)


def _popen(
    command: tuple[str, ...], data_dir: Path, *, log: int, lock: int
) -> subprocess.Popen[bytes]:
    with warnings.catch_warnings():
        # Python 3.12 and later warn of a fork beside other threads. What runs between
        # fork and exec is one system call that takes no lock of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command,
            cwd=data_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            process_group=0,
            umask=0o077,  # The log holds every app's secret.
            preexec_fn=_ending_with(os.getpid()),
        )


def _ending_with(parent: int) -> Callable[[], None] | None:
    """Return what the child calls before exec so that it ends with `parent`."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # Looked up here: a forked child should not.

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # It died before the kernel was asked.
            os._exit(1)

    return end_with_parent
