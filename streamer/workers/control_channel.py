"""
The channel between a worker and its supervisor, and the messages on it.

Knows the worker's end of a socket pair; `process` has the supervisor's. Knows nothing
of how a worker is started, nor of what it serves.

A worker reads a start message, with its settings and its share of the node's limits. It
sends ``ready`` once, and a heartbeat every few seconds, which carries its metrics. Each
message is a line. If one end is closed, the process at the other knows that its peer
has ended: a worker does not outlive its supervisor, even if that is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ..config import Config
from ..metrics.scraping import Collect

__all__ = ["HEARTBEAT", "READY", "ControlChannel", "StartMessage", "share"]

HEARTBEAT_INTERVAL_S: Final = 5.0

READY: Final = b"ready\n"
HEARTBEAT: Final = b"\n"
START_MESSAGE_BYTES_MAX: Final = 1_048_576

# Limits of a node that are divided among its workers.
_SHARED: Final = ("connections_max", "connects_per_s_max", "requests_in_flight_max")


class StartMessage(msgspec.Struct, frozen=True):
    """A worker's settings, with its share of the limits, and the URL of the store."""

    config: Config
    store_url: str


def share(config: Config, index: int) -> Config:
    """Return one worker's settings; the shares of all add up to the node's limits."""
    count = config.workers
    shares = {
        name: getattr(config, name) // count + (index < getattr(config, name) % count)
        for name in _SHARED
    }
    return msgspec.structs.replace(config, workers=1, **shares)


class ControlChannel:
    """The worker's end of the channel. Created before its event loop runs."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._ready = asyncio.Event()
        self._collect: Collect = list

    def read_start_message(self) -> StartMessage:
        """Wait for the start message. Raises EOFError if the supervisor is gone."""
        with self._socket.makefile("rb") as file:
            start_message = file.readline(START_MESSAGE_BYTES_MAX)
        if not start_message:
            raise EOFError
        return msgspec.json.decode(start_message, type=StartMessage)

    def send_ready(self) -> None:
        self._socket.send(READY)
        self._ready.set()

    def report_metrics(self, collect: Collect) -> None:
        """Send these metrics with every heartbeat, once the worker is ready."""
        self._collect = collect

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Send heartbeats within the block; end the process if the supervisor ends."""
        task = asyncio.create_task(self._send_heartbeats(), name="control channel")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _send_heartbeats(self) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=self._socket.dup())
        supervisor_gone = asyncio.create_task(_until_closed(reader))
        ready = asyncio.create_task(self._ready.wait())
        try:
            while not supervisor_gone.done():
                writer.write(self._heartbeat())
                until = {supervisor_gone} if ready.done() else {supervisor_gone, ready}
                await asyncio.wait(
                    until, timeout=HEARTBEAT_INTERVAL_S, return_when=FIRST_COMPLETED
                )
            # As if the supervisor had requested it, so that streams are drained.
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            supervisor_gone.cancel()
            ready.cancel()
            writer.close()
            await asyncio.wait({supervisor_gone, ready})

    def _heartbeat(self) -> bytes:
        # ``ready`` is sent past the writer, and would split a message that the writer
        # sends in parts; an empty line has no parts.
        if not self._ready.is_set():
            return HEARTBEAT
        return msgspec.json.encode(self._collect()) + HEARTBEAT


async def _until_closed(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1):
            pass
