"""The probe: readiness follows from received announcements, not from connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamer.model import Entry, Log, Player
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.streams import probe as module
from streamer.service.streams.catch_up import PROBE_APP, CatchUp
from streamer.service.streams.probe import Probe
from streamer.store.client.connection import RedisConnection
from streamer.store.client.faults import StoreFaults
from streamer.store.logs.inbox import Inbox

Until = Callable[[Callable[[], object]], Awaitable[None]]


class DroppingAnnouncements(CatchUp):
    """Drops announcements while `drops`, until it reconnects."""

    drops = False

    def on_entry(self, log: Log, entry: Entry) -> None:
        if not self.drops:
            super().on_entry(log, entry)

    def reconnect(self) -> None:
        self.drops = False
        super().reconnect()


@pytest.fixture
async def catch_up(
    store_url: str, inbox: Inbox, audiences: PlayerAudiences
) -> AsyncIterator[DroppingAnnouncements]:
    catch_up = DroppingAnnouncements(
        store_url, inbox, audiences, replay_max=500, check_s=3_600
    )
    running = asyncio.create_task(catch_up.run())
    yield catch_up
    running.cancel()
    await asyncio.wait([running])


@pytest.fixture
async def probe(
    redis: RedisConnection, catch_up: CatchUp, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Probe]:
    # Longer than a connection takes: a probe sent before that is not received.
    monkeypatch.setattr(module, "INTERVAL_S", 0.3)
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    probe = Probe(redis, catch_up, "node")
    running = asyncio.create_task(probe.run())
    yield probe
    running.cancel()
    await asyncio.wait([running])


async def test_a_probe_that_the_store_refuses_is_reported_until_it_is_stored(
    redis: RedisConnection, catch_up: CatchUp, until: Until
) -> None:
    faults = StoreFaults()
    probe = Probe(redis, catch_up, "node", faults=faults)
    state = redis.keys.state(Log(PROBE_APP, Player("node")))
    await redis.call("SET", state, "not a hash")
    running = asyncio.create_task(probe.run())
    try:
        await until(lambda: "WRONGTYPE" in (faults.reason or ""))
        assert not probe.is_delivering

        await redis.call("DEL", state)

        await until(lambda: probe.is_delivering)
        assert faults.reason is None
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_node_that_receives_its_probes_is_ready(
    probe: Probe, until: Until
) -> None:
    await until(lambda: probe.is_delivering)


async def test_a_node_without_announcements_is_not_ready_and_reconnects(
    probe: Probe,
    catch_up: DroppingAnnouncements,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await until(lambda: probe.is_delivering)
    ready: list[bool] = []

    def note_reconnect() -> None:
        ready.append(probe.is_delivering)
        DroppingAnnouncements.reconnect(catch_up)

    monkeypatch.setattr(catch_up, "reconnect", note_reconnect)
    with caplog.at_level(logging.ERROR):
        catch_up.drops = True
        await until(lambda: ready)

    assert ready[0] is False
    assert caplog.records
    await until(lambda: probe.is_delivering)


async def test_probes_that_stop_make_a_node_unready(
    probe: Probe, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: probe.is_delivering)
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)

    assert not probe.is_delivering
