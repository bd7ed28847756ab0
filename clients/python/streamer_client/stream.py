"""
The live stream of one player: an iterator that outlives its connections.

Decides what to do with each message and each ending. Knows nothing of when to come
back (`backoff`), of opening and silence (`connection`), of the form of messages
(`wire`), of what was seen (`seen`) or of how answers are waited for (`commands`).

One task connects, reads, answers heartbeats and fills a buffer; the consumer empties
it. When the buffer is full the task stops reading, the socket fills up, and in the end
the server cuts the reader as slow. That costs nothing: the stream comes back and goes
on where it was. There are two places in the log::

    received   the last one told on the socket; connections resume there
    cursor     the last one told to the consumer; an application stores that

so that a crash repeats what lay in the buffer, and loses none of it. What was sent to a
topic or to everyone has no place of its own: theirs is told behind it, once for many
(`Moved`), and until then it comes again on each connection and is dropped by its id.

The count of unread is kept in the same way: as of the last event taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import msgspec
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
from .buffer import Buffer
from .commands import Commands, Send
from .connection import (
    HEARTBEAT_MIN_S,
    ending_of_bye,
    ending_of_response,
    greet,
    open_socket,
    receive,
)
from .credential import Credential
from .errors import Unavailable
from .events import Event, Gap, Moved, Read, Replaced, Unread, Withdrawn
from .model import Notification, check_mark
from .seen import Seen
from .wire import (
    PONG,
    AckCommand,
    AuthCommand,
    Bye,
    Command,
    Failure,
    Hello,
    NotificationMessage,
    Ping,
    ReadCommand,
    Reply,
    SubscribeCommand,
    Unreadable,
    UnsubscribeCommand,
    decode,
    encode,
)

__all__ = ["Stream"]

BUFFER_MAX: Final = 64
"""Events read ahead of the consumer."""

_log = logging.getLogger(__name__)


class _Taken(NamedTuple):
    """An event, and what is known behind it."""

    event: Event
    cursor: str | None
    unread: int | None


class _End(NamedTuple):
    """The last thing in the buffer: why there is no more, None if it was closed."""

    error: Exception | None


class Stream(AsyncIterator[Event]):
    """
    What happens in one player's inbox, in order, across reconnects.

    Made by `Client.notifications`. Connects at the first ``await``, then holds one
    connection until `aclose`, also between two steps of the iteration. One consumer
    at a time; cancelling a step loses nothing.

    Args:
        url: The stream's address, ``ws://`` or ``wss://``.
        credential: The token, and how to get another.
        cursor: Where to begin; None is from now, ``earliest`` from the oldest kept.
        topics: Topics to bring besides those that the player has joined.
        device: The lasting name of the device.
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
        topics: Sequence[str] = (),
        device: str | None = None,
        buffer_max: int = BUFFER_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url = url
        self._credential = credential
        self._clock = clock
        self._cursor = cursor
        self._received = cursor
        # Topics asked for, as keys in their order.
        self._topics = dict.fromkeys(topics)
        self._asking: list[str] = []
        self._device = device
        self._unread: int | None = None
        self._counted: int | None = None
        self._marks_version: int | None = None
        self._seen = Seen()
        self._reconnect = Reconnect(
            has_token_source=credential.can_renew, random=clock.random
        )
        self._token: str | None = None
        # By this name a connection takes over from a dead one of the same stream, which
        # would otherwise count as another listener until the server notices.
        self._instance = uuid.uuid4().hex
        self._commands = Commands(clock)
        self._buffer: Buffer[_Taken | _End] = Buffer(buffer_max, self._commands.give_up)
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def cursor(self) -> str | None:
        """
        The last place told with an event taken; a later stream goes on from here.

        Before the first event it is what the stream was opened with, or, if that was
        nothing, the place the server named when it let the stream in.
        """
        return self._cursor

    @property
    def unread(self) -> int | None:
        """How many were unread at the last event taken; None before it is known."""
        return self._unread

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that this stream asks for besides those joined."""
        return tuple(self._topics)

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        self._start()
        item = await self._buffer.take()
        if isinstance(item, _Taken):
            self._cursor, self._unread = item.cursor, item.unread
            return item.event
        self._ended = True
        if item.error is None:
            raise StopAsyncIteration
        raise item.error

    async def mark_read(
        self,
        *,
        ids: Sequence[str] | None = None,
        up_to: str | None = None,
        all: bool = False,
    ) -> int:
        """
        Mark as read on this stream's connection, and so on its device.

        Takes and returns what `Client.mark_read` does. Raises as `ack` does.
        """
        check_mark(ids, up_to, all)
        chosen = None if ids is None else tuple(ids)
        reply = await self._ask(ReadCommand(ids=chosen, up_to=up_to, all=all))
        return reply.unread or 0

    async def ack(self, cursor: str | None = None) -> None:
        """
        Tell the sender that everything up to `cursor`, or `Stream.cursor`, has come.

        One for many is enough; nothing on this side depends on it.

        Raises:
            CommandFailed: The server does not do it.
            Unavailable: There was no answer; it may be done or not, and may be
                repeated.
            Refused: The stream is over.
            ValueError: There is no cursor yet.
        """
        cursor = cursor if cursor is not None else self._cursor
        if cursor in (None, "earliest"):
            raise ValueError("there is no cursor to acknowledge yet")
        assert cursor is not None
        await self._ask(AckCommand(cursor))

    async def subscribe(self, *topics: str) -> None:
        """
        Bring what is sent to `topics` from now on, on all further connections too.

        All of them, or none if one is not allowed. Raises as `ack` does.
        """
        # What comes of them may be read before the answer is heard of here.
        self._asking += topics
        try:
            await self._ask(SubscribeCommand(topics))
            self._topics |= dict.fromkeys(topics)
        finally:
            for topic in topics:
                self._asking.remove(topic)

    async def unsubscribe(self, *topics: str) -> None:
        """Bring what is sent to `topics` no longer. Raises as `ack` does."""
        await self._ask(UnsubscribeCommand(topics))
        for topic in topics:
            self._topics.pop(topic, None)

    async def aclose(self) -> None:
        """
        Leave the stream; legal at any time, and twice.

        A consumer that is waiting gets the end of the iteration. Events in the buffer
        are dropped, and `cursor` stays in front of them.
        """
        self._ended = True
        self._commands.ended(Unavailable("the stream is closed", attempt_count=0))
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        self._buffer.clear()
        await self._buffer.put(_End(None))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _start(self) -> None:
        if self._task is None and not self._ended:
            self._task = asyncio.create_task(self._run(), name="streamer-client")

    async def _ask(self, command: Command) -> Reply:
        self._start()
        # The answer may be behind more than is read ahead, and who asks may be the
        # consumer.
        with self._buffer.stretched():
            return await self._commands.ask(command)

    async def _run(self) -> None:
        """Fill the buffer until the stream is refused or cancelled."""
        try:
            while True:
                self._seen.reconnected()
                await self._prepare(await self._follow())
        # The outermost frame of the task: whatever ended it is the consumer's to know.
        except Exception as error:
            self._commands.ended(error)
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
            self._commands.closed()
            try:
                await socket.close()
            finally:
                # Whoever cancels the farewell still gets rid of the connection.
                socket.transport.abort()

    async def _keep_token_fresh(self, socket: ClientConnection) -> None:
        """Tell the server of another token before the one in use ends."""
        while True:
            delay_s = self._credential.renewal_in_s(self._clock.random())
            if delay_s is None:
                return
            await self._clock.sleep(delay_s)
            try:
                self._token = await self._credential.renew(self._token)
                await socket.send(encode(AuthCommand(self._token)))
            except WebSocketException:
                return
            # The outermost frame of the task. There is time for another attempt, and
            # at the end the server says that the token is over.
            except Exception:
                _log.warning("cannot get another token", exc_info=True)

    def _address(self) -> str:
        query = {"instance": self._instance}
        if self._received is not None:
            query["cursor"] = self._received
        if self._topics:
            query["topics"] = ",".join(self._topics)
        if self._device is not None:
            query["device"] = self._device
        return f"{self._url}?{urllib.parse.urlencode(query)}"

    async def _read(self, socket: ClientConnection) -> Ending:
        """Read messages until the server says goodbye."""
        greeting = await greet(socket)
        if isinstance(greeting, Bye):
            return ending_of_bye(greeting)
        await self._greeted(greeting)
        self._commands.opened(_sender(socket))
        refreshing = asyncio.create_task(self._keep_token_fresh(socket))
        try:
            return await self._listen(
                socket, max(greeting.heartbeat_s, HEARTBEAT_MIN_S)
            )
        finally:
            refreshing.cancel()
            await asyncio.wait([refreshing])

    async def _listen(self, socket: ClientConnection, heartbeat_s: float) -> Ending:
        while True:
            text = await receive(socket, heartbeat_s)
            match decode(text):
                case Ping():
                    await socket.send(PONG)
                case Bye() as bye:
                    return ending_of_bye(bye)
                case NotificationMessage(notification, cursor):
                    await self._deliver(notification, cursor, len(text))
                case Replaced(_, by) if self._seen.came_before(by):
                    pass  # In front of a repeat, and one itself.
                case Withdrawn() | Replaced() | Gap() | Moved() as event:
                    await self._put(event, len(text))
                case Read(unread=unread, marks_version=marks_version) as event:
                    self._counted, self._marks_version = unread, marks_version
                    await self._put(event, len(text))
                case Unread(unread) as event:
                    self._counted = unread
                    await self._put(event)
                case Reply() | Failure() as answer:
                    self._commands.answered(answer)
                case _:
                    pass  # Pongs, and what a newer server may say.

    async def _greeted(self, hello: Hello) -> None:
        self._reconnect.opened(self._clock.now_s())
        # A stream opened "from now" has a place from here on, so that what comes
        # while it is away is not lost. A place it brought itself is the better one.
        if self._received is None:
            self._received = self._cursor = hello.cursor
        if hello.unread is None:
            return
        known, self._marks_version = self._marks_version, hello.marks_version
        told, self._counted = self._counted, hello.unread
        if known is not None and hello.marks_version not in (None, known):
            assert hello.marks_version is not None
            # Which ones, nobody tells.
            await self._put(
                Read(unread=hello.unread, marks_version=hello.marks_version)
            )
        elif told != hello.unread:
            await self._put(Unread(hello.unread))

    async def _deliver(
        self, notification: Notification, cursor: str | None, size: int
    ) -> None:
        if self._seen.is_repeat(notification.id):
            self._received = cursor or self._received
            return
        self._reconnect.proved()
        if self._counted is not None and self._is_counted(notification, cursor):
            self._counted += 1
        await self._put(msgspec.structs.replace(notification, cursor=cursor), size)

    def _is_counted(self, notification: Notification, cursor: str | None) -> bool:
        """Return whether it is one more unread: it is kept, and in the inbox."""
        if cursor is not None:
            return True
        # The id of what is kept nowhere is random, which is version 4.
        if notification.id[14:15] == "4":
            return False
        topic = notification.topic
        if topic is None:
            return notification.everyone
        return topic not in self._topics and topic not in self._asking

    async def _put(self, event: Event, size: int = 0) -> None:
        cursor = getattr(event, "cursor", None) or self._received
        await self._buffer.put(_Taken(event, cursor, self._counted), size)
        self._received = cursor


def _sender(socket: ClientConnection) -> Send:
    async def send(text: str) -> None:
        # Whoever reads notices too, and says that the connection is closed.
        with contextlib.suppress(WebSocketException):
            await socket.send(text)

    return send
