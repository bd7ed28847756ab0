"""
Player and service tokens: minting, parsing and verification.

Knows the format of a JSON Web Token, the claims that this server requires, and one
`Defect` for each thing that can be wrong with them. Knows nothing of headers, stores or
clocks: the time is an argument, and so is the record whose key must have signed the
token.

Verification takes three steps, because the token names the app whose keys verify it::

    parse(token)       format only: three segments, two JSON objects, a valid header
      .issuer, .audience, .key_id    choose the keys; no other claim is read yet
    verify(…, record, keys)          the signature by a key of that app, then all claims

What is read before the signature is verified can only choose among the server's own
apps and their keys. The record decides the algorithm; the token's ``alg`` must equal
it. Members with which a token brings its own key (``jwk``, ``jku``, ``x5u``, ``x5c``)
are rejected.

The last step has two parts, for callers that see a token repeatedly:
`verify_without_times` checks what holds for as long as the record and the keys are the
same, and `VerifiedToken.claims_at` what depends on the time.

The format is stricter than RFC 7519. Every claim is required, the lifetime is at most a
day, and a duplicate member name makes the token invalid, because parsers disagree about
which one wins. Tokens of other issuers need the same claims, but for ``ver``, which is
theirs to define: ``sub``, ``aud`` (a string or a list), ``iss``, ``iat``, ``exp`` and
``permissions``. An app may say where in its tokens the player, the permissions and the
topics are (`claims`), and which permissions a token without any has.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from ...errors import Defect, Unauthenticated
from ...model import App, Player, parse_player
from .apps import AUDIENCES_MAX, NAME_CHARS_MAX, SECRET_BYTES_MIN, AppRecord
from .claims import ABSENT, find, put
from .rights import TokenProof, parse_permissions
from .signatures import Algorithm, Key, KeySet, names_algorithm, secret_key, sign

__all__ = [
    "AUDIENCES_MAX",
    "LEEWAY_S",
    "SECRET_BYTES_MIN",
    "TOKEN_BYTES_MAX",
    "TTL_MAX_S",
    "VERSION",
    "AppRecord",
    "Claims",
    "UnverifiedToken",
    "VerifiedToken",
    "check_signature",
    "check_times",
    "mint",
    "parse",
    "require_algorithm",
    "verify",
    "verify_without_times",
]

TOKEN_BYTES_MAX: Final = 8_192
"""A token is sent in a header; ours have about 400 bytes. Longer ones are rejected."""

TTL_MAX_S: Final = 86_400
"""A stolen token is valid for at most a day."""

LEEWAY_S: Final = 30
"""How much the clocks of a studio's backend and of this server may differ."""

VERSION: Final = 1
"""The version of the set of claims, in the claim ``ver``."""

_SEGMENT = rb"([A-Za-z0-9_-]*)"
_JWS = re.compile(rb"(%b\.%b)\.%b" % (_SEGMENT, _SEGMENT, _SEGMENT))
_TYPES: Final = {"jwt", "at+jwt", "application/at+jwt"}
_REFUSED_IN_HEADER: Final = ("crit", "b64", "jwk", "jku", "x5u", "x5c")
_NUMBER_MAX: Final = 2**53 - 1  # Exact in every JSON parser.


class Claims(NamedTuple):
    """The claims of a valid token. `permissions` may have unknown strings."""

    app: App
    player: Player
    permissions: frozenset[str]
    topics: tuple[str, ...]
    expires_at_s: int
    proof: TokenProof


class UnverifiedToken(NamedTuple):
    """A parsed token. Nothing in it is verified yet."""

    signed: bytes
    signature: bytes
    header: Mapping[str, Any]  # Any JSON.
    claims: dict[str, Any]  # Any JSON.

    @property
    def audiences(self) -> tuple[str, ...]:
        """
        The ``aud``: a string or a list, one of which names the app.

        Raises:
            Unauthenticated: It is neither, has more than `AUDIENCES_MAX` elements, or
                has one that no app can have.
        """
        claim = self.claims.get("aud")
        if _is_name(claim):
            return (str(claim),)
        audiences = claim if isinstance(claim, list) else [claim]
        if not 0 < len(audiences) <= AUDIENCES_MAX or not all(map(_is_name, audiences)):
            raise Unauthenticated(Defect.CLAIM, "aud")
        return tuple(dict.fromkeys(audiences))

    @property
    def issuer(self) -> str:
        """The ``iss``; empty if it is missing or invalid."""
        issuer = self.claims.get("iss")
        return str(issuer) if _is_name(issuer) else ""

    @property
    def key_id(self) -> str | None:
        """
        The ``kid``, which names the key that signed the token; None without one.

        Raises:
            Unauthenticated: It is not a valid name.
        """
        if "kid" not in self.header:
            return None
        key_id = self.header["kid"]
        if not _is_name(key_id):
            raise Unauthenticated(Defect.KEY_ID)
        return str(key_id)


