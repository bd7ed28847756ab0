"""
One multiplexed connection to Redis.

Decides when a command may be sent, which caller a reply belongs to, and what a failure
means. Knows Redis replies and the two kinds of failure: nothing was done
(`StoreUnavailable`), and the outcome is unknown (`OutcomeUnknown`). Knows
nothing of apps and the meaning of scripts, and of keys only that all users of a
connection have the same ones. `cluster` has one such connection per primary.

Theory of operation. All commands of this process go over one socket, in the order of
the calls, and replies arrive in that order, so the only state is a queue of packets
with one future each. Commands that are issued in the same turn of the event loop travel
in one packet, except large ones, and share one fsync if the store syncs before it
replies. A connection pool would need a connection, a packet and a sync for each. The
packet of a cancelled caller stays in the queue, and its replies are dropped when they
arrive, so no caller ever gets the reply of another.

No command is sent twice. redis-py repeats a command up to ten times if the reply is
lost, which turns one append into several. Therefore only its connection setup is used
here (URL, sockets, TLS). A caller that wants to repeat a write has to make it
idempotent.

A store can move: its primary becomes a replica, and another server takes the writes.
Nothing closes the connection then. A reply that only such a server gives (``READONLY``,
for example) makes this connection leave it: calls fail until the replies on their way
have arrived, then the connection is closed, and the next call asks for the address
again and connects. The server may not have a successor yet, so this is repeated while
such replies arrive, once a second at most.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
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
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...errors import OutcomeUnknown, StoreFull, StoreUnavailable
from ...store_url import NAMESPACE, StoreUrl
from ..keys import keys_of
from .address import StoreAddress, address_of
from .commands import Call, Command, Packed, Script, ScriptCall, pack_all
from .damage import Damage
from .faults import StoreFaults
from .replies import Reply, ok, refusal
from .terms import Terms
from .unannounced import Unannounced, result_of

__all__ = [
    "FORBIDDEN",
    "FULL",
    "GATHERED_BYTES_MAX",
    "BackOff",
    "Command",
    "RedisConnection",
    "Reply",
    "RespConnection",
    "Script",
    "ScriptCall",
    "connect",
    "is_forbidden",
]


CONNECT_TIMEOUT_S: Final = 1.5
"""How long the socket may take to open, and how long the store to answer then."""

CONNECT_BACK_OFF_S: Final = (0.05, 1.0)
"""The first and the longest wait before another connect, while connects fail."""

LEAVE_BACK_OFF_S: Final = (0.05, 1.0)
"""The same before the next server is left, too, as one that takes no writes."""

WORDS_CHARS_MAX: Final = 200
"""Some errors of the store go on to explain every setting that could be changed."""

TIMEOUT_S: Final = 3.5
"""
How long replies may be overdue. A store that stops for longer, or a connection that
leads nowhere, is left; a node whose store is back serves within 5 s.
"""

TIMEOUT_GRACE_S: Final = 0.05
"""Enough for one turn of the event loop, which reads replies that have arrived."""

GATHERED_BYTES_MAX: Final = 4_096
"""
A larger command is sent at once, together with those that wait: the store takes
longer per byte to read a packet, the larger it is (bench.publish --batch=100).
"""

PENDING_MAX: Final = 50_000
"""Commands without a reply. At more, the store cannot keep up, and calls fail."""

# Error replies that say that this server cannot take writes, but another one may: it
# has become a replica, has lost its primary or its replicas, is starting, or takes
# another password now. Nothing was done.
_ELSEWHERE: Final = (
    "READONLY",
    "MASTERDOWN",
    "UNBLOCKED",
    "LOADING",
    "CLUSTERDOWN",
    "MOVED ",
    "ASK ",
    "NOREPLICAS",
    "NOAUTH",
)
FULL: Final = ("OOM", "MISCONF")
"""How the errors begin of a write for which there is no space. Reads go on."""

# Error replies that mean "not now, and nothing was done". The store gives them to a
# script before it starts, so they mean the same for scripts.
_UNAVAILABLE: Final = (
    *_ELSEWHERE,
    *FULL,
    "BUSY ",
    "TRYAGAIN",
)
FORBIDDEN: Final = ("NOPERM", "ERR unknown command")
"""
How the errors begin of a command that an access list, or the host of the store,
forbids. Nothing was done.
"""


def is_forbidden(error: Exception) -> bool:
    """Whether a call failed because the store forbids it, whatever it is for."""
    return isinstance(error, ResponseError) or (
        isinstance(error, StoreUnavailable) and error.words.startswith(FORBIDDEN)
    )


# An access list may refuse a command of a script after the script has written. Redis
# and Valkey have different words for it.
_REFUSED_IN_SCRIPT: Final = ("ERR The user executing the script", "ERR ACL failure")
_NO_MEMORY: Final = "OOM"
_NO_SCRIPT: Final = "NOSCRIPT"
_INCOMPLETE: Final = object()
_PLAIN: Final = {bytes}
"""The type of replies that are neither failures nor lists with a refusal in them."""


class _Packet:
    """Commands that were sent together, and the replies that have arrived."""

    __slots__ = ("completed", "has_failures", "missing", "replies")

    def __init__(self, count: int, completed: asyncio.Future[None]) -> None:
        self.missing = count
        """Number of replies that have not arrived."""
        self.completed = completed
        self.replies: list[Reply] = []
        self.has_failures = False
        """Whether some replies are errors or will never arrive."""

    def add(self, replies: list[Reply], first: int) -> int:
        """Add missing replies, beginning with `replies[first]`; return how many."""
        added = replies[first : first + self.missing]
        self.replies += added
        self.missing -= len(added)
        if hiredis.ReplyError in map(type, added):
            self.has_failures = True
        if not self.missing:
            self._wake()
        return len(added)

    def fail(self) -> int:
        """Complete the packet without its missing replies; return how many."""
        missing, self.missing = self.missing, 0
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
        self._closed: asyncio.Future[None] | None = None
        """Done when the socket is closed, None before there is one."""
        self._is_reading = True
        self.server = ""
        """The name of the server's run, new at its every start; "" if not known."""
        self._greeting: _Packet | None = None
        self._is_greeted = False
        self._unsent: list[Packed] = []
        """Commands of this turn of the event loop; they are written at its end."""

    def adopt(self, opened: AbstractConnection) -> None:
        """
        Take over the socket of a connection that redis-py has opened.

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
            raise StoreUnavailable(_CLOSED)
        transport.set_protocol(self)
        self._opened, self._transport = opened, transport
        self._closed = asyncio.get_running_loop().create_future()

    async def greet(self, commands: Sequence[Command]) -> list[Reply]:
        """
        Send the first commands and return their replies, error replies as values.

        No callback is called before `begin`.

        Raises:
            StoreUnavailable: The connection was lost before the replies were there.

        """
        completed = asyncio.get_running_loop().create_future()
        self._greeting = greeting = _Packet(len(commands), completed)
        self.send(*commands)
        await completed
        self._greeting = None
        if greeting.replies[-1] is _INCOMPLETE:
            first = greeting.replies[0]
            if isinstance(first, hiredis.ReplyError):
                return [first]  # It said why, and closed the connection.
            raise StoreUnavailable(_CLOSED)
        return greeting.replies

    def begin(self) -> None:
        """Call the callbacks from now on."""
        self._is_greeted = True

    @property
    def closing(self) -> bool:
        """Whether commands can no longer be sent; `on_lost` follows or was called."""
        return self._transport is None or self._transport.is_closing()

    def send(self, *commands: Command | Packed) -> None:
        """Send commands. On a lost connection, does nothing."""
        packed = pack_all(commands)
        self._unsent.append(packed)
        if len(packed) > GATHERED_BYTES_MAX:
            self._flush()
        elif len(self._unsent) == 1:
            # Transports write immediately, and a write costs more than its content. A
            # turn that resumes a hundred tasks issues a hundred commands.
            asyncio.get_running_loop().call_soon(self._flush)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies: list[Reply] = []
        try:
            # Those before one that cannot be read stay in the list.
            replies.extend(iter(self._reader.gets, _INCOMPLETE))
        except hiredis.ProtocolError:
            # Not a Redis, or one that expects TLS. What follows cannot be read either.
            self.abort()
        if replies and self._greeting is not None:
            self._greeting.add(replies, 0)
        elif replies and self._is_greeted:
            self._on_replies(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        if self._greeting is not None:
            self._greeting.fail()
        elif self._is_greeted:
            self._on_lost()

    def read(self, *, more: bool) -> None:
        """Read what the store sends, or leave it there until the next call."""
        if more is self._is_reading:
            return
        self._is_reading = more
        if self._transport is None or self._transport.is_closing():
            return
        if more:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def abort(self) -> None:
        """Drop the connection at once; `on_lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Drop the connection, and return when its socket is closed."""
        self.abort()
        if self._closed is not None:
            # Callers share the future, so a cancelled one must not cancel it.
            await asyncio.wait([self._closed])

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


_CLOSED: Final = (
    "the connection was closed before the store answered "
    "(is it Redis, and does it expect TLS?)"
)
_REFUSED_AT_ONCE: Final = {
    os.strerror(number) for number in (errno.ECONNREFUSED, errno.ENOENT)
}
"""No process listens. Another attempt costs nothing, and the store may be there."""

_NO_ANSWER: Final = f"no answer within {CONNECT_TIMEOUT_S:g} s"


async def connect(
    address: StoreAddress, connection: RespConnection, *, name: str
) -> None:
    """
    Connect, authenticate and hand the socket to `connection`.

    Args:
        address: Where to connect to.
        connection: Takes over the socket. Its callbacks are called from now on, if this
            returns.
        name: Name in ``CLIENT LIST``.

    Raises:
        StoreUnavailable: With the words of the store or of the system. The connection
            was refused, or took longer than `CONNECT_TIMEOUT_S`, or the store did.

    """
    url = await address.locate()
    pool = ConnectionPool(
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=CONNECT_TIMEOUT_S,
        # Its own greeting hides the store's words.
        redis_connect_func=_no_greeting,
        **_place(url),
    )
    opened: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # untyped in redis-py
    # With a unix socket it greets without asking that function.
    opened.on_connect = _no_greeting  # type: ignore[method-assign]
    try:
        await opened.connect()  # type: ignore[no-untyped-call]  # as above
        # redis-py uses `asyncio.wait_for`, which in Python 3.11 loses a cancellation
        # that arrives as it returns. A task that cannot be cancelled would keep the
        # process from stopping.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
    except (RedisError, OSError) as error:
        raise StoreUnavailable(_words(error), where=address.where) from error
    except asyncio.CancelledError:
        _discard(opened)
        raise
    try:
        connection.adopt(opened)
    except StoreUnavailable as error:
        _discard(opened)
        raise StoreUnavailable(error.words, where=address.where) from None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _greet(opened, connection, url.client_name or name)
        if connection.closing:
            raise StoreUnavailable(_CLOSED)
        connection.begin()
    except TimeoutError:
        await connection.close()
        raise StoreUnavailable(_NO_ANSWER, where=address.where) from None
    except StoreUnavailable as error:
        await connection.close()
        raise StoreUnavailable(error.words, where=address.where) from None
    except BaseException:
        await connection.close()
        raise


class _TlsConnection(SSLConnection):
    """Opens its socket before TLS, so that a connect that is cancelled closes it."""

    async def _connect(self) -> None:
        # With `ssl`, `asyncio.open_connection` forgets a socket if it is cancelled just
        # before the handshake, and does not wait for one if just after.
        arguments = dict(self._connection_arguments())
        context = arguments.pop("ssl")
        async with asyncio.timeout(self.socket_connect_timeout):
            reader, writer = await asyncio.open_connection(**arguments)
            transport = writer.transport
            try:
                await writer.start_tls(context, server_hostname=arguments["host"])
            except BaseException:
                transport.abort()
                raise
        self._reader, self._writer = reader, writer


def _discard(opened: AbstractConnection) -> None:
    """Drop the socket of a connection that redis-py has opened, if any."""
    # Not `disconnect`: with TLS that waits for the server to say goodbye. What is left
    # open, redis-py warns of when it is collected, in whichever task is running then.
    writer = opened._writer
    if writer is not None:
        writer.transport.abort()
        opened._reader = opened._writer = None


async def _no_greeting(opened: AbstractConnection | None = None) -> None:
    """Do nothing, in place of the commands that redis-py sends on connecting."""


async def _greet(
    opened: AbstractConnection, connection: RespConnection, name: str
) -> None:
    commands: list[Command] = []
    if opened.username or opened.password:
        user = (opened.username,) if opened.username else ()
        commands.append(("AUTH", *user, opened.password or ""))
    commands.append(("CLIENT", "SETNAME", name))
    if opened.db:
        commands.append(("SELECT", opened.db))
    commands.append(("INFO", "server"))
    replies = await connection.greet(commands)
    for (command, *_), reply in zip(commands, replies, strict=False):
        if isinstance(reply, hiredis.ReplyError):
            words = str(reply)
            # Names are a convenience, so an access list may forbid them.
            if command not in ("CLIENT", "INFO") or not words.startswith(FORBIDDEN):
                raise StoreUnavailable(words[:WORDS_CHARS_MAX])
        elif command == "INFO" and (run := _RUN_ID.search(reply)):
            connection.server = run[1].decode()


_RUN_ID: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


def _words(error: Exception) -> str:
    """Return why a socket could not be opened, in the words of the system."""
    # redis-py puts its own words around those of the cause.
    cause = error.__context__ if isinstance(error, RedisError) else error
    if isinstance(error, RedisTimeoutError) or isinstance(cause, TimeoutError):
        return _NO_ANSWER
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError | socket.gaierror):
        return cause.strerror or str(cause)
    if isinstance(cause, OSError):
        # A name with several addresses: asyncio joins the errors of all.
        numbers = [cause.errno] if cause.errno else _ERRNO.findall(str(cause))
        return os.strerror(int(numbers[0])) if numbers else str(cause)
    return str(error)


_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


def _place(url: StoreUrl) -> dict[str, Any]:
    """Return the arguments of redis-py that say where the store is, and who we are."""
    arguments: dict[str, Any] = {
        "db": url.database,
        "username": url.username or None,
        "password": url.password or None,
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
    return {"connection_class": _TlsConnection, **arguments, **tls}


class RedisConnection:
    """
    This process's connection to Redis. Any number of tasks may call it.

    It connects on the first call, and again on the first call after a loss. While Redis
    is unreachable calls fail at once; none is queued for later.

    Args:
        store: A URL that `store_url.parse_store_url` accepts, or an address.
        namespace: What every key and channel begins with.
        name: Name in ``CLIENT LIST``.
        timeout_s: If replies are due and none arrives for so long, the connection is
            dropped and pending calls fail.
        faults: Told when the store is unreachable or takes no commands.
        terms: Those of another connection of this process to the same store.

    """

    def __init__(
        self,
        store: str | StoreAddress,
        *,
        namespace: str = NAMESPACE,
        name: str = "streamer",
        timeout_s: float = TIMEOUT_S,
        faults: StoreFaults | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.address = address_of(store)
        """Asked at every connect."""
        self.keys = keys_of(namespace, self.address.database)
        """The names of keys and channels."""
        self.terms = terms or Terms()
        """What the deployment allows. A call that writes fails if it may not."""
        self._name = name
        self._timeout_s = timeout_s
        self._faults = faults
        self._connection: RespConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pending: deque[_Packet] = deque()
        self._outstanding = 0
        self._last_reply_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_leaving = False
        """Whether the connection is closed as soon as its replies have arrived."""
        self._words = ""
        """Why the last connect or the last call failed."""
        self._connect_back_off = BackOff(*CONNECT_BACK_OFF_S)
        self._leave_back_off = BackOff(*LEAVE_BACK_OFF_S)
        self.connects = 0
        """Number of connects. Each may have reached another server."""
        self.errors: Counter[str] = Counter()
        """
        Failed commands: ``away`` and ``full`` were not executed, because the store was
        unavailable or its memory full; ``unknown`` may have been; ``refused`` ones got
        an error reply of their own.
        """
        self.damage = Damage()
        """What is damaged in the store, as far as users of this connection met it."""
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
        classes that `call` raises. On a cluster there is one packet per primary, and
        the order is that of the commands of one slot.

        Raises:
            StoreUnavailable: None of them was sent.

        """
        if not commands:
            return []
        if write and self.terms.refusal:
            self._require_record(commands)
        count = len(commands)
        connection = self._connection
        if connection is None or self._is_leaving:
            connection = await self._ready()
        is_full = self._outstanding + count > PENDING_MAX
        if connection is None or connection.closing or is_full:
            if is_full:
                self._words = f"{self._outstanding} commands wait for a reply"
            self.errors["away"] += count
            raise self._unavailable(write=write)
        loop = asyncio.get_running_loop()
        # Encoding comes first, because it may fail. Otherwise a packet would be left in
        # the queue and take the replies of another.
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

    def _require_record(self, commands: Sequence[Command | Packed]) -> None:
        """
        Refuse writes, except for those of the record of the deployment.

        Raises StoreUnavailable, with the reason of the terms.
        """
        if not all(
            not isinstance(command, Packed) and self.keys.deployment in command
            for command in commands
        ):
            self.errors["away"] += len(commands)
            self.terms.require_writable(self.address.where)

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
        replies = await self._call_scripts(digests, after, write=write)
        if set(map(type, replies)) == _PLAIN:
            return replies
        unknown = [
            i
            for i, reply in enumerate(replies)
            if isinstance(reply, ResponseError) and str(reply).startswith(_NO_SCRIPT)
        ]
        if not unknown:
            return self._results(replies, len(calls))
        texts = [calls[i].by_text() for i in unknown]
        try:
            again = await self._call_scripts(texts, after, write=write)
        except StoreUnavailable as error:
            # The other scripts may have run, so only these have failed.
            again = [error] * (len(texts) + len(after))
        of_after = range(len(calls), len(replies))
        for i, reply in zip([*unknown, *of_after], again, strict=True):
            replies[i] = reply
        return self._results(replies, len(calls))

    def _call_scripts(
        self,
        scripts: Sequence[Command | Packed],
        after: Sequence[Command | Packed],
        *,
        write: bool,
    ) -> Coroutine[Any, Any, list[Reply]]:
        return self.call_many([*scripts, *after], write=write)

    def _results(self, replies: list[Reply], count: int) -> list[Reply]:
        """Return replies; the first `count`, of scripts, as results."""
        before = self.unannounced.count
        results = [
            # Hardly any other reply can have a refusal in it.
            result_of(reply, self.unannounced) if type(reply) is list else reply
            for reply in replies[:count]
        ]
        results += replies[count:]
        if self.unannounced.count != before:
            self._forbidden(self.unannounced.words)
        return results

    async def open(self) -> None:
        """Connect if not connected. Raises StoreUnavailable as a call does."""
        if await self._ready() is None:
            raise self._unavailable(write=False)

    async def servers(self) -> Sequence[RedisConnection]:
        """
        Return a connection to each server that has a part of the keys: this one.

        A command without a key, such as SCAN, is for one server. Raises
        StoreUnavailable.
        """
        return [self]

    async def replicas(self) -> Sequence[RedisConnection]:
        """
        Return a connection of the caller's to each replica of a cluster.

        A single server's are not known. Raises StoreUnavailable.
        """
        return []

    async def server_of(self, key: str) -> RedisConnection:
        """Return the connection to the server of a key. Raises StoreUnavailable."""
        return self

    def note_serving(self) -> None:
        """Report that this server, one of several, has replied."""

    async def now_ms(self) -> int:
        """Return the store's time. Raises StoreUnavailable."""
        seconds, micros = await self.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def close(self) -> None:
        """
        Drop the connection, and return when its socket is closed.

        Pending calls fail. A later call connects again.
        """
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        if self._connection is not None:
            await self._connection.close()

    @property
    def server(self) -> str:
        """The name of the run of the connected server; "" if not known."""
        return self._connection.server if self._connection is not None else ""

    def reconnect(self) -> None:
        """
        Close the connection when the replies on their way have arrived.

        Until then calls fail. The next one connects again, perhaps to another server.
        """
        if self._connection is not None:
            self._is_leaving = True
            self._close_if_left()

    async def _ready(self) -> RespConnection | None:
        if self._is_leaving:
            return None
        if self._connection is None:
            # Callers share one attempt, in a task of its own, so that cancelling one of
            # them does not cancel it for the others.
            # One that is cancelled before it begins does not tell of its end.
            if self._connecting is None or self._connecting.done():
                if self._connect_back_off.is_waiting:
                    return None
                self._connecting = asyncio.create_task(self._connect())
            await asyncio.wait([self._connecting])
        return self._connection

    async def _connect(self) -> None:
        connection = RespConnection(self._on_replies, self._on_lost)
        try:
            await connect(self.address, connection, name=self._name)
            self._connection = connection
            self._connect_back_off.reset()
            self.connects += 1
        except StoreUnavailable as error:
            # Callers see that `_connection` is None; all may have been cancelled.
            if error.words not in _REFUSED_AT_ONCE:
                self._connect_back_off.wait()
            self._report(error.words)
        finally:
            self._connecting = None

    def _unavailable(self, *, write: bool) -> StoreUnavailable:
        return StoreUnavailable(self._words, where=self.address.where, write=write)

    def _report(self, words: str) -> None:
        self._words = words
        if self._faults is not None:
            self._faults.unavailable(words)

    def _forbidden(self, text: str) -> None:
        self._words = text[:WORDS_CHARS_MAX]
        if self._faults is not None:
            self._faults.note_forbidden(self._words)

    def _outcome(self, reply: Reply, *, write: bool) -> Reply:
        if reply is _INCOMPLETE:
            self.errors["unknown" if write else "away"] += 1
            return OutcomeUnknown() if write else self._unavailable(write=False)
        if isinstance(reply, hiredis.ReplyError):
            return self._failure(str(reply), write=write)
        return reply

    def _failure(self, text: str, *, write: bool) -> Exception:
        """Return the exception for an error reply."""
        if text.startswith(FORBIDDEN):
            self.errors["away"] += 1
            self._forbidden(text)
            return self._unavailable(write=write)
        if text.startswith(_NO_MEMORY):
            self.errors["full"] += 1
            self._words = text[:WORDS_CHARS_MAX]
            return StoreFull(self._words, where=self.address.where, write=write)
        if text.startswith(_UNAVAILABLE):
            self.errors["away"] += 1
            self._words = text[:WORDS_CHARS_MAX]
            if not text.startswith(FULL):
                self._report(self._words)
            if text.startswith(_ELSEWHERE) and not self._leave_back_off.is_waiting:
                self._leave_back_off.wait()
                self.reconnect()
            return self._unavailable(write=write)
        if text.startswith(_REFUSED_IN_SCRIPT):
            self.errors["unknown" if write else "away"] += 1
            self._forbidden(text)
            return OutcomeUnknown() if write else self._unavailable(write=False)
        # A script that is sent again as text has not failed.
        self.errors["refused"] += not text.startswith(_NO_SCRIPT)
        return refusal(text)

    def _on_replies(self, replies: list[Reply]) -> None:
        self._outstanding -= len(replies)
        self._last_reply_at_s = monotonic()
        used = 0
        while used < len(replies):
            packet = self._pending[0]
            used += packet.add(replies, used)
            if not packet.missing:
                self._pending.popleft()
        if self._is_leaving:
            self._close_if_left()

    def _close_if_left(self) -> None:
        if not self._pending and self._connection is not None:
            self._connection.abort()

    def _on_lost(self) -> None:
        self._connection = None
        if not self._is_leaving:
            self._words = "the connection was lost"
        self._is_leaving = False
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
                self._report(f"no reply within {self._timeout_s:g} s")
                self._connection.abort()
        else:
            self._check_timeout()


class BackOff:
    """
    Waits that double while failures follow each other closely.

    Args:
        low_s: The first wait.
        high_s: The longest one. After as long again without a failure the next wait is
            the first.

    """

    __slots__ = ("_delay_s", "_high_s", "_low_s", "_until_s")

    def __init__(self, low_s: float, high_s: float) -> None:
        self._low_s, self._high_s = low_s, high_s
        self.reset()

    def reset(self) -> None:
        self._delay_s = self._low_s
        self._until_s = float("-inf")

    @property
    def is_waiting(self) -> bool:
        return monotonic() < self._until_s

    def wait(self) -> None:
        """Begin to wait."""
        now_s = monotonic()
        if now_s - self._until_s > 2 * self._high_s:
            self._delay_s = self._low_s
        self._until_s = now_s + self._delay_s
        self._delay_s = min(2 * self._delay_s, self._high_s)
