"""Credentials in headers, their callers, and the caching of records and tokens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from joserfc.jws import JWSRegistry

from streamer.core.access import tokens
from streamer.core.access.rights import DEFAULT_SCOPES, KeyProof, TokenProof
from streamer.core.access.signatures import Key
from streamer.core.access.tokens import AppRecord
from streamer.errors import Defect, IssuerUnavailable, StoreUnavailable, Unauthenticated
from streamer.model import App, Player
from streamer.service.access import authenticator as module
from streamer.service.access.authenticator import (
    RECORD_TTL_S,
    Authenticator,
    Credentials,
)
from streamer.service.access.key_sets import KEY_SET_TTL_S, KeySets
from streamer.store.access.apps import Apps
from streamer.store.client.address import FixedAddress
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.server.embedded import attach

NOWHERE = FixedAddress("unix:///nowhere/valkey.sock")

NOW_S = 1_800_000_000
DEMO = App("demo")

Headers = list[tuple[bytes, bytes]]


# Credentials in headers.

FOUND: list[tuple[str, Headers, bytes, bool]] = [
    ("header", [(b"authorization", b"Bearer abc")], b"abc", False),
    ("scheme in capitals", [(b"authorization", b"BEARER abc")], b"abc", False),
    ("scheme in small", [(b"authorization", b"bearer abc")], b"abc", False),
    ("many spaces", [(b"authorization", b"  Bearer   abc ")], b"abc", False),
    ("name in capitals", [(b"Authorization", b"Bearer abc")], b"abc", False),
    ("own header", [(b"x-auth-token", b"abc")], b"abc", False),
    ("not ASCII", [(b"x-auth-token", b"\xff\xfe")], b"\xff\xfe", False),
    ("cookie", [(b"cookie", b"Authorization=bearer abc")], b"abc", True),
    ("cookie in capitals", [(b"cookie", b"Authorization=BEARER abc")], b"abc", True),
    ("quoted cookie", [(b"cookie", b'Authorization="bearer abc"')], b"abc", True),
    ("encoded cookie", [(b"cookie", b"Authorization=bearer%20abc")], b"abc", True),
    (
        "cookie among others",
        [(b"cookie", b"a=1; Authorization=bearer abc;authorization=x; b")],
        b"abc",
        True,
    ),
    (
        "one cookie of two headers",
        [(b"cookie", b"a=1"), (b"cookie", b"Authorization=bearer abc")],
        b"abc",
        True,
    ),
    (
        "cookie set for two paths",
        [(b"cookie", b"Authorization=bearer abc; Authorization=bearer abc")],
        b"abc",
        True,
    ),
    (
        "the same in all three",
        [
            (b"authorization", b"Bearer abc"),
            (b"x-auth-token", b"abc"),
            (b"cookie", b"Authorization=bearer abc"),
        ],
        b"abc",
        False,
    ),
    (
        "the cookie of another application beside a header",
        [(b"authorization", b"Bearer abc"), (b"cookie", b"Authorization=bearer abd")],
        b"abc",
        False,
    ),
    (
        "a cookie of another form beside the own header",
        [(b"x-auth-token", b"abc"), (b"cookie", b"Authorization=abd; Authorization=x")],
        b"abc",
        False,
    ),
    (
        "empty ones beside it",
        [
            (b"authorization", b""),
            (b"x-auth-token", b""),
            (b"cookie", b"Authorization=bearer abc"),
        ],
        b"abc",
        True,
    ),
]

REFUSED: list[tuple[str, Headers, Defect]] = [
    ("no header", [], Defect.MISSING),
    ("empty header", [(b"authorization", b"")], Defect.MISSING),
    ("spaces", [(b"authorization", b"   ")], Defect.MISSING),
    ("scheme alone", [(b"authorization", b"Bearer")], Defect.MISSING),
    ("scheme and space", [(b"authorization", b"Bearer ")], Defect.MISSING),
    ("empty own header", [(b"x-auth-token", b" ")], Defect.MISSING),
    ("empty cookie", [(b"cookie", b"Authorization=")], Defect.MISSING),
    ("cookie without value", [(b"cookie", b"Authorization")], Defect.MISSING),
    ("cookie in small", [(b"cookie", b"authorization=bearer abc")], Defect.MISSING),
    ("other cookie", [(b"cookie", b"xAuthorization=bearer abc")], Defect.MISSING),
    ("basic", [(b"authorization", b"Basic YTpi")], Defect.SCHEME),
    ("no scheme", [(b"authorization", b"abc")], Defect.SCHEME),
    ("colon", [(b"authorization", b"Bearer: abc")], Defect.SCHEME),
    ("tab", [(b"authorization", b"Bearer\tabc")], Defect.SCHEME),
    ("cookie without scheme", [(b"cookie", b"Authorization=abc")], Defect.SCHEME),
    (
        "two headers",
        [(b"authorization", b"Bearer abc"), (b"authorization", b"Bearer abd")],
        Defect.AMBIGUOUS,
    ),
    (
        "the same header twice",
        [(b"authorization", b"Bearer abc"), (b"authorization", b"Bearer abc")],
        Defect.AMBIGUOUS,
    ),
    (
        "two headers of two schemes",
        [(b"authorization", b"Basic YTpi"), (b"authorization", b"Bearer abc")],
        Defect.AMBIGUOUS,
    ),
    (
        "own header twice",
        [(b"x-auth-token", b"abc"), (b"x-auth-token", b"abc")],
        Defect.AMBIGUOUS,
    ),
    (
        "header and own header",
        [(b"authorization", b"Bearer abc"), (b"x-auth-token", b"abd")],
        Defect.AMBIGUOUS,
    ),
    (
        "two cookies",
        [(b"cookie", b"Authorization=bearer abc; Authorization=bearer abd")],
        Defect.AMBIGUOUS,
    ),
]


@pytest.mark.parametrize(
    ("headers", "token", "from_cookie"),
    [row[1:] for row in FOUND],
    ids=[row[0] for row in FOUND],
)
def test_a_credential_is_found_in_any_of_its_headers(
    headers: Headers, token: bytes, from_cookie: bool
) -> None:
    assert Credentials.from_headers(headers) == (token, from_cookie)


@pytest.mark.parametrize(
    ("headers", "defect"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_missing_and_ambiguous_credentials_have_a_defect(
    headers: Headers, defect: Defect
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        Credentials.from_headers(headers)

    assert refused.value.defect is defect


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-auth-token", b"cookie"]),
            st.binary(max_size=40)
            | st.binary(max_size=20).map(lambda noise: b"Bearer " + noise)
            | st.binary(max_size=20).map(lambda noise: b"Authorization=" + noise),
        ),
        max_size=4,
    )
)
def test_noise_in_headers_never_crashes(headers: Headers) -> None:
    try:
        credentials = Credentials.from_headers(headers)
    except Unauthenticated:
        return
    assert credentials.token


def test_a_message_may_carry_a_credential() -> None:
    assert Credentials.from_token("abc") == (b"abc", False)
    assert Credentials.from_token("\ud800").token
    with pytest.raises(Unauthenticated, match="no credential"):
        Credentials.from_token("")


def test_printed_credentials_do_not_show_the_secret() -> None:
    assert "abc" not in repr(Credentials(b"abc"))


# Callers.


class CountingConnection(RedisConnection):
    """A connection that counts reads of records and can delay their replies."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads = 0
        self.held = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, *command: str | bytes | int, write: bool = False) -> Any:
        if command[0] != "HGET":
            return await super().call(*command, write=write)
        self.reads += 1
        reply = await super().call(*command, write=write)
        self.held += 1
        await self.gate.wait()
        self.held -= 1
        return reply


