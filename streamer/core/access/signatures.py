"""
Signing keys, and the verification of signatures.

Decides which keys are acceptable, which of them may have signed a token, and whether
one of them did. Knows JSON Web Keys (RFC 7517), PEM, and the four algorithms. Knows
nothing of claims, apps, or where keys come from.

Each key is for one algorithm, which follows from its type: RSA for RS256, P-256 for
ES256, Ed25519 for EdDSA. The verifier chooses the algorithm, never the token, so a
public key cannot be used as a shared secret: it is never among the keys for HS256 (RFC
8725, sections 2.1 and 3.1).
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import Meta

__all__ = [
    "ALGORITHMS",
    "KEYS_MAX",
    "Algorithm",
    "Key",
    "KeySet",
    "names_algorithm",
    "parse_key_set",
    "print_secret",
    "printed_secret_key",
    "read_public_keys",
    "secret_key",
    "secret_keys",
    "sign",
]

Algorithm: TypeAlias = Literal["HS256", "RS256", "ES256", "EdDSA"]

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("HS256", "RS256", "ES256", "EdDSA")

KEYS_MAX: Final = 32
"""Keys read from a set; issuers publish two to ten."""

KEYS_TRIED_MAX: Final = 4
"""Keys tried for a token without a ``kid``; each costs 30 to 250 µs."""

RSA_BITS: Final = range(2_048, 8_193)
"""RFC 7518 section 3.3 requires 2,048; far longer keys take milliseconds to use."""

# The names of the algorithm in tokens. "EdDSA" does not name the curve and is
# deprecated; its successor does (RFC 9864). Here both mean Ed25519.
_SPELLINGS: Final[dict[Algorithm, tuple[str, ...]]] = {
    "HS256": ("HS256",),
    "RS256": ("RS256",),
    "ES256": ("ES256",),
    "EdDSA": ("EdDSA", "Ed25519"),
}
_registry: Final = JWSRegistry(algorithms=["HS256", "RS256", "ES256", "Ed25519"])
_schemes: Final = {
    algorithm: _registry.get_alg(spellings[-1])
    for algorithm, spellings in _SPELLINGS.items()
}

_PEM: Final = re.compile(
    rb"-----BEGIN ((?:RSA )?PUBLIC KEY)-----[A-Za-z0-9+/=\s]+-----END \1-----"
)


class Key(NamedTuple):
    """
    A key for `algorithm`.

    `id` is its ``kid``, None if its issuer gave it none. `name` is unique among all
    keys, and is no secret.
    """

    algorithm: Algorithm
    id: str | None
    name: str
    material: OctKey | RSAKey | ECKey | OKPKey

    def __repr__(self) -> str:
        return f"Key({self.algorithm}, {self.name})"

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is a signature of `signed` by this key."""
        return _schemes[self.algorithm].verify(signed, signature, self.material)


class KeySet:
    """The keys of one issuer at one time."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = tuple(keys)

    def candidates(self, algorithm: Algorithm, key_id: str | None) -> tuple[Key, ...]:
        """
        Return the keys that may have signed a token which names `key_id`.

        Keys without an id match any. Returns none if more than `KEYS_TRIED_MAX` keys
        match, so that a token without an id cannot cause many verifications. The two
        forms of a secret count as one.
        """
        keys = [key for key in self.keys if key.algorithm == algorithm]
        if key_id is not None:
            named = [key for key in keys if key.id == key_id]
            keys = named or [key for key in keys if key.id is None]
        names = {(key.id, key.name) for key in keys}
        return tuple(keys) if len(names) <= KEYS_TRIED_MAX else ()

    def has(self, algorithm: Algorithm, name: str) -> bool:
        """Whether the set has the key of that name."""
        return any(key.algorithm == algorithm and key.name == name for key in self.keys)


def names_algorithm(spelling: object, algorithm: Algorithm) -> bool:
    """Whether a token's ``alg`` is a name of `algorithm`."""
    return spelling in _SPELLINGS[algorithm]


@lru_cache(maxsize=256)
def secret_key(secret: bytes) -> Key:
    """Return a shared secret as a key for HS256. Its id does not reveal the secret."""
    key_id = hashlib.sha256(b"streamer key id\0" + secret).hexdigest()[:16]
    return Key("HS256", key_id, key_id, OctKey.import_key(secret))


@lru_cache(maxsize=256)
def printed_secret_key(secret: bytes) -> Key:
    """
    Return a shared secret as it is printed, used as a key without decoding it.

    Libraries take the key as text, and people paste what they were given. It has the
    name of the secret: it is another form of the same key.
    """
    name = secret_key(secret).name
    return Key("HS256", name, name, OctKey.import_key(print_secret(secret)))


@lru_cache(maxsize=256)
def secret_keys(secrets: tuple[bytes, ...]) -> KeySet:
    """Return shared secrets as keys, each in both of its forms."""
    return KeySet(
        form(secret) for form in (secret_key, printed_secret_key) for secret in secrets
    )


