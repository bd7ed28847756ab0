"""One connection for all callers: replies, failures and scripts."""

from __future__ import annotations

import asyncio
import datetime
import gc
import hashlib
import itertools
import logging
import os
import random
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import NoneType
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from streamer.errors import OutcomeUnknown, StoreFull, StoreUnavailable, Unavailable
from streamer.model import ZERO, Log, Player
from streamer.store.client import connection as connection_module
from streamer.store.client.address import FixedAddress
from streamer.store.client.commands import PackedCall, Script, ScriptCall, pack_args
from streamer.store.client.connection import (
    GATHERED_BYTES_MAX,
    RedisConnection,
    RespConnection,
    connect,
)
from streamer.store.client.faults import StoreFaults
from streamer.store.client.replies import StoreConflict
from streamer.store.logs.inbox import Inbox, Once
from streamer.store.server.embedded import Embedded
from streamer.store_url import StoreUrl, parse_store_url
from streamer_conformance.listener import Listener, Serve

from ...conftest import Until
from ...e2e.processes import free_port
from ..conftest import Proxy


class Text(Script):
    """A script with a text of the test."""

    def __init__(self, text: str) -> None:
        super().__init__("heartbeat")
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


COUNT = Text("return redis.call('INCR', KEYS[1])")


async def count_entries(redis: RedisConnection, log: Log) -> int:
    page = await Inbox(redis).page(log, count=100)
    assert page.entries is not None
    return len(page.entries)


# Replies.


async def test_replies_arrive_in_the_order_of_the_calls(redis: RedisConnection) -> None:
    replies = await asyncio.gather(
        *(redis.call("ECHO", str(number)) for number in range(500))
    )

    assert replies == [str(number).encode() for number in range(500)]


async def test_commands_of_one_turn_share_a_connection(redis: RedisConnection) -> None:
    ids = await asyncio.gather(*(redis.call("CLIENT", "ID") for _ in range(50)))

    assert len(set(ids)) == 1


class Counted:
    """A transport that counts its writes."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def test_commands_of_one_turn_are_written_at_once(redis: RedisConnection) -> None:
    await redis.call("PING")
    connection: Any = redis._connection
    counted = connection._transport = Counted(connection._transport)

    replies = await asyncio.gather(*(redis.call("ECHO", str(i)) for i in range(50)))

    assert replies == [str(i).encode() for i in range(50)]
    assert counted.writes == 1


async def test_a_large_command_is_sent_at_once_after_those_that_wait(
    redis: RedisConnection,
) -> None:
    await redis.call("PING")
    connection: Any = redis._connection
    counted = connection._transport = Counted(connection._transport)
    texts = ["small", "x" * GATHERED_BYTES_MAX, "smaller", "smallest"]

    replies = await asyncio.gather(*(redis.call("ECHO", text) for text in texts))

    assert replies == [text.encode() for text in texts]
    assert counted.writes == 2


async def test_unsent_commands_of_a_lost_connection_fail(
    redis: RedisConnection,
) -> None:
    await redis.call("PING")

    called = asyncio.create_task(redis.call("SET", "k", "v", write=True))
    await asyncio.sleep(0)
    redis._connection.abort()  # type: ignore[union-attr]

    with pytest.raises(OutcomeUnknown):
        await called
    assert await redis.call("GET", "k") is None


async def test_a_failed_command_is_an_item_of_the_list(redis: RedisConnection) -> None:
    replies = await redis.call_many([("ECHO", "a"), ("GET",), ("ECHO", "b")])

    assert (replies[0], replies[2]) == (b"a", b"b")
    assert isinstance(replies[1], ResponseError)
    with pytest.raises(ResponseError, match="wrong number"):
        await redis.call("GET")


async def test_an_empty_call_needs_no_store() -> None:
    redis = RedisConnection("unix:///nowhere")

    assert await redis.call_many([]) == []
    assert await redis.run_many([]) == []


async def turns(count: int) -> None:
    """Wait for `count` turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.row("A10")
