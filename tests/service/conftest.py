"""An inbox, audiences, and clients that record their events."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from streamer.core.streams.batch_writer import ONE_BY_ONE, BatchWriter
from streamer.core.streams.codec import WebSocketCodec
from streamer.core.streams.cursor import Cursor
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import ReadFrom, Start
from streamer.errors import Disconnect
from streamer.model import Topic, decode_id
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views

_numbers = itertools.count(1)


@pytest.fixture
def inbox(redis: RedisConnection) -> Inbox:
    return Inbox(redis)


@pytest.fixture
def audiences(redis: RedisConnection, inbox: Inbox) -> PlayerAudiences:
    return PlayerAudiences(Views(redis, LogSettings()), inbox)


class Client:
    """The client of a stream: reads everything at once, unless it is stuck."""

    batch_writer: BatchWriter = ONE_BY_ONE

    def __init__(
        self,
        read_from: ReadFrom | Cursor = Start.LATEST,
        *,
        buffer: int = 2**20,
        topics: tuple[str, ...] = (),
    ) -> None:
        cursor = read_from if isinstance(read_from, Cursor) else None
        self.cursor = cursor
        """The last cursor that it got."""
        self.titles: dict[str, list[str]] = {}
        """Titles of audiences' notifications, by topic, or "everyone"."""
        self.messages: list[dict[str, Any]] = []
        self.offsets: list[int] = []
        self.begin: int | None = None
        """Offset after which the stream begins."""
        self.gaps: list[str] = []
        self.ended: Disconnect | None = None
        self.stuck_bytes: int | None = None
        """Bytes queued if it has stopped reading, None while it reads."""
        self.taken_at_most: int | None = None
        self.session = Session(
            read_from.own if isinstance(read_from, Cursor) else read_from,
            codec=WebSocketCodec(),
            sink=self,
            limits=SessionLimits(send_buffer_bytes=buffer),
            pinged_at_s=1e9,
            connection=f"c{next(_numbers)}",
            cursor=cursor,
            topics=tuple(map(Topic, topics)),
        )

    def write(self, event: bytes, buffer_bytes_max: int) -> bool:
        if self.stuck_bytes and self.stuck_bytes + len(event) > buffer_bytes_max:
            return False
        if self.stuck_bytes is not None:
            self.stuck_bytes += len(event)
        message = json.loads(event)
        self.messages.append(message)
        if "cursor" in message:
            self.cursor = Cursor.parse(message["cursor"])
        if message["type"] == "notification":
            self._note(message["notification"])
        elif message["type"] == "hello":
            self.begin = _offset(message["cursor"])
        elif message["type"] == "gap":
            self.gaps.append(message["reason"])
            if not message.keys() & {"topic", "everyone"}:
                self.begin = _offset(message["cursor"])
        return True

    def write_events(self, events: list[bytes], buffer_bytes_max: int) -> bool:
        return all(self.write(event, buffer_bytes_max) for event in events)

    def _note(self, notification: dict[str, Any]) -> None:
        audience = notification.get("topic") or notification.get("everyone")
        if audience:
            audience = "everyone" if audience is True else audience
            self.titles.setdefault(audience, []).append(notification["title"])
        else:
            position = decode_id(notification["id"])
            assert position is not None
            self.offsets.append(position.offset)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of one type."""
        return [message for message in self.messages if message["type"] == kind]

    def buffered(self) -> int:
        return self.stuck_bytes or 0

    def waiting_since_s(self) -> float | None:
        return None

    def close(self, disconnect: Disconnect) -> None:
        self.ended = disconnect

    def abort(self, disconnect: Disconnect) -> None:
        self.ended = disconnect

    def has(self, last: int) -> bool:
        """Whether it has every offset from its begin to `last`, in order and once."""
        if self.begin is None:
            return False
        expected = list(range(self.begin + 1, last + 1))
        assert self.offsets == expected[: len(self.offsets)], self.offsets
        return self.offsets == expected


def _offset(text: str) -> int:
    cursor = Cursor.parse(text)
    assert cursor is not None
    return cursor.own.offset


@pytest.fixture
def make_client() -> type[Client]:
    return Client
