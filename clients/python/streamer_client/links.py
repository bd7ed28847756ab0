"""
One connection of a stream: WebSocket, Server-Sent Events, or pages.

All three give the messages of a WebSocket. Knows how each is opened, and which ending a
refusal is. Knows nothing of what a message means, nor of what happens after the end.
"""

from __future__ import annotations

import contextlib
import time
import urllib.parse
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from .backoff import Clock, Ending, ending_of_status, parse_retry_after
from .events import CursorMoved, Gap, Unread
from .http import Http
from .model import Page
from .problem import read_problem
from .sse import EventParser
from .transports import Transport
from .wire import Hello, Message, NotificationMessage, Unreadable, decode

__all__ = ["Link", "LinkEnded", "open_link"]

OPEN_TIMEOUT_S: Final = 10.0
"""For TCP, TLS and the handshake."""
CLOSE_TIMEOUT_S: Final = 1.0
"""A peer that is gone must not delay the next connection."""
QUEUED_MESSAGES_MAX: Final = 16
"""Messages that the WebSocket library reads ahead of this module."""
MESSAGE_BYTES_MAX: Final = 4 * 2**20
"""Above any notification of a server; limits the memory a hostile one can use."""
WAIT_S: Final = 25
"""How long the server may hold a request for a page; proxies permit 30 to 60 s."""
WAIT_MIN_S: Final = 5
"""A wait that is given up even earlier is of no use."""
GIVEN_UP: Final = frozenset({408, 502, 504})
"""What a proxy answers when it has given up a request."""
POLL_S: Final = 5.0
"""Between two requests that the server does not hold, with jitter of a fourth."""
PAGE_LIMIT: Final = 100


