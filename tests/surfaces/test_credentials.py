"""
Tokens and tickets over HTTP, and the effect of changed credentials on streams.

The streams are real, over sockets, on a host in this process.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamer.config import Config
from streamer.model import App, Player
from streamer.server import Host
from streamer.store.access.apps import Apps

from .conftest import AddKey, Mint, Server, Start

GUARD_S = 60
Until = Callable[[Callable[[], Any]], Awaitable[None]]


class Sse:
    """An open event stream, read event by event."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.status = response.status_code
        self._lines = response.aiter_lines()

    async def event(self) -> dict[str, str]:
        """Return the fields of the next block."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(GUARD_S):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields:
                    return fields
        raise EOFError

    async def until(self, name: str) -> dict[str, str]:
        while True:
            event = await self.event()
            if event.get("event") == name:
                return event

    async def to_end(self) -> list[dict[str, str]]:
        events = []
        try:
            while True:
                events.append(await self.event())
        except EOFError:
            return events


class Site:
    """A server on a port, and its clients."""

    def __init__(self, server: Any, url: str, mint: Any, stack: AsyncExitStack) -> None:
        self.server = server
        self.url = url
        self.apps = Apps(server.redis)
        self.http = server.client
        self._mint = mint
        self._stack = stack

    def bearer(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def sse(self, headers: dict[str, str] | None = None, **query: str) -> Sse:
        client = await self._stack.enter_async_context(
            httpx2.AsyncClient(timeout=GUARD_S)
        )
        request = client.stream(
            "GET", f"{self.url}/v1/stream", params=query, headers=headers or {}
        )
        return Sse(await self._stack.enter_async_context(request))

    async def websocket(
        self, *, headers: dict[str, str] | None = None, query: str = ""
    ) -> ClientConnection:
        url = f"{self.url.replace('http', 'ws')}/v1/stream?{query}"
        connecting = connect(url, additional_headers=headers or {}, proxy=None)
        return await self._stack.enter_async_context(connecting)

    async def ticket(self, token: str) -> str:
        answer = await self.http.post("/v1/tickets", headers=self.bearer(token))
        assert answer.status_code == 200, answer.text
        ticket: str = answer.json()["ticket"]
        return ticket

    async def revocation_check(self) -> None:
        await self.server.app._components.revocation_check.check_all()


Open = Callable[..., Awaitable[Site]]


@asynccontextmanager
async def hosted(app: Any) -> AsyncIterator[str]:
    """Serve an app on a port for the block; yield the URL."""
    config = Config(host="127.0.0.1", port=0, drain_s=1)
    host = Host(app.asgi, config, drain=app.drain, direct=app.direct)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(host.run(started=url.set_result))
    async with asyncio.timeout(GUARD_S):
        base = await url
    yield base
    task.cancel()
    await asyncio.wait([task])


@pytest_asyncio.fixture(loop_scope="module")
async def open_site(start: Start, mint: Mint) -> AsyncIterator[Open]:
    """Return a function that opens a site of the test's own, settings by name."""
    async with AsyncExitStack() as stack:

        async def open_site(**settings: Any) -> Site:
            server = await start(**settings)
            url = await stack.enter_async_context(hosted(server.app))
            clients = await stack.enter_async_context(AsyncExitStack())
            return Site(server, url, mint, clients)

        yield open_site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_url(shared_app: Any) -> AsyncIterator[str]:
    async with hosted(shared_app) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def site(server: Server, shared_url: str, mint: Mint) -> AsyncIterator[Site]:
    """Yield the site of the module, with clients of the test's own."""
    async with AsyncExitStack() as clients:
        yield Site(server, shared_url, mint, clients)


async def hello(websocket: ClientConnection) -> dict[str, Any]:
    return await message(websocket, "hello")


async def message(websocket: ClientConnection, kind: str) -> dict[str, Any]:
    """Return the next message of a kind."""
    async with asyncio.timeout(GUARD_S):
        while True:
            found: dict[str, Any] = json.loads(await websocket.recv())
            if found["type"] == kind:
                return found