class VerifiedToken(NamedTuple):
    """
    A token whose signature and claims are valid, except that its times are not checked.

    It was verified with `record` and `keys`, the app's record and keys at one time;
    `key` signed it.
    """

    token: UnverifiedToken
    record: AppRecord
    keys: tuple[Key, ...]
    key: Key
    audience: str
    player: Player
    permissions: frozenset[str]
    topics: tuple[str, ...]

    def was_verified_with(self, record: AppRecord, keys: KeySet) -> bool:
        """Whether it was verified with this record and these keys."""
        return self.record == record and self.keys == keys.keys

    def check_times(self, now_s: int) -> tuple[int, int]:
        """
        Return ``iat`` and ``exp`` if the token is valid at `now_s` and not revoked.

        Raises:
            Unauthenticated: CLAIM (`detail` names it), LIFETIME, EXPIRED or REVOKED,
                checked in this order.
        """
        issued_at_s, expires_at_s = check_times(self.token.claims, now_s)
        if issued_at_s < self.record.not_before_s:
            raise Unauthenticated(Defect.REVOKED)
        return issued_at_s, expires_at_s

    def claims_at(self, now_s: int) -> Claims:
        """Return the claims of the token. Raises as `check_times`."""
        record = self.record
        issued_at_s, expires_at_s = self.check_times(now_s)
        # The record's strings, not the token's, so that all callers share them.
        proof = TokenProof(
            record.issuer, self.audience, self.key.name, issued_at_s, record.reading
        )
        return Claims(
            record.name, self.player, self.permissions, self.topics, expires_at_s, proof
        )


def parse(token: bytes, *, bytes_max: int = TOKEN_BYTES_MAX) -> UnverifiedToken:
    """
    Parse a token of at most `bytes_max` bytes.

    Raises:
        Unauthenticated: NOT_JWT, MALFORMED (header) or UNREADABLE (claims).
    """
    match = _JWS.fullmatch(token) if len(token) <= bytes_max else None
    if match is None:
        raise Unauthenticated(Defect.NOT_JWT)
    signed, header, *segments = match.groups()
    try:
        claims, signature = map(_decode_segment, segments)
        verified_header = _read_header(header)
    except ValueError:
        raise Unauthenticated(Defect.NOT_JWT) from None
    return UnverifiedToken(
        signed=signed,
        signature=signature,
        header=verified_header,
        claims=_decode_object(claims, Defect.UNREADABLE),
    )


def require_algorithm(token: UnverifiedToken, record: AppRecord) -> None:
    """
    Reject a token with another algorithm than its app's, before keys are retrieved.

    Raises:
        Unauthenticated: SIGNATURE, with the detail ``alg``.
    """
    if not names_algorithm(token.header["alg"], record.algorithm):
        raise Unauthenticated(Defect.SIGNATURE, "alg")


def verify(
    token: UnverifiedToken, record: AppRecord, keys: KeySet | None = None, *, now_s: int
) -> Claims:
    """
    Return the claims of the token if its signature and all claims are valid.

    Args:
        token: What `parse` returned.
        record: The app that the token names.
        keys: The app's keys; None stands for those in the record.
        now_s: Unix time.

    Raises:
        Unauthenticated: SIGNATURE (with ``alg``), KEY_ID, SIGNATURE, VERSION, CLAIM
            (`detail` names it), LIFETIME, EXPIRED or REVOKED, checked in this order.
    """
    if keys is None:
        keys = record.own_keys(now_s)
    return verify_without_times(token, record, keys).claims_at(now_s)


