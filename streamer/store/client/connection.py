"""
One multiplexed connection to the store.

Decides when a command may be sent, whom a reply belongs to, and what a failure means.
Knows Redis replies and the two ways of failing: nothing happened (`StoreUnavailable`)
and nobody knows (`OutcomeUnknown`). Knows nothing of keys, scripts' meaning or apps.

Theory of operation. Every command of this process goes over one socket, in the order of
the calls, and replies come back in that order: a queue of packets, each with one
future, is all the bookkeeping there is. Commands issued in the same turn of the event
loop, but for large ones, travel in one packet and, in a store that syncs before it
answers, share one fsync; a pool would give each a connection, a packet and a sync of
its own. A caller that is cancelled leaves its packet behind, and the replies are
dropped when they come: nobody ever gets another's.

Nothing is sent twice. redis-py repeats a command up to ten times when the reply is
lost, which turns one append into several; so only its connecting is used here (URL,
TLS, authentication), and whoever wants a write repeated has to make it idempotent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from ...errors import OutcomeUnknown, StoreUnavailable
from .commands import Call, Command, Packed, Prepared, Script, ScriptCall, pack_all
from .replies import Reply, ok, refusal

__all__ = [
    "GATHERED_BYTES_MAX",
    "Command",
    "Prepared",
    "RedisConnection",
    "Reply",
    "RespConnection",
    "Script",
    "ScriptCall",
    "connect",
]


CONNECT_TIMEOUT_S: Final = 2.0
TIMEOUT_GRACE_S: Final = 0.05
"""Long enough for one turn of the event loop, in which waiting replies are read."""

GATHERED_BYTES_MAX: Final = 4_096
"""
Commands of more than this are sent at once, with what waits: the store takes in a
large packet the slower the larger it is (bench.publish --batch=100).
"""

PENDING_MAX: Final = 50_000
"""Commands under way. More means that the store cannot keep up: refuse, don't grow."""

# Replies that mean "not now, and nothing was done". A script is judged by them before
# it starts, so they hold for scripts too.
_UNAVAILABLE: Final = (
    "LOADING",
    "BUSY ",
    "OOM",
    "MISCONF",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
    "NOAUTH",
)
_NO_SCRIPT: Final = "NOSCRIPT"
_INCOMPLETE: Final = object()


class _Packet:
    """Commands that were sent together, and the replies to them that have come."""

    __slots__ = ("_count", "completed", "has_failures", "replies")

    def __init__(self, count: int, completed: asyncio.Future[None]) -> None:
        self._count = count
        self.completed = completed
        self.replies: list[Reply] = []
        self.has_failures = False
        """Whether some replies are no replies, or errors."""

    def add(self, replies: list[Reply], first: int) -> int:
        """Take the replies that are missing, of those from `first`; say how many."""
        missing = self._count - len(self.replies)
        taken = replies[first : first + missing]
        self.replies += taken
        if hiredis.ReplyError in map(type, taken):
            self.has_failures = True
        if len(taken) == missing:
            self._wake()
        return len(taken)

    @property
    def is_complete(self) -> bool:
        return len(self.replies) == self._count

    def fail(self) -> int:
        """Wake who waits, with no reply where none has come; return how many."""
        missing = self._count - len(self.replies)
        self.replies += [_INCOMPLETE] * missing
        self.has_failures = True
        self._wake()
        return missing

    def _wake(self) -> None:
        if not self.completed.done():
            self.completed.set_result(None)


