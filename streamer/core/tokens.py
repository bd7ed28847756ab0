"""
Player and service tokens: made, taken apart, and believed or not.

Knows the form of a JSON Web Token, the claims this server asks for, and the one name
for each thing that can be wrong with them. Knows nothing of headers, stores or clocks:
the time is an argument, and so is the record whose secret must have signed the token.

Believing takes three steps, because which app's secret counts is written in the token::

    parse(token)       form only: three segments, two JSON objects, an honest header
      .audience        which app the token says it is for; nothing else is read yet
    verify(…, record)  signature by that app's record, then every claim

Nothing but `Unverified.audience` is used before the signature held, and it can only
choose among the server's own apps. The algorithm is the record's: the token's ``alg``
has to equal it and chooses nothing. Ways for a token to bring its own key (``jwk``,
``jku``, ``x5u``, ``x5c``) are refused, since a token that has one was not made for us.

What RFC 7519 leaves open is closed here. Every claim is required, numbers are
integers, a token lives for at most a day, and a member name given twice refuses the
token, because two parsers may disagree about which one counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, NoReturn

import msgspec
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from ..errors import Defect, Unauthenticated
from ..model import App, Player, parse_app, parse_player
from .access import parse_permissions

__all__ = [
    "LEEWAY_S",
    "SECRET_BYTES_MIN",
    "TOKEN_BYTES_MAX",
    "TTL_MAX_S",
    "VERSION",
    "AppRecord",
    "Claims",
    "Unverified",
    "mint",
    "parse",
    "verify",
]

TOKEN_BYTES_MAX: Final = 8_192
"""A token rides in a header; ours are about 400 bytes. Longer is not even split."""

TTL_MAX_S: Final = 86_400
"""A stolen token is good for a day at most."""

LEEWAY_S: Final = 30
"""How far the clocks of a studio's backend and of this server may be apart."""

SECRET_BYTES_MIN: Final = 32
"""RFC 7518 section 3.2: an HMAC key is at least as long as the hash."""

VERSION: Final = 1
"""Of the set of claims, in the claim ``ver``."""

_SEGMENT = rb"([A-Za-z0-9_-]*)"
_JWS = re.compile(rb"(%b\.%b)\.%b" % (_SEGMENT, _SEGMENT, _SEGMENT))
_TYPES: Final = {"jwt", "at+jwt", "application/at+jwt"}
_REFUSED_IN_HEADER: Final = ("crit", "b64", "jwk", "jku", "x5u", "x5c")
_INTEGER_MAX: Final = 2**53 - 1  # what every JSON parser agrees on

_registry = JWSRegistry(algorithms=["HS256"])


class AppRecord(msgspec.Struct, frozen=True):
    """
    An app and what its tokens are checked against.

    Raises:
        ValueError: The secret has less than `SECRET_BYTES_MIN` bytes.
    """

    name: App
    secret: bytes
    issuer: str
    created_at_ms: int
    algorithm: Literal["HS256"] = "HS256"

    def __post_init__(self) -> None:
        if len(self.secret) < SECRET_BYTES_MIN:
            raise ValueError(
                f"the app's secret has {len(self.secret)} bytes, "
                f"at least {SECRET_BYTES_MIN} are needed"
            )

    def __repr__(self) -> str:
        return f"AppRecord(name={self.name!r}, issuer={self.issuer!r})"

    @property
    def key_id(self) -> str:
        """The ``kid`` of tokens made with this secret. It does not give it away."""
        return hashlib.sha256(b"streamer key id\0" + self.secret).hexdigest()[:16]


class Claims(NamedTuple):
    """What a token that was believed says. `permissions` may hold unknown strings."""

    app: App
    player: Player
    permissions: frozenset[str]
    topics: tuple[str, ...]
    expires_at_s: int


class Unverified(NamedTuple):
    """A token in its parts, none of which is true yet."""

    signed: bytes
    signature: bytes
    header: dict[str, Any]  # JSON as the sender wrote it
    claims: dict[str, Any]  # likewise

    @property
    def audience(self) -> App:
        """
        Name of the app whose record is to check this token.

        Raises:
            Unauthenticated: ``aud`` is not one name that an app could have.
        """
        audience = self.claims.get("aud")
        app = parse_app(audience) if isinstance(audience, str) else None
        if app is None:
            raise Unauthenticated(Defect.CLAIM, "aud")
        return app


