"""Valid and invalid handshakes, and the responses of an app."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from streamer.transports.server.handshake_protocol import Handshake

from ..conftest import MakeWorld, RecordingApp, Serve
from .test_websocket_protocol import CLOSE, PONG, TEXT, frame, read_frame, upgrade

ACCEPT = b"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="


async def answer(serve: Any, app: Any, request: bytes, **settings: Any) -> bytes:
    """Return the head of the response in lower case."""
    client = await (await serve(app, **settings)).connect()
    client.send(request)
    head: bytes = await client.read_until(b"\r\n\r\n")
    return head.lower()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),  # Firefox
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
        # Validated by the library.
        (b"Connection: Upgrade", b"Connection: keep-alive\r\nConnection: Upgrade"),
    ],
)
async def test_a_valid_handshake_is_accepted(
    serve: Serve, app: RecordingApp, old: bytes, new: bytes
) -> None:
    head = await answer(serve, app, upgrade().replace(old, new, 1))

    lines = head.split(b"\r\n")
    assert lines[0] == b"http/1.1 101 switching protocols"
    assert {b"upgrade: websocket", b"connection: upgrade", ACCEPT} < set(lines)
    assert sum(line.startswith(b"date: ") for line in lines) == 1


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"GET", b"POST", 405),
        (b"GET /", b"GET http://here", 400),
        (b"GET /", b"GET ?", 400),
        (b"Version: 13", b"Version: 12", 426),
        (b"Version: 13", b"Version: 14", 426),
        (b"Version: 13", b"Version: ", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 400),
        (b"HTTP/1.1", b"HTTP/1.0", 426),
        (b"Key: dGhlIHNhbXBsZSBub25jZQ==", b"Key: short", 400),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"", 400),
        (
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8",
            400,
        ),
        (
            b"Key: dGhlIHNhbXBsZSBub25jZQ==",
            b"Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            400,
        ),
        (b"Host: here", b"Host: here\r\nOrigin: http://a\r\nOrigin: http://b", 400),
        (b"Host: here", b"Host: here\r\nSec-WebSocket-Protocol: ;", 400),
        (b"Connection: Upgrade", b"Connection: Upgrade, ;", 400),
    ],
)
async def test_an_invalid_handshake_is_refused_without_the_app(
    serve: Serve, app: RecordingApp, old: bytes, new: bytes, status: int
) -> None:
    client = await (await serve(app)).connect()

    client.send(upgrade().replace(old, new))

    assert await client.status() == status
    await client.read_to_end()
    assert app.scopes == []


@pytest.mark.parametrize(
    ("old", "new"), [(b"Version: 13", b"Version: 12"), (b"HTTP/1.1", b"HTTP/1.0")]
)
async def test_an_unsupported_version_is_told_the_supported_one(
    serve: Serve, app: RecordingApp, old: bytes, new: bytes
) -> None:
    head = await answer(serve, app, upgrade().replace(old, new))

    assert head.startswith(b"http/1.1 426 ")
    assert {
        b"upgrade: websocket",
        b"connection: close, upgrade",
        b"sec-websocket-version: 13",
    } < set(head.split(b"\r\n"))


@pytest.mark.parametrize(
    ("settings", "request_", "status"),
    [
        ({"header_count_max": 10}, upgrade(*[b"A: b"] * 10), 431),
        ({"header_bytes_max": 5_000}, upgrade(b"Pad: " + b"x" * 5_000), 431),
        ({"url_bytes_max": 100}, upgrade().replace(b"/", b"/" + b"u" * 100, 1), 414),
    ],
)
async def test_a_handshake_has_the_limits_of_a_request(
    serve: Serve,
    app: RecordingApp,
    settings: dict[str, int],
    request_: bytes,
    status: int,
) -> None:
    head = await answer(serve, app, request_, **settings)

    assert head.startswith(b"http/1.1 %d " % status)
    assert app.scopes == []


KEYS = [b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAAAB==", b"short", b""]
FIELDS = st.sampled_from(
    [
        *((b"upgrade", value) for value in (b"websocket", b"WebSocket", b"h2c", b"")),
        *((b"connection", value) for value in (b"Upgrade", b"close, upgrade", b"x")),
        *((b"connection", value) for value in (b"upgrade, ;", b"x,,upgrade", b"")),
        *((b"sec-websocket-protocol", value) for value in (b"a, b", b";", b"")),
        (b"sec-websocket-extensions", b";"),
        *((b"sec-websocket-version", value) for value in (b"13", b"8", b"13, 8")),
        *((b"sec-websocket-key", value) for value in KEYS),
        (b"origin", b"http://here"),
    ]
)
COMPLETE = [
    (b"upgrade", b"websocket"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", KEYS[0]),
]


class Unsent(Handshake):
    """A handshake that is validated only; it keeps the library's refusal."""

    def __init__(self, method: str, version: str) -> None:
        self._request = {  # type: ignore[typeddict-item]
            "method": method,
            "http_version": version,
        }
        self._url = b"/"
        self._accept = ""
        self._logs = False

    def _respond(self, response: bytes) -> None:
        assert not response.startswith(b"HTTP/1.1 101 ")