class World:
    """A store, its apps, an authenticator, and their clock."""

    def __init__(self, redis: CountingConnection) -> None:
        self.redis = redis
        self.now_s = float(NOW_S)
        self.apps = Apps(redis)
        self.authenticator = Authenticator(
            self.apps, clock=lambda: self.now_s, monotonic=lambda: self.now_s
        )

    def caller(self, text: str) -> Any:
        return self.authenticator.caller(Credentials.from_token(text))

    async def refuses(self, text: str, defect: Defect, detail: str = "") -> None:
        with pytest.raises(Unauthenticated) as refused:
            await self.caller(text)
        assert (refused.value.defect, refused.value.detail) == (defect, detail)

    def token(self, record: AppRecord, ttl_s: int = 60) -> str:
        return tokens.mint(record, Player("p1"), ttl_s=ttl_s, now_s=int(self.now_s))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with attach(tmp_path / "store") as url:
        redis = CountingConnection(url)
        yield World(redis)
        await redis.close()


async def test_the_caller_of_a_token_is_its_player(world: World) -> None:
    demo = await world.apps.create(DEMO)

    caller = await world.caller(world.token(demo))

    assert (caller.app, caller.player) == (DEMO, "p1")
    assert caller.permissions == {"notification:player:self:*"}
    assert caller.scopes == frozenset()
    assert caller.expires_at_s == NOW_S + 60


