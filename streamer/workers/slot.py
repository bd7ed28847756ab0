"""
One of a node's workers, which is one process at a time.

Decides when a process is started, what follows its end, and how it is replaced. Knows
processes and their port. Knows nothing of the other workers, nor of the reason for a
replacement.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import FIRST_COMPLETED
from typing import Final

from ..errors import Error
from .control_channel import StartMessage
from .port import Port
from .process import Worker, Workers

__all__ = ["Slot", "WorkersFailed"]

_logger = logging.getLogger(__name__)

FAILURES_MAX: Final = 3
"""After so many early ends in a row a worker is not started again."""
STABLE_AFTER_S: Final = 2.0
"""A worker that ends after less than this has failed to start."""
BACK_OFF_S: Final = 0.2

_EARLY_END: Final = "ended right after its start"


class WorkersFailed(Error):
    """Workers cannot be kept running."""

    def __init__(self, index: int, status: int) -> None:
        self.index = index
        self.status = status

    def __str__(self) -> str:
        return (
            f"worker {self.index} {_EARLY_END}, {FAILURES_MAX} times in a row, the "
            f"last time with status {self.status}; see the log above"
        )


class Slot:
    """
    One worker of a node.

    Args:
        index: The number of the worker within its node.
        start_message: What its processes are sent.
        port: The port that they listen on.
        workers: Starts and ends processes.

    """

    def __init__(
        self, index: int, start_message: StartMessage, port: Port, workers: Workers
    ) -> None:
        self.index = index
        self.ready = asyncio.Event()
        """Set when its first process is ready."""
        self._start_message = start_message
        self._port = port
        self._workers = workers
        self._failures = 0
        self._worker: Worker | None = None
        """The latest process that became ready; it may have ended."""
        self._replacement_result: asyncio.Future[bool] | None = None
        self._replace_requested = asyncio.Event()
        """Set while `replace` waits for `_replacement_result`."""

    @property
    def serving(self) -> Worker | None:
        """The process that serves; None between two processes."""
        if self._worker is None or self._worker.ended.done():
            return None
        return self._worker

    async def run(self) -> None:
        """Keep a process running until cancelled. Raises WorkersFailed."""
        while True:
            worker = await self._launch()
            self.ready.set()
            while not worker.ended.done():
                requested = asyncio.create_task(self._replace_requested.wait())
                try:
                    await asyncio.wait(
                        {requested, worker.ended}, return_when=FIRST_COMPLETED
                    )
                finally:
                    requested.cancel()
                    await asyncio.wait([requested])
                if self._replace_requested.is_set():
                    worker = await self._replace(worker)
            self._note_end(worker)

    async def replace(self) -> bool:
        """
        Replace the process by one that is ready before the old one drains.

        `run` does it, this waits. Returns False if the new process does not become
        ready; the old one goes on serving then.
        """
        self._replacement_result = asyncio.get_running_loop().create_future()
        self._replace_requested.set()
        return await self._replacement_result

    async def _launch(self) -> Worker:
        while True:
            if self._failures:
                await asyncio.sleep(BACK_OFF_S * 2 ** (self._failures - 1))
            worker = await self._start()
            if await worker.started():
                self._worker = worker
                return worker
            self._note_end(worker)

    async def _start(self) -> Worker:
        sockets = await self._port.lend(self.index)
        return await self._workers.start(self._start_message, sockets)

    def _note_end(self, worker: Worker) -> None:
        """Log an end, and count early ones. Raises WorkersFailed at `FAILURES_MAX`."""
        status = worker.ended.result()
        lived_s = 0.0
        if worker.ready_at_s is not None:
            lived_s = asyncio.get_running_loop().time() - worker.ready_at_s
        if lived_s >= STABLE_AFTER_S:
            _logger.error("worker %d ended (status %d): restarting", self.index, status)
            self._failures = 0
            return
        _logger.error("worker %d %s (status %d)", self.index, _EARLY_END, status)
        self._failures += 1
        if self._failures == FAILURES_MAX:
            raise WorkersFailed(self.index, status)
        # The others get its connections until it is ready.
        self._port.give_up(self.index)

    async def _replace(self, worker: Worker) -> Worker:
        """Replace `worker`; return the new process, or `worker` if that fails."""
        assert self._replacement_result is not None
        self._replace_requested.clear()
        replacement = await self._start()
        is_ready = await replacement.started()
        if is_ready:
            self._worker = replacement
            await self._workers.drain(worker)
        self._replacement_result.set_result(is_ready)
        return replacement if is_ready else worker
