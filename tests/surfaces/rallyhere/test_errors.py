from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from streamer.app import build
from streamer.config import Config
from streamer.store.server.embedded import Embedded

from ..conftest import AddKey, Mint, Start

BASE = "/notification/v1/player"
UNKNOWN = "0192f0c1-2b3c-7004-8000-0400000000aa"
BOB = "0b6f5b0e-0d0f-4f0e-8f5a-3d5d5c0f4b0b"


def segment(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def forge(record: Any, *, header: Any = None, claims: Any = None) -> str:
    """Return a token with a valid signature and the given parts."""
    now_s = int(time.time())
    good_header = {"alg": "HS256", "typ": "JWT", "kid": record.key_id}
    good_claims = {
        "sub": "alice",
        "aud": record.name,
        "iss": record.issuer,
        "iat": now_s,
        "exp": now_s + 60,
        "ver": 1,
        "permissions": ["notification:player:self:*"],
    }
    parts = []
    for good, wrong in ((good_header, header), (good_claims, claims)):
        if isinstance(wrong, bytes):
            parts.append(segment(wrong))
        else:
            parts.append(segment(msgspec.json.encode({**good, **(wrong or {})})))
    signed = b".".join(parts)
    mac = hmac.digest(record.secret, signed, hashlib.sha256)
    return b".".join((signed, segment(mac))).decode()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


Headers = Callable[[Any], dict[str, str]]

# The documented code of each defect of a credential. `record` is the app's.
DEFECTS: list[tuple[str, str, Headers]] = [
    ("auth_token_format", "no credential", lambda record: {}),
    ("auth_token_format", "not Bearer", lambda record: {"Authorization": "Basic eDp5"}),
    (
        "auth_token_format",
        "more than one",
        lambda record: {**bearer("a.b.c"), "x-auth-token": "d.e.f"},
    ),
    ("auth_not_jwt", "Invalid Authorization", lambda record: bearer("x")),
    (
        "auth_malformed_access",
        "malformed access token",
        lambda record: bearer(forge(record, header=b"{")),
    ),
    (
        "auth_token_unknown",
        "Failed to parse token",
        lambda record: bearer(forge(record, claims=b"[]")),
    ),
    (
        "auth_invalid_key_id",
        "Invalid Key ID",
        lambda record: bearer(forge(record, header={"kid": "other"})),
    ),
    ("auth_invalid_key_id", "key is unknown", lambda record: bearer("sk_" + "x" * 43)),
    (
        "auth_token_sig_invalid",
        "Signature is invalid",
        lambda record: bearer(forge(record)[:-4] + "AAAA"),
    ),
    (
        "auth_invalid_version",
        "version",
        lambda record: bearer(forge(record, claims={"ver": 2})),
    ),
    *(
        (
            "auth_token_invalid_claim",
            f"invalid claim value: {claim}",
            lambda record, claim=claim: bearer(forge(record, claims={claim: False})),
        )
        for claim in ("sub", "aud", "iss", "iat", "exp", "permissions")
    ),
    (
        "auth_token_expired",
        "expired",
        lambda record: bearer(forge(record, claims={"iat": 1, "exp": 61})),
    ),
]


def assert_error(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"auth_success", "error_code", "desc"}
    assert body["error_code"] == code
    assert body["auth_success"] is (not code.startswith("auth_"))
    assert body["desc"]


async def operations(
    client: httpx2.AsyncClient, headers: dict[str, str], player: str
) -> list[httpx2.Response]:
    """Return the response of each operation."""
    inbox = f"{BASE}/{player}/notification"
    poll = f"{BASE}/{player}/stream/notification/lp"
    creates = {"notifications": [{"message": "a"}]}
    return [
        await client.get(inbox, headers=headers),
        await client.get(poll, headers=headers, params={"deadline": 0}),
        await client.post(inbox, headers=headers, json=creates),
        await client.get(f"{inbox}/{UNKNOWN}", headers=headers),
    ]


# Credentials.


@pytest.mark.parametrize(("code", "desc", "headers"), DEFECTS)
async def test_every_defect_has_its_code(
    client: httpx2.AsyncClient,
    mint: Mint,
    player: str,
    code: str,
    desc: str,
    headers: Headers,
) -> None:
    sent = headers(mint.records["demo"])

    for who in (player, "me", "no id"):
        for answer in await operations(client, sent, who):
            assert_error(answer, 403, code)
            assert desc in answer.json()["desc"]


def test_all_codes_of_the_page_are_reached(shapes: dict[str, Any]) -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))

    for codes in shapes["error_codes"].values():
        for code in codes:
            assert f'"{code}"' in tests


