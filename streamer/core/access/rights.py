"""
Callers and their rights.

Knows the permissions of tokens, the scopes of backend keys, and the rights that each
grants. Knows nothing of tokens, headers, or how a caller was authenticated.

A token has permissions, which are RallyHere's (rallyhere.gg, operation
player_get_notifications_page, read 2026-11)::

    notification:player:{*,read,write}         any player of the app
    notification:player:self:{*,read,write}    the token's own player

A backend key has scopes. It has no player, so ``me`` is not valid for it. The scopes
for notifications grant permissions; the others are checked by name. A token can never
carry a scope: its permissions are looked up in the table of permissions only.

The scopes ``admin:read`` and ``admin:write`` are for those who operate the app and
answer its players. ``admin`` includes every scope that begins with ``admin:``. A key
has none of them unless it is created with it.

Strings match exactly or not at all. There are no prefixes, no case folding, and no
wildcards other than those above. An unknown string grants nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, get_args

import msgspec

from ...errors import Forbidden
from ...model import App, Player

__all__ = [
    "DEFAULT_PERMISSIONS",
    "DEFAULT_SCOPES",
    "PERMISSIONS",
    "SCOPES",
    "Caller",
    "KeyProof",
    "PersonProof",
    "Scope",
    "TokenProof",
    "parse_permissions",
    "parse_scopes",
]

Scope = Literal[
    "notifications:send",
    "notifications:read",
    "schedules:write",
    "campaigns:read",
    "campaigns:write",
    "tokens:mint",
    "admin:read",
    "admin:write",
    "admin",
]

_ANY: Final = "notification:player"
_SELF: Final = "notification:player:self"

_READ_ANY: Final = frozenset({f"{_ANY}:*", f"{_ANY}:read"})
_WRITE_ANY: Final = frozenset({f"{_ANY}:*", f"{_ANY}:write"})
_READ_SELF: Final = frozenset({f"{_SELF}:*", f"{_SELF}:read"})
_WRITE_SELF: Final = frozenset({f"{_SELF}:*", f"{_SELF}:write"})

PERMISSIONS: Final = _READ_ANY | _WRITE_ANY | _READ_SELF | _WRITE_SELF
"""All permissions of tokens."""

DEFAULT_PERMISSIONS: Final = frozenset({f"{_SELF}:*"})
"""The permissions of a token that is minted without any."""

SCOPES: Final[frozenset[str]] = frozenset(get_args(Scope))
"""All scopes of backend keys."""

_ADMIN: Final = frozenset(it for it in SCOPES if it.startswith("admin:"))
"""The scopes that ``admin`` includes."""

DEFAULT_SCOPES: Final = SCOPES - _ADMIN - {"admin"}
"""The scopes of a backend key that is created without any."""

_TICKET: Final = frozenset({f"{_SELF}:read"})
"""The permissions of a ticket. It is part of a URL, so it has the least that opens a
stream."""

_SCOPE_GIVES: Final = {
    "notifications:read": f"{_ANY}:read",
    "notifications:send": f"{_ANY}:write",
}


@lru_cache(maxsize=256)
def _rights_of(scopes: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the permissions that scopes give, and those of the scopes that exist."""
    if "admin" in scopes:
        scopes |= _ADMIN
    permissions = {_SCOPE_GIVES[scope] for scope in scopes & _SCOPE_GIVES.keys()}
    return frozenset(permissions), scopes & SCOPES


class TokenProof(msgspec.Struct, frozen=True, tag="token"):
    """
    The claims and the key for which a token was accepted.

    They suffice to check later whether it would still be accepted. `audience` is the
    app's that was matched, `key` the name of the key that signed it, which is no
    secret, and `reading` names how the app read the claims, "" for the standard.
    """

    issuer: str
    audience: str
    key: str
    issued_at_s: int
    reading: str = ""


class KeyProof(msgspec.Struct, frozen=True, tag="key"):
    """The digest of the backend key that authenticated the caller."""

    digest: bytes


class PersonProof(msgspec.Struct, frozen=True, tag="person"):
    """
    Who is logged in to the console with an OpenID Connect issuer.

    `subject` is the person's id at the issuer, `name` what people call the person.
    """

    subject: str
    name: str