class RespConnection(asyncio.Protocol):
    """
    An open connection: commands out, parsed replies in, both without waiting.

    Args:
        on_replies: Called with the replies that have come, in order. An error reply is
            a value.
        on_lost: Called once when the connection is gone.

    """

    def __init__(
        self,
        on_replies: Callable[[list[Reply]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._opened: AbstractConnection | None = None
        self._transport: asyncio.Transport | None = None
        self._unsent: list[Packed] = []
        """What was given in this turn of the loop, and goes out at its end."""

    def adopt(self, opened: AbstractConnection) -> None:
        """
        Take over the socket of a connection that redis-py has set up.

        Raises:
            StoreUnavailable: It is lost already.

        """
        # redis-py offers no way to its transport; the tests of this module fail if
        # these attributes move.
        writer = opened._writer
        assert writer is not None
        transport = cast(asyncio.Transport, writer.transport)
        if transport.is_closing():
            # Lost before anybody listened; `on_lost` would never be called.
            raise StoreUnavailable
        transport.set_protocol(self)
        self._opened, self._transport = opened, transport

    @property
    def closing(self) -> bool:
        """Whether what is sent would go nowhere; `on_lost` follows or has followed."""
        return self._transport is None or self._transport.is_closing()

    def send(self, *commands: Command | Packed) -> None:
        """Send commands; on a lost connection nothing, as `on_lost` will say or has."""
        self.send_packed(pack_all(commands))

    def send_packed(self, packed: bytes) -> None:
        """Send commands that are written already; as `send`."""
        self._unsent.append(packed)
        if len(packed) > GATHERED_BYTES_MAX:
            self._flush()
        elif len(self._unsent) == 1:
            # Transports write at once, and a write costs more than what is in it: when
            # a turn resumes a hundred tasks, each of them asks for something.
            asyncio.get_running_loop().call_soon(self._flush)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies = []
        while (reply := self._reader.gets()) is not _INCOMPLETE:
            replies.append(reply)
        if replies:
            self._on_replies(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        self._on_lost()

    def abort(self) -> None:
        """Drop the connection at once; `on_lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        # On a closing one asyncio would drop it as well, but uvloop raises.
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _release(self) -> None:
        # The connection object closes what it holds when it is collected; it holds a
        # dead transport by then, and must not warn about it.
        if self._opened is not None:
            self._opened._reader = self._opened._writer = None
            self._opened = None


async def connect(url: str, connection: RespConnection, *, name: str) -> None:
    """
    Connect, authenticate and hand the socket to `connection`.

    Raises:
        StoreUnavailable: No connection within two seconds, or it was refused.

    """
    pool = ConnectionPool.from_url(
        url,
        protocol=2,
        client_name=name,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=CONNECT_TIMEOUT_S,
    )
    opened: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
    try:
        await opened.connect()  # type: ignore[no-untyped-call]  # as above
        # redis-py waits with `asyncio.wait_for`, which in Python 3.11 swallows a
        # cancellation that comes as it ends. A part that cannot be cancelled would
        # keep the process from stopping.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error
    except asyncio.CancelledError:
        await opened.disconnect(nowait=True)
        raise
    connection.adopt(opened)


class RedisConnection:
    """
    The process's way to the store. Safe to call from any number of tasks.

    It connects on the first call and again on the first call after a loss. A call made
    while the store is away fails at once; nothing is queued for later.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix:///path``, as redis-py reads it.
        name: What ``CLIENT LIST`` shows.
        timeout_s: A store that owes replies and says nothing for so long is given up:
            the connection is dropped, and what is under way fails.

    """

    def __init__(
        self, url: str, *, name: str = "streamer", timeout_s: float = 5.0
    ) -> None:
        self.url = url
        self._name = name
        self._timeout_s = timeout_s
        self._connection: RespConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: deque[_Packet] = deque()
        self._outstanding = 0
        self._last_reply_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.connects = 0
        """How often it has connected; another store may answer each time."""
        self.errors: Counter[str] = Counter()
        """
        Commands that failed: ``away`` were not done, of ``unknown`` ones nobody knows,
        and ``refused`` ones the store has answered with an error of theirs.
        """

    async def call(self, *command: str | bytes | int, write: bool = False) -> Reply:
        """
        Run one command and return its reply; strings come as bytes.

        Cancelling forgets the reply. It does not undo the command.

        Raises:
            StoreUnavailable: Nothing was done.
            OutcomeUnknown: `write` was set, and the command was sent without an answer.
            ResponseError: The store refused the command; nothing was done. A script
                that found its idempotency key in use gives a StoreConflict.

        """
        (reply,) = await self.call_many([command], write=write)
        return ok(reply)

    async def call_many(
        self, commands: Sequence[Command | Packed], *, write: bool = False
    ) -> list[Reply]:
        """
        Run commands in one packet, in order, not as a transaction.

        Returns their replies; one that failed is an exception in the list, of the
        classes that `call` raises.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        if not commands:
            return []
        return await self._exchange(commands, len(commands), write=write)

    async def run_prepared(self, prepared: Prepared) -> list[Reply]:
        """Run commands that write nothing; see `call_many`."""
        return await self._exchange(prepared, prepared.count, write=False)

    async def _exchange(
        self,
        commands: Sequence[Command | Packed] | Prepared,
        count: int,
        *,
        write: bool,
    ) -> list[Reply]:
        connection = await self._ready()
        if (
            connection is None
            or connection.closing
            or self._outstanding + count > PENDING_MAX
        ):
            self.errors["away"] += count
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        # First what may fail: a command that cannot be written must not leave a packet
        # behind that takes the replies of another.
        if isinstance(commands, Prepared):
            connection.send_packed(commands.packed)
        else:
            connection.send(*commands)
        packet = _Packet(count, loop.create_future())
        if not self._pending:
            self._last_reply_at_s = monotonic()
        self._pending.append(packet)
        self._outstanding += count
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._check_timeout)
        await packet.completed
        if not packet.has_failures:
            return packet.replies
        return [self._outcome(reply, write=write) for reply in packet.replies]

    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[str | bytes | int],
        *,
        write: bool = True,
    ) -> Reply:
        """Run one script; see `run_many`. Raises as `call` does."""
        (reply,) = await self.run_many([ScriptCall(script, keys, args)], write=write)
        return ok(reply)

    async def run_many(
        self,
        calls: Sequence[Call],
        *,
        write: bool = True,
        after: Sequence[Command | Packed] = (),
    ) -> list[Reply]:
        """
        Run scripts in one packet, in order; a failed one is an exception in the list.

        A store that does not know a script yet is sent its text. That is no repetition
        of a write: an unknown digest did nothing.

        Args:
            calls: The scripts.
            write: As for `call`.
            after: Commands that go behind the scripts, in the same packet, and again
                behind those that had to be sent as text. What they answered behind the
                last script ends the list.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        digests = [call.by_digest() for call in calls]
        replies = await self.call_many([*digests, *after], write=write)
        unknown = [
            i
            for i, reply in enumerate(replies)
            if isinstance(reply, ResponseError) and str(reply).startswith(_NO_SCRIPT)
        ]
        if not unknown:
            return replies
        texts = [calls[i].by_text() for i in unknown]
        try:
            again = await self.call_many([*texts, *after], write=write)
        except StoreUnavailable as error:
            # The others may have been carried out, so it is the failure of these alone.
            again = [error] * (len(texts) + len(after))
        behind = range(len(calls), len(replies))
        for i, reply in zip([*unknown, *behind], again, strict=True):
            replies[i] = reply
        return replies

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreUnavailable."""
        seconds, micros = await self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def close(self) -> None:
        """Drop the connection. Calls under way fail; a later call connects again."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()
            await asyncio.sleep(0)

    async def _ready(self) -> RespConnection | None:
        if self._connection is None:
            # Callers share one attempt. It belongs to none of them, so that one who is
            # cancelled does not take it from the others.
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._connect())
            await asyncio.wait([self._connecting])
        return self._connection

    async def _connect(self) -> None:
        connection = RespConnection(self._on_replies, self._on_lost)
        try:
            await connect(self.url, connection, name=self._name)
            self._connection = connection
            self.connects += 1
        except StoreUnavailable:
            pass  # Callers see `_connection` is None; all may have been cancelled.
        finally:
            self._connecting = None

    def _outcome(self, reply: Reply, *, write: bool) -> Reply:
        if reply is _INCOMPLETE:
            self.errors["unknown" if write else "away"] += 1
            return OutcomeUnknown() if write else StoreUnavailable()
        if isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if text.startswith(_UNAVAILABLE):
                self.errors["away"] += 1
                return StoreUnavailable(text)
            # A script that is sent again, as text, has not failed.
            self.errors["refused"] += not text.startswith(_NO_SCRIPT)
            return refusal(text)
        return reply

    def _on_replies(self, replies: list[Reply]) -> None:
        self._outstanding -= len(replies)
        self._last_reply_at_s = monotonic()
        taken = 0
        while taken < len(replies):
            packet = self._pending[0]
            taken += packet.add(replies, taken)
            if packet.is_complete:
                self._pending.popleft()

    def _on_lost(self) -> None:
        self._connection = None
        pending, self._pending = self._pending, deque()
        for packet in pending:
            self._outstanding -= packet.fail()

    def _check_timeout(self) -> None:
        # One timer for all calls. What counts is when the store was last heard: ten
        # thousand calls at once may well take longer than one may, and the store be
        # in the best of health. Dropping it then would fail all of them, and again.
        self._timer = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        left_s = self._last_reply_at_s + self._timeout_s - monotonic()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._check_timeout)
        else:
            # It may be this process that was busy. What has come is read first.
            self._timer = loop.call_later(
                TIMEOUT_GRACE_S, self._give_up, self._last_reply_at_s
            )

    def _give_up(self, last_reply_at_s: float) -> None:
        self._timer = None
        if self._pending and self._last_reply_at_s == last_reply_at_s:
            if self._connection is not None:
                self._connection.abort()
        else:
            self._check_timeout()
