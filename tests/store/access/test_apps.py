"""Apps and backend keys on a real store: created once, stored as digests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.core.access.apps import RETIRED_MAX
from streamer.core.access.rights import DEFAULT_SCOPES, SCOPES
from streamer.core.access.tokens import LEEWAY_S, TTL_MAX_S
from streamer.errors import NotFound, StoreUnavailable
from streamer.model import App, Log, Player
from streamer.store.access.apps import (
    AppExists,
    Apps,
    AudienceTaken,
    KeyRecord,
    key_digest,
)
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.server.embedded import attach

DEMO = App("demo")
NOW_MS = 1_800_000_000_123
RS256: dict[str, Any] = {
    "issuer": "https://id.example",
    "algorithm": "RS256",
    "key_set": "https://id.example/jwks.json",
}


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisConnection]:
    async with attach(tmp_path / "store") as url:
        redis = RedisConnection(url)
        yield redis
        await redis.close()


@pytest.fixture
def apps(redis: RedisConnection) -> Apps:
    return Apps(redis, clock=lambda: NOW_MS / 1000)


async def test_a_created_app_has_its_own_secret(apps: Apps) -> None:
    demo = await apps.create(DEMO)
    other = await apps.create(App("1001"), issuer="https://id.example")

    assert await apps.get(DEMO) == demo
    assert (demo.issuer, demo.created_at_ms) == ("streamer", NOW_MS)
    assert other.issuer == "https://id.example"
    assert len(demo.secret) == len(other.secret) == 32
    assert demo.secret != other.secret


async def test_an_unknown_app_is_none(apps: Apps) -> None:
    assert await apps.get(App("nobody")) is None


async def test_apps_are_listed_by_name(apps: Apps) -> None:
    assert await apps.list() == ()

    for name in ("b", "a", "1001"):
        await apps.create(App(name))

    assert [record.name for record in await apps.list()] == ["1001", "a", "b"]


async def test_an_app_is_created_once(apps: Apps) -> None:
    first = await apps.create(DEMO)

    with pytest.raises(AppExists, match="the app demo exists already"):
        await apps.create(DEMO, issuer="else")

    assert await apps.get(DEMO) == first


async def test_of_concurrent_creations_of_an_app_one_succeeds(apps: Apps) -> None:
    outcomes = await asyncio.gather(
        *(apps.create(DEMO) for _ in range(20)), return_exceptions=True
    )

    made = [outcome for outcome in outcomes if not isinstance(outcome, AppExists)]
    assert made == [await apps.get(DEMO)]


async def test_a_key_is_found_by_its_text(apps: Apps) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO, {"notifications:send"})

    record = await apps.find_key(text.encode())

    assert text.startswith("sk_")
    assert len(text) == 46
    assert record is not None
    assert (record.app, record.created_at_ms) == (DEMO, NOW_MS)
    assert record.scopes == {"notifications:send"}


async def test_a_key_created_without_scopes_gets_the_default(apps: Apps) -> None:
    await apps.create(DEMO)

    record = await apps.find_key((await apps.add_key(DEMO)).encode())

    assert record is not None
    assert record.scopes == DEFAULT_SCOPES


async def test_a_key_may_have_every_scope(apps: Apps) -> None:
    await apps.create(DEMO)

    record = await apps.find_key((await apps.add_key(DEMO, SCOPES)).encode())

    assert record is not None
    assert record.scopes == SCOPES


async def test_a_key_needs_an_app_and_known_scopes(
    apps: Apps, redis: RedisConnection
) -> None:
    with pytest.raises(NotFound, match="the app demo does not exist"):
        await apps.add_key(DEMO)
    await apps.create(DEMO)
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        await apps.add_key(DEMO, {"root"})

    assert await redis.call("EXISTS", keys_of().backend_keys) == 0


async def test_the_store_holds_the_digest_of_a_key_and_not_the_key(
    apps: Apps, redis: RedisConnection
) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO)

    (field, value) = await redis.call("HGETALL", keys_of().backend_keys)

    assert field.decode() == hashlib.sha256(text.encode()).hexdigest()
    assert text.encode() not in value
    assert text[3:].encode() not in value


@pytest.mark.parametrize(
    "change",
    [
        lambda key: b"",
        lambda key: b"sk_",
        lambda key: key[:-1],
        lambda key: key + b"A",
        lambda key: key[3:],
        lambda key: key.upper(),
        lambda key: b" " + key,
        lambda key: key[:-1] + b"\xff",
        lambda key: key[:-2] + "é".encode(),
        lambda key: key + b"\0" * 100_000,
        lambda key: hashlib.sha256(key).hexdigest().encode(),
    ],
)
async def test_only_the_key_itself_is_found(
    apps: Apps, change: Callable[[bytes], bytes]
) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO)

    assert await apps.find_key(change(text.encode())) is None


async def test_a_record_under_another_digest_grants_nothing(
    apps: Apps, redis: RedisConnection
) -> None:
    await apps.create(DEMO)
    record = await apps.find_key((await apps.add_key(DEMO, SCOPES)).encode())
    assert isinstance(record, KeyRecord)
    guess = b"sk_guess"
    planted = hashlib.sha256(guess).hexdigest()
    await redis.call(
        "HSET", keys_of().backend_keys, planted, msgspec.json.encode(record), write=True
    )

    assert await apps.find_key(guess) is None


async def test_records_do_not_expire(apps: Apps, redis: RedisConnection) -> None:
    await apps.create(DEMO)
    await apps.add_key(DEMO)

    assert (
        await redis.call("TTL", keys_of().apps)
        == await redis.call("TTL", keys_of().backend_keys)
        == -1
    )


async def test_an_unreachable_store_is_reported(tmp_path: Path) -> None:
    apps = Apps(RedisConnection(f"unix://{tmp_path}/nothing.sock"))

    with pytest.raises(StoreUnavailable):
        await apps.create(DEMO)
    with pytest.raises(StoreUnavailable):
        await apps.find_key(b"sk_x")


# Issuers and audiences.


async def test_an_issuer_and_audience_identify_their_app(apps: Apps) -> None:
    await apps.create(DEMO)
    await apps.create(App("game"), audience="urn:game", **RS256)

    assert await apps.find_name("streamer", "demo") == "demo"
    assert await apps.find_name("https://id.example", "urn:game") == "game"
    assert await apps.find_name("streamer", "urn:game") is None
    assert await apps.find_name("https://id.example", "game") is None


async def test_no_two_apps_accept_the_same_tokens(apps: Apps) -> None:
    game = await apps.create(App("game"), audience="urn:game", **RS256)

    with pytest.raises(AudienceTaken, match="belong to another app"):
        await apps.create(App("second"), audience="urn:game", **RS256)
    await apps.create(App("second"), **RS256)
    with pytest.raises(AudienceTaken):
        await apps.change_tokens(App("second"), {"audience": "urn:game"})
    with pytest.raises(AudienceTaken):
        await apps.create(App("third"), audience="second", **RS256)

    assert await apps.get(App("third")) is None
    assert await apps.get(App("game")) == game


async def test_of_concurrent_claims_of_an_audience_one_succeeds(apps: Apps) -> None:
    outcomes = await asyncio.gather(
        *(apps.create(App(f"app{i}"), audience="urn:game", **RS256) for i in range(10)),
        return_exceptions=True,
    )

    made = [one for one in outcomes if not isinstance(one, AudienceTaken)]
    assert made == list(await apps.list())
    assert len(made) == 1


async def test_a_released_audience_is_free(apps: Apps) -> None:
    await apps.create(App("game"), audience="urn:game", **RS256)
    await apps.change_tokens(App("game"), {"audience": "urn:other"})

    await apps.create(App("second"), audience="urn:game", **RS256)

    assert await apps.find_name("https://id.example", "urn:game") == "second"
    assert await apps.find_name("https://id.example", "urn:other") == "game"


async def test_an_app_that_does_not_exist_is_not_changed(apps: Apps) -> None:
    for change in (
        apps.change_tokens(DEMO, {"issuer": "x"}),
        apps.rotate(DEMO),
        apps.revoke_tokens(DEMO),
        apps.revoke_tokens(DEMO, Player("p1")),
    ):
        with pytest.raises(NotFound, match="the app demo"):
            await change


async def test_concurrent_changes_do_not_undo_each_other(apps: Apps) -> None:
    await apps.create(DEMO)

    await asyncio.gather(
        apps.rotate(DEMO),
        apps.revoke_tokens(DEMO),
        apps.revoke_tokens(DEMO, Player("p1")),
        apps.change_tokens(DEMO, {"issuer": "else"}),
        apps.change_tokens(DEMO, {"audience": "urn:demo"}),
    )

    record = await apps.get(DEMO)
    assert record is not None
    assert (record.issuer, record.audience) == ("else", "urn:demo")
    assert len(record.retired) == 1
    assert min(record.not_before_s, record.revoking_until_s) > 0


async def test_a_rotated_secret_stays_valid_for_its_grace(apps: Apps) -> None:
    first = await apps.create(DEMO)

    second = await apps.rotate(DEMO, grace_s=60)
    third = await apps.rotate(DEMO, grace_s=0)

    now_s = NOW_MS // 1000
    assert len({first.secret, second.secret, third.secret}) == 3
    assert [kept.secret for kept in second.retired] == [first.secret]
    assert [kept.secret for kept in third.retired] == [first.secret]
    assert second.retired[0].until_s == now_s + 60
    assert await apps.get(DEMO) == third


async def test_the_number_of_earlier_secrets_is_limited(apps: Apps) -> None:
    await apps.create(DEMO)

    for _ in range(RETIRED_MAX + 2):
        record = await apps.rotate(DEMO)

    assert len(record.retired) == RETIRED_MAX


async def test_an_app_without_a_secret_is_not_rotated(apps: Apps) -> None:
    await apps.create(DEMO, **RS256)

    with pytest.raises(ValueError, match="has no secret of its own"):
        await apps.rotate(DEMO)


async def test_the_tokens_of_an_app_are_revoked_up_to_this_second(
    apps: Apps,
) -> None:
    await apps.create(DEMO)

    await apps.revoke_tokens(DEMO)

    record = await apps.get(DEMO)
    assert record is not None
    assert record.not_before_s == NOW_MS // 1000 + 1
    assert record.revoking_until_s == 0


async def test_the_tokens_of_a_player_are_revoked_until_they_expire(
    apps: Apps, redis: RedisConnection
) -> None:
    await apps.create(DEMO)
    mine, other = Log(DEMO, Player("p1")), Log(DEMO, Player("p2"))

    await apps.revoke_tokens(DEMO, Player("p1"))

    now_s = NOW_MS // 1000
    record = await apps.get(DEMO)
    assert record is not None
    assert await apps.revoked_before_s([mine, other]) == [now_s + 1, 0]
    assert record.revoking_until_s > now_s + TTL_MAX_S + LEEWAY_S
    assert record.not_before_s == 0
    ttl_s = await redis.call("TTL", keys_of().revoked(mine))
    assert TTL_MAX_S + LEEWAY_S < ttl_s <= TTL_MAX_S + 3 * LEEWAY_S


async def test_several_apps_are_read_at_once(apps: Apps) -> None:
    demo = await apps.create(DEMO)

    assert await apps.get_many([App("x"), DEMO]) == [None, demo]
    assert await apps.get_many([]) == []


# Keys by their id.


async def key_ids(apps: Apps, app: App | None = None) -> list[str]:
    return [record.id for record in await apps.list_keys(app)]


async def test_keys_are_listed_by_app_with_ids_that_grant_nothing(apps: Apps) -> None:
    for name in ("demo", "other"):
        await apps.create(App(name))
    texts = [await apps.add_key(DEMO), await apps.add_key(App("other"))]

    (mine,) = await apps.list_keys(DEMO)

    assert mine == await apps.find_key(texts[0].encode())
    assert len(await key_ids(apps)) == 2
    assert mine.id not in texts[0] + mine.digest.hex()
    assert await apps.find_key(mine.id.encode()) is None
    assert await apps.find_key(mine.digest.hex().encode()) is None


async def test_a_revoked_key_is_deleted_and_the_others_stay(apps: Apps) -> None:
    await apps.create(DEMO)
    texts = [await apps.add_key(DEMO) for _ in range(2)]
    record = await apps.find_key(texts[0].encode())
    assert record is not None

    await apps.revoke_key(record.id)

    assert await apps.find_key(texts[0].encode()) is None
    assert await apps.find_key(texts[1].encode()) is not None
    with pytest.raises(NotFound, match="the key"):
        await apps.revoke_key(record.id)


async def test_a_rotated_key_expires_after_its_grace(
    apps: Apps,
) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO, {"notifications:send"})
    (old,) = await apps.list_keys(DEMO)

    successor = await apps.find_key(
        (await apps.rotate_key(old.id, grace_s=60)).encode()
    )

    ended = await apps.find_key(text.encode())
    assert successor is not None
    assert ended is not None
    assert successor.app == DEMO
    assert successor.scopes == {"notifications:send"}
    assert successor.expires_at_ms == 0
    assert ended.expires_at_ms == NOW_MS + 60_000
    assert not ended.is_expired(NOW_MS + 59_999)
    assert ended.is_expired(NOW_MS + 60_000)


async def test_a_second_rotation_does_not_extend_the_grace(apps: Apps) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO)
    (old,) = await apps.list_keys(DEMO)

    await apps.rotate_key(old.id, grace_s=60)
    await apps.rotate_key(old.id, grace_s=600)

    ended = await apps.find_key(text.encode())
    assert ended is not None
    assert ended.expires_at_ms == NOW_MS + 60_000


async def test_a_key_revoked_during_its_rotation_stays_revoked(
    apps: Apps, redis: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO)
    (old,) = await apps.list_keys(DEMO)
    run = redis.run

    async def run_late(*args: Any, **kwargs: Any) -> Any:
        await apps.revoke_key(old.id)
        monkeypatch.setattr(redis, "run", run)
        return await run(*args, **kwargs)

    monkeypatch.setattr(redis, "run", run_late)
    with pytest.raises(NotFound):
        await apps.rotate_key(old.id)

    assert await apps.find_key(text.encode()) is None
    assert await key_ids(apps) == []


async def test_a_record_without_an_expiry_can_be_rotated(
    apps: Apps, redis: RedisConnection
) -> None:
    await apps.create(DEMO)
    await apps.add_key(DEMO)
    (field, encoded) = await redis.call("HGETALL", keys_of().backend_keys)
    members = msgspec.json.decode(encoded)
    del members["expires_at_ms"]
    await redis.call(
        "HSET", keys_of().backend_keys, field, msgspec.json.encode(members), write=True
    )
    (old,) = await apps.list_keys()

    text = await apps.rotate_key(old.id)

    assert await apps.find_key(text.encode()) is not None


async def test_the_latest_use_of_a_key_stays_until_it_is_revoked(apps: Apps) -> None:
    await apps.create(DEMO)
    used, unused = [key_digest((await apps.add_key(DEMO)).encode()) for _ in range(2)]

    await apps.note_uses({used: NOW_MS, key_digest(b"sk_unknown"): NOW_MS})
    await apps.note_uses({used: NOW_MS - 60_000})  # a node whose clock is late
    assert await apps.key_uses() == {used: NOW_MS}
    await apps.note_uses({used: NOW_MS + 1, unused: NOW_MS})
    assert await apps.key_uses() == {used: NOW_MS + 1, unused: NOW_MS}

    for record in await apps.list_keys():
        await apps.revoke_key(record.id)
    await apps.note_uses({used: NOW_MS + 2})
    assert await apps.key_uses() == {}


async def test_the_uses_of_many_keys_are_stored(apps: Apps) -> None:
    await apps.create(DEMO)
    digests = [key_digest((await apps.add_key(DEMO)).encode()) for _ in range(501)]

    await apps.note_uses(dict.fromkeys(digests, NOW_MS))

    assert await apps.key_uses() == dict.fromkeys(digests, NOW_MS)
