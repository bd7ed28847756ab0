"""The console over HTTP: its files, sessions, roles, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from streamer.core.access.roles import Role
from streamer.core.schedule import Schedule, ScheduleState
from streamer.service.access import console_sessions
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.scheduling.schedule_records import new_schedule_id
from streamer.surfaces.native.console import contract

from ..conftest import Mint, Server, Start

ORIGIN = {"Origin": "http://here"}
API = "/console/api"
PUBLIC = {"logIn", "waysToLogIn", "beginLogin", "endLogin"}
HOSTILE = "<script>alert(1)</script>\u202e\u0007<img src=x onerror=alert(2)>"

AddConsoleKey = Callable[..., Awaitable[str]]
Login = Callable[..., Awaitable["Session"]]


class Session:
    """A browser that is logged in."""

    def __init__(self, client: httpx2.AsyncClient, opened: Any) -> None:
        self.client = client
        self.opened = opened

    async def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> httpx2.Response:
        return await self.client.request(
            method, API + path, json=body, headers={**ORIGIN, **headers}
        )

    async def get(self, path: str) -> Any:
        answer = await self("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def add_console_key(redis: RedisConnection, mint: Mint) -> AddConsoleKey:
    async def add(role: Role, app: str = "demo", **more: Any) -> str:
        return await Apps(redis).add_key(mint.name(app), role=role, **more)

    return add


@pytest_asyncio.fixture(loop_scope="module")
async def login(server: Server, add_console_key: AddConsoleKey) -> AsyncIterator[Login]:
    """Return a function that logs in with a new key: ``login(role, app="demo")``."""
    async with AsyncExitStack() as stack:

        async def login(role: Role, app: str = "demo", key: str = "") -> Session:
            client = await stack.enter_async_context(
                httpx2.AsyncClient(
                    transport=httpx2.ASGITransport(server.app.asgi),
                    base_url="http://here",
                )
            )
            key = key or await add_console_key(role, app)
            answer = await client.post(
                f"{API}/session", json={"key": key}, headers=ORIGIN
            )
            assert answer.status_code == 200, answer.text
            return Session(client, answer.json())

        yield login


@pytest.fixture(autouse=True)
def looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first key turn the console on without a wait."""
    monkeypatch.setattr(console_sessions, "EXISTS_S", 0.0)


def message(player: str, **more: Any) -> dict[str, Any]:
    to = {"players": [player]}
    return {"message": {"to": to, "title": "Sorry", **more}, "reason": "lost a chest"}


async def published(session: Session, player: str, **more: Any) -> str:
    answer = await session("POST", "/messages", message(player, **more))
    assert answer.status_code == 200, answer.text
    identifier: str = answer.json()["results"][0]["id"]
    return identifier


async def test_it_does_not_exist_without_a_console_key(
    server: Server, redis: RedisConnection, add_key: Any
) -> None:
    for key in await Apps(redis).list_keys():
        await Apps(redis).revoke_key(key.id)
    await add_key()
    unknown = await server.client.get("/nothing")

    for operation in contract.CONSOLE.operations:
        path = re.sub(r"\{\w+\}", "x", operation.path)
        answer = await server.client.request(
            operation.method, path, json={}, headers=ORIGIN
        )
        assert answer.status_code == 404, path
        assert answer.content == unknown.content, path


async def test_an_operator_changes_what_a_campaign_sends(
    server: Server, login: Login, mint: Mint
) -> None:
    operator = await login("operator")
    later = datetime.now(UTC) + timedelta(hours=1)
    scheduled = Schedule(
        *(mint.name("demo"), new_schedule_id(7), ScheduleState.PENDING),
        *(int(later.timestamp() * 1_000), 0, b'"title":"Sale"}'),
        campaign="spring",
        buckets=(7,),
    )
    await server.app._components.timetable.add(scheduled)
    path = f"/schedules/{scheduled.id}"

    for method, place, body in (
        ("PATCH", path, {"send_at": (later + timedelta(hours=1)).isoformat()}),
        ("POST", f"{path}/pause", None),
        ("POST", f"{path}/resume", None),
        ("DELETE", path, None),
    ):
        answer = await operator(method, place, body)
        assert answer.status_code == 200, (place, answer.text)


