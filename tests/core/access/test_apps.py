"""Valid records of apps, and the tokens that they still accept."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey

from streamer.core.access.apps import AppRecord, RetiredSecret, key_set_problem
from streamer.core.access.rights import TokenProof
from streamer.core.access.signatures import read_public_keys
from streamer.model import App

SECRET = bytes(range(32))
DEMO = AppRecord(App("demo"), SECRET, "streamer", 0)
RSA = read_public_keys(RSAKey.generate_key(2_048).as_pem(private=False))
EC = read_public_keys(ECKey.generate_key("P-256").as_pem(private=False))
URL = "https://id.example/jwks.json"


def foreign(**members: Any) -> AppRecord:
    given = {"algorithm": "RS256", "key_set": URL, **members}
    return AppRecord(App("game"), given.pop("secret", b""), "https://id", 0, **given)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"secret": SECRET}, "uses public keys and no secret"),
        ({"retired": (RetiredSecret(SECRET, 1),)}, "uses public keys and no secret"),
        ({"key_set": ""}, "requires either public keys or a key set"),
        ({"public_keys": RSA}, "requires either public keys or a key set"),
        ({"key_set": "", "public_keys": EC}, "none of the public keys is for RS256"),
        ({"key_set": "", "public_keys": "{}"}, "not a JSON Web Key Set"),
        ({"algorithm": "HS256", "secret": SECRET}, "HS256 uses a shared secret"),
        ({"algorithm": "HS256", "key_set": "", "secret": b"x"}, "has 1 bytes"),
        ({"key_set": "http://id.example/"}, "fetched over https"),
        ({"audience": "x" * 256}, "the audience has more than 255"),
    ],
)
def test_invalid_combinations_of_members_are_refused(
    members: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        foreign(**members)


def test_an_issuer_must_have_a_name() -> None:
    with pytest.raises(ValueError, match="the issuer is empty"):
        AppRecord(App("demo"), SECRET, "", 0)


@pytest.mark.parametrize(
    "place",
    [
        "/etc/keys.json",
        "https://id.example/jwks",
        "https://id.example:8443/a?b",
        "http://127.0.0.1:1/",
        "http://127.8.9.1/",
        "http://[::1]:80/",
        "http://localhost/",
    ],
)
def test_a_key_set_may_be_a_file_https_or_loopback(place: str) -> None:
    assert key_set_problem(place) is None


@pytest.mark.parametrize(
    "place",
    [
        "",
        "keys.json",
        "file:///etc/keys.json",
        "ftp://id.example/",
        "https://",
        "https://id.example:port/",
        "https://[::1/",
        "http://id.example/",
        "http://localhost.evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://evil.example@169.254.169.254/",
        "http://2130706433/",
        "javascript:alert(1)",
    ],
)
def test_other_locations_of_key_sets_are_refused(place: str) -> None:
    assert key_set_problem(place) is not None


@given(st.text(max_size=60))
def test_noise_as_a_location_never_crashes(place: str) -> None:
    key_set_problem(place)
    key_set_problem(f"https://{place}")


def test_a_retired_secret_is_valid_until_its_time() -> None:
    record = msgspec.structs.replace(DEMO, retired=(RetiredSecret(bytes(32), 100),))

    assert len({it.name for it in record.own_keys(99).keys}) == 2
    assert len({it.name for it in record.own_keys(100).keys}) == 1
    assert record.own_keys(99).keys[0].name == record.key_id


def test_a_record_round_trips_and_rejects_invalid_members() -> None:
    for record in (DEMO, foreign(), foreign(key_set="", public_keys=RSA)):
        encoded = msgspec.json.encode(record)
        assert msgspec.json.decode(encoded, type=AppRecord) == record
    broken = json.dumps({**json.loads(msgspec.json.encode(foreign())), "key_set": ""})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(broken, type=AppRecord)


def test_printing_shows_no_secret() -> None:
    record = msgspec.structs.replace(DEMO, retired=(RetiredSecret(bytes(32), 100),))

    assert "x00" not in repr(record) + repr(record.retired)


# Changes between a secret and public keys.


def test_an_app_changes_from_a_secret_to_keys_and_back() -> None:
    given = {"algorithm": "RS256", "key_set": URL, "issuer": "https://id"}

    away = DEMO.with_tokens(given, fresh_secret=bytes(32))
    back = away.with_tokens({"algorithm": "HS256"}, fresh_secret=bytes(32))

    assert (away.secret, away.key_set) == (b"", URL)
    assert (back.secret, back.key_set, back.issuer) == (bytes(32), "", "https://id")


def test_keys_of_one_kind_replace_the_other() -> None:
    inline = foreign().with_tokens({"public_keys": RSA}, fresh_secret=b"")

    assert (inline.key_set, inline.public_keys) == ("", RSA)
    assert inline.with_tokens({"key_set": URL}, fresh_secret=b"") == foreign()


def test_members_that_are_not_changed_stay() -> None:
    changed = DEMO.with_tokens({"issuer": "else"}, fresh_secret=bytes(32))

    assert changed == msgspec.structs.replace(DEMO, issuer="else")
    with pytest.raises(ValueError, match="HS256 uses a shared secret"):
        DEMO.with_tokens({"key_set": URL}, fresh_secret=bytes(32))


# Accepting tokens again.

PROOF = TokenProof("streamer", "demo", DEMO.key_id, 1_000)


@pytest.mark.parametrize(
    ("proof", "changes", "not_before_s", "holds"),
    [
        (PROOF, {}, 0, True),
        (PROOF, {"not_before_s": 1_000}, 1_000, True),
        (PROOF, {"not_before_s": 1_001}, 0, False),
        (PROOF, {}, 1_001, False),
        (PROOF, {"issuer": "else"}, 0, False),
        (PROOF, {"audience": "else"}, 0, False),
        (PROOF, {"secret": bytes(32)}, 0, False),
        (
            PROOF,
            {"secret": bytes(32), "retired": (RetiredSecret(SECRET, 51),)},
            0,
            True,
        ),
        (
            PROOF,
            {"secret": bytes(32), "retired": (RetiredSecret(SECRET, 50),)},
            0,
            False,
        ),
    ],
)
def test_a_record_accepts_the_tokens_that_would_verify_again(
    proof: TokenProof, changes: dict[str, Any], not_before_s: int, holds: bool
) -> None:
    record = msgspec.structs.replace(DEMO, **changes)

    keys = record.own_keys(50)
    assert record.accepts(proof, keys, not_before_s=not_before_s) is holds