class Caller(msgspec.Struct, frozen=True):
    """
    An authenticated caller: a player, a service of the studio, or its backend.

    `player` is None for a backend key. `expires_at_s` is when the credential expires,
    Unix time; None if it does not expire. `proof` is what the credential is checked
    again by while a stream or poll of the caller is open. `topics` are the topics of a
    token; one that ends with ``*`` is a prefix.
    """

    app: App
    player: Player | None
    permissions: frozenset[str]
    expires_at_s: int | None = None
    scopes: frozenset[str] = frozenset()
    proof: TokenProof | KeyProof | PersonProof | None = None
    topics: tuple[str, ...] = ()

    @classmethod
    def from_key(
        cls,
        app: App,
        scopes: frozenset[str],
        *,
        expires_at_s: int | None = None,
        proof: KeyProof | PersonProof | None = None,
    ) -> Caller:
        """Return the caller of a backend key with these scopes."""
        permissions, known = _rights_of(scopes)
        return cls(app, None, permissions, expires_at_s, known, proof)

    @property
    def as_ticket(self) -> Caller:
        """
        The same player with the rights to stream and to mark as read, and no others.
        """
        return msgspec.structs.replace(self, permissions=_TICKET)

    def may_read(self, player: Player) -> bool:
        """Whether the caller may read this player's notifications."""
        return self._may(player, _READ_ANY, _READ_SELF)

    def may_write(self, player: Player) -> bool:
        """Whether the caller may send to this player."""
        return self._may(player, _WRITE_ANY, _WRITE_SELF)

    @property
    def may_write_all(self) -> bool:
        """Whether the caller may send to every player, to topics and to everyone."""
        return not self.permissions.isdisjoint(_WRITE_ANY)

    def may_listen(self, player: Player) -> bool:
        """Whether the caller may open a stream or poll for this player."""
        return self.may_read(player)

    def may_mark(self, player: Player) -> bool:
        """
        Whether the caller may change this player's inbox: its marks, its mutes.

        The right to read is enough for the caller's own inbox. Another player sees the
        marks, so changing them requires the right to write.
        """
        return self.may_write(player) or (
            player == self.player and self.may_read(player)
        )

    def may_subscribe(self, topic: str) -> bool:
        """Whether the caller's token allows it to subscribe to a topic, or join it."""
        return any(
            topic == name or (name.endswith("*") and topic.startswith(name[:-1]))
            for name in self.topics
        )

    def require_topic(self, topic: str) -> None:
        """Raise `Forbidden`, naming the topic, unless `may_subscribe`."""
        if not self.may_subscribe(topic):
            raise Forbidden(f"a token for the topic {topic}")

    def require_read(self, player: Player) -> None:
        """Raise `Forbidden`, naming the permission, unless `may_read`."""
        if not self.may_read(player):
            raise Forbidden(self._permission("read", player))

    def require_write(self, player: Player) -> None:
        """Raise `Forbidden`, naming the permission, unless `may_write`."""
        if not self.may_write(player):
            raise Forbidden(self._permission("write", player))

    def require_write_all(self) -> None:
        """Raise `Forbidden`, naming the permission, unless `may_write_all`."""
        if not self.may_write_all:
            raise Forbidden(f"the permission {_ANY}:write")

    def require_listen(self, player: Player) -> None:
        """Raise `Forbidden`, naming the permission, unless `may_listen`."""
        self.require_read(player)

    def require_mark(self, player: Player) -> None:
        """Raise `Forbidden`, naming the permission, unless `may_mark`."""
        if not self.may_mark(player):
            own = player == self.player
            raise Forbidden(self._permission("read" if own else "write", player))

    def require_scope(self, scope: Scope) -> None:
        """Raise `Forbidden`, naming the scope, unless the caller's key has it."""
        if scope not in self.scopes:
            raise Forbidden(f"the scope {scope}")

    def require_grant(self, permissions: Iterable[str]) -> None:
        """
        Raise `Forbidden` unless the caller may grant these permissions in a token.

        Rights on the player's own inbox may always be granted. Rights on all inboxes
        require that the key has them itself, or the scope for minting tokens would
        include all other scopes.
        """
        for scope, right in _SCOPE_GIVES.items():
            wide = {right, f"{_ANY}:*"}
            if scope not in self.scopes and not wide.isdisjoint(permissions):
                raise Forbidden(f"the scope {scope}")

    def require_player(self) -> Player:
        """
        Return the caller's player, for which ``me`` stands in paths.

        Raises:
            Forbidden: The caller has a backend key, which has no player.
        """
        if self.player is None:
            raise Forbidden("a player's token; a backend key has no player")
        return self.player

    def _may(
        self, player: Player, to_any: frozenset[str], to_self: frozenset[str]
    ) -> bool:
        if not self.permissions.isdisjoint(to_any):
            return True
        # The player of a backend key is None, which equals no player.
        return player == self.player and not self.permissions.isdisjoint(to_self)

    def _permission(self, verb: str, player: Player) -> str:
        kind = _SELF if player == self.player else _ANY
        return f"the permission {kind}:{verb}"


def parse_permissions(names: Iterable[str]) -> frozenset[str]:
    """
    Return the permissions of a token to mint; the default if there are none.

    Tokens in requests are not held to this: unknown permissions grant nothing.

    Raises:
        ValueError: A name is unknown. The message lists the valid ones.
    """
    return _parse("permission", names, PERMISSIONS) or DEFAULT_PERMISSIONS


def parse_scopes(names: Iterable[str]) -> frozenset[str]:
    """
    Return the scopes of a backend key to create; the default if there are none.

    Raises:
        ValueError: A name is unknown. The message lists the valid ones.
    """
    return _parse("scope", names, SCOPES) or DEFAULT_SCOPES


def _parse(kind: str, names: Iterable[str], valid: frozenset[str]) -> frozenset[str]:
    permissions = frozenset(names)
    if unknown := permissions - valid:
        raise ValueError(
            f"unknown {kind} {', '.join(map(repr, sorted(unknown)))}; "
            f"valid are {', '.join(sorted(valid))}"
        )
    return permissions