def verify_without_times(
    token: UnverifiedToken, record: AppRecord, keys: KeySet
) -> VerifiedToken:
    """
    Return the token if its signature and its claims, except for the times, are valid.

    Raises:
        Unauthenticated: SIGNATURE (with ``alg``), KEY_ID, SIGNATURE, VERSION or CLAIM
            (`detail` names it), checked in this order.
    """
    require_algorithm(token, record)
    key = check_signature(token, record.algorithm, keys)
    claims = token.claims
    _check_version(claims, record)
    # The record's string, so that all callers share it.
    audience = record.expected_among(token.audiences)
    if audience is None:
        raise Unauthenticated(Defect.CLAIM, "aud")
    if claims.get("iss") != record.issuer:
        raise Unauthenticated(Defect.CLAIM, "iss")
    subject = find(claims, record.claims.of("player"))
    player = parse_player(subject) if isinstance(subject, str) else None
    if player is None:
        raise Unauthenticated(Defect.CLAIM, record.claims.label("player"))
    permissions = _strings(record, claims, "permissions", record.default_permissions)
    topics = _strings(record, claims, "topics", ())
    if permissions is None or topics is None:
        name = record.claims.label("permissions" if permissions is None else "topics")
        raise Unauthenticated(Defect.CLAIM, name)
    return VerifiedToken(
        *(token, record, keys.keys, key, audience, player),
        *(_shared_set(permissions), topics),
    )


def mint(
    record: AppRecord,
    player: Player,
    *,
    permissions: Iterable[str] = (),
    topics: Iterable[str] = (),
    ttl_s: int,
    now_s: int,
    not_before_s: int = 0,
) -> str:
    """
    Return a signed token for `player` that is valid for `ttl_s` seconds.

    Without permissions it has the default: all rights on the player's own inbox.

    Args:
        record: The app, whose secret signs it, and which says where the claims are.
        player: The player.
        permissions: The permissions.
        topics: The topics.
        ttl_s: The lifetime, up to `TTL_MAX_S`.
        now_s: Unix time.
        not_before_s: Tokens of the player issued before this are revoked. A token that
            is minted in the same second is not, because ``iat`` is set to this.

    Raises:
        ValueError: A permission is unknown, `ttl_s` is not 1 to `TTL_MAX_S`, or another
            party issues the app's tokens.
    """
    if not 1 <= ttl_s <= TTL_MAX_S:
        raise ValueError(
            f"the lifetime of a token must be 1 to {TTL_MAX_S} s, not {ttl_s}"
        )
    if record.algorithm != "HS256":
        raise ValueError(
            f"tokens of the app {record.name} are issued by {record.issuer}"
        )
    now_s = max(now_s, record.not_before_s, not_before_s)
    header = {"alg": record.algorithm, "typ": "JWT", "kid": record.key_id}
    claims: dict[str, Any] = {
        "aud": record.expected_audience,
        "iss": record.issuer,
        "iat": now_s,
        "exp": now_s + ttl_s,
        "ver": VERSION,
    }
    for target, value in (
        ("player", player),
        ("permissions", sorted(parse_permissions(permissions))),
        ("topics", list(topics)),
    ):
        put(claims, record.claims.of(target), value)
    signed = b"%b.%b" % (_encode_object(header), _encode_object(claims))
    signature = sign(signed, secret_key(record.secret))
    return (b"%b.%b" % (signed, _encode_segment(signature))).decode()


@lru_cache(maxsize=256)
def _read_header(segment: bytes) -> Mapping[str, Any]:
    """Return a valid header. Cached: all tokens of a key have the same."""
    header = _decode_object(_decode_segment(segment), Defect.MALFORMED)
    for name in _REFUSED_IN_HEADER:
        if name in header:
            raise Unauthenticated(Defect.MALFORMED, name)
    if not isinstance(header.get("alg"), str):
        raise Unauthenticated(Defect.MALFORMED, "alg")
    # RFC 8725 section 3.11: reject an id or refresh token of the same issuer.
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated(Defect.MALFORMED, "typ")
    return MappingProxyType(header)


def check_signature(token: UnverifiedToken, algorithm: Algorithm, keys: KeySet) -> Key:
    """
    Return the key for `algorithm` that signed the token.

    Raises:
        Unauthenticated: KEY_ID or SIGNATURE.
    """
    candidates = keys.candidates(algorithm, token.key_id)
    if not candidates:
        raise Unauthenticated(Defect.KEY_ID)
    for key in candidates:
        if key.verifies(token.signed, token.signature):
            return key
    raise Unauthenticated(Defect.SIGNATURE)


