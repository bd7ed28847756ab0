"""
This node's answers to what nodes ask each other.

Decides what a node tells of its connections, and which of them an entry was written to.
Knows the hub, the log of connections and the history. Never waits.

An entry that a reader took when it was announced was written to every connection of the
player that was open at that moment, has come so far in the entry's log, is not a poll,
and is the device the entry is for. A connection that had to read the log got the entry
by that read, at a later time, which the history has.
"""

from __future__ import annotations

import heapq
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Final, NamedTuple

from ...core.streams.session import Session
from ...errors import CLOSED_BY_OPERATOR, STOPPED_BY_OPERATOR
from ...hub import Hub, Reader
from ...model import App, Log
from ..node.load_history import LoadHistory
from ..streams.connection_log import ConnectionLog
from .history import Announced, Closed, History, Place, places_of
from .questions import (
    Answer,
    ConnectionState,
    End,
    Ended,
    EntryRef,
    Followers,
    FollowersAnswer,
    Forget,
    Forgotten,
    LoadSamples,
    LoadSamplesAnswer,
    NodeState,
    NodeStateAnswer,
    Online,
    OnlineAnswer,
    PlayerHistory,
    PlayerHistoryAnswer,
    Question,
    Written,
)

__all__ = ["LocalNode"]

CONNECTIONS_MAX: Final = 100
"""Connections of a player in an answer; the setting may allow more of them."""

RECONNECT_DELAY_MS: Final = 2_000
"""Connections that are closed reconnect within this time, at random."""

LONGPOLL: Final = "longpoll"


class _Recipient(NamedTuple):
    """A connection, open or closed, as far as it matters for what it was sent."""

    id: str
    transport: str
    device: str
    opened_ms: int
    closed_ms: float
    places: dict[str, Place]


