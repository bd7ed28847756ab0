from __future__ import annotations

import pytest

from streamer.config import parse_grant
from streamer.core.access.rights import SCOPES
from streamer.core.access.roles import (
    ROLES,
    Grant,
    Role,
    granted_in,
    includes,
    role_of,
    role_scope,
)
from streamer.model import App


def test_a_role_includes_itself_and_those_before_it() -> None:
    assert [[includes(one, other) for other in ROLES] for one in ROLES] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_found_among_scopes(role: Role) -> None:
    assert role_of({role_scope(role), "admin"}) == role


def test_of_several_roles_the_highest_counts() -> None:
    assert role_of({role_scope("viewer"), role_scope("operator")}) == "operator"


def test_no_scope_is_a_role() -> None:
    assert role_of(SCOPES) is None
    assert role_of({"console:owner", "operator", "console:"}) is None


def test_a_grant_is_for_one_app_or_for_all() -> None:
    grants = [Grant("a", "viewer"), Grant("b", "operator", App("demo"))]

    assert granted_in(grants, App("demo")) == "operator"
    assert granted_in(grants, App("other")) == "viewer"
    assert granted_in(grants[1:], App("other")) is None
    assert granted_in([], App("demo")) is None


@pytest.mark.parametrize("role", ROLES)
def test_the_settings_can_name_every_role(role: Role) -> None:
    assert parse_grant(f"a={role}") == ("a", role, "")
