"""Which credentials count as revoked, and which readers are ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from joserfc.jwk import ECKey

from streamer.core.access.rights import Caller
from streamer.core.access.tokens import mint
from streamer.core.streams.subscription import Start
from streamer.errors import TOKEN_INVALID, StoreUnavailable
from streamer.model import App, Log, Player
from streamer.service.access import revocation as module
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.key_sets import KEY_SET_TTL_S, KeySets, KeySetUnavailable
from streamer.service.access.revocation import RevocationCheck
from streamer.service.streams.poll_waiter import PollWaiter
from streamer.store.access.apps import Apps
from streamer.store.client.address import FixedAddress
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of

NOWHERE = FixedAddress("unix:///nowhere/valkey.sock")

DEMO, OTHER = App("demo"), App("other")
Until = Callable[[Callable[[], object]], Awaitable[None]]


class World:
    """A store, callers, and a revocation check that runs on demand."""

    def __init__(self, redis: RedisConnection, key_sets: KeySets | None = None) -> None:
        self.redis = redis
        self.apps = Apps(redis)
        self.key_sets = key_sets or KeySets()
        self.revocation_check = RevocationCheck(self.apps, self.key_sets)

    async def token_caller(self, player: str, app: App = DEMO) -> Caller:
        record = await self.apps.get(app)
        assert record is not None
        now_s = int(time.time())
        log = Log(app, Player(player))
        (not_before_s,) = await self.apps.revoked_before_s([log])
        token = mint(
            record, log.player, ttl_s=3_600, now_s=now_s, not_before_s=not_before_s
        )
        return await self.caller(token)

    async def caller(self, text: str) -> Caller:
        # A new one each time, so that nothing is cached.
        authenticator = Authenticator(self.apps, key_sets=self.key_sets)
        return await authenticator.caller(Credentials.from_token(text))

    async def revoked(self, *callers: Caller) -> list[bool]:
        revoked = await self.revocation_check.find_revoked(callers)
        return [caller in revoked for caller in callers]


@pytest.fixture
async def world(redis: RedisConnection) -> World:
    world = World(redis)
    for name in (DEMO, OTHER):
        await world.apps.create(name)
    return world


def waiter() -> PollWaiter:
    return PollWaiter(Start.LATEST, "c")


async def test_valid_credentials_are_not_revoked(world: World) -> None:
    callers = [
        await world.token_caller("p1"),
        await world.token_caller("p1", OTHER),
        await world.caller(await world.apps.add_key(DEMO)),
        Caller(DEMO, Player("p1"), frozenset()),
    ]

    assert await world.revoked(*callers) == [False] * 4
    assert await world.revoked() == []


async def test_revoking_an_app_affects_only_its_tokens(world: World) -> None:
    mine, other = await world.token_caller("p1"), await world.token_caller("p1", OTHER)
    key = await world.caller(await world.apps.add_key(DEMO))

    await world.apps.revoke_tokens(DEMO)

    assert await world.revoked(mine, other, key) == [True, False, False]
    assert await world.revoked(await world.token_caller("p1")) == [False]


async def test_revoking_a_player_affects_no_other(world: World) -> None:
    first, second = await world.token_caller("p1"), await world.token_caller("p2")

    await world.apps.revoke_tokens(DEMO, Player("p1"))

    assert await world.revoked(first, second) == [True, False]
    assert await world.revoked(await world.token_caller("p1")) == [False]


async def test_revoking_a_key_affects_no_other(world: World) -> None:
    texts = [await world.apps.add_key(DEMO) for _ in range(3)]
    callers = [await world.caller(text) for text in texts]
    records = [await world.apps.find_key(text.encode()) for text in texts]
    assert records[0] is not None
    assert records[1] is not None

    await world.apps.revoke_key(records[0].id)
    await world.apps.rotate_key(records[1].id, grace_s=0)

    assert await world.revoked(*callers) == [True, True, False]


@pytest.mark.parametrize(("grace_s", "ends"), [(0, True), (60, False)])
async def test_an_expired_secret_revokes_its_tokens(
    world: World, grace_s: int, ends: bool
) -> None:
    caller = await world.token_caller("p1")

    await world.apps.rotate(DEMO, grace_s=grace_s)

    assert await world.revoked(caller) == [ends]


async def test_a_changed_issuer_or_a_deleted_app_revokes_tokens(world: World) -> None:
    mine, other = await world.token_caller("p1"), await world.token_caller("p1", OTHER)

    await world.apps.change_tokens(DEMO, {"issuer": "else"})
    await world.redis.call("HDEL", keys_of().apps, OTHER, write=True)

    assert await world.revoked(mine, other) == [True, True]


async def test_a_key_removed_from_its_set_revokes_its_tokens(
    redis: RedisConnection,
) -> None:
    keys = [ECKey.generate_key("P-256") for _ in range(2)]
    served: list[Any] = [keys]
    now_s = [0.0]

    async def fetch(place: str) -> bytes:
        if not served:
            raise KeySetUnavailable("it is away")
        return json.dumps({"keys": [_jwk(key) for key in served[0]]}).encode()

    world = World(redis, KeySets(fetch=fetch, monotonic=lambda: now_s[0]))
    await world.apps.create(
        DEMO, issuer="https://id", algorithm="ES256", key_set="https://id/jwks"
    )
    callers = [await world.caller(_foreign_token(key)) for key in keys]

    now_s[0] += KEY_SET_TTL_S
    served.clear()
    assert await world.revoked(*callers) == [False, False]
    unreachable = RevocationCheck(world.apps, KeySets(fetch=fetch))
    assert await unreachable.find_revoked(callers) == set()

    now_s[0] += KEY_SET_TTL_S
    served.append(keys[1:])
    assert await world.revoked(*callers) == [False, False]  # In the background.
    async with asyncio.timeout(60):
        # No caller waits for the fetch.
        while await world.revoked(*callers) != [True, False]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def _jwk(key: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.thumbprint()}


def _foreign_token(key: Any) -> str:
    from joserfc import jwt

    now_s = int(time.time())
    claims = {
        **{"iss": "https://id", "aud": "demo", "sub": "p1", "ver": 1},
        **{"iat": now_s, "exp": now_s + 60, "permissions": []},
    }
    header = {"alg": "ES256", "kid": key.thumbprint()}
    token: str = jwt.encode(header, claims, key, algorithms=["ES256"])
    return token


# Readers.


async def test_readers_of_revoked_credentials_are_ended(world: World) -> None:
    readers = [waiter() for _ in range(3)]
    callers = [await world.token_caller(player) for player in ("p1", "p2", "p1")]
    for reader, caller in zip(readers, callers, strict=True):
        world.revocation_check.add(reader, caller)
    await world.revocation_check.check_all()
    assert [reader.ended for reader in readers] == [None, None, None]
    world.revocation_check.remove(readers[2])
    await world.apps.revoke_tokens(DEMO, Player("p1"))

    await world.revocation_check.check_all()

    # The third reader was removed before.
    assert [reader.ended for reader in readers] == [TOKEN_INVALID, None, None]


async def test_a_renewed_reader_stays_open(world: World) -> None:
    reader = waiter()
    world.revocation_check.add(reader, await world.token_caller("p1"))
    await world.apps.revoke_tokens(DEMO)
    world.revocation_check.renew(reader, await world.token_caller("p1"))

    await world.revocation_check.check_all()

    assert reader.ended is None


async def test_a_reader_that_renews_during_a_check_stays_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = waiter()
    find_revoked = world.revocation_check.find_revoked
    await world.apps.revoke_tokens(OTHER)

    async def find_and_renew(callers: Any) -> Any:
        revoked = await find_revoked(callers)
        world.revocation_check.renew(reader, await world.token_caller("p1"))
        return revoked

    world.revocation_check.add(reader, await world.token_caller("p1"))
    await world.apps.revoke_tokens(DEMO)
    monkeypatch.setattr(world.revocation_check, "find_revoked", find_and_renew)
    await world.revocation_check.check_all()

    assert reader.ended is None


async def test_all_portions_are_checked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PORTION", 2)
    caller = await world.token_caller("p1")
    readers = [waiter() for _ in range(5)]
    for reader in readers:
        world.revocation_check.add(reader, caller)
    await world.apps.revoke_tokens(DEMO)

    await world.revocation_check.check_all()

    assert [reader.ended for reader in readers] == [TOKEN_INVALID] * 5


class CheckedPlayers:
    """Records the players that a check includes."""

    def __init__(
        self, revocation_check: RevocationCheck, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._find_revoked = revocation_check.find_revoked
        self.players: list[str] = []
        monkeypatch.setattr(revocation_check, "find_revoked", self)

    async def __call__(self, callers: Any) -> Any:
        to_check = list(callers)
        self.players += [str(caller.player) for caller in to_check]
        return await self._find_revoked(to_check)

    def pop(self) -> list[str]:
        players, self.players = sorted(self.players), []
        return players


async def test_checked_readers_are_checked_again_after_changes_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, revocation_check = (
        CheckedPlayers(world.revocation_check, monkeypatch),
        world.revocation_check,
    )
    readers = {name: waiter() for name in ("p1", "p2", "p3")}
    for name in ("p1", "p2"):
        revocation_check.add(readers[name], await world.token_caller(name))
    await revocation_check.check_all()
    assert checked.pop() == ["p1", "p2"]

    await revocation_check.check_all()
    assert checked.pop() == [], "nothing has changed"
    revocation_check.add(readers["p3"], await world.token_caller("p3"))
    await revocation_check.check_all()
    assert checked.pop() == ["p3"], "it is new"
    revocation_check.renew(readers["p1"], await world.token_caller("p1"))
    await revocation_check.check_all()
    assert checked.pop() == ["p1"], "it has another credential"
    await world.apps.rotate(DEMO)
    await revocation_check.check_all()
    assert checked.pop() == ["p1", "p2", "p3"], "the keys are others"
    await world.apps.revoke_tokens(DEMO, Player("p2"))
    await revocation_check.check_all()
    await revocation_check.check_all()
    assert checked.pop() == sorted(["p1", "p2", "p3"] * 2), "players are being revoked"
    assert [readers[name].ended for name in readers] == [None, TOKEN_INVALID, None]


async def test_keys_are_checked_every_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, reader = CheckedPlayers(world.revocation_check, monkeypatch), waiter()
    caller = await world.caller(await world.apps.add_key(DEMO))
    world.revocation_check.add(reader, caller)

    await world.revocation_check.check_all()
    await world.revocation_check.check_all()

    assert len(checked.pop()) == 2


async def test_readers_that_an_outage_left_unchecked_are_checked_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, reader = CheckedPlayers(world.revocation_check, monkeypatch), waiter()
    world.revocation_check.add(reader, await world.token_caller("p1"))
    address, world.redis.address = world.redis.address, NOWHERE
    await world.redis.close()
    with pytest.raises(StoreUnavailable):
        await world.revocation_check.check_all()

    world.redis.address = address
    await world.revocation_check.check_all()

    assert checked.pop() == ["p1"]


async def test_an_outage_of_the_store_ends_no_reader(world: World) -> None:
    reader = waiter()
    world.revocation_check.add(reader, await world.token_caller("p1"))
    world.redis.address = NOWHERE
    await world.redis.close()

    with pytest.raises(StoreUnavailable):
        await world.revocation_check.check_all()

    assert reader.ended is None


async def test_the_check_continues_after_an_outage_and_a_broken_record(
    world: World, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    revocation_check = RevocationCheck(world.apps, world.key_sets, interval_s=0.005)
    reader, caller = waiter(), await world.token_caller("p1")
    good = await world.redis.call("HGET", keys_of().apps, DEMO)
    sweeping = asyncio.create_task(revocation_check.run())
    revocation_check.add(reader, caller)
    await world.redis.call("HSET", keys_of().apps, DEMO, b"{", write=True)
    await until(lambda: "could not check a credential" in caplog.text)
    assert reader.ended is None
    await world.redis.call("HSET", keys_of().apps, DEMO, good, write=True)
    await world.apps.revoke_tokens(DEMO)

    await until(lambda: reader.ended)

    assert reader.ended is TOKEN_INVALID
    sweeping.cancel()
    await asyncio.wait([sweeping])


async def test_a_damaged_record_keeps_no_other_credential_from_being_checked(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    check = world.revocation_check
    callers = {
        "damaged app": await world.token_caller("p1", DEMO),
        "revoked": await world.token_caller("p1", OTHER),
        "valid": await world.token_caller("p2", OTHER),
        "damaged key": await world.caller(await world.apps.add_key(OTHER)),
    }
    readers = {name: waiter() for name in callers}
    for name, caller in callers.items():
        check.add(readers[name], caller)
    await world.apps.revoke_tokens(OTHER, Player("p1"))
    await world.redis.call("HSET", world.redis.keys.apps, DEMO, "{")
    (digest,) = await world.redis.call("HKEYS", world.redis.keys.backend_keys)
    await world.redis.call("HSET", world.redis.keys.backend_keys, digest, "{")

    await check.check_all()

    ended = [name for name, reader in readers.items() if reader.ended is not None]
    assert ended == ["revoked"]
    assert "could not check a credential in demo" in caplog.text
