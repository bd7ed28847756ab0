"""Which ID tokens are valid for a login, and whom they are about."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from streamer.core.access.id_tokens import (
    ID_TOKEN_BYTES_MAX,
    parse_id_token,
    read_person,
    verify_id_token,
)
from streamer.core.access.signatures import parse_key_set
from streamer.errors import Defect, Unauthenticated

from ...oidc_issuer import SigningKey

NOW_S = 1_800_000_000
KEY = SigningKey("first")
KEYS = parse_key_set(json.dumps({"keys": [KEY.public]}).encode())
GOOD = {
    "iss": "https://id.example",
    "aud": "console",
    "sub": "ann",
    "nonce": "n",
    "iat": NOW_S,
    "exp": NOW_S + 60,
}


def part(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def signed(claims: dict[str, Any], **header: Any) -> str:
    """Return a token, also with claims that PyJWT would not sign."""
    payload = json.dumps(claims).encode()
    return jwt.PyJWS().encode(
        payload, KEY.private, algorithm="ES256", headers={"kid": "first", **header}
    )


def verified(token: str, keys: Any = KEYS) -> Any:
    return verify_id_token(
        parse_id_token(token),
        keys,
        issuer="https://id.example",
        client_id="console",
        nonce="n",
        now_s=NOW_S,
    )


def with_claims(**changes: Any) -> dict[str, Any]:
    claims = {**GOOD, **changes}
    return {name: value for name, value in claims.items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["console"]},
        {"azp": "console"},
        {"aud": ["console", "other"], "azp": "console"},
        {"iat": NOW_S - 90, "exp": NOW_S - 29},
        {"nbf": NOW_S + 30, "iat": NOW_S + 30},
        {"exp": NOW_S + 7 * 86_400},
    ],
)
def test_a_token_of_this_login_is_valid(changes: dict[str, Any]) -> None:
    claims = with_claims(**changes)

    assert verified(signed(claims)) == claims


@pytest.mark.parametrize(
    ("changes", "defect", "detail"),
    [
        ({"iss": "https://id.example/"}, Defect.CLAIM, "iss"),
        ({"iss": None}, Defect.CLAIM, "iss"),
        ({"aud": "another"}, Defect.CLAIM, "aud"),
        ({"aud": None}, Defect.CLAIM, "aud"),
        ({"aud": ["another", "third"]}, Defect.CLAIM, "aud"),
        ({"aud": "consoles"}, Defect.CLAIM, "aud"),
        ({"aud": ["console", "other"]}, Defect.CLAIM, "azp"),
        ({"azp": "another"}, Defect.CLAIM, "azp"),
        ({"nonce": "another"}, Defect.CLAIM, "nonce"),
        ({"nonce": ["n"]}, Defect.CLAIM, "nonce"),
        ({"nonce": None}, Defect.CLAIM, "nonce"),
        ({"iat": NOW_S - 90, "exp": NOW_S - 30}, Defect.EXPIRED, ""),
        ({"nbf": NOW_S + 31}, Defect.CLAIM, "nbf"),
        ({"iat": NOW_S + 31}, Defect.CLAIM, "iat"),
        ({"iat": None}, Defect.CLAIM, "iat"),
        ({"exp": None}, Defect.CLAIM, "exp"),
        ({"exp": "never"}, Defect.CLAIM, "exp"),
        ({"exp": NOW_S + 40 * 86_400}, Defect.LIFETIME, ""),
    ],
)
def test_a_token_that_is_not_for_this_login_is_refused(
    changes: dict[str, Any], defect: Defect, detail: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        verified(signed(with_claims(**changes)))

    assert (refused.value.defect, refused.value.detail) == (defect, detail)


def test_a_token_without_a_signature_is_refused() -> None:
    with pytest.raises(Unauthenticated) as refused:
        verified((part({"alg": "none"}) + b"." + part(GOOD) + b".").decode())

    assert refused.value.detail == "alg"


def test_a_public_key_is_no_shared_secret() -> None:
    pem = KEY.private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    text = part({"alg": "HS256", "kid": "first"}) + b"." + part(GOOD)
    mac = base64.urlsafe_b64encode(hmac.digest(pem, text, "sha256")).rstrip(b"=")

    with pytest.raises(Unauthenticated) as refused:
        verified((text + b"." + mac).decode())

    assert refused.value.detail == "alg"


def test_a_signature_of_another_is_refused() -> None:
    with pytest.raises(Unauthenticated) as refused:
        verified(SigningKey("first").sign(GOOD))
    assert refused.value.defect is Defect.SIGNATURE

    with pytest.raises(Unauthenticated) as refused:
        verified(SigningKey("second").sign(GOOD))
    assert refused.value.defect is Defect.KEY_ID


@pytest.mark.parametrize(
    "header",
    [{"typ": "at+jwt"}, {"jwk": KEY.public}, {"jku": "https://evil.example"}],
)
def test_a_token_of_another_kind_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        parse_id_token(signed(GOOD, **header))

    assert refused.value.defect is Defect.MALFORMED


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "é.é.é", "\ud800", "{}"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        parse_id_token(text)


def test_a_token_may_be_long_but_not_endless() -> None:
    groups = [f"group-{i:04}" for i in range(1_000)]

    assert verified(signed(with_claims(groups=groups)))["groups"] == groups
    with pytest.raises(Unauthenticated):
        parse_id_token(signed(with_claims(x="x" * ID_TOKEN_BYTES_MAX)))


@pytest.mark.parametrize(
    ("claims", "claim", "values"),
    [
        ({"groups": ["a", "b"]}, "groups", {"a", "b"}),
        ({"groups": "a b"}, "groups", {"a b"}),
        ({"groups": ["a", 1, None, "", {"b": 1}]}, "groups", {"a"}),
        ({"groups": {"a": 1}}, "groups", set()),
        ({}, "groups", set()),
        ({"realm": {"roles": ["a"]}}, "/realm/roles", {"a"}),
        ({"https://x.example/roles": ["a"]}, "https://x.example/roles", {"a"}),
        ({"email": "a@x"}, "email", set()),
        ({"email": "a@x", "email_verified": False}, "/email", set()),
        ({"email": "a@x", "email_verified": True}, "email", {"a@x"}),
    ],
)
def test_the_values_of_the_claim_are_read(
    claims: dict[str, Any], claim: str, values: set[str]
) -> None:
    assert read_person({"sub": "ann", **claims}, claim).values == values


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"email": "a@x", "preferred_username": "ann"}, "a@x"),
        ({"email": "a@x", "email_verified": False, "name": "Ann"}, "Ann"),
        ({"email": "a@x", "email_verified": "false", "name": "Ann"}, "Ann"),
        ({"email": "a@x", "email_verified": "true", "name": "Ann"}, "a@x"),
        ({"email": "a\u202e@x", "preferred_username": "ann"}, "ann"),
        ({"email": ["a@x"]}, ""),
        ({"name": "A" * 300}, "A" * 255),
    ],
)
def test_a_person_has_a_name_that_can_be_shown(
    claims: dict[str, Any], name: str
) -> None:
    assert read_person({"sub": "ann", **claims}, "groups").name == name


@pytest.mark.parametrize("subject", [None, "", 7, "a" * 256, "a\u202eb", "a\n"])
def test_a_person_has_a_subject(subject: Any) -> None:
    with pytest.raises(Unauthenticated) as refused:
        read_person({"sub": subject}, "groups")

    assert refused.value.detail == "sub"
