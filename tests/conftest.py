"""
What every test may ask for: a real store, empty, on a server that runs for the session,
a way to it, and a log of its own.

``STREAMER_TEST_STORE=redis-server`` runs the tests on that program instead of the one
`streamer serve` would choose. ``STREAMER_TEST_STORE=cluster`` runs those of the store
and the services on a Redis Cluster of three primaries; tests that need a store of their
own, or its socket, keep that.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from streamer.core.deployment import LEVEL
from streamer.model import App, Log, Player
from streamer.store.client.cluster import redis_at
from streamer.store.client.connection import RedisConnection
from streamer.store.client.sentinel import address_at
from streamer.store.server.embedded import Embedded
from streamer.store.server.server_binary import find_server

from . import warmup
from .clock import Clock
from .compatibility import page
from .e2e.clusters import Cluster, debian_server
from .faults.report import battery
from .faults.report.battery import (
    pytest_configure,
    pytest_itemcollected,
    pytest_report_header,
    pytest_runtest_makereport,
    pytest_terminal_summary,
    report,
    seeded,
)

__all__ = [
    "pytest_configure",
    "pytest_itemcollected",
    "pytest_report_header",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "report",
    "seeded",
]

warmup.keep_files()

# On a busy machine neither a time limit per example nor one on generating it says
# anything about the code. CI makes random examples as developers do, where Hypothesis
# by itself would check the same ones always; since its example database is lost, it
# prints what `@reproduce_failure` takes.
_calm = settings(
    deadline=None, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", _calm)
settings.register_profile("ci", _calm, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(
    parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager
) -> None:
    battery.pytest_addoption(parser)
    pluginmanager.register(page)
    pluginmanager.register(warmup)


SLOW = (
    *("tests/faults/", "tests/e2e/", "tests/packaging/", "tests/workers/"),
    *("tests/torture/", "tests/compatibility/", "tests/upgrade/"),
    "tests/surfaces/test_contract.py",
)
"""Tests that start processes, or take long."""


SINGLE = (
    # They stop, fill, forbid or cut off a server, or go there without the router.
    *("::test_a_lease_whose_release_was_refused", "::test_nothing_is_written_without"),
    *(
        "::test_a_repetition_completes_an_interrupted",
        "::test_a_paused_scheduler_sends",
    ),
    *("::test_an_audience_continues_where_a_killed", "test_full_store.py::"),
    *("::test_a_store_that_refuses_the_channel", "outage"),
    *("::test_changes_are_announced_and_change", "test_id_vectors.py::"),
    "::test_a_lost_connection_is_replaced_and_every_bucket",
    *("::test_a_node_that_hears_nothing_asks", "::test_deployments_do_not_hear_each"),
    # They count the commands of one server, ask it for all keys, or need keys of two
    # players in one slot.
    *("test_costs.py::", "::test_a_log_its_views_and_their_audiences_are_read"),
    *("::test_every_key_expires", "::test_the_first_entry_of_an_hour_renews"),
    "test_console_sessions.py::test_the_secret_is_not_in_the_store",
    *("::test_only_the_next_recipients", "::test_an_apps_backlog_does_not"),
    # They need one clock for all logs, or connects that take no time.
    *("::test_entries_that_the_store_has_timed", "::test_concurrent_schedulers_fire"),
)
"""Parts of the names of tests that need a single server."""

NEEDS_SINGLE = {"proxy", "any_store"}
"""Fixtures of such tests."""


def _skip_single(items: list[pytest.Item]) -> None:
    """Skip the tests that need a single server, if there is a cluster."""
    skip = pytest.mark.skip(reason="needs a single server")
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        named = any(part in item.nodeid for part in SINGLE)
        if named or NEEDS_SINGLE.intersection(fixtures):
            item.add_marker(skip)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Deal the slow files out, so that each process begins with its share of them.

    ``--dist worksteal`` gives each process an equal piece of the list, and moves tests
    from the end of a piece to a process that has run out of work. So no slow test is
    the last one, and while some processes wait others compute.
    """
    if os.environ.get("STREAMER_TEST_STORE") == CLUSTER:
        _skip_single(items)
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes == 1:
        return
    slow: dict[str, list[pytest.Item]] = {}
    rest: list[pytest.Item] = []
    for item in items:
        if item.nodeid.startswith(SLOW):
            slow.setdefault(item.nodeid.partition("::")[0], []).append(item)
        else:
            rest.append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(processes)]
    for number, file in enumerate(slow.values()):
        shares[number % processes] += file
    dealt: list[pytest.Item] = []
    left = len(items)
    for number, share in enumerate(shares):
        piece = left // (processes - number)
        room = max(0, piece - len(share))
        dealt += share + rest[:room]
        del rest[:room]
        left -= piece
    items[:] = dealt + rest


