"""
`streamer store`: the embedded store on its own, in the foreground.

For a Procfile, where several processes share the store over loopback TCP. Exits without
a signal only if the store's server does, with a non-zero status.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import click

from .settings import fsync_policy, resolve, run, store_memory

__all__ = ["store"]

PROCESSES: Final = 3
"""Processes for which memory is left: this one, a server and a scheduler."""


@click.command()
@click.option("--data-dir", metavar="PATH", help="Directory of the store.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Also listen on this port of 127.0.0.1; 0 listens on the unix socket only.",
)
@click.option(
    "--config",
    "file",
    metavar="PATH",
    help="TOML file with settings. Default: $STREAMER_CONFIG.",
)
def store(data_dir: str | None, port: int, file: str | None) -> None:
    """
    Run the embedded store on its own, until Ctrl-C or SIGTERM.

    Several servers can then share it, as in the Procfile.
    """
    config = resolve(file, data_dir=data_dir).config
    if config.redis:
        raise click.UsageError(
            "a Redis URL is configured, but `streamer store` runs the embedded store"
        )
    memory = store_memory(config, processes=PROCESSES)
    fsync = fsync_policy(config.durability)
    run(_store(Path(config.data_dir), port, fsync=fsync, memory=memory))


async def _store(data_dir: Path, port: int, *, fsync: str, memory: int) -> None:
    from ..store.server.embedded import Embedded, StoreFailed
    from .demo import prepare

    # Before the start: a signal during the start must stop the store, not orphan it.
    async with _stop_signal() as stop:
        embedded = await Embedded.start(data_dir, port=port, fsync=fsync, memory=memory)
        try:
            if (demo := await prepare(embedded.url)) and demo.key:
                click.echo(f"created app demo; its backend key: {demo.key}")
            also = f" and redis://127.0.0.1:{port}" if port else ""
            click.echo(f"the store is ready at {embedded.url}{also}")
            ended = asyncio.create_task(embedded.wait())
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if ended.done():
                raise StoreFailed(
                    f"the store exited unexpectedly (status {ended.result()}): "
                    f"{embedded.log_tail() or 'no output'}"
                )
        finally:
            await embedded.stop()


@contextlib.asynccontextmanager
async def _stop_signal() -> AsyncIterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