async def test_the_caller_of_a_backend_key_has_no_player(world: World) -> None:
    await world.apps.create(DEMO)

    caller = await world.caller(await world.apps.add_key(DEMO))

    assert (caller.app, caller.player, caller.expires_at_s) == (DEMO, None, None)
    assert caller.scopes == DEFAULT_SCOPES
    assert caller.may_read(Player("p1"))
    assert caller.may_write(Player("p1"))


@pytest.mark.parametrize(
    ("text", "defect", "detail"),
    [
        ("", Defect.NOT_JWT, ""),
        ("abc", Defect.NOT_JWT, ""),
        ("SK_abc", Defect.NOT_JWT, ""),
        ("sk_", Defect.UNKNOWN_KEY, ""),
        ("sk_" + "A" * 43, Defect.UNKNOWN_KEY, ""),
        ("sk_é\0", Defect.UNKNOWN_KEY, ""),
        ("sk_" + "A" * 100_000, Defect.UNKNOWN_KEY, ""),
    ],
)
async def test_an_invalid_credential_is_refused_with_its_defect(
    world: World, text: str, defect: Defect, detail: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await world.authenticator.caller(Credentials(text.encode()))

    assert (refused.value.defect, refused.value.detail) == (defect, detail)


async def test_a_token_for_an_unknown_app_is_refused(world: World) -> None:
    stranger = AppRecord(App("stranger"), bytes(32), "streamer", 0)

    await world.refuses(world.token(stranger), Defect.CLAIM, "aud")


async def test_a_token_signed_by_another_app_is_refused(world: World) -> None:
    await world.apps.create(DEMO)
    other = await world.apps.create(App("other"))
    forged = AppRecord(DEMO, other.secret, other.issuer, 0)

    await world.refuses(world.token(forged), Defect.KEY_ID)


async def test_a_token_expires_by_the_clock(world: World) -> None:
    token = world.token(await world.apps.create(DEMO))
    await world.caller(token)

    world.now_s += 60 + tokens.LEEWAY_S

    await world.refuses(token, Defect.EXPIRED)


# Records.


async def test_a_record_is_read_once_in_its_ttl(world: World) -> None:
    demo = await world.apps.create(DEMO)
    key = await world.apps.add_key(DEMO)

    for _ in range(3):
        await world.caller(world.token(demo))
        await world.caller(key)
    assert world.redis.reads == 2

    world.now_s += RECORD_TTL_S
    await world.caller(key)
    assert world.redis.reads == 3


async def test_missing_records_are_not_cached(
    world: World,
) -> None:
    future = AppRecord(DEMO, bytes(32), "streamer", 0)
    await world.refuses(world.token(future), Defect.CLAIM, "aud")

    demo = await world.apps.create(DEMO)

    assert (await world.caller(world.token(demo))).player == "p1"


async def test_a_revoked_key_is_rejected_within_the_ttl(world: World) -> None:
    await world.apps.create(DEMO)
    key = await world.apps.add_key(DEMO)
    await world.caller(key)
    digest = hashlib.sha256(key.encode()).hexdigest()
    await world.redis.call("HDEL", keys_of().backend_keys, digest, write=True)

    world.now_s += RECORD_TTL_S

    await world.refuses(key, Defect.UNKNOWN_KEY)


async def test_concurrent_callers_share_one_read(world: World) -> None:
    await world.apps.create(DEMO)
    key = await world.apps.add_key(DEMO)
    world.redis.gate.clear()
    calls = [asyncio.create_task(world.caller(key)) for _ in range(50)]
    await until(lambda: world.redis.reads == 1)

    world.redis.gate.set()

    callers = await asyncio.gather(*calls)
    assert {caller.app for caller in callers} == {DEMO}
    assert world.redis.reads == 1


async def test_a_cancelled_caller_does_not_cancel_the_read_of_others(
    world: World,
) -> None:
    await world.apps.create(DEMO)
    key = await world.apps.add_key(DEMO)
    world.redis.gate.clear()
    first = asyncio.create_task(world.caller(key))
    await until(lambda: world.redis.reads == 1)
    second = asyncio.create_task(world.caller(key))

    first.cancel()
    world.redis.gate.set()

    assert (await second).app == DEMO
    assert world.redis.reads == 1


async def test_an_app_created_during_a_read_is_found(world: World) -> None:
    unmade = AppRecord(DEMO, bytes(32), "streamer", 0)
    world.redis.gate.clear()
    # The lookup of that audience follows, and finds the app created meanwhile.
    early = asyncio.create_task(world.refuses(world.token(unmade), Defect.KEY_ID))
    await until(lambda: world.redis.held == 1)
    demo = await world.apps.create(DEMO)
    late = asyncio.create_task(world.caller(world.token(demo)))
    await asyncio.sleep(0)

    world.redis.gate.set()

    assert (await late).player == "p1"
    await early


async def test_a_cached_record_authenticates_during_an_outage(
    world: World,
) -> None:
    demo = await world.apps.create(DEMO)
    token = world.token(demo)
    await world.caller(token)
    world.redis.address = NOWHERE
    await world.redis.close()

    assert (await world.caller(token)).player == "p1"

    world.now_s += RECORD_TTL_S
    with pytest.raises(StoreUnavailable):
        await world.caller(token)


async def test_every_concurrent_caller_gets_store_unavailable(world: World) -> None:
    world.redis.address = NOWHERE
    await world.redis.close()

    outcomes = await asyncio.gather(
        *(world.caller("sk_x") for _ in range(5)), return_exceptions=True
    )

    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}


