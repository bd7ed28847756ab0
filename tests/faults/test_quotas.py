"""An app that exceeds its limit tenfold, and another app."""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from streamer.core.quotas import QuotaOverrides
from streamer.model import App
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection

from ..e2e.processes import GUARD_S, ServerProcess
from .load.flood import RawBackend

MakeServer = Callable[..., ServerProcess]
Report = Callable[[object], None]

PER_S = 20
"""The limit of the app. It tries ten times as much."""

ROUNDS = 10
SAMPLES = 200
"""Per round, without the flood and during each flood."""


async def limit(server: ServerProcess, app: str, **quotas: int) -> str:
    """Set the quotas of an app; return a key of it."""
    key = await server.key(app=app)
    redis = RedisConnection(server.store_url)
    try:
        await Apps(redis).update(
            App(app),
            lambda seen: msgspec.structs.replace(seen, quotas=QuotaOverrides(**quotas)),
        )
    finally:
        await redis.close()
    return key


@asynccontextmanager
async def flooded(port: int, key: str, per_s: int) -> AsyncIterator[dict[str, int]]:
    """Publish at a rate during the block; the dict then counts the statuses."""
    statuses: dict[str, int] = {}
    program = (sys.executable, str(Path(__file__).parent / "load" / "flood.py"))
    process = await asyncio.create_subprocess_exec(
        *program, str(port), key, str(per_s), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        yield statuses
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(GUARD_S):
            out, _ = await process.communicate()
        statuses.update(json.loads(out))


async def took_s(backend: RawBackend) -> list[float]:
    """Return the durations of some publishes."""
    times = []
    for _ in range(SAMPLES):
        begun = time.perf_counter()
        status = await backend.publish()
        times.append(time.perf_counter() - begun)
        assert status == 200
        await asyncio.sleep(0.002)
    return times


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


@pytest.mark.row("F14")
@pytest.mark.nightly
@pytest.mark.timeout(300)
async def test_an_app_at_ten_times_its_limit_does_not_affect_another(
    make_server: MakeServer, report: Report
) -> None:
    """
    The control is the same flood on another server.

    A flood takes CPU of this machine in either case; the test measures what it takes
    from another app on the same server.
    """
    server, next_door = await make_server().start(), await make_server().start()
    loud = {
        node.port: await limit(node, "loud", publishes_per_s=PER_S)
        for node in (server, next_door)
    }
    p99s_during: dict[int, list[float]] = {0: [], server.port: [], next_door.port: []}
    answers: Counter[str] = Counter()
    flooded_s = 0.0
    backend = await RawBackend(await server.key()).open(server.port)
    try:
        await took_s(backend)
        for _ in range(ROUNDS):
            p99s_during[0].append(p99(await took_s(backend)))
            for port, key in loud.items():
                begun = time.monotonic()
                async with flooded(port, key, 10 * PER_S) as statuses:
                    p99s_during[port].append(p99(await took_s(backend)))
                    flooded_s += time.monotonic() - begun
                answers.update(statuses)
    finally:
        backend.cut()
    alone_s, here_s, there_s = (
        statistics.median(times) for times in p99s_during.values()
    )
    report(
        f"p99 of the other app {here_s * 1e3:.1f} ms, {there_s * 1e3:.1f} ms with the "
        f"flood on another server, {alone_s * 1e3:.1f} ms without: "
        f"{here_s / there_s:.2f} and {here_s / alone_s:.2f} times as long (medians of "
        f"{ROUNDS} rounds); {answers['200']} times 200 and {answers['429']} times 429 "
        f"in {flooded_s:.0f} s at {10 * PER_S} per second"
    )
    assert answers.keys() == {"200", "429"}
    # The rate, a burst, and what is accepted while the flood is stopped.
    assert answers["200"] <= PER_S * (flooded_s + 4 * ROUNDS)
    assert answers["429"] > answers["200"]
    assert here_s <= 1.5 * there_s