async def close_code(websocket: ClientConnection) -> int:
    async with asyncio.timeout(GUARD_S):
        while True:
            try:
                await websocket.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                return closed.rcvd.code


async def publish(site: Site, key: str, title: str) -> None:
    body = {"to": {"players": ["alice"]}, "title": title}
    answer = await site.http.post(
        "/v1/notifications", json=body, headers=site.bearer(key)
    )
    assert answer.status_code == 200


# POST /v1/tokens


async def post_token(site: Site, key: str, body: Any) -> Any:
    return await site.http.post("/v1/tokens", json=body, headers=site.bearer(key))


async def test_a_backend_creates_a_valid_token(site: Site, backend_key: str) -> None:
    before_s = int(time.time())

    answer = await post_token(
        site, backend_key, {"player": "alice", "ttl_s": 60, "topics": ["news"]}
    )

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    token, expires_at = answer.json()["token"], answer.json()["expires_at"]
    assert set(answer.json()) == {"token", "expires_at"}
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert (claims["sub"], claims["topics"]) == ("alice", ["news"])
    assert before_s + 60 <= claims["exp"] <= time.time() + 60
    made = time.strptime(expires_at, "%Y-%m-%dT%H:%M:%S.000Z")
    assert claims["exp"] == int(time.mktime(made) - time.timezone)
    page = await site.http.get(
        "/v1/players/me/notifications", headers=site.bearer(token)
    )
    assert page.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"player": "me"},
        {"player": ""},
        {"player": 7},
        {"player": "x" * 129},
        {"player": "alice", "ttl_s": 0},
        {"player": "alice", "ttl_s": -1},
        {"player": "alice", "ttl_s": 86_401},
        {"player": "alice", "ttl_s": 1.5},
        {"player": "alice", "ttl_s": "60"},
        {"player": "alice", "ttl_s": True},
        {"player": "alice", "ttl_s": 10**30},
        {"player": "alice", "permissions": []},
        {"player": "alice", "permissions": "notification:player:self:*"},
        {"player": "alice", "permissions": ["root"]},
        {"player": "alice", "permissions": ["admin"]},
        {"player": "alice", "permissions": ["notification:player:self:READ"]},
        {"player": "alice", "permissions": ["notification:player:self:*"] * 17},
        {"player": "alice", "topics": "news"},
        {"player": "alice", "topics": [""]},
        {"player": "alice", "topics": ["a\nb"]},
        {"player": "alice", "topics": ["a\n"]},
        {"player": "alice", "topics": ["x" * 256]},
        {"player": "alice", "topics": ["t"] * 17},
        {"player": "alice", "app": "other"},
    ],
)
async def test_an_invalid_request_for_a_token_is_422(
    site: Site, backend_key: str, body: Any
) -> None:
    answer = await post_token(site, backend_key, body)

    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_only_a_key_with_the_scope_creates_tokens(
    site: Site, add_key: AddKey, mint: Mint
) -> None:
    body = {"player": "alice"}
    reader = await add_key("notifications:read")
    minter = await add_key("tokens:mint")

    assert (await post_token(site, reader, body)).status_code == 403
    assert (await post_token(site, mint("alice"), body)).status_code == 403
    assert (await site.http.post("/v1/tokens", json=body)).status_code == 401
    assert (await post_token(site, minter, body)).status_code == 200
    wide = {**body, "permissions": ["notification:player:read"]}
    assert (await post_token(site, minter, wide)).status_code == 403


async def test_a_token_is_for_the_app_of_the_key(
    site: Site, add_key: AddKey, mint: Mint
) -> None:
    key = await add_key("tokens:mint", app="other")

    token = (await post_token(site, key, {"player": "alice"})).json()["token"]

    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["aud"] == mint.name("other")


# POST /v1/tickets