async def test_a_cookie_is_a_credential(client: httpx2.AsyncClient, mint: Mint) -> None:
    cookie = {"Cookie": f"a=b; Authorization=bearer {mint('alice')}"}

    answer = await client.get(f"{BASE}/me/notification", headers=cookie)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://here", 200),
        ("https://game.example", 200),
        ("http://evil.example", 403),
        ("null", 403),
        (None, 403),
    ],
)
async def test_a_post_with_a_cookie_needs_an_origin(
    start: Start, mint: Mint, origin: str | None, status: int
) -> None:
    server = await start(allowed_origins=("https://game.example",))
    headers = {"Cookie": f"Authorization=bearer {mint('alice')}"}
    if origin:
        headers["Origin"] = origin

    answer = await server.client.post(
        f"{BASE}/me/notification",
        headers=headers,
        json={"notifications": [{"message": "a"}]},
    )

    if status == 403:
        assert_error(answer, 403, "insufficient_permissions")
    else:
        assert answer.status_code == status


async def test_a_page_of_another_origin_cannot_poll_with_a_cookie(
    client: httpx2.AsyncClient, mint: Mint
) -> None:
    headers = {
        "Cookie": f"Authorization=bearer {mint('alice')}",
        "Origin": "http://evil.example",
    }

    answer = await client.get(f"{BASE}/me/stream/notification/lp", headers=headers)

    assert_error(answer, 403, "insufficient_permissions")


# Players and rights.


@pytest.mark.parametrize(
    "player",
    [
        *("alice", "0", "%00", "%ff", "x" * 5000, "a%2Fb", "ME", "Me", "", "%20"),
        *(BOB + "0", BOB.replace("-", "", 1), "{" + BOB, "8" + "Z" * 25),
    ],
)
async def test_an_invalid_player_is_a_bad_id(
    client: httpx2.AsyncClient, mint: Mint, player: str
) -> None:
    url = f"{BASE}/{player}/notification"
    headers = mint.bearer("alice")

    assert_error(await client.get(url, headers=headers), 400, "bad_id")
    assert_error(await client.post(url, headers=headers), 400, "bad_id")


READ, WRITE = (200, 200, 403, 404), (403, 403, 200, 403)
BOTH, NONE = (200, 200, 200, 404), (403, 403, 403, 403)


@pytest.mark.parametrize(
    ("permission", "own", "another"),
    [
        ("notification:player:*", BOTH, BOTH),
        ("notification:player:read", READ, READ),
        ("notification:player:write", WRITE, WRITE),
        ("notification:player:self:*", BOTH, NONE),
        ("notification:player:self:read", READ, NONE),
        ("notification:player:self:write", WRITE, NONE),
    ],
)
async def test_permissions_allow_the_documented_operations(
    client: httpx2.AsyncClient,
    mint: Mint,
    player: str,
    permission: str,
    own: tuple[int, ...],
    another: tuple[int, ...],
) -> None:
    headers = mint.bearer(player, permission)

    for who, expected in ((player, own), ("me", own), (BOB, another)):
        answers = await operations(client, headers, who)
        assert tuple(answer.status_code for answer in answers) == expected
        for answer in answers:
            if answer.status_code == 403:
                assert_error(answer, 403, "insufficient_permissions")


