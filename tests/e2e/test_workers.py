"""`streamer serve --workers 2`: one server made of several processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest

from streamer.workers.slot import STABLE_AFTER_S

from .processes import GUARD_S, ServerProcess, eventually
from .readers import TRANSPORTS, Api, following

MakeServer = Callable[..., ServerProcess]

DISTINCT_TRIES = 64
"""That so many connections all reach the same of two workers has a chance of 2^-63."""


async def ask(port: int) -> dict[str, str | int]:
    """Return the response of `/readyz` on a new connection. Raises OSError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(GUARD_S):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        if not head:
            raise ConnectionResetError("an answer was due and nothing came")
        answer: dict[str, str | int] = json.loads(body)
        return answer
    finally:
        writer.close()


async def workers_of(server: ServerProcess, count: int = 2) -> set[int]:
    """Return the process ids of the workers that respond, once there are `count`."""
    pids: set[int] = set()
    for _ in range(DISTINCT_TRIES):
        pids.add(int((await ask(server.port))["pid"]))
        if len(pids) == count:
            return pids
    raise AssertionError(f"only {pids} answer")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@contextmanager
def ending_with(pids: set[int]) -> Iterator[None]:
    """Kill those of the processes that remain after the block."""
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Callers:
    """Opens connections continuously, several at a time, and counts responses."""

    def __init__(self, port: int) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self.pids: set[int] = set()
        self._port = port
        self._grown = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                answer = await ask(self._port)
            except OSError as error:
                self.failed.append(repr(error))
            else:
                self.answered += 1
                self.pids.add(int(answer["pid"]))
            self._grown.set()

    async def more(self, count: int) -> None:
        target = self.answered + count
        async with asyncio.timeout(GUARD_S):
            while self.answered < target:
                self._grown.clear()
                await self._grown.wait()


@asynccontextmanager
async def calling(port: int, count: int = 4) -> AsyncIterator[Callers]:
    callers = Callers(port)
    tasks = [asyncio.create_task(callers.run()) for _ in range(count)]
    try:
        yield callers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_workers_share_the_port_and_one_greeting(
    make_server: MakeServer,
) -> None:
    server = await make_server(workers=2).start()

    assert (await server.greeting()).count("streamer is ready") == 1
    assert server.pid not in await workers_of(server)
    assert await server.stop() == 0
    assert server.complaints == ""


async def test_a_publish_on_one_worker_reaches_readers_on_all(
    make_server: MakeServer,
) -> None:
    server = await make_server(workers=2, listeners_per_player_max=16).start()
    await server.greeting()
    token = await server.token("ann")
    async with contextlib.AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(following(name, server.port, token))
            for name in list(TRANSPORTS) * 4
        ]
        backend = await stack.enter_async_context(Api(server.port, await server.key()))
        ids = [*await backend.published("ann", title="1")]
        ids += await backend.published("ann", title="2")
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids


async def test_a_killed_worker_is_replaced_and_no_connection_refused(
    make_server: MakeServer,
) -> None:
    server = await make_server(workers=2).start()
    await server.greeting()
    before = await workers_of(server)
    # A worker that exits early counts as a failed start.
    steady_at_s = time.monotonic() + STABLE_AFTER_S
    await eventually(lambda: time.monotonic() > steady_at_s)
    victim = min(before)
    async with calling(server.port) as callers:
        await callers.more(20)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: len(callers.pids - before) == 1)
        await callers.more(100)
    # At most the connections that the worker was serving.
    assert len(callers.failed) <= 4, callers.failed
    assert await workers_of(server) == before - {victim} | callers.pids - before
    assert "restarting" in server.logged
    assert await server.stop() == 0


async def test_a_killed_supervisor_leaves_no_orphans(make_server: MakeServer) -> None:
    server = await make_server(workers=2).start()
    await server.greeting()
    pids = {*await workers_of(server), await server.store_pid()}
    with ending_with(pids):
        await server.kill()
        await eventually(lambda: not any(map(is_running, pids)))
    # And nothing prevents the next start.
    await server.start()