async def test_a_player_gets_a_ticket(site: Site, mint: Mint) -> None:
    answer = await site.http.post(
        "/v1/tickets", headers=site.bearer(mint("alice")), json={}
    )

    assert answer.status_code == 200
    assert answer.json()["expires_in_s"] == 60
    assert set(answer.json()) == {"ticket", "expires_in_s"}
    assert answer.headers["cache-control"] == "no-store"


async def test_a_ticket_requires_the_right_to_open_streams(
    site: Site, mint: Mint, backend_key: str
) -> None:
    async def status(token: str, body: bytes = b"") -> int:
        answer = await site.http.post(
            "/v1/tickets", headers=site.bearer(token), content=body
        )
        code: int = answer.status_code
        return code

    assert await status(mint("alice", "notification:player:self:write")) == 403
    assert await status(backend_key) == 403
    assert await status("nonsense") == 401
    assert await status(mint("alice"), b'{"player":"bob"}') == 422
    assert await status(mint("alice"), b"{") == 400


# Streams by ticket.


@pytest.mark.parametrize("polyfill", [False, True])
async def test_a_ticket_opens_one_event_stream_and_its_reconnects(
    site: Site, mint: Mint, backend_key: str, polyfill: bool
) -> None:
    ticket = await site.ticket(mint("alice"))

    first = await site.sse(ticket=ticket)
    begun = await first.until("hello")
    again = await site.sse(ticket=ticket)
    await publish(site, backend_key, "while it was away")
    if polyfill:
        resumed = await site.sse(ticket=ticket, lastEventId=begun["id"])
    else:
        resumed = await site.sse(ticket=ticket, headers={"Last-Event-ID": begun["id"]})

    assert (first.status, again.status, resumed.status) == (200, 401, 200)
    await again.response.aread()
    assert again.response.json()["defect"] == "ticket"
    await resumed.until("hello")
    assert json.loads((await resumed.event())["data"])["title"] == "while it was away"
    # The server had not noticed the end of the first stream, and replaced it.
    farewell = json.loads((await first.until("bye"))["data"])
    assert farewell["code"] == 4202


async def test_one_of_two_concurrent_uses_of_a_ticket_wins(
    site: Site, mint: Mint
) -> None:
    for _ in range(5):
        ticket = await site.ticket(mint("alice"))

        streams = await asyncio.gather(site.sse(ticket=ticket), site.sse(ticket=ticket))

        assert sorted(stream.status for stream in streams) == [200, 401]
        (winner,) = [stream for stream in streams if stream.status == 200]
        await winner.until("hello")
        await winner.response.aclose()


async def test_a_websocket_with_a_ticket_may_mark_but_not_publish(
    site: Site, mint: Mint, backend_key: str
) -> None:
    await publish(site, backend_key, "to be read")
    ticket = await site.ticket(mint("alice"))

    websocket = await site.websocket(query=f"ticket={ticket}")
    await hello(websocket)
    await websocket.send('{"type":"read","all":true,"ref":"1"}')

    assert (await message(websocket, "reply"))["unread"] == 0
    with pytest.raises(InvalidStatus) as refused:
        await site.websocket(query=f"ticket={ticket}")
    assert refused.value.response.status_code == 401


async def test_the_query_accepts_only_tickets_as_credentials(
    site: Site, mint: Mint, backend_key: str
) -> None:
    for other in (backend_key, mint("alice"), "tk_", "tk_" + "A" * 43, "x" * 2_000):
        assert (await site.sse(ticket=other)).status == 401
    for name in ("token", "access_token", "key", "Authorization", "anything"):
        stream = await site.sse(None, **{name: mint("alice")})
        await stream.response.aread()
        assert stream.status == 401
        assert "a ticket from POST /v1/tickets" in stream.response.json()["detail"]
        with pytest.raises(InvalidStatus) as refused:
            await site.websocket(query=f"{name}={mint('alice')}")
        assert refused.value.response.status_code == 401
    stream = await site.sse(ticket=mint("alice"))
    await stream.response.aread()
    assert "get a ticket" in stream.response.json()["detail"]
    page = await site.http.get(f"/v1/players/me/notifications?token={mint('alice')}")
    assert "in the header Authorization" in page.json()["detail"]


