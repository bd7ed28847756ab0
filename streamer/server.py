"""
The host: signals, and the order of start and stop.

Decides when the process is ready and how it ends. Besides the protocol classes, this is
the only module that knows uvicorn. Knows nothing of routes, players or the store, only
the members of `App`.

Start: listen, accept, wait until the app delivers, announce. Stop, on the first SIGINT
or SIGTERM::

    sockets closed -> app.drain() -> what is left, about 1 s -> background tasks

Clients that have connected are served: connections in a socket's queue are accepted
before the socket is closed, and a connection that has sent nothing yet gets time for
its first request. Kept-alive connections are served during the drain, while streams are
closed one by one, since a request may be on its way. Responses then say that their
connection is closed, so that no proxy uses it again. A second signal skips the drain.
SIGHUP ends nothing, unless the terminal of the process was closed. A background task
that fails ends the process in the same way, and `run` raises its error: a server that
answers and delivers nothing is worse than one that restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, Protocol

import uvicorn
from starlette.types import ASGIApp

from .app import build
from .config import Config
from .metrics.scraping import Collect, scraping
from .service.node.garbage import Garbage
from .service.tracing.spans import Tracing
from .service.tracing.starting import start
from .store.client.faults import StoreFaults
from .transports.server.direct import DirectApp
from .transports.server.hangup import Hangup, HangupMeaning
from .transports.server.http_protocol import (
    UNLIMITED_FDS,
    HttpProtocol,
    http_protocol,
)
from .transports.server.sockets import (
    BACKLOG,
    SocketFiles,
    base_urls,
    hosts_of,
    listen,
)
from .transports.server.websocket_protocol import WebSocketProtocol

__all__ = ["App", "Host", "run", "run_app", "run_background"]

logger = logging.getLogger(__name__)

PONG_TIMEOUT_S: Final = 20
"""How long a WebSocket peer may take to pong; a heartbeat, if that is less."""

DRAIN_GRACE_S: Final = 2
"""How long `drain` may take beyond its window before it is cancelled."""

FINISH_S: Final = 1
"""How long uvicorn waits for responses after the drain."""

ACCEPT_ITERATIONS: Final = 3
"""Iterations of the loop until all queued connections are accepted and set up."""

LOST_ITERATIONS: Final = 3
"""Iterations of the loop until aborted connections get `connection_lost`."""

REQUEST_POLL_S: Final = 0.01

_SIGNALS: Final[tuple[signal.Signals, ...]] = (signal.SIGINT, signal.SIGTERM)
_ENDED: Final = "the background tasks ended by themselves"


class App(Protocol):
    """An app, as the composition root builds it."""

    @property
    def asgi(self) -> ASGIApp:
        """The routes."""

    @property
    def direct(self) -> DirectApp | None:
        """What answers some requests beneath ASGI."""

    async def run(self) -> None:
        """Run the background tasks until cancelled; raise if one of them fails."""

    async def ready(self) -> None:
        """Wait until a publish would be stored and delivered."""

    async def drain(self) -> None:
        """Admit no more streams, and close all within the drain window."""


class Host:
    """
    Serve one ASGI app.

    Args:
        app: The routes.
        config: The settings.
        drain: Closes streams before the host stops.
        sockets: Listening sockets; None opens the configured host and port. Another
            process may hold the same sockets and continue to listen on them.
        direct: Answers some requests beneath ASGI, as `app` would.

    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        *,
        drain: Callable[[], Awaitable[None]],
        sockets: list[socket.socket] | None = None,
        direct: DirectApp | None = None,
    ) -> None:
        self._config = config
        self._sockets = sockets
        uvicorn_config = _uvicorn_config(app, config, direct)
        self._server = _Server(uvicorn_config, drain, config.drain_s)

    async def run(self, *, started: Callable[[str], None]) -> None:
        """
        Listen and serve until `stop`. Cancelling it has the effect of a second `stop`.

        Args:
            started: Called once, when connections are accepted, with the base URLs
                in the form of `base_urls`.

        Raises:
            OSError: The host has no such address, or the port is in use.

        """
        sockets, hosts = self._sockets, self._config.host
        if sockets is None:
            sockets = await listen(hosts, self._config.port)
            files = SocketFiles(sockets)
        else:
            hosts, files = hosts_of(sockets), SocketFiles(())
        urls = base_urls(hosts, sockets)
        self._server.on_started = lambda: started(urls)
        serving = asyncio.create_task(self._server.serve(sockets), name="uvicorn")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self.stop()
            self.stop()
            await serving
            raise
        finally:
            for sock in sockets:
                sock.close()
            files.remove()

    def stop(self) -> None:
        """Stop; a second call skips the drain. May be called by a signal handler."""
        self._server.stop()


