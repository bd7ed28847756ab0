"""Slots: the key that leads to one, and what a cluster says of them."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.model import App, Log, Player
from streamer.store.client.commands import (
    Command,
    KeyedCommand,
    PackedCall,
    Script,
    ScriptCall,
    pack_all,
    pack_args,
)
from streamer.store.client.slots import (
    SLOTS,
    Place,
    Redirect,
    key_of,
    parse_redirect,
    parse_slots,
    slot_of,
)
from streamer.store.keys import keys_of

A, B, C = (Place("127.0.0.1", port) for port in (7000, 7001, 7002))
SCRIPT = Script("keys_used")


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("SET", b"k", "v"), b"k"),
        (("EVAL", "return 1", 2, "k", "l"), "k"),
        (("EVALSHA", "0" * 40, "1", "k"), "k"),
        (("EVAL", "return 1", 0, "arg"), None),
        (("XINFO", "STREAM", "k"), "k"),
        (("SPUBLISH", "channel", "m"), "channel"),
        (("PFCOUNT", "k", "l"), "k"),
        (("GET", 7), "7"),
        (("TIME",), None),
        (("SCAN", 0, "MATCH", "*"), None),
        (("CONFIG", "GET", "save"), None),
        (("WAIT", 1, 100), None),
        (("INFO", "server"), None),
    ],
)
def test_a_command_has_its_first_key(command: Command, key: str | bytes | None) -> None:
    assert key_of(command) == key
    raw = key.encode() if isinstance(key, str) else key
    assert key_of(pack_all([command])) == raw


def test_every_form_of_a_call_has_the_same_key() -> None:
    key = "ns:{7}:log:app:a\r\nb"
    call = ScriptCall(SCRIPT, (key, "other"), ("x", 1))
    packed = PackedCall(SCRIPT, 5, pack_args(2, key, "other", "x", 1))

    for command in (
        call.by_digest(),
        call.by_text(),
        packed.by_digest(),
        packed.by_text(),
        KeyedCommand("HMGET", "a", "b").on(key),
    ):
        found = key_of(command)
        assert (found if isinstance(found, str) else (found or b"").decode()) == key


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        # From the specification of Redis Cluster, and `CLUSTER KEYSLOT`.
        ("123456789", 0x31C3),
        ("foo", 12182),
        ("{foo}bar", 12182),
        ("a{foo}{bar}", 12182),
        ("foo{}{bar}", 8363),
        ("foo{{bar}}zap", 4015),
        ("", 0),
    ],
)
def test_a_slot_is_that_of_the_specification(key: str, slot: int) -> None:
    assert slot_of(key) == slot_of(key.encode()) == slot


def test_a_bucket_is_one_slot() -> None:
    keys, log = keys_of("ns"), Log(App("app"), Player("a{b}c"))

    slots = {slot_of(key) for key in (*keys.inbox(log), keys.views(log))}

    assert slots == {slot_of(keys.channel(log))}


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 10.0.0.1:6381", Redirect("MOVED", 3999, Place("10.0.0.1", 6381))),
        ("ASK 0 node.example:1", Redirect("ASK", 0, Place("node.example", 1))),
        ("MOVED 1 :6381", Redirect("MOVED", 1, Place("asked", 6381))),
        ("MOVED 1 2001:db8::1:6381", Redirect("MOVED", 1, Place("2001:db8::1", 6381))),
        ("TRYAGAIN Multiple keys", Redirect("TRYAGAIN", -1, None)),
        ("MOVED 1 ?:6381", Redirect("TRYAGAIN", 1, None)),
        ("MOVED 16384 a:1", Redirect("TRYAGAIN", -1, None)),
        ("MOVED", Redirect("TRYAGAIN", -1, None)),
        ("CLUSTERDOWN The cluster is down", None),
        ("ERR MOVED", None),
    ],
)
def test_a_redirect_is_recognized(text: str, redirect: Redirect | None) -> None:
    assert parse_redirect(text, "asked") == redirect


def node(place: Place, name: str = "id") -> list[Any]:
    return [place.host.encode(), place.port, name.encode(), []]


def test_the_map_has_owners_replicas_and_what_nobody_has() -> None:
    map_ = parse_slots(
        [[0, 99, node(A), node(C)], [200, 200, node(A)], [201, SLOTS - 1, node(B)]],
        "asked",
    )

    assert [map_.owners[slot] for slot in (0, 99, 100, 200, 201, SLOTS - 1)] == [
        *(A, A, None, A, B, B)
    ]
    assert map_.uncovered == 100
    assert map_.shards[A].replicas == (C,)
    assert map_.shards[B].replicas == ()


def test_a_node_may_leave_its_own_name_out() -> None:
    unnamed = [[0, 1, [b"", 7000, b"id"], [None, 7001, b"id"]]]

    map_ = parse_slots(unnamed, "asked")

    assert map_.owners[0] == Place("asked", 7000)
    assert map_.shards[Place("asked", 7000)].replicas == (Place("asked", 7001),)
    assert parse_slots([[0, 1, [b"?", 7000, b"id"]]], "asked").uncovered == SLOTS


def test_one_slot_moves_without_another_reading() -> None:
    map_ = parse_slots([[0, SLOTS - 1, node(A)]], "asked")

    moved = map_.moved(7, B)

    assert (moved.owners[6], moved.owners[7]) == (A, B)
    assert B in moved.shards
    assert map_.owners[7] == A


@pytest.mark.parametrize(
    "reply", [None, [[0]], [[0, 1]], [[0, SLOTS, node(A)]], [[b"0", 1, node(A)]], [7]]
)
def test_what_is_no_map_is_refused(reply: Any) -> None:
    with pytest.raises(ValueError, match="not a map of slots"):
        parse_slots(reply, "asked")
