"""Every response under a vendor's prefix has the vendor's format."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from streamer.service.access.authenticator import Authenticator

FORMATS: dict[str, set[str]] = {
    "rallyhere": {"auth_success", "error_code", "desc"},
    "lootlocker": {"code", "message", "request_id", "trace_id"},
    "gateway": {"status", "message"},
    "teak": {"status", "errors"},
    "walletwerk": {"success", "error"},
}
PREFIXES: list[tuple[str, str]] = [
    ("rallyhere", "/notification"),
    ("lootlocker", "/server"),
    ("lootlocker", "/game"),
    ("gateway", "/gateway"),
    ("gateway", "/notifications"),
    ("teak", "/v2"),
    ("walletwerk", "/campaigns"),
    ("walletwerk", "/api/v1"),
    ("walletwerk", "/api/v1/campaigns"),
]
METHODS: list[tuple[str, str, str]] = [
    ("rallyhere", "DELETE", "/notification/v1/player/me/notification"),
    ("rallyhere", "POST", "/notification/v1/player/me/stream/notification/lp"),
    ("lootlocker", "DELETE", "/server/notifications/v1"),
    ("lootlocker", "GET", "/game/notifications/v1/read"),
    ("gateway", "DELETE", "/gateway/notifications/1.0/demo"),
    ("gateway", "POST", "/gateway/sse/demo/stream"),
    ("teak", "PUT", "/v2/schedule"),
    ("walletwerk", "PATCH", "/campaigns/c/notifications"),
    ("walletwerk", "PUT", "/api/v1/campaigns/c/notifications/schedule"),
]
FAILING: list[tuple[str, str, str]] = [
    ("rallyhere", "GET", "/notification/v1/player/me/notification"),
    ("lootlocker", "GET", "/game/notifications/v1"),
    ("gateway", "GET", "/gateway/notifications/1.0/demo"),
    ("teak", "POST", "/v2/schedule"),
    ("walletwerk", "GET", "/campaigns/c/notifications/scheduled"),
]


def assert_format(answer: Any, vendor: str, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == FORMATS[vendor]


@pytest.mark.parametrize("rest", ["", "/", "/nothing", "//", "/%00"])
@pytest.mark.parametrize(("vendor", "prefix"), PREFIXES)
async def test_an_unknown_path_has_the_vendors_format(
    client: httpx2.AsyncClient, vendor: str, prefix: str, rest: str
) -> None:
    for method in ("GET", "POST"):
        answer = await client.request(method, prefix + rest)
        assert_format(answer, vendor, 404)


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2x", "/api/v2/x", "/campaignsx"])
async def test_another_path_has_the_native_format(
    client: httpx2.AsyncClient, path: str
) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("vendor", "method", "path"), METHODS)
async def test_another_method_has_the_vendors_format(
    client: httpx2.AsyncClient, vendor: str, method: str, path: str
) -> None:
    answer = await client.request(method, path)

    assert_format(answer, vendor, 405)
    assert method not in answer.headers["allow"].split(", ")


@pytest.mark.parametrize(("vendor", "method", "path"), FAILING)
async def test_a_failed_request_has_the_vendors_format(
    answered_client: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    vendor: str,
    method: str,
    path: str,
) -> None:
    async def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Authenticator, "caller", broken)
    token = {"x-auth-token": "t", "x-session-token": "t", "Authorization": "Bearer t"}
    body = {
        "game_id": "demo",
        "secret_key": "sk_x",
        "notification_identifier": "i",
        "notification_message": "m",
        "user_ids": ["a"],
    }
    answer = await answered_client.request(method, path, headers=token, json=body)

    assert_format(answer, vendor, 500)
    assert "broken" not in answer.text
