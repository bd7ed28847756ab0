"""Which request is a repetition of another."""

from __future__ import annotations

import pytest

from streamer.errors import Invalid
from streamer.model import App
from streamer.service.publishing.idempotency import IdempotentRequest

APP = App("app")


def test_the_same_request_makes_the_same_things() -> None:
    first = IdempotentRequest.of(APP, "k", b"fragment", "alice")

    assert first.seed
    assert IdempotentRequest.of(APP, "k", "fragment", "alice") == first


@pytest.mark.parametrize(
    "other",
    [
        IdempotentRequest.of(App("other"), "k", "ab", "c"),
        IdempotentRequest.of(APP, "l", "ab", "c"),
        IdempotentRequest.of(APP, "k", "ab"),
        IdempotentRequest.of(APP, "k", "a", "bc"),
    ],
)
def test_another_request_makes_other_things(other: IdempotentRequest) -> None:
    assert IdempotentRequest.of(APP, "k", "ab", "c").seed != other.seed


def test_without_a_key_nothing_is_a_repetition() -> None:
    assert IdempotentRequest.of(APP, None, "ab").seed == ""


def test_a_key_that_is_not_acceptable_is_refused() -> None:
    with pytest.raises(Invalid):
        IdempotentRequest.of(APP, "", "ab")
