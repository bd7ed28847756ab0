"""
Roles of the console: what a person may do there.

Decides which role a key or a person has and what a role includes. The role of a key is
stored among its scopes, as ``console:ROLE``, and grants nothing outside the console.
The roles of a person follow from what an issuer says of the person, by a list of
grants, each for one app or for all. Knows nothing of sessions and requests.

viewer
    Sees everything of the app.
support
    Also acts for one player at a time: sends, marks, withdraws, disconnects.
operator
    Also publishes to audiences, and changes schedules and campaigns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple, get_args

from ...model import App

__all__ = ["ROLES", "Grant", "Role", "granted_in", "includes", "role_of", "role_scope"]

Role = Literal["viewer", "support", "operator"]

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""In ascending order: each includes those before it."""

_PREFIX: Final = "console:"


class Grant(NamedTuple):
    """Who has `value` in a claim has `role`, in `app` or, if that is None, in all."""

    value: str
    role: Role
    app: App | None = None


def granted_in(grants: Iterable[Grant], app: App) -> Role | None:
    """Return the highest role that some of the grants give in an app, None if none."""
    held = {it.role for it in grants if it.app is None or it.app == app}
    return max(held, key=ROLES.index, default=None)


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
