"""The record of a deployment: what it says, whom it refuses, what has none."""

from __future__ import annotations

import msgspec
import pytest

from streamer.core.deployment import (
    FORMAT,
    Deployment,
    format_problem,
    holds_data,
    name_problem,
    parse_deployment,
)


def test_a_record_is_read_as_it_was_written() -> None:
    record = Deployment(FORMAT, "id", "production", "0.2.0")

    assert parse_deployment(msgspec.json.encode(record)) == record
    assert parse_deployment(b'{"format":2,"id":"x"}') == Deployment(2, "x")


def test_members_of_later_versions_are_ignored() -> None:
    assert parse_deployment(b'{"format":2,"id":"x","shards":[1]}').id == "x"


def test_a_higher_format_is_known_by_its_version_whatever_else_it_has() -> None:
    record = parse_deployment(b'{"format":3,"id":{"a":1},"version":"0.9.0"}')

    assert format_problem(record.format, record.version) == (
        "has store format 3, and this version reads format 2: "
        "install streamer 0.9.0 or later"
    )


@pytest.mark.parametrize(
    "encoded",
    [b"", b"{}", b"[]", b"2", b'{"format":"2","id":"x"}', b'{"format":2}', b"\xff"],
)
def test_what_is_no_record_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_deployment(encoded)


def test_a_record_of_format_1_is_refused() -> None:
    with pytest.raises(ValueError, match="format 1 has no record"):
        parse_deployment(b'{"format":1,"id":"x"}')


@pytest.mark.parametrize(
    ("format_", "problem"),
    [
        (2, None),
        (1, "which no release has written, and this version reads format 2"),
        (3, "install a newer streamer"),
    ],
)
def test_one_format_is_used(format_: int, problem: str | None) -> None:
    found = format_problem(format_)

    assert found is None if problem is None else problem in (found or "")


@pytest.mark.parametrize(
    ("of_store", "of_node", "refused"),
    [
        ("", "", False),
        ("production", "", False),
        ("production", "production", False),
        ("production", "staging", True),
        ("production", "Production", True),
        ("", "staging", True),
    ],
)
def test_a_node_of_another_name_is_refused(
    of_store: str, of_node: str, refused: bool
) -> None:
    problem = name_problem(Deployment(FORMAT, "id", of_store), of_node)

    assert (problem is not None) is refused
    if problem:
        assert repr(of_node) in problem
        assert (repr(of_store) if of_store else "without a name") in problem


@pytest.mark.parametrize(
    ("key", "namespace", "data"),
    [
        (b"streamer:{19}:log:demo:ann", "streamer", True),
        (b"game:{0}:schedule:demo:id", "game", True),
        (b"game:{255}:due", "game", True),
        (b"gameX:{19}:log:demo:ann", "game", False),
        (b"game", "game", False),
        (b"other:{19}:log:demo:ann", "game", False),
        # What a running node writes into a store that was emptied.
        (b"game:{19}:lease:demo:ann", "game", False),
        (b"game:{19}:devices:demo:ann", "game", False),
        (b"game:{19}:log:.probe:7f3a", "game", False),
        (b"game:{19}:state:.probe:7f3a", "game", False),
        (b"game:{19}:log:demo:.probe", "game", True),
        (b"game:nodes", "game", False),
        # Another program's.
        (b"game:cache:1", "game", False),
        (b"streamer:{user}:1", "streamer", False),
        # Format 1 had one namespace, by accident, and none in most keys.
        (b"{19}:log:demo:ann", "streamer", True),
        (b"{19}:log:demo:ann", "game", False),
        (b"{7}:due", "streamer", True),
        (b"{streamer:apps}:audiences", "streamer", True),
        (b"{19}:lease:demo:ann", "streamer", False),
        (b"{19}:basket:1", "streamer", False),
        (b"{19}:logs:1", "streamer", False),
        (b"x{19}:log:demo:ann", "streamer", False),
    ],
)
def test_which_keys_are_data_of_a_namespace(
    key: bytes, namespace: str, data: bool
) -> None:
    assert holds_data(key, namespace) is data
