"""
Held polls: wait until a log has something, for as long as the caller likes.

Decides when a poll wakes. Knows the hub's readers and ASGI's way of saying that the
client has gone. Knows nothing of what the poll answers: whoever waited reads the log,
which is where the truth is.
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
    Return when something may follow `cursor`, the deadline is over, or nobody waits.

    It counts as a listener of its player and of the node while it waits.

    Raises:
        Unauthenticated: REVOKED: the caller's credential was taken back meanwhile.
        LimitReached: The player or the node has all the listeners it may have.
        Draining: The node is going away.
        StoreUnavailable: The log cannot be listened to.

    """
    connection_id = admission.new_connection()
    waiter = PollWaiter(cursor, connection_id, admission.counters.longpoll)
    with admission.admit():
        async with admission.listen(log, waiter, caller=caller):
            wake_task = asyncio.create_task(waiter.woken.wait(), name="poll")
            disconnect_task = asyncio.create_task(
                until_disconnect(request.receive), name="leaving"
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