def parse(token: bytes) -> Unverified:
    """
    Take a token apart.

    Raises:
        Unauthenticated: NOT_JWT, MALFORMED (header) or UNREADABLE (claims).
    """
    match = _JWS.fullmatch(token) if len(token) <= TOKEN_BYTES_MAX else None
    if match is None:
        raise Unauthenticated(Defect.NOT_JWT)
    signed, *segments = match.groups()
    try:
        header, claims, signature = map(_decode_segment, segments)
    except ValueError:
        raise Unauthenticated(Defect.NOT_JWT) from None
    return Unverified(
        signed=signed,
        signature=signature,
        header=_check_header(_decode_object(header, Defect.MALFORMED)),
        claims=_decode_object(claims, Defect.UNREADABLE),
    )


def verify(token: Unverified, record: AppRecord, *, now_s: int) -> Claims:
    """
    Return what the token says, if the app's secret signed it and every claim holds.

    Raises:
        Unauthenticated: KEY_ID, SIGNATURE, VERSION, CLAIM (`detail` names it) or
            EXPIRED, checked in this order.
    """
    _check_signature(token, record)
    claims = token.claims
    version = _integer(claims, "ver")
    if version != VERSION:
        raise Unauthenticated(Defect.VERSION, str(version))
    if token.audience != record.name:
        raise Unauthenticated(Defect.CLAIM, "aud")
    if claims.get("iss") != record.issuer:
        raise Unauthenticated(Defect.CLAIM, "iss")
    subject = claims.get("sub")
    player = parse_player(subject) if isinstance(subject, str) else None
    if player is None:
        raise Unauthenticated(Defect.CLAIM, "sub")
    return Claims(
        app=record.name,
        player=player,
        permissions=frozenset(_strings(claims, "permissions")),
        topics=_strings(claims, "topics") if "topics" in claims else (),
        expires_at_s=_check_times(claims, now_s),
    )


def mint(
    record: AppRecord,
    player: Player,
    *,
    permissions: Iterable[str] = (),
    topics: Iterable[str] = (),
    ttl_s: int,
    now_s: int,
) -> str:
    """
    Return a signed token for `player` that is good for `ttl_s` seconds.

    Without permissions it gets the default: everything on the player's own inbox.

    Raises:
        ValueError: A permission is unknown, or `ttl_s` is not 1 to `TTL_MAX_S`.
    """
    if not 1 <= ttl_s <= TTL_MAX_S:
        raise ValueError(f"a token may live for 1 to {TTL_MAX_S} s, not {ttl_s}")
    header = {"alg": record.algorithm, "typ": "JWT", "kid": record.key_id}
    claims = {
        "sub": player,
        "aud": record.name,
        "iss": record.issuer,
        "iat": now_s,
        "exp": now_s + ttl_s,
        "ver": VERSION,
        "permissions": sorted(parse_permissions(permissions)),
        "topics": list(topics),
    }
    signed = b"%b.%b" % (_encode_object(header), _encode_object(claims))
    algorithm = _registry.get_alg(record.algorithm)
    signature = algorithm.sign(signed, OctKey.import_key(record.secret))
    return (b"%b.%b" % (signed, _encode_segment(signature))).decode()


def _check_header(header: dict[str, Any]) -> dict[str, Any]:
    for name in _REFUSED_IN_HEADER:
        if name in header:
            raise Unauthenticated(Defect.MALFORMED, name)
    if not isinstance(header.get("alg"), str):
        raise Unauthenticated(Defect.MALFORMED, "alg")
    # RFC 8725 section 3.11: an id or refresh token of the same issuer is not ours.
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Unauthenticated(Defect.MALFORMED, "typ")
    return header


def _check_signature(token: Unverified, record: AppRecord) -> None:
    if "kid" in token.header and token.header["kid"] != record.key_id:
        raise Unauthenticated(Defect.KEY_ID)
    if token.header["alg"] != record.algorithm:
        raise Unauthenticated(Defect.SIGNATURE, "alg")
    algorithm = _registry.get_alg(record.algorithm)
    key = OctKey.import_key(record.secret)
    if not algorithm.verify(token.signed, token.signature, key):
        raise Unauthenticated(Defect.SIGNATURE)


def _check_times(claims: dict[str, Any], now_s: int) -> int:
    """Return ``exp``, if the token is in its time."""
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
    return expires_at


def _integer(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    # `type` and not `isinstance`: True is an int in Python and none in JSON.
    if type(value) is not int or not 0 <= value <= _INTEGER_MAX:
        raise Unauthenticated(Defect.CLAIM, name)
    return value


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
        value = json.loads(
            raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise Unauthenticated(defect) from None
    if not isinstance(value, dict):
        raise Unauthenticated(defect)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name is given twice")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


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
