"""
Valid tokens, a corpus of invalid ones with their defects, and noise.

The tokens are signed here by hand, so that the corpus may have any error and shares no
bug with the code under test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from streamer.core.access import tokens
from streamer.core.access.apps import RetiredSecret
from streamer.core.access.rights import TokenProof
from streamer.core.access.signatures import KeySet, parse_key_set, read_public_keys
from streamer.core.access.tokens import AppRecord, Claims
from streamer.errors import Defect, Unauthenticated
from streamer.model import App, Player

NOW_S = 1_800_000_000
SECRET = bytes(range(32))
RECORD = AppRecord(App("demo"), SECRET, "streamer", 0)
OTHER_SECRET = bytes(range(1, 33))

PEM = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n"


def segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def signed(
    header: bytes, claims: bytes, *, secret: bytes = SECRET, digest: str = "sha256"
) -> bytes:
    """Return a token of any two texts."""
    text = segment(header) + b"." + segment(claims)
    return text + b"." + segment(hmac.digest(secret, text, digest))


GOOD_HEADER: dict[str, Any] = {"alg": "HS256", "typ": "JWT"}
GOOD_CLAIMS: dict[str, Any] = {
    "sub": "p1",
    "aud": "demo",
    "iss": "streamer",
    "iat": NOW_S - 10,
    "exp": NOW_S + 3_600,
    "ver": 1,
    "permissions": ["notification:player:self:*"],
}
HEADER = json.dumps(GOOD_HEADER).encode()
CLAIMS = json.dumps(GOOD_CLAIMS).encode()
GOOD = signed(HEADER, CLAIMS)

ABSENT = object()


def changed(of: dict[str, Any], changes: dict[str, Any]) -> bytes:
    members = {**of, **changes}
    kept = {name: value for name, value in members.items() if value is not ABSENT}
    return json.dumps(kept).encode()


def with_header(**changes: Any) -> bytes:
    return signed(changed(GOOD_HEADER, changes), CLAIMS)


def with_claims(**changes: Any) -> bytes:
    return signed(HEADER, changed(GOOD_CLAIMS, changes))


def with_claims_text(find: str, replace: str) -> bytes:
    """Change the claims as text, for JSON that `json.dumps` does not write."""
    text = CLAIMS.decode()
    assert find in text
    return signed(HEADER, text.replace(find, replace).encode("utf-8", "surrogatepass"))


def unsigned(header: dict[str, Any]) -> bytes:
    return segment(json.dumps(header).encode()) + b"." + segment(CLAIMS) + b"."


def read(token: bytes, *, now_s: int = NOW_S, record: AppRecord = RECORD) -> Claims:
    return tokens.verify(tokens.parse(token), record, now_s=now_s)


Row = tuple[str, bytes, Defect, str]

NOT_JWT: list[Row] = [
    (name, token, Defect.NOT_JWT, "")
    for name, token in [
        ("empty", b""),
        ("one segment", b"abc"),
        ("two segments", GOOD.rpartition(b".")[0]),
        ("four segments", GOOD + b".AAAA"),
        ("encrypted, five segments", b"a.b.c.d.e"),
        ("trailing dot", GOOD + b"."),
        ("trailing dots", GOOD + b"..."),
        ("leading dot", b"." + GOOD),
        ("dots only", b"." * 100),
        ("trailing newline", GOOD + b"\n"),
        ("leading space", b" " + GOOD),
        ("space inside", GOOD.replace(b".", b" .", 1)),
        ("padded base64", GOOD + b"="),
        ("standard base64", GOOD[:-2] + b"+/"),
        ("not ASCII", GOOD[:-1] + "é".encode()),
        ("not UTF-8", GOOD[:-1] + b"\xff"),
        ("NUL inside", GOOD[:-1] + b"\0"),
        ("impossible length of a segment", b"AAAAA." + GOOD.partition(b".")[2]),
        ("second spelling of the last digit", GOOD[:-1] + bytes([GOOD[-1] + 1])),
        ("JSON serialisation", b'{"payload":"","signatures":[]}'),
        ("backend key", b"sk_" + b"A" * 43),
        ("one byte too long", b"A" * (tokens.TOKEN_BYTES_MAX + 1)),
        ("5 MB", b"A" * 5_000_000),
        ("5 MB signed", signed(HEADER, CLAIMS + b" " * 5_000_000)),
    ]
]

MALFORMED: list[Row] = [
    (name, token, Defect.MALFORMED, detail)
    for name, token, detail in [
        ("header is empty", signed(b"", CLAIMS), ""),
        ("header is no JSON", signed(b"{", CLAIMS), ""),
        ("header is an array", signed(b'["alg","HS256"]', CLAIMS), ""),
        ("header is null", signed(b"null", CLAIMS), ""),
        ("header is not UTF-8", signed(b'{"alg":"\xff"}', CLAIMS), ""),
        ("header nested deeply", signed(b"[" * 5_000, CLAIMS), ""),
        ("alg twice", signed(b'{"alg":"none","alg":"HS256"}', CLAIMS), ""),
        ("alg twice the same", signed(b'{"alg":"HS256","alg":"HS256"}', CLAIMS), ""),
        ("alg twice by escape", signed(b'{"alg":"HS256","\\u0061lg":1}', CLAIMS), ""),
        ("alg missing", with_header(alg=ABSENT), "alg"),
        ("alg an integer", with_header(alg=256), "alg"),
        ("alg null", with_header(alg=None), "alg"),
        ("alg a list", with_header(alg=["HS256", "none"]), "alg"),
        ("crit unknown", with_header(crit=["exp"]), "crit"),
        ("crit empty", with_header(crit=[]), "crit"),
        ("crit and b64", with_header(crit=["b64"], b64=False), "crit"),
        ("b64 false", with_header(b64=False), "b64"),
        ("b64 true", with_header(b64=True), "b64"),
        ("own key", with_header(jwk={"kty": "oct", "k": "AAAA"}), "jwk"),
        ("own key set", with_header(jku="http://169.254.169.254/"), "jku"),
        ("own certificate", with_header(x5u="https://evil.example/"), "x5u"),
        ("own chain", with_header(x5c=["AAAA"]), "x5c"),
        ("typ of a refresh token", with_header(typ="refresh+jwt"), "typ"),
        ("typ of an id token", with_header(typ="id_token"), "typ"),
        ("typ an integer", with_header(typ=1), "typ"),
        ("typ null", with_header(typ=None), "typ"),
    ]
]

UNREADABLE: list[Row] = [
    (name, token, Defect.UNREADABLE, "")
    for name, token in [
        ("claims are empty", signed(HEADER, b"")),
        ("claims are no JSON", signed(HEADER, b"sub=p1")),
        ("claims are a string", signed(HEADER, b'"p1"')),
        ("claims are an array", signed(HEADER, b"[" + CLAIMS + b"]")),
        ("claims are a number", signed(HEADER, b"1")),
        ("claims are not UTF-8", signed(HEADER, CLAIMS.replace(b"p1", b"\xff\xfe"))),
        ("claims with a BOM", signed(HEADER, b"\xef\xbb\xbf" + CLAIMS)),
        ("claims and more", signed(HEADER, CLAIMS + b"{}")),
        ("claims nested deeply", signed(HEADER, b'{"a":' * 1_000)),
        ("sub twice", with_claims_text('"sub": "p1"', '"sub": "p1", "sub": "p2"')),
        ("exp twice", with_claims_text('"ver": 1', '"ver": 1, "exp": 1')),
        ("a nested name twice", with_claims_text('"ver"', '"x":{"a":1,"a":2}, "ver"')),
        ("exp NaN", with_claims(exp=float("nan"))),
        ("exp Infinity", with_claims(exp=float("inf"))),
        ("exp of 5,000 digits", with_claims_text(str(NOW_S + 3_600), "9" * 5_000)),
        ("a lone surrogate as bytes", with_claims_text("p1", "\ud800")),
    ]
]

KEY_ID: list[Row] = [
    (f"kid {name}", with_header(kid=kid), Defect.KEY_ID, "")
    for name, kid in [
        ("of another secret", "0" * 16),
        ("a path", "../../../../dev/null"),
        ("SQL", "' OR '1'='1"),
        ("a URL", "https://evil.example/jwks.json"),
        ("empty", ""),
        ("null", None),
        ("an integer", 0),
        ("a list", [RECORD.key_id]),
        ("in capitals", RECORD.key_id.upper()),
        ("of 4 KiB", "k" * 4_096),
    ]
]

NO_SIGNATURE = [
    (f"alg {alg}, unsigned", unsigned({"alg": alg, "typ": "JWT"}))
    for alg in ("none", "None", "NONE", "nOnE", "")
]
OTHER_ALGORITHM = [
    (f"alg {alg}, our HMAC", with_header(alg=alg))
    for alg in ("HS384", "RS256", "ES256", "EdDSA", "PS256", "hs256", "HS256 ", "dir")
]

SIGNATURE: list[Row] = [
    (name, token, Defect.SIGNATURE, "alg")
    for name, token in [
        *NO_SIGNATURE,
        *OTHER_ALGORITHM,
        (
            "alg HS512, signed so",
            signed(changed(GOOD_HEADER, {"alg": "HS512"}), CLAIMS, digest="sha512"),
        ),
    ]
] + [
    (name, token, Defect.SIGNATURE, "")
    for name, token in [
        ("unsigned", unsigned(GOOD_HEADER)),
        ("another app's secret", signed(HEADER, CLAIMS, secret=OTHER_SECRET)),
        ("an empty secret", signed(HEADER, CLAIMS, secret=b"")),
        ("the first half of the secret", signed(HEADER, CLAIMS, secret=SECRET[:16])),
        ("a public key as secret", signed(HEADER, CLAIMS, secret=PEM)),
        ("signature of 36 bytes", GOOD[:-1] + b"AAAAA"),
        ("signature cut short", GOOD[:-3]),
        ("signed as HS512", signed(HEADER, CLAIMS, digest="sha512")),
        (
            "other claims under a good signature",
            b".".join(
                [
                    segment(HEADER),
                    segment(CLAIMS.replace(b"p1", b"p2")),
                    GOOD.split(b".")[2],
                ]
            ),
        ),
        (
            "other header under a good signature",
            segment(HEADER + b" ") + GOOD[GOOD.index(b".") :],
        ),
    ]
]

VERSION: list[Row] = [
    (f"ver {version}", with_claims(ver=version), Defect.VERSION, str(version))
    for version in (0, 2, 1.5, 1_000_000)
]

_CLAIM_VALUES: dict[str, list[Any]] = {
    "sub": [ABSENT, None, "", "me", 7, ["p1"], {"id": "p1"}, "x" * 129, "a\nb", "\x7f"],
    "aud": [
        *(ABSENT, None, "", "nobody", "DEMO", 1, "a/b", [], ["x"], ["demo", 1]),
        *(
            [["demo"]],
            ["demo", ""],
            {"demo": 1},
            [f"a{i}" for i in range(16)] + ["demo"],
        ),
    ],
    "iss": [ABSENT, None, "", "Streamer", "streamer ", ["streamer"], 1],
    "iat": [
        *(ABSENT, None, NOW_S + 31, NOW_S + 30.5, str(NOW_S), -1, -0.5, True, 10**300),
        1e308,
    ],
    "exp": [
        *(ABSENT, None, "9999999999", 1e308, 10**300, -1, True),
        *(NOW_S - 10, NOW_S - 11, NOW_S - 10.5, 2**53),
    ],
    "nbf": [NOW_S + 31, NOW_S + 30.5, "0", None, -1],
    "ver": [ABSENT, None, "1", "2.0", True, [1], -1],
    "permissions": [
        *(ABSENT, None, "notification:player:*", {"notification:player:*": True}, 1),
        *(
            ["notification:player:*", 1],
            [["notification:player:*"]],
            [None],
            ["\ud800"],
        ),
    ],
    "topics": [None, "news", [1], {"news": 1}, ["\udfff"]],
}

CLAIM: list[Row] = [
    (
        f"{name} {'absent' if value is ABSENT else repr(value)[:40]}",
        with_claims(**{name: value}),
        Defect.CLAIM,
        name,
    )
    for name, values in _CLAIM_VALUES.items()
    for value in values
] + [("no claims", signed(HEADER, b"{}"), Defect.CLAIM, "ver")]

EXPIRED: list[Row] = [
    (name, with_claims(iat=iat, exp=exp), Defect.EXPIRED, "")
    for name, iat, exp in [
        ("expired for the leeway", NOW_S - 100, NOW_S - 30),
        ("expired for a day", NOW_S - 172_800, NOW_S - 86_400),
        ("expired in 1970", 0, 1),
    ]
]

LIFETIME: list[Row] = [
    (f"valid for {seconds} s", with_claims(exp=NOW_S - 10 + seconds), defect, "")
    for defect in [Defect.LIFETIME]
    for seconds in (86_401, 86_400.5, 10 * 86_400)
]

CORPUS = [
    *(NOT_JWT + MALFORMED + UNREADABLE + KEY_ID),
    *(SIGNATURE + VERSION + CLAIM + LIFETIME + EXPIRED),
]


@pytest.mark.parametrize(
    ("token", "defect", "detail"),
    [row[1:] for row in CORPUS],
    ids=[row[0] for row in CORPUS],
)
@pytest.mark.row("F1")
def test_an_invalid_token_is_refused_with_its_defect(
    token: bytes, defect: Defect, detail: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        read(token)

    assert (refused.value.defect, refused.value.detail) == (defect, detail)


@pytest.mark.row("F1")
def test_the_corpus_reaches_every_defect_of_a_token() -> None:
    not_of_tokens = {
        Defect.MISSING,
        Defect.AMBIGUOUS,
        Defect.SCHEME,
        Defect.UNKNOWN_KEY,
        Defect.EXPIRED_KEY,
        Defect.REVOKED,
        Defect.TICKET,
    }

    assert {row[2] for row in CORPUS} == set(Defect) - not_of_tokens


def test_a_valid_token_has_its_claims() -> None:
    token = with_claims(topics=["news"], permissions=["notification:player:read", "?"])

    assert read(token) == Claims(
        app=App("demo"),
        player=Player("p1"),
        permissions=frozenset({"notification:player:read", "?"}),
        topics=("news",),
        expires_at_s=NOW_S + 3_600,
        proof=TokenProof("streamer", "demo", RECORD.key_id, NOW_S - 10),
    )


@pytest.mark.parametrize(
    "token",
    [
        with_header(typ=ABSENT),
        with_header(typ="jwt"),
        with_header(typ="at+jwt"),
        with_header(typ="application/at+JWT"),
        with_header(kid=RECORD.key_id),
        with_header(x5t="AAAA", whatever={"a": 1}),
        with_claims(permissions=[]),
        with_claims(jti="1", scope="all"),
        with_claims(iat=NOW_S + 30),
        with_claims(nbf=NOW_S + 30),
        with_claims(iat=NOW_S - 100, exp=NOW_S - 29),
        with_claims(iat=NOW_S, exp=NOW_S + 86_400),
    ],
)
@pytest.mark.row("F1")
def test_unusual_but_valid_tokens_are_accepted(token: bytes) -> None:
    assert read(token).player == "p1"


def test_two_spellings_of_a_player_are_the_same() -> None:
    dashed = with_claims(sub="018F5A4E-0000-7000-8000-00000000002A")
    ulid = with_claims(sub="01HXD4W000E00800000000001A")

    assert read(dashed).player == "018f5a4e-0000-7000-8000-00000000002a"
    assert read(ulid).player == read(dashed).player


def test_the_audience_is_readable_before_verification() -> None:
    token = tokens.parse(signed(HEADER, CLAIMS, secret=OTHER_SECRET))

    assert token.audiences == ("demo",)


def test_a_token_is_not_valid_in_another_app() -> None:
    other = AppRecord(App("other"), SECRET, "streamer", 0)

    with pytest.raises(Unauthenticated) as refused:
        read(GOOD, record=other)

    assert refused.value.defect is Defect.CLAIM
    assert refused.value.detail == "aud"


def test_a_minted_token_is_valid_until_it_expires() -> None:
    token = tokens.mint(RECORD, Player("p1"), ttl_s=60, now_s=NOW_S).encode()

    assert read(token) == Claims(
        app=App("demo"),
        player=Player("p1"),
        permissions=frozenset({"notification:player:self:*"}),
        topics=(),
        expires_at_s=NOW_S + 60,
        proof=TokenProof("streamer", "demo", RECORD.key_id, NOW_S),
    )
    assert read(token, now_s=NOW_S + 89).expires_at_s == NOW_S + 60
    with pytest.raises(Unauthenticated, match="expired"):
        read(token, now_s=NOW_S + 90)


def test_a_minted_token_has_the_requested_claims() -> None:
    token = tokens.mint(
        RECORD,
        Player("ü u" * 42),
        permissions=["notification:player:read"],
        topics=["news", "eu"],
        ttl_s=tokens.TTL_MAX_S,
        now_s=NOW_S,
    )

    claims = read(token.encode())
    assert claims.player == "ü u" * 42
    assert claims.permissions == {"notification:player:read"}
    assert claims.topics == ("news", "eu")


def test_a_minted_token_names_the_secret_without_revealing_it() -> None:
    token = tokens.mint(RECORD, Player("p1"), ttl_s=60, now_s=NOW_S).encode()
    header = tokens.parse(token).header

    assert header == {"alg": "HS256", "typ": "JWT", "kid": RECORD.key_id}
    assert RECORD.key_id not in (SECRET.hex(), hashlib.sha256(SECRET).hexdigest()[:16])


@pytest.mark.parametrize("ttl_s", [-1, 0, 86_401])
def test_a_token_is_not_minted_for_longer_than_a_day(ttl_s: int) -> None:
    with pytest.raises(ValueError, match="lifetime of a token must be 1 to 86400 s"):
        tokens.mint(RECORD, Player("p1"), ttl_s=ttl_s, now_s=NOW_S)


def test_a_token_is_not_minted_with_an_unknown_permission() -> None:
    with pytest.raises(ValueError, match="unknown permission 'root'"):
        tokens.mint(RECORD, Player("p1"), permissions=["root"], ttl_s=1, now_s=NOW_S)


def test_a_secret_of_31_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="has 31 bytes, at least 32"):
        AppRecord(App("demo"), SECRET[:31], "streamer", 0)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            b'{"name":"demo","secret":"AAAA","issuer":"i","created_at_ms":0}',
            type=AppRecord,
        )


def test_a_printed_record_shows_no_secret() -> None:
    assert "secret" not in repr(RECORD)
    assert repr(SECRET)[2:-1] not in repr(RECORD)


@given(st.binary(max_size=9_000) | st.text(max_size=500).map(str.encode))
@pytest.mark.row("F4")
def test_noise_is_refused_and_never_crashes(noise: bytes) -> None:
    with pytest.raises(Unauthenticated):
        read(noise)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner)
    ),
    max_leaves=8,
)
bad_members = st.dictionaries(
    st.sampled_from([*GOOD_HEADER, *GOOD_CLAIMS, "kid", "crit", "nbf", "topics"]),
    json_values,
)


@given(bad_members, bad_members)
def test_a_signed_token_with_odd_members_never_crashes(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    token = signed(changed(GOOD_HEADER, header), changed(GOOD_CLAIMS, claims))

    try:
        believed = read(token)
    except Unauthenticated:
        return
    assert believed.app == "demo"
    assert believed.expires_at_s > NOW_S - tokens.LEEWAY_S


@pytest.mark.parametrize("bytes_before", [0, 1, 2, 3])
def test_bytes_have_one_spelling(bytes_before: int) -> None:
    digits = segment(bytes(range(256)) * 3)[: 4 + bytes_before]
    for end in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        text = digits[:-1] + bytes([end])
        try:
            decoded = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
            expected = decoded if segment(decoded) == text else None
        except ValueError:
            expected = None

        try:
            parsed = tokens.parse(GOOD.rpartition(b".")[0] + b"." + text).signature
        except Unauthenticated:
            parsed = None

        assert parsed == expected


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_token_with_one_byte_changed_is_refused(place: int, change: int) -> None:
    token = bytearray(GOOD)
    token[place] ^= change

    with pytest.raises(Unauthenticated):
        read(bytes(token))


# What is read before verification.


@pytest.mark.parametrize("issuer", [ABSENT, None, 7, "", "x" * 256, "a\nb", "\ud800"])
def test_an_invalid_issuer_selects_no_app(issuer: Any) -> None:
    assert tokens.parse(with_claims(iss=issuer)).issuer == ""


@pytest.mark.parametrize(
    "audience", [ABSENT, None, 7, "", "x" * 256, "\ud800", [], [7]]
)
def test_an_invalid_audience_is_refused_at_once(audience: Any) -> None:
    with pytest.raises(Unauthenticated, match="aud"):
        _ = tokens.parse(with_claims(aud=audience)).audiences


@pytest.mark.parametrize("kid", [None, 7, "", "x" * 256, "\ud800", ["a"], {"a": 1}])
def test_an_invalid_key_id_is_not_looked_up(kid: Any) -> None:
    with pytest.raises(Unauthenticated, match="unknown key"):
        _ = tokens.parse(with_header(kid=kid)).key_id


# Rotated secrets and revoked tokens.

ROTATED = msgspec.structs.replace(
    RECORD, secret=OTHER_SECRET, retired=(RetiredSecret(SECRET, NOW_S + 100),)
)


@pytest.mark.parametrize("token", [GOOD, with_header(kid=RECORD.key_id)])
def test_a_retired_secret_verifies_until_its_time(token: bytes) -> None:
    assert read(token, record=ROTATED, now_s=NOW_S + 99).player == "p1"
    with pytest.raises(Unauthenticated) as refused:
        read(token, record=ROTATED, now_s=NOW_S + 100)

    named = b"kid" in base64.urlsafe_b64decode(token.split(b".")[0] + b"==")
    assert refused.value.defect is (Defect.KEY_ID if named else Defect.SIGNATURE)


def test_the_named_secret_must_have_signed() -> None:
    header = changed(GOOD_HEADER, {"kid": ROTATED.key_id})

    with pytest.raises(Unauthenticated, match="signature"):
        read(signed(header, CLAIMS), record=ROTATED)
    assert read(signed(header, CLAIMS, secret=OTHER_SECRET), record=ROTATED)


def test_a_token_issued_before_the_revocation_is_revoked() -> None:
    record = msgspec.structs.replace(RECORD, not_before_s=NOW_S - 9)

    with pytest.raises(Unauthenticated) as refused:
        read(GOOD, record=record)
    assert refused.value.defect is Defect.REVOKED
    assert read(with_claims(iat=NOW_S - 9), record=record).player == "p1"


def test_a_token_minted_in_the_second_of_the_revocation_is_valid() -> None:
    record = msgspec.structs.replace(RECORD, not_before_s=NOW_S + 1)
    player = Player("p1")

    after_app = tokens.mint(record, player, ttl_s=60, now_s=NOW_S)
    after_player = tokens.mint(
        RECORD, player, ttl_s=60, now_s=NOW_S, not_before_s=NOW_S + 1
    )

    for token in (after_app, after_player):
        assert read(token.encode(), record=record).proof.issued_at_s == NOW_S + 1


# Asymmetric algorithms.

_KEYS: dict[str, Any] = {
    "RS256": RSAKey.generate_key(2_048),
    "ES256": ECKey.generate_key("P-256"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}
_OTHERS: dict[str, Any] = {
    "RS256": RSAKey.generate_key(2_048),
    "ES256": ECKey.generate_key("P-256"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}
ASYMMETRIC = tuple(_KEYS)


def public_set(*keys: tuple[Any, str | None]) -> str:
    members = []
    for key, kid in keys:
        jwk = {**key.as_dict(private=False)}
        jwk.pop("kid", None)
        members.append(jwk if kid is None else {**jwk, "kid": kid})
    return json.dumps({"keys": members})


def foreign_record(algorithm: Any, kid: str | None = "k1") -> AppRecord:
    keys = public_set((_KEYS[algorithm], kid))
    return AppRecord(
        App("demo"), b"", "streamer", 0, algorithm=algorithm, public_keys=keys
    )


def signed_by(
    key: Any,
    scheme: str,
    header: dict[str, Any],
    claims: dict[str, Any] | None = None,
) -> bytes:
    """Return a token signed with `scheme`, whatever its header says."""
    name = "Ed25519" if scheme == "EdDSA" else scheme
    text = segment(json.dumps(header).encode())
    text += b"." + segment(json.dumps(claims or GOOD_CLAIMS).encode())
    signature = JWSRegistry(algorithms=[name]).get_alg(name).sign(text, key)
    return text + b"." + segment(signature)


def hmac_of(secret: bytes, header: dict[str, Any]) -> bytes:
    return signed(json.dumps(header).encode(), CLAIMS, secret=secret)


@pytest.mark.parametrize("kid", ["k1", None])
@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_a_token_of_a_foreign_issuer_is_valid(algorithm: str, kid: str | None) -> None:
    header = {"alg": algorithm, "typ": "JWT"} | ({"kid": kid} if kid else {})

    token = signed_by(_KEYS[algorithm], algorithm, header)

    claims = read(token, record=foreign_record(algorithm))
    assert (claims.player, claims.proof.issuer) == ("p1", "streamer")


def test_both_names_of_ed25519_are_accepted() -> None:
    token = signed_by(_KEYS["EdDSA"], "EdDSA", {"alg": "Ed25519", "kid": "k1"})

    assert read(token, record=foreign_record("EdDSA")).player == "p1"


def foreign_corpus(algorithm: str) -> list[Row]:
    key, other = _KEYS[algorithm], _OTHERS[algorithm]
    pem: bytes = key.as_pem(private=False)
    jwk = json.dumps(key.as_dict(private=False), separators=(",", ":")).encode()
    der = b"".join(base64.b64decode(line) for line in pem.splitlines()[1:-1])
    named = {"alg": algorithm, "kid": "k1"}
    good = signed_by(key, algorithm, named)
    head, claims, signature = good.split(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    confused = [
        (f"HS256 signed with the public key as {form}", hmac_of(secret, header))
        for form, secret in [
            ("PEM", pem),
            ("PEM without its last newline", pem.rstrip()),
            ("JWK", jwk),
            ("key set", public_set((key, "k1")).encode()),
            ("DER", der),
            ("nothing", b""),
        ]
        for header in ({"alg": "HS256", "kid": "k1"}, {"alg": "HS256"})
    ]
    renamed = [
        (
            f"signed well, and named {alg}",
            signed_by(key, algorithm, {**named, "alg": alg}),
        )
        for alg in (
            "none",
            "HS256",
            "RS384",
            "PS256",
            "ES384",
            "ES256K",
            "EdDSA448",
            "",
        )
    ]
    crossed = [
        (
            f"signed with {scheme} and named so",
            signed_by(_KEYS[scheme], scheme, {"alg": scheme}),
        )
        for scheme in ASYMMETRIC
        if scheme != algorithm
    ]
    wrong_alg = [*confused, *renamed, *crossed]
    wrong_signature = [
        ("HMAC by the public key under the right name", hmac_of(pem, named)),
        ("signed by another key", signed_by(other, algorithm, named)),
        ("unsigned", b".".join([head, claims, b""])),
        (
            "other claims",
            b".".join([head, segment(CLAIMS.replace(b"p1", b"p2")), signature]),
        ),
        ("signature of zeros", b".".join([head, claims, segment(b"\0" * 64)])),
        ("signature cut", b".".join([head, claims, segment(raw[:-4])])),
        ("signature of 4 KiB", b".".join([head, claims, segment(b"x" * 4_096)])),
    ]
    wrong_key = [
        (f"kid {kid!r}"[:40], signed_by(key, algorithm, {"alg": algorithm, "kid": kid}))
        for kid in (
            "k2",
            "K1",
            "k1 ",
            "../k1",
            "' OR '1'='1",
            "https://evil.example/",
            1,
            ["k1"],
        )
    ]
    own_key = [
        (name, signed_by(other, algorithm, {"alg": algorithm, name: value}))
        for name, value in [
            ("jwk", other.as_dict(private=False)),
            ("jku", "http://127.0.0.1:1/jwks.json"),
            ("x5u", "https://evil.example/"),
            ("x5c", ["AAAA"]),
        ]
    ]
    return [
        *((name, token, Defect.SIGNATURE, "alg") for name, token in wrong_alg),
        *((name, token, Defect.SIGNATURE, "") for name, token in wrong_signature),
        *((name, token, Defect.KEY_ID, "") for name, token in wrong_key),
        *((name, token, Defect.MALFORMED, name) for name, token in own_key),
    ]


FOREIGN_CORPUS = [
    (algorithm, *row)
    for algorithm in ASYMMETRIC
    for row in foreign_corpus(algorithm)
    if row[0] != f"signed well, and named {algorithm}"
]


@pytest.mark.parametrize(
    ("algorithm", "token", "defect", "detail"),
    [(row[0], *row[2:]) for row in FOREIGN_CORPUS],
    ids=[f"{row[0]}: {row[1]}" for row in FOREIGN_CORPUS],
)
@pytest.mark.row("F1")
def test_an_invalid_foreign_token_is_refused_with_its_defect(
    algorithm: str, token: bytes, defect: Defect, detail: str
) -> None:
    with pytest.raises(Unauthenticated) as refused:
        read(token, record=foreign_record(algorithm))

    assert (refused.value.defect, refused.value.detail) == (defect, detail)


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": NOW_S - 10.25, "exp": NOW_S + 900.75},
        {"iat": NOW_S - 10.0, "exp": 1e9 + 900.0 + (NOW_S - 1e9), "nbf": NOW_S - 0.5},
        {"iat": NOW_S - 0.5, "exp": NOW_S - 0.5 + 86_400},
        {"aud": ["demo"]},
        {"aud": ["https://id.example/userinfo", "demo", "demo"]},
        {"ver": 1.0},
    ],
)
def test_numbers_may_have_fractions_and_audiences_be_a_list(
    claims: dict[str, Any],
) -> None:
    assert read(with_claims(**claims)).player == GOOD_CLAIMS["sub"]


@pytest.mark.parametrize("version", [ABSENT, "1.0", "2.0", "", 1])
def test_another_issuer_may_define_ver_itself(version: Any) -> None:
    claims = {**GOOD_CLAIMS, "ver": version}
    if version is ABSENT:
        del claims["ver"]
    token = signed_by(_KEYS["ES256"], "ES256", {"alg": "ES256"}, claims)

    assert read(token, record=foreign_record("ES256")).app == "demo"


def test_the_printed_secret_is_a_key_as_text() -> None:
    pasted = base64.urlsafe_b64encode(SECRET).rstrip(b"=")

    for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": RECORD.key_id}):
        token = signed(json.dumps(header).encode(), CLAIMS, secret=pasted)
        assert read(token).app == "demo"


def test_a_retired_secret_is_a_key_as_text_until_it_ends() -> None:
    record = AppRecord(
        App("demo"),
        OTHER_SECRET,
        "streamer",
        0,
        retired=tuple(RetiredSecret(it, NOW_S + 10) for it in (SECRET, b"x" * 32)),
    )
    pasted = base64.urlsafe_b64encode(SECRET).rstrip(b"=")
    token = signed(b'{"alg":"HS256"}', CLAIMS, secret=pasted)

    assert read(token, record=record).app == "demo"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_foreign_tokens_require_every_claim(algorithm: str) -> None:
    for name in ("sub", "aud", "iss", "iat", "exp", "permissions"):
        claims = {key: value for key, value in GOOD_CLAIMS.items() if key != name}
        token = signed_by(_KEYS[algorithm], algorithm, {"alg": algorithm}, claims)

        with pytest.raises(Unauthenticated) as refused:
            read(token, record=foreign_record(algorithm))
        assert (refused.value.defect, refused.value.detail) == (Defect.CLAIM, name)


def test_an_apps_audience_may_differ_from_its_name() -> None:
    record = msgspec.structs.replace(foreign_record("ES256"), audience="urn:game")
    claims = {**GOOD_CLAIMS, "aud": "urn:game"}

    token = signed_by(_KEYS["ES256"], "ES256", {"alg": "ES256"}, claims)

    assert read(token, record=record).app == "demo"
    with pytest.raises(Unauthenticated, match="aud"):
        read(signed_by(_KEYS["ES256"], "ES256", {"alg": "ES256"}), record=record)


def test_a_minted_token_is_for_the_audience_of_its_app() -> None:
    record = msgspec.structs.replace(RECORD, audience="urn:demo")
    token = tokens.mint(record, Player("p1"), ttl_s=60, now_s=NOW_S).encode()

    assert read(token, record=record).app == "demo"
    with pytest.raises(Unauthenticated, match="aud"):
        read(token)


def test_fetched_keys_of_the_algorithm_verify_tokens() -> None:
    record = AppRecord(
        App("demo"), b"", "streamer", 0, algorithm="RS256", key_set="/keys.json"
    )
    keys = parse_key_set(
        public_set((_KEYS["RS256"], "k1"), (_KEYS["ES256"], "k1")).encode()
    )
    header = {"alg": "RS256", "kid": "k1"}
    token = tokens.parse(signed_by(_KEYS["RS256"], "RS256", header))

    assert tokens.verify(token, record, keys, now_s=NOW_S).player == "p1"
    with pytest.raises(Unauthenticated, match="unknown key"):
        tokens.verify(token, record, KeySet(keys.keys[1:]), now_s=NOW_S)


def test_public_keys_verify_a_token_without_an_id() -> None:
    keys = read_public_keys(_KEYS["EdDSA"].as_pem(private=False))
    record = AppRecord(
        App("demo"), b"", "streamer", 0, algorithm="EdDSA", public_keys=keys
    )

    token = signed_by(_KEYS["EdDSA"], "EdDSA", {"alg": "EdDSA", "kid": "theirs"})

    assert read(token, record=record).player == "p1"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_no_token_is_minted_for_a_foreign_issuer(algorithm: str) -> None:
    with pytest.raises(ValueError, match="are issued by streamer"):
        tokens.mint(foreign_record(algorithm), Player("p1"), ttl_s=1, now_s=NOW_S)


@given(st.sampled_from(ASYMMETRIC), bad_members, bad_members)
def test_a_foreign_token_with_odd_members_never_crashes(
    algorithm: str, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    record = foreign_record(algorithm)
    members = {"alg": algorithm, **header}
    try:
        token = signed_by(
            _KEYS[algorithm], algorithm, members, {**GOOD_CLAIMS, **claims}
        )
        believed = read(token, record=record)
    except (Unauthenticated, UnicodeEncodeError):
        return
    assert believed.app == "demo"
