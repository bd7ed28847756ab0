"""The tokens that a backend may mint."""

from __future__ import annotations

import time
from typing import Any

import pytest

from streamer.core.access.rights import Caller
from streamer.errors import Forbidden, Invalid
from streamer.model import App, Player
from streamer.service.access.authenticator import Authenticator, Credentials
from streamer.service.access.minting import MintedToken, TokenMint
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection

DEMO = App("demo")
MINTER = Caller.from_key(DEMO, frozenset({"tokens:mint"}))


@pytest.fixture
def apps(redis: RedisConnection) -> Apps:
    return Apps(redis)


async def make(apps: Apps, caller: Caller = MINTER, **arguments: Any) -> MintedToken:
    defaults: dict[str, Any] = {
        "permissions": (),
        "topics": (),
        "ttl_s": 60,
        **arguments,
    }
    return await TokenMint(apps).mint(caller, Player("p1"), **defaults)


async def test_a_minted_token_authenticates(apps: Apps) -> None:
    await apps.create(DEMO)

    minted = await make(apps)

    caller = await Authenticator(apps).caller(Credentials.from_token(minted.token))
    assert (caller.app, caller.player) == (DEMO, "p1")
    assert caller.permissions == {"notification:player:self:*"}
    assert caller.expires_at_s == minted.expires_at_s
    assert 0 < minted.expires_at_s - time.time() <= 60


async def test_a_token_minted_right_after_a_revocation_is_valid(apps: Apps) -> None:
    await apps.create(DEMO)
    await apps.revoke_tokens(DEMO, Player("p1"))
    await apps.revoke_tokens(DEMO)

    minted = await make(apps)

    caller = await Authenticator(apps).caller(Credentials.from_token(minted.token))
    assert caller.expires_at_s == minted.expires_at_s


async def test_minting_requires_its_scope_and_grants_no_right_that_the_key_lacks(
    apps: Apps,
) -> None:
    await apps.create(DEMO)
    reader = Caller.from_key(DEMO, frozenset({"notifications:read"}))
    player = Caller(DEMO, Player("p1"), frozenset({"notification:player:*"}))

    for caller in (reader, player):
        with pytest.raises(Forbidden, match="tokens:mint"):
            await make(apps, caller)
    with pytest.raises(Forbidden, match="notifications:read"):
        await make(apps, permissions=["notification:player:read"])


async def test_an_app_without_a_secret_mints_no_tokens(apps: Apps) -> None:
    await apps.create(DEMO, algorithm="RS256", key_set="https://id.example/jwks")

    with pytest.raises(Forbidden, match="its own secret"):
        await make(apps)
    with pytest.raises(Forbidden, match="its own secret"):
        await make(apps, Caller.from_key(App("x"), frozenset({"tokens:mint"})))


@pytest.mark.parametrize(
    "arguments",
    [
        {"permissions": ["root"]},
        {"ttl_s": 0},
        {"ttl_s": 86_401},
        {"topics": ["ü" * 255] * 30},
    ],
)
async def test_invalid_arguments_mint_no_token(
    apps: Apps, arguments: dict[str, Any]
) -> None:
    await apps.create(DEMO)

    with pytest.raises(Invalid):
        await make(apps, **arguments)