async def test_its_files_load_nothing_from_elsewhere(
    server: Server, add_console_key: AddConsoleKey
) -> None:
    await add_console_key("viewer")

    for operation in contract.FILES.values():
        answer = await server.client.get(operation.path)
        assert answer.status_code == 200, operation.path
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        text = re.sub(r"http://www\.w3\.org/\d+/svg", "", answer.text)
        assert "://" not in text, operation.path


async def test_its_modules_are_all_served(
    server: Server, add_console_key: AddConsoleKey
) -> None:
    await add_console_key("viewer")
    pending, seen = ["/console/main.js"], set[str]()

    while pending:
        path = pending.pop()
        seen.add(path)
        answer = await server.client.get(path)
        assert answer.status_code == 200, path
        for found in re.findall(r'from "(\.[^"]+)"|import\("(\.[^"]+)"\)', answer.text):
            target = str(httpx2.URL("http://here" + path).join("".join(found)).path)
            if target not in seen:
                pending.append(target)
    assert f"{seen}".count("/console/") >= 5
    page = (await server.client.get("/console")).text
    assert "style=" not in page and " on" not in re.sub(r"[^<]*<[^ >]*", "", page)


async def test_a_login_sets_a_cookie_that_no_script_and_no_other_site_has(
    server: Server, add_console_key: AddConsoleKey
) -> None:
    key = await add_console_key("support", name="Ann")

    answer = await server.client.post(
        f"{API}/session", json={"key": f" {key}\n"}, headers=ORIGIN
    )

    assert answer.status_code == 200
    assert answer.json()["role"] == "support"
    assert answer.json()["name"] == "Ann"
    assert key not in answer.text
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    assert key not in cookie
    assert answer.headers["cache-control"] == "no-store"


async def test_the_cookie_is_for_https_only_where_the_page_is(
    server: Server, add_console_key: AddConsoleKey
) -> None:
    answer = await server.client.post(
        f"{API}/session",
        json={"key": await add_console_key("viewer")},
        headers={"Origin": "https://here"},
    )

    assert answer.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
async def test_a_page_of_another_origin_cannot_log_in_or_act(
    server: Server, login: Login, add_console_key: AddConsoleKey, origin: str | None
) -> None:
    session = await login("operator")
    headers = {"Origin": origin} if origin else {}

    entered = await server.client.post(
        f"{API}/session", json={"key": await add_console_key("viewer")}, headers=headers
    )
    acted = await session.client.post(
        f"{API}/messages", json=message("ann"), headers=headers
    )
    left = await session.client.delete(f"{API}/session", headers=headers)

    assert [it.status_code for it in (entered, acted, left)] == [403] * 3
    assert (await session.get("/session"))["role"] == "operator"


async def test_a_form_cannot_act(login: Login) -> None:
    session = await login("operator")

    answer = await session.client.post(
        f"{API}/messages",
        content=json.dumps(message("ann")),
        headers={**ORIGIN, "Content-Type": "text/plain"},
    )

    assert answer.status_code == 415


@pytest.mark.parametrize("key", ["sk_wrong", "x"])
async def test_a_wrong_key_is_refused(
    server: Server, add_console_key: AddConsoleKey, key: str
) -> None:
    await add_console_key("viewer")

    answer = await server.client.post(
        f"{API}/session",
        json={"key": key},
        headers={**ORIGIN, "X-Forwarded-For": "192.0.2.1"},
    )

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_nothing_is_answered_without_a_session(
    server: Server, add_console_key: AddConsoleKey, add_key: Any
) -> None:
    key = await add_console_key("operator")
    bearer = {"Authorization": f"Bearer {key}"}

    for operation in contract.CONSOLE.operations:
        if not operation.path.startswith(f"{API}/") or operation.name in PUBLIC:
            continue
        path = re.sub(r"\{\w+\}", "x", operation.path)
        for headers in ({}, {"Cookie": "streamer_console=x"}, bearer):
            answer = await server.client.request(
                operation.method, path, json={}, headers={**ORIGIN, **headers}
            )
            assert answer.status_code == 401, path