async def test_a_backend_key_acts_for_any_player_but_not_for_me(
    client: httpx2.AsyncClient, backend_key: str
) -> None:
    headers = bearer(backend_key)

    statuses = [a.status_code for a in await operations(client, headers, BOB)]
    assert statuses == list(BOTH)
    for answer in await operations(client, headers, "me"):
        assert_error(answer, 403, "insufficient_permissions")


async def test_a_backend_key_has_only_its_scopes(
    client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    headers = bearer(await add_key("notifications:read"))

    statuses = [a.status_code for a in await operations(client, headers, BOB)]

    assert statuses == list(READ)


async def test_rights_come_before_parameters(
    client: httpx2.AsyncClient, mint: Mint
) -> None:
    headers = mint.bearer("alice")
    url = f"{BASE}/{BOB}/notification"

    page = await client.get(url, headers=headers, params={"page_size": 0})
    create = await client.post(url, headers=headers, content=b"{")

    assert_error(page, 403, "insufficient_permissions")
    assert_error(create, 403, "insufficient_permissions")


# Paths.


@pytest.mark.parametrize(
    "path",
    [
        *("/notification/", "/notification/v1", "/notification/v2/x"),
        *(f"{BASE}/me", f"{BASE}/me/notification/", f"{BASE}/me/notification/a/b"),
    ],
)
async def test_an_unknown_path_is_not_found(
    client: httpx2.AsyncClient, path: str
) -> None:
    answer = await client.get(path, follow_redirects=True)

    assert_error(answer, 404, "resource_not_found")


async def test_other_methods_are_not_allowed(client: httpx2.AsyncClient) -> None:
    answer = await client.delete(f"{BASE}/me/notification")

    assert_error(answer, 405, "method_not_allowed")
    allowed = set(answer.headers["Allow"].split(", "))
    assert allowed == {"GET", "HEAD", "POST"}


# Limits and outages.


async def test_requests_in_flight_have_limits(
    start: Start, mint: Mint, player: str
) -> None:
    server = await start(requests_per_player_max=2, requests_in_flight_max=3)
    mine = mint.bearer(player)
    bobs = mint.bearer(BOB)
    # Cached tokens are checked without the store, so all requests begin together.
    await server.client.get(f"{BASE}/me/notification", headers=mine)

    answers = await asyncio.gather(
        *(
            server.client.get(f"{BASE}/me/notification", headers=headers)
            for headers in (mine, mine, mine, bobs, bobs)
        )
    )

    assert [answer.status_code for answer in answers] == [200, 200, 409, 200, 503]
    assert_error(answers[2], 409, "too_many_listening_to_single_client")
    assert_error(answers[4], 503, "connection_limit_reached")
    for refused in (answers[2], answers[4]):
        assert int(refused.headers["Retry-After"]) > 0


async def test_an_unavailable_store_is_reported(
    store_binary: Path, tmp_path: Path
) -> None:
    embedded = await Embedded.start(tmp_path, binary=store_binary)
    app = build(Config(), embedded.url)
    running = asyncio.create_task(app.run())
    transport = httpx2.ASGITransport(app.asgi)
    try:
        # Only then the store belongs to a deployment, and is not one of an old format.
        await app.ready()
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://here"
        ) as client:
            headers = bearer(await _key_of_new_app(embedded.url))
            before = await operations(client, headers, BOB)
            await embedded.stop()
            answers = await operations(client, headers, BOB)
    finally:
        running.cancel()
        await asyncio.wait([running])

    assert [answer.status_code for answer in before] == list(BOTH)
    for answer in answers:
        assert_error(answer, 503, "service_unavailable")
        assert int(answer.headers["Retry-After"]) > 0


async def _key_of_new_app(url: str) -> str:
    from streamer.model import App
    from streamer.store.access.apps import Apps
    from streamer.store.client.connection import RedisConnection

    redis = RedisConnection(url)
    await Apps(redis).create(App("demo"))
    key = await Apps(redis).add_key(App("demo"))
    await redis.close()
    return key
