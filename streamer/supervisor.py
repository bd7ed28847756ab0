"""
Several workers on one port: started, watched, replaced, and ended together.

Decides when a worker is started and what its end means. Knows processes, signals and
the sockets that workers take over. Knows nothing of what a worker serves: it is
`streamer worker`, a process of its own with an interpreter of its own.

On SIGTERM or SIGINT all workers drain, and a second one leaves the drain out. On SIGHUP
they are replaced one after the other, each by one that is ready before it drains; a
deploy of new code needs no more. The settings stay those of the start.

Why nobody who connects is refused. On Linux each worker has a listening socket of its
own on the same port (SO_REUSEPORT), and the kernel divides connections evenly. Closing
such a socket cuts off who stands in its queue, so it is never closed: this process
holds it as well and hands the same one to the worker that comes next, which goes on
with the queue where the last one has stopped, even one that was killed. Only where no
worker gets up is the queue given up, and its share goes to the others. On macOS the
port's last socket would get all connections; there the workers share a single one.

A worker has one line to this process, a socket pair. It reads its orders from it, says
``ready`` once, and then gives a sign of life every few seconds, which has its metrics
in it; a worker that has gone silent is killed and replaced. So ``/metrics`` on
`metrics_bind` is answered here, for all of them, with what they have last said. The end
of the line is the end of the other: no worker outlives this process, also when that is
killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any, Final

import msgspec

from .config import Config
from .errors import Error
from .surfaces.operations.exposition import Family, gauge, merge
from .surfaces.operations.scraping import Collect, scraping
from .transports.listening import base_url, listen

__all__ = ["Line", "Orders", "Supervisor", "WorkersFailed", "share"]

logger = logging.getLogger(__name__)

FAILURES_MAX: Final = 3
"""A worker that ends so often in a row right after its start will not do better."""
STEADY_S: Final = 2.0
"""A worker that has served for so long has not failed at its start."""
BACK_OFF_S: Final = 0.2

SIGN_OF_LIFE_S: Final = 5.0
SILENT_S: Final = 30.0
"""Six signs of life that did not come: its event loop stands still."""

END_GRACE_S: Final = 8.0
"""What a worker may take to end beyond its drain window."""

READY: Final = b"ready\n"
ALIVE: Final = b"\n"
ORDERS_BYTES_MAX: Final = 1_048_576
REPORT_BYTES_MAX: Final = 16_777_216
"""A worker's metrics are a few ten thousand bytes."""

# What the workers of a node divide among themselves.
_SHARED: Final = ("connections_max", "connects_per_s_max", "requests_in_flight_max")
_SPREADS: Final = sys.platform == "linux"
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


class Orders(msgspec.Struct, frozen=True):
    """What a worker is told: its settings, with its share of the limits; the store."""

    config: Config
    store_url: str


def share(config: Config, index: int) -> Config:
    """Return the settings of one worker; the shares of all add up to the limits."""
    count = config.workers
    shares = {
        name: getattr(config, name) // count + (index < getattr(config, name) % count)
        for name in _SHARED
    }
    return msgspec.structs.replace(config, workers=1, **shares)


class Line:
    """The worker's end of the line. Made before its event loop runs."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._ready = asyncio.Event()
        self._collect: Collect = list

    def read_orders(self) -> Orders:
        """Wait for the orders. Raises EOFError if there is nobody to give any."""
        with self._socket.makefile("rb") as file:
            orders = file.readline(ORDERS_BYTES_MAX)
        if not orders:
            raise EOFError
        return msgspec.json.decode(orders, type=Orders)

    def say_ready(self) -> None:
        self._socket.send(READY)
        self._ready.set()

    def report(self, collect: Collect) -> None:
        """Have every sign of life bring these metrics, once the worker is ready."""
        self._collect = collect

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Give signs of life for the block; end the process with its supervisor."""
        task = asyncio.create_task(self._hold(), name="line")
        try:
            yield
        finally:
            task.cancel()

    async def _hold(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._socket.dup())
        gone = asyncio.create_task(_until_end(reader))
        try:
            ready = asyncio.create_task(self._ready.wait())
            while not gone.done():
                writer.write(self._sign())
                until = {gone} if ready.done() else {gone, ready}
                await asyncio.wait(
                    until, timeout=SIGN_OF_LIFE_S, return_when=FIRST_COMPLETED
                )
            # As if it had asked to: readers are sent away in good order.
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            gone.cancel()
            ready.cancel()
            writer.close()

    def _sign(self) -> bytes:
        # Not before ``ready``, which goes by another way: this may come in parts.
        if not self._ready.is_set():
            return ALIVE
        return msgspec.json.encode(self._collect()) + ALIVE


