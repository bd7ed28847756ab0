"""
Connections to the primaries of a Redis Cluster, used as one.

Decides which primary gets a command, and what follows when the slot of a command is
elsewhere. Knows the error replies of a cluster. `cluster_address` has the map.
`redis_at` chooses the kind of connection by the address.

There is one `RedisConnection` per primary, a *link*, and all that it promises stays
true of each: one packet per turn of the event loop, one sync, replies in order, no
command sent twice. Commands that are called together are split by primary, sent at the
same time, and their replies joined in the order of the call. A primary that is away
fails its own commands only. Commands of one slot stay in order.

A cluster refuses a command of a slot that is elsewhere before it begins it, so nothing
was done, and the command may be sent to another primary: that is the only case in which
one is sent again. Commands that only read are sent again with all later ones of their
slot, so that their order is kept. A command that writes is sent alone: what came after
it may have been done.

While a slot is moved key by key (``SETSLOT``), a script whose keys are in two places,
or not all there, is refused by both primaries. It is repeated for `PATIENCE_S`, and
then unavailable. Servers that move a whole slot at once (Valkey 9, Redis 8.4) refuse
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Mapping,
    Sequence,
)
from time import monotonic
from typing import Any, Final, TypeAlias
from weakref import WeakSet

from ...errors import StoreUnavailable
from ...store_url import NAMESPACE
from .address import StoreAddress
from .cluster_address import ClusterAddress
from .commands import Command, Packed
from .connection import TIMEOUT_S, RedisConnection, Reply
from .faults import StoreFaults
from .sentinel import address_at
from .slots import Place, Redirect, key_of, parse_redirect, slot_of
from .terms import Terms

__all__ = ["ClusterConnection", "Link", "Redirected", "redis_at"]

PATIENCE_S: Final = 1.5
"""How long a command follows its slot, or waits for it to have moved."""

FENCES_TRIED_MAX: Final = 100_000
"""Enough to meet one slot of all, which a primary may have."""

PAUSE_S: Final = (0.01, 0.1)
"""The first and the longest wait before a command is sent again, after the second."""

# Replies after which another node may be the primary.
_OUT_OF_DATE: Final = ("CLUSTERDOWN", "READONLY", "MASTERDOWN", "UNBLOCKED", "LOADING")

_ASKING: Final[Command] = ("ASKING",)

Asking: TypeAlias = Mapping[int, Place]
Send: TypeAlias = Callable[["Link", Sequence[int], Asking], Awaitable[list[Reply]]]


class Redirected(StoreUnavailable):
    """A command was not executed, because its slot is elsewhere or moves."""

    def __init__(self, redirect: Redirect, words: str, *, where: str, write: bool):
        super().__init__(words, where=where, write=write)
        self.redirect = redirect


class Link(RedisConnection):
    """
    The connection to one primary.

    A redirect is a `Redirected` in its replies, and no reason to leave the server.

    Args:
        owner: The connection that it is a part of.
        place: Where the primary is.
        name: Name in ``CLIENT LIST``.
        timeout_s: As for `RedisConnection`.

    """

    def __init__(
        self, owner: ClusterConnection, place: Place, *, name: str, timeout_s: float
    ) -> None:
        super().__init__(
            owner.cluster.address_of(place),
            namespace=owner.keys.namespace,
            name=name,
            timeout_s=timeout_s,
            terms=owner.terms,
        )
        self.place = place
        self._owner = owner
        self._fence = 0
        self._is_former = False
        """Whether the server has no slots any longer."""
        self.errors = owner.errors
        self.damage = owner.damage
        self.unannounced = owner.unannounced

    def note_serving(self) -> None:
        self._owner.note_link_serves(self)

    def try_again(self) -> Redirected:
        """Return the refusal of a command that is to be repeated soon."""
        words = "TRYAGAIN the slot moves"
        redirect = Redirect("TRYAGAIN", -1, None)
        return Redirected(redirect, words, where=self.address.where, write=True)

    def own_key(self, *, other: bool = False) -> str:
        """
        Return the key of a fence in one of this primary's slots.

        The same as before while it has that slot, unless `other` is set.
        """
        map_ = self._owner.cluster.map
        self._fence += other
        # One that has no slots gets commands by mistake only, and refuses them.
        for number in range(self._fence, self._fence + FENCES_TRIED_MAX):
            self._fence = number
            key = self.keys.fence_of(number)
            if map_ is None or map_.owners[slot_of(key)] == self.place:
                break
        return key

    def retire(self) -> None:
        """Close the connection when its replies have arrived, and keep none open."""
        self._is_former = True
        self.reconnect()

    async def _connect(self) -> None:
        await super()._connect()
        if self._connection is None:
            return
        if self._is_former:
            self._words = "the server has no slots any longer"
            self.reconnect()
        else:
            self._owner.connects += 1
            self.note_serving()

    def _on_lost(self) -> None:
        super()._on_lost()
        self._owner.cluster.suspect()

    def _report(self, words: str) -> None:
        super()._report(words)
        if not self._is_former:  # Nobody would report that it serves again.
            self._owner.note_fault(self, words)

    def _forbidden(self, text: str) -> None:
        super()._forbidden(text)
        self._owner.note_forbidden(self._words)

    def _failure(self, text: str, *, write: bool) -> Exception:
        redirect = parse_redirect(text, self.place.host)
        if redirect is not None:
            return Redirected(redirect, text, where=self.address.where, write=write)
        if text.startswith(_OUT_OF_DATE):
            self._owner.cluster.suspect()
        return super()._failure(text, write=write)


class ClusterConnection(RedisConnection):
    """
    This process's connections to a cluster, with the methods of a single one.

    Args:
        cluster: The address, which has the map of the slots.
        namespace: As for `RedisConnection`.
        name: As for `RedisConnection`.
        timeout_s: As for `RedisConnection`, for each link.
        faults: As for `RedisConnection`.
        terms: As for `RedisConnection`.

    """

    def __init__(
        self,
        cluster: ClusterAddress,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer",
        timeout_s: float = TIMEOUT_S,
        faults: StoreFaults | None = None,
        terms: Terms | None = None,
    ) -> None:
        super().__init__(
            cluster,
            namespace=namespace,
            name=name,
            timeout_s=timeout_s,
            faults=faults,
            terms=terms,
        )
        self.cluster = cluster
        self._home = slot_of(self.keys.nodes)
        self._links: dict[Place, Link] = {}
        self._former: WeakSet[Link] = WeakSet()
        """Links to former primaries. An open connection keeps its link."""
        cluster.watch(self._drop_former)

    async def call_many(
        self,
        commands: Sequence[Command | Packed],
        *,
        write: bool = False,
    ) -> list[Reply]:
        reads_from = len(commands) if write else 0
        return await self._call(commands, reads_from, write=write)

    def _call_scripts(
        self,
        scripts: Sequence[Command | Packed],
        after: Sequence[Command | Packed],
        *,
        write: bool,
    ) -> Coroutine[Any, Any, list[Reply]]:
        reads_from = len(scripts) if write else 0
        return self._call([*scripts, *after], reads_from, write=write)

    def _call(
        self, commands: Sequence[Command | Packed], reads_from: int, *, write: bool
    ) -> Coroutine[Any, Any, list[Reply]]:
        async def send(
            link: Link, indices: Sequence[int], asking: Asking
        ) -> list[Reply]:
            if not asking:
                return await link.call_many([commands[i] for i in indices], write=write)
            asked: list[Command | Packed] = []
            for i in indices:
                asked += (_ASKING, commands[i]) if i in asking else (commands[i],)
            replies = iter(await link.call_many(asked, write=write))
            return [
                (next(replies), next(replies))[1] if i in asking else next(replies)
                for i in indices
            ]

        return self.distribute(commands, send, reads_from=reads_from, write=write)

    async def distribute(
        self,
        commands: Sequence[Command | Packed],
        send: Send,
        *,
        reads_from: int,
        write: bool,
    ) -> list[Reply]:
        """
        Have commands sent to the primaries that have their slots.

        Args:
            commands: The commands. Their keys lead to the primaries.
            send: Sends some of them on a link, and returns the replies in their order;
                what was not executed as a `Redirected`. It gets the indices of the
                commands, and those that need ``ASKING`` before them. It raises
                StoreUnavailable if it has sent none.
            reads_from: From which command on all only read.
            write: As for `call_many`.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        if not commands:
            return []
        if write and self.terms.refusal:
            self._require_record(commands)
        routed = _Routed([self._slot(each) for each in commands])
        until_s, pause_s = 0.0, 0.0
        while True:
            unsent = await self._send(routed, send, write=write)
            again = routed.redirected()
            if unsent:
                again += await self._moved_on(routed, unsent)
            if not again:
                break
            now_s = monotonic()
            until_s = until_s or now_s + PATIENCE_S
            if now_s > until_s:
                for i in again:
                    words = f"its slot does not settle: {routed.replies[i].words}"
                    self._fail(routed, [i], words, write=write)
                break
            for slot, place in routed.follow(again, reads_from):
                self.cluster.note_moved(slot, place)
            # The first time the word of the cluster is good enough.
            await asyncio.sleep(pause_s)
            pause_s = min(max(PAUSE_S[0], 2 * pause_s), PAUSE_S[1])
        if not routed.was_sent:
            raise routed.replies[0]
        return routed.replies

    async def servers(self) -> Sequence[RedisConnection]:
        shards = (await self.cluster.slots()).shards
        return [self.link(place) for place in shards]

    async def replicas(self) -> Sequence[RedisConnection]:
        shards = (await self.cluster.slots()).shards.values()
        places = [place for shard in shards for place in shard.replicas]
        return [
            RedisConnection(
                self.cluster.address_of(place),
                namespace=self.keys.namespace,
                name=self._name,
                timeout_s=self._timeout_s,
            )
            for place in places
        ]

    async def server_of(self, key: str) -> RedisConnection:
        slot = slot_of(key)
        place = (await self.cluster.slots()).owners[slot]
        if place is None:
            raise StoreUnavailable(_unowned(slot), where=self.address.where)
        return self.link(place)

    async def close(self) -> None:
        links = [*self._links.values(), *self._former]
        await asyncio.gather(*(link.close() for link in links))
        # At last: a link that is lost begins to read the map.
        await self.cluster.close()

    @property
    def server(self) -> str:
        # There are several, and the map tells of another one.
        return ""

    def reconnect(self) -> None:
        for link in self._links.values():
            link.reconnect()

    @property
    def links(self) -> Collection[RedisConnection]:
        """The links that are in use."""
        return self._links.values()

    def link(self, place: Place) -> Link:
        """Return the link to a primary, which the first call opens."""
        link = self._links.get(place)
        if link is None:
            link = Link(self, place, name=self._name, timeout_s=self._timeout_s)
            self._links[place] = link
        return link

    def note_link_serves(self, link: Link) -> None:
        """Report that a primary has replied."""
        if self._faults is not None:
            self._faults.passed(_part(link.place))

    def note_fault(self, link: Link, words: str) -> None:
        """Report that one primary is away. The node is ready while another serves."""
        self.cluster.suspect()
        if self._faults is None:
            return
        problem = f"is unavailable in part: {link.place}: {words}"
        self._faults.failed(_part(link.place), problem, partial=True)
        places = self.cluster.map.shards if self.cluster.map else ()
        if all(self._faults.is_failing(_part(place)) for place in places):
            self._faults.unavailable(f"no primary serves; {link.place}: {words}")

    def note_forbidden(self, words: str) -> None:
        """Report what a primary forbids."""
        if self._faults is not None:
            self._faults.note_forbidden(words)

    def _slot(self, command: Command | Packed) -> int:
        key = key_of(command)
        return self._home if key is None else slot_of(key)

    async def _send(self, routed: _Routed, send: Send, *, write: bool) -> list[int]:
        """Send what is due, and take the replies. Returns what could not be sent."""
        try:
            owners = (await self.cluster.slots()).owners
        except StoreUnavailable as error:
            if self._faults is not None:
                self._faults.unavailable(error.words)
            self._fail(routed, routed.due, error.words, write=write)
            return []
        groups = routed.groups(owners)
        for i in groups.pop(None, ()):
            self._fail(routed, [i], _unowned(routed.slots[i]), write=write)
        unsent: list[int] = []

        async def exchange(link: Link, indices: list[int]) -> None:
            try:
                replies = await send(link, indices, routed.asking)
            except StoreUnavailable as error:
                unsent.extend(indices)
                replies = [error] * len(indices)
            else:
                routed.was_sent = True
            for i, reply in zip(indices, replies, strict=True):
                routed.replies[i] = reply

        exchanges = [
            exchange(self.link(place), indices)
            for place, indices in groups.items()
            if place is not None
        ]
        # A task for each, also for a single one: so what is called in one turn of the
        # event loop reaches each primary in the order of the calls.
        await asyncio.gather(*exchanges)
        return unsent

    async def _moved_on(self, routed: _Routed, unsent: list[int]) -> list[int]:
        """Return which commands another primary has by now."""
        before = self.cluster.map
        await self.cluster.refresh()
        after = self.cluster.map
        if before is None or after is None:
            return []
        owners = before.owners, after.owners
        slots = routed.slots
        return [i for i in unsent if owners[0][slots[i]] != owners[1][slots[i]]]

    def _fail(
        self, routed: _Routed, indices: Sequence[int], words: str, *, write: bool
    ) -> None:
        self.errors["away"] += len(indices)
        for i in indices:
            routed.replies[i] = StoreUnavailable(
                words, where=self.address.where, write=write
            )

    def _drop_former(self) -> None:
        """Close the links to nodes that have no slots any longer."""
        map_ = self.cluster.map
        for place in [it for it in self._links if map_ and it not in map_.shards]:
            link = self._links.pop(place)
            link.retire()
            self._former.add(link)
            if self._faults is not None:
                self._faults.passed(_part(place))


