"""
Player and service tokens: made, taken apart, and believed or not.

Knows the form of a JSON Web Token, the claims this server asks for, and the one name
for each thing that can be wrong with them. Knows nothing of headers, stores or clocks:
the time is an argument, and so is the record whose secret must have signed the token.

Believing takes three steps, because which app's keys count is written in the token::

    parse(token)       form only: three segments, two JSON objects, an honest header
      .issuer, .audience, .key_id    whose keys to look at; nothing else is read yet
    verify(…, record, keys)          signature by a key of that app, then every claim

What is read before the signature held can only choose among the server's own apps and
their keys. The algorithm is the record's: the token's ``alg`` has to equal it and
chooses nothing. Ways for a token to bring its own key (``jwk``, ``jku``, ``x5u``,
``x5c``) are refused, since a token that has one was not made for us.

For who sees a token again, the last step is two: `verify_without_times` says what holds
for as long as record and keys are the same, and `VerifiedToken.at` what depends on the
time.

What RFC 7519 leaves open is closed here. Every claim is required, numbers are
integers, a token lives for at most a day, and a member name given twice refuses the
token, because two parsers may disagree about which one counts. An issuer that is not
this server has to put in exactly the same: ``sub``, ``aud`` (one string), ``iss``,
``iat``, ``exp``, ``ver`` and ``permissions``.
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
from .apps import NAME_CHARS_MAX, SECRET_BYTES_MIN, AppRecord
from .rights import TokenProof, parse_permissions
from .signatures import Key, KeySet, names_algorithm, secret_key, sign

__all__ = [
    "LEEWAY_S",
    "SECRET_BYTES_MIN",
    "TOKEN_BYTES_MAX",
    "TTL_MAX_S",
    "VERSION",
    "AppRecord",
    "Claims",
    "UnverifiedToken",
    "VerifiedToken",
    "mint",
    "parse",
    "require_algorithm",
    "verify",
    "verify_without_times",
]

TOKEN_BYTES_MAX: Final = 8_192
"""A token rides in a header; ours are about 400 bytes. Longer is not even split."""

TTL_MAX_S: Final = 86_400
"""A stolen token is good for a day at most."""

LEEWAY_S: Final = 30
"""How far the clocks of a studio's backend and of this server may be apart."""

VERSION: Final = 1
"""Of the set of claims, in the claim ``ver``."""

_SEGMENT = rb"([A-Za-z0-9_-]*)"
_JWS = re.compile(rb"(%b\.%b)\.%b" % (_SEGMENT, _SEGMENT, _SEGMENT))
_TYPES: Final = {"jwt", "at+jwt", "application/at+jwt"}
_REFUSED_IN_HEADER: Final = ("crit", "b64", "jwk", "jku", "x5u", "x5c")
_INTEGER_MAX: Final = 2**53 - 1  # what every JSON parser agrees on


class Claims(NamedTuple):
    """What a token that was believed says. `permissions` may hold unknown strings."""

    app: App
    player: Player
    permissions: frozenset[str]
    topics: tuple[str, ...]
    expires_at_s: int
    proof: TokenProof


class UnverifiedToken(NamedTuple):
    """A token in its parts, none of which is true yet."""

    signed: bytes
    signature: bytes
    header: Mapping[str, Any]  # JSON as the sender wrote it
    claims: dict[str, Any]  # likewise

    @property
    def audience(self) -> str:
        """
        Which app the token says it is for.

        Raises:
            Unauthenticated: ``aud`` is no string, or one that no app expects.
        """
        audience = self.claims.get("aud")
        if not _is_name(audience):
            raise Unauthenticated(Defect.CLAIM, "aud")
        return str(audience)

    @property
    def issuer(self) -> str:
        """Who the token says has issued it; empty where it does not say."""
        issuer = self.claims.get("iss")
        return str(issuer) if _is_name(issuer) else ""

    @property
    def key_id(self) -> str | None:
        """
        The ``kid`` of the key that the token says has signed it, None without one.

        Raises:
            Unauthenticated: It is no text.
        """
        if "kid" not in self.header:
            return None
        key_id = self.header["kid"]
        if not _is_name(key_id):
            raise Unauthenticated(Defect.KEY_ID)
        return str(key_id)


