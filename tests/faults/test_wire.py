"""Invalid traffic: ambiguous requests, malformed frames, slow heads, lost responses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable

import httpx2
import pytest

from ..e2e.processes import GUARD_S, ServerProcess
from ..e2e.proxy import ProxiedConnection, TcpProxy
from ..e2e.readers import Api, WsStream
from .test_hostile import raw, status_of
from .test_slots import stream_head

MakeServer = Callable[..., ServerProcess]
Report = Callable[[object], None]

# F8. Even if a proxy parses one of these differently, the server must not answer the
# second request, which would belong to another client.

SECOND = b"GET /healthz?second HTTP/1.1\r\nHost: x\r\n\r\n"
HOST = b"Host: x\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"".join([b"POST / HTTP/1.1\r\n", HOST, *lines, b"\r\n", body])


def get(*lines: bytes, target: bytes = b"/healthz", version: bytes = b"1.1") -> bytes:
    head = b"GET %b HTTP/%b\r\n" % (target, version)
    return b"".join([head, *lines, b"\r\n"])


CHUNKED = b"Transfer-Encoding: chunked\r\n"
AMBIGUOUS = {
    "CL and TE": post(b"Content-Length: 5\r\n", CHUNKED, body=b"0\r\n\r\n"),
    "TE and CL": post(CHUNKED, b"Content-Length: 5\r\n", body=b"0\r\n\r\n"),
    "two CL": post(b"Content-Length: 0\r\n", b"Content-Length: 5\r\n"),
    "CL +5": post(b"Content-Length: +5\r\n", body=b"hello"),
    "CL -1": post(b"Content-Length: -1\r\n"),
    "CL 0x5": post(b"Content-Length: 0x5\r\n", body=b"hello"),
    "CL 5, 5": post(b"Content-Length: 5, 5\r\n", body=b"hello"),
    "CL empty": post(b"Content-Length:\r\n"),
    "CL 20 digits": post(b"Content-Length: 99999999999999999999\r\n"),
    "TE xchunked": post(b"Transfer-Encoding: xchunked\r\n", body=b"0\r\n\r\n"),
    "TE identity, chunked": post(
        b"Transfer-Encoding: identity, chunked\r\n", body=b"0\r\n\r\n"
    ),
    "TE chunked, identity": post(
        b"Transfer-Encoding: chunked, identity\r\n", body=b"0\r\n\r\n"
    ),
    "two TE": post(CHUNKED, b"Transfer-Encoding: identity\r\n", body=b"0\r\n\r\n"),
    "TE :": post(b"Transfer-Encoding : chunked\r\n", body=b"0\r\n\r\n"),
    "TE tab": post(b"Transfer-Encoding:\tchunked\x0b\r\n", body=b"0\r\n\r\n"),
    "TE on 1.0": b"POST / HTTP/1.0\r\n" + HOST + CHUNKED + b"\r\n0\r\n\r\n",
    "folded": get(HOST, b"A: b\r\n folded\r\n"),
    "bare LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "bare CR": get(HOST, b"A: b\rc\r\n"),
    "NUL": get(HOST, b"A: b\0c\r\n"),
    "no colon": get(HOST, b"nonsense\r\n"),
    "space before": get(b" A: b\r\n", HOST),
    "chunk size": post(CHUNKED, body=b"zz\r\n"),
    "chunk size huge": post(CHUNKED, body=b"fffffffffffffffff\r\n"),
    "chunk end": post(CHUNKED, body=b"2\r\nabcd\r\n0\r\n\r\n"),
    "chunk extension LF": post(CHUNKED, body=b"2;a\nab\r\n0\r\n\r\n"),
    "no Host": get(),
    "two Hosts": get(HOST, b"Host: y\r\n"),
    "HTTP/1.2": get(HOST, version=b"1.2"),
    "HTTP/9.9": get(HOST, version=b"9.9"),
    "200 kB header": get(HOST, b"A: " + b"a" * 200_000 + b"\r\n"),
    "5,000 headers": get(HOST, b"A: a\r\n" * 5_000),
    "200 kB URL": get(HOST, target=b"/" + b"a" * 200_000),
}
TOO_LARGE = {"200 kB header": 431, "5,000 headers": 431, "200 kB URL": 414}


@pytest.mark.row("F8")
async def test_ambiguous_requests_get_a_single_response(
    server: ServerProcess, report: Report
) -> None:
    for name, request in AMBIGUOUS.items():
        answer = await raw(server.port, request + SECOND)
        # A client that keeps sending may be reset before the response.
        if answer or name not in TOO_LARGE:
            assert status_of(answer) == TOO_LARGE.get(name, 400), name
        assert answer.count(b"HTTP/1.1 ") <= 1, name
        assert b"alive" not in answer, name
    # The check can fail: a valid request gets a response, and so does the next.
    honest = get(HOST) + get(HOST, b"Connection: close\r\n")
    assert (await raw(server.port, honest)).count(b"alive") == 2
    assert "error" not in server.logged
    report(f"{len(AMBIGUOUS)} of {len(AMBIGUOUS)} rejected, 0 second requests served")


# F6.


def frame(
    first: int, payload: bytes = b"", *, masked: bool = True, size: bytes = b""
) -> bytes:
    """Return a frame with any first byte and any claimed length."""
    claimed = size or bytes([len(payload)])
    head = bytes([first, claimed[0] | 0x80 * masked]) + claimed[1:]
    return head + bytes(4 * masked) + payload


FRAMES = {
    "not masked": (frame(0x81, b"x", masked=False), 1002),
    "RSV1": (frame(0xC1, b"x"), 1002),
    "RSV2": (frame(0xA1, b"x"), 1002),
    "RSV3": (frame(0x91, b"x"), 1002),
    "opcode 3": (frame(0x83, b"x"), 1002),
    "opcode 11": (frame(0x8B, b"x"), 1002),
    "ping in fragments": (frame(0x09, b"x"), 1002),
    "ping of 126 bytes": (frame(0x89, b"x" * 126, size=b"\x7e\x00\x7e"), 1002),
    "continues nothing": (frame(0x80, b"x"), 1002),
    "text within fragments": (frame(0x01, b"x") + frame(0x81, b"x"), 1002),
    "length of 2^63": (frame(0x81, size=b"\x7f" + (1 << 63).to_bytes(8)), 1009),
    "length of 2^62": (frame(0x81, size=b"\x7f" + (1 << 62).to_bytes(8)), 1009),
    "64 KiB and 1": (frame(0x81, size=b"\x7f" + (65_537).to_bytes(8)), 1009),
    "text that is not UTF-8": (frame(0x81, b"\xff\xfe"), 1007),
    "a surrogate": (frame(0x81, b"\xed\xa0\x80"), 1007),
    "close of one byte": (frame(0x88, b"x"), 1002),
    "close with 1005": (frame(0x88, b"\x03\xed"), 1002),
}


async def after_upgrade(port: int, head: bytes, sent: bytes) -> bytes:
    """Open a WebSocket, send bytes on it, and return everything received."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(GUARD_S):
            writer.write(head)
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            return await reader.read()
    finally:
        writer.transport.abort()


