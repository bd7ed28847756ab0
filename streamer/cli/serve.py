"""
`streamer serve` and `streamer scheduler`: the store and the server in one command.

`serve` starts several of `streamer worker`, which has no use by itself.

Knows the order in which store and server start and stop, and what is printed. The
server handles the signals and drains; this module stops the store after it, and ends
the server when the store has exited (a server without its store would accept requests
and deliver nothing).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..config import DEFAULT
from .demo import demo_option, greeting, prepare
from .init_process import continue_in_child
from .limits import fit_connections, raise_fd_limit
from .logs import log_to_stderr
from .service_manager import READY, STOPPING, notify
from .settings import (
    embedded_password,
    enter,
    fsync_policy,
    open_redis,
    redis_url,
    resolve,
    run,
    store_memory,
    store_options,
    temporary_dir,
)

if TYPE_CHECKING:
    from ..config import Config
    from ..store.client.connection import RedisConnection
    from ..store.client.faults import StoreFaults
    from ..store.server.embedded import Embedded
    from ..workers.control_channel import ControlChannel, StartMessage

__all__ = ["scheduler", "serve", "worker"]

PASSWORD_WAIT_S: Final = 10.0
"""How long to wait for a password file: a Procfile starts everything at once."""


@click.command()
@click.option(
    "--host",
    help="Addresses to listen on, with commas; unix:/PATH for a Unix socket. "
    "Default: 127.0.0.1.",
)
@click.option("--port", type=int, help="Port to listen on. Default: 8080.")
@click.option(
    "--workers",
    type=int,
    help="Worker processes that share the port, about one per core. SIGHUP replaces "
    "them one by one. Default: 1.",
)
@click.option(
    "--background/--no-background",
    default=None,
    help="Whether to send due schedules too, as `streamer scheduler` does. "
    "Default: yes.",
)
@demo_option
@store_options
def serve(demo: bool | None, file: str | None, **flags: object) -> None:
    """
    Run the server until Ctrl-C or SIGTERM.

    Without --redis, the server runs an embedded store in the data directory. If that
    store is empty and only this machine can connect, the server creates the app `demo`.
    On a terminal it prints credentials of `demo` and commands to try.
    """
    config, sources = resolve(file, **flags)
    if demo and config.redis:
        raise click.UsageError(
            "--demo works with the embedded store alone; for an external one use "
            "`streamer app create`, `streamer key create` and `streamer token`"
        )
    selecting = ("data_dir", "redis", "redis_password_file", "namespace")
    explicit = [name for name in selecting if sources[name] != DEFAULT]
    _run(_serve(config, explicit, demo), config)


@click.command()
@store_options
def scheduler(file: str | None, **flags: object) -> None:
    """
    Send due schedules for servers started with --no-background.

    Several schedulers can run at the same time.
    """
    config = resolve(file, **flags).config
    _run(_schedule(config), config)


@click.command(hidden=True)
@click.argument("channel", type=int)
@click.argument("sockets", type=int, nargs=-1)
def worker(channel: int, sockets: tuple[int, ...]) -> None:
    """Serve one share of `streamer serve --workers N`, which starts this command."""
    from ..workers.control_channel import ControlChannel

    supervisor = ControlChannel(channel)
    start_message = supervisor.read_start_message()
    _run(_work(supervisor, start_message, sockets), start_message.config)


def _run(work: Coroutine[Any, Any, None], config: Config) -> None:
    from ..transports.server.hangup import ignore_reloads

    continue_in_child()
    ignore_reloads()
    log_to_stderr(config.log_level)
    raise_fd_limit()
    try:
        run(work, loop_factory=_new_loop)
    except OSError as exc:  # From the listening socket; others are handled elsewhere.
        raise click.ClickException(exc.strerror or str(exc)) from exc


async def _serve(config: Config, explicit: Sequence[str], demo: bool | None) -> None:
    import msgspec

    from ..transports.server.sockets import are_local, inherited_sockets

    sockets = inherited_sockets(os.environ)
    if not config.log_key:
        # One for all workers.
        config = msgspec.structs.replace(config, log_key=secrets.token_hex(16))
    faults = _faults(config)
    async with _store(config, faults) as (url, embedded):
        made = None
        if embedded:
            local = are_local(config.host, sockets)
            made = await prepare(url, config, demo=demo, local=local)
            if made is not None and made.key:
                # Who sees the credentials may also see the page that uses such ones.
                config = msgspec.structs.replace(config, demo_page=True)
        # What selects the store, for the commands that are printed. The URL of an
        # external one may have passwords, before the host or as options.
        options = {name: str(getattr(config, name)) for name in explicit}
        options |= {"redis": ""} if {"@", "?"} & set(config.redis) else {}

        def announce(addresses: str) -> None:
            click.echo(greeting(made, addresses, options))
            notify(READY)

        await _while_alive(
            embedded, _run_server(config, url, announce, faults, sockets)
        )


async def _run_server(
    config: Config,
    url: str,
    announce: Callable[[str], None],
    faults: StoreFaults,
    sockets: list[socket.socket],
) -> None:
    def stopping() -> None:
        notify(STOPPING)

    if config.workers == 1:
        from .. import server

        await server.run(
            fit_connections(config),
            url,
            announce=announce,
            stopping=stopping,
            sockets=sockets or None,
            faults=faults,
        )
    else:
        from ..workers.supervisor import Supervisor

        supervisor = Supervisor(config, url, sockets=sockets, stopping=stopping)
        await supervisor.run(announce=announce)


async def _work(
    channel: ControlChannel, start_message: StartMessage, fds: tuple[int, ...]
) -> None:
    from .. import server

    serving = server.run(
        fit_connections(start_message.config),
        start_message.store_url,
        announce=lambda url: channel.send_ready(),
        sockets=[socket.socket(fileno=fd) for fd in fds],
        report=channel.report_metrics,
    )
    async with channel.open():
        await _ignore_signals_after(serving)


async def _schedule(config: Config) -> None:
    from .. import server

    faults = _faults(config)
    async with _store(config, faults) as (url, embedded):
        running = server.run_background(config, url, faults=faults)
        await _while_alive(embedded, running)


def _faults(config: Config) -> StoreFaults:
    """Return the faults of the store, which are logged once from the start on."""
    from ..store.client.faults import StoreFaults
    from ..store_url import parse_store_url

    where = parse_store_url(config.redis).place if config.redis else config.data_dir
    return StoreFaults(where)


@contextlib.asynccontextmanager
async def _store(
    config: Config, faults: StoreFaults
) -> AsyncIterator[tuple[str, Embedded | None]]:
    """
    Yield the URL of the store, and the store itself if it is the embedded one.

    Args:
        config: The settings.
        faults: Told if the store is unavailable.

    Raises:
        StoreUnfit: The store would break what the settings promise, or holds another
            deployment.

    """
    from ..service.node.store_watch import refuse_unsuitable_store
    from ..store.server.embedded import Embedded
    from ..store.server.running import recorded_as_running

    if config.redis:
        url = await redis_url(config, wait_s=PASSWORD_WAIT_S)
        # Workers log for themselves what fails.
        own = faults if config.workers == 1 else None
        await refuse_unsuitable_store(url, config, faults=own)
        yield url, None
        return
    embedded = await Embedded.start(
        Path(config.data_dir),
        fsync=fsync_policy(config.durability),
        memory=store_memory(config),
        password=embedded_password(config),
    )
    try:
        async with open_redis(embedded.url, config) as redis:
            await enter(redis, config)
            await _void_leases(redis)
        with recorded_as_running(Path(config.data_dir), temporary_dir()):
            yield embedded.url, embedded
    finally:
        await embedded.stop()


async def _void_leases(redis: RedisConnection) -> None:
    """
    Void the leases of nodes that died with the store.

    No other node runs on a store that was just started for this one, so there are no
    heartbeats to wait for.
    """
    await redis.call("DEL", redis.keys.nodes, write=True)


async def _while_alive(
    embedded: Embedded | None, work: Coroutine[Any, Any, None]
) -> None:
    """Run `work` to its end; cancel it and raise if the store exits before."""
    if embedded is None:
        await work
        return
    from ..store.server.embedded import StoreFailed

    ended = asyncio.create_task(embedded.wait())
    working = asyncio.create_task(_ignore_signals_after(work))
    try:
        await asyncio.wait([ended, working], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
            return
        raise StoreFailed(
            f"the embedded store exited unexpectedly (status {ended.result()}): "
            f"{embedded.log_tail() or 'no output'}"
        )
    finally:
        for task in (ended, working):
            task.cancel()
        await asyncio.gather(ended, working, return_exceptions=True)


async def _ignore_signals_after(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, which handles signals, and ignore them afterwards."""
    try:
        await work
    finally:
        # The store closes its log, which takes `STOP_S` at most. A second Ctrl-C would
        # only make its next start slower.
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if number := getattr(signal, name, None):  # Windows has no SIGHUP.
                signal.signal(number, signal.SIG_IGN)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows, with an external store.
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
