"""
Notices of the timetable: what the scripts announce when a bucket has something to do.

Decides which channels are subscribed and how a notice is parsed. Knows Pub/Sub replies;
`store.client.subscriber` keeps the connection. Knows nothing of when a scheduler looks,
nor what a lost notice costs.

Each bucket has a channel in its slot. A notice is one of::

    due <ms>      a schedule has become the first of the bucket, and is due then
    sending       a schedule of the bucket is being sent to an audience

Notices are delivered at most once, and only while connected. The handler is called for
every confirmation of a subscription: notices of that bucket may have been lost before.
"""

from __future__ import annotations

from typing import Final, Protocol

from ...store_url import NAMESPACE
from ..client.address import StoreAddress
from ..client.cluster_subscriber import subscriber_at
from ..client.faults import StoreFaults
from ..client.sentinel import address_at
from ..keys import BUCKETS, keys_of

__all__ = ["NoticeHandler", "Notices"]

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
        faults: Told when the store is unreachable or refuses a subscription.

    """

    def __init__(
        self,
        store: str | StoreAddress,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer-scheduler",
        faults: StoreFaults | None = None,
    ) -> None:
        self._address = address_at(store)
        keys = keys_of(namespace, self._address.database)
        self._buckets = {keys.notices(n).encode(): n for n in range(BUCKETS)}
        self._handler: NoticeHandler | None = None
        self._confirmed: set[int] = set()
        self._subscriber = subscriber_at(
            self._address,
            self,
            name=name,
            part=PART,
            faults=faults or StoreFaults(self._address.where),
        )

    @property
    def complete(self) -> bool:
        """Whether notices of all buckets arrive."""
        return len(self._confirmed) == BUCKETS

    @property
    def server(self) -> str:
        """The name of the run of the connected server; "" if not known."""
        return self._subscriber.server

    def reconnect(self) -> None:
        """Drop the connection; `run` opens another."""
        self._subscriber.reconnect()

    async def run(self, handler: NoticeHandler) -> None:
        """Keep the connection open; runs until cancelled."""
        self._handler = handler
        await self._subscriber.run()

    def on_open(self) -> None:
        # One command per slot, as a cluster requires.
        self._subscriber.send(*(("SSUBSCRIBE", channel) for channel in self._buckets))

    def on_watch(self, now_s: float) -> None:
        pass

    def on_closed(self) -> None:
        self._confirmed.clear()

    def may_take(self) -> bool:
        return True

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        bucket = self._buckets.get(channel)
        if bucket is None or self._handler is None:
            return
        if kind == b"smessage":
            word, _, rest = payload.partition(b" ")
            if word == b"due" and rest.isdigit():
                self._handler.on_due(bucket, int(rest))
            elif word == b"sending":
                self._handler.on_sending(bucket)
        elif kind == b"ssubscribe":
            self._confirmed.add(bucket)
            if self.complete:
                self._subscriber.note_subscribed()
            self._handler.on_subscribed(bucket)
        elif kind == b"sunsubscribe":
            # The slot has moved, or its server is lost.
            self._confirmed.discard(bucket)
            self._subscriber.send(("SSUBSCRIBE", channel))