async def test_a_cancelled_caller_never_gives_its_reply_to_another(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Cancels callers while all replies are held, and more while replies arrive.

    Callers are cancelled after so many turns of the loop, not after a time: on a slow
    machine as many are cancelled, and as many get their reply.
    """
    rng = random.Random(10)
    proxy.delay_s = lambda: rng.random() * 0.004
    redis = RedisConnection(proxy.url)

    async def call(number: int) -> None:
        token = f"{number}-{rng.random()}".encode()
        await turns(rng.randrange(4))  # In packets of their own, with their own delay.
        if number % 3:
            reply = await redis.call("ECHO", token)
        else:
            _, reply = await redis.call_many([("PING",), ("ECHO", token)])
            if isinstance(reply, StoreUnavailable):
                raise reply
        assert reply == token

    async def cancel(tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            await turns(rng.randrange(3))
            task.cancel()

    for batch in range(100):
        proxy.flowing.clear()
        tasks = [asyncio.create_task(call(number)) for number in range(30)]
        rng.shuffle(tasks)
        early, late, kept = tasks[:10], tasks[10:15], tasks[15:]
        await cancel(early)
        await turns(4)
        if is_cut := batch % 20 == 10:
            proxy.cut_all()
        proxy.flowing.set()
        await asyncio.wait(kept, return_when=asyncio.FIRST_COMPLETED)
        await cancel(late)
        await asyncio.wait(tasks)

        assert all(task.cancelled() for task in early)
        failures = [task.exception() for task in kept]
        failures += [task.exception() for task in late if not task.cancelled()]
        assert {type(it) for it in failures} == {
            StoreUnavailable if is_cut else NoneType
        }

    assert await redis.call("ECHO", "still in step") == b"still in step"
    await redis.close()
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


async def test_commands_beyond_the_bound_are_refused_until_replies_have_come(
    redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PENDING_MAX", 10)
    await redis.call("PING")
    refused = redis.errors["away"]
    pending = [asyncio.create_task(redis.call("ECHO", str(n))) for n in range(9)]
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailable):
        await redis.call_many([("PING",), ("PING",)])

    assert redis.errors["away"] == refused + 2
    pending.append(asyncio.create_task(redis.call("ECHO", "9")))
    assert await asyncio.gather(*pending) == [b"%d" % n for n in range(10)]
    assert await redis.call_many([("PING",)] * 10) == [b"PONG"] * 10


async def test_a_command_that_cannot_be_encoded_shifts_no_reply(
    redis: RedisConnection,
) -> None:
    assert await redis.call("ECHO", "before") == b"before"

    with pytest.raises(UnicodeEncodeError):
        await redis.call("ECHO", "\ud800")
    with pytest.raises((TypeError, ValueError)):
        await redis.call("ECHO", object())  # type: ignore[arg-type]

    assert await redis.call("ECHO", "after") == b"after"


# Failures.


async def test_calls_without_a_store_fail_at_once(tmp_path: Path) -> None:
    redis = RedisConnection(f"unix://{tmp_path}/no.sock")

    with pytest.raises(StoreUnavailable):
        await redis.call("PING")
    with pytest.raises(StoreUnavailable):
        await redis.call("SET", "k", "v", write=True)


async def test_all_callers_of_a_failed_connect_fail(tmp_path: Path) -> None:
    redis = RedisConnection(f"unix://{tmp_path}/no.sock")

    outcomes = await asyncio.gather(
        *(redis.call("PING") for _ in range(5)), return_exceptions=True
    )

    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)


async def test_a_failed_connect_without_callers_logs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redis = RedisConnection(f"unix://{tmp_path}/no.sock")
    call = asyncio.create_task(redis.call("PING"))
    await asyncio.sleep(0)
    assert redis._connecting is not None
    attempt = redis._connecting
    call.cancel()
    await asyncio.wait([call, attempt])
    del call, attempt

    gc.collect()
    assert not [r for r in caplog.records if "never retrieved" in r.getMessage()]


async def test_a_cancelled_caller_does_not_cancel_the_connect(
    redis: RedisConnection,
) -> None:
    first = asyncio.create_task(redis.call("ECHO", "a"))
    second = asyncio.create_task(redis.call("ECHO", "b"))
    await asyncio.sleep(0)
    first.cancel()

    assert await second == b"b"


async def test_a_lost_reply_makes_a_write_unknown_and_a_read_unavailable(
    proxy: Proxy,
) -> None:
    redis = RedisConnection(proxy.url)
    await redis.call("PING")
    proxy.cut = lambda asked, reply: b"LOST" in asked

    with pytest.raises(OutcomeUnknown):
        await redis.call("SET", "LOST", "v", write=True)
    with pytest.raises(StoreUnavailable):
        await redis.call("GET", "LOST")

    assert await redis.call("EXISTS", "LOS" + "T".lower()) == 0
    proxy.cut = lambda asked, reply: False
    assert await redis.call("GET", "LOST") == b"v"
    await redis.close()


async def test_pending_calls_fail_with_the_connection(proxy: Proxy) -> None:
    redis = RedisConnection(proxy.url)
    await redis.call("PING")
    proxy.flowing.clear()
    calls = [
        asyncio.create_task(redis.call("PING", write=n % 2 == 0)) for n in range(6)
    ]
    await asyncio.sleep(0)

    proxy.cut_all()

    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(o) for o in outcomes] == [OutcomeUnknown, StoreUnavailable] * 3
    proxy.flowing.set()
    assert await redis.call("ECHO", "again") == b"again"
    await redis.close()


async def test_a_read_of_the_inbox_is_unavailable_if_its_reply_is_lost(
    proxy: Proxy, log: Log
) -> None:
    redis = RedisConnection(proxy.url)
    inbox = Inbox(redis)
    await inbox.append(log, [b"x"])
    await inbox.page(log, count=1)
    proxy.cut = lambda asked, reply: b"EVAL" in asked

    with pytest.raises(StoreUnavailable):
        await inbox.page(log, count=1)
    with pytest.raises(StoreUnavailable):
        await inbox.read_after(log, ZERO, count=1)
    with pytest.raises(OutcomeUnknown):
        await inbox.mark_all(log)
    await redis.close()


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.row("A9")
async def test_an_append_with_a_key_is_one_entry_if_replies_are_lost(
    proxy: Proxy, log: Log, lost: int
) -> None:
    redis = RedisConnection(proxy.url)
    inbox = Inbox(redis)
    await inbox.append(Log(log.app, log.player), [b"warm"])
    proxy.cut = lambda asked, reply: b"digest" in asked and proxy.cuts < lost
    unknown = 0
    while True:
        try:
            appended = await inbox.append(log, [b"x"], once=Once("key", "digest"))
            break
        except OutcomeUnknown:
            unknown += 1

    assert unknown == lost == proxy.cuts
    assert appended.replayed
    assert appended.stored[0].offset == 2
    assert await count_entries(redis, log) == 2
    await redis.close()


@pytest.mark.row("A9")
async def test_an_append_without_a_key_is_sent_once(proxy: Proxy, log: Log) -> None:
    redis = RedisConnection(proxy.url)
    inbox = Inbox(redis)
    await inbox.append(log, [b"warm"])
    proxy.cut = lambda asked, reply: b"LOST" in asked

    with pytest.raises(OutcomeUnknown):
        await inbox.append(log, [b"LOST"])

    proxy.cut = lambda asked, reply: False
    assert await count_entries(redis, log) == 2
    await redis.close()


async def test_a_stopped_server_times_out(
    start_store: Callable[[], Awaitable[Embedded]],
) -> None:
    store = await start_store()
    redis = RedisConnection(store.url, timeout_s=1)
    await redis.call("PING")
    os.kill(store.pid, signal.SIGSTOP)
    try:
        outcomes = await asyncio.gather(
            redis.call("PING"),
            redis.call("SET", "k", "v", write=True),
            return_exceptions=True,
        )
    finally:
        os.kill(store.pid, signal.SIGCONT)

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, OutcomeUnknown]
    assert await redis.call("ECHO", "back") == b"back"
    await redis.close()


async def test_later_calls_do_not_extend_the_timeout(proxy: Proxy) -> None:
    # The timeout counts from the last reply, so further calls do not extend it.
    redis = RedisConnection(proxy.url, timeout_s=1)
    await redis.call("PING")
    proxy.flowing.clear()

    calls = [asyncio.create_task(redis.call("PING"))]
    while not calls[0].done():
        calls.append(asyncio.create_task(redis.call("PING")))
        await asyncio.wait(calls[:1], timeout=0.05)

    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, StoreUnavailable) for outcome in outcomes)
    await redis.close()


async def test_the_connection_reconnects(proxy: Proxy) -> None:
    redis = RedisConnection(proxy.url)
    for _ in range(5):
        assert await redis.call("ECHO", "x") == b"x"
        proxy.cut_all()
        with pytest.raises(StoreUnavailable):
            while True:
                await redis.call("PING")
    await proxy.close()
    with pytest.raises(StoreUnavailable):
        await redis.call("PING")

    await proxy.open()

    assert await redis.call("ECHO", "x") == b"x"
    await redis.close()


async def test_closing_fails_pending_calls(proxy: Proxy) -> None:
    redis = RedisConnection(proxy.url)
    await redis.call("PING")
    proxy.flowing.clear()
    call = asyncio.create_task(redis.call("SET", "k", "v", write=True))
    await asyncio.sleep(0)

    await redis.close()

    with pytest.raises(OutcomeUnknown):
        await call


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Greet, and reply to every PING."""
    await reader.read(65_536)
    writer.write(b"+OK\r\n$0\r\n\r\n")
    while packet := await reader.read(65_536):
        writer.write(b"+PONG\r\n" * packet.count(b"PING"))


def sockets_to(port: int) -> int:
    """Return how many sockets of this process are connected to a port."""
    count = 0
    for name in os.listdir("/dev/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as each:
                count += each.family == socket.AF_INET and (
                    each.getpeername()[1] == port
                )
        except OSError:
            pass  # It listens, or was the list of these files.
    return count


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_connection_is_closed_however_young_it_is(
    scheme: str, tmp_path: Path
) -> None:
    """From its first call on, one iteration of the event loop more each time."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if scheme == "rediss" else None
    if tls is not None:
        tls.load_cert_chain(write_certificate(tmp_path))
    async with Listener(greet, tls=tls) as listener:
        port = listener.port
        options = "?ssl_cert_reqs=none" if tls else ""
        for steps in itertools.count(1):
            redis = RedisConnection(f"{scheme}://127.0.0.1:{port}{options}")
            calls = [asyncio.create_task(redis.call("PING")) for _ in range(3)]
            for _ in range(steps):
                await asyncio.sleep(0)

            await redis.close()

            # The loop stops here: what is open now, nobody closes any more.
            assert sockets_to(port) == 0, steps
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            if outcomes == [b"PONG"] * 3:
                break
            assert all(isinstance(it, StoreUnavailable) for it in outcomes), steps
            # A call that begins after the end connects again.
            assert await redis.call("PING") == b"PONG"
            await redis.close()


# Scripts.


async def test_an_unknown_script_is_sent_as_text(
    redis: RedisConnection,
) -> None:
    assert await redis.run(COUNT, ["n"], []) == 1
    assert await redis.run(COUNT, ["n"], []) == 2
    await redis.call("SCRIPT", "FLUSH")

    assert await redis.run(COUNT, ["n"], []) == 3
    replies = await redis.run_many([ScriptCall(COUNT, ["n"], [])] * 3)

    assert replies == [4, 5, 6]


async def test_a_packed_call_equals_a_plain_one(
    redis: RedisConnection,
) -> None:
    texts = ("", "ü", b"\xff\r\n", 7)
    packed = pack_args(2, "k", "l") + pack_args(*texts)
    call = PackedCall(Text("return {KEYS, ARGV}"), 7, packed)

    for _ in ("as text", "by its digest"):
        (reply,) = await redis.run_many([call])
        assert reply == [[b"k", b"l"], [b"", "ü".encode(), b"\xff\r\n", b"7"]]


async def test_a_script_that_could_not_be_sent_as_text_is_unavailable(
    proxy: Proxy,
) -> None:
    redis = RedisConnection(proxy.url)
    await redis.call("SCRIPT", "FLUSH")
    asked_text = False

    def cut(asked: bytes, reply: bytes) -> bool:
        nonlocal asked_text
        if b"NOSCRIPT" in reply:
            # The reply arrives, and then the connection is lost.
            asyncio.get_running_loop().call_soon(proxy.cut_all)
        asked_text |= b"\r\nEVAL\r\n" in asked
        return False

    proxy.cut = cut
    replies = await redis.run_many([ScriptCall(COUNT, ["n"], [])])

    assert isinstance(replies[0], Unavailable | int)
    await redis.close()


async def test_a_known_script_keeps_its_reply_if_another_is_unknown(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = RedisConnection(proxy.url)
    await redis.run(COUNT, ["n"], [])
    unknown = Text("return redis.call('INCR', KEYS[1]) + 100")
    whole = redis.call_many

    async def away_for_texts(commands: Any, *, write: bool = False) -> Any:
        if commands[0][0] == "EVAL":
            raise StoreUnavailable
        return await whole(commands, write=write)

    monkeypatch.setattr(redis, "call_many", away_for_texts)

    done, failed = await redis.run_many(
        [ScriptCall(COUNT, ["n"], []), ScriptCall(unknown, ["n"], [])]
    )

    assert done == 2
    assert isinstance(failed, StoreUnavailable)
    await redis.close()


# Error replies.


@pytest.mark.parametrize(
    "refusal",
    [
        "LOADING the dataset",
        "OOM command not allowed",
        "MISCONF errors writing",
        "READONLY replica",
        "MASTERDOWN link",
        "BUSY running a script",
        "NOREPLICAS not enough",
        "CLUSTERDOWN the slot",
        "TRYAGAIN later",
    ],
)
async def test_a_temporary_refusal_is_unavailable(
    redis: RedisConnection, refusal: str
) -> None:
    fails = Text(f"return redis.error_reply('{refusal}')")

    with pytest.raises(StoreUnavailable):
        await redis.run(fails, [], [])


@pytest.mark.parametrize(
    "refusal", ["ERR no", "WRONGTYPE", "BUSYKEY x", "ERR CONFLICT of another kind"]
)
async def test_any_other_refusal_is_a_response_error(
    redis: RedisConnection, refusal: str
) -> None:
    fails = Text(f"return redis.error_reply('{refusal}')")

    with pytest.raises(ResponseError) as raised:
        await redis.run(fails, [], [])
    assert type(raised.value) is ResponseError


async def test_a_conflict_has_a_class_of_its_own_on_every_store(any_store: str) -> None:
    redis = RedisConnection(any_store)

    with pytest.raises(StoreConflict):
        await redis.run(Text("return redis.error_reply('CONFLICT')"), [], [])
    await redis.close()


@pytest.mark.row("F13")
async def test_a_full_store_refuses_appends_and_accepts_marks(
    start_store: Callable[[], Awaitable[Embedded]], log: Log
) -> None:
    store = await start_store()
    redis = RedisConnection(store.url)
    inbox = Inbox(redis)
    new = Log(log.app, Player("new"))
    await inbox.append(log, [b"first"])
    await redis.call("CONFIG", "SET", "maxmemory", "1")
    before = await redis.call("DBSIZE")

    for target in (log, new):
        for once in (None, Once("k", "digest")):
            with pytest.raises(StoreFull):
                await inbox.append(target, [b"x", b"y"], once=once)
    await inbox.mark_all(log)
    page = await inbox.page(log, count=10)

    # Marks are stored in two more keys, and nothing of the appends.
    assert await redis.call("DBSIZE") == before + 2
    assert redis.errors["full"] == 4
    assert page.entries is not None
    assert [entry.entry.fragment for entry in page.entries] == [b"first"]
    assert page.unread == 0
    await redis.call("CONFIG", "SET", "maxmemory", "0")
    assert (await inbox.append(new, [b"x"])).stored[0].offset == 1
    assert (await inbox.append(log, [b"x"])).stored[0].offset == 2
    await redis.close()


# A store that moves.


class Moved:
    """An address that a test changes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = 0

    @property
    def where(self) -> str:
        return parse_store_url(self.url).place

    @property
    def database(self) -> int:
        return parse_store_url(self.url).database

    async def locate(self) -> StoreUrl:
        self.asked += 1
        return await FixedAddress(self.url).locate()


@pytest.fixture
async def successor(tmp_path: Path, store_binary: Path) -> AsyncIterator[Embedded]:
    store = await Embedded.start(tmp_path / "successor", binary=store_binary)
    yield store
    await store.stop()


async def test_a_demoted_primary_is_left_for_its_successor(
    start_store: Callable[[], Awaitable[Embedded]], successor: Embedded, until: Until
) -> None:
    store = await start_store()
    address = Moved(store.url)
    redis = RedisConnection(address)
    await redis.call("SET", "k", "old", write=True)
    # No connection is closed by this.
    await redis.call("REPLICAOF", "127.0.0.1", "1")
    address.url = successor.url

    with pytest.raises(StoreUnavailable) as refused:
        await redis.call("SET", "k", "new", write=True)

    assert refused.value.words.startswith("READONLY")
    await until(lambda: redis._connection is None)
    await redis.call("SET", "k", "new", write=True)
    assert await redis.call("GET", "k") == b"new"
    assert (redis.connects, address.asked) == (2, 2)
    await redis.close()


async def test_a_server_is_left_after_the_replies_on_their_way(
    start_store: Callable[[], Awaitable[Embedded]],
) -> None:
    store = await start_store()
    redis = RedisConnection(store.url)
    await redis.call("SET", "k", "v", write=True)
    await redis.call("REPLICAOF", "127.0.0.1", "1")
    await redis.call("CONFIG", "SET", "replica-serve-stale-data", "yes")

    outcomes = await asyncio.gather(
        redis.call("SET", "k", "w", write=True),
        *(redis.call("GET", "k") for _ in range(100)),
        return_exceptions=True,
    )

    assert isinstance(outcomes[0], StoreUnavailable)
    assert outcomes[1:] == [b"v"] * 100
    await redis.close()


async def test_a_replica_without_a_successor_is_left_seldom(
    start_store: Callable[[], Awaitable[Embedded]],
    monkeypatch: pytest.MonkeyPatch,
    until: Until,
) -> None:
    monkeypatch.setattr(connection_module, "LEAVE_BACK_OFF_S", (60.0, 60.0))
    store = await start_store()
    redis = RedisConnection(store.url)
    await redis.call("REPLICAOF", "127.0.0.1", "1")

    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            await redis.call("SET", "k", "v", write=True)
        await until(lambda: not redis._is_leaving)

    assert redis.connects == 2
    await redis.close()


async def test_a_restarted_server_has_another_name(
    start_store: Callable[[], Awaitable[Embedded]],
) -> None:
    store = await start_store()
    redis = RedisConnection(store.url)
    assert redis.server == ""
    await redis.call("PING")
    before = redis.server
    await redis.close()
    await redis.call("PING")
    assert redis.server == before != ""
    await store.stop()

    await start_store()
    await redis.call("PING")

    assert redis.server not in ("", before)
    await redis.close()


# A store that refuses.


@pytest.fixture
async def guarded(any_store: str) -> AsyncIterator[tuple[str, RedisConnection]]:
    """Yield the URL of a user with every right, and a connection that changes them."""
    owner = RedisConnection(any_store)
    rights = ("on", ">secret", "~*", "&*", "+@all")
    await owner.call("ACL", "SETUSER", "guest", "reset", *rights)
    yield any_store.replace("unix://", "unix://guest:secret@"), owner
    await owner.call("ACL", "DELUSER", "guest")
    await owner.close()


async def words_of(redis: RedisConnection) -> str:
    with pytest.raises(StoreUnavailable) as refused:
        await redis.call("GET", "k")
    return refused.value.words


async def test_a_wrong_password_is_told_in_the_words_of_the_store(
    guarded: tuple[str, RedisConnection],
) -> None:
    url, _ = guarded
    redis = RedisConnection(url.replace("secret", "wrong"))

    with pytest.raises(StoreUnavailable) as refused:
        await redis.call("GET", "k")

    assert refused.value.words.startswith("WRONGPASS")
    assert refused.value.reason.startswith(
        f"the store at {parse_store_url(url).place} is unavail"
    )
    assert str(refused.value) == "the store is unavailable"


async def test_a_missing_password_is_told_in_the_words_of_the_store(
    start_store: Callable[[], Awaitable[Embedded]],
) -> None:
    store = await start_store()
    owner = RedisConnection(store.url)
    await owner.call("CONFIG", "SET", "requirepass", "secret")

    assert await words_of(RedisConnection(store.url)) == (
        "NOAUTH Authentication required."
    )

    await owner.call("CONFIG", "SET", "requirepass", "")
    await owner.close()


async def test_a_database_that_does_not_exist_is_told(any_store: str) -> None:
    redis = RedisConnection(f"{any_store}?db=99")

    assert "DB index is out of range" in await words_of(redis)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("unix:///nowhere/valkey.sock", "No such file or directory"),
        ("redis://127.0.0.1:1", "Connection refused"),
        ("redis://localhost:1", "Connection refused"),
    ],
)
async def test_an_address_without_a_server_is_told(url: str, words: str) -> None:
    assert await words_of(RedisConnection(url)) == words


