from __future__ import annotations

import asyncio
import gc
import inspect
import os
import re
import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    HttpToolsProtocol,
    RequestResponseCycle,
)

from streamer.transports.server.handle import find_handle
from streamer.transports.server.http_protocol import HttpProtocol

from ..conftest import GUARD_S, RecordingApp, Serve

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
MIB = 1_048_576


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests with requests answered through ASGI, and beneath it."""
    if "is_direct" in metafunc.fixturenames:
        metafunc.parametrize("is_direct", [False, True], ids=["asgi", "direct"])


def get(path: str = "/", *fields: bytes) -> bytes:
    """Return a request whose connection is closed after the response."""
    lines = [b"GET %b HTTP/1.1" % path.encode(), b"Host: here", b"Connection: close"]
    return b"\r\n".join([*lines, *fields, b"", b""])


def field_bytes(request: bytes) -> int:
    """Return how many bytes of a request count against the limit on fields."""
    return len(request.partition(b"\r\n")[2]) - len(b"\r\n")


def assert_status(answer: bytes, status: int) -> None:
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1, answer[:2000]


# Sizes.


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 431)])
async def test_the_bytes_of_header_fields_have_a_limit(
    serve: Serve, app: RecordingApp, excess: int, status: int
) -> None:
    request = get("/", b"Pad: " + b"x" * 300)
    served = await serve(app, header_bytes_max=field_bytes(request) - excess)
    client = await served.connect()

    assert_status(await client.exchange(request), status)


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 431)])
async def test_the_number_of_header_fields_has_a_limit(
    serve: Serve, app: RecordingApp, excess: int, status: int
) -> None:
    served = await serve(app, header_count_max=20)
    client = await served.connect()

    assert_status(await client.exchange(get("/", *[b"A: b"] * (18 + excess))), status)


@pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 414)])
async def test_the_url_has_a_limit(
    serve: Serve, app: RecordingApp, excess: int, status: int
) -> None:
    served = await serve(app, url_bytes_max=500)
    client = await served.connect()

    assert_status(await client.exchange(get("/?" + "q" * (498 + excess))), status)


async def test_five_thousand_headers_are_refused(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()

    assert_status(await client.exchange(get("/", *[b"A: b"] * 5_000)), 431)


async def test_a_refused_client_is_disconnected_without_delay(
    serve: Serve, app: RecordingApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.transports.server.http_protocol.LINGER_S", 3_600)
    client = await (await serve(app)).connect()

    assert_status(await client.exchange(b"nonsense\r\n\r\n"), 400)


async def test_a_url_of_200_kb_is_refused(serve: Serve, app: RecordingApp) -> None:
    client = await (await serve(app)).connect()

    assert_status(await client.exchange(get("/" + "u" * 200_000)), 414)


async def test_an_incomplete_url_over_the_limit_is_refused(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, url_bytes_max=500)).connect()

    assert_status(await client.exchange(b"GET /" + b"u" * 600), 414)


def one_long_value() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: here\r\nA: "
    yield from [b"x" * 65_536] * 480


def one_long_name() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: here\r\n"
    yield from [b"x" * 65_536] * 480


def many_fields() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: here\r\n"
    yield from [b"A: bcde\r\n" * 7_000] * 480


def nothing_but_space() -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: here\r\nA:"
    yield from [b" " * 65_536] * 480


def nothing_but_line_ends() -> Iterator[bytes]:
    yield from [b"\r\n" * 32_768] * 480


def one_long_trailer() -> Iterator[bytes]:
    yield b"POST / HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: "
    yield from [b"x" * 65_536] * 480


def a_long_second_head() -> Iterator[bytes]:
    yield GET + b"GET / HTTP/1.1\r\nHost: here\r\nA: "
    yield from [b"x" * 65_536] * 480


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize(
    "flood",
    [
        one_long_value,
        one_long_name,
        many_fields,
        nothing_but_space,
        nothing_but_line_ends,
        one_long_trailer,
        a_long_second_head,
    ],
)
@pytest.mark.row("F10")
async def test_thirty_megabytes_of_head_are_refused_and_not_buffered(
    serve: Serve, app: RecordingApp, flood: Any
) -> None:
    client = await (await serve(app)).connect()
    peak = before = resident_bytes()

    async def send() -> None:
        nonlocal peak
        for data in flood():
            client.send(data)
            await client.writer.drain()
            peak = max(peak, resident_bytes())

    sending = asyncio.create_task(send())
    answer = await client.read_to_end()

    await asyncio.gather(sending, return_exceptions=True)
    assert b"HTTP/1.1 431 " in answer
    assert peak - before < 8 * MIB


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# Requests that two servers could interpret differently.

POST = b"POST / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 0x5\r\n\r\nhello",
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2;a\nab\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        get("/", b"A: b\rc"),
        get("/", b"A: b\x00c"),
        get("/", b"A: b", b" folded"),
        get("/", b"no colon"),
        b"GET / HTTP/1.1\nHost: here\n\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\xc3\xb6st\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: here\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: here\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET here/there HTTP/1.1\r\nHost: here\r\n\r\n",
        b"CONNECT there:443 HTTP/1.1\r\nHost: there\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"nonsense\r\n\r\n",
    ],
)
@pytest.mark.row("F8")
async def test_an_ambiguous_or_malformed_request_is_refused_and_the_connection_closed(
    serve: Serve,
    app: RecordingApp,
    request_bytes: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await (await serve(app)).connect()

    assert_status(await client.exchange(request_bytes), 400)
    assert caplog.records == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        b"GET http://here/ HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        POST + b"Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"\r\n" + get(),
    ],
)
@pytest.mark.row("F8")
async def test_an_unusual_but_unambiguous_request_is_accepted(
    serve: Serve, app: RecordingApp, request_bytes: bytes
) -> None:
    client = await (await serve(app)).connect()

    assert_status(await client.exchange(request_bytes), 200)


async def test_trailers_are_not_added_to_the_headers(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()

    answer = await client.exchange(
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        b"0\r\nAuthorization: Bearer other\r\n\r\n"
    )

    assert answer.endswith(b"5 bytes")
    assert b"authorization" not in dict(app.scopes[0]["headers"])


async def test_an_unsupported_upgrade_is_ignored(
    serve: Serve, app: RecordingApp, caplog: pytest.LogCaptureFixture
) -> None:
    client = await (await serve(app)).connect()

    answer = await client.exchange(
        b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    )

    assert_status(answer, 200)
    assert caplog.records == []


# Several requests on one connection.


async def test_a_connection_is_kept_for_the_next_request(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()

    for _ in range(3):
        client.send(GET)
        assert await client.status() == 200
        assert await client.read(7) == b"0 bytes"


async def test_pipelined_requests_are_answered_in_order(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    bodies = [b"x" * length for length in range(20)]

    answers = await client.exchange(
        b"".join(
            b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
            for body in bodies
        )
        + get()
    )

    sizes = [int(part.split()[0]) for part in answers.split(b"\r\n\r\n")[1:]]
    assert sizes == [*range(20), 0]


async def test_each_pipelined_head_is_counted_alone(
    serve: Serve, app: RecordingApp
) -> None:
    request = GET[:-2] + b"Pad: " + b"x" * 300 + b"\r\n\r\n"
    client = await (
        await serve(app, header_bytes_max=field_bytes(request), header_count_max=2)
    ).connect()

    client.send(request * 50)

    for _ in range(50):
        assert await client.status() == 200
        assert await client.read(7) == b"0 bytes"


async def test_a_bad_request_waits_for_the_response_before_it(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(b"GET /held HTTP/1.1\r\nHost: here\r\n\r\n" + b"nonsense\r\n\r\n")
    await until(lambda: app.scopes)

    app.release.set()

    answer = await client.read_to_end()
    assert_status(answer, 200)
    assert answer.endswith(b"released")


async def test_garbage_after_a_request_does_not_break_its_stream(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
    await client.read_until(b"event\r\n")

    client.send(b"nonsense\r\n\r\n")
    client.writer.write_eof()

    assert await client.read_to_end() == b""


async def test_a_body_that_becomes_malformed_is_refused_and_the_app_notified(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await until(lambda: app.scopes)

    assert_status(await client.exchange(b"zz\r\n"), 400)
    assert await app.ending() == "disconnect"


async def test_a_response_after_the_refusal_is_discarded(
    serve: Serve, app: RecordingApp, caplog: pytest.LogCaptureFixture
) -> None:
    client = await (await serve(app)).connect()
    client.send(
        b"POST /held HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    assert await client.status() == 400

    app.release.set()

    assert await app.ending() == "responded"
    assert b"HTTP/1.1" not in await client.read_to_end()
    assert caplog.records == []


# Time.


@pytest.mark.row("F9")
async def test_a_silent_connection_is_closed_without_a_response(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, first_request_s=0.1)).connect()

    assert await client.read_to_end() == b""


async def test_line_ends_do_not_count_as_a_request(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, first_request_s=0.2)).connect()

    assert await dribble(client, b"\r\n" * 100) == b""


@pytest.mark.row("F9")
async def test_an_incomplete_head_times_out(serve: Serve, app: RecordingApp) -> None:
    client = await (await serve(app, header_timeout_s=0.1)).connect()

    assert_status(await client.exchange(GET[:-2]), 408)


@pytest.mark.row("F9")
async def test_a_head_sent_byte_by_byte_times_out(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, header_timeout_s=0.2)).connect()

    assert_status(await dribble(client, GET[:-2] + b"A: " + b"x" * 100), 408)


@pytest.mark.row("F9")
async def test_an_incomplete_body_times_out_and_the_app_is_notified(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, body_timeout_s=0.1)).connect()

    assert_status(await client.exchange(POST + b"Content-Length: 9\r\n\r\nhalf"), 408)
    assert await app.ending() == "disconnect"


@pytest.mark.row("F9")
async def test_a_body_sent_byte_by_byte_times_out(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, body_timeout_s=0.2)).connect()
    client.send(POST + b"Content-Length: 100\r\n\r\n")

    assert_status(await dribble(client, b"x" * 99), 408)


async def test_an_incomplete_body_after_its_response_closes_the_connection(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, body_timeout_s=0.5)).connect()

    answer = await client.exchange(
        b"POST /early HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nhalf"
    )

    assert_status(answer, 200)


async def test_a_body_that_the_app_does_not_read_has_no_deadline(
    serve: Serve, app: RecordingApp
) -> None:
    size = 1_000_000  # more than uvicorn and the kernel buffer
    served = await serve(app)
    client = await served.connect()
    client.send(
        b"POST /held HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    )
    await until(lambda: app.scopes)

    (protocol,) = protocols(served)
    await until(lambda: protocol.flow.read_paused)
    protocol._on_deadline()
    app.release.set()

    assert_status(await client.read_to_end(), 200)


CLOSING_POST = (
    b"POST / HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
)


@pytest.mark.parametrize(
    ("sooner", "later", "state"),
    [
        (b"", get(), (0, "NOTHING", False)),
        (get()[:20], get()[20:], (1, "HEAD", False)),
        (GET, get(), (1, "NOTHING", False)),
        (CLOSING_POST + b"half", b"whole", (1, "BODY", True)),
    ],
    ids=["first request", "head", "next request", "body"],
)
async def test_what_came_while_the_process_stood_still_came_in_time(
    serve: Serve,
    app: RecordingApp,
    sooner: bytes,
    later: bytes,
    state: tuple[int, str, bool],
) -> None:
    served = await serve(app)
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(sooner)
        await until(lambda: protocols(served))
        (protocol,) = protocols(served)
        await until(lambda: has_deadline_for(protocol, state))

        # No turn of the loop is between these.
        client.sendall(later)
        protocol._on_deadline()

        client.setblocking(False)
        received = b""
        async with asyncio.timeout(GUARD_S):
            while data := await asyncio.get_running_loop().sock_recv(client, 65_536):
                received += data

    requests = (sooner + later).count(b" / HTTP/1.1")
    assert received.count(b"HTTP/1.1 ") == requests
    assert received.count(b"HTTP/1.1 200 ") == requests


def has_deadline_for(protocol: HttpProtocol, state: tuple[int, str, bool]) -> bool:
    if protocol._deadline_for is None or protocol._deadline is None:
        return False
    count, stage, responding = protocol._deadline_for
    return (count, stage.name, responding) == state


async def test_a_complete_request_has_no_deadline(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app)
    client = await served.connect()
    client.send(get("/held"))
    await until(lambda: app.scopes)

    (protocol,) = protocols(served)
    assert protocol._deadline is None
    app.release.set()

    assert (await client.read_to_end()).endswith(b"released")


async def test_an_incomplete_next_head_does_not_cut_off_the_response(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app, header_timeout_s=0.1)).connect()
    client.send(b"GET /held HTTP/1.1\r\nHost: here\r\n\r\n" + GET[:-2])
    await until(lambda: app.scopes)

    await asyncio.sleep(0.3)  # the second head times out meanwhile
    app.release.set()

    answer = await client.read_to_end()
    assert_status(answer, 200)
    assert answer.endswith(b"released")


async def test_an_idle_connection_is_closed(
    serve: Serve, app: RecordingApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(app)
    monkeypatch.setattr(HttpProtocol, "_deadline_s", hurried_when_idle)
    client = await served.connect()

    answer = await client.exchange(GET)

    assert answer.endswith(b"0 bytes")


def hurried_when_idle(protocol: HttpProtocol) -> float | None:
    return 0.1 if protocol.cycle and protocol.cycle.response_complete else None


@pytest.mark.parametrize(("version", "lines"), [("1.0", 1), ("1.1", 2)])
async def test_an_expectation_is_met_in_http_1_1_alone(
    serve: Serve, app: RecordingApp, version: str, lines: int
) -> None:
    client = await (await serve(app)).connect()

    answer = await client.exchange(
        b"POST / HTTP/%b\r\nHost: here\r\nConnection: close\r\n"
        b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab" % version.encode()
    )

    assert answer.count(b"HTTP/1.1 ") == lines
    assert (b" 100 " in answer) is (version == "1.1")
    assert answer.endswith(b"2 bytes")


async def test_an_idle_connection_is_kept_for_as_long_as_the_setting_says(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app, keep_alive_s=1_000)
    (protocol,) = await connected_protocols(served, GET)
    await until(lambda: protocol.cycle.response_complete)

    assert protocol._deadline is not None
    left_s = protocol._deadline - asyncio.get_running_loop().time()
    assert left_s > 900


async def test_one_timer_serves_the_deadlines_of_all_requests(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app, first_request_s=900, keep_alive_s=1_000)
    client, protocol = await silent_connection(served)
    timer, deadline = protocol._timer, protocol._deadline
    assert timer is not None
    assert deadline is not None

    client.send(GET)
    await until(lambda: protocol.cycle and protocol.cycle.response_complete)

    assert protocol._timer is timer
    assert protocol._deadline is not None
    assert protocol._deadline > deadline
    protocol._end_timer()  # The timer ends, before the deadline.
    assert not protocol.transport.is_closing()
    assert protocol._timer is not timer
    assert protocol._timer_ends_s == protocol._deadline


async def test_an_earlier_deadline_has_an_earlier_timer(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app, first_request_s=900, header_timeout_s=300)
    client, protocol = await silent_connection(served)
    before_s = protocol._timer_ends_s

    client.send(GET[:-2])
    await until(lambda: protocol._request_count)

    assert protocol._timer_ends_s < before_s
    assert protocol._timer_ends_s == protocol._deadline


async def test_a_deadline_ends_with_its_connection(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(app)
    (protocol,) = await connected_protocols(served, GET)
    assert protocol._deadline is not None
    assert protocol.timeout_keep_alive_task is None  # uvicorn's own

    await served.close_clients()

    await until(lambda: protocol._deadline is None)


async def dribble(client: Any, data: bytes) -> bytes:
    """Send `data` byte by byte until the peer closes; return its response."""
    answer = asyncio.create_task(client.read_to_end())
    for byte in data:
        client.send(bytes([byte]))
        await asyncio.wait({answer}, timeout=0.02)
        if answer.done():
            break
    received: bytes = await answer
    return received


async def until(fact: Any) -> None:
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.005)


async def silent_connection(served: Any) -> tuple[Any, HttpProtocol]:
    client = await served.connect()
    await until(lambda: protocols(served))
    (protocol,) = protocols(served)
    return client, protocol


async def connected_protocols(served: Any, request: bytes) -> list[HttpProtocol]:
    client = await served.connect()
    client.send(request)
    await client.status()
    return protocols(served)


def protocols(served: Any) -> list[HttpProtocol]:
    return [
        connection
        for connection in served.host._server.server_state.connections
        if isinstance(connection, HttpProtocol)
    ]


# The handle.


async def test_the_handle_of_a_stream_reports_its_buffer_and_aborts(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
    await client.read_until(b"event\r\n")
    assert app.handle.buffered() == 0

    app.handle.abort()
    app.handle.abort()

    assert await client.read_to_end() == b""
    assert await app.ending() == "disconnect"
    assert app.handle.buffered() == 0


async def test_the_write_buffer_has_both_marks(serve: Serve, app: RecordingApp) -> None:
    (protocol,) = await connected_protocols(await serve(app), GET)

    assert protocol.transport.get_write_buffer_limits() == (16_384, 65_536)


def test_scopes_of_other_servers_have_no_handle() -> None:
    assert find_handle({"type": "http"}) is None
    assert find_handle({"type": "http", "extensions": None}) is None
    assert find_handle({"type": "websocket", "extensions": {"other": {}}}) is None


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[HttpProtocol]]:
    """Return the protocols of connections that the test makes."""
    made: list[weakref.ref[HttpProtocol]] = []
    connection_made = HttpProtocol.connection_made

    def remember(self: HttpProtocol, transport: asyncio.Transport) -> None:
        made.append(weakref.ref(self))
        connection_made(self, transport)

    monkeypatch.setattr(HttpProtocol, "connection_made", remember)
    return made


async def test_a_lost_connection_frees_the_http_protocol(
    serve: Serve, app: RecordingApp, made: list[weakref.ref[HttpProtocol]]
) -> None:
    served = await serve(app)
    gc.disable()
    try:
        for _ in range(10):
            client = await served.connect()
            await client.exchange(get())
        app.scopes.clear()
        async with asyncio.timeout(GUARD_S):
            # The task of a request ends after its response.
            while any(ref() is not None for ref in made):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
    finally:
        gc.enable()
    assert len(made) == 10


async def test_an_upgrade_frees_the_http_protocol(
    serve: Serve, app: RecordingApp, made: list[weakref.ref[HttpProtocol]]
) -> None:
    served = await serve(app)
    gc.disable()
    try:
        for _ in range(10):
            client = await served.connect()
            client.send(UPGRADE)
            assert await client.status() == 101
        assert len(made) == 10
        assert [ref() for ref in made if ref() is not None] == []
    finally:
        gc.enable()


async def test_an_upgrade_is_refused_while_a_response_is_pending(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(b"GET /held HTTP/1.1\r\nHost: here\r\n\r\n" + UPGRADE)
    await until(lambda: app.scopes)

    app.release.set()

    answer = await client.read_to_end()
    assert_status(answer, 200)
    assert answer.endswith(b"released")


# How responses are written.


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All writes to the transports of all connections."""
    written: list[bytes] = []
    connection_made = HttpProtocol.connection_made

    class RecordingTransport:
        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def write(self, data: bytes) -> None:
            written.append(data)
            self._transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._transport, name)

    def made(self: HttpProtocol, transport: Any) -> None:
        connection_made(self, transport)
        self.transport = RecordingTransport(transport)  # type: ignore[assignment]

    monkeypatch.setattr(HttpProtocol, "connection_made", made)
    return written


