"""`/metrics` of running servers: each metric changes with what it measures."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamer.config import Config
from streamer.metrics import registry
from streamer.server import run_background

from .clusters import Cluster
from .processes import (
    DURABLE,
    GUARD_S,
    ServerProcess,
    StoreProcess,
    eventually,
    free_port,
)
from .readers import TRANSPORTS, Api, SseStream, StreamRefused, request_head

TOKEN = "only-the-ground-crew-has-it"
LIMIT = 512 * 2**20
ROUTE = "/v1/players/{player}/notifications"


class Scraper:
    """Reads the metrics that `where` serves."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.families: dict[str, Any] = {}

    async def scrape(self) -> None:
        async with httpx2.AsyncClient(trust_env=False, timeout=GUARD_S) as client:
            answer = await client.get(f"http://{self.where}/metrics")
        assert answer.status_code == 200
        families = text_string_to_metric_families(answer.text)
        self.families = {family.name: family for family in families}

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with that name and these labels."""
        return sum(
            float(sample.value)
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def now(self, name: str, **labels: str) -> float:
        await self.scrape()
        return self.sum(name, **labels)

    @asynccontextmanager
    async def moving(
        self, name: str, by: int = 1, **labels: str
    ) -> AsyncIterator[None]:
        """Expect the block to change a metric by an amount."""
        expected = await self.now(name, **labels) + by
        yield

        async def moved() -> bool:
            return await self.now(name, **labels) == expected

        await eventually(moved)


@pytest.fixture(scope="module")
def bind() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, bind: str
) -> Iterator[ServerProcess]:
    server = ServerProcess(
        tmp_path_factory.mktemp("server"),
        metrics_bind=bind,
        metrics_token=TOKEN,
        listeners_per_player_max=2,
        replay_max=2,
        send_age_s=1,
    )
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.discard()


@pytest.fixture
async def scraper(server: ServerProcess, bind: str) -> Scraper:
    return Scraper(bind)


async def test_the_table_lists_all_exposed_metrics(scraper: Scraper) -> None:
    await scraper.scrape()
    names = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in scraper.families.items()
    }

    table = set(re.findall(r"^(streamer_\w+)", registry.__doc__ or "", re.MULTILINE))
    assert {name for name in names if name.startswith("streamer_")} == table
    assert all(family.documentation for family in scraper.families.values())
    assert scraper.sum("process_resident_memory_bytes") > 0
    assert scraper.sum("process_open_fds") > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_is_counted_while_it_is_open(
    server: ServerProcess, scraper: Scraper, token: str, transport: str
) -> None:
    before = await scraper.now("streamer_connections", transport=transport)
    labels: dict[str, Any] = {"transport": transport, "reason": "left"}
    async with scraper.moving("streamer_closes_total", **labels):
        stream = await TRANSPORTS[transport].open(server.port, token)
        await stream.until("hello")
        now = await scraper.now("streamer_connections", transport=transport)
        assert now == before + 1
        stream.cut()

    assert await scraper.now("streamer_connections", transport=transport) == before


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_notification_is_counted_from_publish_to_delivery(
    server: ServerProcess,
    scraper: Scraper,
    backend: Api,
    player: str,
    token: str,
    transport: str,
) -> None:
    stream = await TRANSPORTS[transport].open(server.port, token)
    await stream.until("hello")

    async with (
        scraper.moving("streamer_publishes_total", outcome="stored"),
        scraper.moving("streamer_stored_total"),
        scraper.moving("streamer_deliveries_total", transport=transport),
        scraper.moving("streamer_publish_to_write_seconds_count"),
    ):
        await backend.published(player, title="T")
        await stream.notifications(1)

    stream.cut()


async def test_a_notification_without_readers_is_stored_and_not_delivered(
    scraper: Scraper, backend: Api, player: str
) -> None:
    before = await scraper.now("streamer_deliveries_total")
    written = scraper.sum("streamer_publish_to_write_seconds_count")

    async with scraper.moving("streamer_stored_total", 2):
        await backend.published(player, f"{player}-2", title="T")

    assert scraper.sum("streamer_deliveries_total") == before
    assert scraper.sum("streamer_publish_to_write_seconds_count") == written


async def test_a_repeated_publish_is_counted_as_replayed(
    scraper: Scraper, backend: Api, player: str
) -> None:
    await backend.publish(player, key=player, title="T")

    async with scraper.moving("streamer_publishes_total", outcome="replayed"):
        await backend.publish(player, key=player, title="T")


async def test_a_gap_is_counted_by_its_reason(
    server: ServerProcess, scraper: Scraper, backend: Api, player: str, token: str
) -> None:
    ids = [await backend.published(player, title="T") for _ in range(4)]

    async with scraper.moving("streamer_gaps_total", reason="too_far", transport="sse"):
        stream = await SseStream.open(server.port, token, cursor=ids[0][0])
        await stream.until("gap")

    stream.cut()


async def test_a_refusal_is_counted_by_its_limit(
    server: ServerProcess, scraper: Scraper, token: str
) -> None:
    streams = [await SseStream.open(server.port, token) for _ in range(2)]

    async with scraper.moving("streamer_refusals_total", limit="listeners_per_player"):
        with pytest.raises(StreamRefused):
            await SseStream.open(server.port, token)

    for stream in streams:
        stream.cut()


async def test_a_reader_that_does_not_read_is_counted_as_slow(
    server: ServerProcess, scraper: Scraper, backend: Api, player: str, token: str
) -> None:
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.connect(("127.0.0.1", server.port))
        headers = {"Host": "x", "Authorization": f"Bearer {token}"}
        deaf.sendall(request_head("GET", "/v1/stream", {}, headers))
        await server.listeners(player, 1)

        async with scraper.moving("streamer_slow_closes_total", transport="sse"):
            for _ in range(12):
                await backend.published(player, data="x" * 60_000)

    assert scraper.sum("streamer_closes_total", reason="slow") == 1


async def test_a_held_poll_is_a_connection(
    server: ServerProcess, scraper: Scraper, token: str
) -> None:
    async with Api(server.port, token) as api:
        poll = asyncio.create_task(
            api.http.get("/notification/v1/player/me/stream/notification/lp")
        )

        async def held() -> bool:
            return await scraper.now("streamer_connections", transport="longpoll") == 1

        await eventually(held)
        poll.cancel()

    async def gone() -> bool:
        return await scraper.now("streamer_connections", transport="longpoll") == 0

    await eventually(gone)


async def test_requests_are_counted_by_the_template_of_their_route(
    scraper: Scraper, backend: Api, player: str
) -> None:
    labels: dict[str, Any] = {"method": "GET", "route": ROUTE, "status": "200"}
    async with scraper.moving("streamer_requests_total", **labels):
        await backend.inbox(player)

    assert player not in str(scraper.families)


async def test_the_lag_of_a_fired_schedule_is_observed(
    scraper: Scraper, backend: Api, player: str
) -> None:
    async with scraper.moving("streamer_schedule_lag_seconds_count"):
        body = {"to": {"players": [player]}, "title": "T", "send_at": soon()}
        answer = await backend.http.post("/v1/notifications", json=body)
        assert answer.status_code == 202


def soon() -> str:
    return (datetime.now(UTC) + timedelta(milliseconds=300)).isoformat()


async def test_a_probe_measures_the_roundtrip_to_the_store(scraper: Scraper) -> None:
    assert await scraper.now("streamer_store_roundtrip_seconds_count") >= 1
    assert scraper.sum("streamer_store_connects_total") >= 1
    assert scraper.sum("streamer_ready") == 1


async def test_the_public_port_serves_metrics_to_the_token(
    server: ServerProcess,
) -> None:
    async with Api(server.port, TOKEN) as api, Api(server.port, TOKEN + "x") as other:
        granted = await api.http.get("/metrics")
        refused = await other.http.get("/metrics")
        absent = await other.http.get("/nothing")

    assert granted.status_code == 200
    assert "streamer_ready{} 1\n" in granted.text
    assert (refused.status_code, refused.text) == (404, absent.text)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /metrics?x=1", 200),
        ("HEAD /metrics", 200),
        ("POST /metrics", 405),
        ("GET /", 404),
        ("GET /v1/stream", 404),
    ],
)
async def test_the_metrics_port_serves_nothing_else(
    server: ServerProcess, bind: str, request_line: str, status: int
) -> None:
    host, _, port = bind.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(GUARD_S):
        answer = await reader.read()
    writer.close()

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.endswith(b"\r\n\r\n") is (
        status != 200 or request_line.startswith("HEAD")
    )


async def test_a_killed_store_is_counted(
    make_server: Callable[..., ServerProcess], make_store: Callable[..., StoreProcess]
) -> None:
    store = await make_store(*DURABLE).start()
    scraper = Scraper(f"127.0.0.1:{free_port()}")
    server = make_server(redis=store.url, metrics_bind=scraper.where)
    await server.start()
    key = await server.key()
    before = await scraper.now("streamer_store_errors_total")

    await store.kill()
    async with Api(server.port, key) as backend:
        assert (await backend.publish("alice", title="T")).status_code == 503

    async def changed() -> bool:
        return (
            await scraper.now("streamer_store_errors_total", kind="away") > before
            and scraper.sum("streamer_store_interruptions_total") == 1
            and scraper.sum("streamer_ready") == 0
        )

    await eventually(changed)


async def test_the_metrics_of_all_workers_are_served_together(
    make_server: Callable[..., ServerProcess],
) -> None:
    scraper = Scraper(f"127.0.0.1:{free_port()}")
    server = make_server(workers=2, metrics_bind=scraper.where)
    await server.start()
    for _ in range(20):
        assert await server.probe("/healthz") == 200

    async def counted() -> bool:
        labels = {"route": "/healthz"}
        return await scraper.now("streamer_requests_total", **labels) == 20

    await eventually(counted)
    ready = [scraper.sum("streamer_ready", worker=worker) for worker in "01"]
    assert ready == [1, 1]
    assert scraper.sum("streamer_workers") == 2


@asynccontextmanager
async def scheduler_on(store_url: str) -> AsyncIterator[Scraper]:
    """Run a scheduler; its metrics have been read once."""
    scraper = Scraper(f"127.0.0.1:{free_port()}")
    config = Config(metrics_bind=scraper.where)
    running = asyncio.create_task(run_background(config, store_url))

    async def answers() -> bool:
        try:
            await scraper.scrape()
        except httpx2.ConnectError:
            return False
        return "streamer_schedule_lag_seconds" in scraper.families

    try:
        await eventually(answers)
        yield scraper
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_scheduler_serves_metrics(store_url: str) -> None:
    async with scheduler_on(store_url):
        pass


async def test_the_memory_of_each_shard_is_a_sample_of_its_own(nodes: Cluster) -> None:
    places = {f"127.0.0.1:{node.port}" for node in nodes.primaries}
    first, *_ = nodes.primaries
    await first.ask("CONFIG", "SET", "maxmemory", LIMIT)
    try:
        async with scheduler_on(nodes.url) as scraper:

            async def shards_of(name: str) -> dict[str, float]:
                await scraper.scrape()
                return {
                    sample.labels.get("shard", ""): sample.value
                    for sample in scraper.families[name].samples
                }

            async def all_are_read() -> bool:
                return (await shards_of("streamer_store_memory_bytes")).keys() == places

            await eventually(all_are_read)
            assert all((await shards_of("streamer_store_memory_bytes")).values())
            limits = await shards_of("streamer_store_memory_max_bytes")
            own = f"127.0.0.1:{first.port}"
            assert limits == dict.fromkeys(places, 0) | {own: LIMIT}
    finally:
        await first.ask("CONFIG", "SET", "maxmemory", 0)