async def run(
    config: Config,
    store_url: str,
    *,
    announce: Callable[[str], None],
    stopping: Callable[[], None] = lambda: None,
    sockets: list[socket.socket] | None = None,
    report: Callable[[Collect], None] | None = None,
    faults: StoreFaults | None = None,
) -> None:
    """
    Build the app and serve it until SIGINT or SIGTERM.

    Args:
        config: The settings.
        store_url: The URL of the store, embedded or not.
        announce: Called once, with the base URLs, when `/readyz` would return 200.
        stopping: Called when a signal has begun to stop the process.
        sockets: As for `Host`.
        report: Called once with a function that returns this process's metrics, for a
            supervisor to collect. Without it they are served on `metrics_bind`.
        faults: What the store refuses, if that is known already.

    Raises:
        OSError: The port cannot be opened.
        Exception: The error of a background task.

    """
    app = build(config, store_url, faults=faults, start_tracing=_tracing)
    garbage = Garbage(lambda: app.admission.open)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(garbage.collecting())
        if report is not None:
            report(app.metrics.collect)
        else:
            scraped = scraping(config.metrics_bind, app.metrics.collect)
            await stack.enter_async_context(scraped)
        await run_app(
            app, config, announce=announce, stopping=stopping, sockets=sockets
        )


def _tracing(node: str) -> Tracing | None:
    return start(os.environ, node)


async def run_app(
    app: App,
    config: Config,
    *,
    announce: Callable[[str], None],
    stopping: Callable[[], None] = lambda: None,
    sockets: list[socket.socket] | None = None,
) -> None:
    """Run the app's background tasks and its host; see `run`."""
    host = Host(app.asgi, config, drain=app.drain, sockets=sockets, direct=app.direct)

    def stop() -> None:
        stopping()
        host.stop()

    with _on_signals(stop):
        await _run_tasks(app, host, announce)


async def run_background(
    config: Config, store_url: str, *, faults: StoreFaults | None = None
) -> None:
    """
    Run the background tasks alone, without a port, until SIGINT or SIGTERM.

    Args:
        config: The settings.
        store_url: The URL of the store, embedded or not.
        faults: What the store refuses, if that is known already.

    """
    app = build(config, store_url, faults=faults, start_tracing=_tracing)
    async with scraping(config.metrics_bind, app.metrics.collect):
        await _until_stopped(app.run_background())


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    working = asyncio.create_task(work, name="background")
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        working.cancel()

    with _on_signals(stop):
        try:
            await working
        except asyncio.CancelledError:
            if not stopped:
                raise
    if not stopped:
        raise RuntimeError(_ENDED)


@contextlib.contextmanager
def _on_signals(stop: Callable[[], None]) -> Generator[None, None, None]:
    loop = asyncio.get_running_loop()
    hangup = Hangup()

    def on_hangup() -> None:
        match hangup.meaning():
            case HangupMeaning.RELOAD:
                logger.warning(
                    "SIGHUP: nothing to reload; restart the server, or start it with "
                    "--workers 2 or more, which SIGHUP replaces one by one"
                )
            case HangupMeaning.STOP:
                stop()

    handlers = dict.fromkeys(_SIGNALS, stop)
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = on_hangup
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


async def _run_tasks(app: App, host: Host, announce: Callable[[str], None]) -> None:
    """Run all tasks until the host has stopped or one of them fails."""
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def announce_when_ready() -> None:
        base = await url
        await app.ready()
        announce(base)

    background = asyncio.create_task(app.run(), name="background")
    serving = asyncio.create_task(host.run(started=url.set_result), name="host")
    announcing = asyncio.create_task(announce_when_ready(), name="announce")
    watched = {background, serving, announcing}
    try:
        while not serving.done() and not background.done():
            done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if announcing in done:
                announcing.result()
                watched.discard(announcing)
    finally:
        # The host first: its connections may still use the background tasks.
        for task in (announcing, serving, background):
            await _cancel(task)
    for task in (background, serving):
        if not task.cancelled():
            task.result()
    if serving.cancelled():
        raise RuntimeError(_ENDED)