async def test_a_console_key_is_no_credential_of_the_api(
    server: Server, add_console_key: AddConsoleKey
) -> None:
    headers = {"Authorization": f"Bearer {await add_console_key('operator')}"}

    page = await server.client.get("/v1/players/ann/notifications", headers=headers)
    body = {"to": {"players": ["ann"]}, "title": "no"}
    sent = await server.client.post("/v1/notifications", json=body, headers=headers)

    assert [page.status_code, sent.status_code] == [403, 403]


async def test_a_cookie_of_another_application_does_not_end_the_session(
    login: Login, server: Server
) -> None:
    session = await login("viewer")
    cookie = session.client.cookies["streamer_console"]
    headers = {"Cookie": f'other={{"a":1}}; streamer_console={cookie}'}

    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(server.app.asgi), base_url="http://here"
    ) as client:
        answer = await client.get(f"{API}/session", headers=headers)

    assert answer.status_code == 200


async def test_a_logout_ends_the_session(login: Login) -> None:
    session = await login("viewer")
    cookie = {
        "Cookie": f"streamer_console={session.client.cookies['streamer_console']}"
    }

    left = await session("DELETE", "/session")

    assert left.status_code == 204
    assert "Max-Age=0" in left.headers["set-cookie"]
    assert (await session("GET", "/session")).status_code == 401
    assert (await session("GET", "/session", **cookie)).status_code == 401


async def test_a_revoked_key_ends_the_session_at_once(
    login: Login, redis: RedisConnection
) -> None:
    session = await login("operator")
    await session.get("/overview")

    await Apps(redis).revoke_key(session.opened["key"])

    assert (await session("GET", "/overview")).status_code == 401
    assert (await session("POST", "/messages", message("ann"))).status_code == 401


ACTIONS: list[tuple[Role, str, str, Any]] = [
    ("support", "POST", "/players/ann/notifications/read", {"all": True}),
    ("support", "POST", "/players/ann/notifications/unread", {"ids": ["x"]}),
    ("support", "DELETE", "/players/ann/notifications/x", None),
    ("support", "DELETE", "/players/ann/tokens", None),
    ("support", "POST", "/players/ann/disconnect", {}),
    ("support", "PUT", "/players/ann/topics/news", None),
    ("support", "DELETE", "/players/ann/topics/news", None),
    ("support", "POST", "/messages", message("ann")),
    (
        "operator",
        "POST",
        "/messages",
        {"message": {"to": {"topic": "n"}, "title": "x"}},
    ),
    (
        *("operator", "POST", "/messages"),
        {"message": {"to": {"everyone": True}, "title": "x"}},
    ),
    (
        *("operator", "POST", "/messages"),
        {"message": {"to": {"players": ["a", "b"]}, "title": "x"}},
    ),
    ("operator", "POST", "/audience", {"to": {"everyone": True}}),
    ("operator", "PATCH", "/schedules/x", {"send_at": "2030-01-01T00:00:00Z"}),
    ("operator", "DELETE", "/schedules/x", None),
    ("operator", "POST", "/schedules/x/pause", None),
    ("operator", "POST", "/schedules/x/resume", None),
]


@pytest.mark.parametrize(("role", "method", "path", "body"), ACTIONS)
async def test_an_action_requires_its_role(
    login: Login, role: Role, method: str, path: str, body: Any
) -> None:
    lower: Role = "viewer" if role == "support" else "support"

    refused = await (await login(lower))(method, path, body)
    allowed = await (await login(role))(method, path, body)

    assert refused.status_code == 403
    assert f"the role {role}" in refused.json()["detail"]
    # What does not exist is not found, but not forbidden.
    assert allowed.status_code not in (401, 403), allowed.text


