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
from .control_channel import Orders
from .port import Port
from .process import Worker, Workers

__all__ = ["Slot", "WorkersFailed"]

_logger = logging.getLogger(__name__)

FAILURES_MAX: Final = 3
"""A worker that ends so often in a row right after its start will not do better."""
STEADY_S: Final = 2.0
"""A worker that has served for so long has not failed at its start."""
BACK_OFF_S: Final = 0.2

_REASON_GONE: Final = "ended right after its start"


class WorkersFailed(Error):
    """Workers cannot be kept running."""

    def __init__(self, index: int, status: int) -> None:
        self.index = index
        self.status = status

    def __str__(self) -> str:
        return (
            f"worker {self.index} {_REASON_GONE}, {FAILURES_MAX} times in a row, the "
            f"last time with status {self.status}; the log above may say why"
        )


class Slot:
    """
    One place for a worker.

    Args:
        index: Which of the node's it is.
        orders: What its workers are told.
        port: Where they listen.
        workers: What starts and ends them.

    """

    def __init__(
        self, index: int, orders: Orders, port: Port, workers: Workers
    ) -> None:
        self.index = index
        self.ready = asyncio.Event()
        """Set when its first worker is ready."""
        self._orders = orders
        self._port = port
        self._workers = workers
        self._failures = 0
        self._worker: Worker | None = None
        """The process that serves it, or did until it ended."""
        self._renewal: asyncio.Future[bool] | None = None
        self._wanted = asyncio.Event()
        """Set while somebody waits for `_renewal`."""

    @property
    def serving(self) -> Worker | None:
        """The process that serves it; None while there is none."""
        if self._worker is None or self._worker.ended.done():
            return None
        return self._worker

    async def keep(self) -> None:
        """Keep a worker running, for ever. Raises WorkersFailed if none gets up."""
        while True:
            worker = await self._launch()
            self.ready.set()
            while not worker.ended.done():
                wanted = asyncio.create_task(self._wanted.wait())
                await asyncio.wait({wanted, worker.ended}, return_when=FIRST_COMPLETED)
                wanted.cancel()
                if self._wanted.is_set():
                    worker = await self._renew(worker)
            self._note_end(worker)

    async def renew(self) -> bool:
        """
        Have the worker replaced by one that is ready before it drains.

        Waits for `keep` to do so; returns False if the new one does not get up. The old
        one serves on then.
        """
        self._renewal = asyncio.get_running_loop().create_future()
        self._wanted.set()
        return await self._renewal

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
        return await self._workers.start(self._orders, sockets)

    def _note_end(self, worker: Worker) -> None:
        """Count a failure. Raises WorkersFailed if it is one too many."""
        status = worker.ended.result()
        lived_s = 0.0
        if worker.ready_at_s is not None:
            lived_s = asyncio.get_running_loop().time() - worker.ready_at_s
        if lived_s >= STEADY_S:
            _logger.error("worker %d ended (status %d): a new one", self.index, status)
            self._failures = 0
            return
        _logger.error("worker %d %s (status %d)", self.index, _REASON_GONE, status)
        self._failures += 1
        if self._failures == FAILURES_MAX:
            raise WorkersFailed(self.index, status)
        # The others take its share until it gets up.
        self._port.give_up(self.index)

    async def _renew(self, worker: Worker) -> Worker:
        """Return a new worker in the place of `worker`, or that one if it fails."""
        assert self._renewal is not None
        self._wanted.clear()
        fresh = await self._start()
        renewed = await fresh.started()
        if renewed:
            self._worker = fresh
            await self._workers.retire(worker)
        self._renewal.set_result(renewed)
        return fresh if renewed else worker