async def test_the_oldest_cached_record_is_evicted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECORDS_MAX", 2)
    await world.apps.create(DEMO)
    keys = [await world.apps.add_key(DEMO) for _ in range(3)]
    for key in keys:
        await world.caller(key)
    assert world.redis.reads == 3

    await world.caller(keys[2])
    await world.caller(keys[1])
    assert world.redis.reads == 3

    await world.caller(keys[0])
    assert world.redis.reads == 4


async def until(fact: Callable[[], bool]) -> None:
    """Yield to other tasks until `fact` is true."""
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110  # There is no event for it.
            await asyncio.sleep(0)


# Expiring keys.


async def test_a_key_expires(
    world: World,
) -> None:
    world.apps = Apps(world.redis, clock=lambda: world.now_s)
    await world.apps.create(DEMO)
    key = await world.apps.add_key(DEMO)
    (record,) = await world.apps.list_keys()
    await world.apps.rotate_key(record.id, grace_s=60)

    caller = await world.caller(key)
    assert caller.expires_at_s == NOW_S + 60
    assert caller.proof == KeyProof(record.digest)

    world.now_s += 60
    await world.refuses(key, Defect.EXPIRED_KEY)


# Revoked tokens.


async def test_revoked_tokens_of_an_app_are_rejected_within_the_ttl(
    world: World,
) -> None:
    world.apps = Apps(world.redis, clock=lambda: world.now_s)
    demo = await world.apps.create(DEMO)
    token = world.token(demo)
    await world.caller(token)

    await world.apps.revoke_tokens(DEMO)
    world.now_s += RECORD_TTL_S

    await world.refuses(token, Defect.REVOKED)
    assert (await world.caller(world.token(demo))).player == "p1"


