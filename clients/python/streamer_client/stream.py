"""
The live stream of one player: an iterator that outlives its connections.

Decides what to do with each message and each ending. Knows nothing of when to come
back (`backoff`), of opening and silence (`connection`), of the form of messages
(`wire`) or of what was seen (`seen`).

One task connects, reads, answers heartbeats and fills a buffer; the consumer empties
it. When the buffer is full the task stops reading, the socket fills up, and in the end
the server cuts the reader as slow. That costs nothing: the stream comes back and goes
on where it was. There are two places in the log::

    received   behind the last message read off the socket; connections resume there
    cursor     behind the last event the consumer took; an application stores that

so that a crash repeats what lay in the buffer, and loses none of it.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
import uuid
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    WebSocketException,
)

from .backoff import (
    SYSTEM_CLOCK,
    Clock,
    Ending,
    NewToken,
    Reconnect,
    Stop,
    Wait,
)
from .connection import (
    HEARTBEAT_MIN_S,
    ending_of_bye,
    ending_of_response,
    greet,
    open_socket,
    receive,
)
from .credential import Credential
from .model import Gap, Notification
from .seen import Seen
from .wire import (
    PONG,
    Bye,
    GapMessage,
    Hello,
    NotificationMessage,
    Ping,
    Unreadable,
    decode,
)

__all__ = ["Event", "Stream"]

BUFFER_MAX: Final = 64
"""Events read ahead of the consumer."""

Event = Notification | Gap

_log = logging.getLogger(__name__)


class _Taken(NamedTuple):
    """An event and the cursor behind it."""

    event: Event
    cursor: str


class _End(NamedTuple):
    """The last thing in the buffer: why there is no more, None if it was closed."""

    error: Exception | None


class Stream(AsyncIterator[Event]):
    """
    Notifications and gaps of one player, in order, across reconnects.

    Made by `Client.notifications`. Connects at the first ``await``, then holds one
    connection until `aclose`, also between two steps of the iteration. One consumer
    at a time; cancelling a step loses nothing.

    Args:
        url: The stream's address, ``ws://`` or ``wss://``.
        credential: The token, and how to get another.
        cursor: Where to begin; None is from now, ``earliest`` from the oldest kept.
        buffer_max: Events to read ahead of the consumer.

    Raises:
        Refused, TokenExpired: Out of the iteration, once: the stream is over. What
            the token source raises comes out in the same way.
        ValueError: `buffer_max` allows no event.
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        *,
        cursor: str | None = None,
        buffer_max: int = BUFFER_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if buffer_max < 1:
            raise ValueError(f"buffer_max is {buffer_max}, allowed from 1")
        self._url = url
        self._credential = credential
        self._clock = clock
        self._cursor = cursor
        self._received = cursor
        self._seen = Seen()
        self._reconnect = Reconnect(
            has_token_source=credential.can_renew, random=clock.random
        )
        self._token: str | None = None
        # By this name a connection takes over from a dead one of the same stream, which
        # would otherwise count as another listener until the server notices.
        self._instance = uuid.uuid4().hex
        self._buffer: asyncio.Queue[_Taken | _End] = asyncio.Queue(buffer_max)
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def cursor(self) -> str | None:
        """
        The place behind the last event taken; a later stream goes on from here.

        Before the first event it is what the stream was opened with, or, if that was
        nothing, the place the server named when it let the stream in.
        """
        return self._cursor

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="streamer-client")
        item = await self._buffer.get()
        if isinstance(item, _Taken):
            self._cursor = item.cursor
            return item.event
        self._ended = True
        if item.error is None:
            raise StopAsyncIteration
        raise item.error

    async def aclose(self) -> None:
        """
        Leave the stream; legal at any time, and twice.

        A consumer that is waiting gets the end of the iteration. Events in the buffer
        are dropped, and `cursor` stays in front of them.
        """
        self._ended = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        while not self._buffer.empty():
            self._buffer.get_nowait()
        self._buffer.put_nowait(_End(None))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _run(self) -> None:
        """Fill the buffer until the stream is refused or cancelled."""
        try:
            while True:
                self._seen.reconnected()
                await self._prepare(await self._follow())
        # The outermost frame of the task: whatever ended it is the consumer's to know.
        except Exception as error:
            await self._buffer.put(_End(error))

    async def _prepare(self, ending: Ending) -> None:
        """Do what has to be done before the next connection."""
        match self._reconnect.after(ending, self._clock.now_s()):
            case Stop(error):
                raise error
            case NewToken():
                _log.info("the token was refused; getting another")
                await self._credential.renew(self._token)
            case Wait(delay_s):
                _log.info(
                    "stream ended: %s (%s); coming back in %.1f s",
                    ending.reason,
                    ending.code,
                    delay_s,
                )
                await self._clock.sleep(delay_s)

    async def _follow(self) -> Ending:
        """Open one connection and read it to its end, whatever that is."""
        self._token = await self._credential.token()
        try:
            socket = await open_socket(self._address(), self._token)
        except InvalidStatus as error:
            return ending_of_response(error.response)
        except (OSError, EOFError, WebSocketException) as error:
            problem = str(error) or type(error).__name__
            return Ending(None, f"cannot connect: {problem}")
        try:
            return await self._read(socket)
        except ConnectionClosed as error:
            close = error.rcvd or error.sent
            return Ending(
                close.code if close else None, close.reason if close else "lost"
            )
        except TimeoutError:
            # Nobody is there to close with.
            socket.transport.abort()
            return Ending(None, "silent")
        except Unreadable as error:
            _log.warning("unreadable message: %s", error)
            return Ending(None, "unreadable message")
        finally:
            try:
                await socket.close()
            finally:
                # Whoever cancels the farewell still gets rid of the connection.
                socket.transport.abort()

    def _address(self) -> str:
        query = {"instance": self._instance}
        if self._received is not None:
            query["cursor"] = self._received
        return f"{self._url}?{urllib.parse.urlencode(query)}"

    async def _read(self, socket: ClientConnection) -> Ending:
        """Read messages until the server says goodbye."""
        greeting = await greet(socket)
        if isinstance(greeting, Bye):
            return ending_of_bye(greeting)
        self._greeted(greeting)
        heartbeat_s = max(greeting.heartbeat_s, HEARTBEAT_MIN_S)
        while True:
            match decode(await receive(socket, heartbeat_s)):
                case NotificationMessage(cursor, notification):
                    await self._deliver(notification, cursor)
                case GapMessage(reason, cursor):
                    await self._put(Gap(reason, cursor), cursor)
                case Ping():
                    await socket.send(PONG)
                case Bye() as bye:
                    return ending_of_bye(bye)
                case _:
                    pass  # Marks, pongs, and what a newer server may say.

    def _greeted(self, hello: Hello) -> None:
        self._reconnect.opened(self._clock.now_s())
        # A stream opened "from now" has a place from here on, so that what comes
        # while it is away is not lost. A place it brought itself is the better one.
        if self._received is None:
            self._received = self._cursor = hello.cursor

    async def _deliver(self, notification: Notification, cursor: str) -> None:
        if self._seen.is_repeat(notification.id):
            self._received = cursor
            return
        self._reconnect.proved()
        await self._put(notification, cursor)

    async def _put(self, event: Event, cursor: str) -> None:
        await self._buffer.put(_Taken(event, cursor))
        self._received = cursor
