"""Every command of the server is tried, and what is forbidden is named."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import streamer
from streamer.errors import StoreUnavailable
from streamer.store.client.connection import RedisConnection
from streamer.store.client.trial import (
    find_forbidden,
    receive_announcement,
    trial_commands,
)
from streamer.store.keys import keys_of

PACKAGE = Path(streamer.__file__).parent
LAYERS = ("store", "service", "surfaces", "cli/demo.py")

# What the server can do without: it says what is missing, or does it another way.
OPTIONAL = {"CLIENT", "CONFIG", "INFO"}
# Sent to connect, or by another connection than the one that tries commands.
ELSEWHERE = {"AUTH", "SELECT", "SSUBSCRIBE", "SUNSUBSCRIBE", "WAIT"}
# Sent to the embedded store alone, which has no access list.
EMBEDDED = {"BGREWRITEAOF", "DBSIZE", "RESET", "SHUTDOWN", "SLOWLOG"}
# Sent where somebody asks for it, who is told what the store forbids: to trim, to
# delete an app, to erase a player.
BY_HAND = {"SCAN", "TYPE"}
# Sent to a cluster alone, whose map nobody can do without.
CLUSTER = {"ASKING", "CLUSTER"}
# Words that are commands, too: a constant, and an error of the store.
NAMESAKES = {"KEYS", "READONLY"}


@pytest.fixture
async def guest(any_store: str) -> AsyncIterator[RedisConnection]:
    """Yield the connection of a user with every right."""
    owner = RedisConnection(any_store)
    rights = ("on", ">secret", "~*", "&*", "+@all")
    await owner.call("ACL", "SETUSER", "guest", "reset", *rights)
    redis = RedisConnection(any_store.replace("unix://", "unix://guest:secret@"))
    yield redis
    await redis.close()
    await owner.call("ACL", "DELUSER", "guest")
    await owner.close()


@pytest.fixture
async def owner(any_store: str) -> AsyncIterator[RedisConnection]:
    owner = RedisConnection(any_store)
    yield owner
    await owner.close()


def sources() -> list[Path]:
    found = [PACKAGE / layer for layer in LAYERS]
    return [
        path
        for layer in found
        for path in ([layer] if layer.is_file() else layer.rglob("*"))
        if path.suffix in (".py", ".lua") and path.name != "trial.py"
    ]


NAMES = sorted({str(name) for name, *_ in trial_commands(keys_of("streamer", 0))})


async def test_every_command_in_the_code_is_tried(redis: RedisConnection) -> None:
    commands = {name.decode().upper() for name in await redis.call("COMMAND", "LIST")}
    text = "\n".join(path.read_text() for path in sources())
    sent = set(re.findall(r"""["']([A-Z]{2,})["']""", text)) & commands - NAMESAKES
    tried = {str(name) for name, *_ in trial_commands(redis.keys)}

    assert sent >= {"XADD", "SPUBLISH", "HGETALL", "GETEX", "PFADD"}
    needless = OPTIONAL | ELSEWHERE | EMBEDDED | BY_HAND | CLUSTER
    assert sent - tried - needless == set()


async def test_a_store_without_an_access_list_allows_everything(
    guest: RedisConnection, owner: RedisConnection
) -> None:
    before = await owner.call("DBSIZE")

    assert await find_forbidden(guest) is None
    assert await find_forbidden(guest, replicated=True) is None

    assert await owner.call("DBSIZE") == before


@pytest.mark.parametrize("name", NAMES)
async def test_a_forbidden_command_is_named(
    guest: RedisConnection, owner: RedisConnection, name: str
) -> None:
    await owner.call("ACL", "SETUSER", "guest", f"-{name.lower()}")

    forbidden = await find_forbidden(guest)

    assert forbidden is not None
    assert forbidden.commands == (name,)
    assert forbidden.words.startswith("NOPERM")
    assert str(forbidden).startswith(f"forbids {name}, which this server needs: NOPERM")


async def test_writes_that_wait_for_replicas_need_one_more_command(
    guest: RedisConnection, owner: RedisConnection
) -> None:
    await owner.call("ACL", "SETUSER", "guest", "-wait")

    assert await find_forbidden(guest) is None
    forbidden = await find_forbidden(guest, replicated=True)

    assert forbidden is not None
    assert forbidden.commands == ("WAIT",)


async def test_forbidden_keys_are_told_by_the_commands_that_use_them(
    guest: RedisConnection, owner: RedisConnection
) -> None:
    await owner.call("ACL", "SETUSER", "guest", "resetkeys", "~other:*")

    forbidden = await find_forbidden(guest)

    assert forbidden is not None
    assert {"EVAL", "EVALSHA", "XADD", "EXISTS"} <= set(forbidden.commands)
    assert "key" in forbidden.words
    assert "more, which this server needs" in str(forbidden)


async def test_a_full_store_forbids_nothing(
    guest: RedisConnection, owner: RedisConnection
) -> None:
    await owner.call("CONFIG", "SET", "maxmemory", "1")
    try:
        assert await find_forbidden(guest) is None
    finally:
        await owner.call("CONFIG", "SET", "maxmemory", "0")


async def test_a_store_that_is_unavailable_cannot_be_tried(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        await find_forbidden(RedisConnection(f"unix://{tmp_path}/nobody"))


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("+@all", ""),
        ("resetchannels", "forbids SSUBSCRIBE"),
        ("-ssubscribe", "forbids SSUBSCRIBE"),
        ("-spublish", "forbids SPUBLISH"),
        ("-sunsubscribe", "forbids SUNSUBSCRIBE"),
    ],
)
async def test_an_announcement_is_sent_and_received(
    guest: RedisConnection, owner: RedisConnection, rule: str, told: str
) -> None:
    await owner.call("ACL", "SETUSER", "guest", rule)

    problem = await receive_announcement(guest)

    assert problem.startswith(told)
    assert bool(problem) == bool(told)
