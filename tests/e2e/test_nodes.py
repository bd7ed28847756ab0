"""Several nodes on one store, which act as one server."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx2
import pytest

from .processes import DURABLE, GUARD_S, ServerProcess, StoreProcess, eventually
from .readers import (
    TRANSPORTS,
    Api,
    RawStream,
    Roamer,
    SseStream,
    StreamRefused,
    WsStream,
    roaming,
)

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]

LISTENERS = 3
"""Limit of streams per player: exactly as many as the test opens."""


async def two_nodes(
    make_server: MakeServer, make_store: MakeStore, **settings: object
) -> tuple[ServerProcess, ServerProcess]:
    store = await make_store(*DURABLE).start()
    nodes = [make_server(redis=store.url, **settings) for _ in range(2)]
    first, second = await asyncio.gather(*(node.start() for node in nodes))
    return first, second


async def read(stream: RawStream, ids: Sequence[str]) -> str:
    """Read exactly these notifications; return the last cursor."""
    messages = await stream.notifications(len(ids))
    assert [message.id for message in messages] == list(ids)
    cursor = messages[-1].cursor
    assert cursor is not None
    return cursor


async def test_a_publish_on_one_node_reaches_readers_on_all(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    one, other = await two_nodes(make_server, make_store)
    token = await one.token("ann")
    streams: list[RawStream] = [
        await SseStream.open(one.port, token),
        await SseStream.open(other.port, token),
        await WsStream.open(other.port, token),
    ]
    for stream in streams:
        await stream.until("hello")
    key = await one.key()
    async with Api(one.port, key) as here, Api(other.port, key) as there:
        ids = [*await here.published("ann", title="here")]
        ids += await there.published("ann", title="there")
        ids += await here.published("ann", title="here again")
        for stream in streams:
            await read(stream, ids)
            stream.cut()
        for backend in (here, there):
            assert [one["id"] for one in await backend.inbox("ann")] == ids


@pytest.mark.row("C6")
async def test_readers_of_a_killed_node_resume_at_another_node(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    one, other = await two_nodes(
        make_server, make_store, listeners_per_player_max=LISTENERS
    )
    token = await one.token("ann")
    moving = await SseStream.open(one.port, token, instance="moving")
    staying: list[RawStream] = [
        await SseStream.open(other.port, token, instance="sse"),
        await WsStream.open(other.port, token, instance="websocket"),
    ]
    for stream in (moving, *staying):
        await stream.until("hello")
    async with Api(other.port, await one.key()) as backend:
        ids = [*await backend.published("ann", title="before")]
        for stream in staying:
            await read(stream, ids)
        cursor = await read(moving, ids)

        await one.kill()
        moving.cut()
        late = [
            id
            for i in range(5)
            for id in await backend.published("ann", title=f"late {i}")
        ]

        # The dead node's lease still counts, so a new reader is refused …
        with pytest.raises(StreamRefused) as refusal:
            await SseStream.open(other.port, token)
        assert refusal.value.status == 409
        # … and the instance that holds the lease takes it over.
        moved = await SseStream.open(
            other.port, token, cursor=cursor, instance="moving"
        )
        await moved.until("hello")
        late += await backend.published("ann", title="live")
        for stream in (moved, *staying):
            await read(stream, late)
            stream.cut()


@pytest.mark.row("C7")
async def test_restarting_nodes_one_by_one_loses_nothing(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    nodes = await two_nodes(make_server, make_store, drain_s=1)
    ports = [node.port for node in nodes]
    token = await nodes[0].token("ann")
    async with AsyncExitStack() as stack:
        roamers = [
            Roamer(name, ports[::step], token)
            for name in TRANSPORTS
            for step in (1, -1)
        ]
        await stack.enter_async_context(roaming(roamers))
        backends = [
            await stack.enter_async_context(Api(port, await nodes[0].key()))
            for port in ports
        ]
        ids: list[str] = []
        for node, backend in zip(nodes, backends[::-1], strict=True):
            node.send_signal(signal.SIGTERM)
            while not node.ended:
                ids += await backend.published("ann", title=str(len(ids)))
            assert await node.end() == 0
            await node.start()
        ids += await backends[0].published("ann", title="last")
        for roamer in roamers:
            await roamer.has(ids)
            assert roamer.ids == ids
            assert roamer.gaps == []
            assert 409 not in roamer.refusals
    assert all(node.complaints == "" for node in nodes)


async def facts(node: ServerProcess) -> dict[str, Any]:
    async with httpx2.AsyncClient(trust_env=False) as http:
        with suppress(httpx2.TransportError):
            answer = await http.get(f"{node.url}/readyz")
            return {"code": answer.status_code, **answer.json()}
    return {}


# Durability.


async def replicated_store(make_store: MakeStore) -> tuple[StoreProcess, StoreProcess]:
    store = await make_store(*DURABLE, "--repl-diskless-sync-delay", "0").start()
    following = ("--replicaof", "127.0.0.1", str(store.port))
    return store, await make_store(*DURABLE, *following).start()


async def test_a_publish_is_acknowledged_once_a_replica_has_it(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    store, replica = await replicated_store(make_store)
    node = await make_server(
        redis=store.url, durability="replicated", replication_timeout_ms=300
    ).start()
    assert (await facts(node))["durability"] == "replicated"
    async with Api(node.port, await node.key()) as backend:
        ids = [*await backend.published("ann", title="confirmed")]
        replica.send_signal(signal.SIGSTOP)
        try:
            for _ in range(2):
                answer = await backend.publish("ann", key="k", title="unconfirmed")
                assert answer.status_code == 503, answer.text
                assert answer.json()["type"] == "about:outcome-unknown"
                assert int(answer.headers["retry-after"]) > 0
            # Marks and pages wait for no replica.
            async with Api(node.port, await node.token("ann")) as player:
                marked = await player.http.post(
                    "/v1/players/me/notifications/read", json={"all": True}
                )
                assert marked.json() == {"unread": 0}
        finally:
            replica.send_signal(signal.SIGCONT)
        async with asyncio.timeout(GUARD_S):
            while True:
                answer = await backend.publish("ann", key="k", title="unconfirmed")
                if answer.status_code == 200:
                    break
        assert answer.headers["idempotent-replayed"] == "true"
        ids.append(answer.json()["results"][0]["id"])
        assert [one["id"] for one in await backend.inbox("ann")] == ids


async def test_a_node_without_its_replica_is_not_ready_and_says_why(
    make_server: MakeServer, make_store: MakeStore
) -> None:
    store = await make_store(*DURABLE).start()
    node = make_server(redis=store.url, durability="replicated")
    node.spawn()

    async def says_why() -> bool:
        state = await facts(node)
        return "0 of 1 required replicas are in sync" in state.get("reason", "")

    # It starts Python, and then looks for a replica for a while.
    await eventually(says_why, within_s=2 * GUARD_S)
    assert (await facts(node))["code"] == 503
    assert await node.stop() == 0


@pytest.mark.parametrize(
    ("options", "settings", "reason"),
    [
        (
            (*DURABLE, "--maxmemory-policy", "allkeys-lru"),
            {},
            "the eviction policy is allkeys-lru",
        ),
        (
            ("--appendonly", "yes", "--appendfsync", "everysec"),
            {},
            "durability=always requires appendfsync always",
        ),
        (
            ("--appendonly", "no"),
            {"durability": "everysec"},
            "durability=everysec requires appendonly yes",
        ),
    ],
)
async def test_a_store_that_would_break_the_promise_is_refused(
    make_server: MakeServer,
    make_store: MakeStore,
    options: tuple[str, ...],
    settings: dict[str, object],
    reason: str,
) -> None:
    store = await make_store(*options).start()
    node = make_server(redis=store.url, **settings)
    node.spawn()

    assert await node.end() == 1

    assert re.fullmatch(r"Error: unsuitable store: .+\n", node.logged)
    assert reason in node.logged
    doctor = await asyncio.to_thread(node.run, "doctor", "--redis", store.url)
    assert doctor.returncode == 1
    assert "problem" in doctor.stdout


async def test_readyz_reports_the_durability_of_the_embedded_store(
    make_server: MakeServer,
) -> None:
    node = await make_server(durability="everysec").start()

    state = await facts(node)

    assert state["status"] == "ready"
    assert state["durability"] == "everysec"
    settings = await node.ask_store("CONFIG", "GET", "appendfsync")
    assert settings[1] == b"everysec"