@given(
    st.just(COMPLETE) | st.sets(st.sampled_from(COMPLETE)).map(list),
    st.lists(FIELDS, max_size=3),
    st.sampled_from(["GET", "POST"]),
    st.sampled_from(["1.1", "1.0"]),
)
@example(COMPLETE, [], "GET", "1.1")
def test_the_library_accepts_what_the_fast_path_accepts(
    fields: list[tuple[bytes, bytes]],
    others: list[tuple[bytes, bytes]],
    method: str,
    version: str,
) -> None:
    handshake = Unsent(method, version)
    headers = [*fields, *others]

    fast = handshake._accept_fast(headers)
    handshake._accept_by_library(headers)

    assert fast in ("", handshake._accept)
    if headers == COMPLETE and (method, version) == ("GET", "1.1"):
        assert fast


@pytest.mark.row("F7")
async def test_compression_is_not_negotiated(serve: Serve, app: RecordingApp) -> None:
    deflate = b"Sec-WebSocket-Extensions: permessage-deflate"

    head = await answer(serve, app, upgrade(deflate))

    assert head.startswith(b"http/1.1 101 ")
    assert b"extensions" not in head


async def test_the_scope_has_what_was_requested(
    serve: Serve, app: RecordingApp
) -> None:
    request = upgrade(
        b"Sec-WebSocket-Protocol: a, b", b"Sec-WebSocket-Protocol: c", b"X: \xe9"
    )

    await answer(serve, app, request.replace(b"GET /", b"GET /r%C3%A9/x?a=%20b"))

    (scope,) = app.scopes
    assert scope["type"] == "websocket"
    assert (scope["scheme"], scope["http_version"]) == ("ws", "1.1")
    assert (scope["path"], scope["raw_path"]) == ("/ré/x", b"/r%C3%A9/x")
    assert scope["query_string"] == b"a=%20b"
    assert scope["subprotocols"] == ["a", "b", "c"]
    assert (b"x", b"\xe9") in scope["headers"]
    assert scope["client"][0] == "127.0.0.1"


async def test_frames_sent_before_the_upgrade_are_read_after_it(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(SlowApp(app))).connect()

    client.send(upgrade())
    assert await app.endings.get() == "called"
    client.send(frame(TEXT, b"early") + frame(TEXT, b"bird"))
    client.send(frame(TEXT, b"x" * 1_000))
    app.release.set()

    assert await client.status() == 101
    received = [(await read_frame(client))[1] for _ in range(3)]
    assert received == [b"early", b"bird", b"x" * 1_000]


