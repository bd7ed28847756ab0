"""Writes that replicas confirm, with a real primary and a real replica."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from streamer.errors import OutcomeUnknown, StoreUnavailable
from streamer.model import App, Log, Player
from streamer.store.client.connection import RedisConnection
from streamer.store.client.replicated import Replicated
from streamer.store.client.replies import StoreConflict
from streamer.store.logs.inbox import Inbox, Once
from tests.e2e.processes import free_port

GUARD_S = 60
TIMEOUT_MS = 1_500
LOG = Log(App("app"), Player("ann"))
ONCE = Once("key", "digest")

Node = Callable[..., Inbox]


class Pair(NamedTuple):
    """A primary and the process of its replica."""

    url: str
    replica: int

    def stop_replica(self) -> None:
        os.kill(self.replica, signal.SIGSTOP)

    def continue_replica(self) -> None:
        os.kill(self.replica, signal.SIGCONT)


@pytest.fixture(scope="module")
def servers(
    store_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    port, processes = free_port(), []
    more = {port: (), free_port(): ("--replicaof", "127.0.0.1", str(port))}
    for listen, options in more.items():
        folder = tmp_path_factory.mktemp("store")
        command = (
            *(str(store_binary), "--port", str(listen), "--dir", str(folder)),
            *("--save", "", "--repl-diskless-sync-delay", "0", *options),
        )
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    primary, replica = processes
    yield Pair(f"redis://127.0.0.1:{port}", replica.pid)
    for process in (replica, primary):
        process.kill()
        process.wait()


@pytest.fixture
async def pair(servers: Pair) -> AsyncIterator[Pair]:
    """Give an empty primary with a replica that keeps up."""
    servers.continue_replica()
    redis = RedisConnection(servers.url)
    async with asyncio.timeout(GUARD_S):
        while not await in_step(redis):  # noqa: ASYNC110  # nobody announces it
            await asyncio.sleep(0.01)
    yield servers
    servers.continue_replica()
    await redis.close()


async def in_step(redis: RedisConnection) -> bool:
    try:
        await redis.call("FLUSHALL")
        return bool(await redis.call("WAIT", 1, 100) == 1)
    except StoreUnavailable:
        return False


@pytest.fixture
async def node(pair: Pair) -> AsyncIterator[Node]:
    """Give a function that creates an inbox with connections of its own."""
    connections: list[RedisConnection] = []

    def make(replicas_min: int = 1) -> Inbox:
        connections.extend((RedisConnection(pair.url), RedisConnection(pair.url)))
        confirmed = Replicated(
            connections[-1], replicas_min=replicas_min, timeout_ms=TIMEOUT_MS
        )
        return Inbox(connections[-2], confirmed=confirmed)

    yield make
    for redis in connections:
        await redis.close()


async def stored(inbox: Inbox) -> int:
    page = await inbox.page(LOG, count=100)
    return len(page.entries or ())


async def test_an_append_that_a_replica_confirms_is_acknowledged(node: Node) -> None:
    inbox = node()

    appended = await inbox.append(LOG, [b'"title":"a"}'])

    assert appended.stored[0].offset == 1
    assert await stored(inbox) == 1


async def test_an_append_without_confirmation_is_unknown_and_repeatable(
    pair: Pair, node: Node
) -> None:
    inbox = node()
    await inbox.append(LOG, [b'"title":"before"}'])
    pair.stop_replica()

    with pytest.raises(OutcomeUnknown):
        await inbox.append(LOG, [b'"title":"a"}'], once=ONCE)

    pair.continue_replica()
    async with asyncio.timeout(GUARD_S):
        again = await until_confirmed(inbox)
    assert again.replayed
    assert await stored(inbox) == 2


async def until_confirmed(inbox: Inbox):  # type: ignore[no-untyped-def]
    while True:
        try:
            return await inbox.append(LOG, [b'"title":"a"}'], once=ONCE)
        except OutcomeUnknown:
            continue


async def test_a_repetition_by_another_node_waits_for_the_replica_too(
    pair: Pair, node: Node
) -> None:
    """
    Such a repetition writes nothing, and has nothing of its own to wait for.

    Valkey 9.1 answers WAIT with "all replicas" then: of the writes of this connection,
    of which there are none.
    """
    first, other = node(), node()
    await first.append(LOG, [b'"title":"before"}'])
    await other.append(LOG, [b'"title":"before"}'])
    pair.stop_replica()
    with pytest.raises(OutcomeUnknown):
        await first.append(LOG, [b'"title":"a"}'], once=ONCE)

    for inbox in (other, node()):
        with pytest.raises(OutcomeUnknown):
            await inbox.append(LOG, [b'"title":"a"}'], once=ONCE)
    assert await stored(other) == 3


async def test_more_replicas_than_there_are_never_confirm(node: Node) -> None:
    inbox = node(2)

    with pytest.raises(OutcomeUnknown):
        await inbox.append(LOG, [b'"title":"a"}'])


async def test_reads_and_marks_do_not_wait(pair: Pair, node: Node) -> None:
    inbox = node()
    await inbox.append(LOG, [b'"title":"a"}'])
    pair.stop_replica()
    appending = asyncio.create_task(inbox.append(LOG, [b'"title":"b"}']))
    while await stored(inbox) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)

    marked = await inbox.mark_all(LOG)

    assert marked.unread == 0
    assert not appending.done()
    with pytest.raises(OutcomeUnknown):
        await appending


async def test_a_refusal_stays_a_refusal_without_confirmation(
    pair: Pair, node: Node
) -> None:
    inbox = node()
    await inbox.append(LOG, [b'"title":"a"}'], once=ONCE)
    pair.stop_replica()

    with pytest.raises(StoreConflict):
        await inbox.append(LOG, [b'"title":"b"}'], once=Once("key", "other"))


async def test_appends_of_many_callers_share_packets(node: Node) -> None:
    inbox = node()

    each = [inbox.append(LOG, [b'"title":"%d"}' % i]) for i in range(50)]
    appended = await asyncio.gather(*each)

    assert [one.stored[0].offset for one in appended] == list(range(1, 51))


async def test_a_cancelled_caller_does_not_affect_the_others(
    node: Node,
) -> None:
    inbox = node()
    tasks = [
        asyncio.create_task(inbox.append(LOG, [b'"title":"%d"}' % i])) for i in range(9)
    ]
    await asyncio.sleep(0)
    tasks[4].cancel()

    done = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(done[4], asyncio.CancelledError)
    others = [one for one in done if not isinstance(one, BaseException)]
    assert [one.stored[0].offset for one in others] == list(range(1, 9))


async def test_an_unreachable_store_fails_every_caller() -> None:
    redis = RedisConnection(f"redis://127.0.0.1:{free_port()}")
    away = Replicated(redis, replicas_min=1, timeout_ms=TIMEOUT_MS)
    inbox = Inbox(redis, confirmed=away)

    each = [inbox.append(LOG, [b'"title":"a"}']) for _ in range(3)]
    failures = await asyncio.gather(*each, return_exceptions=True)

    assert [type(failure) for failure in failures] == [StoreUnavailable] * 3
