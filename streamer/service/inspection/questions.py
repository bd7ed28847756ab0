"""
What nodes ask each other, and what they answer: JSON on the channel of the nodes.

Decides nothing. A node of another version may ask what this one does not know; it gets
no answer. Members are added, and never change their meaning.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ..node.load_history import Sample
from .history import Closed, Place, Refused

__all__ = [
    "ENTRIES_MAX",
    "LOGS_MAX",
    "PLAYERS_MAX",
    "Answer",
    "ConnectionState",
    "End",
    "Ended",
    "EntryRef",
    "Followers",
    "FollowersAnswer",
    "Forget",
    "Forgotten",
    "LoadSamples",
    "LoadSamplesAnswer",
    "NodeState",
    "NodeStateAnswer",
    "Online",
    "OnlineAnswer",
    "PlayerHistory",
    "PlayerHistoryAnswer",
    "Question",
    "Written",
]

ENTRIES_MAX: Final = 50
"""Entries that a question may name."""

LOGS_MAX: Final = 1_000
"""Logs that a question may name."""

PLAYERS_MAX: Final = 500
"""Players in an answer."""


class EntryRef(msgspec.Struct, frozen=True, array_like=True):
    """An entry: the name of its log, its offset, its tag, and its time in ms."""

    name: str
    offset: int
    tag: int
    stored_ms: int


class PlayerHistory(msgspec.Struct, frozen=True, tag="player"):
    """What a node knows of a player, and of entries in the player's inbox."""

    app: str
    player: str
    entries: Annotated[list[EntryRef], Meta(max_length=ENTRIES_MAX)] = []


class End(msgspec.Struct, frozen=True, tag="end"):
    """End the connections of a player, or the one named; for good with `stop`."""

    app: str
    player: str
    connection: str = ""
    stop: bool = False


class Online(msgspec.Struct, frozen=True, tag="online"):
    """Players of an app with open connections: the first ones after a name."""

    app: str
    after: str
    limit: Annotated[int, Meta(ge=1, le=PLAYERS_MAX)]


class NodeState(msgspec.Struct, frozen=True, tag="state"):
    """What a node is, and how many connections it has for an app."""

    app: str


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Forget the history of a player."""

    app: str
    player: str


class LoadSamples(msgspec.Struct, frozen=True, tag="samples"):
    """The samples of the last hour that were taken after a time."""

    since_ms: int


class Followers(msgspec.Struct, frozen=True, tag="followers"):
    """How many open streams get what is sent to these logs of an app."""

    app: str
    logs: Annotated[list[str], Meta(max_length=LOGS_MAX)]


Question = PlayerHistory | End | Online | NodeState | Forget | LoadSamples | Followers


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What all answers have: the host and the process id of the node."""

    host: str
    pid: int


class ConnectionState(msgspec.Struct, frozen=True, kw_only=True):
    """
    An open connection. Times are Unix ms.

    `heard_ms` is when the client was last heard of, 0 if it only receives.
    `stuck_ms` is for how long bytes have waited for the client, 0 if none do.
    """

    id: str
    transport: str
    state: str
    device: str
    client: str
    connected_ms: int
    heard_ms: int
    buffer_bytes: int
    stuck_ms: int
    places: tuple[Place, ...]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, by its index in the question, was written to a connection."""

    entry: int
    connection: str
    transport: str
    at_ms: int
    replayed: bool


class PlayerHistoryAnswer(Answer, frozen=True, kw_only=True):
    """
    The answer to `PlayerHistory`.

    `announced` and `acknowledged` are pairs of an entry's index and a time.
    """

    connections: list[ConnectionState] = []
    closed: list[Closed] = []
    refused: list[Refused] = []
    announced: list[tuple[int, int]] = []
    written: list[Written] = []
    acknowledged: list[tuple[int, int]] = []


class Ended(Answer, frozen=True, kw_only=True):
    """The connections that were ended."""

    connections: list[str]


class OnlineAnswer(Answer, frozen=True, kw_only=True):
    """
    Players by name with their number of connections, in order, and the totals.

    The totals are of all players of the app, not only of those in the list.
    """

    players: list[tuple[str, int]]
    players_total: int
    connections_total: int


class NodeStateAnswer(Answer, frozen=True, kw_only=True):
    """The number of connections is that of the app, by transport."""

    version: str
    started_ms: int
    draining: bool
    connections: dict[str, int]


class Forgotten(Answer, frozen=True, kw_only=True):
    """The history of the player is forgotten."""


class LoadSamplesAnswer(Answer, frozen=True, kw_only=True):
    """Samples of the node, oldest first."""

    samples: list[Sample]


class FollowersAnswer(Answer, frozen=True, kw_only=True):
    """The number of open streams of this node."""

    streams: int
