"""
The driver of a client as a subprocess: commands to it, events from it.

Knows the form of lines, and nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
from collections import deque
from typing import Any, Final

from . import PROTOCOL

__all__ = ["Driver", "DriverFailed"]

START_S: Final = 30.0
END_S: Final = 5.0
LINE_BYTES_MAX: Final = 16 * 2**20
ERROR_LINES: Final = 30


class DriverFailed(Exception):
    """The driver ended, or wrote something that is not an event."""


class Driver:
    """
    A running driver.

    Args:
        command: How to start it, as a shell would write it, without a shell.

    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.ready: dict[str, Any] = {}
        """Its first event."""
        self.events: asyncio.Queue[dict[str, Any] | DriverFailed] = asyncio.Queue()
        self.errors: deque[str] = deque(maxlen=ERROR_LINES)
        """The last lines of its standard error."""
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """
        Start it, and wait for `ready`.

        Raises:
            DriverFailed: It does not start, or says something else.
        """
        try:
            self._process = await asyncio.create_subprocess_exec(
                *shlex.split(self.command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
            )
        except OSError as error:
            raise DriverFailed(f"cannot start the driver: {error}") from error
        self._tasks = [
            asyncio.create_task(self._read_events()),
            asyncio.create_task(self._read_errors()),
        ]
        try:
            async with asyncio.timeout(START_S):
                first = await self.events.get()
        except TimeoutError:
            await self.stop()
            raise DriverFailed("the driver did not say ready") from None
        if isinstance(first, DriverFailed):
            await self.stop()
            raise DriverFailed("\n".join([str(first), *self.errors]))
        if first.get("event") != "ready":
            await self.stop()
            raise DriverFailed(f"the driver's first event is not ready: {first}")
        if problem := _problem_of_ready(first):
            await self.stop()
            raise DriverFailed(f"the driver's event ready: {problem}")
        self.ready = first

    async def stop(self) -> None:
        """End its input, and kill it if it does not end by itself."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await asyncio.wait(self._tasks)
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def send(self, command: dict[str, Any]) -> None:
        """Send a command."""
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read_events(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                event = json.loads(line)
                if not isinstance(event, dict) or not isinstance(
                    event.get("event"), str
                ):
                    raise ValueError("not an event")
                self.events.put_nowait(event)
        except ValueError as error:
            text = f"the driver wrote {line[:200]!r}: {error}"
            self.events.put_nowait(DriverFailed(text))
        self.events.put_nowait(DriverFailed("the driver has ended"))

    async def _read_errors(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self.errors.append(line.decode("utf-8", "replace").rstrip())


def _problem_of_ready(ready: dict[str, Any]) -> str:
    """Return what is wrong with the members of `ready`, "" if nothing is."""
    if ready.get("protocol") != PROTOCOL:
        return f"protocol is {ready.get('protocol')!r}, not {PROTOCOL}"
    if not isinstance(ready.get("client"), str):
        return "client is not a string"
    for name in ("transports", "capabilities"):
        if not isinstance(ready.get(name), list):
            return f"{name} is not a list"
    return ""
