"""
What operators see of nodes, connections and notifications, as bytes.

Decides the types of requests and responses, which the contract documents. Pure: no I/O,
no services.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ....errors import FieldError
from ....model import iso_time
from ....names import Player
from ....service.inspection.operations import (
    Connections,
    Disconnected,
    Ending,
    Inspection,
    NodeConnection,
    NodeName,
    NodeStates,
    OnlinePage,
    Refusal,
    Trace,
    Traced,
)
from ....store.presence.leases import ALIVE_MS, HEARTBEAT_S
from ....store.presence.sightings import Sighting
from ..common.body_types import refuse
from ..common.names import PlayerText, players_named
from ..common.parameters import Count, Id
from ..common.responses import Time

__all__ = [
    "PLAYERS_MAX",
    "ConnectionsResponse",
    "DisconnectBody",
    "DisconnectedResponse",
    "InspectionResponse",
    "NodesResponse",
    "OnlineResponse",
    "PresenceBody",
    "PresenceResponse",
    "TraceResponse",
    "encode_connections",
    "encode_disconnected",
    "encode_inspection",
    "encode_nodes",
    "encode_online",
    "encode_presence",
    "encode_trace",
]

PLAYERS_MAX: Final = 1_000
"""Players of one request for their presence."""

REASON_CHARS_MAX: Final = 500

LEASE_EXPIRY_S: Final = ALIVE_MS // 1_000 + int(HEARTBEAT_S)
"""How long a player whose node was killed counts as online."""

_encode: Final = msgspec.json.Encoder().encode

Transport = Literal["websocket", "sse", "longpoll"]
TraceState = Literal[
    "stored", "acknowledged", "read", "expired", "withdrawn", "replaced"
]


class DisconnectBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/disconnect``: without `connection` all of the player's."""

    connection: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    reconnect: bool = True
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] = ""


class PresenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/presence``."""

    players: Annotated[list[PlayerText], Meta(min_length=1, max_length=PLAYERS_MAX)]

    def named(self) -> list[Player]:
        """Return the players. Raises Invalid."""
        problems: list[FieldError] = []
        players = players_named(self.players, ("body", "players"), problems)
        refuse(problems)
        return players


class NodeItem(msgspec.Struct, frozen=True, kw_only=True):
    """A node: its name, random and new at every start, and where it runs."""

    node: str
    host: str
    pid: Count


class NodeStateItem(NodeItem, frozen=True, kw_only=True):
    """A node with its numbers of connections for the app of the caller."""

    version: str
    started_at: Time
    draining: bool
    connections: dict[Transport, Count]


class NodesResponse(msgspec.Struct, frozen=True):
    """The nodes that have answered, and the names of live nodes that have not."""

    nodes: list[NodeStateItem]
    silent: list[str]


class ConnectionItem(NodeItem, frozen=True, kw_only=True):
    """
    An open connection.

    `lag` is the number of entries beyond its position; absent until it has begun.
    `last_heard_at` is when its client was last heard of; absent if it only receives.
    `stuck_ms` is present while bytes wait for the client, and says for how long.
    """

    id: str
    transport: Transport
    state: Literal["joining", "catching up", "live", "waiting", "closing"]
    connected_at: Time
    buffer_bytes: Count
    device: str | UnsetType = UNSET
    client: str | UnsetType = UNSET
    last_heard_at: Time | UnsetType = UNSET
    stuck_ms: Count | UnsetType = UNSET
    lag: Count | UnsetType = UNSET


class ConnectionsResponse(msgspec.Struct, frozen=True):
    """The open connections of a player, oldest first."""

    connections: list[ConnectionItem]
    silent: list[str]


class PresenceItem(msgspec.Struct, frozen=True, kw_only=True):
    """
    The presence of a player.

    `connections` counts leases, of waiting polls too. `last_seen_at` is when the last
    connection closed: absent while one is open, after 30 days, and if there was none.
    """

    player: str
    online: bool
    connections: Count
    last_seen_at: Time | UnsetType = UNSET


class PresenceResponse(msgspec.Struct, frozen=True):
    """
    A presence per player, in the order of the request.

    A player whose node was killed counts as online for up to `lease_expiry_s`.
    """

    presence: list[PresenceItem]
    lease_expiry_s: Count


class OnlineItem(msgspec.Struct, frozen=True):
    player: str
    connections: Count


class OnlineResponse(msgspec.Struct, frozen=True):
    """
    A page of the players that have open connections, by name.

    Pass `next` as `after` for the next page; null is the end. The totals are those of
    all pages; a player with connections to several nodes counts once per node.
    """

    online: list[OnlineItem]
    players_total: Count
    connections_total: Count
    next: str | None
    silent: list[str]


class EndingItem(NodeItem, frozen=True, kw_only=True):
    """
    The end of a connection.

    `code` is the close code; absent if the client or the network has closed it.
    """

    id: str
    transport: Transport
    reason: str
    connected_at: Time
    closed_at: Time
    code: Count | UnsetType = UNSET
    device: str | UnsetType = UNSET
    client: str | UnsetType = UNSET


class RefusalItem(NodeItem, frozen=True, kw_only=True):
    """
    A request that was refused after its credential had named the player.

    `refusal` is the kind of error, `reason` what of it, as in the access log.
    """

    at: Time
    transport: Literal["http", "websocket", "sse"]
    refusal: str
    reason: str
    client: str | UnsetType = UNSET


class AnnouncedItem(NodeItem, frozen=True, kw_only=True):
    at: Time


class WrittenItem(NodeItem, frozen=True, kw_only=True):
    """
    A notification was written to a connection's socket or send buffer.

    With `replayed` it was not written when it was announced, but after the connection
    had read the log: because it resumed, say.
    """

    connection: str
    transport: Transport
    at: Time
    replayed: bool


class TraceItem(msgspec.Struct, frozen=True, kw_only=True):
    """
    The way of a notification to a player.

    `announced` and `written` are what the nodes remember. `acknowledged_at` is absent,
    although it was acknowledged, if no node remembers the time.
    """

    id: Id
    state: TraceState
    stored_at: Time
    announced: list[AnnouncedItem]
    written: list[WrittenItem]
    acknowledged: bool
    acknowledged_at: Time | UnsetType = UNSET
    read_at: Time | UnsetType = UNSET
    expires_at: Time | UnsetType = UNSET
    type: str | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    everyone: bool | UnsetType = UNSET


class TraceResponse(msgspec.Struct, frozen=True):
    trace: TraceItem
    silent: list[str]


class InspectionResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a player.

    `closed` and `refused` are the last 8 of each node together, newest first, and
    `notifications` the newest of the inbox.
    """

    player: str
    online: bool
    connections: list[ConnectionItem]
    closed: list[EndingItem]
    refused: list[RefusalItem]
    notifications: list[TraceItem]
    silent: list[str]
    last_seen_at: Time | UnsetType = UNSET


def encode_nodes(states: NodeStates) -> bytes:
    """Return a response with the nodes."""
    nodes = [
        NodeStateItem(
            **_node(node),
            version=it.version,
            started_at=iso_time(it.started_ms),
            draining=it.draining,
            connections=it.connections,  # type: ignore[arg-type]  # By transport.
        )
        for node, it in states.nodes
    ]
    return _encode(NodesResponse(nodes, states.silent))


def encode_connections(found: Connections) -> bytes:
    """Return a response with the connections of a player."""
    items = [_connection(it) for it in found.connections]
    return _encode(ConnectionsResponse(items, found.silent))


def encode_inspection(player: str, found: Inspection) -> bytes:
    """Return a response with what is known of a player."""
    return _encode(
        InspectionResponse(
            player=player,
            online=found.sighting.is_online,
            last_seen_at=_time_or_unset(found.sighting.seen_ms),
            connections=[_connection(it) for it in found.connections],
            closed=[_ending(it) for it in found.endings],
            refused=[_refusal(it) for it in found.refusals],
            notifications=[_trace(it) for it in found.traces],
            silent=found.silent,
        )
    )


def encode_trace(traced: Traced) -> bytes:
    """Return a response with the trace of a notification."""
    return _encode(TraceResponse(_trace(traced.trace), traced.silent))


