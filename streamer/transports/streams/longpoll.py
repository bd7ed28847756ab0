"""
Long poll: wait until a log may have new entries.

Decides when a poll returns. Knows the hub's readers, and how ASGI reports that a client
has disconnected. Knows nothing of the response: the caller reads the log, which is the
truth.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from ...core.access.rights import Caller
from ...core.streams.cursor import Cursor
from ...errors import TOKEN_INVALID, Defect, Unauthenticated
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
) -> None:
    """
    Wait until entries may follow `cursor`, the deadline passes, or the client is gone.

    While it waits, it counts as a connection of its player and of the node.

    Args:
        admission: Admits the poll.
        log: The log to wait for.
        cursor: The caller's position.
        deadline_s: How long to wait, in seconds.
        request: The request, whose body must have been read.
        caller: Whose credential ends the wait when it is revoked; None for no one's.

    Raises:
        Unauthenticated: REVOKED: the caller's credential was revoked meanwhile.
        LimitReached: The player or the node has reached its limit of connections.
        Draining: The node is shutting down.
        StoreUnavailable: The log cannot be subscribed to.

    """
    connection_id = admission.new_connection()
    waiter = PollWaiter(cursor, connection_id, admission.counters.longpoll)
    with admission.admit():
        async with admission.listen(log, waiter, caller=caller):
            wake_task = asyncio.create_task(waiter.woken.wait(), name="poll")
            disconnect_task = asyncio.create_task(
                until_disconnect(request.receive), name="disconnect"
            )
            try:
                await asyncio.wait(
                    (wake_task, disconnect_task),
                    timeout=deadline_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                wake_task.cancel()
                disconnect_task.cancel()
                await asyncio.gather(wake_task, disconnect_task, return_exceptions=True)
    if waiter.ended is TOKEN_INVALID:
        raise Unauthenticated(Defect.REVOKED)
