"""
`streamer store`: the embedded store on its own, in the foreground.

For a Procfile, where several processes share the store over loopback TCP. On TCP it
requires a password, because every local user can connect. Exits without a signal only
if the store's server does, with a non-zero status. SIGHUP means what it does to
`streamer serve`: nothing, unless the terminal was closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .demo import demo_option, key_command, prepare
from .init_process import continue_in_child
from .settings import (
    config_option,
    embedded_password,
    enter,
    fsync_policy,
    open_redis,
    password_path,
    resolve,
    run,
    store_memory,
    temporary_dir,
)

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["store"]

PROCESSES: Final = 3
"""Processes for which memory is left: this one, a server and a scheduler."""


@click.command()
@click.option("--data-dir", metavar="PATH", help="Directory of the store.")
@click.option(
    "--namespace",
    metavar="NAME",
    help="Namespace in which the app `demo` is created. Default: streamer.",
)
@click.option(
    "--deployment",
    metavar="NAME",
    help="Name that the deployment in the store must have. Default: any.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Also listen on this port of 127.0.0.1; 0 listens on the unix socket only.",
)
@click.option(
    "--redis-password-file",
    "password_file",
    metavar="PATH",
    help="File with the password that the store requires. With --port it is made if it "
    "is missing. Default: password in the data directory.",
)
@config_option
@demo_option
def store(
    port: int,
    password_file: str | None,
    file: str | None,
    demo: bool | None,
    **flags: str | None,
) -> None:
    """
    Run the embedded store on its own, until Ctrl-C or SIGTERM. SIGHUP does not end it.

    Several servers can then share it, as in the Procfile. They need the password, by
    --redis-password-file. If the store is empty, the app `demo` is created.
    """
    config = resolve(file, redis_password_file=password_file, **flags).config
    if config.redis:
        raise click.UsageError(
            "a Redis URL is configured, but `streamer store` runs the embedded store"
        )
    memory = store_memory(config, processes=PROCESSES)
    fsync = fsync_policy(config.durability)
    continue_in_child()
    run(_store(config, port, demo, fsync=fsync, memory=memory))


async def _store(
    config: Config, port: int, demo: bool | None, *, fsync: str, memory: int
) -> None:
    # A signal ends the start as well, however large the log is that the store loads.
    async with _stop_signal() as stop:
        running = asyncio.create_task(
            _run_store(config, port, demo, fsync=fsync, memory=memory)
        )
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([running, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not running.done():
            running.cancel()
            # Further signals do not shorten this: the store closes its log.
            await asyncio.wait([running])
        if not running.cancelled():
            running.result()


async def _run_store(
    config: Config, port: int, demo: bool | None, *, fsync: str, memory: int
) -> None:
    """Start the store and run it until cancelled. Raises if it exits."""
    from ..store.server.directory import socket_path, socket_url
    from ..store.server.embedded import Embedded, StoreFailed
    from ..store.server.password import make_password
    from ..store.server.running import recorded_as_running

    data_dir = Path(config.data_dir)
    password_file = password_path(config)
    if port:
        make_password(password_file)
    password = embedded_password(config)
    # Not the URL of the embedded store, which has the password.
    where = socket_url(socket_path(data_dir))
    embedded = await Embedded.start(
        data_dir, port=port, fsync=fsync, memory=memory, password=password
    )
    try:
        async with open_redis(embedded.url, config) as redis:
            await enter(redis, config)
        with recorded_as_running(data_dir, temporary_dir()):
            made = await prepare(embedded.url, config, demo=demo)
            if made and made.created:
                command = key_command("demo", {"data_dir": str(data_dir)})
                click.echo(f"created app demo; to create a key: {command}")
            if made and made.key:
                click.echo(f"backend key of app demo, valid for 24 h: {made.key}")
            also = f" and redis://127.0.0.1:{port}" if port else ""
            using = f", with the password in {password_file}" if password else ""
            click.echo(f"the store is ready at {where}{also}{using}")
            status = await embedded.wait()
            raise StoreFailed(
                f"the store exited unexpectedly (status {status}): "
                f"{embedded.log_tail() or 'no output'}"
            )
    finally:
        await embedded.stop()


@contextlib.asynccontextmanager
async def _stop_signal() -> AsyncIterator[asyncio.Event]:
    from ..transports.server.hangup import Hangup, HangupMeaning

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    hangup = Hangup()

    def on_hangup() -> None:
        match hangup.meaning():
            case HangupMeaning.RELOAD:
                click.echo("SIGHUP: nothing to reload; the store goes on", err=True)
            case HangupMeaning.STOP:
                stop.set()

    handlers = {
        signal.SIGINT: stop.set,
        signal.SIGTERM: stop.set,
        signal.SIGHUP: on_hangup,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield stop
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
