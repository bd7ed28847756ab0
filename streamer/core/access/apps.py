"""
The record of an app: its name, how its tokens are verified, and its quotas.

Decides which combinations of members are valid, which keys are valid at a time, and
whether a token that was accepted once would still be accepted. Knows keys and times.
Knows nothing of the format of a token, nor of the store.

The tokens of an app have one issuer and one algorithm. With HS256 the issuer is the
app's own backend, or this server on its behalf, and both share a secret. With the other
algorithms the issuer is a third party, whose public keys are in the record or in a key
set that the record names: a file or a URL.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ...model import App
from ..quotas import QuotaOverrides
from .claims import ClaimPointers
from .rights import TokenProof, parse_permissions
from .signatures import (
    Algorithm,
    KeySet,
    parse_key_set,
    secret_key,
    secret_keys,
)

__all__ = [
    "AUDIENCES_MAX",
    "DEFAULT_ISSUER",
    "RETIRED_MAX",
    "SECRET_BYTES_MIN",
    "AppRecord",
    "RetiredSecret",
    "key_set_problem",
]

SECRET_BYTES_MIN: Final = 32
"""RFC 7518 section 3.2: an HMAC key must be at least as long as the hash."""

DEFAULT_ISSUER: Final = "streamer"

RETIRED_MAX: Final = 3
"""
Retired secrets that stay valid at once; with the current one, as many as are tried.
"""

NAME_CHARS_MAX: Final = 255
"""The maximum length of an issuer or audience."""

AUDIENCES_MAX: Final = 16
"""Audiences of an app, and elements of a token's ``aud``; each may cost a read."""


class RetiredSecret(msgspec.Struct, frozen=True):
    """A replaced secret that stays valid until `until_s`, Unix time."""

    secret: bytes
    until_s: int

    def __repr__(self) -> str:
        return f"Retired(until_s={self.until_s})"