async def test_revoking_the_tokens_of_a_player_affects_no_other(
    world: World,
) -> None:
    world.apps = Apps(world.redis, clock=lambda: world.now_s)
    demo = await world.apps.create(DEMO)
    other = tokens.mint(demo, Player("p2"), ttl_s=3_600, now_s=int(world.now_s))
    token = world.token(demo, ttl_s=3_600)
    await world.caller(token)

    await world.apps.revoke_tokens(DEMO, Player("p1"))
    world.now_s += RECORD_TTL_S

    await world.refuses(token, Defect.REVOKED)
    assert (await world.caller(other)).player == "p2"
    assert (await world.caller(world.token(demo))).player == "p1"


async def test_players_are_checked_only_while_revocations_are_recent(
    world: World,
) -> None:
    world.apps = Apps(world.redis, clock=lambda: world.now_s)
    demo = await world.apps.create(DEMO)
    await world.apps.revoke_tokens(DEMO, Player("p2"))
    calls: list[Any] = []
    original = world.apps.revoked_before_s

    async def count(logs: Any) -> list[int]:
        calls.append(logs)
        return await original(logs)

    world.authenticator = Authenticator(
        world.apps, clock=lambda: world.now_s, monotonic=lambda: world.now_s
    )
    world.apps.revoked_before_s = count  # type: ignore[method-assign]  # To count.

    for _ in range(3):
        await world.caller(world.token(demo))
    assert len(calls) == 1

    world.now_s += 2 * 86_400
    await world.caller(world.token(demo))
    assert len(calls) == 1