async def test_a_ticket_beside_another_credential_is_ambiguous(
    site: Site, mint: Mint
) -> None:
    ticket = await site.ticket(mint("alice"))

    for headers in (
        site.bearer(mint("alice")),
        site.bearer(mint("bob")),
        {"x-auth-token": mint("alice")},
    ):
        stream = await site.sse(ticket=ticket, headers=headers)
        await stream.response.aread()
        assert (stream.status, stream.response.json()["defect"]) == (401, "ambiguous")
    # A browser adds the cookies of the site by itself.
    cookie = {"Cookie": "Authorization=of another application"}
    assert (await site.sse(ticket=ticket, headers=cookie)).status == 200


async def test_a_cookie_of_another_application_leaves_room_for_the_first_message(
    site: Site, mint: Mint
) -> None:
    socket = await site.websocket(headers={"Cookie": "Authorization=something else"})

    await socket.send(json.dumps({"type": "auth", "token": mint("alice")}))

    assert json.loads(await socket.recv())["type"] == "hello"


async def test_a_refused_stream_leaves_the_ticket_valid(
    open_site: Open, mint: Mint, until: Until
) -> None:
    site = await open_site(listeners_per_player_max=1)
    other = await site.sse(headers=site.bearer(mint("alice")))
    await other.until("hello")
    ticket = await site.ticket(mint("alice"))

    assert (await site.sse(ticket=ticket)).status == 409
    await other.response.aclose()
    await until(lambda: not site.server.readers("alice"))

    async def opened() -> bool:
        return (await site.sse(ticket=ticket)).status == 200

    await until(opened)


