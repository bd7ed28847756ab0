"""
Worker processes, as their supervisor starts, watches and ends them.

Decides how a process is started, when its heartbeats are overdue, and how long it may
take to end. Knows processes and signals, and the supervisor's end of the control
channel. Knows nothing of slots, nor of the consequences of a worker's end.

A worker is the command `streamer worker`, in a process with its own interpreter. It
inherits its listening sockets. A worker whose heartbeats are overdue is killed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from asyncio import FIRST_COMPLETED
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ..metrics.exposition import Family
from .control_channel import HEARTBEAT, READY, StartMessage

__all__ = ["Worker", "Workers"]

_logger = logging.getLogger(__name__)

HEARTBEAT_TIMEOUT_S: Final = 30.0
"""After six missing heartbeats a worker's event loop is considered blocked."""

END_GRACE_S: Final = 8.0
"""How long a worker may take to end beyond its drain window."""

METRICS_MESSAGE_BYTES_MAX: Final = 16_777_216
"""Metrics of a worker are some ten thousand bytes."""


class Worker:
    """A started worker process."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader
    ) -> None:
        self.pid = process.pid
        self.ready_at_s: float | None = None
        """When it became ready, by the event loop's clock; None before."""
        self.metrics: list[Family] = []
        """The metrics of its last heartbeat."""
        self._process = process
        self._reader = reader
        self._ready = asyncio.Event()
        self.ended = asyncio.create_task(
            self._read_messages(), name=f"worker {process.pid}"
        )
        """Done when the process has ended; its result is the exit status."""

    async def started(self) -> bool:
        """Wait until it is ready; return False if it ended before."""
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({waiting, self.ended}, return_when=FIRST_COMPLETED)
        finally:
            waiting.cancel()
            # A task that nobody waits for outlives the loop that it belongs to.
            await asyncio.wait([waiting])
        return self._ready.is_set()

    def send_signal(self, number: int) -> None:
        # Another thread waits for the process; Popen allows that.
        self._process.send_signal(number)

    async def _read_messages(self) -> int:
        """Read its messages until it has ended; return its exit status."""
        try:
            while True:
                async with asyncio.timeout(HEARTBEAT_TIMEOUT_S):
                    message = await self._reader.readline()
                if not message:
                    break
                if message == READY:
                    self.ready_at_s = asyncio.get_running_loop().time()
                    self._ready.set()
                elif message != HEARTBEAT:
                    self.metrics = msgspec.json.decode(message, type=list[Family])
        except TimeoutError:
            _logger.error("worker process %d sends no heartbeats: killing it", self.pid)
            self._process.kill()
        except ConnectionError:
            pass
        return await asyncio.to_thread(self._process.wait)


class Workers:
    """
    All worker processes, including those that are stopping.

    Args:
        drain_s: How long a worker may take to drain its streams.

    """

    def __init__(self, *, drain_s: float) -> None:
        self._drain_s = drain_s
        self._running: set[Worker] = set()

    async def start(
        self, start_message: StartMessage, sockets: Sequence[socket.socket]
    ) -> Worker:
        """Start a worker that listens on `sockets`. It is not ready on return."""
        fds = [sock.fileno() for sock in sockets]
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(
                sock=ours, limit=METRICS_MESSAGE_BYTES_MAX
            )
            # There is no await from here on: every started process is registered.
            process = subprocess.Popen(  # noqa: ASYNC220  # it does not block
                [*_python(), "worker", str(theirs.fileno()), *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *fds),
                # Ctrl-C goes to this process only, which drains its workers.
                process_group=0,
            )
        writer.write(msgspec.json.encode(start_message) + b"\n")
        worker = Worker(process, reader)
        self._running.add(worker)

        def forget(task: asyncio.Task[int]) -> None:
            self._running.discard(worker)
            writer.close()

        worker.ended.add_done_callback(forget)
        return worker

    async def drain(self, worker: Worker) -> None:
        """Let a worker drain and end; kill it if it does not end in time."""
        await self._drain([worker])

    async def drain_all(self) -> None:
        """Let all workers drain and end; kill those that do not end in time."""
        await self._drain(list(self._running))

    def terminate_now(self) -> None:
        """Let all workers end without a drain, or without the rest of one."""
        # Two signals of one kind may arrive as one.
        for worker in self._running:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)

    async def ended(self) -> None:
        """Wait for the end of all workers; kill those that do not end in time."""
        await self._wait_for(list(self._running))

    async def _drain(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        await self._wait_for(workers)

    async def _wait_for(self, workers: Sequence[Worker]) -> None:
        ends = {worker.ended: worker for worker in workers}
        if not ends:
            return
        _, unfinished = await asyncio.wait(ends, timeout=self._drain_s + END_GRACE_S)
        for end in unfinished:
            _logger.error("worker process %d did not end: killing it", ends[end].pid)
            ends[end].send_signal(signal.SIGKILL)
        if unfinished:
            await asyncio.wait(unfinished)


def _python() -> list[str]:
    """Return the command line of this program, without arguments."""
    # `-m` prepends the working directory to the module path, where another package may
    # have our name. An installed command does not, so neither does this.
    package = Path(__file__).parent.parent
    runs_from_source = Path(sys.path[0] or ".").resolve() == package.parent.resolve()
    return [sys.executable, *([] if runs_from_source else ["-P"]), "-m", package.name]
