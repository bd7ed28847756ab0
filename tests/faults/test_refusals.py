"""The store refuses what a node asks for. The node lives, says why, and recovers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import httpx2
import pytest

from streamer.store.client.connection import RedisConnection

from ..e2e.processes import (
    DURABLE,
    FORGETFUL,
    ServerProcess,
    StoreProcess,
    eventually,
)
from ..e2e.readers import Api, following

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]
Report = Callable[[object], None]

RIGHTS = ("on", ">secret", "~*", "&*", "+@all")


class Guarded(NamedTuple):
    """A store with an access list, and the connection of its owner."""

    store: StoreProcess
    owner: RedisConnection
    url: str

    async def allow(self, *rules: str) -> None:
        await self.owner.call("ACL", "SETUSER", "node", *rules)


@pytest.fixture
async def guarded(make_store: MakeStore) -> AsyncIterator[Guarded]:
    store = await make_store(*DURABLE).start()
    owner = RedisConnection(store.url)
    guarded = Guarded(store, owner, store.url.replace("//", "//node:secret@"))
    await guarded.allow("reset", *RIGHTS)
    yield guarded
    await owner.close()


async def reason(server: ServerProcess) -> str:
    """Return why a server is not ready; empty if it is ready."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        try:
            answer = await http.get(f"{server.url}/readyz")
        except httpx2.TransportError:
            return ""
    return str(answer.json().get("reason", ""))


def told(server: ServerProcess) -> list[str]:
    """Return what the server has logged of its store."""
    records: list[dict[str, Any]] = [
        json.loads(line) for line in server.logged.splitlines()
    ]
    return [
        record["message"] for record in records if record["logger"].endswith(".faults")
    ]


async def is_refused(server: ServerProcess, pattern: str) -> bool:
    assert not server.ended, server.logged
    return re.search(pattern, await reason(server)) is not None


async def recovered(server: ServerProcess, store: StoreProcess) -> None:
    """Wait until the server is ready and has told that; check what it has told."""
    await server.ready()
    await eventually(lambda: len(told(server)) >= 2)
    fault, recovery = told(server)
    where = f"the store at 127.0.0.1:{store.port} "
    assert fault.startswith(where)
    assert re.fullmatch(re.escape(where) + r"serves again, after \d+ s", recovery)
    assert "Traceback" not in server.logged


@pytest.mark.row("B5")
@pytest.mark.parametrize(
    ("taken", "given", "pattern"),
    [
        ("-evalsha", "+evalsha", r"forbids EVALSHA, .*NOPERM"),
        pytest.param(
            "-zrange", "+zrange", r"forbids ZRANGE, .*NOPERM", marks=pytest.mark.nightly
        ),
        pytest.param(
            "-time", "+time", r"forbids TIME, .*NOPERM", marks=pytest.mark.nightly
        ),
        pytest.param(
            "-xadd", "+xadd", r"forbids XADD, .*NOPERM", marks=pytest.mark.nightly
        ),
        pytest.param(
            "-spublish",
            "+spublish",
            r"forbids SPUBLISH, .*NOPERM",
            marks=pytest.mark.nightly,
        ),
        ("-ping", "+ping", "NOPERM"),
        pytest.param("-@all", "+@all", "NOPERM", marks=pytest.mark.nightly),
        ("resetkeys", "allkeys", r"forbids EVAL, .* more, .*NOPERM"),
        ("resetchannels", "allchannels", "NOPERM"),
    ],
)
async def test_a_node_survives_rights_that_are_taken_away(
    guarded: Guarded,
    make_server: MakeServer,
    player: str,
    taken: str,
    given: str,
    pattern: str,
    report: Report,
) -> None:
    server = await make_server(redis=guarded.url, position_check_s=1).start()
    api = Api(server.port, await server.key())
    async with (
        api as backend,
        following("websocket", server.port, await server.token(player)) as follower,
    ):
        ids = await backend.published(player, title="before")

        await guarded.allow(taken)
        await eventually(lambda: is_refused(server, pattern))
        refused = await backend.publish(player, title="during")
        assert refused.status_code in (200, 503), refused.text
        assert len(told(server)) == 1

        await guarded.allow(given)
        await recovered(server, guarded.store)
        ids += await backend.published(player, title="after")
        await follower.has(ids)
        assert (follower.connects, follower.gaps) == (1, [])
    report(told(server)[0].partition(" ")[2])


@pytest.mark.row("B5")
async def test_a_node_that_starts_with_a_wrong_password_says_so_and_waits(
    guarded: Guarded, make_server: MakeServer
) -> None:
    server = make_server(redis=guarded.url.replace("secret", "other"))
    server.spawn()

    await eventually(lambda: is_refused(server, "is unavailable: WRONGPASS"))
    assert len(told(server)) == 1
    assert "other" not in server.logged

    await guarded.allow(">other")
    await recovered(server, guarded.store)


@pytest.mark.row("B5")
async def test_a_node_survives_a_key_of_the_wrong_type(
    guarded: Guarded, make_server: MakeServer
) -> None:
    server = await make_server(redis=guarded.url).start()

    await guarded.owner.call("SET", guarded.owner.keys.nodes, "not a sorted set")
    await eventually(
        lambda: is_refused(server, "refused a command of the heartbeat: WRONGTYPE")
    )

    await guarded.owner.call("DEL", guarded.owner.keys.nodes)
    await recovered(server, guarded.store)


@pytest.mark.row("B5")
async def test_a_node_without_background_work_watches_its_store(
    make_store: MakeStore, make_server: MakeServer
) -> None:
    store = await make_store(*DURABLE).start()
    server = await make_server(redis=store.url, background="false").start()

    await store.stop()
    store._options = FORGETFUL
    await store.start()
    await eventually(lambda: is_refused(server, "requires appendonly yes"))

    await store.stop()
    store._options = DURABLE
    await store.start()
    await server.ready()