@pytest.mark.row("F6")
async def test_malformed_frames_get_their_code_and_affect_no_other(
    server: ServerProcess, backend: Api, player: str, token: str, report: Report
) -> None:
    neighbour = await WsStream.open(server.port, token)
    await neighbour.until("hello")
    rude = stream_head(await server.token("rude"), websocket=True)
    for name, (sent, code) in FRAMES.items():
        answer = await after_upgrade(server.port, rude, sent)
        # The last frame is the close frame: two bytes of head, the code, the reason.
        closing = answer.rpartition(b"\x88")[2]
        assert int.from_bytes(closing[1:3]) == code, (name, answer[-60:])
        (id,) = await backend.published(player, title=name)
        assert (await neighbour.next()).id == id
    neighbour.cut()
    assert "error" not in server.logged
    report(f"{len(FRAMES)} of {len(FRAMES)} closed with the exact code")


# F9.


@pytest.mark.row("F9")
@pytest.mark.parametrize(
    "count",
    [300, pytest.param(3_000, marks=[pytest.mark.nightly, pytest.mark.timeout(120)])],
)
async def test_slow_clients_are_disconnected_and_others_served(
    make_server: MakeServer, report: Report, count: int
) -> None:
    limit_s = 3
    server = await make_server(
        first_request_s=limit_s, header_timeout_s=limit_s, body_timeout_s=limit_s
    ).start()
    token = (await server.token("p")).encode()
    halves = [
        b"",
        b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nA",
        b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
        b"\r\nContent-Length: 100\r\nAuthorization: Bearer %b\r\n\r\n{" % token,
    ]
    closed = 0

    async def dribble(number: int) -> None:
        nonlocal closed
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(halves[number % len(halves)])

        async def trickle() -> None:
            while number % 2:
                await asyncio.sleep(0.5)
                writer.write(b"a")

        trickling = asyncio.create_task(trickle())
        with contextlib.suppress(OSError):
            async with asyncio.timeout(GUARD_S):
                while await reader.read(65_536):
                    pass
        closed += 1
        trickling.cancel()
        writer.transport.abort()

    async with Api(server.port, await server.key()) as backend:
        before = await timed(backend, 60)
        begun = time.monotonic()
        slow = [asyncio.create_task(dribble(number)) for number in range(count)]
        during = await timed(backend, 60)
        await asyncio.gather(*slow)
        await asyncio.sleep(0)  # Transports are closed in the next iteration.
        took = time.monotonic() - begun
    assert closed == count
    ratio = statistics.median(during) / statistics.median(before)
    report(
        f"{count} of {count} closed within {took:.1f} s of a limit of {limit_s} s, "
        f"publishes took {ratio:.1f} times as long meanwhile (medians)"
    )


