"""Acceptable keys, the selection of keys for a token, and signatures."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from streamer.core.access.signatures import (
    KEYS_MAX,
    KeySet,
    parse_key_set,
    read_public_keys,
    secret_key,
    sign,
)

RSA = RSAKey.generate_key(2_048)
with warnings.catch_warnings(action="ignore"):
    SMALL_RSA = RSAKey.generate_key(1_024)
EC = ECKey.generate_key("P-256")
WIDE_EC = ECKey.generate_key("P-384")
ED = OKPKey.generate_key("Ed25519")
EXCHANGE = OKPKey.generate_key("X25519")


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    public = {**key.as_dict(private=False)}
    public.pop("kid", None)
    return {**public, **members}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def number(value: int) -> str:
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_keys_get_the_algorithm_of_their_type() -> None:
    keys = parse_key_set(
        key_set(jwk(RSA, kid="r"), jwk(EC, kid="e", use="sig"), jwk(ED, alg="Ed25519"))
    ).keys

    assert [(key.algorithm, key.id) for key in keys] == [
        ("RS256", "r"),
        ("ES256", "e"),
        ("EdDSA", None),
    ]
    assert len({key.name for key in keys}) == 3


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("for encryption", jwk(RSA, use="enc")),
        ("for wrapping", jwk(RSA, key_ops=["wrapKey"])),
        ("for another algorithm of its kind", jwk(RSA, alg="PS256")),
        ("for HS256", jwk(RSA, alg="HS256")),
        ("shared", {"kty": "oct", "k": "A" * 43}),
        ("private", RSA.as_dict(private=True)),
        ("private by name", jwk(EC, d=None) | {"d": "AAAA"}),
        ("too short", jwk(SMALL_RSA)),
        ("too long", {"kty": "RSA", "n": number(2**16_000 + 1), "e": "AQAB"}),
        ("of another curve", jwk(WIDE_EC)),
        ("no signer's", jwk(EXCHANGE)),
        ("off its curve", jwk(EC, y=jwk(EC)["x"])),
        ("without a number", {"kty": "RSA", "e": "AQAB"}),
        ("with an even exponent", jwk(RSA, e=number(2))),
        ("with an exponent of 1", jwk(RSA, e=number(1))),
        ("of no base64", jwk(ED, x="*" * 43)),
        ("too short a point", jwk(ED, x="AAAA")),
        ("with a kid of a number", jwk(RSA, kid=7)),
        ("with an empty kid", jwk(RSA, kid="")),
        ("with a kid of 4 KiB", jwk(RSA, kid="k" * 4_096)),
        ("no object", 7),
        ("null", None),
        ("empty", {}),
    ],
)
def test_an_unacceptable_key_is_ignored(name: str, odd: Any) -> None:
    assert [key.id for key in parse_key_set(key_set(odd, jwk(RSA, kid="r"))).keys] == [
        "r"
    ]
    with pytest.raises(ValueError, match="no public key"):
        parse_key_set(key_set(odd))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"keys":{}}',
        b'{"keys":null}',
        b"\xff",
        b"[" * 100_000,
        b'{"keys":[' + b"[" * 100_000,
        b"<html>not here</html>",
    ],
)
def test_an_invalid_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match="not a JSON Web Key Set"):
        parse_key_set(document)


def test_the_number_of_keys_is_limited() -> None:
    keys = [jwk(ED, kid=str(i)) for i in range(KEYS_MAX + 10)]

    assert len(parse_key_set(key_set(*keys)).keys) == KEYS_MAX


def test_the_key_id_of_a_token_selects_the_key() -> None:
    keys = parse_key_set(key_set(jwk(RSA, kid="a"), jwk(EC, kid="a"), jwk(ED)))

    assert [key.id for key in keys.candidates("RS256", "a")] == ["a"]
    assert keys.candidates("RS256", "b") == ()
    assert keys.candidates("HS256", "a") == ()
    assert [key.id for key in keys.candidates("EdDSA", "whatever")] == [None]


def test_few_keys_are_tried_for_a_token_without_an_id() -> None:
    def candidates(count: int) -> int:
        keys = [jwk(ED, kid=str(i)) for i in range(count)]
        return len(parse_key_set(key_set(*keys)).candidates("EdDSA", None))

    assert [candidates(count) for count in (1, 4, 5)] == [1, 4, 0]


@pytest.mark.parametrize("pair", [(RSA, "RS256"), (EC, "ES256"), (ED, "Ed25519")])
def test_a_signature_verifies_only_what_was_signed(pair: tuple[Any, str]) -> None:
    from joserfc.jws import JWSRegistry

    private, algorithm = pair
    scheme = JWSRegistry(algorithms=[algorithm]).get_alg(algorithm)
    signature = scheme.sign(b"this", private)
    (key,) = parse_key_set(key_set(jwk(private))).keys

    assert key.verifies(b"this", signature)
    assert not key.verifies(b"that", signature)
    for wrong in (b"", b"\0" * 64, b"\0" * 256, signature + b"\0", signature[:-1]):
        assert not key.verifies(b"this", wrong)


def test_a_secret_signs_and_its_id_does_not_reveal_it() -> None:
    key = secret_key(bytes(32))

    assert key.verifies(b"this", sign(b"this", key))
    assert not secret_key(bytes([1]) * 32).verifies(b"this", sign(b"this", key))
    assert key.id == key.name
    assert isinstance(key.material, OctKey)
    assert "0000" not in repr(key)


def test_a_set_knows_its_keys_by_name() -> None:
    keys = parse_key_set(key_set(jwk(RSA), jwk(EC)))
    name = keys.keys[0].name

    assert keys.has("RS256", name)
    assert not keys.has("ES256", name)
    assert not KeySet([]).has("RS256", name)


@pytest.mark.parametrize("key", [RSA, EC, ED])
def test_public_keys_are_read_from_pem_jwk_and_sets_alike(key: Any) -> None:
    pem = key.as_pem(private=False)
    texts = [
        pem,
        b"# a comment\n" + pem + b"\n",
        json.dumps(jwk(key)).encode(),
        key_set(jwk(key)),
    ]

    read = {
        parse_key_set(read_public_keys(text).encode()).keys[0].name for text in texts
    }

    assert len(read) == 1


def test_several_pem_blocks_are_several_keys() -> None:
    text = b"".join(key.as_pem(private=False) for key in (RSA, EC))

    keys = parse_key_set(read_public_keys(text).encode()).keys

    assert [key.algorithm for key in keys] == ["RS256", "ES256"]


def test_a_kid_is_kept() -> None:
    (key,) = parse_key_set(
        read_public_keys(json.dumps(jwk(EC, kid="mine")).encode()).encode()
    ).keys

    assert key.id == "mine"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (RSA.as_pem(private=True), "a private key"),
        (EC.as_pem(private=True) + EC.as_pem(private=False), "a private key"),
        (json.dumps(ED.as_dict(private=True)).encode(), "a private key"),
        (json.dumps({"d": 1}).encode(), "a private key"),
        (b'{"kty":"oct","k":"AAAA"}', "no public key"),
        (SMALL_RSA.as_pem(private=False), "no public key"),
        (
            RSA.as_pem(private=False) + EXCHANGE.as_pem(private=False),
            "a key that is not for",
        ),
        (RSA.as_pem(private=False).replace(b"A", b"B"), "cannot be read"),
        (b"", "no public key"),
        (b"ssh-rsa AAAA", "not a JSON Web Key Set"),
        (b"\xff\xfe", "not a JSON Web Key Set"),
        (
            key_set(*[jwk(ED, kid=str(i)) for i in range(5)]),
            "5 keys, at most 4 allowed",
        ),
    ],
)
def test_unacceptable_public_keys_are_refused(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_public_keys(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner)
    ),
    max_leaves=8,
)
odd_members = st.dictionaries(
    st.sampled_from(["kty", "n", "e", "crv", "x", "y", "d", "kid", "use", "alg"]),
    json_values
    | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "sig"])
    | st.binary(max_size=300).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
)


@given(st.sampled_from([RSA, EC, ED]), odd_members)
def test_odd_members_never_crash(key: Any, members: dict[str, Any]) -> None:
    try:
        keys = parse_key_set(key_set({**jwk(key), **members})).keys
    except ValueError:
        return
    assert not keys[0].verifies(b"this", b"noise")


@given(st.binary(max_size=500))
@pytest.mark.row("F4")
def test_noise_never_crashes(noise: bytes) -> None:
    for read in (parse_key_set, read_public_keys):
        with pytest.raises(ValueError, match=r"[Kk]ey"):
            read(noise)
