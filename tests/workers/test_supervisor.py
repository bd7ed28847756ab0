"""A supervisor with fake workers, each a line of Python."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from streamer.config import Config
from streamer.workers import process, slot
from streamer.workers.slot import WorkersFailed
from streamer.workers.supervisor import Supervisor

GUARD_S = 60

# Kinds of workers. `channel` is the socket to the supervisor.
BEHAVIOURS = {
    "good": "channel.send(b'ready\\n'); channel.recv(1)",
    "bad": "sys.exit(3)",
    "short": "channel.send(b'ready\\n'); sys.exit(4)",
    "silent": "channel.send(b'ready\\n'); time.sleep(60)",
    "stubborn": "signal.signal(15, 1); channel.send(b'ready\\n'); time.sleep(60)",
}
WORKER = """
import os, pathlib, signal, socket, sys, time
folder = pathlib.Path({folder!r})
channel = socket.socket(fileno=int(sys.argv[2]))
start_message = channel.recv(1_000_000)
(folder / f"{{os.getpid()}}.pid").write_bytes(start_message)
exec((folder / "behaviour").read_text())
"""


class Fleet:
    """A supervisor under test, and the kind of its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.urls: list[str] = []
        self.task: asyncio.Task[None] | None = None

    def become(self, behaviour: str) -> None:
        """Set the kind of workers that are started from now on."""
        (self.folder / "behaviour").write_text(BEHAVIOURS[behaviour])

    def start(self, **settings: int) -> asyncio.Task[None]:
        config = Config(port=0, drain_s=0, **settings)  # type: ignore[arg-type]
        running = Supervisor(config, "unix:///nowhere").run(announce=self.urls.append)
        self.task = asyncio.create_task(running)
        return self.task

    async def started(self, **settings: int) -> asyncio.Task[None]:
        task = self.start(**settings)
        await until(lambda: self.urls or task.done())
        assert self.urls, task.exception()
        return task

    @property
    def launched(self) -> set[int]:
        """All workers that were started so far."""
        return {int(path.stem) for path in self.folder.glob("*.pid")}

    @property
    def alive(self) -> set[int]:
        return {pid for pid in self.launched if is_there(pid)}


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(fact: Callable[..., object]) -> None:
    async with asyncio.timeout(GUARD_S):
        while not fact():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


async def end(task: asyncio.Task[None]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(GUARD_S):
        await task


@pytest.fixture
async def fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    program = [sys.executable, "-S", "-c", WORKER.format(folder=str(tmp_path))]
    monkeypatch.setattr(process, "_python", lambda: program)
    fleet = Fleet(tmp_path)
    fleet.become("good")
    yield fleet
    if fleet.task is not None:
        fleet.task.cancel()
        await asyncio.wait({fleet.task})
    assert fleet.alive == set()


async def test_the_url_is_announced_once_when_all_workers_are_ready(
    fleet: Fleet,
) -> None:
    task = await fleet.started(workers=3)

    assert len(fleet.urls) == 1
    assert len(fleet.alive) == 3
    await end(task)
    assert fleet.alive == set()


@pytest.mark.skipif(sys.platform != "linux", reason="on other systems they share one")
async def test_each_worker_has_its_own_socket_on_the_same_port(
    fleet: Fleet,
) -> None:
    task = await fleet.started(workers=2)
    port = int(fleet.urls[0].rpartition(":")[2])

    sockets = await asyncio.to_thread(Path("/proc/net/tcp").read_text)

    assert sockets.count(f":{port:04X} 00000000:0000 0A") == 2
    await end(task)


async def test_a_worker_that_does_not_start_ends_the_supervisor(fleet: Fleet) -> None:
    fleet.become("bad")

    task = fleet.start(workers=2)

    with pytest.raises(WorkersFailed, match=r"3 times in a row.*status 3"):
        await task
    assert 3 <= len(fleet.launched) <= 6
    assert fleet.urls == []


async def test_a_worker_that_ends_right_after_its_start_has_not_started(
    fleet: Fleet,
) -> None:
    fleet.become("short")

    task = fleet.start(workers=2)

    with pytest.raises(WorkersFailed, match="status 4"):
        await task


async def test_a_worker_that_is_killed_is_replaced(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "STABLE_AFTER_S", 0.0)
    task = await fleet.started(workers=2)
    before = fleet.alive

    # More often than a worker may fail to start.
    for _ in range(slot.FAILURES_MAX + 1):
        victim = min(fleet.alive)
        os.kill(victim, signal.SIGKILL)
        await until(lambda gone=victim: len(fleet.alive - {gone}) == 2)

    assert len(fleet.launched - before) == slot.FAILURES_MAX + 1
    assert not task.done()
    await end(task)


async def test_a_worker_without_heartbeats_is_killed_and_replaced(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "HEARTBEAT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(slot, "STABLE_AFTER_S", 0.0)
    fleet.become("silent")

    task = await fleet.started(workers=1)
    await until(lambda: len(fleet.launched) > 2)

    assert "sends no heartbeats" in caplog.text
    await end(task)


async def test_a_hangup_replaces_all_workers(fleet: Fleet) -> None:
    task = await fleet.started(workers=2)
    before = fleet.alive

    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: len(fleet.alive) == 2 and not fleet.alive & before)

    assert len(fleet.launched) == 4
    assert len(fleet.urls) == 1
    await end(task)


async def test_a_replacement_that_does_not_start_leaves_the_old_worker(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    task = await fleet.started(workers=2)
    before = fleet.alive
    fleet.become("bad")

    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: "replacing no more" in caplog.text)

    assert fleet.alive == before
    assert len(fleet.launched) == 3
    fleet.become("good")
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: len(fleet.alive) == 2 and not fleet.alive & before)
    await end(task)


async def test_a_worker_that_does_not_end_is_killed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "END_GRACE_S", 0.2)
    fleet.become("stubborn")
    task = await fleet.started(workers=1)

    await end(task)

    assert "did not end: killing it" in caplog.text


async def test_a_cancelled_supervisor_leaves_no_worker(fleet: Fleet) -> None:
    task = await fleet.started(workers=2)

    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert fleet.alive == set()


@pytest.mark.parametrize("when", ["before a worker", "after a worker"])
async def test_a_signal_during_the_start_leaves_no_worker(
    fleet: Fleet, when: str
) -> None:
    task = fleet.start(workers=2)
    if when == "after a worker":
        await until(lambda: fleet.launched)
    else:
        await asyncio.sleep(0)
        await until(lambda: signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)

    await end(task)

    assert fleet.alive == set()


async def test_no_task_outlives_a_supervisor(fleet: Fleet) -> None:
    before = asyncio.all_tasks()
    task = await fleet.started(workers=2)

    task.cancel()
    await asyncio.wait({task})

    assert asyncio.all_tasks() - before == set()