class AppRecord(msgspec.Struct, frozen=True):
    """
    An app and how its tokens are verified.

    `audience` is the required ``aud``; empty stands for the app's name. A token for one
    of `other_audiences` is accepted, too. One of three is set: `secret` (HS256),
    `public_keys`, a key set as text, or `key_set`, an absolute path or a URL. `claims`
    are the places of what is read from a token; one without permissions has the
    `default_permissions`, if there are any. Tokens issued before `not_before_s` are
    revoked; until `revoking_until_s`, players may have a later time of their own.
    `quotas` override the limits of the settings.

    Raises:
        ValueError: The combination of members is invalid; the message says why.
    """

    name: App
    secret: bytes
    issuer: str
    created_at_ms: int
    algorithm: Algorithm = "HS256"
    audience: str = ""
    public_keys: str = ""
    key_set: str = ""
    retired: tuple[RetiredSecret, ...] = ()
    not_before_s: int = 0
    revoking_until_s: int = 0
    quotas: QuotaOverrides = QuotaOverrides()
    # Beside `audience`, not in its place: a node of an earlier version still reads it.
    other_audiences: tuple[str, ...] = ()
    claims: ClaimPointers = ClaimPointers()
    default_permissions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise ValueError(problem)

    def __repr__(self) -> str:
        return f"AppRecord(name={self.name!r}, issuer={self.issuer!r})"

    @property
    def key_id(self) -> str:
        """
        The ``kid`` of tokens signed with the secret. It does not reveal the secret.
        """
        assert self.algorithm == "HS256"
        return secret_key(self.secret).name

    @property
    def has_foreign_issuer(self) -> bool:
        """Whether another party issues the app's tokens, with its own set of claims."""
        return self.algorithm != "HS256" or self.issuer != DEFAULT_ISSUER

    @property
    def expected_audience(self) -> str:
        """The ``aud`` of tokens that this server mints."""
        return self.audience or self.name

    @property
    def expected_audiences(self) -> tuple[str, ...]:
        """The texts of which tokens must have one in ``aud``."""
        return (self.expected_audience, *self.other_audiences)

    def expected_among(self, audiences: Collection[str]) -> str | None:
        """Return the first of `expected_audiences` that is one of these, if any is."""
        expected = self.audience or self.name
        if expected in audiences:
            return expected
        return next((it for it in self.other_audiences if it in audiences), None)

    @property
    def reading(self) -> str:
        """
        A short name of how claims become a player and permissions, "" for the standard.

        Another one may make another caller of the same token.
        """
        if (self.claims, self.default_permissions) == (ClaimPointers(), ()):
            return ""
        text = msgspec.json.encode([self.claims, self.default_permissions])
        return hashlib.sha256(text).hexdigest()[:16]

    def with_tokens(
        self, changes: Mapping[str, Any], *, fresh_secret: bytes
    ) -> AppRecord:
        """
        Return the app with changed members that concern its tokens.

        A change between a shared secret and public keys removes the members of the
        other kind. `fresh_secret` is used if the app needs a secret and has none. A
        mapping as `claims` replaces the pointers that it has.

        Raises:
            ValueError: The combination of members is invalid.
        """
        changes = {**changes}
        if "claims" in changes:
            changes["claims"] = msgspec.structs.replace(
                self.claims, **changes["claims"]
            )
        if changes.get("algorithm", self.algorithm) == "HS256":
            changes["secret"] = self.secret or fresh_secret
            changes = {"public_keys": "", "key_set": "", **changes}
        else:
            changes |= {"secret": b"", "retired": ()}
            if changes.get("key_set"):
                changes.setdefault("public_keys", "")
            if changes.get("public_keys"):
                changes.setdefault("key_set", "")
        return msgspec.structs.replace(self, **changes)

    def own_keys(self, now_s: int) -> KeySet:
        """Return the keys in the record itself that are valid at `now_s`."""
        if self.algorithm != "HS256":
            assert self.public_keys, "a key set elsewhere has to be fetched"
            return parse_key_set(self.public_keys.encode())
        retired = [old.secret for old in self.retired if now_s < old.until_s]
        return secret_keys((self.secret, *retired))

    def accepts(
        self, proof: TokenProof, keys: KeySet, *, not_before_s: int = 0
    ) -> bool:
        """
        Whether the token of `proof` would be accepted again.

        Args:
            proof: The claims and the key for which it was accepted.
            keys: The app's keys at present.
            not_before_s: The player's own time before which tokens are revoked.

        """
        return (
            proof.issuer == self.issuer
            and proof.audience in self.expected_audiences
            and proof.reading == self.reading
            and proof.issued_at_s >= max(self.not_before_s, not_before_s)
            and keys.has(self.algorithm, proof.key)
        )

    def _problem(self) -> str | None:
        if problem := self._problem_of_claims():
            return problem
        if self.algorithm == "HS256":
            if self.public_keys or self.key_set:
                return "HS256 uses a shared secret and no public keys"
            if len(self.secret) < SECRET_BYTES_MIN:
                return (
                    f"the app's secret has {len(self.secret)} bytes, "
                    f"at least {SECRET_BYTES_MIN} are required"
                )
            return None
        if self.secret or self.retired:
            return f"{self.algorithm} uses public keys and no secret"
        if bool(self.public_keys) == bool(self.key_set):
            return f"{self.algorithm} requires either public keys or a key set"
        if self.key_set:
            return key_set_problem(self.key_set)
        if not any(
            key.algorithm == self.algorithm
            for key in parse_key_set(self.public_keys.encode()).keys
        ):
            return f"none of the public keys is for {self.algorithm}"
        return None

    def _problem_of_claims(self) -> str | None:
        if len(self.issuer) > NAME_CHARS_MAX:
            return f"the issuer has more than {NAME_CHARS_MAX} characters"
        if not self.issuer:
            return "the issuer is empty"
        audiences = self.expected_audiences
        for audience in audiences:
            if len(audience) > NAME_CHARS_MAX:
                return f"the audience has more than {NAME_CHARS_MAX} characters"
            if not audience:
                return "one of several audiences is empty: leave it out"
            if not audience.isprintable():
                return f"the audience {audience!r} has characters that no token has"
        if len(audiences) > AUDIENCES_MAX:
            return f"the app has more than {AUDIENCES_MAX} audiences"
        if len(set(audiences)) < len(audiences):
            return "an audience is named twice: leave out one"
        try:
            parse_permissions(self.default_permissions)
        except ValueError as exc:
            return f"default permissions: {exc}"
        return self.claims.problem()


def key_set_problem(location: str) -> str | None:
    """Return why a key set cannot be fetched from `location`, None if it can be."""
    if location.startswith("/"):
        return None
    try:
        url = urlsplit(location)
        host = url.hostname
        _ = url.port  # Parsed and checked on access.
    except ValueError:
        host = None
    if not host or url.scheme not in ("https", "http"):
        return "a key set must be an absolute path or an https:// URL"
    if url.scheme == "http" and not is_loopback(host):
        return (
            "a key set must be fetched over https; http:// is allowed for loopback only"
        )
    return None


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, judged by its name alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
