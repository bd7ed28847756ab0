"""
One of a node's workers, whichever process it is at the time.

Decides when a process is started in it, what the end of one means, and how one is
replaced by another. Knows processes and their port. Knows nothing of the other workers,
nor of why one is to be replaced.
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
"""A worker that ends so often in a row right after its start will not do better."""
STABLE_AFTER_S: Final = 2.0
"""A worker that has served for so long has not failed at its start."""
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
            f"last time with status {self.status}; the log above may say why"
        )


class Slot:
    """
    One place for a worker.

    Args:
        index: Which of the node's it is.
        start_message: What its workers are told.
        port: Where they listen.
        workers: What starts and ends them.

    """

    def __init__(
        self, index: int, start_message: StartMessage, port: Port, workers: Workers
    ) -> None:
        self.index = index
        self.ready = asyncio.Event()
        """Set when its first worker is ready."""
        self._start_message = start_message
        self._port = port
        self._workers = workers
        self._failures = 0
        self._worker: Worker | None = None
        """The process that serves it, or did until it ended."""
        self._replacement_result: asyncio.Future[bool] | None = None
        self._replace_requested = asyncio.Event()
        """Set while somebody waits for `_replacement_result`."""

    @property
    def serving(self) -> Worker | None:
        """The process that serves it; None while there is none."""
        if self._worker is None or self._worker.ended.done():
            return None
        return self._worker

    async def run(self) -> None:
        """Keep a worker running, for ever. Raises WorkersFailed if none gets up."""
        while True:
            worker = await self._launch()
            self.ready.set()
            while not worker.ended.done():
                requested = asyncio.create_task(self._replace_requested.wait())
                await asyncio.wait(
                    {requested, worker.ended}, return_when=FIRST_COMPLETED
                )
                requested.cancel()
                if self._replace_requested.is_set():
                    worker = await self._replace(worker)
            self._note_end(worker)

    async def replace(self) -> bool:
        """
        Have the worker replaced by one that is ready before it drains.

        Waits for `run` to do so; returns False if the new one does not get up. The old
        one serves on then.
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
        """Count a failure. Raises WorkersFailed if it is one too many."""
        status = worker.ended.result()
        lived_s = 0.0
        if worker.ready_at_s is not None:
            lived_s = asyncio.get_running_loop().time() - worker.ready_at_s
        if lived_s >= STABLE_AFTER_S:
            _logger.error("worker %d ended (status %d): a new one", self.index, status)
            self._failures = 0
            return
        _logger.error("worker %d %s (status %d)", self.index, _EARLY_END, status)
        self._failures += 1
        if self._failures == FAILURES_MAX:
            raise WorkersFailed(self.index, status)
        # The others take its share until it gets up.
        self._port.give_up(self.index)

    async def _replace(self, worker: Worker) -> Worker:
        """Return a new worker in the place of `worker`, or that one if it fails."""
        assert self._replacement_result is not None
        self._replace_requested.clear()
        replacement = await self._start()
        is_ready = await replacement.started()
        if is_ready:
            self._worker = replacement
            await self._workers.drain(worker)
        self._replacement_result.set_result(is_ready)
        return replacement if is_ready else worker
