"""The limits of free-form JSON values."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.core.json_limits import DEPTH_MAX, INT_MAX, INT_MIN, problem_with


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "text",
        1.5,
        [],
        {},
        INT_MAX,
        INT_MIN,
        [[1, {"a": [None]}]],
        nested(DEPTH_MAX, list),
        nested(DEPTH_MAX, dict),
        [1] * 100_000,
    ],
)
def test_ordinary_values_pass(value: Any) -> None:
    assert problem_with(value) is None


@pytest.mark.parametrize("kind", [list, dict])
def test_deep_nesting_is_refused(kind: type) -> None:
    assert problem_with(nested(DEPTH_MAX + 1, kind)) == (
        "is nested deeper than 64 levels"
    )


def test_deep_nesting_needs_no_recursion() -> None:
    assert problem_with(nested(100_000, list))


@pytest.mark.parametrize("value", [INT_MAX + 1, INT_MIN - 1, -INT_MAX, 10**400])
def test_integers_beyond_64_bits_are_refused_anywhere(value: int) -> None:
    assert problem_with(value) == "has an integer of more than 64 bits"
    assert problem_with([{"a": [0, value]}])


def test_integers_of_any_size_may_be_allowed() -> None:
    for value in (2**64, [-(2**64)], {"a": 10**400}):
        assert problem_with(value, any_integer=True) is None
        assert problem_with(value) is not None
