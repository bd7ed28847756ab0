"""Equality of requests, and claims of keys."""

from __future__ import annotations

import pytest

from streamer.errors import Conflict, Invalid
from streamer.model import App
from streamer.service.publishing.idempotency import IdempotentRequest
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import ONCE_MS, Once

APP = App("app")
WITHOUT_KEY = IdempotentRequest.of(APP, None, ["ab"])


def test_equal_parts_are_the_same_request() -> None:
    first = IdempotentRequest.of(APP, "k", [b"fragment", "alice"])

    assert first.seed
    assert IdempotentRequest.of(APP, "k", ["fragment", "alice"]) == first


@pytest.mark.parametrize(
    "other",
    [
        IdempotentRequest.of(App("other"), "k", ["ab", "c"]),
        IdempotentRequest.of(APP, "l", ["ab", "c"]),
        IdempotentRequest.of(APP, "k", ["ab"]),
        IdempotentRequest.of(APP, "k", ["a", "bc"]),
    ],
)
def test_another_app_key_or_part_is_another_request(other: IdempotentRequest) -> None:
    assert IdempotentRequest.of(APP, "k", ["ab", "c"]).seed != other.seed


def test_a_request_without_a_key_has_neither_seed_nor_once() -> None:
    assert WITHOUT_KEY.seed == ""
    assert WITHOUT_KEY.once is None


def test_once_has_the_key_and_the_digest() -> None:
    request = IdempotentRequest.of(APP, "k", ["ab"])

    assert request.once == Once("k", request.digest)


@pytest.mark.parametrize("key", ["", "k" * 256, "é", "a\nb"])
def test_an_unacceptable_key_is_refused(key: str) -> None:
    with pytest.raises(Invalid):
        IdempotentRequest.of(APP, key, ["ab"])


async def test_a_key_is_claimed_by_the_first_request(redis: RedisConnection) -> None:
    first = IdempotentRequest.of(APP, "k", ["ab"])
    other = IdempotentRequest.of(APP, "k", ["cd"])
    assert not await first.is_claimed(redis)

    await first.claim(redis)
    await first.claim(redis)

    assert await first.is_claimed(redis)
    with pytest.raises(Conflict):
        await other.claim(redis)
    assert not await other.is_claimed(redis)


async def test_repeating_a_request_does_not_extend_the_claim(
    redis: RedisConnection,
) -> None:
    request = IdempotentRequest.of(APP, "k", ["ab"])
    await request.claim(redis)
    name = keys_of().request(APP, "k")
    assert ONCE_MS - 10_000 < await redis.call("PTTL", name) <= ONCE_MS

    await redis.call("PEXPIRE", name, 5_000, write=True)
    await request.claim(redis)

    assert await redis.call("PTTL", name) <= 5_000


async def test_a_request_without_a_key_claims_nothing(redis: RedisConnection) -> None:
    await WITHOUT_KEY.claim(redis)

    assert not await WITHOUT_KEY.is_claimed(redis)
    assert await redis.call("EXISTS", keys_of().request(APP, "")) == 0
