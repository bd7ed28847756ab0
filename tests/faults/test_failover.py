"""The primary dies while its replica is disconnected, and the replica is promoted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from streamer.store.client.connection import RedisConnection

from ..e2e.processes import DURABLE, ServerProcess, StoreProcess, eventually
from ..e2e.proxy import TcpProxy
from .load.ledger import Findings, Ledger

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]

PLAYERS = ("ann", "ben", "cid", "dot")


async def ask(store: StoreProcess, *words: str) -> Any:
    redis = RedisConnection(store.url)
    try:
        return await redis.call(*words)
    finally:
        await redis.close()


async def in_step(store: StoreProcess) -> bool:
    return b"master_link_status:up" in await ask(store, "INFO", "replication")


async def lose_the_primary(
    make_server: MakeServer, make_store: MakeStore, *, durability: str
) -> tuple[Findings, int]:
    """Disconnect the replica under load, kill the primary, promote the replica."""
    options = (*DURABLE, "--repl-diskless-sync-delay", "0")
    primary = await make_store(*options).start()
    # Replication goes through one proxy, the server's commands through another.
    line = await TcpProxy(primary.port).start()
    door = await TcpProxy(primary.port).start()
    try:
        replica = await make_store(
            *options, "--replicaof", "127.0.0.1", str(line.port)
        ).start()
        server = await make_server(
            redis=door.redis_url, durability=durability, replication_timeout_ms=300
        ).start()
        key = await server.key()
        await eventually(lambda: in_step(replica))
        ledger = Ledger(server.port, key, PLAYERS)
        with ledger.publishing(8):
            await ledger.acknowledge(200)
            line.go_away()
            # Continue for a while, acknowledged or not.
            count_before = len(ledger.acknowledged) + len(ledger.unknown)

            def went_on() -> bool:
                return (
                    len(ledger.acknowledged) + len(ledger.unknown) >= count_before + 24
                )

            await eventually(went_on)
            door.go_away()
            await primary.kill()
            await ask(replica, "REPLICAOF", "NO", "ONE")
            door.lead_to(replica.port)
            door.come_back()
        await ledger.settle()
        unconfirmed = len(ledger.unknown)
        if durability == "replicated":
            # Without another replica, no publish would be confirmed again.
            successor = await make_store(
                *options, "--replicaof", "127.0.0.1", str(replica.port)
            ).start()
            await eventually(lambda: in_step(successor))
        await server.ready()
        return await ledger.check(), unconfirmed
    finally:
        await line.close()
        await door.close()


@pytest.mark.row("B1")
async def test_confirmed_publishes_survive_the_primary(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    findings, unconfirmed = await lose_the_primary(
        make_server, make_store, durability="replicated"
    )
    assert findings.clean, findings
    assert unconfirmed > 0
    report(findings)


@pytest.mark.row("B1")
async def test_control_publishes_of_only_the_primary_are_lost(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    findings, _ = await lose_the_primary(make_server, make_store, durability="always")
    assert findings.lost > 0
    report(f"control: {findings}")
