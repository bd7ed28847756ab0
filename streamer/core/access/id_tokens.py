"""
ID tokens: what an OpenID Connect issuer says of a person who has logged in.

Verifies a token as OpenID Connect Core 1.0, section 3.1.3.7 requires: the algorithm is
one of a list, the signature is by a key of the issuer, and issuer, audience, times and
nonce are those of this login. Then it reads who the person is. Knows nothing of how the
token and the keys were retrieved.

The token's ``alg`` may choose among the algorithms with a public key only, and a key is
for the algorithm of its type. So a token without a signature, or one that is signed
with the public key as a shared secret, has no key that verifies it.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, NamedTuple

from ...errors import Defect, Unauthenticated
from .claims import find
from .signatures import Algorithm, KeySet, names_algorithm
from .tokens import UnverifiedToken, check_signature, check_times, parse

__all__ = [
    "ALLOWED",
    "ID_TOKEN_BYTES_MAX",
    "Person",
    "algorithm_of",
    "parse_id_token",
    "read_person",
    "verify_id_token",
]

ALLOWED: Final[tuple[Algorithm, ...]] = ("RS256", "ES256", "EdDSA")

ID_TOKEN_BYTES_MAX: Final = 32_768
"""A person may be in some hundred groups."""

TTL_MAX_S: Final = 31 * 86_400
"""The lifetime of the session is another matter; see `Config.console_session_s`."""

SUBJECT_CHARS_MAX: Final = 255
NAME_CHARS_MAX: Final = 255
VALUES_MAX: Final = 1_000
"""Values read of the claim that grants roles."""

_EMAIL: Final = ("email", "/email")


class Person(NamedTuple):
    """
    Who has logged in: the id at the issuer, a name for people, and the claim's values.
    """

    subject: str
    name: str
    values: frozenset[str]


def parse_id_token(text: str) -> UnverifiedToken:
    """
    Parse an ID token.

    Raises:
        Unauthenticated: NOT_JWT, MALFORMED (header) or UNREADABLE (claims).
    """
    token = parse(text.encode("utf-8", "replace"), bytes_max=ID_TOKEN_BYTES_MAX)
    # An access token of the same issuer says nothing of a login.
    if token.header.get("typ", "JWT").lower() != "jwt":
        raise Unauthenticated(Defect.MALFORMED, "typ")
    return token


def algorithm_of(token: UnverifiedToken) -> Algorithm:
    """
    Return the algorithm that a token names.

    Raises:
        Unauthenticated: SIGNATURE, with the detail ``alg``: it is not in `ALLOWED`.
    """
    for algorithm in ALLOWED:
        if names_algorithm(token.header["alg"], algorithm):
            return algorithm
    raise Unauthenticated(Defect.SIGNATURE, "alg")


def verify_id_token(
    token: UnverifiedToken,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    now_s: int,
) -> dict[str, Any]:
    """
    Return the claims of a token that is valid for this login.

    Args:
        token: What `parse_id_token` returned.
        keys: The keys of the issuer.
        issuer: What ``iss`` has to be.
        client_id: What ``aud`` has to contain, and ``azp`` to be if it is there.
        nonce: What the login was begun with.
        now_s: Unix time. ``exp``, ``nbf`` and ``iat`` have a leeway of 30 s.

    Raises:
        Unauthenticated: SIGNATURE (with ``alg``), KEY_ID, SIGNATURE, CLAIM (`detail`
            names it), LIFETIME or EXPIRED, checked in this order.
    """
    check_signature(token, algorithm_of(token), keys)
    claims = token.claims
    if claims.get("iss") != issuer:
        raise Unauthenticated(Defect.CLAIM, "iss")
    audiences = token.audiences
    if client_id not in audiences:
        raise Unauthenticated(Defect.CLAIM, "aud")
    # Required if the token is for several parties (section 3.1.3.7, steps 4 and 5).
    if claims.get("azp", client_id if len(audiences) == 1 else None) != client_id:
        raise Unauthenticated(Defect.CLAIM, "azp")
    check_times(claims, now_s, ttl_max_s=TTL_MAX_S)
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(
        said.encode("utf-8", "replace"), nonce.encode()
    ):
        raise Unauthenticated(Defect.CLAIM, "nonce")
    return claims


def read_person(claims: dict[str, Any], claim: str) -> Person:
    """
    Return who the claims of a valid token are about.

    Args:
        claims: The claims.
        claim: Where the values are that grant roles: the name of a claim, or a JSON
            pointer. A text is one value; a list may have many. An address that the
            issuer has not verified is no value: people can write their own.

    Raises:
        Unauthenticated: CLAIM: ``sub`` is missing or is no text of 1 to 255 printable
            characters.
    """
    subject = _text(claims.get("sub"))
    if not subject or len(subject) > SUBJECT_CHARS_MAX:
        raise Unauthenticated(Defect.CLAIM, "sub")
    # Some issuers write it as a text.
    said = claims.get("email_verified")
    is_verified = said in (True, "true")
    names = (
        claims.get("email") if is_verified or said is None else None,
        claims.get("preferred_username"),
        claims.get("name"),
    )
    name = next(filter(None, map(_text, names)), "")[:NAME_CHARS_MAX]
    found = find(claims, claim) if claim.startswith("/") else claims.get(claim)
    values = found if isinstance(found, list) else [found]
    if claim in _EMAIL and not is_verified:
        values = []
    return Person(
        subject,
        name,
        frozenset(it for it in values[:VALUES_MAX] if isinstance(it, str) and it),
    )


def _text(value: object) -> str:
    """Return a text that can be shown and stored, "" for anything else."""
    return value if isinstance(value, str) and value.isprintable() else ""
