from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from streamer.config import Config
from streamer.server import DRAIN_GRACE_S, Host, run_app
from streamer.transports.server.hangup import Hangup, HangupMeaning
from tests.e2e.processes import free_port

GUARD_S = 60


class FakeApp:
    """
    An app that the test controls.

    ``/stream`` is a stream that ends when it is drained, ``/stubborn`` one that does
    not, ``/slow`` responds when `release` is set, any other path at once.
    """

    direct = None

    def __init__(self) -> None:
        self.log: list[str] = []
        self.release = asyncio.Event()
        self.running = asyncio.Event()
        self.deliverable = asyncio.Event()
        self.broken: asyncio.Future[None] = asyncio.Future()
        self.drained = asyncio.Event()
        self.may_finish_drain = asyncio.Event()
        self.may_finish_drain.set()
        self.draining = asyncio.Event()

    async def run(self) -> None:
        self.running.set()
        try:
            await self.broken
        finally:
            self.log.append("background ended")

    async def ready(self) -> None:
        await self.deliverable.wait()

    async def drain(self) -> None:
        self.log.append("drain")
        self.draining.set()
        await self.may_finish_drain.wait()
        self.drained.set()
        self.log.append("drained")

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in ("/stream", "/stubborn"):
            await self._stream(scope["path"], send)
            return
        if scope["path"] == "/slow":
            self.log.append("slow began")
            await self.release.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _stream(self, path: str, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello", "more_body": True})
        end = self.drained if path == "/stream" else asyncio.Event()
        try:
            await end.wait()
            await send({"type": "http.response.body", "body": b"bye"})
        finally:
            self.log.append("stream ended")


class RawClient:
    """A raw connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    def get(self, path: str) -> None:
        self.writer.write(b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % path.encode())

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(GUARD_S):
            return await self.reader.readuntil(end)

    async def read_to_end(self) -> bytes:
        async with asyncio.timeout(GUARD_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
            return b""


class Running:
    """A server under test."""

    def __init__(self, stop: Callable[[], None], task: asyncio.Task[None], url: str):
        self.stop = stop
        self.task = task
        self.host, _, port = url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.clients: list[RawClient] = []

    async def connect(self) -> RawClient:
        client = RawClient(*await asyncio.open_connection(self.host, self.port))
        self.clients.append(client)
        return client

    async def end(self) -> None:
        async with asyncio.timeout(GUARD_S):
            await self.task


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def app() -> FakeApp:
    return FakeApp()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Give a function that starts a `Host` for an app."""
    everything: list[Running] = []

    async def start(app: FakeApp, **settings: Any) -> Running:
        config = msgspec.structs.replace(Config(port=0), **settings)
        host = Host(app.asgi, config, drain=app.drain)
        url: asyncio.Future[str] = asyncio.Future()
        task = asyncio.create_task(host.run(started=url.set_result))
        async with asyncio.timeout(GUARD_S):
            running = Running(host.stop, task, await url)
        everything.append(running)
        return running

    yield start
    await end_all(everything)


@pytest.fixture
async def run() -> AsyncIterator[Serve]:
    """Give a function that runs an app as the process does, until it is announced."""
    everything: list[Running] = []

    async def start(app: FakeApp, **settings: Any) -> Running:
        config = msgspec.structs.replace(Config(port=0), **settings)
        url: asyncio.Future[str] = asyncio.Future()
        task = asyncio.create_task(run_app(app, config, announce=url.set_result))
        async with asyncio.timeout(GUARD_S):
            running = Running(terminate, task, await url)
        everything.append(running)
        return running

    yield start
    await end_all(everything)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def end_all(everything: list[Running]) -> None:
    for running in everything:
        running.task.cancel()
        await asyncio.wait({running.task})
        for client in running.clients:
            client.writer.close()


async def refuses_connections(running: Running) -> bool:
    try:
        _, writer = await asyncio.open_connection(running.host, running.port)
    except OSError:
        return True
    writer.close()
    return False


# The host.


async def test_two_hosts_serve_side_by_side(serve: Serve, app: FakeApp) -> None:
    servers = [await serve(app), await serve(app)]

    for running in servers:
        client = await running.connect()
        client.get("/")
        answer = await client.read_until(b"ok")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert servers[0].port != servers[1].port


async def test_responses_have_a_date_and_do_not_name_the_server(
    serve: Serve, app: FakeApp
) -> None:
    client = await (await serve(app)).connect()

    client.get("/")

    head = await client.read_until(b"\r\n\r\n")
    assert b"\r\ndate: " in head
    assert b"server:" not in head.lower()


async def test_the_error_names_a_port_in_use(serve: Serve, app: FakeApp) -> None:
    running = await serve(app)

    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{running.port} is in use"):
        await serve_elsewhere(app, running.port)


async def serve_elsewhere(app: FakeApp, port: int) -> None:
    host = Host(app.asgi, Config(port=port), drain=app.drain)
    await host.run(started=lambda url: None)


async def test_a_stop_closes_the_sockets_then_drains_then_ends(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    stream = await running.connect()
    stream.get("/stream")
    await stream.read_until(b"hello\r\n")
    app.may_finish_drain.clear()

    running.stop()

    await app.draining.wait()
    assert await refuses_connections(running)
    assert not running.task.done()
    app.may_finish_drain.set()
    assert await stream.read_to_end() == b"3\r\nbye\r\n0\r\n\r\n"
    await running.end()
    assert app.log == ["drain", "drained", "stream ended"]


async def test_kept_alive_connections_are_served_during_the_drain(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    client = await running.connect()
    client.get("/")
    await client.read_until(b"ok")
    app.may_finish_drain.clear()
    running.stop()
    await app.draining.wait()

    client.get("/")

    # A proxy would otherwise send a request that meets the end of the connection.
    assert b"connection: close\r\n" in await client.read_until(b"ok")
    assert await client.read_to_end() == b""
    app.may_finish_drain.set()
    await running.end()


async def test_a_connection_in_use_gets_its_next_response_after_the_drain(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    client = await running.connect()
    client.get("/")
    await client.read_until(b"ok")

    running.stop()
    await app.drained.wait()
    client.get("/")

    answer = await client.read_to_end()
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"ok")
    await running.end()


async def test_a_pending_request_gets_its_response_after_the_drain(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    client = await running.connect()
    client.get("/slow")
    await until(lambda: app.log == ["slow began"])

    running.stop()
    await app.drained.wait()
    app.release.set()

    assert (await client.read_to_end()).endswith(b"ok")
    await running.end()


async def test_a_new_connection_gets_time_for_its_request(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    app.may_finish_drain.clear()
    client = await running.connect()
    running.stop()
    await app.draining.wait()
    app.may_finish_drain.set()
    await app.drained.wait()

    client.get("/")

    assert (await client.read_to_end()).endswith(b"ok")
    await running.end()


async def test_a_silent_connection_does_not_delay_the_stop(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    client = await running.connect()

    running.stop()

    assert await client.read_to_end() == b""
    await running.end()


async def test_queued_connections_are_accepted_before_the_socket_closes(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    clients = [socket.create_connection((running.host, running.port)) for _ in range(9)]

    running.stop()  # Before the loop can accept them.

    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    for client in clients:
        with client:
            assert (await asyncio.to_thread(client.recv, 15)).startswith(
                b"HTTP/1.1 200"
            )
    await running.end()


async def test_a_second_host_can_continue_with_the_same_sockets(
    app: FakeApp,
) -> None:
    urls: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as kept:
        for turn in range(2):
            sockets = [kept.dup()]
            host = Host(app.asgi, Config(), drain=app.drain, sockets=sockets)
            task = asyncio.create_task(host.run(started=urls.append))
            await until(lambda turn=turn: len(urls) > turn)
            host.stop()
            await task
        assert urls == [f"http://127.0.0.1:{kept.getsockname()[1]}"] * 2
        # The socket is still open, so that another process can serve its queue.
        assert connects(kept.getsockname()[1])


async def test_a_stream_that_outlasts_the_drain_is_closed(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    client = await running.connect()
    client.get("/stubborn")
    await client.read_until(b"hello\r\n")

    running.stop()

    assert await client.read_to_end() == b""
    await running.end()
    assert app.log == ["drain", "drained", "stream ended"]


async def test_a_second_stop_skips_the_drain(serve: Serve, app: FakeApp) -> None:
    running = await serve(app)
    client = await running.connect()
    client.get("/stream")
    await client.read_until(b"hello\r\n")
    app.may_finish_drain.clear()
    running.stop()
    await app.draining.wait()

    running.stop()
    running.stop()

    await running.end()
    assert await client.read_to_end() == b""
    assert app.log == ["drain", "stream ended"]


async def test_a_drain_that_does_not_end_is_cancelled(
    serve: Serve,
    app: FakeApp,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app.may_finish_drain.clear()
    running = await serve(app, drain_s=0.1 - DRAIN_GRACE_S)

    running.stop()

    await running.end()
    assert app.log == ["drain"]
    assert "drain not finished" in caplog.text


async def test_a_drain_that_fails_ends_the_host_with_its_error(
    serve: Serve, app: FakeApp
) -> None:
    async def fail() -> None:
        raise ValueError("drain")

    app.drain = fail  # type: ignore[method-assign]
    running = await serve(app)
    client = await running.connect()

    running.stop()

    with pytest.raises(ValueError, match="drain"):
        await running.end()
    assert await client.read_to_end() == b""


async def test_a_cancelled_host_closes_its_connections(
    serve: Serve, app: FakeApp
) -> None:
    running = await serve(app)
    client = await running.connect()
    client.get("/stream")
    await client.read_until(b"hello\r\n")

    running.task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running.end()
    assert await client.read_to_end() == b""
    assert await refuses_connections(running)
    assert app.log == ["stream ended"]


# The process.


async def test_the_url_is_announced_when_the_app_is_ready(app: FakeApp) -> None:
    urls: list[str] = []
    port = free_port()
    running = asyncio.create_task(run_app(app, Config(port=port), announce=urls.append))
    await until(lambda: connects(port))
    assert urls == []

    app.deliverable.set()

    await until(lambda: urls)
    assert urls == [f"http://127.0.0.1:{port}"]
    running.cancel()
    await asyncio.wait({running})


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains_and_then_ends_the_background_task(
    run: Serve, app: FakeApp, number: signal.Signals
) -> None:
    app.deliverable.set()
    running = await run(app)

    os.kill(os.getpid(), number)

    await running.end()
    assert app.log == ["drain", "drained", "background ended"]


async def test_a_hangup_ends_nothing(
    run: Serve, app: FakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app.deliverable.set()
    running = await run(app)

    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(GUARD_S):
        while "nothing to reload" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    assert app.log == []
    terminate()
    await running.end()
    assert app.log == ["drain", "drained", "background ended"]


async def test_a_closed_terminal_drains_and_ends(
    run: Serve, app: FakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hangup, "meaning", lambda self: HangupMeaning.STOP)
    app.deliverable.set()
    running = await run(app)

    os.kill(os.getpid(), signal.SIGHUP)

    await running.end()
    assert app.log == ["drain", "drained", "background ended"]


async def test_a_signal_before_readiness_ends_the_process(app: FakeApp) -> None:
    task = asyncio.create_task(run_app(app, Config(port=0), announce=lambda url: None))
    await app.running.wait()

    terminate()

    async with asyncio.timeout(GUARD_S):
        await task


async def test_a_second_signal_does_not_wait_for_the_drain(
    run: Serve, app: FakeApp
) -> None:
    app.deliverable.set()
    app.may_finish_drain.clear()
    running = await run(app)
    terminate()
    await app.draining.wait()

    terminate()

    await running.end()
    assert app.log == ["drain", "background ended"]


async def test_a_background_task_that_fails_ends_the_run(
    run: Serve, app: FakeApp
) -> None:
    app.deliverable.set()
    running = await run(app)
    client = await running.connect()
    client.get("/stream")
    await client.read_until(b"hello\r\n")

    app.broken.set_exception(ValueError("background"))

    with pytest.raises(ValueError, match="background"):
        await running.end()
    assert await client.read_to_end() == b""
    assert await refuses_connections(running)


async def test_a_background_task_that_fails_before_readiness_ends_the_run(
    app: FakeApp,
) -> None:
    app.broken.set_exception(ValueError("background"))

    with pytest.raises(ValueError, match="background"):
        await run_app(app, Config(port=0), announce=lambda url: None)


async def test_a_background_task_that_returns_is_an_error(
    run: Serve, app: FakeApp
) -> None:
    app.deliverable.set()
    running = await run(app)

    app.broken.set_result(None)

    with pytest.raises(RuntimeError, match="ended by themselves"):
        await running.end()


async def test_a_probe_that_fails_ends_the_run(app: FakeApp) -> None:
    async def fail() -> None:
        raise ValueError("probe")

    app.ready = fail  # type: ignore[method-assign]

    with pytest.raises(ValueError, match="probe"):
        await run_app(app, Config(port=0), announce=lambda url: None)
    assert app.log == ["background ended"]


async def test_a_port_in_use_ends_the_run(serve: Serve, app: FakeApp) -> None:
    port = (await serve(app)).port

    with pytest.raises(OSError, match="is in use"):
        await run_app(FakeApp(), Config(port=port), announce=lambda url: None)


async def test_uvicorn_logs_nothing_in_normal_operation(
    run: Serve, app: FakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app.deliverable.set()
    running = await run(app)
    client = await running.connect()
    client.get("/?ticket=secret")
    await client.read_until(b"ok")

    terminate()

    await running.end()
    assert [r for r in caplog.records if r.name.startswith("uvicorn")] == []


async def until(fact: Callable[..., Any]) -> None:
    async with asyncio.timeout(GUARD_S):
        while not fact():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


# Internals of uvicorn that the host relies on.


def test_uvicorn_has_the_hooks_that_are_overridden() -> None:
    source = inspect.getsource(uvicorn.Server)
    for use in (
        "with self.capture_signals():",
        "await self.startup(sockets=sockets)",
        "if not self.should_exit:\n            await self.main_loop()",
        "if self.started:\n            await self.shutdown(sockets=sockets)",
        "self.servers: list[asyncio.base_events.Server]",
        "for connection in list(self.server_state.connections):",
        "timeout=self.config.timeout_graceful_shutdown",
    ):
        assert use in source, f"uvicorn {uvicorn.__version__} lacks {use}"
