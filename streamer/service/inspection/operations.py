"""
What operators and support ask and do: connections, presence, traces, disconnecting.

Decides the scope that each operation requires, and joins what the nodes answer with
what the store knows. An operation is about players of the caller's app, and nothing
else of a node is told but its name, host, process id and version. Knows nothing of
surfaces.

What nodes answer is as complete as their answers: every result names the live nodes
that were silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from ...core.access.rights import Caller
from ...errors import NotFound
from ...model import (
    Log,
    Notification,
    Player,
    Position,
    decode_fragment,
    decode_id,
    everyone_log,
    topic_log,
)
from ...store.logs.inbox import Inbox, Peek
from ...store.presence.sightings import Sighting, Sightings
from ..inboxes.audiences import PlayerAudiences
from ..inboxes.inbox import InboxOperations
from ..inboxes.receipts import Receipt, ReceiptOperations
from ..node.fast_log import emit
from ..node.player_names import PlayerNames
from ..node.request_context import request_id
from ..privacy.audit import Audit
from .history import Closed, Refused
from .nodes import Answers, Nodes
from .questions import (
    ENTRIES_MAX,
    Answer,
    ConnectionState,
    End,
    Ended,
    EntryRef,
    NodeState,
    NodeStateAnswer,
    Online,
    OnlineAnswer,
    PlayerHistory,
    PlayerHistoryAnswer,
)

__all__ = [
    "TRACES_MAX",
    "Administration",
    "Announcement",
    "Connections",
    "Disconnected",
    "Ending",
    "Inspection",
    "NodeConnection",
    "NodeName",
    "NodeStates",
    "OnlinePage",
    "Refusal",
    "Trace",
    "Traced",
    "Write",
]

T = TypeVar("T")

TRACES_MAX: Final = ENTRIES_MAX
"""Notifications that are traced at once."""

_logger = logging.getLogger(__name__)

_READING: Final = frozenset({"notification:player:read"})
"""What a trace needs of an inbox. None of it but times and states is told."""


class NodeName(NamedTuple):
    """A node: its random name, and where it runs."""

    name: str
    host: str
    pid: int


class NodeConnection(NamedTuple):
    """
    A connection of a player on a node.

    `lag` is the number of entries that its logs have beyond its position, ended ones
    included; None before it has begun.
    """

    node: NodeName
    state: ConnectionState
    lag: int | None


class Connections(NamedTuple):
    """The open connections of a player, oldest first, and the silent nodes."""

    connections: list[NodeConnection]
    silent: list[str]


class Ending(NamedTuple):
    """The end of a connection, and its node."""

    node: NodeName
    closed: Closed


class Refusal(NamedTuple):
    """A refused request, and the node that refused it."""

    node: NodeName
    refused: Refused


class Announcement(NamedTuple):
    """An announcement has reached a node."""

    node: NodeName
    at_ms: int


class Write(NamedTuple):
    """A notification was written to a connection; see `LocalNode`."""

    node: NodeName
    connection: str
    transport: str
    at_ms: int
    replayed: bool


class Trace(NamedTuple):
    """
    The way of a notification to a player.

    `acknowledged_ms` is 0 if that is not remembered; `receipt` has whether it was.
    """

    id: str
    receipt: Receipt
    announced: list[Announcement]
    written: list[Write]
    acknowledged_ms: int
    notification: Notification | None = None


class Traced(NamedTuple):
    """A trace, and the silent nodes."""

    trace: Trace
    silent: list[str]


class Inspection(NamedTuple):
    """
    What is known of a player: newest first, but connections oldest first.

    Endings and refusals are the last 8 of each node together.
    """

    sighting: Sighting
    connections: list[NodeConnection]
    endings: list[Ending]
    refusals: list[Refusal]
    traces: list[Trace]
    silent: list[str]


class Disconnected(NamedTuple):
    """The names of the connections that were ended, and the silent nodes."""

    connections: list[str]
    silent: list[str]


class OnlinePage(NamedTuple):
    """
    Players with open connections and their number, by name; totals of all of them.

    A player with connections to several nodes counts once per node in `players_total`.
    `next` is the name after which the next page begins, "" at the end.
    """

    players: list[tuple[str, int]]
    players_total: int
    connections_total: int
    next: str
    silent: list[str]


class NodeStates(NamedTuple):
    """The nodes that have answered, by host and process id, and the silent ones."""

    nodes: list[tuple[NodeName, NodeStateAnswer]]
    silent: list[str]


class _Wanted(NamedTuple):
    """A notification to trace, and the logs that may have it."""

    id: str
    position: Position
    logs: Sequence[Log]
    notification: Notification | None = None


class Administration:
    """
    The operations, with the rights of a caller.

    Args:
        nodes: All nodes.
        sightings: The presence of players.
        inbox: All logs.
        inboxes: The players' inboxes.
        audiences: The audiences of players.
        receipts: The receipts of notifications.
        players: Names players in the log.
        audit: Records who has disconnected whom.

    """

    def __init__(
        self,
        nodes: Nodes,
        sightings: Sightings,
        inbox: Inbox,
        inboxes: InboxOperations,
        audiences: PlayerAudiences,
        receipts: ReceiptOperations,
        players: PlayerNames,
        audit: Audit,
    ) -> None:
        self._nodes = nodes
        self._sightings = sightings
        self._inbox = inbox
        self._inboxes = inboxes
        self._audiences = audiences
        self._receipts = receipts
        self._players = players
        self._audit = audit

    async def nodes(self, caller: Caller) -> NodeStates:
        """
        Return the live nodes, with their numbers of connections for the caller's app.

        Raises:
            Forbidden: The caller's key has not the scope ``admin:read``.
            LimitReached: Too many such operations wait for answers.
            StoreUnavailable: The nodes cannot be asked.

        """
        caller.require_scope("admin:read")
        answers = await self._nodes.ask(NodeState(app=caller.app), NodeStateAnswer)
        states = [(_named(name, it), it) for name, it in answers.of.items()]
        states.sort(key=lambda item: (item[0].host, item[0].pid))
        return NodeStates(states, answers.silent)

    async def connections(self, caller: Caller, player: Player) -> Connections:
        """Return a player's open connections. Raises as `nodes`."""
        caller.require_scope("admin:read")
        answers = await self._ask_about(Log(caller.app, player), [])
        return Connections(await self._connections(caller, answers), answers.silent)

    async def inspect(
        self, caller: Caller, player: Player, *, count: int
    ) -> Inspection:
        """
        Return what is known of a player, with traces of the newest notifications.

        Args:
            caller: The caller.
            player: The player.
            count: The number of notifications to trace, `TRACES_MAX` at most.

        Raises as `nodes`.

        """
        caller.require_scope("admin:read")
        log = Log(caller.app, player)
        reader = _with_reading(caller)
        wanted = []
        if count:
            page = await self._inboxes.page(reader, player, count=count)
            for page_entry in page.entries or ():
                entry = page_entry.entry
                notification = decode_fragment(entry.fragment)
                where = _log_of(log, notification)
                wanted.append(
                    _Wanted(entry.position.id, entry.position, [where], notification)
                )
        answers, (sighting,), receipts = await asyncio.gather(
            self._ask_about(log, wanted),
            self._sightings.of_many([log]),
            asyncio.gather(
                *(self._receipts.of_player(reader, player, it.id) for it in wanted),
                return_exceptions=True,
            ),
        )
        traces = []
        for i, (one, receipt) in enumerate(zip(wanted, receipts, strict=True)):
            if isinstance(receipt, NotFound):
                continue  # It was trimmed meanwhile.
            if isinstance(receipt, BaseException):
                raise receipt
            traces.append(_trace(one, receipt, [i], answers))
        return Inspection(
            sighting,
            await self._connections(caller, answers),
            _endings(answers),
            _refusals(answers),
            traces,
            answers.silent,
        )

    async def trace(
        self, caller: Caller, player: Player, notification_id: str
    ) -> Traced:
        """
        Return the trace of one notification, also of one that has ended.

        Raises NotFound if the player's inbox never had it, or no longer keeps it;
        besides as `nodes`.
        """
        caller.require_scope("admin:read")
        log = Log(caller.app, player)
        reader = _with_reading(caller)
        position = decode_id(notification_id)
        if position is None:
            raise NotFound("the notification")
        receipt = await self._receipts.of_player(reader, player, notification_id)
        views = await self._audiences.views_of(log)
        logs = [log, *(view.log for view in views)][:TRACES_MAX]
        # Entries of different logs differ by their tags.
        wanted = [_Wanted(position.id, position, [one]) for one in logs]
        answers = await self._ask_about(log, wanted)
        trace = _trace(wanted[0], receipt, range(len(wanted)), answers)
        return Traced(trace, answers.silent)

    async def presence(
        self, caller: Caller, players: Sequence[Player]
    ) -> list[Sighting]:
        """
        Return the presence of players, in order. O(players).

        From the leases in the store; no node is asked. See `store.presence.sightings`
        for how exact that is. Raises Forbidden, StoreUnavailable.
        """
        caller.require_scope("admin:read")
        return await self._sightings.of_many([Log(caller.app, it) for it in players])

    async def online(self, caller: Caller, *, after: str, limit: int) -> OnlinePage:
        """
        Return players with open connections, by name, after a name.

        From the nodes: a player appears as soon as a connection has joined, and is gone
        when it has left. A player may come or go between two pages. Raises as `nodes`.
        """
        caller.require_scope("admin:read")
        question = Online(app=caller.app, after=after, limit=limit)
        answers = await self._nodes.ask(question, OnlineAnswer)
        counts: dict[str, int] = {}
        for answer in answers.of.values():
            for name, count in answer.players:
                counts[name] = counts.get(name, 0) + count
        names = sorted(counts)
        # Each node has given its first ones, so the first ones of all are complete.
        is_last = len(names) <= limit and all(
            len(it.players) < limit for it in answers.of.values()
        )
        page = names[:limit]
        return OnlinePage(
            [(name, counts[name]) for name in page],
            sum(it.players_total for it in answers.of.values()),
            sum(it.connections_total for it in answers.of.values()),
            "" if is_last or not page else page[-1],
            answers.silent,
        )

    async def disconnect(
        self,
        caller: Caller,
        player: Player,
        connection: str,
        *,
        reconnect: bool,
        reason: str = "",
    ) -> Disconnected:
        """
        End a player's connections, or the one that is named.

        With `reconnect` their clients return within seconds and resume; otherwise they
        stop, until the application opens another connection. A waiting poll is answered
        at once, without notifications, and its client polls again in either case. The
        player's tokens stay valid. `reason` says why, for the log and the audit log.

        Raises:
            Forbidden: The caller's key has not the scope ``admin:write``.
            LimitReached, StoreUnavailable: As `nodes`. A repetition does no harm.

        """
        caller.require_scope("admin:write")
        question = End(
            app=caller.app, player=player, connection=connection, stop=not reconnect
        )
        async with self._audit.recorded(
            *(caller.app, caller, "player.disconnect"), player=player, reason=reason
        ) as details:
            answers = await self._nodes.ask(question, Ended)
            ended = [name for it in answers.of.values() for name in it.connections]
            details.update(connections=len(ended), reconnect=reconnect)
        # The only change that an operation of this module makes.
        fields = {
            "app": caller.app,
            "player": self._players.of(caller.app, player),
            "connections": len(ended),
            "reconnect": reconnect,
            "reason": reason,
            "request_id": request_id(),
        }
        emit(_logger, "an operator closed connections", fields, logging.INFO)
        return Disconnected(ended, answers.silent)

    async def _ask_about(
        self, log: Log, wanted: Sequence[_Wanted]
    ) -> Answers[PlayerHistoryAnswer]:
        entries = [
            EntryRef(
                one.name,
                it.position.offset,
                it.position.tag,
                it.position.at_us // 1_000,
            )
            for it in wanted
            for one in it.logs
        ]
        question = PlayerHistory(app=log.app, player=log.player, entries=entries)
        return await self._nodes.ask(question, PlayerHistoryAnswer)

    async def _connections(
        self, caller: Caller, answers: Answers[PlayerHistoryAnswer]
    ) -> list[NodeConnection]:
        # After the answers, so that no connection is ahead of what is read here.
        names = {
            place.name
            for answer in answers.of.values()
            for it in answer.connections
            for place in it.places
        }
        logs = [Log(caller.app, name) for name in sorted(names)]
        heads = {
            log.name: peek.head.offset
            for log, peek in zip(logs, await self._inbox.peek(logs), strict=True)
            if isinstance(peek, Peek)
        }
        found = [
            NodeConnection(_named(name, answer), it, _lag(it, heads))
            for name, answer in answers.of.items()
            for it in answer.connections
        ]
        return sorted(found, key=lambda it: it.state.connected_ms)


