"""Apps and backend keys on a real store: made once, found again, kept as digests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from streamer.core.access import DEFAULT_SCOPES, SCOPES
from streamer.errors import NotFound, StoreAway
from streamer.model import App
from streamer.store.apps import AppExists, Apps, KeyRecord
from streamer.store.embedded import attach
from streamer.store.keys import APPS, KEYS
from streamer.store.link import Link

DEMO = App("demo")
NOW_MS = 1_800_000_000_123


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[Link]:
    async with attach(tmp_path / "store") as url:
        link = Link(url)
        yield link
        await link.close()


@pytest.fixture
def apps(link: Link) -> Apps:
    return Apps(link, clock=lambda: NOW_MS / 1000)


async def test_a_created_app_is_found_with_a_secret_of_its_own(apps: Apps) -> None:
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


async def test_of_many_who_create_an_app_at_once_one_does(apps: Apps) -> None:
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


async def test_a_key_made_without_scopes_gets_the_default(apps: Apps) -> None:
    await apps.create(DEMO)

    record = await apps.find_key((await apps.add_key(DEMO)).encode())

    assert record is not None
    assert record.scopes == DEFAULT_SCOPES


async def test_a_key_may_have_every_scope(apps: Apps) -> None:
    await apps.create(DEMO)

    record = await apps.find_key((await apps.add_key(DEMO, SCOPES)).encode())

    assert record is not None
    assert record.scopes == SCOPES


async def test_a_key_of_no_app_or_with_an_unknown_scope_is_not_made(
    apps: Apps, link: Link
) -> None:
    with pytest.raises(NotFound, match="the app demo is unknown"):
        await apps.add_key(DEMO)
    await apps.create(DEMO)
    with pytest.raises(ValueError, match="unknown scope 'root'"):
        await apps.add_key(DEMO, {"root"})

    assert await link.call("EXISTS", KEYS) == 0


async def test_the_store_holds_the_digest_of_a_key_and_not_the_key(
    apps: Apps, link: Link
) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO)

    (field, value) = await link.call("HGETALL", KEYS)

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
async def test_anything_but_the_key_finds_nothing(
    apps: Apps, change: Callable[[bytes], bytes]
) -> None:
    await apps.create(DEMO)
    text = await apps.add_key(DEMO)

    assert await apps.find_key(change(text.encode())) is None


async def test_a_record_under_a_digest_that_is_not_its_own_opens_nothing(
    apps: Apps, link: Link
) -> None:
    await apps.create(DEMO)
    record = await apps.find_key((await apps.add_key(DEMO, SCOPES)).encode())
    assert isinstance(record, KeyRecord)
    guess = b"sk_guess"
    planted = hashlib.sha256(guess).hexdigest()
    await link.call("HSET", KEYS, planted, msgspec.json.encode(record), write=True)

    assert await apps.find_key(guess) is None


async def test_records_do_not_expire(apps: Apps, link: Link) -> None:
    await apps.create(DEMO)
    await apps.add_key(DEMO)

    assert await link.call("TTL", APPS) == await link.call("TTL", KEYS) == -1


async def test_a_store_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    apps = Apps(Link(f"unix://{tmp_path}/nothing.sock"))

    with pytest.raises(StoreAway):
        await apps.create(DEMO)
    with pytest.raises(StoreAway):
        await apps.find_key(b"sk_x")
