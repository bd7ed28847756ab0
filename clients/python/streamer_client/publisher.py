"""
Publishing that batches by itself: many small publishes, few requests.

Decides what goes into a request and when it is sent. A batch keeps its idempotency key
over all its attempts, so that none of its messages takes effect twice. Knows nothing of
HTTP: `Publishing.publish_many` sends, and repeats while the server is unavailable.

One task collects messages into a batch. It sends a batch when this is full or when its
first message has waited for the flush interval, and several batches at a time only if
that was asked for: with one at a time, messages take effect in the order of the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from .errors import BadResponse, Rejected, Unavailable
from .model import Audience, FieldProblem, Message, Sent

__all__ = ["AsyncPublisher"]

BATCH_MAX: Final = 1_000
"""Messages, and recipients together, in one request."""
BATCH_BYTES_MAX: Final = 2**20
"""Half of what a server accepts."""
FLUSH_S: Final = 0.02
PENDING_MAX: Final = 10_000
ATTEMPT_ROUNDS_MAX: Final = 10
"""How often a batch is handed to `publish_many`, each of which makes 6 attempts."""
_ONE_BY_ONE: Final = frozenset({400, 413, 422})
"""Statuses that one wrong message of a batch causes for all of them."""

Results = tuple[Sent, ...]


class Publisher(Protocol):
    """What a batch is published with: a `Client`."""

    async def publish_many(
        self, messages: Sequence[Message], *, idempotency_key: str | None = None
    ) -> tuple[Results, ...]: ...


class _Item:
    """A message that waits, and where its results go."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self.size = recipients_of(message)
        self.byte_count = len(msgspec.json.encode(message))
        loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Results] = loop.create_future()
        """The caller's, who may cancel it."""
        # A caller that does not await the results does not see their error, either.
        self.future.add_done_callback(_ignore_error)
        self.finished: asyncio.Future[None] = loop.create_future()

    def succeed(self, results: Results) -> None:
        """Set the results, unless it is finished."""
        if not self.future.done():
            self.future.set_result(results)
        self._finish()

    def fail(self, error: Exception) -> None:
        """Set the error, unless it is finished."""
        if not self.future.done():
            self.future.set_exception(error)
        self._finish()

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


