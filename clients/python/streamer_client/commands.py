"""
Commands that an application sends on a stream, and their results.

Decides when to send: once on each connection until there is a result, for a bounded
time. All commands are idempotent, so a command whose result was lost with the
connection is sent again on the next one. Knows nothing of what a command means.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from .backoff import Clock
from .errors import CommandFailed, Unavailable
from .wire import Command, CommandError, CommandResult, Reply

__all__ = ["Commands", "Send"]

REPLY_TIMEOUT_S: Final = 60.0
"""How long to wait for a result, over all connections."""
IN_FLIGHT_MAX: Final = 16
"""Commands without a result at the same time; further ones wait."""
COMMANDS_PER_S: Final = 10.0
"""Half of what a server accepts (20 a second); pongs count, too."""
BURST: Final = 10

Send = Callable[[Command], Awaitable[None]]
"""Sends a command with its `ref`; the result arrives by `Commands.on_result`."""


class Commands:
    """The commands of one stream, over all its connections."""

    def __init__(self, clock: Clock, url: str = "") -> None:
        self._clock = clock
        self._url = url
        self._send: Send | None = None
        self._is_open = asyncio.Event()
        self._end_error: Exception | None = None
        self._refs = itertools.count(1)
        self._pending: dict[str, asyncio.Future[CommandResult | Exception | None]] = {}
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._free_at_s = -float(BURST)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection to send on."""
        return self._send is not None

    def on_open(self, send: Send) -> None:
        """Send on this connection from now on."""
        self._send = send
        self._is_open.set()

    def on_close(self) -> None:
        """Send the commands without a result again, on the next connection."""
        self._send = None
        self._is_open.clear()
        self._settle(None)

    def end(self, error: Exception) -> None:
        """Fail all pending and future commands with `error`: the stream has ended."""
        self._end_error = error
        self._is_open.set()
        self._settle(error)

    def give_up(self) -> None:
        """Fail all pending commands: their results cannot be read."""
        problem = "too many events precede the result"
        self._settle(Unavailable(problem, attempt_count=1, url=self._url))

    def on_result(self, result: CommandResult) -> None:
        """Pass a result on; ignore it if nobody waits for it."""
        future = self._pending.pop(result.ref, None)
        if future is not None and not future.done():
            future.set_result(result)

    async def run(self, command: Command) -> Reply:
        """
        Return the reply to `command`, sent on as many connections as necessary.

        Raises:
            CommandFailed: The server did not carry it out.
            Unavailable: There was no result; it may have been carried out or not.
            Refused: The stream has ended.
        """
        attempt_count = 0
        try:
            async with self._clock.timeout(REPLY_TIMEOUT_S), self._in_flight:
                while True:
                    send = await self._connection()
                    attempt_count += 1
                    result = await self._send_once(send, command)
                    if isinstance(result, Exception):
                        raise result
                    if isinstance(result, CommandError):
                        raise CommandFailed(result.problem, url=self._url)
                    if result is not None:
                        return result
        except TimeoutError as error:
            problem = "no reply"
            raise Unavailable(
                problem, attempt_count=attempt_count, url=self._url
            ) from error

    async def _connection(self) -> Send:
        while True:
            await self._is_open.wait()
            if self._end_error is not None:
                raise self._end_error
            await self._pace()
            if self._send is not None:
                return self._send

    async def _pace(self) -> None:
        now_s = self._clock.now_s()
        self._free_at_s = (
            max(self._free_at_s, now_s - BURST / COMMANDS_PER_S) + 1 / COMMANDS_PER_S
        )
        if self._free_at_s > now_s:
            await self._clock.sleep(self._free_at_s - now_s)

    async def _send_once(
        self, send: Send, command: Command
    ) -> CommandResult | Exception | None:
        ref = str(next(self._refs))
        future = asyncio.get_running_loop().create_future()
        self._pending[ref] = future
        try:
            await send(msgspec.structs.replace(command, ref=ref))
            result: CommandResult | Exception | None = await future
            return result
        finally:
            self._pending.pop(ref, None)

    def _settle(self, outcome: Exception | None) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_result(outcome)
