"""SIGKILL while clients publish: to the server, and to its store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from ..e2e.processes import DURABLE, FORGETFUL, ServerProcess, StoreProcess
from ..e2e.readers import TRANSPORTS, Api, Follower, following
from .load.ledger import Ledger

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]

PLAYERS = ("ann", "ben", "cid", "dot")
PUBLISHERS = 8
BETWEEN_KILLS = 60
"""Publishes acknowledged between two kills."""


async def follow_all(
    stack: AsyncExitStack, server: ServerProcess
) -> dict[str, list[Follower]]:
    """Give each player a follower per transport."""
    followers: dict[str, list[Follower]] = {}
    for player in PLAYERS:
        token = await server.token(player)
        followers[player] = [
            await stack.enter_async_context(following(name, server.port, token))
            for name in TRANSPORTS
        ]
    return followers


async def check_followers(
    server: ServerProcess, key: str, followers: dict[str, list[Follower]]
) -> int:
    """Check that all have the whole inbox once, in order; return how many ids."""
    seen = 0
    async with Api(server.port, key) as api:
        for player, pair in followers.items():
            ids = [one["id"] for one in await api.inbox(player)]
            for follower in pair:
                await follower.has(ids)
                assert follower.ids == ids
                assert follower.gaps == []
                # Leases of killed servers caused no refusal.
                assert 409 not in follower.refusals
                seen += len(ids)
    return seen


async def kill_server(server: ServerProcess) -> None:
    await server.kill()
    await server.start()


async def kill_embedded_store(server: ServerProcess) -> None:
    os.kill(await server.store_pid(), signal.SIGKILL)
    # A server without its store would deliver nothing, so it exits with an error.
    assert await server.end() != 0
    await server.start()


@pytest.mark.parametrize("kill", [kill_server, kill_embedded_store])
@pytest.mark.parametrize(
    "kills",
    [1, pytest.param(20, marks=[pytest.mark.nightly, pytest.mark.timeout(600)])],
)
@pytest.mark.row("A1")
async def test_acknowledged_publishes_survive_a_kill(
    make_server: MakeServer, report: Report, kill: Callable[..., object], kills: int
) -> None:
    server = await make_server().start()
    key = await server.key()
    ledger = Ledger(server.port, key, PLAYERS)
    async with AsyncExitStack() as stack:
        followers = await follow_all(stack, server)
        with ledger.publishing(PUBLISHERS):
            for _ in range(kills):
                await ledger.acknowledge(BETWEEN_KILLS)
                await kill(server)  # type: ignore[misc]
            await ledger.acknowledge(BETWEEN_KILLS)
        await ledger.settle()
        findings = await ledger.check()
        assert findings.clean, findings
        received = await check_followers(server, key, followers)
    report(f"{kills} kills, {findings}; {received} received in order, no gap")


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.nightly)])
@pytest.mark.row("A1")
async def test_a_server_survives_kills_of_its_external_store(
    make_server: MakeServer, make_store: MakeStore, report: Report, kills: int
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url).start()
    key = await server.key()
    ledger = Ledger(server.port, key, PLAYERS)
    async with AsyncExitStack() as stack:
        followers = await follow_all(stack, server)
        with ledger.publishing(PUBLISHERS):
            for _ in range(kills):
                await ledger.acknowledge(BETWEEN_KILLS)
                await store.kill()
                await store.start()
            await ledger.acknowledge(BETWEEN_KILLS)
        await ledger.settle()
        findings = await ledger.check()
        assert findings.clean, findings
        received = await check_followers(server, key, followers)
        for pair in followers.values():
            # The streams stayed open.
            assert [follower.connects for follower in pair] == [1, 1]
    report(f"{kills} kills, {findings}; {received} received in order, no gap")


@pytest.mark.row("A1")
async def test_control_a_store_without_a_log_is_detected(
    make_server: MakeServer, make_store: MakeStore, report: Report
) -> None:
    """
    The same ledger with a store that keeps nothing: the check can fail.

    The readers receive a gap, since their cursors belong to a lost log.
    """
    store = await make_store(*FORGETFUL).start()
    server = await make_server(redis=store.url, durability="none").start()
    key = await server.key()
    ledger = Ledger(server.port, key, PLAYERS)
    async with AsyncExitStack() as stack:
        followers = await follow_all(stack, server)
        with ledger.publishing(PUBLISHERS):
            await ledger.acknowledge(BETWEEN_KILLS)
        await ledger.settle()
        await store.kill()
        await store.start()
        # The gap first, so that no gap covers what follows.
        for pair in followers.values():
            for follower in pair:
                await follower.missed()
        key = await server.key()
        async with Api(server.port, key) as api:
            ids = await api.published(*PLAYERS, title="in the new log")
        ledger = _with_credential(ledger, server, key)
        findings = await ledger.check()
        for (player, pair), id in zip(followers.items(), ids, strict=True):
            for follower in pair:
                await follower.has([id])
                assert [gap["reason"] for gap in follower.gaps] == ["epoch"], player
    assert findings.lost == findings.acknowledged > 0
    report(findings)


def _with_credential(ledger: Ledger, server: ServerProcess, key: str) -> Ledger:
    # The store has lost the keys, too.
    again = Ledger(server.port, key, PLAYERS)
    again.acknowledged = ledger.acknowledged
    return again