async def timed(backend: Api, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        begun = time.monotonic()
        await backend.published("p", title="t")
        seconds.append(time.monotonic() - begun)
    return seconds


# D1.


@pytest.mark.row("D1")
@pytest.mark.parametrize(
    "count",
    [300, pytest.param(10_000, marks=[pytest.mark.nightly, pytest.mark.timeout(300)])],
)
async def test_retries_with_keys_after_lost_responses_duplicate_nothing(
    server: ServerProcess, player: str, report: Report, count: int
) -> None:
    proxy = await TcpProxy(server.port).start()

    def lose(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes | None:
        return None if not up and random.random() < 0.3 else chunk

    proxy.tamper = lose
    players = [f"{player}-{i}" for i in range(4)]
    lost = replayed = 0
    ids: dict[str, list[str]] = {name: [] for name in players}

    async def publish(api: Api, name: str, number: int) -> None:
        nonlocal lost, replayed
        losses = 0
        while True:
            try:
                answer = await api.publish(name, key=f"{name} {number}", title="t")
                break
            except httpx2.TransportError:
                losses += 1
        assert answer.status_code == 200, answer.text
        flagged = answer.headers.get("idempotent-replayed") == "true"
        # Only the response is lost: the first attempt has always been stored.
        assert flagged == bool(losses)
        lost += losses
        replayed += flagged
        ids[name].append(answer.json()["results"][0]["id"])

    async def work(name: str) -> None:
        async with Api(proxy.port, key) as api:
            for number in range(count // len(players)):
                await publish(api, name, number)

    key = await server.key()
    try:
        await asyncio.gather(*map(work, players))
    finally:
        await proxy.close()
    async with Api(server.port, key) as api:
        for name in players:
            assert [one["id"] for one in await api.inbox(name)] == ids[name]
    assert lost > count // 10
    report(
        f"0 duplicates of {count}, {lost} responses lost, {replayed} replayed and "
        "flagged as such"
    )


@pytest.mark.row("D1")
async def test_control_retries_without_keys_duplicate(
    server: ServerProcess, player: str, report: Report
) -> None:
    proxy = await TcpProxy(server.port).start()
    proxy.tamper = lambda pair, chunk, up: (
        None if not up and random.random() < 0.3 else chunk
    )
    try:
        async with Api(proxy.port, await server.key()) as api:
            for _ in range(50):
                while True:
                    with contextlib.suppress(httpx2.TransportError):
                        await api.published(player, title="t")
                        break
    finally:
        await proxy.close()
    async with Api(server.port, await server.key()) as api:
        stored_count = len(await api.inbox(player))
    assert stored_count > 50
    report(f"control: 50 publishes stored {stored_count} times")


# D2.


@pytest.mark.row("D2")
async def test_an_idempotency_key_belongs_to_one_request_of_one_app(
    server: ServerProcess, player: str, report: Report
) -> None:
    apps = ("demo", "other")
    keys = [await server.key(app=app) for app in apps]
    async with Api(server.port, keys[0]) as demo, Api(server.port, keys[1]) as other:
        answers = await asyncio.gather(
            *(api.publish(player, key="k", title="t") for api in [demo, other] * 25),
            *(demo.publish(player, key="k", title=f"other {i}") for i in range(10)),
        )
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses.keys() <= {200, 422}
        inboxes = [await api.inbox(player) for api in (demo, other)]
        assert [len(inbox) for inbox in inboxes] == [1, 1]
        winner = inboxes[0][0]["title"]
        # The key belongs to the request that came first.
        again = await demo.publish(player, key="k", title=winner)
        assert again.json()["results"][0]["id"] == inboxes[0][0]["id"]
    report(f"2 apps, one effect each; {dict(statuses)}")