class _Worker:
    """A worker process, seen from here."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader
    ) -> None:
        self.pid = process.pid
        self.ready_at_s: float | None = None
        self.metrics: list[Family] = []
        """As it has last told them."""
        self._process = process
        self._reader = reader
        self._ready = asyncio.Event()
        self.ended = asyncio.create_task(self._listen(), name=f"worker {process.pid}")

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

    async def _listen(self) -> int:
        """Listen to it until it is gone; return its exit status."""
        try:
            while True:
                async with asyncio.timeout(SILENT_S):
                    said = await self._reader.readline()
                if not said:
                    break
                if said == READY:
                    self.ready_at_s = asyncio.get_running_loop().time()
                    self._ready.set()
                elif said != ALIVE:
                    self.metrics = msgspec.json.decode(said, type=list[Family])
        except TimeoutError:
            logger.error("worker process %d has gone silent: killing it", self.pid)
            self._process.kill()
        except ConnectionError:
            pass
        return await asyncio.to_thread(self._process.wait)


class _Slot:
    """One of the workers, whichever process it is at the time."""

    def __init__(self, index: int, orders: Orders) -> None:
        self.index = index
        self.orders = orders
        self.sockets: list[socket.socket] = []
        self.failures = 0
        self.worker: _Worker | None = None
        """The process that serves it, or did until it ended."""
        self.ready = asyncio.Event()
        self.renewal: asyncio.Future[bool] | None = None
        self.wanted = asyncio.Event()
        """Set while somebody waits for `renewal`."""


class Supervisor:
    """
    Run `config.workers` workers.

    Args:
        config: The settings of the whole node.
        store_url: Where the store is, whether embedded or not.

    """

    def __init__(self, config: Config, store_url: str) -> None:
        self._config = config
        self._slots = [
            _Slot(index, Orders(share(config, index), store_url))
            for index in range(config.workers)
        ]
        self._workers: set[_Worker] = set()
        self._port_holders: list[socket.socket] = []
        self._port = config.port
        self._stopping = asyncio.Event()
        self._renewing = asyncio.Event()
        self._had_terminal = _has_terminal()

    async def run(self, *, announce: Callable[[str], None]) -> None:
        """
        Run the workers until SIGINT or SIGTERM.

        Cancelling it ends them without a drain.

        Args:
            announce: Called once with the base URL when all workers are ready.

        Raises:
            OSError: The port cannot be listened on.
            WorkersFailed: A worker does not get up.

        """
        await self._hold_port()
        async with scraping(self._config.metrics_bind, self._collect):
            await self._run(announce)

    async def _run(self, announce: Callable[[str], None]) -> None:
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._stopping.wait(), name="stop"),
            asyncio.create_task(self._renew_on_demand(), name="renewals"),
            asyncio.create_task(self._greet(announce), name="announce"),
            *(asyncio.create_task(self._keep(slot)) for slot in self._slots),
        ]
        try:
            with self._on_signals():
                await asyncio.wait(tasks, return_when=FIRST_COMPLETED)
                await _cancel(tasks)
                # Also where one worker has failed: the others have readers.
                self._close_sockets()
                await self._retire(*self._workers)
        finally:
            await _cancel(tasks)
            self._close_sockets()
            self._hurry()
            await self._wait_for(*self._workers)
        for task in tasks:
            if not task.cancelled():
                task.result()

    def _collect(self) -> list[Family]:
        """Return the metrics of all workers that serve; who drains is left out."""
        serving = {
            str(slot.index): slot.worker.metrics
            for slot in self._slots
            if slot.worker is not None and not slot.worker.ended.done()
        }
        count = gauge("streamer_workers", "Workers that serve.", (len(serving), {}))
        return [count, *merge(serving)]

    # The port.

    async def _hold_port(self) -> None:
        """Take the port for as long as this process lives, whoever listens on it."""
        config = self._config
        # Shared sockets would join those of another server without a word, so this asks
        # for the port alone, before it is taken to be shared.
        alone = await listen(config.host, config.port)
        self._port = alone[0].getsockname()[1]
        if not _SPREADS:
            self._port_holders = alone
            return
        for sock in alone:
            sock.close()
        self._port_holders = await listen(
            config.host, self._port, shared=True, backlog=0
        )

    async def _open(self, slot: _Slot) -> list[socket.socket]:
        if not _SPREADS:
            return self._port_holders
        if not slot.sockets:
            slot.sockets = await listen(self._config.host, self._port, shared=True)
        return slot.sockets

    def _close_sockets(self) -> None:
        sockets = [sock for slot in self._slots for sock in slot.sockets]
        for sock in (*sockets, *self._port_holders):
            sock.close()

    # Workers.

    async def _greet(self, announce: Callable[[str], None]) -> None:
        """Announce once, and then never return, as nothing here does."""
        for slot in self._slots:
            await slot.ready.wait()
        announce(base_url(self._config.host, self._port_holders))
        await asyncio.Event().wait()

    async def _keep(self, slot: _Slot) -> None:
        """Keep one worker running, for ever."""
        while True:
            worker = await self._launch(slot)
            slot.ready.set()
            while not worker.ended.done():
                wanted = asyncio.create_task(slot.wanted.wait())
                await asyncio.wait({wanted, worker.ended}, return_when=FIRST_COMPLETED)
                wanted.cancel()
                if slot.wanted.is_set():
                    worker = await self._renew(slot, worker)
            self._note_end(slot, worker)

    async def _launch(self, slot: _Slot) -> _Worker:
        while True:
            if slot.failures:
                await asyncio.sleep(BACK_OFF_S * 2 ** (slot.failures - 1))
            worker = await self._spawn(slot)
            if await worker.started():
                slot.worker = worker
                return worker
            self._note_end(slot, worker)

    def _note_end(self, slot: _Slot, worker: _Worker) -> None:
        """Count a failure. Raises WorkersFailed if it is one too many."""
        status = worker.ended.result()
        lived_s = 0.0
        if worker.ready_at_s is not None:
            lived_s = asyncio.get_running_loop().time() - worker.ready_at_s
        if lived_s >= STEADY_S:
            logger.error("worker %d ended (status %d): a new one", slot.index, status)
            slot.failures = 0
            return
        logger.error("worker %d %s (status %d)", slot.index, _REASON_GONE, status)
        slot.failures += 1
        if slot.failures == FAILURES_MAX:
            raise WorkersFailed(slot.index, status)
        # The others take its share until it gets up.
        for sock in slot.sockets:
            sock.close()
        slot.sockets = []

    async def _spawn(self, slot: _Slot) -> _Worker:
        sockets = [sock.fileno() for sock in await self._open(slot)]
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(
                sock=ours, limit=REPORT_BYTES_MAX
            )
            # Nothing waits from here on: a process is either known or not started.
            process = subprocess.Popen(  # noqa: ASYNC220  # it does not wait
                [*_python(), "worker", str(theirs.fileno()), *map(str, sockets)],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *sockets),
                # Ctrl-C is for this process, which ends its workers in good order.
                process_group=0,
            )
        writer.write(msgspec.json.encode(slot.orders) + b"\n")
        worker = _Worker(process, reader)
        self._workers.add(worker)

        def forget(task: asyncio.Task[int]) -> None:
            self._workers.discard(worker)
            writer.close()

        worker.ended.add_done_callback(forget)
        return worker

    # Renewal.

    async def _renew_on_demand(self) -> None:
        while True:
            await self._renewing.wait()
            self._renewing.clear()
            await self._renew_all()

    async def _renew_all(self) -> None:
        logger.info("replacing the workers, one after the other")
        for slot in self._slots:
            slot.renewal = asyncio.get_running_loop().create_future()
            slot.wanted.set()
            if not await slot.renewal:
                logger.error("no more workers are replaced: the new one did not get up")
                return
        logger.info("all workers are replaced")

    async def _renew(self, slot: _Slot, worker: _Worker) -> _Worker:
        """Return a new worker in the place of `worker`, or that one if it fails."""
        assert slot.renewal is not None
        slot.wanted.clear()
        fresh = await self._spawn(slot)
        renewed = await fresh.started()
        if renewed:
            slot.worker = fresh
            await self._retire(worker)
        slot.renewal.set_result(renewed)
        return fresh if renewed else worker

    async def _retire(self, *workers: _Worker) -> None:
        """Let workers drain, and kill those that do not end."""
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        await self._wait_for(*workers)

    async def _wait_for(self, *workers: _Worker) -> None:
        ends = {worker.ended: worker for worker in workers}
        if not ends:
            return
        _, late = await asyncio.wait(ends, timeout=self._config.drain_s + END_GRACE_S)
        for end in late:
            logger.error("worker process %d does not end: killing it", ends[end].pid)
            ends[end].send_signal(signal.SIGKILL)
        if late:
            await asyncio.wait(late)

    # The end.

    def _hurry(self) -> None:
        """End the workers without a drain, whether or not one has begun."""
        # Two signals of one kind may arrive as one.
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
            worker.send_signal(signal.SIGINT)

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
            self._hurry()
        self._stopping.set()

    def _on_hangup(self) -> None:
        # A terminal that was closed says the same as an operator who has deployed.
        if self._had_terminal and not _has_terminal():
            self._stop()
        else:
            self._renewing.set()


async def _until_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1):
            pass


def _python() -> list[str]:
    """Return the command that runs this very program, its arguments to follow."""
    # `-m` puts the working directory in front of the modules' path, which an installed
    # command does not; there it might find another program of our name.
    package = Path(__file__).parent
    begins_here = Path(sys.path[0] or ".").resolve() == package.parent.resolve()
    return [sys.executable, *([] if begins_here else ["-P"]), "-m", package.name]


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def _cancel(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