async def test_a_ticket_is_in_no_log(
    site: Site, mint: Mint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ticket, token = await site.ticket(mint("alice")), mint("bob")

    stream = await site.sse(ticket=ticket)
    await stream.until("hello")
    await (await site.websocket(headers=site.bearer(token))).close()
    with pytest.raises(InvalidStatus):
        await site.websocket(query=f"ticket={ticket}")
    refused = await site.sse(ticket=ticket, refusals="stream")
    await refused.to_end()

    own = [
        record.getMessage()
        for record in caplog.records
        # Only the client's libraries log URLs.
        if not record.name.startswith(("httpx", "httpcore", "websockets"))
    ]
    assert not any(ticket in line or token in line for line in own)


# Revoked credentials.


RALLYHERE_POLL = "/notification/v1/player/me/stream/notification/lp?deadline=30"
NATIVE_POLL = "/v1/players/me/notifications?order=oldest&wait_s=30"


@asynccontextmanager
async def held_poll(
    site: Site, token: str, path: str
) -> AsyncIterator[asyncio.Task[Any]]:
    polling = asyncio.create_task(site.http.get(path, headers=site.bearer(token)))
    yield polling
    polling.cancel()
    await asyncio.wait([polling])


async def test_streams_and_polls_end_when_a_players_tokens_are_revoked(
    site: Site, mint: Mint, until: Until
) -> None:
    alice, bob = mint("alice"), mint("bob")
    sse = await site.sse(headers=site.bearer(alice))
    by_ticket = await site.sse(ticket=await site.ticket(alice))
    websocket = await site.websocket(headers=site.bearer(alice))
    other = await site.sse(headers=site.bearer(bob))
    for stream in (sse, by_ticket, other):
        await stream.until("hello")
    await hello(websocket)
    async with (
        held_poll(site, alice, RALLYHERE_POLL) as polling,
        held_poll(site, alice, NATIVE_POLL) as native,
    ):
        await until(lambda: site.server.readers("alice") == 5)
        await site.revocation_check()
        assert site.server.readers("alice") == 5

        await site.apps.revoke_tokens(mint.name(), Player("alice"))
        await site.revocation_check()

        for stream in (sse, by_ticket):
            farewell = json.loads((await stream.until("bye"))["data"])
            assert (farewell["code"], farewell["reconnect"]) == (4200, False)
        assert await close_code(websocket) == 4200
        async with asyncio.timeout(GUARD_S):
            assert (await polling).status_code == 403
            assert (await native).status_code == 401
    await until(lambda: not site.server.readers("alice"))
    assert site.server.readers("bob") == 1


async def test_a_poll_with_a_backend_key_ends_when_the_key_is_revoked(
    site: Site, backend_key: str, mint: Mint, until: Until
) -> None:
    player = "018f5a4e-0000-7000-8000-00000000002a"
    path = f"/notification/v1/player/{player}/stream/notification/lp?deadline=30"
    polling = asyncio.create_task(site.http.get(path, headers=site.bearer(backend_key)))
    await until(lambda: site.server.readers(player) == 1)
    (record,) = await site.apps.list_keys(mint.name())

    await site.apps.revoke_key(record.id)
    await site.revocation_check()

    async with asyncio.timeout(GUARD_S):
        assert (await polling).status_code == 403


async def test_the_revocation_check_runs_periodically(
    start: Start, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start()
    swept = asyncio.Event()

    async def once() -> None:
        swept.set()

    revocation_check = server.app._components.revocation_check
    monkeypatch.setattr(revocation_check, "check_all", once)
    monkeypatch.setattr(revocation_check, "_interval_s", 0.001)
    sweeping = asyncio.create_task(revocation_check.run())

    async with asyncio.timeout(GUARD_S):
        await swept.wait()
    sweeping.cancel()
    await asyncio.wait([sweeping])


# A fresh token for an open stream.


async def test_a_renewed_stream_outlives_the_revocation_of_its_first_token(
    site: Site, mint: Mint
) -> None:
    websocket = await site.websocket(headers=site.bearer(mint("alice")))
    await hello(websocket)
    await site.apps.revoke_tokens(mint.name())
    record = await site.apps.get(mint.name())
    assert record is not None
    mint.records["demo"] = record

    await websocket.send(json.dumps({"type": "auth", "token": mint("alice")}))
    await websocket.send('{"type":"ping"}')
    await message(websocket, "pong")
    await websocket.send('{"type":"read","all":true,"ref":"1"}')
    await message(websocket, "reply")
    await site.revocation_check()

    await websocket.send('{"type":"ping"}')
    await message(websocket, "pong")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("garbage", 4200),
        ("empty", 4200),
        ("expired", 4200),
        ("ticket", 4200),
        ("unknown key", 4200),
        ("key", 4201),
        ("other player", 4201),
        ("other app", 4201),
        ("may not listen", 4201),
    ],
)
async def test_an_invalid_fresh_token_ends_the_stream(
    site: Site, mint: Mint, backend_key: str, kind: str, code: int
) -> None:
    tokens: dict[str, str] = {
        "garbage": "abc",
        "empty": "",
        "expired": mint("alice", ttl_s=1, at_s=int(time.time()) - 100),
        "ticket": await site.ticket(mint("alice")),
        "unknown key": "sk_abc",
        "key": backend_key,
        "other player": mint("bob"),
        "other app": mint("alice", app="other"),
        "may not listen": mint("alice", "notification:player:self:write"),
    }
    websocket = await site.websocket(headers=site.bearer(mint("alice")))
    await hello(websocket)

    await websocket.send(json.dumps({"type": "auth", "token": tokens[kind]}))

    assert await close_code(websocket) == code


async def test_marks_use_the_rights_of_the_fresh_token(site: Site, mint: Mint) -> None:
    reader = "notification:player:self:read"
    websocket = await site.websocket(headers=site.bearer(mint("alice", reader)))
    await hello(websocket)

    await websocket.send(json.dumps({"type": "auth", "token": mint("alice")}))
    await websocket.send('{"type":"read","all":true,"ref":"1"}')

    assert (await message(websocket, "reply"))["ref"] == "1"