class LinkEnded(Exception):
    """A connection has ended, or there was none."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending)
        self.ending = ending


class Link(Protocol):
    """An open connection."""

    @property
    def can_send(self) -> bool:
        """Whether the client can send messages on it."""

    @property
    def has_heartbeat(self) -> bool:
        """Whether silence means that it is dead."""

    async def receive(self) -> tuple[Message | None, int]:
        """
        Return the next message (None if it is of an unknown type) and its size.

        Raises:
            LinkEnded: The connection has ended.
            Unreadable: The message has not the form of the protocol.
        """

    async def send(self, text: str) -> None:
        """
        Send a message.

        Raises:
            LinkEnded: The connection has ended.
        """

    async def aclose(self) -> None:
        """Close the connection in an orderly way."""

    def abort(self) -> None:
        """Drop what is left of it."""


async def open_link(
    transport: Transport,
    url: str,
    query: Mapping[str, str],
    token: str,
    http: Http,
    clock: Clock,
) -> Link:
    """
    Open a connection.

    `url` is that of the WebSocket, `query` the parameters of the stream.

    Raises:
        LinkEnded: There is no connection.
    """
    if transport == "poll":
        return _PageLink(query.get("cursor"), token, http, clock)
    address = urllib.parse.urlencode(query)
    try:
        async with clock.timeout(OPEN_TIMEOUT_S):
            if transport == "sse":
                return await _open_events(f"stream?{address}", token, http)
            return await _open_websocket(f"{url}?{address}", token)
    except TimeoutError:
        raise LinkEnded(Ending(None, "cannot connect: no response")) from None


class _WebSocketLink:
    can_send = True
    has_heartbeat = True

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> tuple[Message | None, int]:
        try:
            text = await self._socket.recv()
        except ConnectionClosed as error:
            raise LinkEnded(_ending_of_close(error)) from error
        return decode(text), len(text)

    async def send(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except ConnectionClosed as error:
            raise LinkEnded(_ending_of_close(error)) from error

    async def aclose(self) -> None:
        await self._socket.close()

    def abort(self) -> None:
        self._socket.transport.abort()


async def _open_websocket(url: str, token: str) -> _WebSocketLink:
    try:
        socket = await connect(
            url,
            additional_headers={"Authorization": f"Bearer {token}"},
            user_agent_header="streamer-client",
            compression=None,
            open_timeout=None,
            close_timeout=CLOSE_TIMEOUT_S,
            # The protocol has its own heartbeats. The library still answers the ping
            # frames of the server.
            ping_interval=None,
            max_size=MESSAGE_BYTES_MAX,
            max_queue=QUEUED_MESSAGES_MAX,
        )
    except InvalidStatus as error:
        response = error.response
        ending = _ending_of_response(
            response.status_code,
            response.reason_phrase,
            response.headers.get("Retry-After"),
            bytes(response.body or b""),
        )
        raise LinkEnded(ending) from error
    except TimeoutError:
        raise
    except (OSError, EOFError, WebSocketException) as error:
        raise LinkEnded(_ending_of_failure(error)) from error
    return _WebSocketLink(socket)


class _EventLink:
    can_send = False
    has_heartbeat = True

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._texts = _texts(response)

    async def receive(self) -> tuple[Message | None, int]:
        try:
            text = await anext(self._texts)
        except StopAsyncIteration:
            raise LinkEnded(Ending(None, "the response has ended")) from None
        except httpx2.HTTPError as error:
            raise LinkEnded(_ending_of_failure(error)) from error
        except ValueError as error:
            raise Unreadable(str(error)) from error
        return decode(text), len(text)

    async def send(self, text: str) -> None:
        raise AssertionError(f"no message can be sent: {text}")

    async def aclose(self) -> None:
        with contextlib.suppress(httpx2.HTTPError, RuntimeError):
            await self._response.aclose()

    def abort(self) -> None:
        pass


async def _texts(response: httpx2.Response) -> AsyncIterator[str]:
    parser = EventParser()
    async for data in response.aiter_bytes():
        for text in parser.feed(data):
            yield text


async def _open_events(path: str, token: str, http: Http) -> _EventLink:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    response = await _open_response(path, token, http, headers)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind.lower() == "text/event-stream":
        return _EventLink(response)
    await response.aclose()
    reason = f"{response.status_code}, but no event stream: {kind or 'no type'}"
    raise LinkEnded(Ending(None, reason, status=response.status_code))


class _PageLink:
    """
    Requests what is after the cursor, again and again.

    The server holds a request until there is something; where it answers at once, or
    where a proxy does not wait for the answer, there are pauses.
    """

    can_send = False
    has_heartbeat = False

    def __init__(
        self, cursor: str | None, token: str, http: Http, clock: Clock
    ) -> None:
        self._cursor = cursor
        self._token = token
        self._http = http
        self._clock = clock
        self._messages: deque[Message] = deque()
        self._was_greeted = False
        self._unread: int | None = None
        self._etag: str | None = None
        self._last_ids: frozenset[str] = frozenset()
        """Those of the last page: that of an older server may go beyond its cursor."""
        self._wait_s = WAIT_S
        self._early_count = 0
        """Answers in a row that came early and brought no notification."""
        self._is_pausing = False

    async def receive(self) -> tuple[Message | None, int]:
        if not self._was_greeted:
            await self._greet()
        while not self._messages:
            await self._await_page()
        return self._messages.popleft(), 0

    async def send(self, text: str) -> None:
        raise AssertionError(f"no message can be sent: {text}")

    async def aclose(self) -> None:
        pass

    def abort(self) -> None:
        pass

    async def _greet(self) -> None:
        """Say what `hello` says, as soon as the first page is there."""
        if self._cursor is None:
            page = await self._page({"limit": "1"})
            assert page is not None
            # The tag is that of another page.
            self._cursor, self._etag = page.cursor or "earliest", None
            self._count(page)
        else:
            await self._fetch()
        self._messages.appendleft(Hello(self._cursor))
        self._was_greeted = True

    async def _await_page(self) -> None:
        """Request a page that the server may hold, after a pause if one is due."""
        if self._is_pausing:
            jitter = 0.75 + 0.5 * self._clock.random()
            await self._clock.sleep(POLL_S * jitter)
        wait_s, begun_s = self._wait_s, self._clock.now_s()
        place = self._cursor, self._unread
        try:
            is_end = await self._fetch(wait_s)
        except LinkEnded as error:
            if not wait_s or not _is_given_up(error.ending):
                raise
            self._wait_s = wait_s // 2 if wait_s // 2 >= WAIT_MIN_S else 0
            self._is_pausing = True
            return
        is_early = self._clock.now_s() - begun_s < wait_s / 2
        self._early_count = self._early_count + 1 if is_early and is_end else 0
        # A mark ends a wait, but an older server answers each time at once.
        is_changed = (self._cursor, self._unread) != place
        self._is_pausing = (is_end and not wait_s) or self._early_count > is_changed

    async def _fetch(self, wait_s: int = 0) -> bool:
        """
        Request what is after the cursor.

        Return whether there was no new notification, and there is no next page.
        """
        query = {"order": "oldest", "limit": str(PAGE_LIMIT)}
        if self._cursor != "earliest":
            query["after"] = self._cursor or ""
        if wait_s:
            query["wait_s"] = str(wait_s)
        page = await self._page(query, wait_s)
        if page is None:
            return True
        if page.gap is not None:
            self._messages.append(Gap(page.gap, "earliest"))
        fresh = [it for it in page.notifications if it.id not in self._last_ids]
        self._last_ids = frozenset(it.id for it in page.notifications)
        end = page.next or page.cursor or (fresh[-1].id if fresh else self._cursor)
        for notification in fresh:
            is_last = notification is fresh[-1]
            cursor = end if is_last else notification.id
            self._messages.append(NotificationMessage(notification, cursor))
        if end != self._cursor:
            assert end is not None
            if not fresh:
                self._messages.append(CursorMoved(end))
            self._cursor, self._etag = end, None
        if page.next is None or not fresh:
            self._count(page)
        return not fresh and page.next is None

    def _count(self, page: Page) -> None:
        # Notifications count by themselves, and the page knows better.
        if page.unread != self._unread or page.notifications:
            self._messages.append(Unread(page.unread))
        self._unread = page.unread

    async def _page(self, query: Mapping[str, str], wait_s: int = 0) -> Page | None:
        """Return a page, None if it has not changed."""
        headers = {} if self._etag is None else {"If-None-Match": self._etag}
        path = f"players/me/notifications?{urllib.parse.urlencode(query)}"
        try:
            async with self._clock.timeout(OPEN_TIMEOUT_S + wait_s):
                response = await _open_response(path, self._token, self._http, headers)
                if response.status_code == 304:
                    await response.aclose()
                    return None
                body = await response.aread()
        except TimeoutError:
            raise LinkEnded(Ending(None, "no response")) from None
        except httpx2.HTTPError as error:
            raise LinkEnded(_ending_of_failure(error)) from error
        try:
            page = msgspec.json.decode(body, type=Page)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise Unreadable(str(error)) from error
        self._etag = response.headers.get("ETag")
        return page


def _is_given_up(ending: Ending) -> bool:
    """Return whether something between client and server has given up a request."""
    if ending.status is None:
        return not ending.is_unreachable
    return ending.status in GIVEN_UP


async def _open_response(
    path: str, token: str, http: Http, headers: Mapping[str, str]
) -> httpx2.Response:
    """
    Return a response that is neither a refusal nor a failure, without its body.

    Raises:
        LinkEnded: It is one of these.
    """
    try:
        response = await http.open(path, token, headers)
        if response.status_code in (200, 304):
            return response
        async with contextlib.aclosing(response):
            body = await response.aread()
    except httpx2.HTTPError as error:
        raise LinkEnded(_ending_of_failure(error)) from error
    raise LinkEnded(
        _ending_of_response(
            response.status_code,
            response.reason_phrase,
            response.headers.get("Retry-After"),
            body,
        )
    )


def _ending_of_response(
    status: int, phrase: str, retry_after: str | None, body: bytes
) -> Ending:
    """Return the ending that a refusal is, with its ``Retry-After``."""
    problem = read_problem(body)
    reason = problem.detail or problem.title or phrase
    delay_s = parse_retry_after(retry_after, time.time())
    return ending_of_status(status, f"{status} {reason}", delay_s, problem.detail)


def _ending_of_failure(error: Exception) -> Ending:
    problem = str(error) or type(error).__name__
    # Nobody listens there, or the name is unknown. A reset is another matter.
    is_unreachable = isinstance(error, OSError | httpx2.ConnectError) and not (
        isinstance(error, ConnectionResetError | BrokenPipeError)
    )
    return Ending(None, f"cannot connect: {problem}", is_unreachable=is_unreachable)


def _ending_of_close(error: ConnectionClosed) -> Ending:
    close = error.rcvd or error.sent
    return Ending(close.code if close else None, close.reason if close else "lost")
