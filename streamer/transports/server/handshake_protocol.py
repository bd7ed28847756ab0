"""
The handshake of a WebSocket.

Validates the request (RFC 6455 section 4.2.1) and writes the response of the app: the
upgrade, or a denial as a complete HTTP response. Knows ASGI, and how `websockets`
validates handshakes. Knows nothing of frames.

uvicorn serializes the parsed request, parses it once more, and creates a protocol with
a parser, a queue and events before it calls the app. Here the request is validated as
parsed, and the protocol that reads frames is created only for a connection that goes on
within ASGI. Nearly all are handed over with the upgrade, before any frame is read.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import httptools
from httptools.parser.url_parser import URL
from uvicorn.protocols.utils import ClientDisconnected
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from .handle import EXTENSION, Detachable, Handle, Successor
from .refusal import encode_refusal, log_refusal
from .websocket_input import UnreadInput

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from .websocket_protocol import WebSocketProtocol

__all__ = ["Handshake"]

_RawHeaders = Iterable[tuple[bytes, bytes]]

# 16 bytes in Base64, as clients encode them.
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")

# Options of Connection, as browsers and libraries write them.
_OPTIONS: Final = re.compile(rb"[a-z-]+(?:, ?[a-z-]+)*")

# Fields that must not occur twice.
_SINGLE_FIELDS: Final = frozenset(
    {
        b"upgrade",
        b"connection",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-version",
    }
)

# Its debug messages would contain what clients send, tokens included.
_validator_logger: Final = logging.getLogger(f"{__name__}.validator")
_validator_logger.setLevel(logging.WARNING)
_validator: Final = ServerProtocol(logger=_validator_logger)
"""Shared by all handshakes: `accept` keeps no state that affects the next one."""

# uvicorn's logger for errors of the app.
_logger = logging.getLogger("uvicorn.error")


class Handshake(asyncio.Protocol, Detachable):
    """
    One connection that is to become a WebSocket.

    Args:
        server: The protocol that read the request; it gives the connection up.
        logs: Whether invalid handshakes are logged.

    """

    def __init__(self, server: HttpToolsProtocol, *, logs: bool = True) -> None:
        self._logs = logs
        self._config = server.config
        self._server_state = server.server_state
        # uvicorn's declaration names its own classes alone.
        self._connections: set[Any] = server.connections
        self._app_state = server.app_state
        self._app = server.app
        self._loop = server.loop
        self._transport = server.transport
        self._request = server.scope
        self._url = server.url
        self._accept = ""
        self._connect_sent = False
        self._is_responded = False
        self._head = b""
        """The head of the upgrade, from when the app accepts until it is written."""
        self._is_released = False
        """Whether the connection was handed over or lost."""
        self._lost = asyncio.Event()
        self._denial: tuple[int, _RawHeaders] | None = None
        self._body = b""
        self._early_data = b""
        self._asgi_protocol: WebSocketProtocol | None = None

    def begin(self) -> None:
        """Validate the handshake, and call the app if it is valid."""
        self._connections.add(self)
        self._transport.set_protocol(self)
        headers: list[tuple[bytes, bytes]] = list(self._request["headers"])
        try:
            url = httptools.parse_url(self._url)
        except httptools.HttpParserInvalidURLError:
            url = None
        if url is None or url.path is None:
            # A target without a path may be "http://host".
            self._refuse_early(http.HTTPStatus.BAD_REQUEST)
            return
        self._accept = self._accept_fast(headers)
        if not self._accept:
            self._accept_by_library(headers)
            if not self._accept:
                return
        task = self._loop.create_task(self._run(self._scope(url, headers)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _accept_fast(self, headers: list[tuple[bytes, bytes]]) -> str:
        """
        Return the accept key of a handshake in the form that all clients use.

        Any other request, valid or not, gets ""; `_accept_by_library` decides about it.
        """
        fields: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in fields and name in _SINGLE_FIELDS:
                return ""
            fields[name] = value
        key = fields.get(b"sec-websocket-key", b"")
        options = fields.get(b"connection", b"").lower()
        is_plain = (
            fields.get(b"upgrade", b"").lower() == b"websocket"
            and _OPTIONS.fullmatch(options)
            and b"upgrade" in map(bytes.strip, options.split(b","))
            and fields.get(b"sec-websocket-version") == b"13"
            and b"sec-websocket-protocol" not in fields
            and _KEY.fullmatch(key)
            and self._request["method"] == "GET"
            and self._request["http_version"] == "1.1"
        )
        return accept_key(key.decode()) if is_plain else ""

    def _accept_by_library(self, headers: _RawHeaders) -> None:
        """Validate a handshake with `websockets`, and send its response if invalid."""
        if not self._is_version_supported(headers):
            self._refuse_early(http.HTTPStatus.UPGRADE_REQUIRED)
            return
        fields = Headers()
        for name, value in headers:
            fields[name.decode("latin-1")] = value.decode("latin-1")
        response = _validator.accept(
            Request(
                self._url.decode("latin-1"),
                fields,
                self._request["method"],
                f"HTTP/{self._request['http_version']}",
            )
        )
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._accept = response.headers["Sec-WebSocket-Accept"]
        else:
            self._log_refusal(response.status_code)
            self._respond(response.serialize())

    def _is_version_supported(self, headers: _RawHeaders) -> bool:
        """
        Whether the versions of HTTP and WebSocket are ours, or missing.

        In HTTP/1.0 an upgrade is ignored (RFC 9110 section 7.8), and what is left of a
        handshake then needs one.
        """
        versions = [v.strip() for k, v in headers if k == b"sec-websocket-version"]
        is_http_1_1 = self._request["http_version"] == "1.1"
        return is_http_1_1 and (not versions or b"13" in versions)

    def _scope(self, url: URL, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
        request = self._request
        root = request["root_path"]
        offered = b",".join(v for k, v in headers if k == b"sec-websocket-protocol")
        names = offered.decode("latin-1").split(",")
        return {
            "type": "websocket",
            "asgi": {"version": request["asgi"]["version"], "spec_version": "2.4"},
            "http_version": request["http_version"],
            "scheme": "wss" if request["scheme"] == "https" else "ws",
            "server": request["server"],
            "client": request["client"],
            "root_path": root,
            "path": root + unquote(url.path.decode("ascii")),
            "raw_path": root.encode("ascii") + url.path,
            "query_string": url.query or b"",
            "headers": headers,
            "subprotocols": [name.strip() for name in names] if offered else [],
            "state": self._app_state.copy(),
            "extensions": {
                "websocket.http.response": {},
                EXTENSION: Handle(self._transport),
            },
        }

    # The app.

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except BaseException:
            _logger.exception("Exception in ASGI application\n")
            self._fail()
        else:
            if not self._is_responded and not self._is_released:
                _logger.error("ASGI callable returned without completing handshake.")
                self._fail()
        # As in uvicorn, a connection that the app left open is closed.
        if self._asgi_protocol is not None:
            if self._asgi_protocol.close_timer is None:
                self._transport.close()
        elif not self._is_released:
            self._transport.write(self._head)
            self._transport.close()

    async def _receive(self) -> Any:
        if self._asgi_protocol is None and self._head:
            self._continue_in_asgi()
        if self._asgi_protocol is not None:
            return await self._asgi_protocol.receive()
        if not self._connect_sent:
            self._connect_sent = True
            return {"type": "websocket.connect"}
        await self._lost.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Any) -> None:
        if self._asgi_protocol is None and self._head:
            self._continue_in_asgi()
        if self._asgi_protocol is not None:
            await self._asgi_protocol.send(message)
            return
        if self._is_released or self._transport.is_closing():
            raise ClientDisconnected
        kind = message["type"]
        if self._is_responded:
            raise RuntimeError(f"unexpected {kind!r} after the response")
        if kind == "websocket.accept":
            self._upgrade(message)
        elif kind == "websocket.close":
            self._refuse(http.HTTPStatus.FORBIDDEN)
        elif kind == "websocket.http.response.start" and self._denial is None:
            self._denial = message["status"], message.get("headers", ())
        elif kind == "websocket.http.response.body" and self._denial is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                self._respond(self._encode_denial(*self._denial))
        else:
            raise RuntimeError(f"unexpected {kind!r} before a response")

    def _upgrade(self, message: Any) -> None:
        self._is_responded = True
        fields = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", self._accept.encode()),
            *self._server_state.default_headers,
            *message.get("headers", ()),
        ]
        if subprotocol := message.get("subprotocol"):
            fields.append((b"sec-websocket-protocol", subprotocol.encode()))
        self._head = _encode_head(101, fields)
        # Unless the app hands the connection over in this iteration of the loop: then
        # the successor writes the head together with its first bytes.
        self._loop.call_soon(self._continue_in_asgi)

    def _encode_denial(self, status: int, headers: _RawHeaders) -> bytes:
        fields = {
            b"content-type": b"text/plain; charset=utf-8",
            **dict(self._server_state.default_headers),
            b"connection": b"close",
        }
        own_fields = [(name.lower(), value) for name, value in headers]
        for name, _ in own_fields:
            fields.pop(name, None)
        if not any(name == b"content-length" for name, _ in own_fields):
            fields[b"content-length"] = b"%d" % len(self._body)
        return _encode_head(status, [*fields.items(), *own_fields]) + self._body

    def _fail(self) -> None:
        if not self._is_responded and not self._is_released:
            self._refuse(http.HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refuse_early(self, status: http.HTTPStatus) -> None:
        """Refuse a handshake that the app will not see."""
        self._log_refusal(status)
        self._refuse(status)

    def _log_refusal(self, status: int) -> None:
        if self._logs:
            log_refusal(status, self._request["client"])

    def _refuse(self, status: http.HTTPStatus) -> None:
        self._respond(encode_refusal(status))

    def _respond(self, response: bytes) -> None:
        """Send a response that is not the upgrade, and close the connection."""
        self._is_responded = True
        if not self._transport.is_closing():
            self._transport.write(response)
            self._transport.close()

    # After the upgrade.

    def _continue_in_asgi(self) -> None:
        """Let the app read and write frames through ASGI, unless it gave up on it."""
        if self._is_released or self._asgi_protocol is not None:
            return
        self._is_released = True
        protocol_class: Any = self._config.ws_protocol_class
        frames: WebSocketProtocol = protocol_class(
            self._config, self._server_state, self._app_state
        )
        self._asgi_protocol = frames
        self._connections.discard(self)
        self._transport.write(self._head)
        self._transport.set_protocol(frames)
        frames.continue_from_handshake(self._transport, self._early_data)

    def hand_over(self, successor: Successor) -> None:
        self._is_released = True
        self._connections.discard(self)
        transport = self._transport
        transport.set_protocol(successor)
        transport.resume_reading()
        unread = UnreadInput.from_bytes(self._early_data, self._config.ws_max_size)
        successor.begin(transport, self._connections, unread, self._head)

    # The connection.

    def data_received(self, data: bytes) -> None:
        # A client has to wait for the upgrade. Earlier frames are read after it.
        self._early_data += data
        if len(self._early_data) > self._config.ws_max_size:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_released = True
        self._connections.discard(self)
        self._lost.set()

    def shutdown(self) -> None:
        """Refuse a client that got no response during the drain."""
        if not self._is_responded:
            self._refuse(http.HTTPStatus.SERVICE_UNAVAILABLE)


def _encode_head(status: int, fields: _RawHeaders) -> bytes:
    lines = [_status_line(status), *[b"%b: %b" % field for field in fields]]
    return b"\r\n".join([*lines, b"", b""])


@lru_cache(maxsize=32)
def _status_line(status: int) -> bytes:
    phrase = http.HTTPStatus(status).phrase.encode()
    return b"HTTP/1.1 %d %b" % (status, phrase)