def _check_version(claims: dict[str, Any], record: AppRecord) -> None:
    """Check ``ver``, which other issuers may omit, or define as a text."""
    if record.has_foreign_issuer and isinstance(claims.get("ver", ""), str):
        return
    version = _number(claims, "ver")
    if version != VERSION:
        raise Unauthenticated(Defect.VERSION, str(version))


def check_times(
    claims: dict[str, Any], now_s: int, *, ttl_max_s: int = TTL_MAX_S
) -> tuple[int, int]:
    """
    Return ``iat`` and ``exp`` if the token is valid at `now_s`.

    Raises:
        Unauthenticated: CLAIM (`detail` names it), LIFETIME or EXPIRED.
    """
    issued_at = _number(claims, "iat")
    expires_at = _number(claims, "exp")
    if issued_at > now_s + LEEWAY_S:
        raise Unauthenticated(Defect.CLAIM, "iat")
    if "nbf" in claims and _number(claims, "nbf") > now_s + LEEWAY_S:
        raise Unauthenticated(Defect.CLAIM, "nbf")
    if expires_at <= issued_at:
        raise Unauthenticated(Defect.CLAIM, "exp")
    if expires_at - issued_at > ttl_max_s:
        raise Unauthenticated(Defect.LIFETIME)
    if now_s >= expires_at + LEEWAY_S:
        raise Unauthenticated(Defect.EXPIRED)
    return int(issued_at), int(expires_at)


def _is_name(value: object) -> bool:
    # Unprintable characters cannot be encoded, or do not belong into a name.
    return (
        type(value) is str and 0 < len(value) <= NAME_CHARS_MAX and value.isprintable()
    )


def _number(claims: dict[str, Any], name: str) -> int | float:
    """Return a NumericDate (RFC 7519 section 2), which may have a fraction."""
    value = claims.get(name)
    # By type: True is an int in Python, but not a number in JSON.
    if (type(value) is int or type(value) is float) and 0 <= value <= _NUMBER_MAX:
        return value
    raise Unauthenticated(Defect.CLAIM, name)


# Most tokens of an app have equal permissions, which each open stream keeps.
@lru_cache(maxsize=256)
def _shared_set(permissions: tuple[str, ...]) -> frozenset[str]:
    return frozenset(permissions)


def _strings(
    record: AppRecord, claims: dict[str, Any], target: str, default: tuple[str, ...]
) -> tuple[str, ...] | None:
    """
    Return the strings at the place of one of `claims.TARGETS`, None if invalid.

    Where the app names the place, they may also be one string with spaces, as in the
    claim ``scope`` (RFC 8693 section 4.2). Elsewhere a string is an error, because "in"
    would find a permission within it.
    """
    value = find(claims, record.claims.of(target))
    if value is ABSENT:
        return default if default or target == "topics" else None
    if isinstance(value, str) and record.claims.is_mapped(target):
        value = [part for part in value.split(" ") if part]
    if not isinstance(value, list) or not {str}.issuperset(map(type, value)):
        return None
    try:
        "".join(value).encode()
    except UnicodeEncodeError:  # A lone surrogate cannot be stored or sent.
        return None
    return tuple(value)


def _decode_object(raw: bytes, defect: Defect) -> dict[str, Any]:
    try:
        value = _decoder.decode(raw.decode())
    except (ValueError, RecursionError):
        raise Unauthenticated(defect) from None
    if not isinstance(value, dict):
        raise Unauthenticated(defect)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member name")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant
)


def _encode_object(value: Mapping[str, object]) -> bytes:
    return _encode_segment(msgspec.json.encode(value))


def _encode_segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


# The digits that a text of base64url may end with, by its length modulo 4. The others
# have bits that belong to no byte, so that several texts decode to the same bytes. Only
# one of these is valid, or a token could be altered without breaking it.
_LAST_DIGITS: Final = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
_TO_BASE64: Final = bytes.maketrans(b"-_", b"+/")


def _decode_segment(segment: bytes) -> bytes:
    """Return what a text of the digits of base64url means. Raises ValueError."""
    beyond = len(segment) % 4
    if beyond and segment[-1] not in _LAST_DIGITS.get(beyond, b""):
        raise ValueError("not base64url")
    return binascii.a2b_base64(segment.translate(_TO_BASE64) + b"=" * (-beyond % 4))