async def test_a_stream_of_a_foreign_issuer_is_opened_renewed_and_ended(
    site: Site,
) -> None:
    key = ECKey.generate_key("P-256")
    keys = json.dumps({"keys": [{**key.as_dict(private=False), "kid": "k"}]})
    given = {"issuer": "https://id", "algorithm": "ES256", "audience": "urn:game"}
    await site.apps.create(App("game"), public_keys=keys, **given)

    def token(ago_s: int) -> str:
        now_s = int(time.time()) - ago_s
        claims = {
            **{"iss": "https://id", "aud": "urn:game", "sub": "alice", "ver": 1},
            **{"iat": now_s, "exp": now_s + 3_600},
            "permissions": ["notification:player:self:read"],
        }
        header = {"alg": "ES256", "kid": "k"}
        made: str = jwt.encode(header, claims, key, algorithms=["ES256"])
        return made

    websocket = await site.websocket(headers=site.bearer(token(60)))
    await hello(websocket)
    await websocket.send(json.dumps({"type": "auth", "token": token(0)}))
    await websocket.send('{"type":"ping"}')
    await message(websocket, "pong")
    await site.revocation_check()
    await site.apps.change_tokens(App("game"), {"issuer": "https://else"})
    await site.revocation_check()

    assert await close_code(websocket) == 4200


# Errors within the stream.


async def refused_sse(site: Site, **asked: Any) -> tuple[int, int, int]:
    """Return the code, the announced delay, and EventSource's retry time, in ms."""
    stream = await site.sse(refusals="stream", **asked)
    assert stream.status == 200
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    events = await stream.to_end()
    (bye,) = [event for event in events if event.get("event") == "bye"]
    retries = [int(event["retry"]) for event in events if "retry" in event]
    told = json.loads(bye["data"])
    assert told["reconnect"] is (told["code"] < 4_200)
    return told["code"], told["delay_ms"], retries[-1]


async def refused_websocket(site: Site, **asked: Any) -> tuple[int, int]:
    query = "&".join(["refusals=stream", asked.pop("query", "")])
    websocket = await site.websocket(query=query, **asked)
    told = await message(websocket, "bye")
    assert await close_code(websocket) == told["code"]
    return told["code"], told["delay_ms"]


@pytest.mark.parametrize(
    ("kind", "query", "code"),
    [
        ("bad", {}, 4_200),
        ("writer", {}, 4_201),
        ("key", {}, 4_201),
        ("good", {"cursor": "!"}, 4_203),
        ("good", {"instance": "a b"}, 4_203),
    ],
)
async def test_a_final_error_is_sent_in_the_stream(
    site: Site, mint: Mint, backend_key: str, kind: str, query: Any, code: int
) -> None:
    tokens = {
        "bad": "abc",
        "writer": mint("alice", "notification:player:self:write"),
        "key": backend_key,
        "good": mint("alice"),
    }
    headers = site.bearer(tokens[kind])

    told, delay_ms, retry_ms = await refused_sse(site, headers=headers, **query)
    text = "&".join(f"{name}={value}" for name, value in query.items())
    over_websocket = await refused_websocket(
        site, headers=headers, query=text.replace(" ", "%20")
    )

    assert (told, delay_ms) == over_websocket == (code, 0)
    assert 300_000 <= retry_ms <= 600_000


async def test_a_missing_credential_and_a_used_ticket_are_sent_in_the_stream(
    site: Site, mint: Mint
) -> None:
    ticket = await site.ticket(mint("alice"))
    stream = await site.sse(ticket=ticket)
    await stream.until("hello")

    assert (await refused_sse(site))[0] == 4_200
    assert (await refused_sse(site, ticket=ticket))[0] == 4_200
    assert (await refused_websocket(site, query=f"ticket={ticket}"))[0] == 4_200


