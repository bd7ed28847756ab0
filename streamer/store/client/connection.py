"""
One multiplexed connection to Redis.

Decides when a command may be sent, which caller a reply belongs to, and what a failure
means. Knows Redis replies and the two kinds of failure: nothing was done
(`StoreUnavailable`), and the outcome is unknown (`OutcomeUnknown`). Knows
nothing of apps and the meaning of scripts, and of keys only that all users of a
connection have the same ones.

Theory of operation. All commands of this process go over one socket, in the order of
the calls, and replies arrive in that order, so the only state is a queue of packets
with one future each. Commands that are issued in the same turn of the event loop travel
in one packet, except large ones, and share one fsync if the store syncs before it
replies. A connection pool would need a connection, a packet and a sync for each. The
packet of a cancelled caller stays in the queue, and its replies are dropped when they
arrive, so no caller ever gets the reply of another.

No command is sent twice. redis-py repeats a command up to ten times if the reply is
lost, which turns one append into several. Therefore only its connection setup is used
here (URL, TLS, authentication). A caller that wants to repeat a write has to make it
idempotent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from ...errors import OutcomeUnknown, StoreFull, StoreUnavailable
from ...store_url import NAMESPACE, StoreUrl, parse_store_url
from ..keys import keys_of
from .commands import Call, Command, Packed, Prepared, Script, ScriptCall, pack_all
from .replies import Reply, ok, refusal
from .unannounced import Unannounced, result_of

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
"""Enough for one turn of the event loop, which reads replies that have arrived."""

GATHERED_BYTES_MAX: Final = 4_096
"""
A larger command is sent at once, together with those that wait: the store takes
longer per byte to read a packet, the larger it is (bench.publish --batch=100).
"""

PENDING_MAX: Final = 50_000
"""Commands without a reply. At more, the store cannot keep up, and calls fail."""

# Error replies that mean "not now, and nothing was done". The store gives them to a
# script before it starts, so they mean the same for scripts.
_UNAVAILABLE: Final = (
    "LOADING",
    "BUSY ",
    "MISCONF",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
    "NOAUTH",
)
_FULL: Final = "OOM"
_NO_SCRIPT: Final = "NOSCRIPT"
_INCOMPLETE: Final = object()


class _Packet:
    """Commands that were sent together, and the replies that have arrived."""

    __slots__ = ("_count", "completed", "has_failures", "replies")

    def __init__(self, count: int, completed: asyncio.Future[None]) -> None:
        self._count = count
        self.completed = completed
        self.replies: list[Reply] = []
        self.has_failures = False
        """Whether some replies are errors or will never arrive."""

    def add(self, replies: list[Reply], first: int) -> int:
        """Add missing replies, beginning with `replies[first]`; return how many."""
        missing = self._count - len(self.replies)
        added = replies[first : first + missing]
        self.replies += added
        if hiredis.ReplyError in map(type, added):
            self.has_failures = True
        if len(added) == missing:
            self._wake()
        return len(added)

    @property
    def is_complete(self) -> bool:
        return len(self.replies) == self._count

    def fail(self) -> int:
        """Complete the packet without its missing replies; return how many."""
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
    An open connection: sends commands, parses replies, and never waits.

    Args:
        on_replies: Called with the replies that have arrived, in order. An error reply
            is a value.
        on_lost: Called once when the connection is lost.

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
        """Commands of this turn of the event loop; they are written at its end."""

    def adopt(self, opened: AbstractConnection) -> None:
        """
        Take over the socket of a connection that redis-py has set up.

        Raises:
            StoreUnavailable: The connection is lost already.

        """
        # redis-py has no public access to its transport. The tests of this module fail
        # if these attributes change.
        writer = opened._writer
        assert writer is not None
        transport = cast(asyncio.Transport, writer.transport)
        if transport.is_closing():
            # It was lost before this protocol was set, so `on_lost` would never come.
            raise StoreUnavailable
        transport.set_protocol(self)
        self._opened, self._transport = opened, transport

    @property
    def closing(self) -> bool:
        """Whether commands can no longer be sent; `on_lost` follows or was called."""
        return self._transport is None or self._transport.is_closing()

    def send(self, *commands: Command | Packed) -> None:
        """Send commands. On a lost connection, does nothing."""
        self.send_packed(pack_all(commands))

    def send_packed(self, packed: bytes) -> None:
        """Send commands that are encoded already; see `send`."""
        self._unsent.append(packed)
        if len(packed) > GATHERED_BYTES_MAX:
            self._flush()
        elif len(self._unsent) == 1:
            # Transports write immediately, and a write costs more than its content. A
            # turn that resumes a hundred tasks issues a hundred commands.
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
        # On a closing transport asyncio drops the data, too, but uvloop raises.
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _release(self) -> None:
        # The object of redis-py closes its transport when it is collected, and would
        # warn that this one is closed already.
        if self._opened is not None:
            self._opened._reader = self._opened._writer = None
            self._opened = None


async def connect(url: str, connection: RespConnection, *, name: str) -> None:
    """
    Connect, authenticate and hand the socket to `connection`.

    Raises:
        StoreUnavailable: The connection was refused, or took longer than 2 s.

    """
    pool = ConnectionPool(
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=CONNECT_TIMEOUT_S,
        **_place(parse_store_url(url), name),
    )
    opened: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
    try:
        await opened.connect()  # type: ignore[no-untyped-call]  # as above
        # redis-py uses `asyncio.wait_for`, which in Python 3.11 loses a cancellation
        # that arrives as it returns. A task that cannot be cancelled would keep the
        # process from stopping.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
    except (RedisError, OSError) as error:
        raise StoreUnavailable from error
    except asyncio.CancelledError:
        await opened.disconnect(nowait=True)
        raise
    try:
        connection.adopt(opened)
    except StoreUnavailable:
        # The object of redis-py would warn of an unclosed connection when it is
        # collected, in whichever task is running then.
        await opened.disconnect(nowait=True)
        raise


def _place(url: StoreUrl, name: str) -> dict[str, Any]:
    """Return the arguments of redis-py that say where the store is, and who we are."""
    arguments: dict[str, Any] = {
        "db": url.database,
        "username": url.username or None,
        "password": url.password or None,
        "client_name": url.client_name or name,
    }
    if url.scheme == "unix":
        return {
            "connection_class": UnixDomainSocketConnection,
            "path": url.path,
            **arguments,
        }
    arguments |= {"host": url.host, "port": url.port}
    if url.scheme == "redis":
        return {"connection_class": Connection, **arguments}
    tls: dict[str, Any] = dict(url.tls)
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"] == "true"
    return {"connection_class": SSLConnection, **arguments, **tls}


class RedisConnection:
    """
    This process's connection to Redis. Any number of tasks may call it.

    It connects on the first call, and again on the first call after a loss. While Redis
    is unreachable calls fail at once; none is queued for later.

    Args:
        url: A URL that `store_url.parse_store_url` accepts.
        namespace: What every key and channel begins with.
        name: Name in ``CLIENT LIST``.
        timeout_s: If replies are due and none arrives for so long, the connection is
            dropped and pending calls fail.

    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer",
        timeout_s: float = 5.0,
    ) -> None:
        self.url = url
        self.keys = keys_of(namespace, parse_store_url(url).database)
        """The names of keys and channels."""
        self._name = name
        self._timeout_s = timeout_s
        self._connection: RespConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: deque[_Packet] = deque()
        self._outstanding = 0
        self._last_reply_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.connects = 0
        """Number of connects. Each may have reached another server."""
        self.errors: Counter[str] = Counter()
        """
        Failed commands: ``away`` and ``full`` were not executed, because the store was
        unavailable or its memory full; ``unknown`` may have been; ``refused`` ones got
        an error reply of their own.
        """
        self.unannounced = Unannounced()
        """Scripts whose announcement was refused; all else that they did is done."""

    async def call(self, *command: str | bytes | int, write: bool = False) -> Reply:
        """
        Run one command and return its reply. Strings are bytes.

        If the caller is cancelled, the command is not undone; its reply is dropped.

        Raises:
            StoreUnavailable: Nothing was done; StoreFull if the store's memory is full.
            OutcomeUnknown: `write` is set, and no reply to the command arrived.
            ResponseError: The store refused the command; nothing was done. A script
                that found its idempotency key in use gives a StoreConflict.

        """
        (reply,) = await self.call_many([command], write=write)
        return ok(reply)

    async def call_many(
        self, commands: Sequence[Command | Packed], *, write: bool = False
    ) -> list[Reply]:
        """
        Run commands in one packet, in order, but not as a transaction.

        Returns their replies. A failed command is an exception in the list, of the
        classes that `call` raises.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        if not commands:
            return []
        return await self._exchange(commands, len(commands), write=write)

    async def run_prepared(self, prepared: Prepared) -> list[Reply]:
        """Run prepared commands, which only read; see `call_many`."""
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
        # Encoding comes first, because it may fail. Otherwise a packet would be left in
        # the queue and take the replies of another.
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
        Run scripts in one packet, in order. A failed one is an exception in the list.

        A script that the store does not know is sent again as text. That repeats no
        write: a call with an unknown digest does nothing. A script whose announcement
        was refused has not failed; it is counted in `unannounced`.

        Args:
            calls: The scripts.
            write: As for `call`.
            after: Commands that follow the scripts in the same packet, and follow again
                if scripts have to be sent as text. Their replies, those after the last
                script, end the list.

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
            return self._results(replies)
        texts = [calls[i].by_text() for i in unknown]
        try:
            again = await self.call_many([*texts, *after], write=write)
        except StoreUnavailable as error:
            # The other scripts may have run, so only these have failed.
            again = [error] * (len(texts) + len(after))
        of_after = range(len(calls), len(replies))
        for i, reply in zip([*unknown, *of_after], again, strict=True):
            replies[i] = reply
        return self._results(replies)

    def _results(self, replies: list[Reply]) -> list[Reply]:
        return [result_of(reply, self.unannounced) for reply in replies]

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreUnavailable."""
        seconds, micros = await self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def close(self) -> None:
        """Drop the connection. Pending calls fail; a later call connects again."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()
            await asyncio.sleep(0)

    async def _ready(self) -> RespConnection | None:
        if self._connection is None:
            # Callers share one attempt, in a task of its own, so that cancelling one of
            # them does not cancel it for the others.
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
            if text.startswith(_FULL):
                self.errors["full"] += 1
                return StoreFull(text)
            if text.startswith(_UNAVAILABLE):
                self.errors["away"] += 1
                return StoreUnavailable(text)
            # A script that is sent again as text has not failed.
            self.errors["refused"] += not text.startswith(_NO_SCRIPT)
            return refusal(text)
        return reply

    def _on_replies(self, replies: list[Reply]) -> None:
        self._outstanding -= len(replies)
        self._last_reply_at_s = monotonic()
        used = 0
        while used < len(replies):
            packet = self._pending[0]
            used += packet.add(replies, used)
            if packet.is_complete:
                self._pending.popleft()

    def _on_lost(self) -> None:
        self._connection = None
        pending, self._pending = self._pending, deque()
        for packet in pending:
            self._outstanding -= packet.fail()

    def _check_timeout(self) -> None:
        # One timer serves all calls. It measures the time since the last reply, not the
        # age of a call: ten thousand calls at once may take longer than the timeout
        # while the store works well, and dropping the connection would fail them all.
        self._timer = None
        if not self._pending:
            return
        loop = asyncio.get_running_loop()
        left_s = self._last_reply_at_s + self._timeout_s - monotonic()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._check_timeout)
        else:
            # This process may have been busy: read first what has arrived.
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
