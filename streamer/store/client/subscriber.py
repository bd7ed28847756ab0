"""
A connection for subscriptions, which is kept open.

Decides when to connect again, when a silent connection is dropped, and what is reported
of a store that is unreachable or refuses a subscription. Knows Pub/Sub replies. Knows
nothing of which channels there are, nor what their messages mean: its owner subscribes
whenever the connection has opened.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import hiredis

from ...errors import StoreUnavailable
from .address import StoreAddress
from .commands import Command
from .connection import Reply, RespConnection, connect
from .faults import StoreFaults

__all__ = ["Subscriber", "SubscriberOwner"]

PING_S: Final = 1.0
SILENCE_S: Final = 3.5
"""A connection that is silent for so long in spite of pings is dropped."""

WATCH_S: Final = 0.5
"""How often it is looked at what is due."""

BACK_OFF_S: Final = (0.05, 1.0)


class SubscriberOwner(Protocol):
    """Has the subscriptions. No method may wait or raise."""

    def on_open(self) -> None:
        """The connection has opened; nothing is subscribed."""

    def may_take(self) -> bool:
        """
        Whether it takes another message now.

        If not, it has to call `Subscriber.go_on` in a later turn of the event loop.
        """

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        """
        A reply about a channel: ``ssubscribe``, ``smessage`` or ``sunsubscribe``.

        ``sunsubscribe`` that the owner has not asked for means that the subscription
        has ended: the slot of the channel has moved, or its server is lost. If the
        owner subscribes again, a confirmation follows as soon as it can.
        """

    def on_watch(self, now_s: float) -> None:
        """The connection is open; called every `WATCH_S`, with the loop's time."""

    def on_closed(self) -> None:
        """The connection is lost, and with it the subscriptions."""


class Subscriber:
    """
    The connection of one owner of subscriptions, which `run` keeps open.

    Args:
        address: The address of the store.
        owner: Has the subscriptions.
        name: Name in ``CLIENT LIST``.
        part: What the connection is for, as a part in `StoreFaults`. Connecting is
            reported as "connection for ..." that.
        faults: Told when the store is unreachable or refuses a subscription.
        is_partial: Whether the server is one of several, so that its failure is that of
            a part of the store.
        accepts: Whether an error reply is no refusal.

    """

    def __init__(
        self,
        address: StoreAddress,
        owner: SubscriberOwner,
        *,
        name: str,
        part: str,
        faults: StoreFaults,
        is_partial: bool = False,
        accepts: Callable[[str], bool] = lambda error: False,
    ) -> None:
        self._is_partial = is_partial
        self._accepts = accepts
        self._address = address
        self._owner = owner
        self._name = name
        self._part = part
        self._connect_part = f"connection for {part}"
        self._faults = faults
        self._connection: RespConnection | None = None
        self._lost = asyncio.Event()
        self._has_received = False
        """Whether a reply has arrived since the last check; cheaper than a time."""
        self._replies: deque[Reply] = deque()
        """Replies that the owner has not taken yet. While there are any, none is read:
        the store keeps what follows, within its limit for a client's output."""
        self.was_refused = False
        """Whether the store has refused a subscription on this connection."""
        self.losses = 0
        """Number of times the connection was lost."""

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def server(self) -> str:
        """The name of the run of the connected server; "" if not known."""
        return self._connection.server if self._connection is not None else ""

    def reaches(self, channel: bytes) -> bool:
        """Whether the server of a channel is connected."""
        return self._connection is not None

    def send(self, *commands: Command) -> None:
        """Send commands. Does nothing while not connected."""
        if self._connection is not None:
            self._connection.send(*commands)

    def reconnect(self) -> None:
        """Drop the connection; `run` opens another."""
        if self._connection is not None:
            self._connection.abort()

    def note_subscribed(self) -> None:
        """Report that the store has accepted the subscriptions."""
        self._faults.passed(self._part)

    def withdraw_faults(self) -> None:
        """Report that what has failed is not needed any longer."""
        self._faults.passed(self._part)
        self._faults.passed(self._connect_part)

    async def run(self) -> None:
        """Keep the connection open; runs until cancelled."""
        low_s, high_s = BACK_OFF_S
        delay_s = low_s
        try:
            while True:
                if await self._connect():
                    await self._watch()
                    self._connection = None
                    self.losses += 1
                    # They confirm nothing on the next connection.
                    self._replies.clear()
                    self._owner.on_closed()
                    if not self.was_refused:
                        delay_s = low_s
                await asyncio.sleep(delay_s * random.uniform(0.5, 1))
                delay_s = min(2 * delay_s, high_s)
        finally:
            self.reconnect()

    async def _connect(self) -> bool:
        self._lost.clear()
        self.was_refused = False
        connection = RespConnection(self._on_replies, self._lost.set)
        try:
            await connect(self._address, connection, name=self._name)
        except StoreUnavailable as error:
            self._failed(self._connect_part, f"is unavailable: {error.words}")
            return False
        self._faults.passed(self._connect_part)
        self._connection = connection
        self._owner.on_open()
        return True

    async def _watch(self) -> None:
        """Ping until the connection is lost."""
        loop = asyncio.get_running_loop()
        assert self._connection is not None
        received_at_s = loop.time()
        ping_at_s = received_at_s + PING_S
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._lost.wait()
            except TimeoutError:
                pass
            now_s = loop.time()
            # A silent store is one that sends nothing, not one whose replies wait here.
            if self._has_received or self._replies:
                self._has_received, received_at_s = False, now_s
            if now_s - received_at_s > SILENCE_S:
                self._connection.abort()
                await self._lost.wait()
            elif now_s >= ping_at_s:
                ping_at_s = now_s + PING_S
                self._connection.send(("PING",))
            self._owner.on_watch(now_s)

    def go_on(self) -> None:
        """Pass on the replies that have arrived, as far as the owner takes them."""
        owner, replies = self._owner, self._replies
        while replies and owner.may_take():
            self._has_received = True
            self._handle(replies.popleft())
        if self._connection is not None:
            self._connection.read(more=not replies)

    def _on_replies(self, replies: list[Reply]) -> None:
        self._has_received = True
        self._replies.extend(replies)
        self.go_on()

    def _handle(self, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError):
            if self._accepts(str(reply)):
                return
            self.was_refused = True
            self._failed(self._part, f"refuses announcements: {reply}")
            self.reconnect()
        elif isinstance(reply, list) and len(reply) == 3:
            # The other one is the reply to PING.
            self._owner.on_message(*reply)

    def _failed(self, part: str, problem: str) -> None:
        if self._is_partial:
            problem = f"{problem} ({self._address.where})"
        self._faults.failed(part, problem, partial=self._is_partial)
