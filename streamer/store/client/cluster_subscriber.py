"""
Connections for subscriptions to a Redis Cluster, used as one.

Decides on which primary a channel is subscribed, and what follows when its slot moves
or its primary is lost. `cluster_address` has the map, `subscriber` keeps each
connection. `subscriber_at` chooses the kind of subscriber by the address.

An announcement is published within a slot, so it arrives only from the shard that has
it, and a command subscribes to channels of one slot. There is one connection per
primary, and per command up to `BATCH` channels.

A subscription that has ended is one that may have missed something. It ends when the
server says so (``sunsubscribe``: its slot has moved away), when its connection is lost,
and when the map names another primary for its slot, since a demoted primary says
nothing. The owner is told each time, by ``sunsubscribe``, and subscribes again; the
confirmation that follows makes its readers read. So whatever is announced in between
is late, and not lost.

Primaries may disagree about who has a slot, each naming the other, until they have
heard of each other. So only the first move of a slot is followed at once, and further
ones after waits that double, from `PAUSE_S` on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic
from typing import Final

from ...errors import StoreUnavailable
from .address import StoreAddress
from .cluster_address import ClusterAddress
from .commands import Command
from .faults import StoreFaults
from .slots import Place, Redirect, parse_redirect, slot_of
from .subscriber import WATCH_S, Subscriber, SubscriberOwner

__all__ = ["ClusterSubscriber", "subscriber_at"]

BATCH: Final = 512
"""Channels per command, so that resubscribing does not block the store."""

MAP_AGE_S: Final = 5.0
"""How old the map may be. A primary that is demoted does not tell its subscribers."""

START_S: Final = 3.0
"""How long one primary that is away keeps a node that starts from being ready."""

PAUSE_S: Final = (0.05, 1.0)
"""The first and the longest wait before a slot that has just moved is followed."""

SETTLED_S: Final = 3.0
"""How long after its last move a slot has settled: the next move is the first one."""

ENDED: Final = b"sunsubscribe"

_logger = logging.getLogger(__name__)


class _Shard:
    """The subscriptions to one primary."""

    def __init__(self, whole: ClusterSubscriber, place: Place, part: str) -> None:
        self.place = place
        self.slots: set[int] = set()
        """The slots whose channels are subscribed here."""
        self._whole = whole
        self.subscriber = Subscriber(
            whole.address.address_of(place),
            self,
            name=whole.name,
            part=f"{part} of {place}",
            faults=whole.faults,
            is_partial=True,
            accepts=self._accepts,
        )
        self.task = asyncio.create_task(self.subscriber.run(), name=f"{part} {place}")

    def on_open(self) -> None:
        self._whole.on_shard_open(self)

    def may_take(self) -> bool:
        return self._whole.may_take()

    def on_message(self, kind: bytes, channel: bytes, payload: bytes) -> None:
        self._whole.on_shard_message(self, kind, channel, payload)

    def on_watch(self, now_s: float) -> None:
        pass

    def on_closed(self) -> None:
        self._whole.on_shard_closed(self)

    def _accepts(self, error: str) -> bool:
        """Whether an error reply says that a slot is elsewhere, which is no refusal."""
        redirect = parse_redirect(error, self.place.host)
        if redirect is None:
            return False
        self._whole.on_shard_redirect(self, redirect)
        return True


class ClusterSubscriber:
    """
    The connections of one owner of subscriptions, which `run` keeps open.

    It has the methods of `Subscriber`. A ``sunsubscribe`` tells the owner that a
    subscription has ended; `on_closed` is never called.

    Args:
        address: The address, which has the map of the slots.
        owner: Has the subscriptions.
        name: As for `Subscriber`.
        part: As for `Subscriber`.
        faults: As for `Subscriber`.

    """

    def __init__(
        self,
        address: ClusterAddress,
        owner: SubscriberOwner,
        *,
        name: str,
        part: str,
        faults: StoreFaults,
    ) -> None:
        self.address = address
        self.name = name
        self.faults = faults
        self._owner = owner
        self._part = part
        self._shards: dict[Place, _Shard] = {}
        self._channels: dict[int, set[bytes]] = {}
        """The channels that the owner wants, by slot."""
        self._at: dict[int, _Shard] = {}
        """Where the channels of a slot are subscribed, or will be on its opening."""
        self._unsent: dict[tuple[_Shard, str, int], dict[bytes, None]] = {}
        """Commands of this turn of the event loop, by primary, name and slot."""
        self._moves: dict[int, tuple[int, float]] = {}
        """How often a slot has moved without settling, and when it may move again."""
        self._pausing: dict[int, asyncio.TimerHandle] = {}
        """Slots that are followed to their primary after a wait."""
        self._leaving: set[asyncio.Task[None]] = set()
        """Tasks of primaries that are not needed any longer, until they have ended."""
        self._lost = 0
        self._first = 0
        """Which primary's replies are passed on first in this turn."""
        self._is_running = False
        self._partial_from_s = float("inf")
        address.watch(self._on_map)

    @property
    def connected(self) -> bool:
        """
        Whether announcements are received: of all slots, or of what is not away.

        A node that starts waits for all primaries, at most `START_S`.
        """
        states = [shard.subscriber.connected for shard in self._shards.values()]
        return any(states) and (all(states) or monotonic() > self._partial_from_s)

    @property
    def server(self) -> str:
        """The empty string: there are several, and the map tells of another one."""
        return ""

    @property
    def was_refused(self) -> bool:
        """Whether a primary has refused a subscription on its present connection."""
        return any(shard.subscriber.was_refused for shard in self._shards.values())

    @property
    def losses(self) -> int:
        """Number of times a connection was lost."""
        return self._lost

    def reaches(self, channel: bytes) -> bool:
        """Whether the primary of a channel is connected."""
        shard = self._shard_of(slot_of(channel))
        return shard is not None and shard.subscriber.connected

    def send(self, *commands: Command) -> None:
        """Subscribe to channels, or leave them: SSUBSCRIBE and SUNSUBSCRIBE."""
        for name, *channels in commands:
            for channel in channels:
                assert isinstance(name, str)
                assert isinstance(channel, bytes)
                self._send(name, channel)

    def reconnect(self) -> None:
        """Drop the connections; `run` opens others."""
        self.address.suspect()
        for shard in self._shards.values():
            shard.subscriber.reconnect()

    def note_subscribed(self) -> None:
        """Report that the store has accepted the subscriptions."""
        for shard in self._shards.values():
            if shard.subscriber.connected and not shard.subscriber.was_refused:
                shard.subscriber.note_subscribed()

    async def run(self) -> None:
        """Keep the connections open; runs until cancelled."""
        loop = asyncio.get_running_loop()
        connect_part = f"connection for {self._part}"
        is_open = False
        self._is_running = True
        self._partial_from_s = monotonic() + START_S
        try:
            while True:
                try:
                    await self.address.slots()
                except StoreUnavailable as error:
                    words = f"is unavailable: {error.words}"
                    self.faults.failed(connect_part, words)
                else:
                    self.faults.passed(connect_part)
                    if not is_open:
                        is_open = True
                        self._on_map()
                        self._owner.on_open()
                await asyncio.sleep(WATCH_S)
                self.address.refresh_after(MAP_AGE_S)
                self._check_tasks()
                # A slot may have waited there when the map changed.
                self._leave_former()
                if is_open:
                    self._owner.on_watch(loop.time())
        finally:
            self._is_running = False
            for timer in self._pausing.values():
                timer.cancel()
            self._pausing.clear()
            tasks = [shard.task for shard in self._shards.values()]
            tasks += self._leaving
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def may_take(self) -> bool:
        """Whether the owner takes another message now."""
        return self._owner.may_take()

    def go_on(self) -> None:
        """Pass on the replies that have arrived, as far as the owner takes them."""
        # Each time another primary is the first: it may be the only one in a turn.
        shards = list(self._shards.values())
        if shards:
            self._first = (self._first + 1) % len(shards)
        for shard in shards[self._first :] + shards[: self._first]:
            shard.subscriber.go_on()

    def on_shard_open(self, shard: _Shard) -> None:
        """Subscribe to the channels of a primary that is connected again."""
        for slot in shard.slots:
            for channel in self._channels.get(slot, ()):
                self._queue(shard, "SSUBSCRIBE", slot, channel)

    def on_shard_message(
        self, shard: _Shard, kind: bytes, channel: bytes, payload: bytes
    ) -> None:
        """Pass a reply of a primary on to the owner."""
        if kind != b"smessage" and self._at.get(slot_of(channel)) is not shard:
            return  # Of a primary that had the slot before; the owner knows.
        self._owner.on_message(kind, channel, payload)

    def on_shard_redirect(self, shard: _Shard, redirect: Redirect) -> None:
        """Follow a slot to where a primary says that it is, or ask again later."""
        if redirect.place is None:
            self.address.suspect()
        else:
            self.address.note_moved(redirect.slot, redirect.place)
        # It does not always say which slot.
        for slot in (redirect.slot,) if redirect.slot >= 0 else tuple(shard.slots):
            if self._at.get(slot) is shard:
                # Nothing has been subscribed, and the map names nobody else.
                self._move(slot, at_once=False)

    def on_shard_closed(self, shard: _Shard) -> None:
        """Tell the owner that the subscriptions to a primary have ended."""
        self._lost += 1
        self.address.suspect()
        if not shard.subscriber.was_refused:
            _logger.warning(
                "announcements interrupted in part: connection to %s lost", shard.place
            )
        for slot in tuple(shard.slots):
            self._tell_ended(slot)

    def _on_map(self) -> None:
        """Follow the slots to their primaries."""
        map_ = self.address.map
        if map_ is None or not self._is_running:
            return
        for place in map_.shards:
            self._shard(place)
        for slot in tuple(self._channels):
            now = self._shard_of(slot)
            if now is not None and now is not self._at.get(slot):
                self._move(slot)
        self._leave_former()

    def _leave_former(self) -> None:
        """End the connections to places that have no slots any longer."""
        map_ = self.address.map
        for place in [it for it in self._shards if map_ and it not in map_.shards]:
            shard = self._shards[place]
            if not shard.slots:
                del self._shards[place]
                self._leaving.add(shard.task)
                shard.task.add_done_callback(self._leaving.discard)
                shard.task.cancel()
                shard.subscriber.withdraw_faults()

    def _move(self, slot: int, *, at_once: bool = True) -> None:
        """Subscribe to a slot where the map says, at once or after a wait."""
        if slot in self._pausing:
            return
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        count, last_s = self._moves.get(slot, (0, float("-inf")))
        count = count + 1 if now_s - last_s < SETTLED_S else 0 if at_once else 1
        low_s, high_s = PAUSE_S
        pause_s = min(low_s * 2.0 ** (count - 1), high_s) if count else 0.0
        self._moves[slot] = count, now_s + pause_s
        if pause_s:
            self._pausing[slot] = loop.call_later(pause_s, self._settle, slot)
        else:
            self._settle(slot)

    def _settle(self, slot: int) -> None:
        self._pausing.pop(slot, None)
        before, now = self._at.get(slot), self._shard_of(slot)
        if now is None or slot not in self._channels:
            return
        if now is not before:
            if before is not None:
                for channel in self._channels[slot]:
                    self._queue(before, "SUNSUBSCRIBE", slot, channel)
            self._put(slot, now)
        self._tell_ended(slot)

    def _send(self, name: str, channel: bytes) -> None:
        slot = slot_of(channel)
        if name == "SSUBSCRIBE":
            self._channels.setdefault(slot, set()).add(channel)
            shard = self._at.get(slot)
            if shard is None:
                shard = self._shard_of(slot)
                if shard is None:
                    return  # Nobody has the slot. The next map may name a primary.
                self._put(slot, shard)
        else:
            wanted = self._channels.get(slot, set())
            wanted.discard(channel)
            shard = self._at.get(slot)
            if not wanted and shard is not None:
                del self._channels[slot], self._at[slot]
                shard.slots.discard(slot)
                self._moves.pop(slot, None)
        if shard is not None:
            self._queue(shard, name, slot, channel)

    def _put(self, slot: int, shard: _Shard) -> None:
        before = self._at.get(slot)
        if before is not None:
            before.slots.discard(slot)
        self._at[slot] = shard
        shard.slots.add(slot)

    def _queue(self, shard: _Shard, name: str, slot: int, channel: bytes) -> None:
        """Send a command in this turn of the event loop, with others of its slot."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        # The last word counts, and the order of the two commands is kept.
        other = "SUNSUBSCRIBE" if name == "SSUBSCRIBE" else "SSUBSCRIBE"
        self._unsent.get((shard, other, slot), {}).pop(channel, None)
        self._unsent.setdefault((shard, name, slot), {})[channel] = None

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, {}
        for (shard, name, _), channels in unsent.items():
            # One that is not connected subscribes when it is.
            shard.subscriber.send(*_in_batches(name, channels))

    def _tell_ended(self, slot: int) -> None:
        for channel in tuple(self._channels.get(slot, ())):
            self._owner.on_message(ENDED, channel, b"")

    def _shard_of(self, slot: int) -> _Shard | None:
        map_ = self.address.map
        place = None if map_ is None else map_.owners[slot]
        return None if place is None or not self._is_running else self._shard(place)

    def _shard(self, place: Place) -> _Shard:
        shard = self._shards.get(place)
        if shard is None:
            shard = self._shards[place] = _Shard(self, place, self._part)
        return shard

    def _check_tasks(self) -> None:
        for shard in self._shards.values():
            if shard.task.done():
                shard.task.result()  # It ends by a defect only.


def subscriber_at(
    address: StoreAddress,
    owner: SubscriberOwner,
    *,
    name: str,
    part: str,
    faults: StoreFaults,
) -> Subscriber | ClusterSubscriber:
    """Return what subscribes at a store: at a server, or at a cluster's primaries."""
    if isinstance(address, ClusterAddress):
        return ClusterSubscriber(address, owner, name=name, part=part, faults=faults)
    return Subscriber(address, owner, name=name, part=part, faults=faults)


def _in_batches(command: str, channels: Iterable[bytes]) -> list[Command]:
    names = list(channels)
    return [(command, *names[i : i + BATCH]) for i in range(0, len(names), BATCH)]
