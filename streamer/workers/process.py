"""
Worker processes, seen from their supervisor: started, listened to, and ended.

Decides how a process is started, when it counts as silent, and how long it may take to
end. Knows processes and signals, and the supervisor's end of the line. Knows nothing of
which worker a process is, nor of what its end means.

A worker is `streamer worker`, a process of its own with an interpreter of its own. It
takes over the sockets it listens on. One that has gone silent is killed.
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
"""Six signs of life that did not come: its event loop stands still."""

END_GRACE_S: Final = 8.0
"""What a worker may take to end beyond its drain window."""

METRICS_MESSAGE_BYTES_MAX: Final = 16_777_216
"""A worker's metrics are a few ten thousand bytes."""


class Worker:
    """A worker process, from when it was started."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader
    ) -> None:
        self.pid = process.pid
        self.ready_at_s: float | None = None
        """When it said so, by the event loop's clock."""
        self.metrics: list[Family] = []
        """As it has last told them."""
        self._process = process
        self._reader = reader
        self._ready = asyncio.Event()
        self.ended = asyncio.create_task(
            self._read_messages(), name=f"worker {process.pid}"
        )
        """Done with its exit status when it is gone."""

    async def started(self) -> bool:
        """Wait until it is ready; False if it has ended before."""
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({waiting, self.ended}, return_when=FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return self._ready.is_set()

    def send_signal(self, number: int) -> None:
        # It is waited for in another thread, which makes no difference to Popen.
        self._process.send_signal(number)

    async def _read_messages(self) -> int:
        """Listen to it until it is gone; return its exit status."""
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
            _logger.error("worker process %d has gone silent: killing it", self.pid)
            self._process.kill()
        except ConnectionError:
            pass
        return await asyncio.to_thread(self._process.wait)


class Workers:
    """
    All worker processes there are, also those that are on their way out.

    Args:
        drain_s: How long a worker may take to send its readers away.

    """

    def __init__(self, *, drain_s: float) -> None:
        self._drain_s = drain_s
        self._running: set[Worker] = set()

    async def start(
        self, start_message: StartMessage, sockets: Sequence[socket.socket]
    ) -> Worker:
        """Start a worker that is to listen on `sockets`. It is not ready yet."""
        fds = [sock.fileno() for sock in sockets]
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(
                sock=ours, limit=METRICS_MESSAGE_BYTES_MAX
            )
            # Nothing waits from here on: a process is either known or not started.
            process = subprocess.Popen(  # noqa: ASYNC220  # it does not wait
                [*_python(), "worker", str(theirs.fileno()), *map(str, fds)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *fds),
                # Ctrl-C is for this process, which ends its workers in good order.
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
        """Let a worker drain, and kill it if it does not end."""
        await self._drain([worker])

    async def drain_all(self) -> None:
        """Let all workers drain, and kill those that do not end."""
        await self._drain(list(self._running))

    def terminate_now(self) -> None:
        """End all workers without a drain, whether or not one has begun."""
        # Two signals of one kind may arrive as one.
        for worker in self._running:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)

    async def ended(self) -> None:
        """Wait for all workers that were told to end; kill those that do not."""
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
            _logger.error("worker process %d does not end: killing it", ends[end].pid)
            ends[end].send_signal(signal.SIGKILL)
        if unfinished:
            await asyncio.wait(unfinished)


def _python() -> list[str]:
    """Return the command that runs this very program, its arguments to follow."""
    # `-m` puts the working directory in front of the modules' path, which an installed
    # command does not; there it might find another program of our name.
    package = Path(__file__).parent.parent
    runs_from_source = Path(sys.path[0] or ".").resolve() == package.parent.resolve()
    return [sys.executable, *([] if runs_from_source else ["-P"]), "-m", package.name]