def test_every_action_has_a_role_in_the_tests() -> None:
    tried = {(method, path) for _, method, path, _ in ACTIONS}
    reads = {"logOut", *PUBLIC}
    actions = {
        (it.method, it.path.removeprefix(API))
        for it in contract.CONSOLE.operations
        if it.method != "GET" and it.name not in reads
    }

    def matches(template: str, path: str) -> bool:
        return bool(re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", template), path))

    for method, template in actions:
        assert any(m == method and matches(template, p) for m, p in tried), template


async def test_a_session_sees_and_changes_its_own_app_only(login: Login) -> None:
    here, there = await login("operator"), await login("operator", app="other")
    sent = await published(here, "ann")
    at = datetime.now(UTC) + timedelta(hours=1)
    later = message("ann", send_at=at.isoformat())
    answer = await here("POST", "/messages", later)
    schedule = answer.json()["schedule"]["id"]

    page = await there.get("/players/ann/notifications")
    entries = await there.get("/players/ann/entries")
    withdrawn = await there("DELETE", f"/players/ann/notifications/{sent}")
    cancelled = await there("DELETE", f"/schedules/{schedule}")

    assert page["notifications"] == [] and entries["entries"] == []
    assert [withdrawn.status_code, cancelled.status_code] == [404, 404]
    assert (await there.get("/schedules"))["schedules"] == []
    assert (await there.get("/due"))["schedules"] == []
    assert [it["id"] for it in (await here.get("/due"))["schedules"]] == [schedule]
    assert (await there.get("/app"))["name"] != (await here.get("/app"))["name"]
    assert len((await here.get("/players/ann/notifications"))["notifications"]) == 1


async def test_a_message_to_a_player_requires_a_reason(login: Login) -> None:
    session = await login("operator")

    for reason in ({}, {"reason": " "}, {"reason": ""}):
        answer = await session(
            "POST", "/messages", {"message": message("ann")["message"], **reason}
        )
        assert answer.status_code == 422
        assert "reason" in answer.text


async def test_a_list_of_messages_is_refused(login: Login) -> None:
    session = await login("operator")
    one = message("ann")

    answer = await session("POST", "/messages", {**one, "message": [one["message"]]})

    assert answer.status_code == 422


async def test_the_inbox_is_that_of_the_player(
    login: Login, server: Server, mint: Mint
) -> None:
    session = await login("support")
    first = await published(session, "eve", title=HOSTILE)
    await published(session, "eve", type="gift")
    await session("POST", "/players/eve/notifications/read", {"ids": [first]})

    seen = await session.get("/players/eve/notifications")

    own = await server.client.get(
        "/v1/players/me/notifications", headers=mint.bearer("eve")
    )
    assert seen == own.json()
    assert seen["unread"] == 1
    assert seen["notifications"][1]["title"] == HOSTILE


async def test_the_entries_have_those_that_have_ended(login: Login) -> None:
    session = await login("support")
    withdrawn = await published(session, "kim")
    kept = await published(session, "kim")
    await session("POST", "/players/kim/notifications/read", {"ids": [kept]})

    await session("DELETE", f"/players/kim/notifications/{withdrawn}")

    entries = (await session.get("/players/kim/entries"))["entries"]
    assert [(it["id"], it["state"]) for it in entries] == [
        (kept, "read"),
        (withdrawn, "withdrawn"),
    ]
    assert entries[0]["read_at"] and entries[0]["notification"]["title"] == "Sorry"


async def test_an_entry_without_its_text_is_shown_as_one(login: Login) -> None:
    session = await login("support")
    purged = await published(session, "pia")

    await session("DELETE", f"/players/pia/notifications/{purged}?purge=true")

    (entry,) = (await session.get("/players/pia/entries"))["entries"]
    assert (entry["id"], entry["state"]) == (purged, "withdrawn")
    assert entry["notification"] is None


async def test_the_summary_has_topics_and_mutes(
    login: Login, server: Server, mint: Mint
) -> None:
    session = await login("support")
    await session("PUT", "/players/lee/topics/news")
    bearer = mint.bearer("lee")
    await server.client.put("/v1/players/me/mutes/types/ads", headers=bearer)
    await published(session, "lee")

    summary = await session.get("/players/lee/summary")

    assert summary["unread"] == 1
    assert summary["topics"] == [{"topic": "news", "muted": False}]
    assert summary["muted_types"] == ["ads"]


async def test_a_player_may_have_a_slash_in_its_name(login: Login) -> None:
    session = await login("support")
    await published(session, "a/b c")

    page = await session.get("/players/a%2Fb%20c/notifications")

    assert len(page["notifications"]) == 1


async def test_revoked_tokens_of_a_player_are_refused(
    login: Login, redis: RedisConnection, mint: Mint
) -> None:
    session = await login("support")

    answer = await session("DELETE", "/players/bob/tokens")

    log = (await Apps(redis).get(mint.name())).revoking_until_s  # type: ignore[union-attr]
    assert answer.status_code == 204
    assert log > 0


async def test_a_dry_run_says_whom_a_message_would_reach(login: Login) -> None:
    session = await login("operator")

    some = await session(
        "POST", "/audience", {"to": {"players": ["a", "b", "a"]}, "spread_s": 4}
    )
    topic = await session("POST", "/audience", {"to": {"topic": "news"}})

    assert some.json()["players"] == 2
    assert some.json()["per_s"] == 0.5
    assert topic.json()["players"] is None
    assert topic.json()["online"] == 0
    assert topic.json()["silent"] == []  # the only node has answered


async def test_the_overview_has_the_samples_of_this_process(
    login: Login, server: Server
) -> None:
    session = await login("viewer")
    history = server.app._components.load_history
    await published(await login("support"), "ann")
    taken = history.take()

    overview = await session.get(f"/overview?since={taken.at_ms - 1}")

    samples = overview["samples"][server.app.admission.node]
    assert samples[-1]["at_ms"] == taken.at_ms
    assert samples[-1]["publishes"] >= 1
    assert overview["store"]["durability"] == server.app.facts()["durability"]
    assert overview["schedules"]["late"] == 0
    later = await session.get(f"/overview?since={taken.at_ms}")
    assert later["samples"][server.app.admission.node] == []
    assert later["silent"] == []


@pytest.mark.parametrize("since", ["x", "-1", "9" * 20])
async def test_a_wrong_time_is_refused(login: Login, since: str) -> None:
    session = await login("viewer")

    assert (await session("GET", f"/overview?since={since}")).status_code == 400


async def test_the_app_has_its_keys_without_a_secret(
    login: Login, mint: Mint, add_key: Any
) -> None:
    session, key = await login("viewer"), await add_key()

    answer = await session("GET", "/app")

    app = answer.json()
    assert app["name"] == mint.name()
    roles = {(it["role"], len(it["scopes"]) > 0) for it in app["keys"]}
    assert roles == {("viewer", False), (None, True)}
    assert key not in answer.text
    assert mint.records["demo"].secret.hex() not in answer.text


async def test_what_is_answered_is_stored_nowhere(login: Login) -> None:
    session = await login("operator")

    for answer in [
        await session("GET", "/app"),
        await session("GET", "/players/x/notifications"),
        await session("GET", "/players/x/notifications/x/receipt"),
        await session("POST", "/messages", message("x")),
        await session("POST", "/messages", {}),
    ]:
        assert answer.headers["cache-control"] == "no-store", answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"


async def audited(session: Session) -> list[tuple[str, str]]:
    """Return the actions and reasons in the audit log, newest first."""
    entries = (await session.get("/audit"))["entries"]
    assert all(it["by"].startswith("key ") for it in entries)
    return [(it["action"], it.get("reason", "")) for it in entries]


async def test_every_action_is_in_the_audit_log(login: Login) -> None:
    session = await login("operator")
    identifier = await published(session, "ann")
    inbox = "/players/ann/notifications"
    await session("POST", f"{inbox}/read", {"ids": [identifier]})
    await session("DELETE", f"{inbox}/{identifier}")
    await session("PUT", "/players/ann/topics/news")
    await session("DELETE", "/players/ann/tokens")
    await session("POST", "/players/ann/disconnect", {"reason": "stuck"})
    everyone = {"to": {"everyone": True}, "title": "x"}
    await session("POST", "/messages", {"message": everyone, "reason": "season"})

    assert await audited(session) == [
        ("publish.everyone", "season"),
        ("player.disconnect", "stuck"),
        ("tokens.revoke", ""),
        ("player.subscribe", ""),
        ("withdraw", ""),
        ("player.mark", ""),
        ("player.compensate", "lost a chest"),
        ("console.login", ""),
    ]


async def test_what_a_service_records_itself_is_one_entry(login: Login) -> None:
    session = await login("operator")
    identifier = await published(session, "ann")
    inbox = "/players/ann/notifications"
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    later = {"to": {"everyone": True}, "title": "x", "send_at": at}

    await session("DELETE", f"{inbox}/{identifier}?purge=true")
    await session("DELETE", f"{inbox}/{identifier}x?purge=true")
    await session("POST", "/messages", {"message": later, "reason": "season"})

    entries = (await session.get("/audit"))["entries"]
    assert [(it["action"], it.get("reason"), it["outcome"]) for it in entries] == [
        ("publish.everyone", "season", "done"),
        ("purge", None, "not_found"),
        ("purge", None, "done"),
        ("player.compensate", "lost a chest", "done"),
        ("console.login", None, "done"),
    ]
    assert all("player" in it for it in entries[1:4])


async def test_what_is_refused_for_its_role_is_not_in_the_audit_log(
    login: Login,
) -> None:
    await (await login("viewer"))("POST", "/messages", message("ann"))

    actions = {action for action, _ in await audited(await login("operator"))}

    assert actions == {"console.login"}


async def test_the_audit_log_is_for_operators_of_the_app(login: Login) -> None:
    await published(await login("support"), "ann")

    assert (await (await login("support"))("GET", "/audit")).status_code == 403
    assert await audited(await login("operator", app="other")) == [
        ("console.login", "")
    ]


async def test_a_player_is_inspected_and_disconnected(
    login: Login, server: Server, mint: Mint, until: Any, open_events: Any
) -> None:
    session = await login("support")
    stream = await open_events("/v1/stream", mint.bearer("ann"))
    await until(lambda: server.readers("ann"))

    seen = await session.get("/players/ann/inspection?notifications=0")
    assert seen["online"] and len(seen["connections"]) == 1
    identifier = await published(session, "ann")
    trace = await session.get(f"/players/ann/notifications/{identifier}/trace")
    assert len(trace["trace"]["announced"]) == 1

    ended = await session("POST", "/players/ann/disconnect", {})
    assert ended.status_code == 200
    await until(lambda: not server.readers("ann"))
    assert stream is not None


# Last: the others would wait for the nodes of these, which do not answer any more.
async def test_the_overview_and_a_dry_run_ask_all_nodes(
    login: Login, server: Server, start: Start, mint: Mint, open_events: Any, until: Any
) -> None:
    session, other = await login("operator"), await start()
    await open_events("/v1/stream", mint.bearer("ann"))
    await open_events("/v1/stream", mint.bearer("bob"), at=other)
    await until(lambda: server.readers("ann") and other.readers("bob"))
    for one in (server, other):
        one.app._components.load_history.take()

    overview = await session.get("/overview")
    everyone = await session("POST", "/audience", {"to": {"everyone": True}})
    players = {"to": {"players": ["ann", "bob", "eve"]}}
    some = await session("POST", "/audience", players)

    nodes = {server.app.admission.node, other.app.admission.node}
    assert nodes <= overview["samples"].keys() == overview["places"].keys()
    assert all(overview["samples"][node] for node in nodes)
    assert everyone.json()["online"] == 2
    assert some.json()["online"] == 2
    assert some.json()["players"] == 3


async def test_it_does_not_exist_where_the_setting_forbids_it(
    start: Start, add_console_key: AddConsoleKey
) -> None:
    await add_console_key("viewer")
    server = await start(console=False)

    assert (await server.client.get("/console")).status_code == 404
