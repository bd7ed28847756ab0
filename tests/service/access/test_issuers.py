"""
Access tokens as Auth0, Microsoft Entra ID and Keycloak make them.

Two other libraries sign them, PyJWT and joserfc, and add headers as the issuers do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import RSAKey

from streamer.core.access.rights import DEFAULT_PERMISSIONS, Caller
from streamer.core.access.tokens import mint
from streamer.errors import Defect, Unauthenticated
from streamer.model import App, Player
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.key_sets import KeySets
from streamer.service.access.revocation import RevocationCheck
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.server.embedded import attach

NOW_S = 1_800_000_000
GAME = App("game")
KEY = RSAKey.generate_key(2_048)
SELF = "notification:player:self"
READ = frozenset({f"{SELF}:read"})

Claims = dict[str, Any]
Sign = Callable[[Claims, Claims], str]


def _by_pyjwt(header: Claims, claims: Claims) -> str:
    pem = KEY.as_pem(private=True)
    return pyjwt.encode(claims, pem, algorithm="RS256", headers=header)


def _by_joserfc(header: Claims, claims: Claims) -> str:
    # Unknown headers, such as x5t, are the issuers' own.
    return joserfc_jwt.encode({"alg": "RS256", **header}, claims, KEY)


AUTH0: Claims = {
    "iss": "https://studio.eu.auth0.com/",
    "sub": "auth0|6553f1a2b3c4d5e6f7a8b9c0",
    "aud": ["https://push.game.example", "https://studio.eu.auth0.com/userinfo"],
    "iat": NOW_S - 60,
    "exp": NOW_S - 60 + 86_400,
    "azp": "kTq0ClientIdOfTheGame",
    "scope": f"openid profile {SELF}:read",
    "https://game.example/topics": ["news", "match/*"],
}
ENTRA: Claims = {
    "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
    "iss": "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
    "iat": NOW_S - 60,
    "nbf": NOW_S - 60,
    "exp": NOW_S + 4_000,
    "aio": "AXQAi/8IAAAAFm+E/QTG+gFnVxLjWdw8K+61AGrSOuMM",
    "azp": "b14a7505-96e9-4927-91e8-0601d0fc9caa",
    "azpacr": "0",
    "oid": "690222BE-FF1A-4D56-ABD1-7E4F7D38E474",
    "rh": "0.ARoAv4j5",
    "roles": [f"{SELF}:read", "Player.Basic"],
    "scp": f"access_as_user {SELF}:read",
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
    "uti": "tDIbjNQnkEyTVwSnVv1VAA",
    "ver": "2.0",
}
KEYCLOAK: Claims = {
    "exp": NOW_S + 240,
    "iat": NOW_S - 60,
    "auth_time": NOW_S - 61,
    "jti": "onrtac:0b4f4b2a-9f0c-4a55-b5a8-3d1f1b6a1c11",
    "iss": "https://id.example/realms/game",
    "aud": ["streamer", "account"],
    "sub": "b3f4ac1e-6f8e-4d4b-9a3e-2f6b3a0c7d55",
    "typ": "Bearer",
    "azp": "game-client",
    "sid": "d1cf9c0a-4d2f-4d8e-8f8f-0d9b6d9a3a10",
    "acr": "1",
    "allowed-origins": ["https://game.example"],
    "realm_access": {"roles": ["offline_access", f"{SELF}:read"]},
    "resource_access": {"account": {"roles": ["view-profile"]}},
    "scope": "openid email profile",
    "preferred_username": "alice",
}
HEADERS: dict[str, Claims] = {
    "auth0": {"typ": "at+jwt", "kid": "k1"},
    "entra": {"typ": "JWT", "kid": "k1", "x5t": "k1"},
    "keycloak": {"typ": "JWT", "kid": "k1"},
}
TOKENS = {"auth0": AUTH0, "entra": ENTRA, "keycloak": KEYCLOAK}
MEMBERS: dict[str, Claims] = {
    "auth0": {
        "audience": "https://push.game.example",
        "claims": {
            "permissions": "/scope",
            "topics": "/https:~1~1game.example~1topics",
        },
    },
    "entra": {
        "audience": "api://game",
        "other_audiences": ("6e74172b-be56-4843-9ff4-e66a39bb12e3",),
        "claims": {"player": "/oid", "permissions": "/roles"},
    },
    "keycloak": {
        "audience": "streamer",
        "claims": {"permissions": "/realm_access/roles"},
    },
}


class World:
    """A store with an app for one issuer, and what authenticates its tokens."""

    def __init__(self, redis: RedisConnection) -> None:
        self.apps = Apps(redis)
        self.now_s = float(NOW_S)
        self._ticks = 0
        self.authenticator = Authenticator(
            self.apps, clock=lambda: self.now_s, monotonic=self._monotonic
        )

    def _monotonic(self) -> float:
        # No record is cached, so that each change counts at once.
        self._ticks += 100
        return float(self._ticks)

    async def create(self, issuer: str, **members: Any) -> None:
        # As its key set has them: no alg (Entra), and a key for encryption (Keycloak).
        jwk = {**KEY.as_dict(private=False), "kid": "k1", "use": "sig"}
        keys = [{**jwk, "kid": "enc", "use": "enc", "alg": "RSA-OAEP"}, jwk]
        await self.apps.create(
            GAME,
            issuer=TOKENS[issuer]["iss"],
            algorithm="RS256",
            public_keys=json.dumps({"keys": keys}),
        )
        await self.apps.change_tokens(GAME, {**MEMBERS[issuer], **members})

    async def caller(self, token: str) -> Caller:
        return await self.authenticator.caller(Credentials.from_token(token))

    async def refuses(self, issuer: str, detail: str, **claims: Any) -> None:
        token = _by_pyjwt(HEADERS[issuer], without_absent(TOKENS[issuer] | claims))
        with pytest.raises(Unauthenticated) as refused:
            await self.caller(token)
        assert (refused.value.defect, refused.value.detail) == (Defect.CLAIM, detail)


ABSENT = object()


def without_absent(claims: Claims) -> Claims:
    return {name: value for name, value in claims.items() if value is not ABSENT}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with attach(tmp_path / "store") as url:
        redis = RedisConnection(url)
        yield World(redis)
        await redis.close()


def signed(issuer: str, **claims: Any) -> str:
    return _by_pyjwt(HEADERS[issuer], without_absent(TOKENS[issuer] | claims))


@pytest.mark.parametrize("sign", [_by_pyjwt, _by_joserfc])
@pytest.mark.parametrize(
    ("issuer", "player", "permissions", "topics"),
    [
        (
            *("auth0", "auth0|6553f1a2b3c4d5e6f7a8b9c0"),
            *({"openid", "profile", *READ}, ("news", "match/*")),
        ),
        (
            *("entra", "690222be-ff1a-4d56-abd1-7e4f7d38e474"),
            *({"Player.Basic", *READ}, ()),
        ),
        (
            *("keycloak", "b3f4ac1e-6f8e-4d4b-9a3e-2f6b3a0c7d55"),
            *({"offline_access", *READ}, ()),
        ),
    ],
)
async def test_an_access_token_of_an_issuer_authenticates_its_player(
    world: World,
    issuer: str,
    player: str,
    permissions: set[str],
    topics: tuple[str, ...],
    sign: Sign,
) -> None:
    await world.create(issuer)

    caller = await world.caller(sign(HEADERS[issuer], TOKENS[issuer]))

    assert (caller.app, caller.player) == (GAME, player)
    assert (set(caller.permissions), caller.topics) == (permissions, topics)
    assert caller.may_read(Player(player)) and not caller.may_write(Player(player))


async def test_one_of_the_apps_audiences_is_enough(world: World) -> None:
    await world.create("entra")

    for audience in ("api://game", [ENTRA["aud"]], ["other", "api://game"]):
        assert (await world.caller(signed("entra", aud=audience))).app == GAME
    for audience in ("game", ["api://other"], "API://game"):
        await world.refuses("entra", "aud", aud=audience)


async def test_the_player_may_be_nested_and_the_times_fractions(world: World) -> None:
    pointers = {"player": "/user/ids/0", "permissions": "/realm_access/roles"}
    await world.create("keycloak", claims=pointers)

    token = signed(
        "keycloak", user={"ids": ["u-1"]}, iat=NOW_S - 0.25, exp=NOW_S + 59.75
    )

    caller = await world.caller(token)
    assert (caller.player, caller.expires_at_s) == ("u-1", NOW_S + 59)


@pytest.mark.parametrize("player", [ABSENT, "", "me", 7, ["p"], None, "a\nb"])
async def test_what_is_no_player_is_refused_by_the_name_of_its_claim(
    world: World, player: Any
) -> None:
    await world.create("entra")

    await world.refuses("entra", "/oid", oid=player)


@pytest.mark.parametrize("roles", [ABSENT, None, {}, 7, True, [["r"]], [None]])
async def test_what_are_no_permissions_is_refused_by_the_name_of_their_claim(
    world: World, roles: Any
) -> None:
    await world.create("keycloak")

    access = ABSENT if roles is ABSENT else {"roles": roles}
    await world.refuses("keycloak", "/realm_access/roles", realm_access=access)


async def test_a_string_counts_only_where_a_pointer_says_so(world: World) -> None:
    await world.create("auth0", claims={"permissions": ""})
    await world.refuses("auth0", "permissions", permissions=f"{SELF}:read")

    await world.apps.change_tokens(GAME, {"claims": {"permissions": "/permissions"}})

    caller = await world.caller(signed("auth0", permissions=f" {SELF}:read  x "))
    assert caller.permissions == {f"{SELF}:read", "x"}


@pytest.mark.parametrize("scope", ["", " ", "openid", []])
async def test_a_claim_without_known_permissions_gives_no_right(
    world: World, scope: Any
) -> None:
    await world.create("auth0", default_permissions=tuple(DEFAULT_PERMISSIONS))

    caller = await world.caller(signed("auth0", scope=scope))

    assert not caller.may_read(Player(AUTH0["sub"]))


async def test_a_token_without_the_claim_has_the_default_permissions(
    world: World,
) -> None:
    await world.create("keycloak", default_permissions=tuple(DEFAULT_PERMISSIONS))

    for access in (ABSENT, {}, {"roles_": []}, "roles", ["roles"]):
        caller = await world.caller(signed("keycloak", realm_access=access))
        assert caller.permissions == DEFAULT_PERMISSIONS
    # A claim that is there and wrong is still refused.
    await world.refuses("keycloak", "/realm_access/roles", realm_access={"roles": 1})


async def test_roles_of_a_client_stand_beside_default_permissions(
    world: World,
) -> None:
    await world.create(
        "keycloak",
        claims={"permissions": "/resource_access/streamer/roles"},
        default_permissions=tuple(DEFAULT_PERMISSIONS),
    )

    plain = await world.caller(signed("keycloak"))
    access = {"streamer": {"roles": ["notification:player:read"]}}
    support = await world.caller(signed("keycloak", resource_access=access))

    assert plain.permissions == DEFAULT_PERMISSIONS
    assert support.permissions == {"notification:player:read"}


async def test_another_mapping_ends_the_streams_of_the_former(world: World) -> None:
    await world.create("entra")
    check = RevocationCheck(world.apps, KeySets(), clock=lambda: world.now_s)
    caller = await world.caller(signed("entra"))
    assert await check.find_revoked([caller]) == set()

    await world.apps.change_tokens(GAME, {"claims": {"player": "/sub"}})

    assert await check.find_revoked([caller]) == {caller}
    again = await world.caller(signed("entra"))
    assert again.player == ENTRA["sub"]
    assert await check.find_revoked([again]) == set()


async def test_an_audience_that_is_taken_away_ends_its_streams(world: World) -> None:
    await world.create("entra")
    check = RevocationCheck(world.apps, KeySets(), clock=lambda: world.now_s)
    kept, ended = [
        await world.caller(signed("entra", aud=audience))
        for audience in ("api://game", ENTRA["aud"])
    ]

    await world.apps.change_tokens(GAME, {"other_audiences": ()})

    assert await check.find_revoked([kept, ended]) == {ended}
    await world.refuses("entra", "aud")


async def test_no_two_apps_share_one_of_their_audiences(world: World) -> None:
    await world.create("entra")
    other = {
        "issuer": ENTRA["iss"],
        "algorithm": "RS256",
        "key_set": "https://id.example/keys",
    }

    with pytest.raises(ValueError, match="belong to another app"):
        await world.apps.create(
            App("second"), **other, audience="x", other_audiences=(ENTRA["aud"],)
        )
    await world.apps.change_tokens(GAME, {"other_audiences": ("y",)})
    await world.apps.create(App("second"), **other, audience=ENTRA["aud"])

    assert await world.apps.find_name(ENTRA["iss"], ENTRA["aud"]) == "second"
    assert await world.apps.find_name(ENTRA["iss"], "y") == GAME


async def test_a_minted_token_has_its_claims_where_the_app_reads_them(
    world: World,
) -> None:
    pointers = {
        "player": "/user/id",
        "permissions": "/https:~1~1game.example~1roles",
        "topics": "/user/topics",
    }
    await world.apps.create(GAME, issuer="backend")
    record = await world.apps.change_tokens(GAME, {"claims": pointers})

    token = mint(record, Player("p1"), topics=["news"], ttl_s=60, now_s=NOW_S)

    caller = await world.caller(token)
    assert (caller.player, caller.topics) == ("p1", ("news",))
    assert caller.permissions == DEFAULT_PERMISSIONS
    claims = pyjwt.decode(token, options={"verify_signature": False})
    assert claims["user"] == {"id": "p1", "topics": ["news"]}


async def test_a_token_signed_by_pyjwt_with_the_printed_secret_is_valid(
    world: World,
) -> None:
    record = await world.apps.create(GAME, issuer="backend")
    claims = {
        **{"iss": "backend", "aud": ["game"], "sub": "p1"},
        **{"iat": NOW_S - 0.5, "exp": NOW_S + 60.5, "permissions": sorted(READ)},
    }

    token = pyjwt.encode(claims, record.secret, algorithm="HS256")

    assert (await world.caller(token)).player == "p1"


@pytest.mark.parametrize("issuer", TOKENS)
@pytest.mark.parametrize(
    ("claims", "defect", "detail"),
    [
        ({"exp": NOW_S - 40}, Defect.EXPIRED, ""),
        ({"exp": NOW_S + 86_400}, Defect.LIFETIME, ""),
        ({"iat": ABSENT}, Defect.CLAIM, "iat"),
        ({"exp": "1800000100"}, Defect.CLAIM, "exp"),
        ({"nbf": NOW_S + 60}, Defect.CLAIM, "nbf"),
        ({"iss": "https://evil.example"}, Defect.CLAIM, "aud"),
        ({"aud": ABSENT}, Defect.CLAIM, "aud"),
    ],
)
async def test_the_checks_of_every_token_stay(
    world: World, issuer: str, claims: Claims, defect: Defect, detail: str
) -> None:
    await world.create(issuer)

    with pytest.raises(Unauthenticated) as refused:
        await world.caller(signed(issuer, **claims))

    assert (refused.value.defect, refused.value.detail) == (defect, detail)
