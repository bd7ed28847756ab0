"""
Long poll: wait until a log may have new entries.

Decides when a poll returns. Knows the hub's readers, and how ASGI reports that a client
has disconnected. Knows nothing of the response: the caller reads the log, which is the
truth.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from ...core.access.rights import Caller
from ...core.access.tokens import LEEWAY_S
from ...core.streams.cursor import Cursor
from ...errors import ERASED, TOKEN_INVALID, Defect, Unauthenticated
from ...model import Log
from ...service.streams.admission import Admission
from ...service.streams.poll_waiter import PollWaiter
from ..web.requests import until_disconnect

__all__ = ["wait_for_entry"]


async def wait_for_entry(
    admission: Admission,
    log: Log,
    cursor: Cursor,
    *,
    deadline_s: float,
    request: Request,
    caller: Caller | None = None,
    wakes_on_marks: bool = False,
    is_enough: Callable[[], Awaitable[bool]] | None = None,
) -> bool:
    """
    Wait until entries may follow `cursor`, the deadline passes, or the client is gone.

    While it waits, it counts as a connection of its player and of the node. It waits no
    longer than the caller's credential is valid.

    Args:
        admission: Admits the poll.
        log: The log to wait for.
        cursor: The caller's position.
        deadline_s: How long to wait, in seconds.
        request: The request, whose body must have been read.
        caller: Whose credential ends the wait when it is revoked; None for no one's.
        wakes_on_marks: Whether a change of the read marks ends the wait, too.
        is_enough: Called at each change, one call at a time; the wait goes on if it
            returns false. None ends the wait at the first change. Its errors are
            raised.

    Returns whether the last call of `is_enough` has ended the wait.

    Raises:
        Unauthenticated: REVOKED: the caller's credential was revoked meanwhile, or
            the caller is the player, who was erased.
        LimitReached: The player or the node has reached its limit of connections.
        Draining: The node is shutting down.
        StoreUnavailable: The log cannot be subscribed to.

    """
    if caller is not None and caller.expires_at_s is not None:
        deadline_s = min(deadline_s, caller.expires_at_s + LEEWAY_S - time.time())
    waiter = PollWaiter(
        cursor,
        admission.new_connection(),
        admission.counters.longpoll,
        wakes_on_marks=wakes_on_marks,
    )
    with admission.admit():
        async with admission.listen(log, waiter, caller=caller):
            if wakes_on_marks:
                # What was marked between the caller's read and now has woken nobody.
                waiter.woken.set()
            disconnect_task = asyncio.create_task(
                until_disconnect(request.receive), name="disconnect"
            )
            try:
                is_answered = await _wait(
                    waiter, disconnect_task, deadline_s, is_enough
                )
            finally:
                disconnect_task.cancel()
                await asyncio.gather(disconnect_task, return_exceptions=True)
    if waiter.ended is TOKEN_INVALID:
        raise Unauthenticated(Defect.REVOKED)
    # An erasure revokes the player's tokens. To read now would begin a new inbox.
    if waiter.ended is ERASED and caller is not None and caller.player is not None:
        raise Unauthenticated(Defect.REVOKED)
    return is_answered


async def _wait(
    waiter: PollWaiter,
    disconnect_task: asyncio.Task[None],
    deadline_s: float,
    is_enough: Callable[[], Awaitable[bool]] | None,
) -> bool:
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + deadline_s
    while True:
        wake_task = asyncio.create_task(waiter.woken.wait(), name="poll")
        try:
            await asyncio.wait(
                (wake_task, disconnect_task),
                timeout=max(0.0, ends_s - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            wake_task.cancel()
            await asyncio.gather(wake_task, return_exceptions=True)
        is_over = waiter.ended is not None or disconnect_task.done()
        if is_over or not waiter.woken.is_set() or is_enough is None:
            return False
        # What changes during the call wakes the poll once more.
        waiter.woken.clear()
        if await is_enough():
            return True