def print_secret(secret: bytes) -> str:
    """Return a shared secret as it is printed: base64url without padding."""
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def sign(signed: bytes, key: Key) -> bytes:
    """Return the signature of `signed` by a key that is not a public key."""
    return _schemes[key.algorithm].sign(signed, key.material)


class _Jwk(msgspec.Struct, frozen=True, omit_defaults=True):
    """The members that are read of a JSON Web Key; others are ignored."""

    kty: Literal["RSA", "EC", "OKP"]
    n: Annotated[str, Meta(max_length=2_048)] = ""
    e: Annotated[str, Meta(max_length=16)] = ""
    crv: str = ""
    x: Annotated[str, Meta(max_length=64)] = ""
    y: Annotated[str, Meta(max_length=64)] = ""
    kid: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    use: str = "sig"
    key_ops: tuple[str, ...] = ("verify",)
    alg: str = ""
    d: Any = None  # Of any type: a private key is rejected.


class _Set(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


_decode_set: Final = msgspec.json.Decoder(_Set).decode
_decode_jwk: Final = msgspec.json.Decoder(_Jwk).decode


def parse_key_set(document: bytes) -> KeySet:
    """
    Return the keys of a JSON Web Key Set that are for one of our algorithms.

    Other keys, for encryption or of unknown types, are ignored, as RFC 7517 section 5
    requires. So are shared and private keys.

    Raises:
        ValueError: It is not a key set, or has no such key.
    """
    try:
        jwks = _decode_set(document.removeprefix(codecs.BOM_UTF8)).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"not a JSON Web Key Set: {exc}") from exc
    keys = [key for raw in jwks[:KEYS_MAX] if (key := _parse_jwk(bytes(raw)))]
    if not keys:
        raise ValueError("no public key for RS256, ES256 or EdDSA")
    return KeySet(keys)


def read_public_keys(text: bytes) -> str:
    """
    Return the public keys in `text`, PEM or JWK or a set of either, as one key set.

    Raises:
        ValueError: There is none, one is not acceptable, or there is a private key.
    """
    if b"PRIVATE KEY-----" in text or re.search(rb'"d"\s*:', text):
        raise ValueError("contains a private key; pass only the public key")
    if blocks := [match[0] for match in _PEM.finditer(text)]:
        jwks = [_jwk_of_pem(block) for block in blocks]
        text = msgspec.json.encode({"keys": jwks})
    elif b'"keys"' not in text:
        text = b'{"keys":[%b]}' % text.strip()
    keys = parse_key_set(text).keys
    if len(keys) > KEYS_TRIED_MAX:
        raise ValueError(f"contains {len(keys)} keys, at most {KEYS_TRIED_MAX} allowed")
    if len(blocks) > len(keys):
        raise ValueError("contains a key that is not for RS256, ES256 or EdDSA")
    return msgspec.json.encode({"keys": [_jwk_of(key) for key in keys]}).decode()


def _jwk_of(key: Key) -> dict[str, Any]:
    jwk: dict[str, Any] = {**key.material.as_dict(private=False)}
    # joserfc adds a `kid` of its own to some keys.
    jwk.pop("kid", None)
    return jwk if key.id is None else {**jwk, "kid": key.id}


def _jwk_of_pem(block: bytes) -> dict[str, Any]:
    for kind in (RSAKey, ECKey, OKPKey):
        try:
            # joserfc warns of a short key, which is an error here.
            with warnings.catch_warnings(action="ignore"):
                return dict(kind.import_key(block).as_dict(private=False))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue  # Another type; the error depends on both types.
    raise ValueError("contains a PEM block that cannot be read")


def _parse_jwk(raw: bytes) -> Key | None:
    try:
        jwk = _decode_jwk(raw)
        if jwk.d is not None or jwk.use != "sig" or "verify" not in jwk.key_ops:
            return None
        key = _import(jwk)
    except (
        *(msgspec.DecodeError, UnicodeDecodeError, RecursionError),
        *(JoseError, ValueError, TypeError, KeyError),
    ):
        return None
    if key is None or (jwk.alg and not names_algorithm(jwk.alg, key.algorithm)):
        return None
    return key


def _import(jwk: _Jwk) -> Key | None:
    material: RSAKey | ECKey | OKPKey
    match jwk:
        case _Jwk(kty="RSA"):
            algorithm: Algorithm = "RS256"
            if len(jwk.n) < RSA_BITS.start // 6:
                return None  # joserfc would warn of it.
            material = RSAKey.import_key({"kty": "RSA", "n": jwk.n, "e": jwk.e})
            if material.public_key.key_size not in RSA_BITS:
                return None
        case _Jwk(kty="EC", crv="P-256"):
            algorithm = "ES256"
            material = ECKey.import_key(
                {"kty": "EC", "crv": "P-256", "x": jwk.x, "y": jwk.y}
            )
        case _Jwk(kty="OKP", crv="Ed25519"):
            algorithm = "EdDSA"
            material = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": jwk.x})
        case _:
            return None
    _ = material.public_key  # Read and checked on access.
    return Key(algorithm, jwk.kid, material.thumbprint(), material)