async def test_a_head_and_its_body_are_one_write(
    serve: Serve, app: RecordingApp, writes: list[bytes]
) -> None:
    client = await (await serve(app)).connect()

    answers = [await client.exchange(GET + get())]

    assert b"".join(writes) == answers[0]
    assert [write.startswith(b"HTTP/1.1 200 OK") for write in writes] == [True] * 2
    assert all(write.endswith(b"\r\n\r\n0 bytes") for write in writes)


async def test_a_head_is_written_before_a_late_body(
    serve: Serve, writes: list[bytes]
) -> None:
    release = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await release.wait()
        await send({"type": "http.response.body", "body": b"at last"})

    client = await (await serve(slow)).connect()
    client.send(get("/stream"))

    assert await client.status() == 200
    assert len(writes) == 1
    release.set()
    assert b"at last" in await client.read_to_end()


async def test_100_continue_is_written_at_once(
    serve: Serve, app: RecordingApp, writes: list[bytes]
) -> None:
    client = await (await serve(app)).connect()
    client.send(
        b"POST / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await client.status() == 100

    client.send(b"yes")

    assert_status(await client.read_to_end(), 200)
    assert len(writes) == 2


async def test_a_response_without_a_body_is_written(
    serve: Serve, app: RecordingApp, writes: list[bytes]
) -> None:
    client = await (await serve(app)).connect()

    answer = await client.exchange(
        b"HEAD / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    )

    assert_status(answer, 200)
    assert writes == [answer]


# Internals of uvicorn and httptools that the protocol relies on.

OURS = {
    *("limits", "awaits_request", "announce_close", "hand_over", "disable_chunking"),
    *("idle_connections", "waiting", "close_idle"),
}


def test_uvicorn_has_the_hooks_that_are_overridden() -> None:
    for name in HttpProtocol.__dict__:
        if not name.startswith("_") and name not in OURS:
            assert hasattr(HttpToolsProtocol, name), name
    source = inspect.getsource(HttpToolsProtocol)
    for use in (
        "self._unset_keepalive_if_required()",
        "self._should_upgrade()",
        "on_response=self.on_response_complete",
        "self.parser = httptools.HttpRequestParser(self)",
        "self.pipeline.appendleft((self.cycle, app))",
        "timeout_keep_alive = config.timeout_keep_alive",
        "self.cycle = RequestResponseCycle(",
    ):
        assert use in source, f"uvicorn {uvicorn.__version__} lacks {use}"


def test_uvicorn_writes_responses_through_the_replaced_transport() -> None:
    source = inspect.getsource(RequestResponseCycle)

    used = set(re.findall(r"self\.transport\.(\w+)", source))
    assert used == {"write", "close", "is_closing"}


def test_the_parser_chains_the_error_of_a_callback() -> None:
    reason = ValueError("mine")

    class Failing:
        def on_url(self, url: bytes) -> None:
            raise reason

    with pytest.raises(httptools.HttpParserCallbackError) as caught:
        httptools.HttpRequestParser(Failing()).feed_data(GET)

    assert caught.value.__context__ is reason
