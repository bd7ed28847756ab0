"""
Roles of the console: what a person may do there.

Decides which role a key has and what a role includes. A role is stored among the scopes
of a backend key, as ``console:ROLE``, and grants nothing outside the console. Knows
nothing of sessions and requests.

viewer
    Sees everything of the app.
support
    Also acts for one player at a time: sends, marks, withdraws, disconnects.
operator
    Also publishes to audiences, and changes schedules and campaigns.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal, get_args

__all__ = ["ROLES", "Role", "includes", "role_of", "role_scope"]

Role = Literal["viewer", "support", "operator"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""In ascending order: each includes those before it."""

_PREFIX: Final = "console:"


def role_scope(role: Role) -> str:
    """Return how a role is stored among the scopes of a key."""
    return _PREFIX + role


def role_of(scopes: Collection[str]) -> Role | None:
    """Return the highest role among the scopes of a key, None without any."""
    held = [role for role in ROLES if role_scope(role) in scopes]
    return held[-1] if held else None


def includes(role: Role, needed: Role) -> bool:
    """Whether `role` may do what `needed` may."""
    return ROLES.index(role) >= ROLES.index(needed)
