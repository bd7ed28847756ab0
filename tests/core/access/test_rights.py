"""The rights of each kind of caller as a table, and the names of rights."""

from __future__ import annotations

import pytest

from streamer.core.access.rights import (
    DEFAULT_PERMISSIONS,
    DEFAULT_SCOPES,
    PERMISSIONS,
    SCOPES,
    Caller,
    parse_permissions,
    parse_scopes,
)
from streamer.errors import Forbidden
from streamer.model import App, Player

APP = App("demo")
OWN = Player("own")
OTHER = Player("other")


ADMIN = {it for it in SCOPES if it.startswith("admin:")}


def with_token(*permissions: str) -> Caller:
    return Caller(APP, OWN, frozenset(permissions))


def with_key(*scopes: str) -> Caller:
    return Caller.from_key(APP, frozenset(scopes))


# Rights as letters: r read, w write, m mark, l listen; on the caller's own player and
# on another one. A backend key has no own player, so both columns are "another".
RIGHTS = [
    ("no permission", with_token(), "", ""),
    ("self read", with_token("notification:player:self:read"), "rml", ""),
    ("self write", with_token("notification:player:self:write"), "wm", ""),
    ("self all", with_token("notification:player:self:*"), "rwml", ""),
    ("player read", with_token("notification:player:read"), "rml", "rl"),
    ("player write", with_token("notification:player:write"), "wm", "wm"),
    ("player all", with_token("notification:player:*"), "rwml", "rwml"),
    (
        "self write and player read",
        with_token("notification:player:self:write", "notification:player:read"),
        "rwml",
        "rl",
    ),
    ("key read", with_key("notifications:read"), "rl", "rl"),
    ("key send", with_key("notifications:send"), "wm", "wm"),
    ("key default", with_key(*DEFAULT_SCOPES), "rwml", "rwml"),
    ("key admin", with_key("admin"), "", ""),
    ("key admin:read", with_key("admin:read"), "", ""),
    ("key admin:write", with_key("admin:write"), "", ""),
    ("key schedules", with_key("schedules:write"), "", ""),
    # None of these is a permission, though they look like one.
    ("suffix", with_token("notification:player:self:readx"), "", ""),
    ("case", with_token("Notification:Player:Self:Read"), "", ""),
    ("space", with_token(" notification:player:read"), "", ""),
    ("short wildcard", with_token("notification:*"), "", ""),
    ("lone wildcard", with_token("*"), "", ""),
    ("self wildcard", with_token("notification:player:self"), "", ""),
    ("joined", with_token("notification:player:read notification:player:*"), "", ""),
    ("empty string", with_token(""), "", ""),
    ("scope in a token", with_token("notifications:read", "admin"), "", ""),
    ("permission in a key", with_key("notification:player:*"), "", ""),
]


@pytest.mark.parametrize(
    ("caller", "own", "other"),
    [row[1:] for row in RIGHTS],
    ids=[row[0] for row in RIGHTS],
)
def test_rights_match_the_table(caller: Caller, own: str, other: str) -> None:
    assert rights_on(caller, OWN) == own
    assert rights_on(caller, OTHER) == other


def rights_on(caller: Caller, player: Player) -> str:
    may = {
        "r": (caller.may_read, caller.require_read),
        "w": (caller.may_write, caller.require_write),
        "m": (caller.may_mark, caller.require_mark),
        "l": (caller.may_listen, caller.require_listen),
    }
    held = ""
    for letter, (asks, requires) in may.items():
        if asks(player):
            requires(player)
            held += letter
        else:
            with pytest.raises(Forbidden):
                requires(player)
    return held


def test_a_refusal_names_the_narrowest_sufficient_permission() -> None:
    caller = with_token()

    with pytest.raises(Forbidden, match=r"permission notification:player:self:read$"):
        caller.require_read(OWN)
    with pytest.raises(Forbidden, match=r"permission notification:player:write$"):
        caller.require_write(OTHER)
    with pytest.raises(Forbidden, match=r"permission notification:player:self:read$"):
        caller.require_mark(OWN)
    with pytest.raises(Forbidden, match=r"permission notification:player:write$"):
        caller.require_mark(OTHER)


def test_me_is_the_player_of_the_token() -> None:
    assert with_token().require_player() == OWN


def test_a_backend_key_has_no_player() -> None:
    with pytest.raises(Forbidden, match="player's token"):
        with_key(*SCOPES).require_player()


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_a_key_has_exactly_its_scopes(scope: str) -> None:
    caller = with_key(scope)
    included = ADMIN if scope == "admin" else set[str]()

    for asked in SCOPES:
        if asked == scope or asked in included:
            caller.require_scope(asked)  # type: ignore[arg-type]  # A str of the set.
        else:
            with pytest.raises(Forbidden, match=f"the scope {asked}"):
                caller.require_scope(asked)  # type: ignore[arg-type]  # A str of the set.


def test_a_scope_in_a_token_grants_nothing() -> None:
    with pytest.raises(Forbidden):
        with_token(*SCOPES).require_scope("tokens:mint")


def test_an_unknown_scope_in_a_record_grants_nothing() -> None:
    assert with_key("root", "notifications:*").scopes == frozenset()


def test_a_key_without_scopes_gets_all_but_admin() -> None:
    assert parse_scopes([]) == DEFAULT_SCOPES == SCOPES - ADMIN - {"admin"}


def test_a_token_without_permissions_gets_its_own_inbox() -> None:
    assert parse_permissions([]) == DEFAULT_PERMISSIONS
    assert {"notification:player:self:*"} == DEFAULT_PERMISSIONS


def test_valid_names_are_accepted() -> None:
    assert parse_permissions(PERMISSIONS) == PERMISSIONS
    assert parse_scopes(["admin", "admin"]) == {"admin"}


@pytest.mark.parametrize("name", ["", "readx", "notification:player:READ", "admin"])
def test_an_unknown_permission_is_refused_with_the_list(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown permission .*valid are .*self:read"):
        parse_permissions(["notification:player:read", name])


def test_an_unknown_scope_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"unknown scope 'root'; valid are admin"):
        parse_scopes(["root"])


@pytest.mark.parametrize(
    ("scopes", "permission", "may"),
    [
        ({"tokens:mint"}, "notification:player:self:*", True),
        ({"tokens:mint"}, "notification:player:self:read", True),
        ({"tokens:mint"}, "notification:player:read", False),
        ({"tokens:mint"}, "notification:player:*", False),
        ({"notifications:read"}, "notification:player:read", True),
        ({"notifications:read"}, "notification:player:write", False),
        ({"notifications:read"}, "notification:player:*", False),
        ({"notifications:send"}, "notification:player:write", True),
        ({"notifications:send", "notifications:read"}, "notification:player:*", True),
    ],
)
def test_a_key_grants_no_right_on_all_inboxes_that_it_lacks(
    scopes: set[str], permission: str, may: bool
) -> None:
    caller = Caller.from_key(APP, frozenset(scopes))

    if may:
        caller.require_grant([permission])
    else:
        with pytest.raises(Forbidden):
            caller.require_grant([permission])


def test_a_ticket_may_stream_and_mark_and_nothing_else() -> None:
    caller = with_token("notification:player:*", "notification:player:self:*").as_ticket

    assert caller.may_listen(OWN)
    assert caller.may_mark(OWN)
    assert not caller.may_write(OWN)
    assert not caller.may_read(OTHER)
