"""
Notices of the timetable: what the scripts announce when a bucket has something to do.

Decides which channels are subscribed and how a notice is parsed. Knows Pub/Sub replies
and reconnecting. Knows nothing of when a scheduler looks, nor what a lost notice costs.

Each bucket has a channel in its slot. A notice is one of::

    due <ms>      a schedule has become the first of the bucket, and is due then
    sending       a schedule of the bucket is being sent to an audience

Notices are delivered at most once, and only while connected. The handler is called for
every confirmation of a subscription: notices of that bucket may have been lost before.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final, Protocol

import hiredis

from ...errors import StoreUnavailable
from ...store_url import NAMESPACE
from ..client.address import StoreAddress, address_of
from ..client.connection import Reply, RespConnection, connect
from ..client.faults import StoreFaults
from ..keys import BUCKETS, keys_of

__all__ = ["NoticeHandler", "Notices"]

PING_S: Final = 1.75
"""Interval of pings. A connection that is silent for two of them is dropped."""

BACK_OFF_S: Final = (0.05, 1.0)

PART: Final = "notices of schedules"
"""The name of this part in `StoreFaults`."""


class NoticeHandler(Protocol):
    """Receives the notices. No method may wait or raise."""

    def on_due(self, bucket: int, due_ms: int) -> None: ...

    def on_sending(self, bucket: int) -> None: ...

    def on_subscribed(self, bucket: int) -> None:
        """From now on notices of a bucket arrive; some may have been lost before."""


class Notices:
    """
    The subscriptions of a scheduler, on a connection that `run` keeps open.

    Args:
        store: The store, as for `RedisConnection`.
        namespace: As for `RedisConnection`.
        name: Name in ``CLIENT LIST``.
        faults: Told when the store refuses a subscription.

    """

    def __init__(
        self,
        store: str | StoreAddress,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer-scheduler",
        faults: StoreFaults | None = None,
    ) -> None:
        self._address = address_of(store)
        self._faults = faults or StoreFaults(self._address.where)
        self._name = name
        keys = keys_of(namespace, self._address.database)
        self._buckets = {keys.notices(n).encode(): n for n in range(BUCKETS)}
        self._handler: NoticeHandler | None = None
        self._connection: RespConnection | None = None
        self._confirmed: set[int] = set()
        self._lost = asyncio.Event()
        self._has_received = False

    @property
    def complete(self) -> bool:
        """Whether notices of all buckets arrive."""
        return len(self._confirmed) == BUCKETS

    @property
    def server(self) -> str:
        """The name of the run of the connected server; "" if not known."""
        return self._connection.server if self._connection is not None else ""

    def reconnect(self) -> None:
        """Drop the connection; `run` opens another."""
        if self._connection is not None:
            self._connection.abort()

    async def run(self, handler: NoticeHandler) -> None:
        """Keep the connection open; runs until cancelled."""
        self._handler = handler
        low_s, high_s = BACK_OFF_S
        delay_s = low_s
        try:
            while True:
                if await self._connect():
                    await self._watch()
                    delay_s = low_s if self.complete else min(2 * delay_s, high_s)
                    self._connection = None
                    self._confirmed.clear()
                else:
                    delay_s = min(2 * delay_s, high_s)
                await asyncio.sleep(delay_s * random.uniform(0.5, 1))
        finally:
            if self._connection is not None:
                self._connection.abort()

    async def _connect(self) -> bool:
        self._lost.clear()
        connection = RespConnection(self._on_replies, self._lost.set)
        try:
            await connect(self._address, connection, name=self._name)
        except StoreUnavailable:
            return False
        self._connection = connection
        # One command per slot, as a cluster requires.
        connection.send(*(("SSUBSCRIBE", channel) for channel in self._buckets))
        return True

    async def _watch(self) -> None:
        """Ping until the connection is lost."""
        assert self._connection is not None
        silent = 0
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(PING_S):
                    await self._lost.wait()
            except TimeoutError:
                silent = 0 if self._has_received else silent + 1
                self._has_received = False
                if silent >= 2:
                    self._connection.abort()
                    await self._lost.wait()
                else:
                    self._connection.send(("PING",))

    def _on_replies(self, replies: list[Reply]) -> None:
        self._has_received = True
        for reply in replies:
            self._on_reply(reply)

    def _on_reply(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            # Without notices the scheduler polls every bucket.
            self._faults.failed(PART, f"refuses announcements: {reply}")
            if self._connection is not None:
                self._connection.abort()
            return
        if not isinstance(reply, list) or len(reply) < 3 or self._handler is None:
            return  # The reply to PING.
        kind, channel, payload = reply
        bucket = self._buckets.get(channel)
        if bucket is None:
            return
        if kind == b"smessage":
            word, _, rest = payload.partition(b" ")
            if word == b"due":
                self._handler.on_due(bucket, int(rest))
            elif word == b"sending":
                self._handler.on_sending(bucket)
        elif kind == b"ssubscribe":
            self._confirmed.add(bucket)
            if self.complete:
                self._faults.passed(PART)
            self._handler.on_subscribed(bucket)
        elif kind == b"sunsubscribe" and self._connection is not None:
            # The slot has moved.
            self._confirmed.discard(bucket)
            self._connection.send(("SSUBSCRIBE", channel))
