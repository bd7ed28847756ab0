"""`streamer bench` against a running server."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from streamer.model import App, everyone_log
from streamer.store.client.connection import RedisConnection

from .processes import ServerProcess, command, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load uses epoll")

QUICK = ("--rounds", "1", "--seconds", "0.2")


async def run_bench(server: ServerProcess, *arguments: str) -> str:
    target = ("--url", server.url, *QUICK)
    done = await asyncio.to_thread(server.run, "bench", *arguments, *target)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def of_store(server: ServerProcess) -> tuple[str, str]:
    return ("--data-dir", str(server.data_dir))


async def apps_of(server: ServerProcess) -> list[str]:
    return [name.decode() for name in await server.ask_store("HKEYS", "streamer:apps")]


async def left_of_runs(server: ServerProcess) -> list[bytes]:
    """Return the keys in the store that belong to an app of a load test."""
    found: list[bytes] = await server.ask_store("KEYS", "*:bench-*")
    return [key for key in found if key.split(b":")[3].startswith(b"bench-")]


async def page_of(server: ServerProcess, player: str) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {await server.token(player)}"}
    url = f"{server.url}/v1/players/me/notifications"

    def read() -> dict[str, object]:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            page: dict[str, object] = json.load(response)
            return page

    return await asyncio.to_thread(read)


async def test_a_run_uses_an_app_of_its_own_and_removes_it(
    server: ServerProcess,
) -> None:
    await server.record("demo")
    await page_of(server, "alice")

    output = await run_bench(server, "fanout", "--connections", "8", *of_store(server))

    assert "One message of 200 bytes to everyone: 8 readers over ws" in output
    assert "deliveries per second" in output
    assert (await page_of(server, "alice"))["notifications"] == []
    assert await apps_of(server) == ["demo"]
    assert await left_of_runs(server) == []


async def test_what_is_not_measured_is_said_so(server: ServerProcess) -> None:
    output = await run_bench(server, "publish", "--players", "4", *of_store(server))

    # The server's processes may run on another machine.
    assert output.count("not measured") >= 3
    assert "the load was not the limit" in output or "the load was the limit" in output
    for percent in (50, 90, 95, 99):
        assert f"p{percent}" in output


async def test_connecting_is_measured_with_the_servers_processes(
    server: ServerProcess,
) -> None:
    output = await run_bench(
        *(server, "connect", "--connections", "8", "--idle", "0.1"),
        *("--transport", "sse", "--pid", str(server.pid), *of_store(server)),
    )

    assert "CPU per connect" in output
    assert "RSS when idle" in output
    assert "not measured" not in output


async def test_a_key_writes_to_names_of_the_run_alone_for_a_time(
    server: ServerProcess,
) -> None:
    key = await server.key()
    await page_of(server, "alice")

    output = await run_bench(server, "fanout", "--connections", "4", "--key", key)
    stored = await run_bench(server, "publish", "--players", "4", "--key", key)

    assert key not in output + stored
    assert (await page_of(server, "alice"))["notifications"] == []
    redis = RedisConnection(server.store_url)
    try:
        everyone = redis.keys.inbox(everyone_log(App("demo"))).log
        assert await redis.call("EXISTS", everyone) == 0
        logs = await redis.call("KEYS", "streamer:{*}:log:demo:*bench*")
        ends = await redis.call("KEYS", "streamer:{*}:ends:demo:*bench*")
    finally:
        await redis.close()
    # Each log has entries that expire.
    assert len(logs) == len(ends) == 1 + 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_run_removes_its_app(
    server: ServerProcess, number: signal.Signals
) -> None:
    await server.record("demo")
    # A shell that runs these tests in the background ignores SIGINT for all of them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = await asyncio.create_subprocess_exec(
        *command("bench", "connect", "--url", server.url, *of_store(server)),
        *("--connections", "4", "--idle", "600"),
        env=server.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    signal.signal(signal.SIGINT, before)

    async def has_leases() -> bool:
        return bool(await server.ask_store("KEYS", "*:lease:bench-*"))

    await eventually(has_leases, within_s=60)
    run.send_signal(number)
    async with asyncio.timeout(60):
        output, _ = await run.communicate()

    assert run.returncode != 0, output
    assert await apps_of(server) == ["demo"]
    assert await left_of_runs(server) == []


async def test_a_deployment_with_another_store_is_reported(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    done = await asyncio.to_thread(
        *(server.run, "bench", "connect", "--url", server.url),
        *("--connections", "2", "--data-dir", str(other), *QUICK),
    )

    assert done.returncode == 1
    assert "it uses another store" in done.stdout.replace("\n", " ")


async def test_a_key_that_may_not_mint_tokens_is_reported(
    server: ServerProcess,
) -> None:
    key = await server.key(scopes=["notifications:send"])
    done = await asyncio.to_thread(
        *(server.run, "bench", "connect", "--url", server.url, "--key", key),
        *("--connections", "2", *QUICK),
    )

    assert done.returncode == 1
    assert "no token for bench-" in done.stdout
    assert "tokens:mint" in done.stdout