# The cache of verified tokens.


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list to which each verified signature is appended."""
    noted: list[bytes] = []
    verifies = Key.verifies

    def note(key: Key, signed: bytes, signature: bytes) -> bool:
        noted.append(signature)
        return verifies(key, signed, signature)

    monkeypatch.setattr(Key, "verifies", note)
    return noted


async def test_a_signature_is_verified_once(world: World, checked: list[bytes]) -> None:
    token = world.token(await world.apps.create(DEMO))

    first = await world.caller(token)
    world.now_s += RECORD_TTL_S

    assert await world.caller(token) == first
    assert len(checked) == 1


async def test_a_cached_token_authenticates_no_other(world: World) -> None:
    demo = await world.apps.create(DEMO)
    token = world.token(demo)
    await world.caller(token)
    head, claims, signature = token.split(".")
    other = tokens.mint(demo, Player("p2"), ttl_s=60, now_s=NOW_S).split(".")[1]

    await world.refuses(f"{head}.{other}.{signature}", Defect.SIGNATURE)
    forged = ("B" if signature[0] == "A" else "A") + signature[1:]
    await world.refuses(f"{head}.{claims}.{forged}", Defect.SIGNATURE)
    await world.refuses(f"{head}.{claims}.", Defect.SIGNATURE)


async def test_a_token_of_a_retired_secret_ends_with_the_grace_period(
    world: World,
) -> None:
    world.apps = Apps(world.redis, clock=lambda: world.now_s)
    token = world.token(await world.apps.create(DEMO), ttl_s=3_600)
    await world.caller(token)

    await world.apps.rotate(DEMO, grace_s=60)
    world.now_s += RECORD_TTL_S
    assert (await world.caller(token)).player == "p1"
    world.now_s = NOW_S + 60

    await world.refuses(token, Defect.KEY_ID)


async def test_a_cached_token_is_verified_again_for_a_recreated_app(
    world: World,
) -> None:
    token = world.token(await world.apps.create(DEMO))
    await world.caller(token)
    await world.redis.call("DEL", keys_of().apps, keys_of().audiences, write=True)
    world.now_s += RECORD_TTL_S
    await world.refuses(token, Defect.CLAIM, "aud")

    await world.apps.create(DEMO)

    await world.refuses(token, Defect.KEY_ID)


@pytest.mark.parametrize(
    ("change", "defect", "detail"),
    [
        ({"issuer": "another"}, Defect.CLAIM, "iss"),
        ({"audience": "another"}, Defect.CLAIM, "aud"),
    ],
)
async def test_a_cached_token_is_verified_with_the_present_record(
    world: World, change: dict[str, str], defect: Defect, detail: str
) -> None:
    token = world.token(await world.apps.create(DEMO))
    await world.caller(token)

    await world.apps.change_tokens(DEMO, change)
    world.now_s += RECORD_TTL_S

    await world.refuses(token, defect, detail)


async def test_the_oldest_cached_token_is_evicted(
    world: World, checked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS_MAX", 2)
    demo = await world.apps.create(DEMO)
    kept = [world.token(demo, ttl_s=ttl_s) for ttl_s in (60, 61, 62)]
    for token in kept:
        await world.caller(token)

    await world.caller(kept[2])
    await world.caller(kept[1])
    assert len(checked) == 3

    await world.caller(kept[0])
    assert len(checked) == 4


async def test_rejected_tokens_are_not_cached(
    world: World, checked: list[bytes]
) -> None:
    token = world.token(await world.apps.create(DEMO))
    world.now_s += 60 + tokens.LEEWAY_S

    await world.refuses(token, Defect.EXPIRED)
    await world.refuses(token, Defect.EXPIRED)

    assert len(checked) == 2


# Tokens of foreign issuers.

ISSUER = "https://id.example"
KEY = ECKey.generate_key("P-256")


def jwk(key: Any, kid: str) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": kid}


def foreign_token(
    now_s: float, *, key: Any = KEY, kid: str = "k1", **claims: Any
) -> str:
    header = {"alg": "ES256", "typ": "JWT", "kid": kid}
    payload = {
        **{"iss": ISSUER, "aud": "urn:game", "sub": "p1", "ver": 1},
        **{"iat": int(now_s), "exp": int(now_s) + 60},
        **{"permissions": ["notification:player:self:read"], **claims},
    }
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (header, payload)
    ]
    signed = b".".join(parts)
    signature = JWSRegistry(algorithms=["ES256"]).get_alg("ES256").sign(signed, key)
    encoded = base64.urlsafe_b64encode(signature).rstrip(b"=")
    return b".".join([signed, encoded]).decode()


async def add_foreign(
    world: World, name: str = "game", audience: str = "urn:game", **tokens: Any
) -> None:
    members = {"public_keys": json.dumps({"keys": [jwk(KEY, "k1")]})} | tokens
    await world.apps.create(
        App(name), issuer=ISSUER, algorithm="ES256", audience=audience, **members
    )


async def test_a_foreign_token_belongs_to_the_app_of_its_issuer_and_audience(
    world: World,
) -> None:
    await add_foreign(world)
    await add_foreign(world, "second", "urn:second")
    await world.apps.create(App("urn"))

    caller = await world.caller(foreign_token(NOW_S))
    second = await world.caller(foreign_token(NOW_S, aud="urn:second"))

    assert (caller.app, second.app) == ("game", "second")
    assert isinstance(caller.proof, TokenProof)
    assert (caller.proof.issuer, caller.proof.audience) == (ISSUER, "urn:game")


async def test_one_of_several_audiences_selects_the_app(world: World) -> None:
    await add_foreign(world)
    await world.apps.create(App("account"))

    for audiences in (
        ["urn:game"],
        ["https://id.example/userinfo", "urn:game"],
        ["account", "urn:game"],  # an app's name, but not of this issuer
    ):
        caller = await world.caller(foreign_token(NOW_S, aud=audiences))
        assert caller.app == "game"

    with pytest.raises(Unauthenticated, match="aud"):
        await world.caller(foreign_token(NOW_S, aud=["urn:other", "urn:second"]))


async def test_the_audience_selects_an_app_and_proves_nothing(
    world: World,
) -> None:
    await add_foreign(world)
    demo = await world.apps.create(DEMO)

    # Our token for the other app, and the other issuer's token for ours.
    await world.refuses(foreign_token(NOW_S, aud="demo"), Defect.SIGNATURE, "alg")
    await world.refuses(foreign_token(NOW_S, aud="game"), Defect.CLAIM, "aud")
    await world.refuses(foreign_token(NOW_S, iss="streamer"), Defect.CLAIM, "aud")
    await world.refuses(foreign_token(NOW_S, aud="nobody"), Defect.CLAIM, "aud")
    forged = msgspec.structs.replace(demo, issuer=ISSUER, audience="urn:game")
    await world.refuses(world.token(forged), Defect.SIGNATURE, "alg")


async def test_an_audience_may_be_the_name_of_the_app(world: World) -> None:
    await add_foreign(world, "game", "")

    assert (await world.caller(foreign_token(NOW_S, aud="game"))).app == "game"


async def test_the_app_of_an_audience_is_read_once_in_its_ttl(world: World) -> None:
    await add_foreign(world)
    for _ in range(3):
        await world.caller(foreign_token(NOW_S))

    # The pair and the record: "urn:game" cannot be the name of an app.
    assert world.redis.reads == 2


async def test_only_a_token_of_the_apps_algorithm_triggers_a_fetch(
    world: World,
) -> None:
    calls: list[str] = []

    async def fetch(place: str) -> bytes:
        calls.append(place)
        return json.dumps({"keys": [jwk(KEY, f"k{len(calls)}")]}).encode()

    now_s = [1_000.0]
    key_sets = KeySets(fetch=fetch, monotonic=lambda: now_s[0])
    world.authenticator = Authenticator(
        world.apps,
        key_sets=key_sets,
        clock=lambda: world.now_s,
        monotonic=lambda: world.now_s,
    )
    await add_foreign(world, public_keys="", key_set="https://id.example/jwks")

    assert (await world.caller(foreign_token(NOW_S, kid="k1"))).app == "game"
    now_s[0] += 30
    demo = await world.apps.create(DEMO)
    forged = msgspec.structs.replace(demo, issuer=ISSUER, audience="urn:game")
    await world.refuses(world.token(forged), Defect.SIGNATURE, "alg")
    assert len(calls) == 1
    assert (await world.caller(foreign_token(NOW_S, kid="k2"))).app == "game"
    for i in range(50):
        await world.refuses(foreign_token(NOW_S, kid=f"x{i}"), Defect.KEY_ID)
    assert len(calls) == 2


async def test_a_token_is_rejected_when_its_issuer_removes_the_key(
    world: World,
) -> None:
    keys = [jwk(KEY, "k1")]

    async def fetch(place: str) -> bytes:
        return json.dumps({"keys": keys}).encode()

    world.authenticator = Authenticator(
        world.apps,
        key_sets=KeySets(fetch=fetch, monotonic=lambda: world.now_s),
        clock=lambda: world.now_s,
        monotonic=lambda: world.now_s,
    )
    await add_foreign(world, public_keys="", key_set="https://id.example/jwks")
    token = foreign_token(NOW_S, exp=NOW_S + 3_600)
    assert (await world.caller(token)).app == "game"

    keys[:] = [jwk(ECKey.generate_key("P-256"), "k2")]
    world.now_s += KEY_SET_TTL_S

    await world.refuses(token, Defect.KEY_ID)


async def test_a_token_that_cannot_be_verified_is_issuer_unavailable(
    world: World,
) -> None:
    await add_foreign(world, public_keys="", key_set="/nowhere/jwks.json")

    with pytest.raises(IssuerUnavailable):
        await world.caller(foreign_token(NOW_S))
