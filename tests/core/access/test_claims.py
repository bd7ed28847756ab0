"""JSON pointers into the claims of tokens: what they find, and which are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.core.access.claims import (
    ABSENT,
    ClaimPointers,
    find,
    pointer_problem,
    put,
)

# The example of RFC 6901, section 5, but for the two pointers without a name.
DOCUMENT: dict[str, Any] = {
    **{"foo": ["bar", "baz"], "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4},
    **{"i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8},
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/foo/2", ABSENT),
        ("/foo/-", ABSENT),
        ("/foo/00", ABSENT),
        ("/foo/-1", ABSENT),
        ("/foo/1e0", ABSENT),
        ("/foo/\u0660", ABSENT),
        ("/foo/" + "9" * 200, ABSENT),
        ("/foo/bar", ABSENT),
        ("/foo/0/0", ABSENT),
        ("/a~1b/c", ABSENT),
        ("/nothing", ABSENT),
        ("/m~1n", ABSENT),
    ],
)
def test_a_pointer_finds_what_the_standard_says(pointer: str, value: object) -> None:
    assert pointer_problem(pointer) is None
    assert find(DOCUMENT, pointer) == value


def test_an_escaped_tilde_is_no_escape_of_what_follows() -> None:
    assert find({"~1": "literal", "/": "slash"}, "/~01") == "literal"


def test_a_number_names_a_member_of_an_object() -> None:
    assert find({"tenants": {"0": "first"}}, "/tenants/0") == "first"


@pytest.mark.parametrize(
    ("pointer", "advice"),
    [
        ("", "write a slash and the name of a claim: /sub"),
        ("sub", "write /sub"),
        ("#/sub", "write /sub"),
        ("$.sub", "write /sub"),
        ("$", "write a slash and the name of a claim: /sub"),
        ("realm_access/roles", "write /realm_access/roles"),
        ("realm_access.roles", "write /realm_access/roles, or /realm_access.roles"),
        ("https://game.example/roles", "write /https:~1~1game.example~1roles"),
        ("/https://game.example/roles", "write /https:~1~1game.example~1roles"),
        ("/https://game.example/~me", "write /https:~1~1game.example~1~0me"),
        ("/a~2b", "write ~0 for ~ and ~1 for a slash"),
        ("/a~", "write ~0 for ~"),
        ("/", "write a name after each slash"),
        ("/sub/", "none at the end"),
        ("/a//b", "write a name after each slash"),
        ("/iss", "name a claim that says who the player is"),
        ("/aud/0", "name a claim that says"),
        ("/jti", "name a claim that says"),
        ("/ver", "name a claim that says"),
        ("/a\nb", "printable characters only"),
        ("/" + "x" * 255, "at most 255 characters"),
    ],
)
def test_a_mistake_in_a_pointer_is_refused_with_what_to_do(
    pointer: str, advice: str
) -> None:
    problem = pointer_problem(pointer)

    assert problem is not None and advice in problem


@pytest.mark.parametrize(
    "pointers",
    [
        {"permissions": "/sub"},
        {"player": "/user", "permissions": "/user"},
        {"player": "/user", "topics": "/user/topics"},
        {"player": "/permissions/0"},
        {"player": "/topics"},
    ],
)
def test_no_claim_is_read_as_two_things(pointers: dict[str, str]) -> None:
    problem = ClaimPointers(**pointers).problem()

    assert problem is not None and "to another claim" in problem


def test_claims_with_a_common_beginning_do_not_overlap() -> None:
    pointers = ClaimPointers(
        player="/user/id", permissions="/user/id_roles", topics="/user/topics"
    )

    assert pointers.problem() is None


def test_the_claims_that_are_not_mapped_are_the_standard_ones() -> None:
    pointers = ClaimPointers(permissions="/scp")

    assert [pointers.of(it) for it in ("player", "permissions", "topics")] == [
        *("/sub", "/scp", "/topics")
    ]
    assert (pointers.label("player"), pointers.label("permissions")) == ("sub", "/scp")
    encoded = msgspec.json.encode(pointers)
    assert json.loads(encoded) == {"permissions": "/scp"}
    assert msgspec.json.decode(encoded, type=ClaimPointers) == pointers


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5), st.text())
def test_what_is_put_at_a_pointer_is_found_there(names: list[str], value: str) -> None:
    escaped = (it.replace("~", "~0").replace("/", "~1") for it in names)
    pointer = "/" + "/".join(escaped)
    claims: dict[str, Any] = {}

    put(claims, pointer, value)

    assert find(claims, pointer) == value


@given(st.text(max_size=60))
def test_noise_as_a_pointer_never_crashes(pointer: str) -> None:
    if pointer_problem(pointer) is None:
        find(DOCUMENT, pointer)