async def _cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for it; its error stays in it, for the caller to raise."""
    task.cancel()
    await asyncio.wait({task})


class _Server(uvicorn.Server):
    """uvicorn's server with our handling of signals and our order of stopping."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Callable[[], Awaitable[None]],
        drain_s: float,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_max_s = drain_s + DRAIN_GRACE_S
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        self.on_started: Callable[[], None] = lambda: None

    def stop(self) -> None:
        if self._stopping.is_set():
            self._forced.set()
            self.force_exit = True
        self._stopping.set()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn's own treats every socket that it is given as one of TCP.
        loop = asyncio.get_running_loop()
        self.servers = []
        for sock in sockets or []:
            create: Any = loop.create_server
            if sock.family == getattr(socket, "AF_UNIX", None):
                create = loop.create_unix_server
            self.servers.append(
                await create(
                    self._protocol, sock=sock, backlog=BACKLOG, ssl=self.config.ssl
                )
            )
        self.started = True
        self.on_started()

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        connection: asyncio.Protocol = protocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return connection

    async def main_loop(self) -> None:
        # uvicorn's own polls ten times per second. Its tick updates the Date header.
        while not self._stopping.is_set():
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Closing a socket resets the connections in its queue, and those that were
        # accepted but not set up.
        for _ in range(ACCEPT_ITERATIONS):
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for connection in self.server_state.connections:
            if isinstance(connection, HttpProtocol):
                connection.announce_close()
        try:
            if not self._forced.is_set():
                await self._drain_unless_forced()
            await self._wait_for_requests()
        finally:
            if not self._forced.is_set():
                await super().shutdown(sockets)
            await self._close_remaining()

    async def _drain_unless_forced(self) -> None:
        draining = asyncio.ensure_future(self._drain())
        forced = asyncio.create_task(self._forced.wait())
        done, pending = await asyncio.wait(
            {draining, forced},
            timeout=self._drain_max_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if not done:
            logger.error("drain not finished after %s s: stopping", self._drain_max_s)
        elif draining in done:
            draining.result()

    async def _wait_for_requests(self) -> None:
        """Give clients the time to send a request that is probably on its way."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + FINISH_S
        while loop.time() < until_s and not self._forced.is_set():
            if not any(map(_awaits_request, self.server_state.connections)):
                return
            await asyncio.sleep(REQUEST_POLL_S)

    async def _close_remaining(self) -> None:
        """Close the remaining connections, and wait for their tasks to end."""
        connections = list(self.server_state.connections)
        for connection in connections:
            connection.shutdown()
        # A WebSocket's close frame is sent when it is written, or never.
        for connection in connections:
            connection.transport.abort()
        # Streams have no tasks; they release their slots in `connection_lost`.
        for _ in range(LOST_ITERATIONS):
            if not self.server_state.connections:
                break
            await asyncio.sleep(0)
        # uvicorn logs a cancelled request as an error of the app, with a traceback.
        # Most requests end by themselves once their client is disconnected.
        if tasks := set(self.server_state.tasks):
            _, unfinished = await asyncio.wait(tasks, timeout=FINISH_S)
            for task in unfinished:
                task.cancel()
            if unfinished:
                await asyncio.wait(unfinished, timeout=FINISH_S)


def _awaits_request(connection: object) -> bool:
    return isinstance(connection, HttpProtocol) and connection.awaits_request


def _fds_max() -> int:
    """Return how many files this process can open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNLIMITED_FDS if limit == resource.RLIM_INFINITY else limit


def _uvicorn_config(
    app: ASGIApp, config: Config, direct: DirectApp | None
) -> uvicorn.Config:
    heartbeat_s = config.heartbeat_s
    return uvicorn.Config(
        app,
        http=http_protocol(config, fds_max=_fds_max(), direct=direct),
        ws=WebSocketProtocol,
        ws_max_size=config.message_bytes_max,
        ws_ping_interval=heartbeat_s,
        ws_ping_timeout=min(heartbeat_s, PONG_TIMEOUT_S),
        # Compression costs memory per connection, and 765 kB could become 770 MiB.
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        loop="none",
        log_config=None,
        # At level info uvicorn logs every WebSocket with its query, ticket included.
        log_level="warning",
        access_log=False,
        server_header=False,
        # The client's address is used for nothing, so no proxy's header is evaluated.
        proxy_headers=False,
        forwarded_allow_ips=[],
        workers=1,
        backlog=BACKLOG,
        timeout_keep_alive=config.keep_alive_s,
        timeout_graceful_shutdown=FINISH_S,
    )
