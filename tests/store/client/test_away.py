"""A part of a cluster that is away: the others are served all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streamer.core.streams.subscription import Start
from streamer.errors import StoreUnavailable
from streamer.model import App, Log, Player
from streamer.service.inboxes.audiences import PlayerAudiences
from streamer.service.scheduling.scheduler import Scheduler
from streamer.service.streams.catch_up import CatchUp
from streamer.store.client.cluster import ClusterConnection, redis_at
from streamer.store.client.slots import Place, slot_of
from streamer.store.logs.inbox import Inbox
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views
from streamer.store.scheduling.timetable import Timetable

from ...clock import NOON
from ...conftest import Until
from ...e2e.clusters import Cluster
from ...service.conftest import Client
from ..scheduling.timetables import reminder

APP = App("app")
PLAYERS = [f"p{number}" for number in range(20)]
FRAGMENT = b'"title":"x"}'


@pytest.fixture
async def cluster(nodes: Cluster) -> AsyncIterator[ClusterConnection]:
    redis = redis_at(nodes.url)
    assert isinstance(redis, ClusterConnection)
    yield redis
    await redis.close()


async def lose(cluster: ClusterConnection, player: str) -> set[str]:
    """Let the primary of a player refuse connections; return its players."""
    map_ = await cluster.cluster.slots()
    at = {it: slot_of(cluster.keys.state(Log(APP, Player(it)))) for it in PLAYERS}
    lost = map_.owners[at[player]]
    assert lost is not None
    link = cluster.link(lost)
    await link.close()
    link.address = cluster.cluster.address_of(Place("127.0.0.1", 1))
    return {it for it in PLAYERS if map_.owners[at[it]] == lost}


async def test_schedules_of_the_others_fire(cluster: ClusterConnection) -> None:
    settings = LogSettings(clock_us=lambda: NOON * 1_000)
    timetable, inbox = Timetable(cluster, settings), Inbox(cluster, settings)
    for player in PLAYERS:
        await timetable.add(reminder(player, NOON - 1_000))
    lost = await lose(cluster, PLAYERS[0])
    assert 0 < len(lost) < len(PLAYERS)

    await Scheduler(timetable, clock_s=lambda: NOON / 1_000).fire_due()

    for player in set(PLAYERS) - lost:
        read = await inbox.read_after(Log(APP, Player(player)), Start.EARLIEST, count=9)
        assert len(read.history.entries) == 1
    with pytest.raises(StoreUnavailable):
        await inbox.read_after(Log(APP, Player(PLAYERS[0])), Start.EARLIEST, count=9)


async def test_readers_of_the_others_catch_up(
    nodes: Cluster, cluster: ClusterConnection, until: Until
) -> None:
    inbox = Inbox(cluster)
    audiences = PlayerAudiences(Views(cluster, LogSettings()), inbox)
    catch_up = CatchUp(nodes.url, inbox, audiences, replay_max=100, check_s=15)
    running = asyncio.create_task(catch_up.run())
    try:
        logs = [Log(APP, Player(player)) for player in PLAYERS]
        await inbox.append_many([(log, [FRAGMENT]) for log in logs])
        lost = await lose(cluster, PLAYERS[0])
        clients = {player: Client(Start.EARLIEST) for player in PLAYERS}
        for log, client in zip(logs, clients.values(), strict=True):
            catch_up.hub.attach(log, client.session)

        await until(
            lambda: all(
                clients[player].offsets == [1] for player in set(PLAYERS) - lost
            )
        )
        assert not any(clients[player].offsets for player in lost)
        assert not any(client.ended for client in clients.values())
    finally:
        running.cancel()
        await asyncio.wait([running])