async def test_a_reached_limit_is_sent_in_the_stream_with_a_delay(
    open_site: Open, mint: Mint
) -> None:
    site = await open_site(listeners_per_player_max=1)
    headers = site.bearer(mint("alice"))
    stream = await site.sse(headers=headers)
    await stream.until("hello")

    code, delay_ms, retry_ms = await refused_sse(site, headers=headers)

    assert code == 4_101
    assert 5_000 <= delay_ms <= 11_000
    assert retry_ms == delay_ms
    code, delay_ms = await refused_websocket(site, headers=headers)
    assert code == 4_101
    assert 5_000 <= delay_ms <= 11_000


async def test_a_full_and_a_draining_node_are_sent_in_the_stream(
    open_site: Open, mint: Mint
) -> None:
    site = await open_site(connections_max=1)
    headers = site.bearer(mint("alice"))
    stream = await site.sse(headers=headers)
    await stream.until("hello")

    assert (await refused_sse(site, headers=headers))[0] == 4_102
    assert (await refused_websocket(site, headers=headers))[0] == 4_102
    site.server.app.admission.draining = True
    assert (await refused_sse(site, headers=headers))[0] == 4_100
    assert (await refused_websocket(site, headers=headers))[0] == 4_100
    site.server.app.admission.draining = False


async def test_an_unavailable_issuer_allows_a_retry(site: Site) -> None:
    given = {"algorithm": "ES256", "key_set": "/nowhere/jwks.json"}
    await site.apps.create(App("away"), issuer="https://away", **given)
    key = ECKey.generate_key("P-256")
    claims = {"iss": "https://away", "aud": "away"}
    header = {"alg": "ES256"}
    headers = site.bearer(jwt.encode(header, claims, key, algorithms=["ES256"]))

    code, delay_ms, _ = await refused_sse(site, headers=headers)

    assert code == 4_105
    assert delay_ms >= 5_000
    plain = await site.sse(headers=headers)
    await plain.response.aread()
    assert plain.status == 503
    assert plain.response.json()["type"] == "about:issuer-away"


async def test_a_page_of_another_origin_is_refused_before_a_stream_opens(
    site: Site, mint: Mint
) -> None:
    foreign = {
        "Cookie": f"Authorization=bearer {mint('alice')}",
        "Origin": "https://evil.example",
    }

    assert (await site.sse(refusals="stream", headers=foreign)).status == 403
    with pytest.raises(InvalidStatus) as refused:
        await site.websocket(query="refusals=stream", headers=foreign)
    assert refused.value.response.status_code == 403


async def test_a_page_of_any_origin_may_use_a_credential_that_it_has(
    site: Site, mint: Mint
) -> None:
    origin = {"Origin": "https://evil.example"}
    header = site.bearer(mint("alice")) | origin

    ticket = await site.ticket(mint("alice"))
    by_header = await site.sse(headers=header)
    by_ticket = await site.sse(ticket=ticket, headers=origin)

    assert (by_header.status, by_ticket.status) == (200, 200)
    for sent in (header, origin):
        socket = await site.websocket(headers=sent)
        if sent is origin:
            first = {"type": "auth", "token": mint("alice")}
            await socket.send(json.dumps(first))
        assert json.loads(await socket.recv())["type"] == "hello"


async def test_refusals_accepts_no_other_value(site: Site, mint: Mint) -> None:
    headers = site.bearer(mint("alice"))

    for odd in ("", "status", "STREAM"):
        assert (await site.sse(refusals=odd, headers=headers)).status == 400
    assert (await site.sse(refusals="stream", headers=headers)).status == 200


async def test_a_refusal_after_the_first_message_is_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    socket = await site.websocket(headers={"X-Request-Id": "mine"})
    await socket.send(json.dumps({"type": "auth", "token": "no token"}))
    await socket.recv()

    (line,) = [
        vars(record)["fields"]
        for record in caplog.records
        if record.getMessage().startswith("stream refused")
    ]
    assert (line["code"], line["refusal"], line["reason"]) == (
        4200,
        "unauthenticated",
        "not_jwt",
    )
    assert (line["client"], line["request_id"]) == ("127.0.0.1", "mine")
