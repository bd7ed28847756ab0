"""`streamer bench` against a running server."""

from __future__ import annotations

import asyncio
import sys

import pytest

from .processes import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the load uses epoll")

QUICK = ("--rounds", "1", "--seconds", "0.2")


async def run_bench(server: ServerProcess, *arguments: str) -> str:
    key = await server.key()
    target = ("--url", server.url, "--key", key)
    done = await asyncio.to_thread(server.run, "bench", *arguments, *target, *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert key not in done.stdout
    return done.stdout


async def test_fanout_is_measured_from_outside(server: ServerProcess) -> None:
    output = await run_bench(server, "fanout", "--connections", "8")

    assert "One message of 200 bytes to everyone: 8 readers over ws" in output
    assert "deliveries per second" in output
    # The server's processes may run on another machine.
    assert "CPU per delivery" not in output


async def test_connecting_is_measured_with_the_servers_processes(
    server: ServerProcess,
) -> None:
    output = await run_bench(
        *(server, "connect", "--connections", "8", "--idle", "0.1"),
        *("--transport", "sse", "--pid", str(server.pid)),
    )

    assert "CPU per connect" in output
    assert "RSS when idle" in output


async def test_a_key_that_may_not_mint_tokens_is_reported(
    server: ServerProcess,
) -> None:
    key = await server.key(scopes=["notifications:send"])
    done = await asyncio.to_thread(
        *(server.run, "bench", "connect", "--url", server.url, "--key", key),
        *("--connections", "2", *QUICK),
    )

    assert done.returncode == 1
    assert "no token for p0000000" in done.stdout
    assert "tokens:mint" in done.stdout
