"""
When a key set is fetched, its limits, and which keys are valid while it cannot be.

The issuer is a server on this machine that counts requests and sends a given response.
The clock is that of the test.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey

from streamer.core.access.apps import AppRecord
from streamer.errors import IssuerUnavailable
from streamer.model import App
from streamer.service.access import key_sets as module
from streamer.service.access.key_sets import (
    DOCUMENT_BYTES_MAX,
    FETCH_INTERVAL_MIN_S,
    KEY_SET_TTL_S,
    KeySets,
    KeySetUnavailable,
    fetch_key_set,
)
from streamer_conformance.listener import Listener

KEYS = [ECKey.generate_key("P-256").as_dict(private=False) for _ in range(3)]
NOW_S = 1_800_000_000
GUARD_S = 60


def key_set(*kids: str) -> bytes:
    """Return a set of keys with these ids; equal ids are equal keys."""
    members = [{**KEYS[ord(kid[0]) % 3], "kid": kid} for kid in kids]
    return json.dumps({"keys": members}).encode()


def record(location: str, **members: Any) -> AppRecord:
    members = {"algorithm": "ES256", "key_set": location, **members}
    return AppRecord(App("demo"), b"", "https://id.example", 0, **members)


class Issuer:
    """A server of key sets that sends `answer` and counts requests."""

    def __init__(self) -> None:
        self.document = key_set("a")
        self.answer: Callable[[], bytes] = self.ok
        self.request_count = 0
        self.requests: list[bytes] = []
        self.flowing = asyncio.Event()
        """While it is cleared, responses wait."""
        self.flowing.set()
        self.url = ""

    def ok(self) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (
            len(self.document),
            self.document,
        )

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        self.request_count += 1
        await self.flowing.wait()
        writer.write(self.answer())
        await writer.drain()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with Listener(issuer.serve) as listener:
        issuer.url = f"http://127.0.0.1:{listener.port}/jwks.json"
        yield issuer


class World:
    """Key sets and their clock."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.key_sets = KeySets(monotonic=lambda: self.now_s)

    async def kids(self, location: str, kid: str | None = None) -> list[str | None]:
        async with asyncio.timeout(GUARD_S):
            keys = await self.key_sets.keys_of(record(location), kid, now_s=NOW_S)
        return [key.id for key in keys.keys]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.key_sets.close()


async def test_a_set_is_fetched_once_for_concurrent_callers(
    world: World, issuer: Issuer
) -> None:
    key_ids = await asyncio.gather(*(world.kids(issuer.url, "a") for _ in range(50)))

    assert key_ids == [["a"]] * 50
    assert await world.kids(issuer.url, "a") == ["a"]
    assert issuer.request_count == 1


async def test_a_rotated_key_is_found_by_its_id(world: World, issuer: Issuer) -> None:
    await world.kids(issuer.url, "a")
    issuer.document = key_set("a", "b")
    world.now_s += FETCH_INTERVAL_MIN_S

    assert await world.kids(issuer.url, "b") == ["a", "b"]
    assert issuer.request_count == 2


async def test_a_flood_of_unknown_ids_is_one_fetch(
    world: World, issuer: Issuer
) -> None:
    await world.kids(issuer.url, "a")
    world.now_s += FETCH_INTERVAL_MIN_S

    for i in range(200):
        assert await world.kids(issuer.url, f"unknown {i}") == ["a"]
    assert issuer.request_count == 2

    world.now_s += FETCH_INTERVAL_MIN_S - 0.1
    await world.kids(issuer.url, "unknown")
    assert issuer.request_count == 2
    world.now_s += 0.1
    await world.kids(issuer.url, "unknown")
    assert issuer.request_count == 3


async def test_callers_wait_for_the_fetch_in_progress(
    world: World, issuer: Issuer
) -> None:
    await world.kids(issuer.url, "a")
    issuer.document = key_set("b")
    issuer.flowing.clear()
    world.now_s += FETCH_INTERVAL_MIN_S
    asking = [asyncio.create_task(world.kids(issuer.url, "b")) for _ in range(20)]
    async with asyncio.timeout(GUARD_S):
        while issuer.request_count < 2:  # noqa: ASYNC110  # It happens in another task.
            await asyncio.sleep(0.001)

    # Callers that need no new key do not wait.
    assert await world.kids(issuer.url, "a") == ["a"]
    asking[0].cancel()
    issuer.flowing.set()

    assert await asyncio.gather(*asking[1:]) == [["b"]] * 19
    assert issuer.request_count == 2


async def test_a_removed_key_is_invalid_after_the_ttl(
    world: World, issuer: Issuer
) -> None:
    await world.kids(issuer.url, "a")
    issuer.document = key_set("b")

    world.now_s += KEY_SET_TTL_S - 1
    assert await world.kids(issuer.url, "a") == ["a"]
    world.now_s += 1
    assert await world.kids(issuer.url, "a") == ["b"]