def _with_reading(caller: Caller) -> Caller:
    """Return the caller with the right to read what a trace is made of."""
    permissions = caller.permissions | _READING
    return msgspec.structs.replace(caller, permissions=permissions)


def _named(name: str, answer: Answer) -> NodeName:
    return NodeName(name, answer.host, answer.pid)


def _log_of(log: Log, notification: Notification) -> Log:
    if notification.topic:
        return topic_log(log.app, notification.topic)
    return everyone_log(log.app) if notification.everyone else log


def _lag(state: ConnectionState, heads: Mapping[str, int]) -> int | None:
    if not state.places:
        return None
    return sum(
        max(heads[place.name] - place.upto, 0)
        for place in state.places
        if place.name in heads
    )


def _endings(answers: Answers[PlayerHistoryAnswer]) -> list[Ending]:
    endings = [
        Ending(_named(name, answer), closed)
        for name, answer in answers.of.items()
        for closed in answer.closed
    ]
    return _newest_first(endings, lambda it: it.closed.at_ms)


def _refusals(answers: Answers[PlayerHistoryAnswer]) -> list[Refusal]:
    refusals = [
        Refusal(_named(name, answer), refused)
        for name, answer in answers.of.items()
        for refused in answer.refused
    ]
    return _newest_first(refusals, lambda it: it.refused.at_ms)


def _newest_first(events: Sequence[T], at_ms: Callable[[T], int]) -> list[T]:
    # Of two in one millisecond, a node has the later one last.
    return sorted(events, key=at_ms)[::-1]


def _trace(
    wanted: _Wanted,
    receipt: Receipt,
    indexes: Sequence[int],
    answers: Answers[PlayerHistoryAnswer],
) -> Trace:
    """Return the trace of the entry that has any of the indexes in the question."""
    announced, written, acknowledged = [], [], []
    for name, answer in answers.of.items():
        node = _named(name, answer)
        announced += [
            Announcement(node, at_ms) for i, at_ms in answer.announced if i in indexes
        ]
        written += [
            Write(node, it.connection, it.transport, it.at_ms, it.replayed)
            for it in answer.written
            if it.entry in indexes
        ]
        acknowledged += [at_ms for i, at_ms in answer.acknowledged if i in indexes]
    return Trace(
        wanted.id,
        receipt,
        sorted(announced, key=lambda it: it.at_ms),
        sorted(written, key=lambda it: it.at_ms),
        min(acknowledged, default=0),
        wanted.notification,
    )
