"""Every problem of a body in one response."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from streamer.errors import Invalid, Malformed
from streamer.model import App
from streamer.surfaces.native.common.body_types import PROBLEMS_MAX, BodyType
from streamer.surfaces.native.publishing.wire import decode_publish

DEMO = App("demo")


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=3, title="a name")]
    size: int = 0


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    leaves: Annotated[list[Leaf], Meta(max_length=200)] | None = None
    best: Leaf | msgspec.UnsetType = msgspec.UNSET


TREE = BodyType[Tree](Tree)


def problems_of(body: Any) -> dict[str, str]:
    """Return the problems of a tree by location."""
    with pytest.raises(Invalid) as refused:
        TREE.decode(json.dumps(body).encode())
    problems = refused.value.errors
    assert all(error.where[0] == "body" for error in problems)
    return {"/".join(map(str, error.where[1:])): error.problem for error in problems}


def test_a_valid_body_is_decoded() -> None:
    tree = TREE.decode(b'{"leaves":[{"name":"a"}],"best":{"name":"b","size":1}}')

    assert tree == Tree([Leaf("a")], Leaf("b", 1))


def test_problems_of_all_fields_and_items_are_reported() -> None:
    leaves = [{"name": 1, "size": "x"}, {"name": "a"}, None, {"name": "a", "sise": 1}]

    problems = problems_of({"leaves": leaves, "best": {}, "more": 1})

    assert list(problems) == [
        "leaves/0/name",
        "leaves/0/size",
        "leaves/2",
        "leaves/3/sise",
        "best/name",
        "more",
    ]
    assert problems["leaves/3/sise"] == problems["more"] == "is not a known field"
    assert problems["best/name"] == "is missing"


def test_a_problem_names_the_title_of_the_type() -> None:
    assert problems_of({"best": {"name": "long"}}) == {"best/name": "is not a name"}


def test_valid_fields_may_be_invalid_together() -> None:
    leaves = [{"name": "a"}] * 201

    assert problems_of({"leaves": leaves}) == {
        "leaves": "Expected `array` of length <= 200"
    }


def test_a_body_that_is_not_an_object_has_one_problem() -> None:
    assert problems_of([]) == {"": "Expected `object`, got `array`"}


def test_the_number_of_problems_is_limited() -> None:
    assert len(problems_of({"leaves": [{}] * 200})) == PROBLEMS_MAX


def test_a_valid_duplicate_does_not_excuse_an_invalid_field() -> None:
    with pytest.raises(Invalid) as refused:
        TREE.decode(b'{"best":1,"best":{"name":"a"}}')

    assert refused.value.errors[0].where == ("body", "best")


@pytest.mark.parametrize("body", [b"", b"{", b'{"best":1,', b'{"best":\xff}'])
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        TREE.decode(body)


FIELDS = [
    *("to", "players", "topic", "everyone", "title", "data", "properties"),
    *("send_at", "spread_s", "expires_at", "ttl_s", "device", "persist"),
]
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=500)
@given(VALUES)
def test_any_publish_is_accepted_or_refused_with_valid_pointers(value: Any) -> None:
    try:
        requests, many = decode_publish(DEMO, json.dumps(value).encode())
    except Invalid as refused:
        for error in refused.errors:
            assert error.where[0] == "body"
            there = value
            # Except for a missing field, whose location does not exist.
            for step in error.where[1:-1]:
                there = there[step]
    else:
        assert many == isinstance(value, list)
        assert len(requests) == (len(value) if many else 1)
