"""
Ask several servers one after the other, and wait for none of them alone.

Decides when the next one is asked. Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from ...errors import StoreUnavailable
from ...store_url import StoreUrl

__all__ = ["ANSWER_TIMEOUT_S", "NEXT_AFTER_S", "answers_of"]

NEXT_AFTER_S: Final = 0.3
"""How long a server is waited for before the next one is asked beside it."""

ANSWER_TIMEOUT_S: Final = 1.0
"""How long a single server is waited for."""

T = TypeVar("T")


async def answers_of(
    servers: Sequence[StoreUrl],
    ask: Callable[[StoreUrl], Coroutine[Any, Any, T]],
    failures: list[str],
) -> AsyncGenerator[list[T], None]:
    """
    Yield answers as they come, those of one moment together; maybe none of them.

    Whoever stops early closes the iterator (`contextlib.aclosing`): then the servers
    that have not answered are not waited for, and their connections are closed.

    Args:
        servers: The servers, in the order in which they are asked.
        ask: Asks one server. Raises StoreUnavailable if it gives no answer.
        failures: Receives the words of each server that gives none.

    """
    waiting = list(servers)
    asked: dict[asyncio.Task[T], StoreUrl] = {}
    pending: set[asyncio.Task[T]] = set()
    try:
        while waiting or pending:
            if waiting:
                server = waiting.pop(0)
                task = asyncio.create_task(ask(server))
                asked[task] = server
                pending.add(task)
            done, pending = await asyncio.wait(
                pending,
                timeout=NEXT_AFTER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            answers = []
            # All are looked at: asyncio logs an exception that nobody has seen.
            for task in done:
                error = task.exception()
                if isinstance(error, StoreUnavailable):
                    failures.append(f"{asked[task].place}: {error.words}")
                else:
                    answers.append(task.result())
            yield answers
    finally:
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
