"""
Announcements: from Redis' sharded Pub/Sub to this process.

Decides which channels are subscribed and how an announcement is parsed. Knows Pub/Sub
replies; `subscriber` keeps the connection. Knows nothing of readers, nor what a missed
announcement costs: `PubSubHandler.on_subscribed` reports when one *may* have been
missed, and the handler reads the log.

An announcement is one message on a log's channel, its parts separated by spaces::

    entry <epoch> <at_us> <offset> <tag> <fragment, empty if it is large>
    with <fields> <epoch> …   the same for an entry with further fields, written as
                              name=value,name=value: device, replaces, withdraws,
                              trace, state (a sampled trace, see `core.trace_context`)
    read <marks version> <JSON members>
    replaced <connection>     another connection has taken over its lease
    traced <id> <fields>      the trace of the ephemeral notification that follows
    passing <JSON>            an ephemeral notification, which is in no log
    audiences                 the player has joined, left, muted or unmuted an audience
    count                     the player has deleted an audience's notification
    erased                    the player is erased; the streams end

A node passes over kinds and fields that it does not know, so that nodes of two versions
work side by side.

Pub/Sub delivers at most once, and only while connected. The handler is therefore called
for every confirmation of a subscription: after the first one the log's announcements
arrive, and each later one means that they were interrupted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Final, Protocol

from ...core.trace_context import TraceContext
from ...errors import StoreUnavailable
from ...model import Entry, Log, notification_id_of
from ...store_url import NAMESPACE
from ..keys import keys_of
from .address import StoreAddress
from .cluster_subscriber import subscriber_at
from .commands import Command
from .faults import StoreFaults
from .sentinel import address_at

__all__ = ["PubSub", "PubSubHandler"]

BATCH: Final = 512
"""Channels per command, so that resubscribing does not block the store."""

LINGER_S: Final = 5.0
"""How long a channel without readers stays subscribed: the next poll comes soon."""

LEFT_MAX: Final = 1_000
"""Channels left at a time, twice a second: about 3 ms."""

TRACED_MAX: Final = 64
"""Traces that are kept for a notification that follows; it does at once or never."""

PART: Final = "subscriptions"
"""The name of subscribing in `StoreFaults`."""

_logger = logging.getLogger(__name__)


class PubSubHandler(Protocol):
    """Receives the announcements. No method may wait or raise."""

    def may_take(self) -> bool:
        """
        Whether it takes another announcement now.

        If not, it has to call `PubSub.go_on` in a later turn of the event loop.
        """

    def on_trace(self, log: Log, entry: Entry | None, trace: TraceContext) -> None:
        """
        The next call has a trace: `on_entry` with `entry`, or `on_ephemeral` for None.
        """

    def on_entry(self, log: Log, entry: Entry) -> None: ...

    def on_read(self, log: Log, *, marks: int, body: bytes) -> None: ...

    def on_replaced(self, log: Log, connection: str) -> None: ...

    def on_ephemeral(self, log: Log, notification: bytes) -> None: ...

    def on_audiences_changed(self, log: Log) -> None:
        """The player of `log` has joined, left, muted or unmuted an audience."""

    def on_count_changed(self, log: Log) -> None:
        """The unread count of the player of `log` has changed."""

    def on_erased(self, log: Log) -> None:
        """The player of `log` is erased."""

    def on_subscribed(self, log: Log) -> None:
        """From now on announcements arrive; some may have been lost before."""


class PubSub:
    """
    The subscriptions of this process, on a connection that `run` keeps open.

    With a cluster it is one connection per primary; see `cluster_subscriber`.

    Args:
        store: The store, as for `RedisConnection`.
        handler: Receives the announcements.
        namespace: As for `RedisConnection`.
        name: Name in ``CLIENT LIST``.
        faults: Told when the store is unreachable or refuses a subscription.

    """

    def __init__(
        self,
        store: str | StoreAddress,
        handler: PubSubHandler,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer-pubsub",
        faults: StoreFaults | None = None,
    ) -> None:
        self._address = address_at(store)
        self._keys = keys_of(namespace, self._address.database)
        self._handler = handler
        self._logs: dict[bytes, Log] = {}
        self._confirmed: dict[Log, asyncio.Future[None] | None] = {}
        """None where the store has not confirmed yet and nobody waits for it."""
        self._resolved: asyncio.Future[None] | None = None
        self._subscribers: Counter[Log] = Counter()
        self._unused: dict[Log, float] = {}
        """When channels without subscribers are left, the earliest first."""
        self._traced: dict[tuple[Log, bytes], TraceContext | None] = {}
        """Traces of ephemeral notifications that follow, by their ids."""
        self._subscriber = subscriber_at(
            self._address,
            self,
            name=name,
            part=PART,
            faults=faults or StoreFaults(self._address.where),
        )

    @property
    def connected(self) -> bool:
        return self._subscriber.connected

    @property
    def losses(self) -> int:
        """Number of times a connection was lost."""
        return self._subscriber.losses

    @property
    def server(self) -> str:
        """The name of the run of the connected server; "" if not known."""
        return self._subscriber.server

    async def subscribe(self, log: Log) -> None:
        """
        Subscribe to a log. Returns when the store has confirmed it.

        Each call needs one `unsubscribe`, also if it raises or is cancelled.

        Raises:
            StoreUnavailable: Not connected, or the connection was lost meanwhile.

        """
        await self.wait_confirmed(self.begin_subscribe(log))

    def begin_subscribe(self, log: Log) -> asyncio.Future[None]:
        """
        Begin to subscribe to a log. Each call needs one `unsubscribe`.

        Returns the future for `wait_confirmed`. Losing the connection cancels it.
        """
        self._subscribers[log] += 1
        self._unused.pop(log, None)
        confirmed = self._confirmed.get(log)
        if confirmed is None:
            confirmed = asyncio.get_running_loop().create_future()
            channel = self._keys.channel(log).encode()
            if not self._subscriber.reaches(channel):
                confirmed.cancel()
                return confirmed
            is_sent = log in self._confirmed  # Again, after a loss.
            self._confirmed[log] = confirmed
            if not is_sent:
                self._logs[channel] = log
                self._subscriber.send(("SSUBSCRIBE", channel))
        return confirmed

    async def wait_confirmed(self, begun: asyncio.Future[None]) -> None:
        """
        Wait until the store has confirmed a subscription.

        Raises:
            StoreUnavailable: The connection was lost before the confirmation.

        """
        if not self._subscriber.connected:
            raise StoreUnavailable
        if not begun.done():
            await _until_done(begun)
        if begun.cancelled():
            raise StoreUnavailable

    def unsubscribe(self, log: Log) -> None:
        """Drop one subscriber. The channel is left `LINGER_S` after the last one."""
        self._subscribers[log] -= 1
        if self._subscribers[log]:
            return
        del self._subscribers[log]
        if log in self._confirmed:
            self._unused[log] = asyncio.get_running_loop().time() + LINGER_S

    def reconnect(self) -> None:
        """Drop the connection; `run` opens another."""
        self._subscriber.reconnect()

    async def run(self) -> None:
        """Keep the connection open; runs until cancelled."""
        await self._subscriber.run()

    def go_on(self) -> None:
        """Pass on the announcements that the handler has not taken yet."""
        self._subscriber.go_on()

    def may_take(self) -> bool:
        return self._handler.may_take()

    def on_open(self) -> None:
        self._subscriber.send(*_in_batches("SSUBSCRIBE", self._logs))

    def on_watch(self, now_s: float) -> None:
        """Leave unused channels."""
        # In the order in which they are due, since each is kept for the same time.
        unused = islice(self._unused.items(), LEFT_MAX)
        due = [log for log, at_s in unused if at_s <= now_s]
        channels = []
        for log in due:
            del self._unused[log], self._confirmed[log]
            channel = self._keys.channel(log).encode()
            del self._logs[channel]
            channels.append(channel)
        if channels:
            self._subscriber.send(*_in_batches("SUNSUBSCRIBE", channels))

    def on_closed(self) -> None:
        if not self._subscriber.was_refused:
            _logger.warning("announcements interrupted: connection lost")
        for confirmed in self._confirmed.values():
            if confirmed is not None:
                confirmed.cancel()
        # Callers of `wait_confirmed` get an error. `on_open` subscribes to every log
        # again. Thousands of futures would take longer than all else that is done here.
        self._confirmed = dict.fromkeys(self._logs.values())

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        log = self._logs.get(channel)
        if log is None:
            return  # Published before the store received our SUNSUBSCRIBE.
        if kind == b"smessage":
            try:
                self._announce(log, payload)
            except Exception:  # The connection serves all logs; this one is read.
                _logger.exception("could not handle an announcement")
                self._handler.on_subscribed(log)
        elif kind == b"ssubscribe":
            self._confirm(log)
        elif kind == b"sunsubscribe":
            # The slot has moved, its server is lost, or the log has a subscriber again.
            confirmed = self._confirmed[log]
            if confirmed is not None:
                if not self._subscriber.reaches(channel):
                    confirmed.cancel()
                if confirmed.done():
                    self._confirmed[log] = None
            self._subscriber.send(("SSUBSCRIBE", channel))

    def _confirm(self, log: Log) -> None:
        if self._subscriber.was_refused:
            return  # Another one was, and the connection is about to be closed.
        self._subscriber.note_subscribed()
        confirmed = self._confirmed[log]
        if confirmed is None or not confirmed.done():
            # There would be one per player on this node; all resolved ones are equal.
            if self._resolved is None:
                self._resolved = asyncio.get_running_loop().create_future()
                self._resolved.set_result(None)
            self._confirmed[log] = self._resolved
            if confirmed is not None:
                confirmed.set_result(None)
        self._handler.on_subscribed(log)

    def _announce(self, log: Log, payload: bytes) -> None:
        kind, _, rest = payload.partition(b" ")
        if kind == b"entry":
            self._handler.on_entry(log, _entry(rest))
        elif kind == b"with":
            fields, _, rest = rest.partition(b" ")
            named = _named(fields)
            entry = _entry(rest)._replace(
                device=named.get("device", ""),
                replaces=named.get("replaces", ""),
                withdraws=named.get("withdraws", ""),
            )
            if (trace := TraceContext.of_fields(named)) is not None:
                self._handler.on_trace(log, entry, trace)
            self._handler.on_entry(log, entry)
        elif kind == b"read":
            marks, _, body = rest.partition(b" ")
            self._handler.on_read(log, marks=int(marks), body=body)
        elif kind == b"replaced":
            self._handler.on_replaced(log, rest.decode())
        elif kind == b"passing":
            if self._traced:
                trace = self._traced.pop((log, notification_id_of(rest)), None)
                if trace is not None:
                    self._handler.on_trace(log, None, trace)
            self._handler.on_ephemeral(log, rest)
        elif kind == b"traced":
            notification_id, _, fields = rest.partition(b" ")
            if len(self._traced) >= TRACED_MAX:
                self._traced.clear()
            trace = TraceContext.of_fields(_named(fields))
            self._traced[log, notification_id] = trace
        elif kind == b"audiences":
            self._handler.on_audiences_changed(log)
        elif kind == b"count":
            self._handler.on_count_changed(log)
        elif kind == b"erased":
            self._handler.on_erased(log)


async def _until_done(future: asyncio.Future[None]) -> None:
    """
    Wait for a future that others wait for, too; being cancelled does not cancel it.

    Does what `asyncio.wait` does for a single future, with a third of the calls.
    """
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)


def _named(fields: bytes) -> dict[str, str]:
    return dict(field.split("=") for field in fields.decode().split(","))


def _entry(text: bytes) -> Entry:
    epoch, at_us, offset, tag, fragment = text.split(b" ", 4)
    return Entry(int(epoch), int(at_us), int(offset), int(tag), fragment)


def _in_batches(command: str, channels: Iterable[bytes]) -> list[Command]:
    # A single server takes any mix; `cluster_subscriber` sorts by slot.
    names = list(channels)
    return [(command, *names[i : i + BATCH]) for i in range(0, len(names), BATCH)]
