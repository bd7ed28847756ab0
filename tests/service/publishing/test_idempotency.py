"""Which request is a repetition of another."""

from __future__ import annotations

import pytest

from streamer.errors import Invalid
from streamer.model import App
from streamer.service.publishing.idempotency import RequestKey

APP = App("app")


def test_the_same_request_makes_the_same_things() -> None:
    first = RequestKey.of(APP, "k", b"fragment", "alice")

    assert first.seed
    assert RequestKey.of(APP, "k", "fragment", "alice") == first


@pytest.mark.parametrize(
    "other",
    [
        RequestKey.of(App("other"), "k", "ab", "c"),
        RequestKey.of(APP, "l", "ab", "c"),
        RequestKey.of(APP, "k", "ab"),
        RequestKey.of(APP, "k", "a", "bc"),
    ],
)
def test_another_request_makes_other_things(other: RequestKey) -> None:
    assert RequestKey.of(APP, "k", "ab", "c").seed != other.seed


def test_without_a_key_nothing_is_a_repetition() -> None:
    assert RequestKey.of(APP, None, "ab").seed == ""


def test_a_key_that_is_not_acceptable_is_refused() -> None:
    with pytest.raises(Invalid):
        RequestKey.of(APP, "", "ab")