class LocalNode:
    """
    Answers for this process.

    Args:
        hub: The readers.
        connection_log: When and from where they have connected.
        history: The recent history.
        load_history: The sampled hour of this process.
        draining: Returns whether the node is shutting down.
        clock_s: Returns Unix time in seconds.

    """

    def __init__(
        self,
        hub: Hub,
        connection_log: ConnectionLog,
        history: History,
        load_history: LoadHistory,
        *,
        draining: Callable[[], bool] = lambda: False,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._hub = hub
        self._connection_log = connection_log
        self._history = history
        self._load_history = load_history
        self._draining = draining
        self._clock_s = clock_s
        self._started_ms = int(clock_s() * 1_000)
        self._host = socket.gethostname()
        self._pid = os.getpid()
        self._version = metadata.version("streamer-server")

    def answer(self, question: Question) -> Answer:
        """Return the answer to a question. O(readers) at most."""
        match question:
            case PlayerHistory():
                return self._player_history(question)
            case End():
                return self._end(question)
            case Online():
                return self._online(question)
            case NodeState():
                return self._state(App(question.app))
            case Forget(app=app, player=player):
                self._history.forget(Log(App(app), player))
                return Forgotten(host=self._host, pid=self._pid)
            case LoadSamples(since_ms=since_ms):
                return LoadSamplesAnswer(
                    host=self._host,
                    pid=self._pid,
                    samples=self._load_history.since(since_ms),
                )
            case Followers(app=app, logs=names):
                logs = [Log(App(app), name) for name in names]
                streams = sum(len(self._hub.followers(log)) for log in logs)
                return FollowersAnswer(host=self._host, pid=self._pid, streams=streams)

    def _player_history(self, question: PlayerHistory) -> PlayerHistoryAnswer:
        log = Log(App(question.app), question.player)
        readers = self._hub.readers(log)[:CONNECTIONS_MAX]
        connections = [self._connection(log, reader) for reader in readers]
        events = self._history.events_of(log)
        closed = [event for event in events if isinstance(event, Closed)]
        refused = [event for event in events if not isinstance(event, Closed)]
        announced: list[tuple[int, int]] = []
        written: list[Written] = []
        acknowledged: list[tuple[int, int]] = []
        if question.entries:
            recipients = [*_recipients(connections, closed)]
            announced, written = self._writes(log, question.entries, recipients)
            acknowledged = self._acknowledged(log, question.entries)
        return PlayerHistoryAnswer(
            host=self._host,
            pid=self._pid,
            connections=connections,
            closed=closed,
            refused=refused,
            announced=announced,
            written=written,
            acknowledged=acknowledged,
        )

    def _connection(self, log: Log, reader: Reader) -> ConnectionState:
        opened = self._connection_log.opening_of(reader)
        transport = reader.transport
        session = reader.stream
        now_s = time.monotonic()
        heard_s = waiting_s = None
        buffer_bytes = 0
        if isinstance(session, Session):
            heard_s, waiting_s = session.heard_at_s, session.waiting_since_s
            buffer_bytes = session.buffered
        now_ms = int(self._clock_s() * 1_000)
        return ConnectionState(
            id=reader.connection,
            transport="" if transport is None else transport.name,
            state=_state(reader),
            device=reader.device,
            client="" if opened is None else opened.client,
            connected_ms=now_ms if opened is None else opened.at_ms,
            heard_ms=0 if heard_s is None else now_ms - int((now_s - heard_s) * 1_000),
            buffer_bytes=buffer_bytes,
            stuck_ms=0 if waiting_s is None else int((now_s - waiting_s) * 1_000),
            places=tuple(places_of(log, reader, reader.audience_subscriptions)),
        )

    def _writes(
        self, log: Log, entries: Sequence[EntryRef], recipients: Sequence[_Recipient]
    ) -> tuple[list[tuple[int, int]], list[Written]]:
        keys = [
            (Log(log.app, entry.name), entry.offset, entry.tag) for entry in entries
        ]
        found = self._history.announcements_of(keys)
        replays = self._history.replays_to({it.id for it in recipients})
        announced, written = [], []
        for i, (entry, key) in enumerate(zip(entries, keys, strict=True)):
            live = found.get(key)
            if live is not None:
                announced.append((i, live.at_ms))
            for recipient in recipients:
                place = recipient.places.get(entry.name)
                if place is None or entry.offset > place.upto:
                    continue
                replayed_ms = max(
                    (
                        it.at_ms
                        for it in replays
                        if it.connection == recipient.id
                        and it.log == key[0]
                        and it.first <= entry.offset <= it.last
                        and it.at_ms >= entry.stored_ms
                    ),
                    default=0,
                )
                at_ms = replayed_ms
                if not at_ms and live is not None and live.written_ms:
                    at_ms = _live_ms(recipient, place, entry, live)
                if at_ms:
                    written.append(
                        Written(
                            entry=i,
                            connection=recipient.id,
                            transport=recipient.transport,
                            at_ms=at_ms,
                            replayed=bool(replayed_ms),
                        )
                    )
        return announced, written

    def _acknowledged(
        self, log: Log, entries: Sequence[EntryRef]
    ) -> list[tuple[int, int]]:
        times = (
            (
                i,
                self._history.acknowledged_ms(
                    log, entry.name, entry.offset, entry.stored_ms
                ),
            )
            for i, entry in enumerate(entries)
        )
        return [(i, at_ms) for i, at_ms in times if at_ms]

    def _end(self, question: End) -> Ended:
        log = Log(App(question.app), question.player)
        disconnect = STOPPED_BY_OPERATOR if question.stop else CLOSED_BY_OPERATOR
        ended = []
        for reader in self._hub.readers(log):
            if question.connection in ("", reader.connection):
                delay_ms = 0
                if not question.stop:
                    delay_ms = random.randrange(1, RECONNECT_DELAY_MS)
                if reader.ended is None:
                    reader.end(disconnect, delay_ms=delay_ms)
                    ended.append(reader.connection)
        return Ended(host=self._host, pid=self._pid, connections=ended)

    def _online(self, question: Online) -> OnlineAnswer:
        app, after = question.app, question.after
        counts = {
            log.name: count
            for log, count in self._hub.reader_counts()
            if log.app == app
        }
        names = heapq.nsmallest(
            question.limit, (name for name in counts if name > after)
        )
        return OnlineAnswer(
            host=self._host,
            pid=self._pid,
            players=[(name, counts[name]) for name in names],
            players_total=len(counts),
            connections_total=sum(counts.values()),
        )

    def _state(self, app: App) -> NodeStateAnswer:
        counts = Counter(
            reader.transport.name
            for log, readers in self._hub.readers_by_log()
            if log.app == app
            for reader in readers
            if reader.transport is not None
        )
        return NodeStateAnswer(
            host=self._host,
            pid=self._pid,
            version=self._version,
            started_ms=self._started_ms,
            draining=self._draining(),
            connections=dict(counts),
        )


def _state(reader: Reader) -> str:
    if reader.ended is not None:
        return "closing"
    if reader.stream is None:
        return "waiting"
    if reader.joining:
        return "joining"
    subs = reader.audience_subscriptions
    is_live = reader.subscription.live_at is not None and all(
        sub.live_at is not None for sub in subs
    )
    return "live" if is_live else "catching up"


def _recipients(
    connections: Sequence[ConnectionState], closed: Sequence[Closed]
) -> Iterator[_Recipient]:
    for it in connections:
        places = {place.name: place for place in it.places}
        yield _Recipient(
            it.id, it.transport, it.device, it.connected_ms, float("inf"), places
        )
    for end in closed:
        places = {place.name: place for place in end.places}
        yield _Recipient(
            end.connection,
            end.transport,
            end.device,
            end.connected_ms,
            end.at_ms,
            places,
        )


def _live_ms(
    recipient: _Recipient, place: Place, entry: EntryRef, live: Announced
) -> int:
    """Return when an announced entry was written to a connection, 0 if it was not."""
    has_taken = (
        recipient.transport != LONGPOLL
        and recipient.opened_ms <= live.written_ms <= recipient.closed_ms
        and place.after < entry.offset
        and (not live.device or recipient.device in ("", live.device))
    )
    return live.written_ms if has_taken else 0