class AsyncPublisher:
    """
    Publishes messages in batches; an async context manager.

        async with AsyncPublisher(client) as publisher:
            results = await publisher.publish(Message(to="alice", title="Hello"))
            await publisher.put(message)    # does not wait for the results

    Leaving the block waits until everything is published. All messages have a place in
    a queue of `pending_max`; when it is full, `publish` and `put` wait, so a fast
    producer is slowed down to what the server takes.

    Args:
        client: Publishes the batches; belongs to the caller.
        batch_max: Messages, and recipients together, in one batch, up to 1,000. A batch
            of a single message may have more recipients.
        flush_s: How long the first message of a batch waits for others.
        pending_max: Messages that are not published yet, those in flight included.
        requests_max: Batches in flight. With more than one, messages may take effect in
            another order than that of the calls.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        client: Publisher,
        *,
        batch_max: int = BATCH_MAX,
        flush_s: float = FLUSH_S,
        pending_max: int = PENDING_MAX,
        requests_max: int = 1,
    ) -> None:
        if not 1 <= batch_max <= BATCH_MAX:
            raise ValueError(f"batch_max is {batch_max}, allowed are 1 to {BATCH_MAX}")
        if flush_s < 0 or pending_max < 1 or requests_max < 1:
            raise ValueError("flush_s is from 0, pending_max and requests_max from 1")
        self._client = client
        self._batch_max = batch_max
        self._flush_s = flush_s
        self._room = asyncio.Semaphore(pending_max)
        self._requests = asyncio.Semaphore(requests_max)
        self._waiting: deque[_Item] = deque()
        self._recipients = 0
        self._bytes = 0
        """Both of all that is waiting."""
        self._has_work = asyncio.Event()
        self._hurry = asyncio.Event()
        """Set when there is a reason not to wait for more messages."""
        self._unfinished: dict[asyncio.Future[None], _Item] = {}
        self._in_flight: set[asyncio.Task[None]] = set()
        self._collecting: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def pending_count(self) -> int:
        """The number of messages that are not published yet."""
        return len(self._unfinished)

    async def publish(self, message: Message) -> Results:
        """
        Publish `message`; return a result for each recipient, as `Client.publish` does.

        Cancelling the call does not withdraw the message.

        Raises:
            Rejected: This message is not allowed or is wrong; nothing was stored of it.
                The others of its batch are not affected.
            Unavailable: The outcome is unknown, after all attempts.
            BadResponse: The response does not have the results of this batch.
            TypeError: `data` cannot be JSON.
            ValueError: The publisher is closed, or the message is not to persist: such
                a message has no idempotency key and cannot be in a batch.
        """
        future = await self.put(message)
        return await asyncio.shield(future)

    async def put(self, message: Message) -> asyncio.Future[Results]:
        """
        Take `message` as soon as there is room, and return the future of its results.

        Raises `ValueError` as `publish` does, and `TypeError` if `data` cannot be JSON;
        the future has the other exceptions. They need not be fetched. Cancelling the
        future does not withdraw the message, which keeps its place in the queue.
        """
        self._check(message)
        item = _Item(message)
        await self._room.acquire()
        if self._is_closed:
            self._room.release()
            raise ValueError("the publisher is closed")
        self._unfinished[item.finished] = item
        item.finished.add_done_callback(self._finish)
        self._waiting.append(item)
        self._recipients += item.size
        self._bytes += item.byte_count
        self._has_work.set()
        if self._collecting is None:
            self._collecting = asyncio.create_task(
                self._collect(), name="streamer-publisher"
            )
        return item.future

    async def flush(self) -> None:
        """Publish what is waiting at once; wait until it is published or refused."""
        if self._waiting:
            self._hurry.set()
        if self._unfinished:
            await asyncio.wait(list(self._unfinished))

    async def aclose(self) -> None:
        """
        Accept no more messages, publish those that wait, and end; may be called twice.

        While the server is unavailable this takes as long as the attempts. To give the
        messages up instead, cancel the call: their calls raise `Unavailable`.
        """
        self._is_closed = True
        try:
            await self.flush()
        finally:
            for task in (self._collecting, *self._in_flight):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            closed = Unavailable("the publisher was closed", attempt_count=0)
            _fail(list(self._unfinished.values()), closed)

    async def __aenter__(self) -> AsyncPublisher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _check(self, message: Message) -> None:
        if self._is_closed:
            raise ValueError("the publisher is closed")
        if not message.persist:
            raise ValueError(
                "a notification that is not to persist cannot be in a batch; "
                "use Client.publish"
            )

    def _finish(self, finished: asyncio.Future[None]) -> None:
        del self._unfinished[finished]
        self._room.release()

    async def _collect(self) -> None:
        """Make batches of what is waiting, for as long as there is a publisher."""
        while True:
            await self._has_work.wait()
            # The time in which a request is in flight is time to collect.
            await self._requests.acquire()
            if not self._is_full():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._flush_s):
                        await self._until_full()
            batch = self._next_batch()
            if self._waiting:
                self._has_work.set()
            else:
                self._has_work.clear()
                self._hurry.clear()
            task = asyncio.create_task(self._publish(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def _until_full(self) -> None:
        while not self._is_full() and not self._hurry.is_set():
            self._has_work.clear()
            hurry = asyncio.ensure_future(self._hurry.wait())
            work = asyncio.ensure_future(self._has_work.wait())
            try:
                await asyncio.wait((hurry, work), return_when=asyncio.FIRST_COMPLETED)
            finally:
                hurry.cancel()
                work.cancel()

    def _is_full(self) -> bool:
        return self._recipients >= self._batch_max or self._bytes >= BATCH_BYTES_MAX

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        recipients, byte_count = 0, 0
        while self._waiting:
            item = self._waiting[0]
            recipients += item.size
            byte_count += item.byte_count
            is_too_large = recipients > self._batch_max or byte_count > BATCH_BYTES_MAX
            if batch and is_too_large:
                break
            batch.append(self._waiting.popleft())
            self._recipients -= item.size
            self._bytes -= item.byte_count
        return batch

    async def _publish(self, batch: Sequence[_Item]) -> None:
        try:
            await self._send(batch)
        finally:
            self._requests.release()

    async def _send(self, batch: Sequence[_Item]) -> None:
        """Publish a batch; each of its messages gets its results or its error."""
        key = str(uuid.uuid4())
        messages = [item.message for item in batch]
        for last in (*[False] * (ATTEMPT_ROUNDS_MAX - 1), True):
            try:
                found = await self._client.publish_many(messages, idempotency_key=key)
            except Unavailable as error:
                if last:
                    _fail(batch, error)
            except Rejected as error:
                await self._send_the_others(batch, error)
                return
            # Whatever it is, it belongs to who waits for the results.
            except Exception as error:
                _fail(batch, error)
                return
            else:
                _succeed(batch, found)
                return

    async def _send_the_others(self, batch: Sequence[_Item], error: Rejected) -> None:
        """Refuse what is wrong in a batch of which nothing was stored."""
        problems = _problems_by_message(error, len(batch))
        may_be_others = error.status in _ONE_BY_ONE and (len(batch) > 1 or problems)
        if not may_be_others:
            _fail(batch, error)
            return
        for number, found in problems.items():
            _fail([batch[number]], _rejection_of_one(error, found))
        others = [it for number, it in enumerate(batch) if number not in problems]
        if len(others) < len(batch):
            if others:
                await self._send(others)
            return
        # It does not say which. Halves find out, and keep the order.
        middle = len(batch) // 2
        await self._send(batch[:middle])
        await self._send(batch[middle:])


def _problems_by_message(
    error: Rejected, message_count: int
) -> dict[int, list[FieldProblem]]:
    """Return what is wrong in which message of a list, with pointers into it."""
    found: dict[int, list[FieldProblem]] = {}
    for it in error.errors:
        match = re.fullmatch(r"/(\d{1,9})(/.*)?", it.where, re.ASCII)
        if match and int(match[1]) < message_count:
            where = match[2] or "the body"
            found.setdefault(int(match[1]), []).append(FieldProblem(where, it.problem))
    return found


def _rejection_of_one(error: Rejected, problems: Sequence[FieldProblem]) -> Rejected:
    return Rejected(
        error.status,
        error.title,
        type=error.type,
        detail=error.detail,
        errors=problems,
        limit=error.limit,
        url=error.url,
    )


def recipients_of(message: Message) -> int:
    """Return as how many recipients of a request a message counts."""
    if isinstance(message.to, str | Audience):
        return 1
    return max(1, len(message.to))


def _succeed(batch: Sequence[_Item], found: Sequence[Results]) -> None:
    if len(found) != len(batch):
        problem = f"{len(found)} results for {len(batch)} messages"
        _fail(batch, BadResponse(f"unreadable response: {problem}"))
        return
    for item, results in zip(batch, found, strict=True):
        item.succeed(results)


def _fail(batch: Sequence[_Item], error: Exception) -> None:
    for item in batch:
        item.fail(error)


def _ignore_error(future: asyncio.Future[Results]) -> None:
    if not future.cancelled():
        future.exception()
