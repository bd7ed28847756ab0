"""
Requests answered beneath ASGI, compared with the same requests through ASGI.

Two servers on one store, each with an app of its own, get the same bytes. Everything
that a client, the log and the metrics see of a request must be the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamer.app import App
from streamer.config import Config
from streamer.service.publishing.publisher import Publisher

from .conftest import AddKey, Mint, Server, Start
from .in_memory import WAYS, Connection, Way

ME = "/v1/players/me/notifications"
ALICE = "/v1/players/alice/notifications"
PUBLISH = "/v1/notifications"
PAGE = "https://eu.game.example"

# Only these differ by chance: ids with their times, epochs and tags, and what is made
# of them.
_CHANCE = [
    (re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), b"ID"),
    (re.compile(rb'"(cursor|next)":"[^"]*"'), rb'"\1":"CURSOR"'),
    (re.compile(rb"\d{4}-\d\d-\d\dT[\d:.]+Z"), b"TIME"),
    (re.compile(rb"\r\netag: [^\r]*"), b"\r\netag: ETAG"),
    (re.compile(rb'"request_id":"[0-9a-f]{16}"'), b'"request_id":"NEW"'),
    (re.compile(rb"\r\nx-request-id: [0-9a-f]{16}(?=\r)"), b"\r\nx-request-id: NEW"),
]

Request = tuple[bytes, list[int]]
"""A request with names of credentials in it, and where it is cut into packets."""


class Side:
    """One of the two ways, with its own server and app."""

    def __init__(self, way: Way, server: Server, names: dict[bytes, bytes]) -> None:
        self.way = way
        self.app: App = server.app
        self.counters = server.app._components.counters
        self.names = {**names, b"@ETAG@": b'"none"', b"@ID@": b"none"}
        self.lines: list[dict[str, Any]] = []
        self.direct_count = 0

    async def exchange(self, requests: list[Request]) -> list[bytes]:
        """Send requests on one connection until it is closed; return the responses."""
        connection = Connection(self.app, Config(), self.way)
        responses = []
        for request, cuts in requests:
            if connection.transport.is_closing():
                break
            for name, value in self.names.items():
                request = request.replace(name, value)
            head, separator, body = request.partition(b"\r\n\r\n")
            head = head.replace(b"@LENGTH@", b"%d" % len(body))
            request = head + separator + body
            ends = [*sorted(min(cut, len(request)) for cut in cuts), len(request)]
            starts = [0, *ends[:-1]]
            packets = [request[a:b] for a, b in zip(starts, ends, strict=True)]
            response = await connection.send(*(it for it in packets if it))
            if tag := re.search(rb"\r\netag: ([^\r]*)", response):
                self.names[b"@ETAG@"] = tag[1]
            if found := re.search(rb'"id":"([0-9a-f-]{36})"', response):
                self.names[b"@ID@"] = found[1]
            responses.append(response)
        self.direct_count += connection.direct_count
        await connection.disconnect()
        return responses

    def counts(self) -> dict[str, Any]:
        failures = self.app._components.failures
        return {
            "requests": dict(self.counters.requests),
            "refusals": dict(self.counters.refusals),
            "publishes": dict(self.counters.publishes),
            "entries": self.counters.entries_stored,
            "failures": dict(failures.reasons),
        }


class Both:
    """Both ways, side by side."""

    def __init__(self, sides: list[Side]) -> None:
        self.sides = sides

    async def compare(self, requests: list[Request]) -> list[bytes]:
        """Send requests in both ways; return the direct responses, if all is equal."""
        seen = []
        for side in self.sides:
            side.lines.clear()
            with recorded(side.lines):
                responses = await side.exchange(requests)
            shown = [without_chance(it, side.names) for it in responses]
            lines = [without_chance_of_line(it) for it in side.lines]
            seen.append((shown, lines, side.counts()))
        assert seen[0] == seen[1]
        return responses

    @property
    def direct_count(self) -> int:
        return self.sides[1].direct_count


@contextmanager
def recorded(lines: list[dict[str, Any]]) -> Iterator[None]:
    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.endswith(".loop_lag"):
                return  # A busy machine, in either way.
            line = {"message": record.getMessage(), "level": record.levelname}
            lines.append(line | getattr(record, "fields", {}))

    logger, keeper = logging.getLogger("streamer"), Keeper()
    level = logger.level
    logger.addHandler(keeper)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(level)


def without_chance(response: bytes, names: dict[bytes, bytes]) -> bytes:
    text = response.replace(names[b"@APP@"], b"APP")
    for pattern, shown in _CHANCE:
        text = pattern.sub(shown, text)
    return text


def without_chance_of_line(line: dict[str, Any]) -> dict[str, Any]:
    app = re.sub(r"-\d+$", "", line.get("app", "")).replace("other", "demo")
    return line | {"duration_ms": 0, "app": app}


@pytest_asyncio.fixture(loop_scope="module")
async def make_both(start: Start, mint: Mint, add_key: AddKey) -> AsyncIterator[Any]:
    async def make(**kind: Any) -> Both:
        sides = []
        for way, app in zip(WAYS, ("demo", "other"), strict=True):
            names = {
                b"@KEY@": (await add_key(app=app)).encode(),
                b"@READER@": (await add_key("notifications:read", app=app)).encode(),
                b"@TOKEN@": mint(
                    "alice", "notification:player:self:*", app=app
                ).encode(),
                b"@POWERLESS@": mint("alice", app=app).encode(),
                b"@LATE@": mint("alice", app=app, at_s=1, ttl_s=60).encode(),
                b"@APP@": mint.name(app).encode(),
            }
            server = await start(log_players="name", **kind)
            sides.append(Side(way, server, names))
        return Both(sides)

    yield make


def request(
    method: str,
    target: str,
    *fields: str,
    body: Any = None,
    credential: str = "Authorization: Bearer @KEY@",
    version: str = "1.1",
) -> bytes:
    """Return a request; `body` is JSON, or bytes."""
    lines = [f"{method} {target} HTTP/{version}", "Host: here", credential, *fields]
    if body is None:
        sent = b""
    else:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not any(it.lower().startswith("transfer-encoding") for it in fields):
            lines.append("Content-Length: @LENGTH@")
    text = "\r\n".join([it for it in lines if it])
    return text.encode("latin-1") + b"\r\n\r\n" + sent


MESSAGE = {"to": {"players": ["alice"]}, "type": "t", "title": "é", "data": {"a": [1]}}
PLAYER = "Authorization: Bearer @TOKEN@"

PLAIN = [
    request("POST", PUBLISH, body=MESSAGE),
    request("GET", ME, credential=PLAYER),
    request("GET", f"{ALICE}?limit=1"),
    request("GET", ME, "If-None-Match: @ETAG@", credential=PLAYER),
    request("GET", f"{ME}?unread=true&limit=1", credential=PLAYER),
    request("POST", f"{ME}/read", body={"ids": ["@ID@"]}, credential=PLAYER),
    request("POST", f"{ALICE}/unread", body={"ids": ["@ID@"]}),
    request("POST", f"{ME}/read", body={"all": True}, credential=PLAYER),
    request("POST", f"{ME}/ack", body={"cursor": "@ID@"}, credential=PLAYER),
]

UNUSUAL = [
    request("HEAD", ME, credential=PLAYER),
    request("GET", f"{ME}?order=oldest", credential=PLAYER),
    request("GET", f"{ME}?wait_s=0", credential=PLAYER),
    request("GET", f"{ME}?limit=%31", credential=PLAYER),
    request("GET", f"{ME}?limt=1", credential=PLAYER),
    request("GET", "/v1/players/%61lice/notifications"),
    request("GET", "/v1/players/a/b/notifications"),
    request("GET", f"{ME}/", credential=PLAYER),
    request("POST", f"{PUBLISH}?a=b", body=MESSAGE),
    request(
        "POST",
        PUBLISH,
        "Transfer-Encoding: chunked",
        body=b"2\r\n{}\r\n0\r\n\r\n",
    ),
    request("POST", PUBLISH, "Expect: 100-continue", body=MESSAGE),
    request("GET", ME, credential=PLAYER, version="1.0"),
]


async def test_plain_requests_are_answered_beneath_asgi(make_both: Any) -> None:
    both = await make_both()

    await both.compare([(it, []) for it in PLAIN])

    assert both.direct_count == len(PLAIN)


@pytest.mark.parametrize("index", range(len(UNUSUAL)))
async def test_unusual_requests_go_through_asgi(make_both: Any, index: int) -> None:
    both = await make_both()

    await both.compare([(UNUSUAL[index], [])])

    assert both.direct_count == 0


@pytest.mark.parametrize("kind", [{}, {"allowed_origins": (PAGE,)}])
async def test_a_request_that_fails_unexpectedly_is_a_500_in_both_ways(
    make_both: Any, kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = await make_both(**kind)

    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Publisher, "send", fail)
    (response, *rest) = await both.compare([(it, []) for it in PLAIN])

    assert response.startswith(b"HTTP/1.1 500 ")
    assert not rest  # The connection is closed.


@pytest.mark.parametrize("limit", ["requests_in_flight_max", "requests_per_player_max"])
async def test_the_limits_of_requests_in_flight_hold_in_both_ways(
    make_both: Any, limit: str
) -> None:
    both = await make_both(**{limit: 0})

    responses = await both.compare([(it, []) for it in PLAIN[:3]])

    assert any(b'"limit":' in it for it in responses)


@pytest.mark.parametrize("cut", [0, 5])
async def test_a_client_that_leaves_during_its_body_is_recorded_in_both_ways_alike(
    make_both: Any, cut: int
) -> None:
    both = await make_both()
    seen = []
    for side in both.sides:
        publish = PLAIN[0].replace(b"@KEY@", side.names[b"@KEY@"])
        publish = publish.replace(b"@LENGTH@", b"100")
        head = publish.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        connection = Connection(side.app, Config(), side.way)
        with recorded(side.lines):
            connection.protocol.data_received(head + b"{" * cut)
            await asyncio.sleep(0)
            await connection.disconnect()
        seen.append([without_chance_of_line(it) for it in side.lines])

    assert seen[0] == seen[1]
    (line,) = seen[1]
    assert (line["status"], line["refusal"]) == (400, "malformed")


# Requests of all kinds, most of them slightly wrong.

METHODS = st.sampled_from(["GET", "GET", "GET", "HEAD", "PUT", "PATCH", "DELETE"])
TARGETS = [
    *(PUBLISH, ME, ALICE, f"{ME}/read", f"{ALICE}/unread", f"{ME}/ack"),
    *(f"{PUBLISH}/", f"{ME}/", "/v1//notifications", "/v1/players//notifications"),
    *("/v1/players/a%2Fb/notifications", "/v1/players/a/b/notifications/read"),
    *("/v1/players/%ff/notifications", "/v1/players/%C3%A9/notifications"),
    *("/v1/players/@me/notifications", "/v1/players/read/notifications/read"),
    *(f"{ME}/read/read", f"{ME}/@ID@", "http://here/v1/notifications", "*"),
    *("/V1/notifications", "/v1/notifications;a", f"{ME}#x"),
    "/v1/players/notifications/notifications",
    f"/v1/players/{'n' * 300}/notifications",
    "/v1/players/01563E3AB5D3D6764C61EFB99302BD5B/notifications",
]
QUERIES = [
    *("", "", "", "?", "?limit=1", "?limit=100", "?limit=0", "?limit=101", "?limit=x"),
    *(
        "?limit=",
        "?limit=1&limit=2",
        "?limit=1&",
        "?limt=1",
        "?LIMIT=1",
        "?limit=1;a=b",
    ),
    *("?limit=%31", "?limit=+1", "?a=b", "?before=@ID@", "?after=nonsense", "?%ff"),
    *(
        "?unread=true",
        "?unread=true&limit=1",
        "?unread=false",
        "?unread",
        "?order=oldest",
        "?type=t",
        "?wait_s=0",
        "?token=eyJ.a.b",
        "??",
    ),
    "?limit=1#fragment",
]
CREDENTIALS = [
    *(["Authorization: Bearer @KEY@", PLAYER] * 4),
    *("", "Authorization: Bearer @READER@", "Authorization: Bearer @POWERLESS@"),
    *("Authorization: Bearer @LATE@", "Authorization: Bearer sk_unknown_key"),
    *("Authorization: Basic QTpC", "Authorization: bearer   @KEY@", "Authorization:"),
    *("Authorization: Bearer a\r\nAuthorization: Bearer b", "X-Auth-Token: @TOKEN@"),
    *("Cookie: Authorization=bearer @TOKEN@", "Cookie: a=b; Authorization=@TOKEN@"),
    "Cookie: Authorization=@TOKEN@\r\nOrigin: http://here",
    "Cookie: Authorization=@TOKEN@\r\nOrigin: https://evil.example",
    "Authorization: Bearer @TOKEN@\r\nX-Auth-Token: @KEY@",
    "aUTHORIZATION: Bearer @TOKEN@",
]
FIELDS = [
    *("Content-Type: application/json", "Content-Type: application/json; charset=x"),
    *(
        "Content-Type: text/plain",
        "Content-Encoding: gzip",
        "Content-Encoding: identity",
    ),
    *("Idempotency-Key: one", "Idempotency-Key: two", f"Idempotency-Key: {'k' * 256}"),
    *("Idempotency-Key: \xe9", "Idempotency-Key:", "If-None-Match: @ETAG@"),
    *("If-None-Match: W/@ETAG@", 'If-None-Match: "a", @ETAG@', "If-None-Match: *"),
    *("If-None-Match: \xff", "X-Request-Id: mine-1", "X-Request-Id: not.mine"),
    *("X-Request-Id: mine-2", "Accept: text/html", "Accept-Encoding: gzip"),
    *(f"Origin: {PAGE}", "Origin: null", "Origin: https://evil.example"),
    *("Connection: close", "Connection: keep-alive", "Upgrade: h2c"),
    *("Connection: upgrade", "X-Forwarded-For: 9.9.9.9, 10.0.0.1", "Expect: 200-ok"),
    *("X-Forwarded-Host: game.example", "X-Forwarded-Proto: https", "Forwarded: for=a"),
    *("Trailer: a", "TE: trailers", "Transfer-Encoding: identity", "Host: here"),
    "X-Forwarded-For: nonsense",
]
BODIES: list[Any] = [
    *([MESSAGE] * 3),
    *(None, b"", b"{}", b"[]", b"null", b"{", b"\xff", b"\xef\xbb\xbf{}", b"[" * 5_000),
    *({"to": "alice", "title": "t"}, {"to": {"players": []}}, {"to": {"topic": "a b"}}),
    {"to": {"players": ["alice", "bob", "alice"]}, "title": "t"},
    {"to": {"players": ["alice"]}},
    {"to": {"players": ["alice"]}, "titel": "t", "priority": "urgent", "ttl_s": 0},
    {"to": {"players": ["alice"]}, "title": "t", "persist": False},
    {"to": {"players": ["alice"]}, "title": "t", "ttl_s": 86_400},
    {"to": {"players": ["alice"]}, "title": "t", "expires_at": "2001-01-01T00:00:00Z"},
    # To somebody whose inbox is not read: it arrives at a random time.
    {"to": {"players": ["zoe"]}, "title": "t", "spread_s": 60},
    {"to": {"players": ["alice"]}, "title": "t", "collapse_key": "c"},
    {"to": {"players": ["alice"]}, "title": "t", "device": "latest"},
    {"to": {"players": ["alice"]}, "data": 2**64},
    {"to": {"topic": "news"}, "title": "t"},
    {"to": {"everyone": True}, "title": "t"},
    [MESSAGE, MESSAGE],
    [MESSAGE, {}],
    *(
        {"ids": ["@ID@"]},
        {"ids": ["nonsense"]},
        {"ids": "@ID@"},
        {"ids": ["a"] * 1_001},
    ),
    *(
        {"all": True},
        {"all": False},
        {"up_to": "@ID@"},
        {"up_to": "x"},
        {"cursor": "@ID@"},
    ),
    {"cursor": 1},
    b'{"to":{"players":["alice"]},"title":"' + b"x" * 70_000 + b'"}',
]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3))
    body = draw(st.sampled_from(BODIES))
    # Without a body a request is usually a GET, with one usually a POST.
    method = draw(METHODS if body is None else st.sampled_from(["POST"] * 6 + ["GET"]))
    if body is not None and "Content-Type" not in " ".join(fields):
        fields.append("Content-Type: application/json")
    target = draw(st.sampled_from(TARGETS[:6]) | st.sampled_from(TARGETS))
    made = request(
        method,
        target + draw(st.sampled_from(QUERIES)),
        *fields,
        body=body,
        credential=draw(st.sampled_from(CREDENTIALS)),
        version=draw(st.sampled_from(["1.1"] * 9 + ["1.0"])),
    )
    if method == "HEAD":
        made = made.replace(b"HTTP/1.0", b"HTTP/1.1")
    return made, draw(st.lists(st.integers(0, 400), max_size=2))


KINDS = [
    {},
    {
        "allowed_origins": (PAGE,),
        "base_path": "/push",
        "trusted_proxies": ("127.0.0.1", "10.0.0.0/8"),
    },
]


LARGE = pytest.mark.filterwarnings("ignore:Generating overly large repr")
"""Of requests with thousands of ids."""


@LARGE
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(first=st.lists(requests(), min_size=1, max_size=4))
@example(first=[(it, []) for it in PLAIN])
@example(first=[(it, [len(it) - 5]) for it in PLAIN])
async def test_any_request_is_answered_in_both_ways_alike(
    make_both: Any, kind: dict[str, Any], first: list[Request]
) -> None:
    await compare_both(make_both, kind, first)


@LARGE
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=1_500, suppress_health_check=list(HealthCheck))
@given(first=st.lists(requests(), min_size=1, max_size=4))
async def test_very_many_requests_are_answered_in_both_ways_alike(
    make_both: Any, kind: dict[str, Any], first: list[Request]
) -> None:
    await compare_both(make_both, kind, first)


async def compare_both(
    make_both: Any, kind: dict[str, Any], first: list[Request]
) -> None:
    """Compare requests in both ways, also below the prefix if there is one."""
    both = await _shared(make_both, kind)
    prefix = kind.get("base_path", "").encode()

    await both.compare(first)
    if prefix:
        await both.compare(
            [(it.replace(b" /v1/", b" %b/v1/" % prefix, 1), cuts) for it, cuts in first]
        )


async def _shared(make_both: Any, kind: dict[str, Any]) -> Both:
    """Return the two servers of a test, the same for all of its examples."""
    if not hasattr(make_both, "made"):
        make_both.made = await make_both(**kind)
    return make_both.made  # type: ignore[no-any-return]
