"""The store moves to another server, and the nodes find it without a restart."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from streamer.store.client.connection import RedisConnection

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess, eventually
from ..e2e.proxy import TcpProxy
from ..e2e.readers import TRANSPORTS, Api, Follower, following

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]

REPLICATING = (*DURABLE, "--repl-diskless-sync-delay", "0")


async def ask(store: StoreProcess, *words: str | int) -> bytes:
    redis = RedisConnection(store.url)
    try:
        reply = await redis.call(*words)
        assert isinstance(reply, bytes)
        return reply
    finally:
        await redis.close()


class Pair(NamedTuple):
    """A primary and its replica, and the one address at which a node finds a store."""

    primary: StoreProcess
    replica: StoreProcess
    door: TcpProxy


@pytest.fixture(
    params=["chosen", pytest.param("redis-server", marks=pytest.mark.nightly)]
)
async def pair(
    request: pytest.FixtureRequest, make_store: MakeStore
) -> AsyncIterator[Pair]:
    found = shutil.which("redis-server") if request.param != "chosen" else None
    if request.param != "chosen" and found is None:
        pytest.skip("redis-server is not on PATH")
    binary = Path(found) if found else None
    primary = await make_store(*REPLICATING, binary=binary).start()
    source = ("--replicaof", "127.0.0.1", str(primary.port))
    replica = await make_store(*REPLICATING, *source, binary=binary).start()

    async def is_in_step() -> bool:
        return b"master_link_status:up" in await ask(replica, "INFO", "replication")

    await eventually(is_in_step)
    door = await TcpProxy(primary.port).start()
    yield Pair(primary, replica, door)
    await door.close()


async def fail_over(pair: Pair) -> None:
    """Switch over as planned. No connection of a node is closed."""
    await ask(pair.primary, "FAILOVER")

    async def has_switched() -> bool:
        return b"role:master" in await ask(pair.replica, "INFO", "replication")

    await eventually(has_switched)
    pair.door.lead_to(pair.replica.port)


async def swap_roles(pair: Pair) -> None:
    """Demote the primary by hand. No connection of a node is closed."""
    # As an operator does it: what was acknowledged is on the replica before.
    redis = RedisConnection(pair.primary.url)
    await redis.call("SET", "last", "x", write=True)
    assert await redis.call("WAIT", 1, 3_000) == 1
    await redis.close()
    await ask(pair.primary, "REPLICAOF", "127.0.0.1", pair.replica.port)
    await ask(pair.replica, "REPLICAOF", "NO", "ONE")
    pair.door.lead_to(pair.replica.port)


async def swap_roles_and_cut(pair: Pair) -> None:
    await swap_roles(pair)
    pair.door.cut()


async def demote_for_a_while(pair: Pair) -> None:
    """Leave the address with a replica, whose primary does not answer, and return."""
    await ask(pair.primary, "CONFIG", "SET", "replica-serve-stale-data", "no")
    await ask(pair.primary, "REPLICAOF", "127.0.0.1", 1)
    await asyncio.sleep(1)  # The fault lasts; nodes meet it several times.
    await ask(pair.primary, "REPLICAOF", "NO", "ONE")


async def restart(pair: Pair) -> None:
    await pair.primary.kill()
    await pair.primary.start()


async def lose_the_connections(pair: Pair) -> None:
    """Let what is open lead nowhere, as after a change in the network."""
    pair.door.swallow()


MOVES = (
    fail_over,
    swap_roles,
    swap_roles_and_cut,
    demote_for_a_while,
    restart,
    lose_the_connections,
)


@pytest.mark.row("B4")
@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
async def test_a_node_serves_again_after_the_store_has_moved(
    move: Callable[[Pair], Awaitable[None]],
    pair: Pair,
    make_server: MakeServer,
    player: str,
    report: Report,
) -> None:
    server = await make_server(redis=pair.door.redis_url, position_check_s=60).start()
    token = await server.token(player)
    async with AsyncExitStack() as stack:
        followers: list[Follower] = [
            await stack.enter_async_context(following(name, server.port, token))
            for name in TRANSPORTS
        ]
        backend = await stack.enter_async_context(Api(server.port, await server.key()))
        ids = await backend.published(player, title="before")
        due = await backend.http.post(
            "/v1/notifications",
            json={
                "to": {"players": [player]},
                "title": "due",
                "send_at": in_a_moment(),
            },
        )

        await move(pair)
        moved_at_s = time.monotonic()

        ids += await backend.stored(player, title="moved")
        published_after_s = time.monotonic() - moved_at_s
        await server.ready()
        ready_after_s = time.monotonic() - moved_at_s
        # The announcements come from the new server, too: no check finds them.
        await eventually(lambda: has_left(pair))
        ids += await backend.published(player, title="after")
        for follower in followers:
            await follower.has(ids)
        received_after_s = time.monotonic() - moved_at_s
        assert due.status_code == 202, due.text
        await eventually(lambda: is_sent(backend, player))
        for follower in followers:
            assert len(set(follower.ids)) == len(follower.ids)
            assert (follower.connects, follower.gaps) == (1, [])
        inbox = [one["id"] for one in await backend.inbox(player)]
        assert set(ids) <= set(inbox)
    assert not server.ended
    assert "Traceback" not in server.logged
    report(
        f"{move.__name__}: stored again after {published_after_s:.1f} s, ready after "
        f"{ready_after_s:.1f} s, received after {received_after_s:.1f} s"
    )


async def has_left(pair: Pair) -> bool:
    """Whether no connection for announcements leads to a former primary."""
    if pair.door.target_port == pair.primary.port:
        return True
    return not await ask(pair.primary, "CLIENT", "LIST", "TYPE", "pubsub")


def in_a_moment() -> str:
    """Return a time at which the store will have moved, or be about to."""
    now = datetime.datetime.now(datetime.UTC)
    return (now + datetime.timedelta(seconds=2)).isoformat()


async def is_sent(backend: Api, player: str) -> bool:
    titles = [one["title"] for one in await backend.inbox(player)]
    return titles.count("due") == 1
