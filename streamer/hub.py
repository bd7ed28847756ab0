"""
This process's map from log to readers.

Decides who is offered an entry. Knows readers by a small protocol and which of their
logs have to be read. Never waits: `dispatch` offers an entry to every reader of its log
before it returns, and no reader can hold up another.

A reader that is not live, because it has just joined, saw a hole or doubts its feed,
is *behind*: its log is put into `behind`, and whoever reads logs is woken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from .core.subscription import History, Place, State, Subscription
from .errors import REPLACED, Disconnect
from .model import Entry, Log

__all__ = ["Hub", "Reader"]


class Reader(Protocol):
    """Somebody who follows a log: a stream's session, or a held poll."""

    subscription: Subscription
    connection: str
    """Its name in the player's leases."""
    device: str
    """What its client is on, "" where it does not say."""

    @property
    def joining(self) -> bool:
        """Whether no read of the log has reached it yet."""

    @property
    def congested(self) -> bool:
        """Whether it would rather not be given history at the moment."""

    def offer(self, entry: Entry) -> None:
        """Take a live entry."""

    def history(
        self, asked: Place, history: History, *, unread: int, marks: int
    ) -> None:
        """Take what a read of the log after `asked` gave."""

    def marked(self, *, marks: int, unread: int, body: bytes) -> None:
        """Take word of a read mark."""

    def end(self, disconnect: Disconnect, *, delay_ms: int = 0) -> None:
        """End, for a reason; come back after `delay_ms` where the reason allows it."""

    def tick(self, now_s: float, unix_s: float) -> None:
        """Do what is due."""


class Hub:
    """
    Readers by log.

    Args:
        on_behind: Called when a log got readers that are not live.

    """

    def __init__(self, on_behind: Callable[[], None] = lambda: None) -> None:
        self._readers: dict[Log, list[Reader]] = {}
        self._on_behind = on_behind
        self.behind: set[Log] = set()

    def __len__(self) -> int:
        return sum(map(len, self._readers.values()))

    @property
    def logs(self) -> Collection[Log]:
        """Logs that have readers."""
        return self._readers.keys()

    def readers(self, log: Log) -> tuple[Reader, ...]:
        return tuple(self._readers.get(log, ()))

    def all_readers(self) -> Iterator[Reader]:
        """Every reader, as of this moment."""
        for readers in tuple(self._readers.values()):
            yield from tuple(readers)

    def attach(self, log: Log, reader: Reader) -> None:
        """Let `reader` follow `log`, from its place on."""
        self._readers.setdefault(log, []).append(reader)
        self._note_behind(log)

    def detach(self, log: Log, reader: Reader) -> bool:
        """Let `reader` go; return whether it was the log's last."""
        readers = self._readers[log]
        readers.remove(reader)
        if readers:
            return False
        del self._readers[log]
        self.behind.discard(log)
        return True

    def dispatch(self, log: Log, entry: Entry) -> None:
        """Offer a live entry to every reader of its log."""
        behind = False
        for reader in self.readers(log):
            reader.offer(entry)
            behind |= reader.subscription.state is State.REPLAYING
        if behind:
            self._note_behind(log)

    def marked(self, log: Log, *, marks: int, unread: int, body: bytes) -> None:
        """Tell every reader of a log of a read mark."""
        for reader in self.readers(log):
            reader.marked(marks=marks, unread=unread, body=body)

    def replace(self, log: Log, connection: str) -> None:
        """End the reader of that name, if it is here."""
        for reader in self.readers(log):
            if reader.connection == connection:
                reader.end(REPLACED)

    def doubt(self, log: Log) -> None:
        """The feed of a log may have dropped something."""
        readers = self._readers.get(log)
        if readers:
            for reader in readers:
                reader.subscription.doubt()
            self._note_behind(log)

    def places(self, log: Log) -> dict[Place, list[Reader]]:
        """Return the readers of a log that need history, by where they are."""
        places: dict[Place, list[Reader]] = {}
        for reader in self._readers.get(log, ()):
            subscription = reader.subscription
            if subscription.state is State.REPLAYING:
                places.setdefault(subscription.place, []).append(reader)
        return places

    def _note_behind(self, log: Log) -> None:
        self.behind.add(log)
        self._on_behind()