def encode_presence(players: Sequence[str], sightings: Sequence[Sighting]) -> bytes:
    """Return a response with the presence of players, as they were spelled."""
    items = [
        PresenceItem(
            player=player,
            online=it.is_online,
            connections=it.connections,
            last_seen_at=_time_or_unset(it.seen_ms),
        )
        for player, it in zip(players, sightings, strict=True)
    ]
    return _encode(PresenceResponse(items, LEASE_EXPIRY_S))


def encode_online(page: OnlinePage) -> bytes:
    """Return a response with a page of the players that are online."""
    return _encode(
        OnlineResponse(
            [OnlineItem(*it) for it in page.players],
            page.players_total,
            page.connections_total,
            page.next or None,
            page.silent,
        )
    )


class DisconnectedResponse(msgspec.Struct, frozen=True):
    """The names of the connections that were ended."""

    disconnected: list[str]
    silent: list[str]


def encode_disconnected(ended: Disconnected) -> bytes:
    """Return a response with the connections that were ended."""
    return _encode(DisconnectedResponse(ended.connections, ended.silent))


def _node(node: NodeName) -> dict[str, Any]:
    return {"node": node.name, "host": node.host, "pid": node.pid}


def _time_or_unset(at_ms: int) -> str | UnsetType:
    return iso_time(at_ms) if at_ms else UNSET


def _connection(connection: NodeConnection) -> ConnectionItem:
    it = connection.state
    return ConnectionItem(
        **_node(connection.node),
        id=it.id,
        transport=it.transport,  # type: ignore[arg-type]  # As answered by a node.
        state=it.state,  # type: ignore[arg-type]  # As answered by a node.
        connected_at=iso_time(it.connected_ms),
        buffer_bytes=it.buffer_bytes,
        device=it.device or UNSET,
        client=it.client or UNSET,
        last_heard_at=_time_or_unset(it.heard_ms),
        stuck_ms=it.stuck_ms or UNSET,
        lag=UNSET if connection.lag is None else connection.lag,
    )


def _ending(ending: Ending) -> EndingItem:
    it = ending.closed
    return EndingItem(
        **_node(ending.node),
        id=it.connection,
        transport=it.transport,  # type: ignore[arg-type]  # As answered by a node.
        reason=it.reason,
        connected_at=iso_time(it.connected_ms),
        closed_at=iso_time(it.at_ms),
        code=it.code or UNSET,
        device=it.device or UNSET,
        client=it.client or UNSET,
    )


def _refusal(refusal: Refusal) -> RefusalItem:
    it = refusal.refused
    return RefusalItem(
        **_node(refusal.node),
        at=iso_time(it.at_ms),
        transport=it.transport,  # type: ignore[arg-type]  # As answered by a node.
        refusal=it.refusal,
        reason=it.reason,
        client=it.client or UNSET,
    )


def _trace(trace: Trace) -> TraceItem:
    receipt, notification = trace.receipt, trace.notification
    state: TraceState = receipt.ended or "stored"
    if not receipt.ended and receipt.read_at_ms:
        state = "read"
    elif not receipt.ended and receipt.acknowledged:
        state = "acknowledged"
    return TraceItem(
        id=trace.id,
        state=state,
        stored_at=iso_time(receipt.stored_ms),
        announced=[
            AnnouncedItem(**_node(it.node), at=iso_time(it.at_ms))
            for it in trace.announced
        ],
        written=[
            WrittenItem(
                **_node(it.node),
                connection=it.connection,
                transport=it.transport,  # type: ignore[arg-type]  # As answered.
                at=iso_time(it.at_ms),
                replayed=it.replayed,
            )
            for it in trace.written
        ],
        acknowledged=receipt.acknowledged,
        acknowledged_at=_time_or_unset(trace.acknowledged_ms),
        read_at=_time_or_unset(receipt.read_at_ms),
        expires_at=_time_or_unset(receipt.expires_ms),
        type=(notification and notification.type) or UNSET,
        topic=(notification and notification.topic) or UNSET,
        everyone=(notification and notification.everyone) or UNSET,
    )