async def test_early_frames_reach_a_stream_that_takes_over(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world()
    client = await world.connect()
    begin = Handshake.begin

    def begin_late(self: Handshake) -> None:
        begin(self)
        self.data_received(frame(TEXT, b'{"type":"ping"}') + frame(PONG))

    monkeypatch.setattr(Handshake, "begin", begin_late)
    client.send(world.request(upgrade=True))

    assert await client.status() == 101
    assert {(await client.message())["type"] for _ in range(2)} == {"hello", "pong"}


class SlowApp:
    """Waits for its release, then calls another app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._app.endings.put_nowait("called")
        await self._app.release.wait()
        await self._app(scope, receive, send)


# Responses of the app.


class Responding:
    """Sends the given messages, and records the exceptions that this raises."""

    def __init__(self, *messages: Any, error: Exception | None = None) -> None:
        self._messages = messages
        self._error = error
        self.failed: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        for message in self._messages:
            try:
                await send(message)
            except Exception as error:
                self.failed.append(type(error).__name__)
        if self._error is not None:
            raise self._error


def denial(**start: Any) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", **start}


def body(part: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": part, "more_body": more}


async def test_a_denial_is_a_complete_response(serve: Serve) -> None:
    head = denial(status=409, headers=[(b"Content-Type", b"text/x"), (b"x", b"y")])
    client = await (
        await serve(Responding(head, body(b"to", more=True), body(b"gether")))
    ).connect()

    received = await client.exchange(upgrade())

    top, _, rest = received.lower().partition(b"\r\n\r\n")
    lines = top.split(b"\r\n")
    assert lines[0] == b"http/1.1 409 conflict"
    assert {b"content-length: 8", b"connection: close", b"x: y"} < set(lines)
    assert [line for line in lines if line.startswith(b"content-type")] == [
        b"content-type: text/x"
    ]
    assert rest == b"together"


async def test_a_denial_can_set_its_length_and_date(serve: Serve) -> None:
    fields = [(b"content-length", b"2"), (b"date", b"today")]
    client = await (
        await serve(Responding(denial(status=403, headers=fields), body(b"no")))
    ).connect()

    received = (await client.exchange(upgrade())).lower()

    assert received.count(b"content-length:") == received.count(b"date:") == 1
    assert received.endswith(b"\r\n\r\nno")


@pytest.mark.parametrize(
    ("app", "status", "logged"),
    [
        (Responding({"type": "websocket.close", "code": 1000}), 403, ""),
        (Responding(error=KeyError("x")), 500, "Exception in ASGI application"),
        (Responding(), 500, "without completing handshake"),
    ],
)
async def test_a_close_an_error_or_no_response_refuses_the_handshake(
    serve: Serve,
    app: Responding,
    status: int,
    logged: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = await (await serve(app)).connect()

    received = await client.exchange(upgrade())

    assert received.startswith(b"HTTP/1.1 %d " % status)
    problem = json.loads(received.partition(b"\r\n\r\n")[2])
    assert problem["status"] == status
    assert (logged in caplog.text) if logged else caplog.text == ""


async def test_messages_out_of_order_raise_in_the_app(serve: Serve) -> None:
    app = Responding(
        body(b"first"),
        {"type": "websocket.send", "text": "x"},
        denial(status=400),
        denial(status=400),
        body(b"no"),
    )
    client = await (await serve(app)).connect()

    received = await client.exchange(upgrade())

    assert received.endswith(b"\r\n\r\nno")
    assert app.failed == ["RuntimeError"] * 3


async def test_the_app_can_select_a_subprotocol(serve: Serve) -> None:
    accept = {
        "type": "websocket.accept",
        "subprotocol": "b",
        "headers": [(b"X", b"y")],
    }

    head = await answer(serve, Responding(accept), upgrade())

    assert b"\r\nsec-websocket-protocol: b\r\n" in head
    assert b"\r\nx: y\r\n" in head


async def test_a_websocket_is_closed_when_the_app_returns(serve: Serve) -> None:
    client = await (await serve(Responding({"type": "websocket.accept"}))).connect()

    client.send(upgrade())

    assert await client.status() == 101
    assert await client.read_to_end() == b""


async def test_an_accepted_websocket_is_pinged_while_the_app_is_busy(
    serve: Serve, app: RecordingApp
) -> None:
    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await app.release.wait()

    client = await (await serve(busy, heartbeat_s=0.05)).connect()
    client.send(upgrade())
    assert await client.status() == 101

    assert (await read_frame(client))[0] == 9
    app.release.set()


async def test_the_app_is_notified_when_the_client_disconnects(
    serve: Serve, app: RecordingApp
) -> None:
    received_messages: list[Any] = []

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        app.endings.put_nowait("called")
        received_messages.append(await receive())
        try:
            await send({"type": "websocket.accept"})
        except ClientDisconnected:
            received_messages.append("gone")
        app.endings.put_nowait("ended")

    served = await serve(patient)
    client = await served.connect()
    client.send(upgrade())
    assert await app.ending() == "called"

    client.writer.transport.abort()

    assert await app.ending() == "ended"
    assert received_messages == [{"type": "websocket.disconnect", "code": 1006}, "gone"]
    assert served.host._server.server_state.connections == set()


async def test_a_stop_refuses_pending_handshakes(
    serve: Serve, app: RecordingApp
) -> None:
    served = await serve(SlowApp(app))
    client = await served.connect()
    client.send(upgrade())
    assert await app.endings.get() == "called"

    served.host.stop()

    assert await client.status() == 503
    await client.read_to_end()
    app.release.set()


async def test_a_close_right_after_the_upgrade_gets_its_reply(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(upgrade())
    assert await client.status() == 101

    client.send(frame(CLOSE, b"\x03\xe8"))

    assert (await read_frame(client))[0] == CLOSE
    assert (await app.ending())[0] == 1000
