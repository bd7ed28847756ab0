"""The store stops, stalls, loses responses or loses announcements."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import pytest

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess, eventually, free_port
from ..e2e.proxy import ProxiedConnection, TcpProxy
from ..e2e.readers import (
    TRANSPORTS,
    Api,
    Follower,
    StreamEnded,
    StreamRefused,
    WsStream,
    following,
)

MakeServer = Callable[..., ServerProcess]
Report = Callable[[object], None]

CHECK_S = 2
"""Setting `position_check_s`: how long a loss can go unnoticed."""


class ProxiedServer(NamedTuple):
    """A server that reaches its store through a proxy."""

    server: ServerProcess
    store: StoreProcess
    proxy: TcpProxy
    backend: Api

    async def follow(self, stack: AsyncExitStack, player: str) -> list[Follower]:
        token = await self.server.token(player)
        return [
            await stack.enter_async_context(following(name, self.server.port, token))
            for name in TRANSPORTS
        ]


class Deployment(NamedTuple):
    """A server and its store; each test puts a proxy between them."""

    server: ServerProcess
    store: StoreProcess
    proxy_port: int


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("placed")
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    deployment = Deployment(
        ServerProcess(folder / "server", redis=url, position_check_s=CHECK_S),
        StoreProcess(folder / "store", *DURABLE),
        port,
    )

    async def begin() -> None:
        await deployment.store.start()
        proxy = await TcpProxy(deployment.store.port, port=port).start()
        await deployment.server.start()
        await proxy.close()

    try:
        asyncio.run(begin())
        yield deployment
    finally:
        deployment.server.discard()
        deployment.store.discard()


@pytest.fixture
async def proxied(deployment: Deployment) -> AsyncIterator[ProxiedServer]:
    proxy = await TcpProxy(deployment.store.port, port=deployment.proxy_port).start()
    try:
        await deployment.server.ready()
        key = await deployment.server.key()
        async with Api(deployment.server.port, key) as backend:
            # The first publish of a store also sends the script: a test that cuts the
            # response to a publish would cut the one that asks for it.
            await backend.stored("nobody", title="first")
            yield ProxiedServer(deployment.server, deployment.store, proxy, backend)
    finally:
        await proxy.close()


async def test_an_unavailable_store_stores_nothing_and_readers_stay(
    proxied: ProxiedServer, player: str
) -> None:
    server, store, _, backend = proxied
    async with AsyncExitStack() as stack:
        followers = await proxied.follow(stack, player)
        ids = await backend.published(player, title="before")
        await store.stop()
        for _ in range(3):
            answer = await backend.publish(player, title="never")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["type"] == "about:store-away"
        page = await backend.http.get(f"/v1/players/{player}/notifications")
        assert page.status_code == 503
        await eventually(lambda: is_unready(server))
        assert await server.probe("/healthz") == 200
        await store.start()
        await server.ready()
        for i in range(20):
            ids += await backend.published(player, title=f"after {i}")
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
            assert (follower.connects, follower.gaps) == (1, [])
        assert [one["id"] for one in await backend.inbox(player)] == ids


async def test_publishes_of_other_nodes_during_an_outage_arrive_later(
    proxied: ProxiedServer, player: str, make_server: MakeServer
) -> None:
    neighbour = await make_server(redis=proxied.store.url).start()
    async with AsyncExitStack() as stack:
        followers = await proxied.follow(stack, player)
        elsewhere = await stack.enter_async_context(
            Api(neighbour.port, await neighbour.key())
        )
        proxied.proxy.go_away()
        ids = [*await elsewhere.published(player, title="1")]
        ids += await elsewhere.published(player, title="2")
        proxied.proxy.come_back()
        ids += await elsewhere.published(player, title="3")
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
            assert (follower.connects, follower.gaps) == (1, [])


async def test_a_new_reader_during_an_outage_is_told_to_retry(
    proxied: ProxiedServer, player: str
) -> None:
    server = proxied.server
    token = await server.token(player)
    proxied.proxy.go_away()
    await eventually(lambda: is_unready(server))
    for opener in TRANSPORTS.values():
        with pytest.raises(StreamRefused) as refused:
            await opener.open(server.port, token)
        assert refused.value.status == 503
        assert int(refused.value.headers["retry-after"]) > 0
    # A reader that sends its token later can only get a close code.
    stream = await WsStream.open(server.port, None)
    await stream.send(type="auth", token=token)
    assert (await stream.end()).code == 4104


async def is_unready(server: ServerProcess) -> bool:
    return await server.probe("/readyz") == 503


async def test_a_stalled_store_leaves_the_outcome_unknown(
    proxied: ProxiedServer,
    player: str,
) -> None:
    proxied.proxy.stall()
    publishing = asyncio.create_task(
        proxied.backend.publish(player, key="k", title="stalled")
    )
    answer = await publishing
    assert answer.status_code == 503
    proxied.proxy.resume()
    await proxied.server.ready()
    (id,) = await proxied.backend.stored(player, key="k", title="stalled")
    inbox = await proxied.backend.inbox(player)
    assert [one["id"] for one in inbox] == [id]


def cut_answers_to(text: bytes, times: int) -> Callable[..., bytes | None]:
    """Pass commands with `text` on, and reset the connection before the response."""
    left = times

    def tamper(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes | None:
        nonlocal left
        if up and text in chunk and left:
            left -= 1
            pair.seen["cut"] = 1
        return None if not up and "cut" in pair.seen else chunk

    return tamper


@pytest.mark.row("A9")
async def test_a_lost_response_never_causes_a_second_write(
    proxied: ProxiedServer, player: str
) -> None:
    for times in (1, 2, 3):
        proxied.proxy.tamper = cut_answers_to(b"number %d" % times, times)
        answer = await proxied.backend.publish(player, title=f"number {times}")
        assert answer.status_code == 503
        assert answer.json()["type"] == "about:outcome-unknown"
        await proxied.server.ready()
        inbox = await proxied.backend.inbox(player, patient=True)
        assert len(inbox) == times


@pytest.mark.row("A9")
async def test_a_retry_with_its_key_is_stored_once(
    proxied: ProxiedServer, player: str, report: Report
) -> None:
    stored = []
    for times in (1, 2, 3):
        title = f"number {times}"
        proxied.proxy.tamper = cut_answers_to(title.encode(), times)
        statuses = []
        while 200 not in statuses:
            answer = await proxied.backend.publish(
                player, key=f"key {times}", title=title
            )
            statuses.append(answer.status_code)
            assert len(statuses) < 50
            await asyncio.sleep(0.02)  # The back-off of a publisher.
        assert answer.headers["idempotent-replayed"] == "true"
        stored.append(answer.json()["results"][0]["id"])
    assert [one["id"] for one in await proxied.backend.inbox(player)] == stored
    report(f"{len(stored)} of 3 stored once after 1, 2 and 3 lost responses")


@pytest.mark.row("C4")
async def test_a_lost_last_announcement_is_detected(
    proxied: ProxiedServer, player: str, report: Report
) -> None:
    dropped = 0

    def drop_last(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        nonlocal dropped
        if not up and b"smessage" in chunk and b"the last" in chunk:
            dropped += 1
            return b""
        return chunk

    async with AsyncExitStack() as stack:
        followers = await proxied.follow(stack, player)
        proxied.proxy.tamper = drop_last
        ids = await proxied.backend.published(player, title="the last")
        begun = asyncio.get_running_loop().time()
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
        took = asyncio.get_running_loop().time() - begun
    assert dropped == 1
    assert took < 15  # The default interval.
    report(f"repaired after {took:.1f} s; checks every {CHECK_S} s")


@pytest.mark.row("C2")
async def test_a_subscription_without_announcements_only_delays(
    proxied: ProxiedServer, player: str
) -> None:
    def deafen(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        return b"" if not up and b"smessage" in chunk else chunk

    async with AsyncExitStack() as stack:
        followers = await proxied.follow(stack, player)
        proxied.proxy.tamper = deafen
        ids = []
        for i in range(30):
            ids += await proxied.backend.published(player, title=str(i))
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
            assert follower.gaps == []


@pytest.mark.parametrize(
    ("players", "publishes"),
    [
        (20, 60),
        pytest.param(200, 130, marks=[pytest.mark.nightly, pytest.mark.timeout(300)]),
    ],
)
@pytest.mark.row("C1")
async def test_repeatedly_killed_subscriptions_lose_nothing(
    proxied: ProxiedServer, player: str, players: int, publishes: int, report: Report
) -> None:
    names = [f"p{i}" for i in range(players)]
    ids: dict[str, list[str]] = {name: [] for name in names}
    kills = 0

    async def kill() -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(0.05)
            reply = await proxied.server.ask_store("CLIENT", "KILL", "TYPE", "pubsub")
            kills += reply

    async with AsyncExitStack() as stack:
        followers = {name: await proxied.follow(stack, name) for name in names}
        killing = asyncio.create_task(kill())
        for i in range(publishes):
            for name, id in zip(
                names,
                await proxied.backend.published(*names, title=str(i)),
                strict=True,
            ):
                ids[name].append(id)
        killing.cancel()
        for name, pair in followers.items():
            for follower in pair:
                await follower.has(ids[name])
                assert follower.ids == ids[name]
                assert (follower.connects, follower.gaps) == (1, [])
    assert kills
    report(f"0 lost of {2 * players * publishes} with {kills} connections killed")


async def test_readers_come_and_go_while_subscriptions_are_killed(
    proxied: ProxiedServer, report: Report
) -> None:
    """The subscription to a log is ended 5 s after its last reader has left."""
    server = proxied.server
    earlier = len(server.logged)
    ends_at = asyncio.get_running_loop().time() + 7
    came = kills = 0

    async def come_and_go(number: int) -> None:
        nonlocal came
        opener = [*TRANSPORTS.values()][number % 2]
        while asyncio.get_running_loop().time() < ends_at:
            token = await server.token(f"passer-by {number} {came}")
            with contextlib.suppress(StreamRefused, StreamEnded):
                stream = await opener.open(server.port, token)
                await stream.until("hello")
                came += 1
                stream.cut()
            await asyncio.sleep(0.05)

    async def kill() -> None:
        nonlocal kills
        while asyncio.get_running_loop().time() < ends_at:
            kills += await server.ask_store("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.3)

    await asyncio.gather(kill(), *map(come_and_go, range(4)))
    assert not server.ended
    logged = server.logged[earlier:].splitlines()
    errors = [line for line in logged if '"level":"error"' in line]
    # Meanwhile the node may have missed a probe of its own, or been cut off while it
    # connected; on a busy machine the store may answer late.
    told = (
        *("no announcements arrive", "closed before the store answered"),
        "no answer within",
    )
    assert all(any(words in line for words in told) for line in errors), errors
    await server.ready()
    report(f"{came} readers, {kills} connections killed")


@pytest.mark.row("C11")
async def test_idle_readers_survive_restarts_of_the_store(
    proxied: ProxiedServer,
    player: str,
) -> None:
    async with AsyncExitStack() as stack:
        followers = await proxied.follow(stack, player)
        ids = []
        for round_ in range(3):
            await proxied.store.kill()
            await proxied.store.start()
            # The node may not have noticed yet, and is ready until it has.
            ids += await proxied.backend.stored(player, title=str(round_))
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
            assert (follower.connects, follower.gaps) == (1, [])


@pytest.mark.row("C14")
async def test_a_slow_link_to_the_store_only_delays(
    proxied: ProxiedServer, player: str
) -> None:
    proxied.proxy.delay_s = 0.1
    async with AsyncExitStack() as stack:
        followers = await proxied.follow(stack, player)
        answers = await asyncio.gather(
            *(proxied.backend.publish(player, title=str(i)) for i in range(20))
        )
        assert {answer.status_code for answer in answers} == {200}
        ids = [one["id"] for one in await proxied.backend.inbox(player)]
        assert len(ids) == 20
        for follower in followers:
            await follower.has(ids)
            assert follower.ids == ids