GUARD_S = 60
CLUSTER = "cluster"
Until = Callable[[Callable[..., object]], Awaitable[None]]
StartStore = Callable[[], Awaitable[Embedded]]

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def store_binary() -> Path:
    """Return the server program the tests run on."""
    wanted = os.environ.get("STREAMER_TEST_STORE")
    if not wanted or wanted == CLUSTER:
        return find_server()
    found = shutil.which(wanted)
    if found is None:
        pytest.skip(f"STREAMER_TEST_STORE names {wanted}, which is not on PATH")
    return Path(found)


@pytest.fixture(scope="session")
def session_store(
    store_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Give the URL of one server for all tests; what is in it is nobody's."""
    # A loop of its own, closed at once: nothing of an embedded store belongs to one.
    loop = asyncio.new_event_loop()
    data_dir = tmp_path_factory.mktemp("store")
    embedded = loop.run_until_complete(Embedded.start(data_dir, binary=store_binary))
    yield embedded.url
    loop.run_until_complete(embedded.stop())
    loop.close()


ON_CLUSTER = os.environ.get("STREAMER_TEST_STORE") == CLUSTER
"""Whether the tests run on a cluster."""


@pytest.fixture(scope="session")
def session_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give one cluster of three primaries for all tests; see `session_store`."""
    loop = asyncio.new_event_loop()
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), binary=debian_server())
    try:
        loop.run_until_complete(cluster.start())
        yield cluster
    finally:
        cluster.discard()
        loop.close()


RECORD = b'SET streamer:deployment \'{"format":2,"id":"test","level":%d}\'' % LEVEL


def empty(url: str) -> None:
    """Leave nothing but a deployment's record in the store at a URL."""
    if url.startswith("redis+cluster:"):
        for node in url.removeprefix("redis+cluster://").split(","):
            host, _, port = node.partition(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"FLUSHALL SYNC\r\n")
                assert connection.recv(64) == b"+OK\r\n"
                connection.sendall(RECORD + b"\r\n")
                assert connection.recv(64).startswith((b"+OK", b"-MOVED"))
        return
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(url.removeprefix("unix://"))
        connection.sendall(b"FLUSHALL SYNC\r\n")
        assert connection.recv(64) == b"+OK\r\n"
        connection.sendall(RECORD + b"\r\n")
        assert connection.recv(64) == b"+OK\r\n"


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty store."""
    if ON_CLUSTER:
        return str(request.getfixturevalue("nodes").url)
    url: str = request.getfixturevalue("session_store")
    empty(url)
    return url


@pytest.fixture
def nodes(session_cluster: Cluster) -> Cluster:
    """Return an empty cluster. A test that moves a slot moves it back."""
    empty(session_cluster.url)
    return session_cluster


@pytest.fixture
async def redis(store_url: str) -> AsyncIterator[RedisConnection]:
    redis = redis_at(address_at(store_url))
    yield redis
    await redis.close()


@pytest.fixture
async def start_store(tmp_path: Path, store_binary: Path) -> AsyncIterator[StartStore]:
    """Return what starts the test's own server, each time on the same data."""
    started: list[Embedded] = []

    async def start() -> Embedded:
        started.append(await Embedded.start(tmp_path / "own", binary=store_binary))
        return started[-1]

    yield start
    for embedded in started:
        await embedded.stop()


@pytest.fixture
def clock() -> Clock:
    """Return a clock for what is told the time."""
    return Clock()


@pytest.fixture
def log() -> Log:
    """Return a log that no other test uses."""
    return Log(App("app"), Player(f"player-{next(_numbers)}"))


@pytest.fixture
def until() -> Until:
    """Return a function that waits for a fact."""

    async def wait(fact: Callable[[], object]) -> None:
        async with asyncio.timeout(GUARD_S):
            # What happens elsewhere has no event here.
            while not fact():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    return wait
