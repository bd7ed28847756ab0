"""
Who is asking, and what that caller may do.

Knows the permission strings a token may carry, the scopes of a backend key, and which
rights each gives. Knows nothing of tokens, headers or how a caller was recognised.

A token speaks in permissions, which are RallyHere's (rallyhere.gg, operation
player_get_notifications_page, read 2026-11)::

    notification:player:{*,read,write}         any player of the app
    notification:player:self:{*,read,write}    the token's own player

A backend key speaks in scopes. It has no player, so ``me`` means nothing to it. The
scopes for notifications give permissions; the others are asked for by name. A token
can never bring a scope: what it says in its permissions is looked up in the table of
permissions only.

Strings match exactly or not at all. There is no prefix, no case folding and no wildcard
but the ones written above, and an unknown string is a right to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    "admin",
]

_ANY: Final = "notification:player"
_SELF: Final = "notification:player:self"

_READ_ANY: Final = frozenset({f"{_ANY}:*", f"{_ANY}:read"})
_WRITE_ANY: Final = frozenset({f"{_ANY}:*", f"{_ANY}:write"})
_READ_SELF: Final = frozenset({f"{_SELF}:*", f"{_SELF}:read"})
_WRITE_SELF: Final = frozenset({f"{_SELF}:*", f"{_SELF}:write"})

PERMISSIONS: Final = _READ_ANY | _WRITE_ANY | _READ_SELF | _WRITE_SELF
"""Every permission a token may carry."""

DEFAULT_PERMISSIONS: Final = frozenset({f"{_SELF}:*"})
"""What a token made without any permission gets."""

SCOPES: Final[frozenset[str]] = frozenset(get_args(Scope))
"""Every scope a backend key may have."""

DEFAULT_SCOPES: Final = SCOPES - {"admin"}
"""What a backend key made without any scope gets."""

_TICKET: Final = frozenset({f"{_SELF}:read"})
"""What a ticket gives: it rides in a URL, so the least that opens a stream."""

_SCOPE_GIVES: Final = {
    "notifications:read": f"{_ANY}:read",
    "notifications:send": f"{_ANY}:write",
}


class TokenProof(msgspec.Struct, frozen=True, tag="token"):
    """
    What a token was believed for: enough to ask later whether it still would be.

    `key` is the name of the key that signed it, and gives nothing away.
    """

    issuer: str
    audience: str
    key: str
    issued_at_s: int


class KeyProof(msgspec.Struct, frozen=True, tag="key"):
    """The digest of the backend key that was recognised."""

    digest: bytes


class Caller(msgspec.Struct, frozen=True):
    """
    Someone whose credential held: a player, a service of the studio, or its backend.

    `player` is None for a backend key. `expires_at_s` is when the credential ends, in
    seconds of Unix time; None where it has no end of its own. `proof` is what the
    credential is asked about while something long is done for the caller. `topics` are
    those that a token names, or what they begin with in front of a ``*``.
    """

    app: App
    player: Player | None
    permissions: frozenset[str]
    expires_at_s: int | None = None
    scopes: frozenset[str] = frozenset()
    proof: TokenProof | KeyProof | None = None
    topics: tuple[str, ...] = ()

    @classmethod
    def from_key(
        cls,
        app: App,
        scopes: frozenset[str],
        *,
        expires_at_s: int | None = None,
        proof: KeyProof | None = None,
    ) -> Caller:
        """Return the caller that holds a backend key with these scopes."""
        permissions = {_SCOPE_GIVES[scope] for scope in scopes & _SCOPE_GIVES.keys()}
        return cls(
            app,
            None,
            frozenset(permissions),
            expires_at_s=expires_at_s,
            scopes=scopes & SCOPES,
            proof=proof,
        )

    @property
    def as_ticket(self) -> Caller:
        """The same player, who may listen and mark as read, and nothing else."""
        return msgspec.structs.replace(self, permissions=_TICKET)

    def may_read(self, player: Player) -> bool:
        """Whether the caller may see this player's notifications."""
        return self._may(player, _READ_ANY, _READ_SELF)

    def may_write(self, player: Player) -> bool:
        """Whether the caller may send to this player."""
        return self._may(player, _WRITE_ANY, _WRITE_SELF)

    @property
    def may_write_all(self) -> bool:
        """Whether the caller may send to every player, and to everybody at once."""
        return not self.permissions.isdisjoint(_WRITE_ANY)

    def may_listen(self, player: Player) -> bool:
        """Whether the caller may hold a stream or poll open for this player."""
        return self.may_read(player)

    def may_mark(self, player: Player) -> bool:
        """
        Whether the caller may mark this player's notifications as read.

        Reading is enough for one's own, since marking is what a reader does. Another
        player's marks are that player's to see, so changing them takes writing.
        """
        return self.may_write(player) or (
            player == self.player and self.may_read(player)
        )

    def may_subscribe(self, topic: str) -> bool:
        """Whether the caller's token lets it listen to a topic, or join it."""
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
        """Raise `Forbidden`, naming the permission, unless it may send to everybody."""
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
        Raise `Forbidden` unless the caller may give these permissions away.

        A right on one's own inbox is what a token is for. A right on everybody's is
        given by a key that has it, or else minting would be the scope of all scopes.
        """
        for scope, right in _SCOPE_GIVES.items():
            wide = {right, f"{_ANY}:*"}
            if scope not in self.scopes and not wide.isdisjoint(permissions):
                raise Forbidden(f"the scope {scope}")

    def require_player(self) -> Player:
        """
        Return the player that ``me`` stands for in this caller's paths.

        Raises:
            Forbidden: The caller holds a backend key, which belongs to no player.
        """
        if self.player is None:
            raise Forbidden("a player's token; a backend key has no player")
        return self.player

    def _may(
        self, player: Player, to_any: frozenset[str], to_self: frozenset[str]
    ) -> bool:
        if not self.permissions.isdisjoint(to_any):
            return True
        # A backend key has no player, and no player is equal to None.
        return player == self.player and not self.permissions.isdisjoint(to_self)

    def _permission(self, verb: str, player: Player) -> str:
        kind = _SELF if player == self.player else _ANY
        return f"the permission {kind}:{verb}"


def parse_permissions(names: Iterable[str]) -> frozenset[str]:
    """
    Return the permissions of a token to be made; the default where there are none.

    A token that comes in is not held to this: what is unknown in it gives no right.

    Raises:
        ValueError: A name is unknown. The message lists the known ones.
    """
    return _parse("permission", names, PERMISSIONS) or DEFAULT_PERMISSIONS


def parse_scopes(names: Iterable[str]) -> frozenset[str]:
    """
    Return the scopes of a backend key to be made; the default where there are none.

    Raises:
        ValueError: A name is unknown. The message lists the known ones.
    """
    return _parse("scope", names, SCOPES) or DEFAULT_SCOPES


def _parse(kind: str, names: Iterable[str], known: frozenset[str]) -> frozenset[str]:
    permissions = frozenset(names)
    if unknown := permissions - known:
        raise ValueError(
            f"unknown {kind} {', '.join(map(repr, sorted(unknown)))}; "
            f"valid are {', '.join(sorted(known))}"
        )
    return permissions