@pytest.mark.row("C7")
async def test_sighup_replaces_all_workers_and_refuses_no_connection(
    make_server: MakeServer,
) -> None:
    server = await make_server(workers=2, drain_s=1).start()
    await server.greeting()
    before = await workers_of(server)
    async with contextlib.AsyncExitStack() as stack:
        backend = await stack.enter_async_context(Api(server.port, await server.key()))
        token = await server.token("ann")
        followers = [
            await stack.enter_async_context(following(name, server.port, token))
            for name in TRANSPORTS
        ]
        callers = await stack.enter_async_context(calling(server.port))
        ids: list[str] = []
        server.send_signal(signal.SIGHUP)
        async with asyncio.timeout(GUARD_S):
            while any(map(is_running, before)):
                # A stopping worker closes idle connections, which clients expect.
                with contextlib.suppress(httpx2.TransportError):
                    ids += await backend.published("ann", title=f"n{len(ids)}")
        await callers.more(50)
        async with Api(server.port, await server.key()) as fresh:
            ids += await fresh.published("ann", title="after")
            inbox = [one["id"] for one in await fresh.inbox("ann")]
        assert set(ids) <= set(inbox)
        for follower in followers:
            await follower.has(inbox)
            assert follower.ids == inbox
            assert follower.gaps == []
            assert set(follower.refusals) <= {503}
    assert callers.failed == []
    assert callers.answered > 100
    assert not before & await workers_of(server)
    assert (await server.greeting()).count("streamer is ready") == 1
    assert await server.stop() == 0


async def test_a_signal_drains_every_worker(make_server: MakeServer) -> None:
    server = await make_server(
        workers=2, drain_s=2, listeners_per_player_max=16
    ).start()
    await server.greeting()
    pids = {*await workers_of(server), await server.store_pid()}
    token = await server.token("ann")
    streams = [
        await opener.open(server.port, token)
        for opener in TRANSPORTS.values()
        for _ in range(4)
    ]
    for stream in streams:
        await stream.until("hello")
    with ending_with(pids):
        server.send_signal(signal.SIGINT)
        ends = await asyncio.gather(*(stream.end() for stream in streams))
        assert [end.code for end in ends] == [4100] * len(streams)
        assert await server.end() == 0
        assert not any(map(is_running, pids))
    assert server.complaints == ""


async def test_a_second_signal_ends_all_workers_at_once(
    make_server: MakeServer,
) -> None:
    server = await make_server(workers=2, drain_s=600).start()
    await server.greeting()
    pids = await workers_of(server)
    token = await server.token("ann")
    streams = [await opener.open(server.port, token) for opener in TRANSPORTS.values()]
    for stream in streams:
        await stream.until("hello")
    with ending_with(pids):
        server.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(server.port))
        server.send_signal(signal.SIGTERM)
        assert await server.end() == 0
        assert not any(map(is_running, pids))
    for stream in streams:
        stream.cut()


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.transport.abort()
    return False


async def test_a_killed_store_ends_all_workers(make_server: MakeServer) -> None:
    server = await make_server(workers=2).start()
    await server.greeting()
    pids = await workers_of(server)
    with ending_with(pids):
        os.kill(await server.store_pid(), signal.SIGKILL)
        assert await server.end() != 0
        assert not any(map(is_running, pids))
    assert "embedded store exited unexpectedly" in server.logged


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_port_of_other_workers_is_in_use(
    make_server: MakeServer, workers: int
) -> None:
    server = await make_server(workers=2).start()
    second = await asyncio.to_thread(
        server.run,
        *("serve", "--port", str(server.port), "--workers", str(workers)),
        *("--data-dir", str(server.folder / "other")),
    )
    assert second.returncode == 1
    assert f"127.0.0.1:{server.port} is in use" in second.stderr
    assert "Traceback" not in second.stderr
