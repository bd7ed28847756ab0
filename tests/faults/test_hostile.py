"""Hostile input: injection, exhaustion, and secrets in the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ..e2e.processes import GUARD_S, ServerProcess
from ..e2e.readers import (
    TRANSPORTS,
    Api,
    SseStream,
    StreamEnded,
    StreamRefused,
    request_head,
)

MakeServer = Callable[..., ServerProcess]
Report = Callable[[object], None]

CONTROLS = {
    "CR": "\r",
    "LF": "\n",
    "CRLF": "\r\n",
    "LS": "\u2028",
    "NEL": "\x85",
    "NUL": "\0",
    "ESC": "\x1b",
    "DEL": "\x7f",
}
SPOOF = "{0}{0}event: bye{0}data: spoofed{0}id: 1{0}{0}"

RAW_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")

POLL = "/notification/v1/player/me/stream/notification/lp"
CREATE = "/notification/v1/player/me/notification"


@pytest.fixture
async def noisy(make_server: MakeServer) -> AsyncIterator[ServerProcess]:
    """Yield a server that logs at level ``debug``."""
    server = await make_server(log_level="debug").start()
    yield server
    check_log(server)


def check_log(server: ServerProcess) -> int:
    """Check that every line of the log is one record; return how many there are."""
    lines = server.logged.split("\n")[:-1]
    for line in lines:
        assert not RAW_CONTROL.search(line), repr(line)
        record = json.loads(line)
        assert {"at", "level", "logger", "message"} <= record.keys()
        assert record["level"] != "error", record
        assert "eyJ" not in line
        assert "sk_" not in line
    return len(lines)


# F11: control characters.


@pytest.mark.parametrize("escaped", [True, False], ids=["escaped", "raw"])
@pytest.mark.row("F11")
async def test_a_text_stays_within_its_event(
    noisy: ServerProcess, report: Report, escaped: bool
) -> None:
    texts = [SPOOF.format(control) for control in CONTROLS.values()]
    texts += [f"\ufeff{control}" for control in CONTROLS.values()]
    player = "p"
    token = await noisy.token(player, permissions=["notification:player:*"])
    streams = [await opener.open(noisy.port, token) for opener in TRANSPORTS.values()]
    async with Api(noisy.port, token) as api:
        for text in texts:
            body = {
                "to": {"players": [player]},
                "type": text,
                "title": text,
                "body": text,
                "data": {text: [text]},
                "properties": [{"key": text, "value": text}],
                "resource": {"url": text, "etag": text},
            }
            # JSON may leave all of these except the ASCII ones unescaped.
            encoded = json.dumps(body, ensure_ascii=escaped).encode()
            answer = await api.http.post(
                "/v1/notifications",
                content=encoded,
                headers={"Content-Type": "application/json"},
            )
            assert answer.status_code == 200, answer.text
        fields = {"title": texts, "body": texts, "type": texts}
        for stream in streams:
            seen = await stream.notifications(len(texts))
            for field, values in fields.items():
                assert [message.data[field] for message in seen] == values
            assert [message.data["data"] for message in seen] == [
                {text: [text]} for text in texts
            ]
            if isinstance(stream, SseStream):
                assert stream.parser.unknown == []
            stream.cut()
    report(f"{len(texts)} of {len(texts)} events intact on each transport")


@pytest.mark.parametrize(
    "field",
    ["message", "rh_url", "etag", "custom_data"],
)
@pytest.mark.row("F11")
async def test_a_text_from_rallyhere_stays_within_its_event(
    server: ServerProcess, player: str, field: str
) -> None:
    token = await server.token(player)
    streams = [await opener.open(server.port, token) for opener in TRANSPORTS.values()]
    texts = [SPOOF.format(control) for control in CONTROLS.values()]
    async with Api(server.port, token) as api:
        for text in texts:
            one: dict[str, Any] = {"message": "m", field: text}
            if field == "custom_data":
                one[field] = {text: text}
            answer = await api.http.post(CREATE, json={"notifications": [one]})
            assert answer.status_code in (200, 422), answer.text
        (last,) = await api.published(player, title="last")
    for stream in streams:
        while (await stream.until("notification")).id != last:
            pass
        if isinstance(stream, SseStream):
            assert stream.parser.unknown == []
        stream.cut()


@pytest.mark.parametrize(
    "body",
    [
        rb'{"to":{"players":["p"]},"title":"\ud800"}',
        rb'{"to":{"players":["p"]},"data":{"\udfff":1}}',
        b'{"to":{"players":["p"]},"title":"\xed\xa0\x80"}',
        b'{"to":{"players":["p"]},"title":"\xff"}',
        b'{"to":{"players":["p"]},"title":"a\nb"}',
        b'{"to":{"players":["p"]},"title":"a\0b"}',
        b'{"to":{"players":["p\\u0000"]},"title":"t"}',
        b'{"to":{"players":["a\\nb"]},"title":"t"}',
        b'{"to":{"players":["p"]},"title":"t"}{}',
        b'{"to":{"players":["p"]},"data":NaN}',
        b'{"to":{"players":["p"]},"data":%b}' % (b"[" * 100_000 + b"]" * 100_000),
        b'{"to":{"players":["p"]},"data":%b}' % (b"9" * 5_000),
        b'{"to":{"players":["p"]},"data":1e999}',
    ],
    ids=lambda body: repr(body)[20:60],
)
@pytest.mark.row("F11")
async def test_an_invalid_body_is_refused_as_a_whole(
    server: ServerProcess, backend: Api, body: bytes
) -> None:
    before = await backend.inbox("p")
    answer = await backend.http.post(
        "/v1/notifications",
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code in (400, 413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert await backend.inbox("p") == before


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes; return everything received until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    try:
        async with asyncio.timeout(GUARD_S):
            with contextlib.suppress(OSError):
                writer.write(request)
                await writer.drain()
            with contextlib.suppress(OSError):
                while data := await reader.read(65_536):
                    received += data
    finally:
        writer.transport.abort()
    return bytes(received)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.row("F11")
async def test_headers_and_paths_are_escaped_in_responses_and_log(
    noisy: ServerProcess, report: Report
) -> None:
    token = (await noisy.token("p")).encode()
    async with Api(noisy.port, await noisy.key()) as api:
        await api.published("p", title="what a poll returns at once")
    requests = [request for text in CONTROLS.values() for request in tries(text, token)]
    statuses: dict[int, int] = {}
    for request in requests:
        answer = await raw(noisy.port, request)
        lines, _, _ = answer.partition(b"\r\n\r\n")
        assert b"spoofed" not in lines
        assert not RAW_CONTROL.search(lines.replace(b"\r\n", b"").decode()), lines
        status = status_of(answer)
        # A line break splits a header into a valid one and an unknown one.
        assert status in (200, 400, 401, 403, 404, 405, 422), (request, answer)
        statuses[status] = statuses.get(status, 0) + 1
    logged = check_log(noisy)
    report(f"{len(requests)} requests: {statuses}, {logged} log lines")


def tries(control: str, token: bytes) -> Iterator[bytes]:
    """Yield requests with a control character in the path, the query or a header."""
    escaped = quote(SPOOF.format(control), safe="").encode()
    credential = b"Authorization: Bearer " + token
    for target in (
        b"/%b",
        b"/v1/players/%b/notifications",
        b"/v1/players/%%ff%b/notifications",
        b"/v1/players/me/notifications/%b",
        b"/v1/players/me/notifications?before=%b",
        b"/v1/stream?cursor=%b",
        b"/v1/stream?instance=%b",
        POLL.encode() + b"?offset_reset_strategy=earliest&exclude_before=%b",
        b"/notification/v1/player/%b/notification",
    ):
        yield head(target % escaped, credential)
    for header in (
        credential + b"%b",
        credential[:50] + b"%bx",
        b"X-Auth-Token: a%bb",
        b"Cookie: Authorization=bearer a%bb",
        b"Last-Event-ID: a%bb",
        b"If-None-Match: a%bb",
        b"Origin: http://a%bb",
        b"X-Anything%b: b",
        b"Idempotency-Key: a%bb",
    ):
        for target in (b"/v1/stream", b"/v1/players/me/notifications"):
            yield head(target, header % control.encode())


def head(target: bytes, *headers: bytes) -> bytes:
    # A response to HEAD ends, even where GET would return a stream.
    lines = [b"HEAD %b HTTP/1.1" % target, b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"", b""])


@pytest.mark.row("F11")
async def test_log_and_output_contain_no_credential(
    noisy: ServerProcess,
) -> None:
    token = await noisy.token("p")
    short = await noisy.token("p", ttl_s=1)
    key = await noisy.key()
    greeting = await noisy.greeting()
    async with Api(noisy.port, key) as api:
        await api.published("p", title="secret payload")
    for opener in TRANSPORTS.values():
        for credential in (token, short, token[:-3] + "abc", key):
            with contextlib.suppress(StreamRefused, StreamEnded):
                stream = await opener.open(noisy.port, credential)
                await stream.until("hello")
                stream.cut()
            with contextlib.suppress(StreamRefused, StreamEnded):
                stream = await opener.open(noisy.port, None, access_token=credential)
                stream.cut()
    async with Api(noisy.port, token[:-3] + "abc") as api:
        for headers in ({"X-Auth-Token": token}, {"Cookie": f"Authorization={token}"}):
            await api.http.get("/v1/players/me/notifications", headers=headers)
    assert await noisy.stop() == 0
    assert noisy.printed == greeting
    for secret in (token, short, key):
        assert secret not in noisy.logged
        assert secret[-20:] not in noisy.logged
    assert "secret payload" not in noisy.logged


# F10: size.


@pytest.mark.skipif(
    sys.platform != "linux", reason="the memory of a process is read from /proc"
)
@pytest.mark.row("F10")
async def test_oversized_requests_are_refused_in_little_memory(
    server: ServerProcess, report: Report
) -> None:
    stream = {"Host": "x"}
    requests = {
        "30 MB of headers": (
            b"GET /readyz HTTP/1.1\r\nHost: x\r\n"
            + b"".join(b"X-%d: %b\r\n" % (i, b"a" * 30_000) for i in range(1_000))
            + b"\r\n",
            431,
        ),
        "one header of 30 MB": (
            b"GET /readyz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 30_000_000,
            431,
        ),
        "5,000 headers": (
            b"GET /readyz HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 5_000 + b"\r\n",
            431,
        ),
        "a URL of 200 kB": (
            b"GET /readyz?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 200_000),
            414,
        ),
        "Last-Event-ID of 1 MB": (
            request_head(
                "GET", "/v1/stream", {}, stream | {"Last-Event-ID": "a" * 1_000_000}
            ),
            431,
        ),
        "Last-Event-ID of 60 kB": (
            request_head(
                "GET",
                "/v1/stream",
                {},
                stream | {"Last-Event-ID": "a" * 60_000, "Connection": "close"},
            ),
            400,
        ),
        "a body of 30 MB": (
            b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: 30000000\r\n\r\n"
            % (await server.token("p")).encode(),
            413,
        ),
    }
    statuses = {}
    for name, (request, expected) in requests.items():
        # Memory that the allocator keeps is allocated here.
        await raw(server.port, request)
        before = peak_kib(server.pid)
        answers = await asyncio.gather(*(raw(server.port, request) for _ in range(4)))
        # A client that keeps sending may be reset before it reads the response.
        observed = {status_of(answer) for answer in answers if answer}
        assert observed == {expected}, name
        grown = peak_kib(server.pid) - before
        assert grown < 8_192, name
        statuses[name] = f"{expected}, {grown} KiB"
    assert await server.probe("/readyz") == 200
    report(statuses)


def peak_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", text)[1])  # type: ignore[index]
