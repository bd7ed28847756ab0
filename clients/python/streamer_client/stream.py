"""
The live stream of one player: an iterator that outlives its connections.

Decides what to do with each message and each ending. When to reconnect (`backoff`),
which transport (`transports`), its connections (`links`), heartbeats (`connection`),
the form of messages (`wire`), repeats (`seen`) and commands (`commands`) are other
modules.

One task connects, reads, answers heartbeats and fills a buffer; the consumer empties
it. When the buffer is full the task stops reading, the socket fills up, and finally the
server closes the stream as slow. Nothing is lost: the stream reconnects and resumes.
There are two cursors::

    _received_cursor   the last one read from the socket; connections resume from it
    cursor             that of the last event taken; the application stores it

so a crash repeats the events of the buffer, and loses none of them. A notification to a
topic or to everyone has no cursor of its own. One `CursorMoved` follows for several of
them; until then each new connection delivers them again, and they are dropped by id.

The unread count is kept in the same way: as of the last event taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import msgspec

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
    receive,
    receive_hello,
    send_pong,
)
from .credential import Credential
from .errors import BadResponse, CommandFailed, Rejected, Unavailable, public_url
from .events import CursorMoved, Event, Gap, Read, Replaced, Unread, Withdrawn
from .http import Http
from .inbox import acknowledge, mark_read
from .links import Link, LinkEnded, open_link
from .model import Notification, check_mark
from .outbox import IDS_MAX, Outbox
from .seen import SeenIds
from .transports import Choice, Transport
from .wire import (
    AckCommand,
    AuthCommand,
    Bye,
    Command,
    CommandError,
    CommandResult,
    Hello,
    NotificationMessage,
    Ping,
    ReadCommand,
    Reply,
    SubscribeCommand,
    Unreadable,
    UnsubscribeCommand,
    encode,
)

__all__ = ["Stream"]

BUFFER_MAX: Final = 64
"""Events read ahead of the consumer."""

OUTBOX_PAUSE_S: Final = 1.0
"""After a mark without an answer, before it is sent again."""

_log = logging.getLogger(__name__)


class _Buffered(NamedTuple):
    """An event, and the cursor and unread count after it."""

    event: Event
    cursor: str | None
    unread: int | None


class _EndOfStream(NamedTuple):
    """The last item of the buffer: why the stream ended, None if it was closed."""

    error: Exception | None


class Stream(AsyncIterator[Event]):
    """
    The events of one player's inbox, in order, across reconnects.

    Returned by `Client.notifications`. Connects at the first ``await``, then keeps one
    connection until `aclose`, also between two steps of the iteration. One consumer at
    a time; cancelling a step loses nothing.

    Args:
        url: The address of the stream, ``ws://`` or ``wss://``.
        credential: The token, and how to get another one.
        http: For the transports and commands that are requests.
        cursor: Where to begin: None is from now on, ``earliest`` is the oldest kept.
        topics: Topics to deliver besides those that the player is subscribed to.
        device: A permanent name of the device.
        buffer_max: Events to read ahead of the consumer.
        transport: See `Client.notifications`.

    Raises:
        Refused, TokenExpired: From the iteration, once: the stream has ended. The
            exceptions of the token source are raised in the same way.
        Unavailable: In the same way: the first connection did not work, in 6 attempts
            within a minute. A stream that was connected has no maximum.
        ValueError: `buffer_max` is less than 1, or there is no such `transport`.
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        http: Http,
        *,
        cursor: str | None = None,
        topics: Sequence[str] = (),
        device: str | None = None,
        buffer_max: int = BUFFER_MAX,
        transport: Transport = "auto",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._url = url
        self._credential = credential
        self._http = http
        self._clock = clock
        self._choice = Choice(transport)
        self._was_greeted = False
        """Whether the present connection has received `hello`."""
        self._cursor = cursor
        self._received_cursor = cursor
        # The topics of this stream alone, in order; the values are unused.
        self._topics = dict.fromkeys(topics)
        self._pending_topics: list[str] = []
        self._device = device
        self._unread: int | None = None
        self._received_unread: int | None = None
        self._put_unread: int | None = None
        """The number at the last event that was put into the buffer."""
        self._marks_version: int | None = None
        self._seen = SeenIds()
        self._reconnect = Reconnect(
            has_token_source=credential.can_renew,
            random=clock.random,
            url=public_url(url),
        )
        self._token: str | None = None
        # By this name a new connection replaces a dead one of the same stream, which
        # would otherwise count as a listener until the server notices.
        self._instance = uuid.uuid4().hex
        self._commands = Commands(clock, public_url(url))
        self._buffer: Buffer[_Buffered | _EndOfStream] = Buffer(
            buffer_max, self._commands.give_up
        )
        self._task: asyncio.Task[None] | None = None
        self._outbox = Outbox()
        self._sending: asyncio.Task[None] | None = None
        """Sends what is in the outbox, while there is something."""
        self._ended = False

    @property
    def cursor(self) -> str | None:
        """
        The point after the last event taken; a later stream continues from it.

        Before the first event it is the cursor that the stream was opened with or,
        without one, that of the server's ``hello``.
        """
        return self._cursor

    @property
    def unread(self) -> int | None:
        """The unread count at the last event taken; None while it is unknown."""
        return self._unread

    @property
    def transport(self) -> Transport:
        """The transport of the present connection, or of the next one."""
        return self._choice.current

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of this stream alone, besides the player's subscriptions."""
        return tuple(self._topics)

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        self._start()
        item = await self._buffer.take()
        if isinstance(item, _Buffered):
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
        Mark as read on this stream's connection, and thereby on its device.

        Has the arguments and the result of `Client.mark_read`. Raises as `ack` does.
        """
        check_mark(ids, up_to, all)
        id_list = None if ids is None else tuple(ids)
        reply = await self._send_command(ReadCommand(ids=id_list, up_to=up_to, all=all))
        return reply.unread or 0

    async def ack(self, cursor: str | None = None) -> None:
        """
        Acknowledge everything up to `cursor`, by default `Stream.cursor`.

        This is for receipts and has no other effect. One call for several events is
        enough.

        Raises:
            CommandFailed: The server did not carry it out.
            Unavailable: There was no reply within 60 s. It may have been carried out or
                not, and is safe to repeat.
            Refused: The stream has ended.
            ValueError: There is no cursor yet.
        """
        await self._send_command(AckCommand(self._acknowledged(cursor)))

    def mark_read_later(
        self,
        *,
        ids: Sequence[str] | None = None,
        up_to: str | None = None,
        all: bool = False,
    ) -> None:
        """
        Mark as read as soon as there is a connection; return at once.

        For an application that goes on without one. Up to 1,000 marks wait, in this
        process only; they are sent again until the server has answered. A mark that
        the server does not carry out is logged. Without a connection `all` is what the
        application has taken from the stream: what arrives later has not been seen.

        Raises:
            OverflowError: 1,000 marks are waiting.
            ValueError: None or several of the arguments are given, or `ids` has more
                than 1,000.
            RuntimeError: The stream has ended.
        """
        check_mark(ids, up_to, all)
        if ids is not None and len(ids) > IDS_MAX:
            raise ValueError(f"{len(ids)} ids, allowed are {IDS_MAX}")
        id_list = None if ids is None else tuple(ids)
        is_point = self._cursor not in (None, "earliest")
        if all and is_point and not self._commands.is_open:
            all, up_to = False, self._cursor
        self._put_later(ReadCommand(ids=id_list, up_to=up_to, all=all))

    def ack_later(self, cursor: str | None = None) -> None:
        """
        Acknowledge as soon as there is a connection, by default `Stream.cursor`.

        Replaces an acknowledgement that waits. Raises as `mark_read_later` does.
        """
        self._put_later(AckCommand(self._acknowledged(cursor)))

    async def sent(self) -> None:
        """
        Wait until nothing of `mark_read_later` and `ack_later` is waiting.

        Raises the error that has ended the stream, `Unavailable` if it was closed.
        """
        while (task := self._sending) is not None:
            await asyncio.wait([task])
            if task.cancelled():
                raise self._closed_error()
            task.result()

    async def subscribe(self, *topics: str) -> None:
        """
        Deliver what is sent to `topics` from now on, on this stream alone.

        Takes effect for all of the topics or, if one of them is not allowed, for none.
        Later connections of the stream deliver them, too. Raises as `ack` does.
        """
        # Their notifications may be read before the reply.
        self._pending_topics += topics
        try:
            await self._send_command(SubscribeCommand(topics))
            self._topics |= dict.fromkeys(topics)
        finally:
            for topic in topics:
                self._pending_topics.remove(topic)

    async def unsubscribe(self, *topics: str) -> None:
        """Stop delivering what is sent to `topics`. Raises as `ack` does."""
        await self._send_command(UnsubscribeCommand(topics))
        for topic in topics:
            self._topics.pop(topic, None)

    async def aclose(self) -> None:
        """
        Close the stream; may be called at any time, and twice.

        The iteration of a waiting consumer ends. Events in the buffer are dropped;
        `cursor` is the point before them.
        """
        self._ended = True
        self._commands.end(self._closed_error())
        for task in (self._sending, self._task):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        self._buffer.clear()
        await self._buffer.put(_EndOfStream(None))

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _start(self) -> None:
        if self._task is None and not self._ended:
            self._task = asyncio.create_task(self._run(), name="streamer-client")

    def _acknowledged(self, cursor: str | None) -> str:
        cursor = cursor if cursor is not None else self._cursor
        if cursor in (None, "earliest"):
            raise ValueError("there is no cursor to acknowledge yet")
        assert cursor is not None
        return cursor

    def _put_later(self, command: ReadCommand | AckCommand) -> None:
        if self._ended:
            raise RuntimeError("the stream has ended")
        self._outbox.put(command)
        self._start()
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_outbox())
            self._sending.add_done_callback(self._on_outbox_sent)

    async def _send_outbox(self) -> None:
        while self._outbox:
            command = self._outbox.first()
            try:
                await self._commands.run(command)
            # Something else may have answered a request in place of the server.
            except (BadResponse, Unavailable):
                if self._ended:
                    raise
                await self._clock.sleep(OUTBOX_PAUSE_S)
                continue
            except CommandFailed as error:
                _log.warning("a mark was not carried out: %s", error)
            self._outbox.remove(command)

    def _on_outbox_sent(self, task: asyncio.Task[None]) -> None:
        self._sending = None
        if not task.cancelled():
            task.exception()  # It has ended the stream, which raises it.

    async def _send_command(self, command: Command) -> Reply:
        self._start()
        # More events may precede the reply than the buffer holds, and the caller may
        # be the consumer.
        with self._buffer.extend():
            return await self._commands.run(command)

    def _closed_error(self) -> Unavailable:
        url = public_url(self._url)
        return Unavailable("the stream is closed", attempt_count=0, url=url)

    async def _run(self) -> None:
        """Fill the buffer until the stream is refused or cancelled."""
        try:
            while True:
                self._seen.begin_connection()
                await self._await_next_attempt(await self._run_connection())
        # The outermost frame of the task: the consumer gets whatever ended it.
        except Exception as error:
            self._commands.end(error)
            await self._buffer.put(_EndOfStream(error))

    async def _await_next_attempt(self, ending: Ending) -> None:
        """Wait, or get a token, before the next connection."""
        match self._reconnect.after(ending, self._clock.now_s()):
            case Stop(error):
                raise error
            case NewToken():
                _log.info("the token was refused; getting another one")
                await self._credential.renew(self._token)
            case Wait(delay_s):
                _log.info(
                    "stream of %s ended: %s (%s); reconnecting in %.1f s",
                    public_url(self._url),
                    ending.reason,
                    ending.code,
                    delay_s,
                )
                await self._clock.sleep(delay_s)

    async def _run_connection(self) -> Ending:
        """Open one connection and read it until it ends, for whatever reason."""
        self._token = await self._credential.token()
        self._was_greeted = False
        ending = await self._run_link(self._token)
        # The next attempt is made in another way, so this refusal is not the end.
        if not self._was_greeted and self._choice.after(ending):
            return Ending(None, ending.reason)
        return ending

    async def _run_link(self, token: str) -> Ending:
        try:
            link = await open_link(
                self._choice.current,
                self._url,
                self._query(),
                token,
                self._http,
                self._clock,
            )
        except LinkEnded as error:
            return error.ending
        try:
            return await self._run_session(link)
        except LinkEnded as error:
            return error.ending
        except TimeoutError:
            # The peer does not answer, so there is no close handshake.
            link.abort()
            return Ending(None, "silent")
        except Unreadable as error:
            _log.warning("unreadable message: %s", error)
            return Ending(None, "unreadable message")
        finally:
            self._commands.on_close()
            try:
                await link.aclose()
            finally:
                # Also if the close handshake is cancelled.
                link.abort()

    async def _keep_token_fresh(self, link: Link) -> None:
        """Send the server another token before the current one expires."""
        while link.can_send:
            delay_s = self._credential.renewal_in_s(self._clock.random())
            if delay_s is None:
                return
            await self._clock.sleep(delay_s)
            try:
                self._token = await self._credential.renew(self._token)
                await link.send(encode(AuthCommand(self._token)))
            except LinkEnded:
                return
            # The outermost frame of the task. There is time for another attempt, and
            # finally the server says that the token has expired.
            except Exception:
                _log.warning("could not get another token", exc_info=True)

    def _query(self) -> dict[str, str]:
        query = {"instance": self._instance}
        if self._received_cursor is not None:
            query["cursor"] = self._received_cursor
        if self._topics:
            query["topics"] = ",".join(self._topics)
        if self._device is not None:
            query["device"] = self._device
        return query

    async def _run_session(self, link: Link) -> Ending:
        """Read messages until the ``bye`` of the server."""
        hello = await receive_hello(link, self._clock)
        if isinstance(hello, Bye):
            return ending_of_bye(hello)
        self._was_greeted = True
        self._choice.mark_open()
        await self._on_hello(hello)
        self._commands.on_open(self._sender_of(link))
        refresher = asyncio.create_task(self._keep_token_fresh(link))
        try:
            return await self._read_messages(
                link, max(hello.heartbeat_s, HEARTBEAT_MIN_S)
            )
        finally:
            refresher.cancel()
            await asyncio.wait([refresher])

    async def _read_messages(self, link: Link, heartbeat_s: float) -> Ending:
        while True:
            message, size = await receive(link, heartbeat_s, self._clock)
            match message:
                case Ping():
                    await send_pong(link)
                case Bye() as bye:
                    return ending_of_bye(bye)
                case NotificationMessage(notification, cursor):
                    await self._on_notification(notification, cursor, size)
                case Replaced(_, by) if self._seen.was_delivered_before(by):
                    pass  # It precedes a repeat, and is one itself.
                case Withdrawn() | Replaced() | Gap() | CursorMoved() as event:
                    await self._put(event, size)
                case Read(unread=unread, marks_version=marks_version) as event:
                    self._received_unread, self._marks_version = unread, marks_version
                    await self._put(event, size)
                case Unread(unread) as event:
                    self._received_unread = unread
                    # After a replay the server confirms what was counted.
                    if unread != self._put_unread:
                        await self._put(event)
                case Reply() | CommandError() as result:
                    self._commands.on_result(result)
                case _:
                    pass  # A pong, or a message of a newer server.

    async def _on_hello(self, hello: Hello) -> None:
        self._reconnect.mark_open(self._clock.now_s())
        # A stream from now on has a cursor from here on, so that it loses nothing while
        # it is disconnected. A cursor of its own is better.
        if self._received_cursor is None:
            self._received_cursor = self._cursor = hello.cursor
        if hello.unread is None:
            return
        last_version, self._marks_version = self._marks_version, hello.marks_version
        self._received_unread = hello.unread
        if last_version is not None and hello.marks_version not in (None, last_version):
            assert hello.marks_version is not None
            # The server does not say which notifications were marked.
            await self._put(
                Read(unread=hello.unread, marks_version=hello.marks_version)
            )
        elif hello.unread != self._put_unread:
            await self._put(Unread(hello.unread))

    async def _on_notification(
        self, notification: Notification, cursor: str | None, size: int
    ) -> None:
        # A repeat counts as well: the number of `hello` is as of its cursor.
        if self._received_unread is not None and self._is_counted(notification, cursor):
            self._received_unread += 1
        if self._seen.is_repeat(notification.id):
            self._received_cursor = cursor or self._received_cursor
            return
        self._reconnect.mark_proved()
        await self._put(msgspec.structs.replace(notification, cursor=cursor), size)

    def _is_counted(self, notification: Notification, cursor: str | None) -> bool:
        """Return whether it adds to the unread count: it is stored, in the inbox."""
        if cursor is not None:
            return True
        # A notification that is not stored has a random id, of version 4.
        if notification.id[14:15] == "4":
            return False
        topic = notification.topic
        if topic is None:
            return notification.everyone
        return topic not in self._topics and topic not in self._pending_topics

    async def _put(self, event: Event, size: int = 0) -> None:
        cursor = getattr(event, "cursor", None) or self._received_cursor
        await self._buffer.put(_Buffered(event, cursor, self._received_unread), size)
        self._received_cursor, self._put_unread = cursor, self._received_unread

    def _sender_of(self, link: Link) -> Send:
        async def send(command: Command) -> None:
            # The task that reads notices as well, and reports the end.
            with contextlib.suppress(LinkEnded):
                await link.send(encode(command))

        return send if link.can_send else self._request

    async def _request(self, command: Command) -> None:
        """Carry out a command over HTTP, beside a transport that only receives."""
        result: CommandResult
        try:
            match command:
                case ReadCommand(ids, up_to, all, ref):
                    unread = await mark_read(
                        self._http, "me", ids=ids, up_to=up_to, all=all
                    )
                    result = Reply(ref, unread)
                case AckCommand(cursor, ref):
                    await acknowledge(self._http, "me", cursor)
                    result = Reply(ref)
                case _:
                    problem = "is possible on a WebSocket only; open the stream with it"
                    result = CommandError(command.ref, problem)
        except Rejected as error:
            result = CommandError(command.ref, str(error))
        self._commands.on_result(result)
