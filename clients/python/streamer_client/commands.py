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
from .wire import Answer, Command, Failure, Reply, encode

__all__ = ["Commands", "Send"]

ANSWER_S: Final = 60.0
"""How long an answer is waited for, over all connections."""
ASKED_MAX: Final = 16
"""Commands on their way at once; further ones wait for their turn."""
PER_S: Final = 10.0
"""Half of what a server takes (20 a second), which has to do for pongs as well."""
BURST: Final = 10

Send = Callable[[str], Awaitable[None]]


class Commands:
    """The commands of one stream over all its connections."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._send: Send | None = None
        self._opened = asyncio.Event()
        self._ended: Exception | None = None
        self._refs = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Answer | Exception | None]] = {}
        self._slots = asyncio.Semaphore(ASKED_MAX)
        self._free_at_s = -float(BURST)

    def opened(self, send: Send) -> None:
        """Ask on this connection from here on."""
        self._send = send
        self._opened.set()

    def closed(self) -> None:
        """Ask on the next connection what is not answered."""
        self._send = None
        self._opened.clear()
        self._settle(None)

    def ended(self, error: Exception) -> None:
        """Let all who wait, and who come, know that there is no further connection."""
        self._ended = error
        self._opened.set()
        self._settle(error)

    def give_up(self) -> None:
        """Let all who wait know that the answer cannot be read."""
        self._settle(
            Unavailable("the answer is behind more than is held", attempt_count=1)
        )

    def answered(self, answer: Answer) -> None:
        """Take an answer; one nobody waits for is ignored."""
        waiting = self._waiting.pop(answer.ref, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def ask(self, command: Command) -> Reply:
        """
        Return the answer to `command`, however many connections it takes.

        Raises:
            CommandFailed: The server does not do it.
            Unavailable: There was no answer; it may be done or not.
            Refused: The stream is over.
        """
        attempt_count = 0
        try:
            async with asyncio.timeout(ANSWER_S), self._slots:
                while True:
                    send = await self._connection()
                    attempt_count += 1
                    answer = await self._ask(send, command)
                    if isinstance(answer, Exception):
                        raise answer
                    if isinstance(answer, Failure):
                        raise CommandFailed(answer.problem)
                    if answer is not None:
                        return answer
        except TimeoutError as error:
            problem = "there was no answer"
            raise Unavailable(problem, attempt_count=attempt_count) from error

    async def _connection(self) -> Send:
        while True:
            await self._opened.wait()
            if self._ended is not None:
                raise self._ended
            await self._pace()
            if self._send is not None:
                return self._send

    async def _pace(self) -> None:
        now_s = self._clock.now_s()
        self._free_at_s = max(self._free_at_s, now_s - BURST / PER_S) + 1 / PER_S
        if self._free_at_s > now_s:
            await self._clock.sleep(self._free_at_s - now_s)

    async def _ask(self, send: Send, command: Command) -> Answer | Exception | None:
        ref = str(next(self._refs))
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[ref] = waiting
        try:
            await send(encode(msgspec.structs.replace(command, ref=ref)))
            answer: Answer | Exception | None = await waiting
            return answer
        finally:
            self._waiting.pop(ref, None)

    def _settle(self, outcome: Exception | None) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(outcome)