async def answer_as_http(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    await reader.read()
    writer.transport.abort()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


async def stay_silent(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await reader.read()
    writer.transport.abort()


async def be_full(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"-ERR max number of clients reached\r\n")
    writer.close()


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (answer_as_http, "is it Redis"),
        (hang_up, "closed before the store answered"),
        (stay_silent, "no answer within"),
        (be_full, "ERR max number of clients reached"),
    ],
)
async def test_a_server_that_does_not_greet_is_told(serve: Serve, words: str) -> None:
    async with Listener(serve) as listener:
        url = f"redis://127.0.0.1:{listener.port}"
        assert words in await words_of(RedisConnection(url))


async def test_a_certificate_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(write_certificate(tmp_path))

    async with Listener(stay_silent, tls=tls) as listener:
        redis = RedisConnection(f"rediss://127.0.0.1:{listener.port}")

        assert await words_of(redis) == (
            "certificate verify failed: self-signed certificate"
        )


def write_certificate(folder: Path) -> Path:
    """Write a certificate that nobody has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "store.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


async def test_a_store_that_refuses_is_asked_seldom(
    guarded: tuple[str, RedisConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_BACK_OFF_S", (60.0, 60.0))
    url, _ = guarded
    address = Moved(url.replace("secret", "wrong"))
    redis = RedisConnection(address)

    for _ in range(50):
        assert (await words_of(redis)).startswith("WRONGPASS")

    assert address.asked == 1


@pytest.mark.parametrize("write", [True, False])
async def test_a_forbidden_command_was_not_done(
    guarded: tuple[str, RedisConnection], *, write: bool
) -> None:
    url, owner = guarded
    await owner.call("ACL", "SETUSER", "guest", "-set")
    faults = StoreFaults()
    redis = RedisConnection(url, faults=faults)

    with pytest.raises(StoreUnavailable) as refused:
        await redis.call("SET", "k", "v", write=write)

    assert refused.value.words.startswith("NOPERM")
    assert faults.forbidden == 1
    assert ("nothing was stored" in str(refused.value)) == write
    await redis.close()


@pytest.mark.parametrize(
    ("write", "error"), [(True, OutcomeUnknown), (False, StoreUnavailable)]
)
async def test_the_outcome_of_a_script_with_a_forbidden_command_is_unknown(
    guarded: tuple[str, RedisConnection], *, write: bool, error: type[Exception]
) -> None:
    url, owner = guarded
    await owner.call("ACL", "SETUSER", "guest", "-hset")
    faults = StoreFaults()
    redis = RedisConnection(url, faults=faults)
    halves = Text("redis.call('SET', KEYS[1], 1) redis.call('HSET', KEYS[2], 'a', 1)")

    with pytest.raises(error):
        await redis.run(halves, ["half", "other"], [], write=write)

    assert faults.forbidden == 1
    await owner.call("DEL", "half")
    await redis.close()


async def test_a_name_in_the_list_of_clients_may_be_forbidden(
    guarded: tuple[str, RedisConnection],
) -> None:
    url, owner = guarded
    await owner.call("ACL", "SETUSER", "guest", "-client", "-info")
    redis = RedisConnection(url)

    assert await redis.call("ECHO", "served") == b"served"
    assert redis.server == ""
    await redis.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://{host}",
        "REDIS://{host}/3",
        "valkey://default@{host}",
        "redis://:@{host}?db=3&client_name=test",
    ],
)
async def test_every_form_of_a_url_connects(any_store: str, url: str) -> None:
    port = free_port()
    unix = RedisConnection(any_store)
    await unix.call("CONFIG", "SET", "port", port)
    redis = RedisConnection(url.format(host=f"127.0.0.1:{port}"))

    client = await redis.call("CLIENT", "INFO")
    await redis.close()
    await unix.call("CONFIG", "SET", "port", 0)
    await unix.close()

    assert (b" db=3 " in client) is ("3" in url.partition("}")[2])
    assert (b" name=test " in client) is ("client_name" in url)


async def test_a_socket_can_have_a_database_and_a_user(
    store_url: str, redis: RedisConnection
) -> None:
    path = store_url.removeprefix("unix://")
    # A password with every character that has a meaning in a URL.
    secret = "p@/?#% :w"
    await redis.call("ACL", "SETUSER", "guest", "on", f">{secret}", "+@all", "~*")
    guest = RedisConnection(f"unix://guest:{quote(secret, safe='')}@{path}?db=2")

    client = await guest.call("CLIENT", "INFO")
    await guest.close()
    await redis.call("ACL", "DELUSER", "guest")

    assert b" db=2 " in client
    assert b" user=guest " in client


async def test_every_option_for_tls_reaches_a_connection() -> None:
    # Nobody listens: an option that redis-py does not take would raise a TypeError.
    options = (
        "ssl_ca_certs=/c&ssl_ca_path=/d&ssl_certfile=/e&ssl_keyfile=/f&"
        "ssl_cert_reqs=none&ssl_check_hostname=false"
    )
    redis = RedisConnection(f"valkeys://127.0.0.1:{free_port()}?{options}")

    with pytest.raises(StoreUnavailable):
        await redis.call("PING")


async def test_a_connection_that_is_lost_before_it_is_adopted_is_closed(
    store_url: str,
) -> None:
    """Otherwise redis-py warns when it is collected, in a task that did nothing."""
    opened: list[AbstractConnection] = []

    class Losing(RespConnection):
        def adopt(self, connection: AbstractConnection) -> None:
            opened.append(connection)
            assert connection._writer is not None
            connection._writer.transport.abort()
            super().adopt(connection)

    losing = Losing(lambda replies: None, lambda: None)

    with pytest.raises(StoreUnavailable):
        await connect(FixedAddress(store_url), losing, name="test")

    assert not opened[0].is_connected


def test_replies_before_one_that_cannot_be_read_are_passed_on() -> None:
    replies: list[Any] = []
    connection = RespConnection(replies.extend, lambda: None)
    connection.begin()

    connection.data_received(b"+a\r\n*2\r\n:1\r\n:2\r\n!no reply\r\n+b\r\n")

    assert replies == [b"a", [1, 2]]