class VerifiedToken(NamedTuple):
    """
    A token that a key of its app signed, and that says what it has to.

    It is that by its app's record and all of the app's keys at one time, of which `key`
    has signed it. Its times were not looked at.
    """

    token: UnverifiedToken
    record: AppRecord
    keys: tuple[Key, ...]
    key: Key
    player: Player
    permissions: frozenset[str]
    topics: tuple[str, ...]

    def was_verified_with(self, record: AppRecord, keys: KeySet) -> bool:
        """Whether it is that by this record and these keys."""
        return self.record == record and self.keys == keys.keys

    def check(self, now_s: int) -> tuple[int, int]:
        """
        Return ``iat`` and ``exp``, if the token is in its time and not taken back.

        Raises:
            Unauthenticated: CLAIM (`detail` names it), EXPIRED or REVOKED, checked in
                this order.
        """
        issued_at_s, expires_at_s = _check_times(self.token.claims, now_s)
        if issued_at_s < self.record.not_before_s:
            raise Unauthenticated(Defect.REVOKED)
        return issued_at_s, expires_at_s

    def at(self, now_s: int) -> Claims:
        """Return what the token says; raises as `check`."""
        record = self.record
        issued_at_s, expires_at_s = self.check(now_s)
        # The record's strings, not the token's: one of each for all who listen.
        proof = TokenProof(
            record.issuer, record.expected_audience, self.key.name, issued_at_s
        )
        return Claims(
            record.name, self.player, self.permissions, self.topics, expires_at_s, proof
        )


