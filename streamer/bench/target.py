"""
What a server has to offer to be measured: requests to send it, and its usage.

Knows nothing of any one server.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from .load.resuming import Dialect
from .requests import RequestParts
from .usage import Usage, measure

__all__ = ["Requirements", "Resuming", "Target", "Transport", "Turns", "Unsupported"]

Transport = Literal["ws", "sse"]


class Unsupported(Exception):
    """The target cannot be measured in this scenario. Says why."""


class Requirements(NamedTuple):
    """What a server has to make room for."""

    connections: int = 1_000
    players: int = 1
    connects_per_s: int = 1_000_000
    stored: bool = False
    """Whether the scenario needs a store, of servers that have none of their own."""
    publisher: bool = False
    """Whether a second node on the same store publishes, where there can be one."""
    presence: bool = False
    """Whether servers that can tell who is connected have to."""
    turns: bool = False
    """Whether the turns of its event loop are measured, where that is possible."""


class Turns(NamedTuple):
    """
    Turns of an event loop, by CPU time of its thread.

    `by_tenth_ms` counts those that took 0, 1, 2 ... tenths of a millisecond; the last
    number counts all longer ones.
    """

    number: int
    cpu_s: float
    by_tenth_ms: tuple[int, ...]

    def since(self, before: Turns) -> Turns:
        """Return the turns after `before`."""
        pairs = zip(self.by_tenth_ms, before.by_tenth_ms, strict=True)
        return Turns(
            self.number - before.number,
            self.cpu_s - before.cpu_s,
            tuple(now - then for now, then in pairs),
        )

    @property
    def longest_ms(self) -> float:
        """The time of the longest one, at most a tenth of a millisecond too much."""
        longest = [i for i, count in enumerate(self.by_tenth_ms) if count]
        return (longest[-1] + 1) / 10 if longest else 0.0


class Resuming(NamedTuple):
    """Requests of readers that resume: the first and the further ones of each."""

    dialect: Dialect
    firsts: list[bytes]
    resumes: list[bytes]


class Target:
    """A server. `start` it before anything else; `stop` it always."""

    name: ClassVar[str]
    title: ClassVar[str]
    does: ClassVar[str]
    """What a reader of the figures has to know about it."""
    transports: ClassVar[frozenset[str]] = frozenset({"ws", "sse"})
    stores: ClassVar[bool] = False
    """Whether it stores what is published."""

    def __init__(self) -> None:
        self.address = ("127.0.0.1", 0)
        self.roots: list[int] = []
        """Its processes, as far as they are on this machine."""
        self.publisher_roots: list[int] = []
        """Those of the node that only publishes."""

    @property
    def publisher(self) -> tuple[str, int]:
        """The address to publish to, where that is another node."""
        return self.address

    def start(self, requirements: Requirements, folder: Path) -> None:
        """
        Start the server, with `folder` for what it stores.

        Raises:
            Unsupported: It cannot meet the requirements.

        """

    def stop(self) -> None:
        """End all of its processes that `start` has started."""

    def pin(self) -> None:
        """Move its processes to the cores that are meant for servers."""

    def usage(self) -> Usage:
        """Return what its processes have used so far; zero where it has none here."""
        return measure(self.roots)

    def publisher_usage(self) -> Usage:
        """Return what the processes of the node that only publishes have used."""
        return measure(self.publisher_roots)

    def turns(self) -> Turns | None:
        """Return the turns of its event loop so far, None where they are unknown."""
        return None

    def readers(self, transport: Transport, players: int) -> list[bytes]:
        """Return the requests that open a stream, one per player."""
        raise NotImplementedError

    def ready(self, transport: Transport) -> bytes:
        """Return what a reader receives once messages reach it."""
        return b""

    def publish(self, size: int) -> list[RequestParts]:
        """Return requests that publish `size` bytes of text to `PLAYER_NAME`."""
        raise NotImplementedError

    def broadcast(self, size: int, readers: int) -> tuple[list[RequestParts], int]:
        """
        Return requests that publish a text to all of so many readers.

        Returns with them the number of players the readers belong to: one where the
        server has channels and no players.
        """
        return self.publish(size), 1

    def publish_stored(self, size: int, players: int, batch: int) -> list[RequestParts]:
        """Return requests that store a text, for `batch` players each."""
        if not self.stores:
            raise Unsupported(f"{self.title} stores nothing")
        if batch > 1:
            return self.publish_many(size, players, batch)
        return self.publish(size)

    def publish_separately(
        self, size: int, players: int, per_request: int
    ) -> tuple[list[RequestParts], int]:
        """Return requests that reach each player in turn, and how many each reaches."""
        return self.publish(size), 1

    def resuming_readers(self, players: int) -> Resuming:
        """Return the requests that open WebSocket streams and resume them."""
        raise Unsupported(f"{self.title} resumes nothing")

    def publish_many(
        self, size: int, players: int, per_request: int, *, number: int | None = None
    ) -> list[RequestParts]:
        """
        Return requests that publish one text to `per_request` players each.

        Args:
            size: Bytes of the text.
            players: Number of players in all.
            per_request: Number of players in a request.
            number: Stands in the text and in the idempotency key, so that the request
                can be repeated. None puts the number of the request into the text.

        """
        raise Unsupported(f"{self.title} publishes to one channel at a time")

    def page(self, number: int, *, etag: str = "") -> bytes:
        """Return a request for the first page of player `number`."""
        raise Unsupported(f"{self.title} has no pages")

    def store_bytes(self) -> int:
        """Return the memory that its store uses; zero where that is unknown."""
        return 0
