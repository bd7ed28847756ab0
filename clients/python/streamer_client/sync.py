"""
The synchronous API of the client, for programs without asyncio.

Runs coroutines on an event loop in a thread of its own. Every method is that of
`Client` or `Stream`, with the same arguments and results. Safe to use from several
threads, but only one of them may take events of a stream at a time.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from .client import Client
from .credential import TokenSource
from .events import Event
from .model import Token
from .stream import BUFFER_MAX, Stream

__all__ = ["SyncClient", "SyncStream"]

P = ParamSpec("P")
T = TypeVar("T")


class _LoopThread:
    """An event loop that runs in a thread until it is closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon thread, so that a program that forgets to close it can end.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="streamer-client", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the result of `coroutine`; an interrupted wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and its thread; may be called twice."""
        if self._loop.is_closed():
            return
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _client_method(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._client, *args, **kwargs))

    return call


def _stream_method(
    method: Callable[Concatenate[Stream, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncStream, P], T]:
    @functools.wraps(method)
    def call(self: SyncStream, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._stream, *args, **kwargs))

    return call


class SyncStream(Iterator[Event]):
    """A `Stream` as an iterator; returned by `SyncClient.notifications`."""

    def __init__(self, loop: _LoopThread, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def cursor(self) -> str | None:
        """The same as `Stream.cursor`."""
        return self._stream.cursor

    @property
    def unread(self) -> int | None:
        """The same as `Stream.unread`."""
        return self._stream.unread

    @property
    def topics(self) -> tuple[str, ...]:
        """The same as `Stream.topics`."""
        return self._stream.topics

    def __next__(self) -> Event:
        event = self.take()
        if event is None:
            raise StopIteration
        return event

    def take(self, timeout_s: float | None = None) -> Event | None:
        """
        Return the next event, or None if the stream is closed.

        Raises:
            TimeoutError: There was none within `timeout_s`; no event is lost.
        """

        async def step() -> Event | None:
            async with asyncio.timeout(timeout_s):
                return await anext(self._stream, None)

        return self._loop.run(step())

    def mark_read_later(
        self,
        *,
        ids: Sequence[str] | None = None,
        up_to: str | None = None,
        all: bool = False,
    ) -> None:
        """The same as `Stream.mark_read_later`."""

        async def put() -> None:
            self._stream.mark_read_later(ids=ids, up_to=up_to, all=all)

        self._loop.run(put())

    def ack_later(self, cursor: str | None = None) -> None:
        """The same as `Stream.ack_later`."""

        async def put() -> None:
            self._stream.ack_later(cursor)

        self._loop.run(put())

    sent = _stream_method(Stream.sent)
    mark_read = _stream_method(Stream.mark_read)
    ack = _stream_method(Stream.ack)
    subscribe = _stream_method(Stream.subscribe)
    unsubscribe = _stream_method(Stream.unsubscribe)
    close = _stream_method(Stream.aclose)

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SyncClient:
    """
    A synchronous `Client`; a context manager.

    Has the arguments of `Client`, except those for tests. Has a thread until `close`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Token | None = None,
        token_source: TokenSource | None = None,
    ) -> None:
        self._client = Client(url, token=token, token_source=token_source)
        self._loop = _LoopThread()
        self._closed = False

    publish = _client_method(Client.publish)
    publish_many = _client_method(Client.publish_many)
    schedule = _client_method(Client.schedule)
    schedules = _client_method(Client.schedules)
    get_schedule = _client_method(Client.get_schedule)
    move_schedule = _client_method(Client.move_schedule)
    cancel_schedule = _client_method(Client.cancel_schedule)
    withdraw = _client_method(Client.withdraw)
    audience_receipt = _client_method(Client.audience_receipt)
    page = _client_method(Client.page)
    get = _client_method(Client.get)
    delete = _client_method(Client.delete)
    receipt = _client_method(Client.receipt)
    mark_read = _client_method(Client.mark_read)
    mark_unread = _client_method(Client.mark_unread)
    ack = _client_method(Client.ack)
    unread = _client_method(Client.unread)
    topics = _client_method(Client.topics)
    join = _client_method(Client.join)
    leave = _client_method(Client.leave)
    mutes = _client_method(Client.mutes)
    mute = _client_method(Client.mute)
    unmute = _client_method(Client.unmute)
    mint_token = _client_method(Client.mint_token)
    ticket = _client_method(Client.ticket)

    def notifications(
        self,
        cursor: str | None = None,
        *,
        topics: Sequence[str] = (),
        device: str | None = None,
        buffer_max: int = BUFFER_MAX,
    ) -> SyncStream:
        """Return the live stream of the player; see `Client.notifications`."""

        async def make() -> Stream:
            return self._client.notifications(
                cursor, topics=topics, device=device, buffer_max=buffer_max
            )

        return SyncStream(self._loop, self._loop.run(make()))

    def close(self) -> None:
        """Close all streams and connections, end the thread; may be called twice."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._client.aclose())
            self._loop.close()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