def parse(token: bytes) -> UnverifiedToken:
    """
    Take a token apart.

    Raises:
        Unauthenticated: NOT_JWT, MALFORMED (header) or UNREADABLE (claims).
    """
    match = _JWS.fullmatch(token) if len(token) <= TOKEN_BYTES_MAX else None
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
    Refuse a token of another algorithm than its app's, before a key is looked for.

    Raises:
        Unauthenticated: SIGNATURE, with the detail ``alg``.
    """
    if not names_algorithm(token.header["alg"], record.algorithm):
        raise Unauthenticated(Defect.SIGNATURE, "alg")


def verify(
    token: UnverifiedToken, record: AppRecord, keys: KeySet | None = None, *, now_s: int
) -> Claims:
    """
    Return what the token says, if a key of the app signed it and every claim holds.

    Args:
        token: What `parse` returned.
        record: The app that the token says it is for.
        keys: The app's keys; those in the record where there are none elsewhere.
        now_s: Unix time.

    Raises:
        Unauthenticated: SIGNATURE (with ``alg``), KEY_ID, SIGNATURE, VERSION, CLAIM
            (`detail` names it), EXPIRED or REVOKED, checked in this order.
    """
    if keys is None:
        keys = record.own_keys(now_s)
    return verify_without_times(token, record, keys).at(now_s)


def verify_without_times(
    token: UnverifiedToken, record: AppRecord, keys: KeySet
) -> VerifiedToken:
    """
    Return the token, if a key of the app signed it and its claims are those asked for.

    Raises:
        Unauthenticated: SIGNATURE (with ``alg``), KEY_ID, SIGNATURE, VERSION or CLAIM
            (`detail` names it), checked in this order.
    """
    require_algorithm(token, record)
    key = _check_signature(token, record, keys)
    claims = token.claims
    version = _integer(claims, "ver")
    if version != VERSION:
        raise Unauthenticated(Defect.VERSION, str(version))
    if token.audience != record.expected_audience:
        raise Unauthenticated(Defect.CLAIM, "aud")
    if claims.get("iss") != record.issuer:
        raise Unauthenticated(Defect.CLAIM, "iss")
    subject = claims.get("sub")
    player = parse_player(subject) if isinstance(subject, str) else None
    if player is None:
        raise Unauthenticated(Defect.CLAIM, "sub")
    permissions = _shared_set(_strings(claims, "permissions"))
    topics = _strings(claims, "topics") if "topics" in claims else ()
    return VerifiedToken(token, record, keys.keys, key, player, permissions, topics)


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
    Return a signed token for `player` that is good for `ttl_s` seconds.

    Without permissions it gets the default: everything on the player's own inbox.

    Args:
        record: The app, whose secret signs it.
        player: Whose token it is.
        permissions: What it gives.
        topics: The claim of that name.
        ttl_s: How long it lives.
        now_s: Unix time.
        not_before_s: Tokens of the player issued before this were taken back. One that
            is made in the same second is none of them, and is dated after it.

    Raises:
        ValueError: A permission is unknown, `ttl_s` is not 1 to `TTL_MAX_S`, or the
            app's tokens are signed by somebody else.
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
    claims = {
        "sub": player,
        "aud": record.expected_audience,
        "iss": record.issuer,
        "iat": now_s,
        "exp": now_s + ttl_s,
        "ver": VERSION,
        "permissions": sorted(parse_permissions(permissions)),
        "topics": list(topics),
    }
    signed = b"%b.%b" % (_encode_object(header), _encode_object(claims))
    signature = sign(signed, secret_key(record.secret))
    return (b"%b.%b" % (signed, _encode_segment(signature))).decode()


@lru_cache(maxsize=256)
def _read_header(segment: bytes) -> Mapping[str, Any]:
    """Return a header, if it is one; that of a key is the same in all its tokens."""
    header = _decode_object(_decode_segment(segment), Defect.MALFORMED)
    for name in _REFUSED_IN_HEADER:
        if name in header:
            raise Unauthenticated(Defect.MALFORMED, name)
    if not isinstance(header.get("alg"), str):
        raise Unauthenticated(Defect.MALFORMED, "alg")
    # RFC 8725 section 3.11: an id or refresh token of the same issuer is not ours.
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated(Defect.MALFORMED, "typ")
    return MappingProxyType(header)


def _check_signature(token: UnverifiedToken, record: AppRecord, keys: KeySet) -> Key:
    """Return the key that signed the token."""
    candidates = keys.candidates(record.algorithm, token.key_id)
    if not candidates:
        raise Unauthenticated(Defect.KEY_ID)
    for key in candidates:
        if key.verifies(token.signed, token.signature):
            return key
    raise Unauthenticated(Defect.SIGNATURE)


def _check_times(claims: dict[str, Any], now_s: int) -> tuple[int, int]:
    """Return ``iat`` and ``exp``, if the token is in its time."""
    issued_at = _integer(claims, "iat")
    expires_at = _integer(claims, "exp")
    if issued_at > now_s + LEEWAY_S:
        raise Unauthenticated(Defect.CLAIM, "iat")
    if "nbf" in claims and _integer(claims, "nbf") > now_s + LEEWAY_S:
        raise Unauthenticated(Defect.CLAIM, "nbf")
    if not 0 < expires_at - issued_at <= TTL_MAX_S:
        raise Unauthenticated(Defect.CLAIM, "exp")
    if now_s >= expires_at + LEEWAY_S:
        raise Unauthenticated(Defect.EXPIRED)
    return issued_at, expires_at


def _is_name(value: object) -> bool:
    # What cannot be printed cannot be encoded either, or belongs into no name.
    return (
        isinstance(value, str)
        and 0 < len(value) <= NAME_CHARS_MAX
        and value.isprintable()
    )


def _integer(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    # `type` and not `isinstance`: True is an int in Python and none in JSON.
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise Unauthenticated(Defect.CLAIM, name)
    return value


# Most tokens of an app permit the same, and who listens keeps it for as long.
@lru_cache(maxsize=256)
def _shared_set(permissions: tuple[str, ...]) -> frozenset[str]:
    return frozenset(permissions)


def _strings(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    # A string is refused: "in" would find a permission in the middle of it.
    value = claims.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unauthenticated(Defect.CLAIM, name)
    try:
        "".join(value).encode()
    except UnicodeEncodeError:  # A lone surrogate, which no key or frame can carry.
        raise Unauthenticated(Defect.CLAIM, name) from None
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


def _decode_segment(segment: bytes) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error as exc:
        raise ValueError("not base64url") from exc
    # The last digit has unused bits, so one text has several spellings. Only the
    # canonical one counts, else a token could be varied without breaking it.
    if _encode_segment(raw) != segment:
        raise ValueError("not canonical base64url")
    return raw