BAD_ANSWERS: dict[str, bytes] = {
    "an error": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
    "no HTTP": b"\x16\x03\x01\x00\x00",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "an empty set": b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}',
    "half of it": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_the_last_set_stays_in_use_when_a_fetch_fails(
    world: World, issuer: Issuer, answer: bytes
) -> None:
    await world.kids(issuer.url, "a")
    issuer.answer = lambda: answer
    world.now_s += KEY_SET_TTL_S

    for _ in range(3):
        assert await world.kids(issuer.url, "a") == ["a"]
        assert await world.kids(issuer.url, "b") == ["a"]
    assert issuer.request_count == 2

    world.now_s += FETCH_INTERVAL_MIN_S
    issuer.answer = issuer.ok
    issuer.document = key_set("b")
    assert await world.kids(issuer.url, "b") == ["b"]


async def test_callers_do_not_wait_for_an_issuer_that_failed_before(
    world: World, issuer: Issuer
) -> None:
    await world.kids(issuer.url, "a")
    issuer.answer = lambda: b""
    world.now_s += KEY_SET_TTL_S
    await world.kids(issuer.url, "a")
    issuer.flowing.clear()
    world.now_s += FETCH_INTERVAL_MIN_S

    # The response never comes.
    assert await world.kids(issuer.url, "a") == ["a"]


async def test_closing_cancels_a_fetch_and_whoever_waits_for_it(
    world: World, issuer: Issuer
) -> None:
    issuer.flowing.clear()
    waiting = asyncio.create_task(world.kids(issuer.url, "a"))
    async with asyncio.timeout(GUARD_S):
        while not issuer.request_count:  # noqa: ASYNC110  # It happens in another task.
            await asyncio.sleep(0.001)

    await world.key_sets.close()

    await asyncio.wait([waiting], timeout=GUARD_S)
    assert waiting.cancelled()
    assert [task for task in asyncio.all_tasks() if task.get_name() == "key set"] == []


async def test_without_any_set_the_issuer_is_unavailable_and_retried(
    world: World, issuer: Issuer
) -> None:
    issuer.answer = lambda: b""

    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await world.kids(issuer.url, "a")
    assert issuer.request_count == 1

    issuer.answer = issuer.ok
    world.now_s += FETCH_INTERVAL_MIN_S
    assert await world.kids(issuer.url, "a") == ["a"]


async def test_an_unreachable_issuer_is_unavailable(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(IssuerUnavailable):
        await world.kids("http://user:secret@127.0.0.1:1/jwks?secret=1")

    assert "could not retrieve the key set from http://127.0.0.1/jwks" in caplog.text
    assert "secret" not in caplog.text


async def test_a_slow_issuer_times_out(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FETCH_TIMEOUT_S", 0.05)
    issuer.flowing.clear()

    with pytest.raises(IssuerUnavailable):
        await world.kids(issuer.url, "a")


async def test_an_endless_set_is_rejected(issuer: Issuer) -> None:
    issuer.answer = lambda: (
        b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (DOCUMENT_BYTES_MAX + 65_536)
    )

    with pytest.raises(KeySetUnavailable, match="larger than 262144 bytes"):
        await fetch_key_set(issuer.url)


async def test_a_compressed_set_is_not_decompressed(issuer: Issuer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    issuer.answer = lambda: head + b"\x1f\x8b\x08\x00"

    assert await fetch_key_set(issuer.url) == b"\x1f\x8b\x08\x00"
    assert b"accept-encoding: identity" in issuer.requests[0].lower()


async def test_a_redirect_is_not_followed(issuer: Issuer) -> None:
    there = issuer.url.replace("jwks", "there").encode()
    issuer.answer = lambda: (
        b"HTTP/1.1 301 There\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % there
    )

    with pytest.raises(KeySetUnavailable, match="HTTP status 301"):
        await fetch_key_set(issuer.url)
    assert issuer.request_count == 1


# Files.


async def test_a_set_in_a_file_is_read_again_for_an_unknown_id(
    world: World, tmp_path: Path
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set("a"))
    assert await world.kids(str(path), "a") == ["a"]

    path.write_bytes(key_set("a", "b"))
    world.now_s += FETCH_INTERVAL_MIN_S

    assert await world.kids(str(path), "b") == ["a", "b"]


async def test_only_regular_files_are_read(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b" " * (DOCUMENT_BYTES_MAX + 1))

    for location, problem in [
        (tmp_path / "nothing", "No such file"),
        (tmp_path, "irectory"),
        (pipe, "not a regular file"),
        (large, "larger than"),
    ]:
        with pytest.raises(KeySetUnavailable, match=problem):
            async with asyncio.timeout(GUARD_S):
                await fetch_key_set(str(location))


# Keys in the record.


async def test_keys_in_the_record_need_no_fetch(world: World) -> None:
    secret = AppRecord(App("demo"), bytes(32), "streamer", 0)
    public = record("", key_set="", public_keys=key_set("a").decode())

    keys = (await world.key_sets.keys_of(secret, "x", now_s=NOW_S)).keys
    assert {key.name for key in keys} == {secret.key_id}
    first = await world.key_sets.keys_of(public, "x", now_s=NOW_S)
    assert [key.id for key in first.keys] == ["a"]
    assert await world.key_sets.keys_of(public, now_s=NOW_S) is first


async def test_two_apps_of_one_issuer_are_one_fetch(
    world: World, issuer: Issuer
) -> None:
    for algorithm in ("ES256", "RS256"):
        app = record(issuer.url, algorithm=algorithm)
        await world.key_sets.keys_of(app, now_s=NOW_S)

    assert issuer.request_count == 1