class _Routed:
    """
    Commands that are called together, and where each of them stands.

    Args:
        slots: The slot of each.

    """

    def __init__(self, slots: Sequence[int]) -> None:
        self.slots = slots
        self.replies: list[Reply] = [None] * len(slots)
        self.due: Sequence[int] = range(len(slots))
        """Those that are to be sent next."""
        self.asking: dict[int, Place] = {}
        """Those of them that are sent to the future owner of their slot, once."""
        self.was_sent = False
        """Whether a command was sent at all."""

    def groups(self, owners: Sequence[Place | None]) -> dict[Place | None, list[int]]:
        """Return what is due, by primary; None has what nobody has."""
        groups: dict[Place | None, list[int]] = {}
        for i in self.due:
            place = self.asking.get(i) or owners[self.slots[i]]
            groups.setdefault(place, []).append(i)
        return groups

    def redirected(self) -> list[int]:
        """Return which commands were sent and have to be sent elsewhere."""
        replies = self.replies
        return [i for i in self.due if type(replies[i]) is Redirected]

    def follow(self, again: Sequence[int], reads_from: int) -> list[tuple[int, Place]]:
        """
        Make commands due again, and return which slots have moved where.

        Args:
            again: Commands that were not executed.
            reads_from: From which command on all only read.

        """
        first: dict[int, int] = {}
        moved = []
        self.asking = {}
        for i in again:
            first.setdefault(self.slots[i], i)
            reply = self.replies[i]
            if type(reply) is Redirected and reply.redirect.place is not None:
                if reply.redirect.kind == "ASK":
                    self.asking[i] = reply.redirect.place
                else:
                    moved.append((self.slots[i], reply.redirect.place))
        due = set(again)
        for i in range(reads_from, len(self.slots)):
            if i > first.get(self.slots[i], i):
                due.add(i)
        self.due = sorted(due)
        return moved


def redis_at(
    store: str | StoreAddress,
    *,
    namespace: str = NAMESPACE,
    name: str = "streamer",
    timeout_s: float = TIMEOUT_S,
    faults: StoreFaults | None = None,
    terms: Terms | None = None,
) -> RedisConnection:
    """
    Return the connection to a store: to a server, or to a cluster's primaries.

    The arguments are those of `RedisConnection`; the URL may be any that
    `store_url.parse_store_url` accepts.
    """
    address = address_at(store)
    kind = ClusterConnection if isinstance(address, ClusterAddress) else RedisConnection
    return kind(
        address,  # type: ignore[arg-type]  # each takes its own kind
        namespace=namespace,
        name=name,
        timeout_s=timeout_s,
        faults=faults,
        terms=terms,
    )


def _unowned(slot: int) -> str:
    return f"no primary has the slot {slot}"


def _part(place: Place) -> str:
    """Return the name of a primary's connection in `StoreFaults`."""
    return f"connection to {place}"
