"""Logging in to the console with an OpenID Connect issuer, over HTTP."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.service.access import console_sessions
from streamer.service.access import key_sets as key_set_module
from streamer.service.access import oidc_issuer as issuer_module
from streamer.service.access.console_sessions import end_sessions_of
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection

from ...oidc_issuer import CLIENT_ID, CLIENT_SECRET, OidcIssuer, SigningKey
from ..conftest import Mint, Server, Start

URL = "https://push.example/staff/console"
ORIGIN = {"Origin": "https://push.example"}
API = "/console/api"
GUARD_S = 40
"""For an answer of the issuer on a busy machine."""


class Visitor:
    """A browser, whose requests reach the server without the prefix of its URL."""

    def __init__(self, server: Server, issuer: OidcIssuer) -> None:
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(server.app.asgi),
            base_url="https://push.example",
        )
        self.issuer = issuer

    async def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx2.Response:
        return await self.client.request(
            method, API + path, json=body, headers={**ORIGIN, **headers}
        )

    async def begin(self, **body: str) -> str:
        answer = await self("POST", "/login", body)
        assert answer.status_code == 200, answer.text
        url: str = answer.json()["url"]
        return url

    async def come_back(self, url: str) -> httpx2.Response:
        """Follow the issuer's redirect to `url`."""
        assert url.startswith(f"{URL}/api/callback?")
        return await self.client.get(url.replace(URL, "/console", 1))

    async def log_in(self, person: str = "ann", **body: str) -> httpx2.Response:
        return await self.come_back(
            self.issuer.log_in(await self.begin(**body), person)
        )


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let keys count, and the issuer be asked again, without a wait; be patient."""
    monkeypatch.setattr(issuer_module, "TIMEOUT_S", GUARD_S)
    monkeypatch.setattr(key_set_module, "FETCH_TIMEOUT_S", GUARD_S)
    monkeypatch.setattr(console_sessions, "EXISTS_S", 0.0)
    monkeypatch.setattr(issuer_module, "RETRY_S", 0.0)
    monkeypatch.setattr(key_set_module, "FETCH_INTERVAL_MIN_S", 0.0)


@pytest_asyncio.fixture(loop_scope="module")
async def issuer() -> AsyncIterator[OidcIssuer]:
    issuer = OidcIssuer(URL)
    await issuer.open()
    yield issuer
    await issuer.close()


@pytest.fixture
def settings(issuer: OidcIssuer, mint: Mint) -> dict[str, Any]:
    return {
        "console_url": URL,
        "console_oidc_issuer": issuer.url,
        "console_oidc_client_id": CLIENT_ID,
        "console_oidc_client_secret": CLIENT_SECRET,
        "console_oidc_roles": (
            f"game-ops=operator:{mint.name()}",
            f"game-ops=viewer:{mint.name('other')}",
            f"cs=support:{mint.name()}",
        ),
    }


@pytest_asyncio.fixture(loop_scope="module")
async def node(start: Start, settings: dict[str, Any]) -> Server:
    return await start(**settings)


@pytest_asyncio.fixture(loop_scope="module")
async def visitor(node: Server, issuer: OidcIssuer) -> AsyncIterator[Visitor]:
    visitor = Visitor(node, issuer)
    yield visitor
    await visitor.client.aclose()


async def test_a_person_logs_in_and_acts(visitor: Visitor, mint: Mint) -> None:
    assert (await visitor("GET", "/login")).json() == {
        "keys": False,
        "issuer": visitor.issuer.url.removeprefix("http://"),
    }
    assert (await visitor("GET", "/session")).status_code == 401

    answer = await visitor.log_in("bob")

    assert answer.status_code == 303
    assert answer.headers["location"] == f"{URL}?app={mint.name()}"
    (session,) = [
        it
        for it in answer.headers.get_list("set-cookie")
        if it.startswith("streamer_console=")
    ]
    assert session.endswith("; HttpOnly; SameSite=Strict; Secure")
    found = (await visitor("GET", "/session")).json()
    assert found["role"] == "support"
    assert (found["app"], found["apps"]) == (mint.name(), [mint.name()])
    assert (found["subject"], found["key"]) == ("bob", None)
    assert found["name"] == "bob@studio.example"
    message = {"to": {"players": ["kim"]}, "title": "Sorry"}
    sent = await visitor("POST", "/messages", {"message": message, "reason": "lost"})
    assert sent.status_code == 200
    everyone = {"message": {"to": {"everyone": True}, "title": "x"}}
    assert (await visitor("POST", "/messages", everyone)).status_code == 403


async def test_every_action_of_a_person_names_the_person(visitor: Visitor) -> None:
    await visitor.log_in("ann")
    message = {"to": {"everyone": True}, "title": "x"}
    await visitor("POST", "/messages", {"message": message, "reason": "season"})

    entries = (await visitor("GET", "/audit")).json()["entries"]

    assert [it["action"] for it in entries] == ["publish.everyone", "console.login"]
    assert {(it["by"], it["by_name"]) for it in entries} == {
        ("oidc ann", "ann@studio.example")
    }
    assert entries[0]["reason"] == "season"


async def test_a_login_is_in_the_audit_log_of_each_app(
    node: Server, visitor: Visitor, mint: Mint
) -> None:
    await visitor.log_in("ann")
    await visitor("DELETE", "/session")

    audit = node.app._components.audit
    for app in ("demo", "other"):
        found = await audit.read(mint.name(app), limit=10)
        assert [(it.entry.action, it.entry.by) for it in found] == [
            ("console.logout", "oidc ann"),
            ("console.login", "oidc ann"),
        ]


async def test_a_person_with_two_apps_has_a_role_in_each(
    visitor: Visitor, mint: Mint
) -> None:
    await visitor.log_in("ann", app=mint.name("other"))
    here = {"Streamer-App": mint.name()}
    there = {"Streamer-App": mint.name("other")}

    roles = [
        (await visitor("GET", "/session", **it)).json()["role"] for it in (here, there)
    ]
    apps = (await visitor("GET", "/session")).json()["apps"]

    assert roles == ["operator", "viewer"]
    assert apps == sorted([mint.name(), mint.name("other")])
    assert (await visitor("GET", "/audit", **there)).status_code == 403
    for wrong in ("nothing", "", "x" * 100, "../x"):
        answer = await visitor("GET", "/session", **{"Streamer-App": wrong})
        assert answer.status_code == (403 if wrong else 200), wrong


async def test_a_login_leads_back_to_where_it_began(
    visitor: Visitor, mint: Mint
) -> None:
    app = mint.name("other")

    answer = await visitor.log_in(app=app, target="#/player/ann%20b")

    assert answer.headers["location"] == f"{URL}?app={app}#/player/ann%20b"


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "#/\r\nX: y"],
)
async def test_a_login_leads_nowhere_else(visitor: Visitor, target: str) -> None:
    answer = await visitor.log_in(target=target)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{URL}?app=")
    assert "evil" not in answer.headers["location"]
    assert "x" not in answer.headers


async def test_another_node_ends_a_login_that_one_has_begun(
    visitor: Visitor, start: Start, settings: dict[str, Any]
) -> None:
    url = await visitor.begin()
    other = Visitor(await start(**settings), visitor.issuer)
    other.client.cookies = visitor.client.cookies

    answer = await other.come_back(visitor.issuer.log_in(url))
    visitor.client.cookies = other.client.cookies

    assert answer.status_code == 303
    assert (await visitor("GET", "/session")).status_code == 200
    await other.client.aclose()


async def test_who_has_no_role_is_refused_in_plain_text(visitor: Visitor) -> None:
    answer = await visitor.log_in("eve")

    assert answer.status_code == 403
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "You have no role in this console" in answer.text
    assert URL in answer.text
    assert (await visitor("GET", "/session")).status_code == 401


async def test_who_has_a_role_in_no_app_reads_that_the_app_is_missing(
    start: Start, settings: dict[str, Any], issuer: OidcIssuer
) -> None:
    settings["console_oidc_roles"] = ("game-ops=operator:not-yet",)
    visitor = Visitor(await start(**settings), issuer)

    answer = await visitor.log_in()

    assert answer.status_code == 403
    assert "for no app that exists" in answer.text
    await visitor.client.aclose()


@pytest.mark.parametrize("claims", [{"nonce": "another"}, {"sub": "a\u202eb"}])
async def test_an_id_token_that_is_not_for_this_login_is_refused(
    visitor: Visitor, claims: dict[str, Any]
) -> None:
    visitor.issuer.claims = claims

    answer = await visitor.log_in()

    assert answer.status_code == 400
    assert f"missing or invalid: {next(iter(claims))}" in answer.text
    assert (await visitor("GET", "/session")).status_code == 401


async def test_rotated_keys_are_retrieved(visitor: Visitor) -> None:
    assert (await visitor.log_in()).status_code == 303

    visitor.issuer.rotate("second")
    assert (await visitor.log_in()).status_code == 303

    visitor.issuer.sign = SigningKey("third").sign
    answer = await visitor.log_in()
    assert answer.status_code == 400
    assert "unknown key" in answer.text


async def test_a_callback_is_good_once(visitor: Visitor) -> None:
    url = visitor.issuer.log_in(await visitor.begin())
    cookie = visitor.client.cookies["streamer_console_login"]
    assert (await visitor.come_back(url)).status_code == 303
    assert "streamer_console_login" not in visitor.client.cookies

    asked = len(visitor.issuer.requests)
    visitor.client.cookies.set("streamer_console_login", cookie)
    answer = await visitor.come_back(url)

    assert answer.status_code == 400
    assert "begin again" in answer.text
    assert len(visitor.issuer.requests) == asked


async def test_a_code_is_good_once(visitor: Visitor) -> None:
    first = visitor.issuer.log_in(await visitor.begin())
    code = httpx2.URL(first).params["code"]
    await visitor.come_back(first)

    second = httpx2.URL(visitor.issuer.log_in(await visitor.begin()))
    answer = await visitor.come_back(str(second.copy_set_param("code", code)))

    assert answer.status_code == 400
    assert "invalid_grant" in answer.text


@pytest.mark.parametrize("cookie", [None, "x" * 43 + ".99999999999999."])
async def test_a_login_of_another_browser_is_refused(
    visitor: Visitor, cookie: str | None
) -> None:
    url = visitor.issuer.log_in(await visitor.begin())
    visitor.client.cookies.clear()
    if cookie is not None:
        visitor.client.cookies.set("streamer_console_login", cookie)

    answer = await visitor.come_back(url)

    assert answer.status_code == 400
    assert "another browser" in answer.text


async def test_the_two_halves_of_two_logins_do_not_fit(visitor: Visitor) -> None:
    first = visitor.issuer.log_in(await visitor.begin())
    await visitor.begin()

    assert (await visitor.come_back(first)).status_code == 400


async def test_an_error_of_the_issuer_is_told(visitor: Visitor) -> None:
    url = httpx2.URL(visitor.issuer.log_in(await visitor.begin()))
    url = url.copy_remove_param("code").copy_set_param("error", "access_denied")

    answer = await visitor.come_back(str(url))

    assert answer.status_code == 400
    assert "access_denied" in answer.text


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
async def test_a_page_of_another_origin_cannot_begin_a_login(
    visitor: Visitor, origin: str | None
) -> None:
    headers = {"Origin": origin} if origin else {}

    answer = await visitor.client.post(f"{API}/login", json={}, headers=headers)

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_the_url_of_the_console_is_compared_as_browsers_write_it(
    start: Start, settings: dict[str, Any], issuer: OidcIssuer
) -> None:
    settings["console_url"] = URL.replace("push.example", "Push.Example:443")
    visitor = Visitor(await start(**settings), issuer)

    # A proxy has passed on the host of the node.
    answer = await visitor("POST", "/login", {}, Host="node-1:8080")

    assert answer.status_code == 200
    await visitor.client.aclose()


async def test_a_client_that_fails_too_often_has_to_wait(visitor: Visitor) -> None:
    for _ in range(console_sessions.FAILURES_MAX):
        await visitor.client.get(f"{API}/callback?state=x&code=y")

    ended = await visitor.client.get(f"{API}/callback?state=x&code=y")
    begun = await visitor("POST", "/login", {})

    assert [ended.status_code, begun.status_code] == [429, 429]
    assert int(ended.headers["retry-after"]) > 0


async def test_keys_go_on_while_the_issuer_is_down(
    visitor: Visitor, redis: RedisConnection, mint: Mint
) -> None:
    await visitor.issuer.close()
    key = await Apps(redis).add_key(mint.name(), role="viewer")

    refused = await visitor("POST", "/login", {})
    entered = await visitor("POST", "/session", {"key": key})

    assert refused.status_code == 503
    assert f"the issuer {visitor.issuer.url} cannot be reached" in refused.text
    assert entered.status_code == 200
    assert (await visitor("GET", "/login")).json()["keys"] is True


async def test_a_broken_answer_of_the_issuer_is_told(visitor: Visitor) -> None:
    url = visitor.issuer.log_in(await visitor.begin())
    visitor.issuer.answer = 500, b"{}"

    ended = await visitor.come_back(url)

    assert ended.status_code == 503
    assert "console key goes on" in ended.text


async def test_a_secret_that_the_issuer_refuses_is_told(
    start: Start, settings: dict[str, Any], issuer: OidcIssuer
) -> None:
    settings["console_oidc_client_secret"] = "wrong"
    visitor = Visitor(await start(**settings), issuer)

    answer = await visitor.log_in()

    assert answer.status_code == 503
    assert "does not accept the client" in answer.text
    await visitor.client.aclose()


async def test_a_logout_leads_to_the_issuer(visitor: Visitor) -> None:
    await visitor.log_in()

    left = await visitor("DELETE", "/session")

    url = httpx2.URL(left.json()["url"])
    assert str(url).startswith(f"{visitor.issuer.url}/logout?")
    assert url.params["post_logout_redirect_uri"] == URL
    assert url.params["client_id"] == CLIENT_ID
    assert url.params["id_token_hint"].count(".") == 2
    assert (await visitor("GET", "/session")).status_code == 401


async def test_a_session_has_the_roles_of_the_present_settings(
    visitor: Visitor, start: Start, settings: dict[str, Any], mint: Mint
) -> None:
    await visitor.log_in()
    settings["console_oidc_roles"] = (f"game-ops=viewer:{mint.name()}",)
    less = Visitor(await start(**settings), visitor.issuer)
    settings["console_oidc_roles"] = (f"others=viewer:{mint.name()}",)
    none = Visitor(await start(**settings), visitor.issuer)
    settings["console_oidc_client_id"] = "another"
    foreign = Visitor(await start(**settings), visitor.issuer)
    for one in (less, none, foreign):
        one.client.cookies = visitor.client.cookies

    answers = [await it("GET", "/session") for it in (visitor, less, none, foreign)]

    assert [it.status_code for it in answers] == [200, 200, 401, 401]
    assert [it.json()["role"] for it in answers[:2]] == ["operator", "viewer"]
    for one in (less, none, foreign):
        await one.client.aclose()


async def test_all_sessions_of_a_person_are_ended_at_once(
    visitor: Visitor, node: Server, redis: RedisConnection
) -> None:
    other = Visitor(node, visitor.issuer)
    await visitor.log_in("ann")
    await other.log_in("bob")

    await end_sessions_of(redis, "ann")

    assert (await visitor("GET", "/session")).status_code == 401
    assert (await other("GET", "/session")).status_code == 200
    await other.client.aclose()


async def test_who_was_logged_out_can_log_in_again(
    visitor: Visitor, redis: RedisConnection
) -> None:
    await end_sessions_of(redis, "ann", clock=lambda: time.time() - 60)

    await visitor.log_in("ann")

    assert (await visitor("GET", "/session")).status_code == 200


async def test_a_session_is_no_longer_than_the_setting(
    start: Start, settings: dict[str, Any], issuer: OidcIssuer
) -> None:
    settings["console_session_s"] = 60
    visitor = Visitor(await start(**settings), issuer)
    begun_s = time.time()

    await visitor.log_in()

    ended_s = time.time()
    text = (await visitor("GET", "/session")).json()["expires_at"]
    expires_s = datetime.fromisoformat(text).timestamp()
    assert begun_s + 59 < expires_s <= ended_s + 60
    await visitor.client.aclose()


async def test_without_an_issuer_there_is_no_such_login(
    server: Server, redis: RedisConnection, mint: Mint
) -> None:
    await Apps(redis).add_key(mint.name(), role="viewer")
    origin = {"Origin": "http://here"}

    begun = await server.client.post(f"{API}/login", json={}, headers=origin)
    ended = await server.client.get(f"{API}/callback?state=x&code=y")
    ways = await server.client.get(f"{API}/login")

    assert [begun.status_code, ended.status_code] == [404, 404]
    assert ways.json() == {"keys": True, "issuer": None}


async def test_an_issuer_turns_the_console_on(visitor: Visitor) -> None:
    assert (await visitor.client.get("/console")).status_code == 200
