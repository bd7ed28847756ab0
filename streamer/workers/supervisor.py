"""
Several workers on one port: keeps them running, replaces them, and ends them.

Decides what a signal means for all workers. Knows signals, and a slot per worker. Knows
nothing of how a process is started or ended, nor of what it serves.

On SIGTERM or SIGINT all workers drain and end; a second signal skips the drain. On
SIGHUP they are replaced one by one, each by a process that is ready before the old one
drains, which is all that a deployment of new code needs. The settings remain those of
the start.

The supervisor serves ``/metrics`` on `metrics_bind` for all workers, from their latest
heartbeats.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from asyncio import FIRST_COMPLETED
from collections.abc import Callable, Generator
from typing import Any

from ..config import Config
from ..metrics.exposition import Family, gauge, merge
from ..metrics.scraping import scraping
from ..transports.server.hangup import Hangup, HangupMeaning
from .control_channel import StartMessage, share
from .port import Port
from .process import Workers
from .slot import Slot

__all__ = ["Supervisor"]

_logger = logging.getLogger(__name__)


class Supervisor:
    """
    Run `config.workers` workers.

    Args:
        config: The settings of the whole node.
        store_url: The URL of the store, embedded or not.
        sockets: Listening sockets to use instead of the configured host and port.
        stopping: Called when a signal has begun to stop the process.

    """

    def __init__(
        self,
        config: Config,
        store_url: str,
        *,
        sockets: list[socket.socket] | None = None,
        stopping: Callable[[], None] = lambda: None,
    ) -> None:
        self._metrics_bind = config.metrics_bind
        self._stopping_begins = stopping
        self._port = Port(config.host, config.port, sockets)
        self._workers = Workers(drain_s=config.drain_s)
        self._slots = [
            Slot(
                index,
                StartMessage(share(config, index), store_url),
                self._port,
                self._workers,
            )
            for index in range(config.workers)
        ]
        self._stopping = asyncio.Event()
        self._replace_all_requested = asyncio.Event()
        self._hangup = Hangup()

    async def run(self, *, announce: Callable[[str], None]) -> None:
        """
        Run the workers until SIGINT or SIGTERM.

        Cancelling it ends them without a drain.

        Args:
            announce: Called once, with the base URL, when all workers are ready.

        Raises:
            OSError: The port cannot be opened.
            WorkersFailed: A worker cannot be started.

        """
        await self._port.take()
        async with scraping(self._metrics_bind, self._collect):
            await self._run(announce)

    async def _run(self, announce: Callable[[str], None]) -> None:
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._stopping.wait(), name="stop"),
            asyncio.create_task(self._replace_on_request(), name="renewals"),
            asyncio.create_task(self._announce_when_ready(announce), name="announce"),
            *(asyncio.create_task(slot.run()) for slot in self._slots),
        ]
        try:
            with self._on_signals():
                await asyncio.wait(tasks, return_when=FIRST_COMPLETED)
                await _cancel(tasks)
                # Even if one worker has failed: the others have streams to drain.
                self._port.close()
                await self._workers.drain_all()
        finally:
            await _cancel(tasks)
            self._port.close()
            self._workers.terminate_now()
            await self._workers.ended()
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _announce_when_ready(self, announce: Callable[[str], None]) -> None:
        """Announce once. Does not return, since the first task to return ends all."""
        for slot in self._slots:
            await slot.ready.wait()
        announce(self._port.url)
        await asyncio.Event().wait()

    def _collect(self) -> list[Family]:
        """Return the metrics of all serving workers, without those that drain."""
        serving = {
            str(slot.index): worker.metrics
            for slot in self._slots
            if (worker := slot.serving) is not None
        }
        count = gauge("streamer_workers", "Workers that serve.", (len(serving), {}))
        return [count, *merge(serving)]

    async def _replace_on_request(self) -> None:
        while True:
            await self._replace_all_requested.wait()
            self._replace_all_requested.clear()
            await self._replace_all()

    async def _replace_all(self) -> None:
        _logger.info("replacing the workers one by one")
        for slot in self._slots:
            if not await slot.replace():
                _logger.error(
                    "worker %d: the new process did not start; replacing no more",
                    slot.index,
                )
                return
        _logger.info("replaced all workers")

    @contextlib.contextmanager
    def _on_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        handlers = {
            signal.SIGINT: self._stop,
            signal.SIGTERM: self._stop,
            signal.SIGHUP: self._on_hangup,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handlers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._workers.terminate_now()
        self._stopping_begins()
        self._stopping.set()

    def _on_hangup(self) -> None:
        match self._hangup.meaning():
            case HangupMeaning.RELOAD:
                self._replace_all_requested.set()
            case HangupMeaning.STOP:
                self._stop()


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
