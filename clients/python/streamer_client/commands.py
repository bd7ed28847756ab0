"""
What an application asks for on a stream, and the answers.

Decides how often to ask: as long as there is no answer, on each connection once, for a
bounded time. All commands may be repeated without harm, so a lost connection is a
reason to ask again. Knows nothing of what a command means.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from .backoff import Clock
from .errors import CommandFailed, Unavailable
from .wire import Command, CommandError, CommandResult, Reply, encode

__all__ = ["Commands", "Send"]

REPLY_TIMEOUT_S: Final = 60.0
"""How long an answer is waited for, over all connections."""
IN_FLIGHT_MAX: Final = 16
"""Commands on their way at once; further ones wait for their turn."""
COMMANDS_PER_S: Final = 10.0
"""Half of what a server takes (20 a second), which has to do for pongs as well."""
BURST: Final = 10

Send = Callable[[str], Awaitable[None]]


class Commands:
    """The commands of one stream over all its connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._send: Send | None = None
        self._is_open = asyncio.Event()
        self._end_error: Exception | None = None
        self._refs = itertools.count(1)
        self._pending: dict[str, asyncio.Future[CommandResult | Exception | None]] = {}
        self._in_flight = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._free_at_s = -float(BURST)

    def on_open(self, send: Send) -> None:
        """Ask on this connection from here on."""
        self._send = send
        self._is_open.set()

    def on_close(self) -> None:
        """Ask on the next connection what is not answered."""
        self._send = None
        self._is_open.clear()
        self._settle(None)

    def end(self, error: Exception) -> None:
        """Let all who wait, and who come, know that there is no further connection."""
        self._end_error = error
        self._is_open.set()
        self._settle(error)

    def give_up(self) -> None:
        """Let all who wait know that the answer cannot be read."""
        self._settle(
            Unavailable("the answer is behind more than is held", attempt_count=1)
        )

    def on_result(self, result: CommandResult) -> None:
        """Take an answer; one nobody waits for is ignored."""
        future = self._pending.pop(result.ref, None)
        if future is not None and not future.done():
            future.set_result(result)

    async def run(self, command: Command) -> Reply:
        """
        Return the answer to `command`, however many connections it takes.

        Raises:
            CommandFailed: The server does not do it.
            Unavailable: There was no answer; it may be done or not.
            Refused: The stream is over.
        """
        attempt_count = 0
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S), self._in_flight:
                while True:
                    send = await self._connection()
                    attempt_count += 1
                    result = await self._send_once(send, command)
                    if isinstance(result, Exception):
                        raise result
                    if isinstance(result, CommandError):
                        raise CommandFailed(result.problem)
                    if result is not None:
                        return result
        except TimeoutError as error:
            problem = "there was no answer"
            raise Unavailable(problem, attempt_count=attempt_count) from error

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
            await send(encode(msgspec.structs.replace(command, ref=ref)))
            result: CommandResult | Exception | None = await future
            return result
        finally:
            self._pending.pop(ref, None)

    def _settle(self, outcome: Exception | None) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_result(outcome)
