"""
HTTP/1.1 on one connection, with limits on bytes and time.

Refuses before the app is called: a head, URL or trailer over its limit, a Host or
Transfer-Encoding that two servers could interpret differently, bytes that are not HTTP,
and a request that is not completed in time. Knows uvicorn's `HttpToolsProtocol`, which
parses requests, calls the app and writes its responses, and has none of these limits.
Knows nothing of the app, which limits the size and encoding of bodies.

One deadline runs at a time. It depends on the state of the connection::

                    first byte of a head           head complete
      WAITING ---------------------------> HEAD --------------------> BODY
      first_request_s,                     header_timeout_s           body_timeout_s
      later keep_alive_s                                                |
          ^                                                             | complete
          |                 response complete                           v
          +---------------------------------------------------------- RESPONDING
                                                                       no deadline

The timer is not that of the deadline: it goes on when a deadline ends or is postponed,
and runs out once or twice for a connection that is in use, instead of being set and
cancelled for each request.

A long poll or an event stream has no deadline here, since its request is complete. All
three deadlines are totals, not times since the last byte: otherwise a peer that sends
one byte per second could hold a connection and a task indefinitely.
"""

from __future__ import annotations

import asyncio
import enum
import http
import logging
import re
import socket
from typing import Any, ClassVar, Final

import httptools
from uvicorn import Config as UvicornConfig
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from ...config import Config
from .direct import DirectApp, DirectCycle
from .handle import (
    EXTENSION,
    WRITE_BUFFER_HIGH_BYTES,
    WRITE_BUFFER_LOW_BYTES,
    Detachable,
    Handle,
    Successor,
)
from .handshake_protocol import Handshake
from .idle_connections import (
    FDS_BESIDE_CONNECTIONS,
    IdleConnections,
    MayBeIdle,
    Waiting,
    WaitingFor,
)
from .read_first import call_after_reading
from .refusal import LINGER_S, encode_refusal, log_refusal

__all__ = ["UNLIMITED_FDS", "HttpProtocol", "http_protocol"]

logger = logging.getLogger(__name__)

NEW_CONNECTION_S: Final = 0.5
"""
How long a new connection's first request is expected.

Browsers open connections in advance, which stay silent for longer.
"""

IN_USE_S: Final = 0.25
"""
How long a kept-alive connection counts as in use after a response.

The connections of a proxy's pool under load are used again within milliseconds.
"""

HEAD_SLACK_BYTES: Final = 1_024
"""Bytes of a head that no limit counts: method, version, line ends, white space."""

FIELD_SLACK_BYTES: Final = len(b": \r\n")
"""What counts of a field besides its name and its value."""

# uri-host [ ":" port ] of RFC 3986, with the empty value RFC 9112 section 3.2 allows.
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?"
)

_CHECKED_FIELDS: Final = frozenset({b"expect", b"host", b"transfer-encoding"})

UNLIMITED_FDS: Final = 1 << 30

_CONTINUE: Final = b"HTTP/1.1 100 "

_CLOSE: Final = (b"connection", b"close")


class _Stage(enum.Enum):
    """The part of a request that is being read."""

    NOTHING, HEAD, BODY = range(3)


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser."""

    def __init__(self, status: http.HTTPStatus) -> None:
        self.status = status


class _ResponseTransport(asyncio.Transport):
    """
    The transport that responses are written to: it writes a head with what follows.

    uvicorn writes head and body separately, which costs a system call, a packet, and a
    wake-up of the client. A head that nothing follows is written at the end of the
    present iteration of the event loop.
    """

    __slots__ = ("_has_head", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._has_head = False
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._has_head:
            self._transport.write(self.take_head() + data)
        elif bytes(data).startswith(_CONTINUE):
            self._transport.write(data)
        else:
            self._has_head = True
            self._head = bytes(data)
            asyncio.get_running_loop().call_soon(self._flush)

    def take_head(self) -> bytes:
        """Return the head that is held back; the caller writes it."""
        head, self._head = self._head, b""
        return head

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head = self.take_head()
        if head and not self._transport.is_closing():
            self._transport.write(head)


class HttpProtocol(HttpToolsProtocol, Detachable, MayBeIdle):
    """One HTTP connection. `http_protocol` returns a class with limits."""

    limits: ClassVar[Config]
    idle_connections: ClassVar[IdleConnections]
    direct: ClassVar[DirectApp | None]

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],  # the state of uvicorn's lifespan, here empty
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._stage = _Stage.NOTHING
        self._request_count = 0
        self._made_at_s = 0.0
        self._refused = False
        self._deadline: float | None = None
        """By the loop's time."""
        self._deadline_for: tuple[int, _Stage, bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ends_s = 0.0
        self._receiving: DirectCycle | None = None
        """The request whose body is received, if it is answered beneath ASGI."""
        self._raw_bytes = 0
        self._raw_bytes_max = (
            self.limits.header_bytes_max + self.limits.url_bytes_max + HEAD_SLACK_BYTES
        )
        self._field_bytes = 0
        self._host_count = 0
        self._chunked = False
        self._upgrades: bool | None = None
        """Whether the request is for a WebSocket, None before anybody has asked."""
        self._is_last = False

    # The connection.

    def connection_made(  # type: ignore[override]  # as in uvicorn: never a pipe
        self, transport: asyncio.Transport
    ) -> None:
        # As in uvicorn, except for the addresses: uvicorn asks the transport's socket
        # object, which caches them for the life of the connection.
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server, self.client = _addresses(transport)
        self.scheme = "https" if is_ssl(transport) else "http"
        transport.set_write_buffer_limits(
            WRITE_BUFFER_HIGH_BYTES, WRITE_BUFFER_LOW_BYTES
        )
        self._handle = Handle(transport)
        self._made_at_s = self.loop.time()
        self._set_deadline()
        self.idle_connections.note_opened(self.connections)

    @property
    def awaits_request(self) -> bool:
        """
        Whether a request is probably on its way, or being received.

        That is so on a new connection, and on one that is in use.
        """
        now_s = self.loop.time()
        if self._stage is not _Stage.NOTHING or not self._request_count:
            return now_s - self._made_at_s < NEW_CONNECTION_S
        if self._is_responding() or self._deadline is None:
            return False
        idle_since_s = self._deadline - self.timeout_keep_alive
        return now_s - idle_since_s < IN_USE_S

    def announce_close(self) -> None:
        """
        Say in the next response that the connection is closed after it.

        A proxy then sends no further request on it, which would meet its end.
        """
        self._is_last = True
        if self._is_responding():
            self._mark_last()

    def _mark_last(self) -> None:
        if not self.cycle.response_started:
            self.cycle.default_headers = [*self.cycle.default_headers, _CLOSE]

    def waiting(self) -> Waiting | None:
        deadline, seconds = self._deadline, self._deadline_s()
        if self._refused or deadline is None or seconds is None:
            return None
        if self._stage is _Stage.HEAD:
            what = WaitingFor.HEAD
        elif self._stage is _Stage.BODY:
            what = WaitingFor.BODY
        elif self._request_count == 0:
            what = WaitingFor.FIRST_REQUEST
        else:
            what = WaitingFor.NEXT_REQUEST
        return Waiting(what, deadline - seconds)

    def close_idle(self) -> None:
        self._refused = True
        self._clear_deadline()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        # The parser buffers an incomplete field without a callback, so the raw bytes
        # since its last callback are counted. A read that ends one request and begins
        # the next is not counted in full, once; the size of a read is bounded.
        self._raw_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
        except httptools.HttpParserError as exc:
            self._refuse_for(exc)
        else:
            if self._raw_bytes > self._raw_bytes_max:
                self._refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            else:
                self._set_deadline()

    def shutdown(self) -> None:
        """
        Close what the drain left open; a request without a response gets one first.

        A response that has begun and is not complete is a stream, and is cut off. All
        other responses are written as a whole.
        """
        if self._is_responding() and not self.cycle.response_started:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    # The handover.

    def hand_over(self, successor: Successor) -> None:
        self._clear_deadline()
        self.connections.discard(self)
        # The app returns with an incomplete response.
        self.cycle.disconnected = True
        # The parser and this protocol refer to each other.
        self.parser = None  # type: ignore[assignment]  # as uvicorn does itself
        self._refused = True
        transport = self.transport
        transport.set_protocol(successor)
        self.flow.resume_reading()
        response = self.cycle.transport
        assert isinstance(response, _ResponseTransport)
        successor.begin(transport, self.connections, None, response.take_head())

    def disable_chunking(self) -> None:
        self.cycle.chunked_encoding = False

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self._handle}  # type: ignore[dict-item]  # ASGI allows any value
        self._stage = _Stage.HEAD
        self._request_count += 1
        self._field_bytes = 0
        self._host_count = 0
        self._chunked = False
        self._upgrades = None

    def on_url(self, url: bytes) -> None:
        # As in uvicorn, whose method would be a second call.
        self.url += url
        if len(self.url) > self.limits.url_bytes_max:
            raise _Refused(http.HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value) + FIELD_SLACK_BYTES
        if (
            self._field_bytes > self.limits.header_bytes_max
            or len(self.headers) >= self.limits.header_count_max
        ):
            raise _Refused(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if self._stage is _Stage.BODY:
            # A trailer. Among the headers, which the app is already reading, it could
            # be a second Authorization or Content-Type.
            return
        # As in uvicorn, whose method would be a second call for each field.
        name = name.lower()
        if name in _CHECKED_FIELDS:
            self._check_field(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        self._check_version(version)
        if version == "1.0":
            # RFC 9110 section 10.1.1: the client could not read a 100.
            self.expect_100_continue = False
        before = self.cycle
        self._receiving = self._begin_direct(version)
        if self._receiving is None:
            super().on_headers_complete()
            # After an upgrade request `cycle` still belongs to the one before, if any.
            if self.cycle is not before:
                self.cycle.transport = _ResponseTransport(self.transport)
        if self._is_last and self.cycle is not before:
            self._mark_last()
        self._stage = _Stage.BODY
        self._raw_bytes = 0

    def _begin_direct(self, version: str) -> DirectCycle | None:
        """Begin to answer a request beneath ASGI, if it is one of those."""
        is_unusual = (
            version != "1.1"
            or self._chunked
            or self.expect_100_continue
            or self.parser.should_upgrade()
        )
        if self.direct is None or is_unusual:
            return None
        self.scope["method"] = self.parser.get_method().decode("ascii")
        answer = self.direct.find(self.scope, self.url)  # type: ignore[arg-type]  # a TypedDict
        if answer is None:
            return None
        # From here on as in uvicorn.
        before: Any = self.cycle
        cycle = DirectCycle(
            self.scope,  # type: ignore[arg-type]  # a TypedDict
            self.transport,
            self.flow,
            self.server_state.default_headers,
            keep_alive=self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        for_uvicorn: Any = cycle
        app: Any = answer
        self.cycle = for_uvicorn
        if before is None or before.response_complete:
            self._start_asgi_task(for_uvicorn, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((for_uvicorn, app))
        return cycle

    def on_body(self, body: bytes) -> None:
        self._raw_bytes = 0
        if self._receiving is None:
            super().on_body(body)
        elif self._receiving.add_body(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self._stage = _Stage.NOTHING
        self._raw_bytes = 0
        if self._receiving is None:
            super().on_message_complete()
        else:
            self._receiving.end_body()

    def on_response_complete(self) -> None:
        # As in uvicorn, except for its keep-alive timeout, which it would start even if
        # part of the next request was read; `_set_deadline` takes that into account.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        self._set_deadline()

    # Upgrades.

    def _should_upgrade(self) -> bool:
        # Asked three times for each handshake; uvicorn reads the headers each time.
        if self._upgrades is None:
            self._upgrades = super()._should_upgrade()
        return self._upgrades

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # An unsupported upgrade, such as h2c, is ignored (RFC 9110 section 7.8).
            # The parser stopped after this head, so no further request can follow.
            self.cycle.keep_alive = False
            self._set_deadline()
        elif self._is_responding():
            # The WebSocket would write into the response to an earlier request.
            self._refuse(http.HTTPStatus.BAD_REQUEST)
        else:
            self._clear_deadline()
            self.connections.discard(self)
            Handshake(self, logs=self.limits.access_log).begin()
            # This object gets no `connection_lost`. It and its parser refer to each
            # other; without this they would be freed only by the garbage collector.
            self.parser = None  # type: ignore[assignment]  # as uvicorn does itself

    # Deadlines.

    def _set_deadline(self) -> None:
        """Start the deadline of the connection's state, unless it is running."""
        state = (self._request_count, self._stage, self._is_responding())
        if self._refused or state == self._deadline_for:
            return
        self._deadline_for = state
        seconds = self._deadline_s()
        if seconds is None:
            self._deadline = None
            return
        self._deadline = self.loop.time() + seconds
        if self._timer is None or self._deadline < self._timer_ends_s:
            self._start_timer(self._deadline)

    def _clear_deadline(self) -> None:
        self._deadline_for = self._deadline = None
        self._stop_timer()

    def _start_timer(self, ends_s: float) -> None:
        self._stop_timer()
        self._timer_ends_s = ends_s
        self._timer = self.loop.call_at(ends_s, self._end_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_timer(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self.loop.time() < self._deadline:
            self._start_timer(self._deadline)
        else:
            self._on_deadline()

    def _deadline_s(self) -> float | None:
        if self._stage is _Stage.HEAD:
            return self.limits.header_timeout_s
        if self._stage is _Stage.BODY:
            return self.limits.body_timeout_s
        if self._is_responding():
            return None
        if self._request_count == 0:
            return self.limits.first_request_s
        return self.timeout_keep_alive

    def _on_deadline(self) -> None:
        self._deadline = None
        call_after_reading(self.loop, self._expire, self._deadline_for)

    def _expire(self, deadline_for: tuple[int, _Stage, bool] | None) -> None:
        if deadline_for is not self._deadline_for:
            return  # It has arrived, or the connection is lost.
        if self._stage is _Stage.BODY and self.flow.read_paused:
            # Reading is paused: the app has not requested more of the body yet.
            self._deadline_for = None
            self._set_deadline()
        elif self._stage is _Stage.NOTHING:
            self.transport.close()
        else:
            self._refuse(http.HTTPStatus.REQUEST_TIMEOUT)

    # Refusals.

    def _check_field(self, name: bytes, value: bytes) -> None:
        """Refuse fields that a proxy might have interpreted differently."""
        if name == b"host":
            self._host_count += 1
            if not _HOST.fullmatch(value):
                raise _Refused(http.HTTPStatus.BAD_REQUEST)
        elif name == b"transfer-encoding":
            self._chunked = True
            if value.lower() != b"chunked":
                raise _Refused(http.HTTPStatus.BAD_REQUEST)
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def _check_version(self, version: str) -> None:
        """Refuse a head that its HTTP version does not allow."""
        if version == "1.1":
            allowed = self._host_count == 1
        else:
            # RFC 9112 section 6.1: chunked encoding is not defined for HTTP/1.0.
            allowed = version == "1.0" and self._host_count < 2 and not self._chunked
        if not allowed:
            raise _Refused(http.HTTPStatus.BAD_REQUEST)

    def _refuse_for(self, exc: httptools.HttpParserError) -> None:
        cause = exc.__context__
        if isinstance(cause, _Refused):
            self._refuse(cause.status)
        else:
            logger.debug("malformed request from %s: %r", self.client, cause or exc)
            self._refuse(http.HTTPStatus.BAD_REQUEST)

    def _refuse(self, status: http.HTTPStatus) -> None:
        """Stop reading, and respond with `status` if no response is in progress."""
        if self.limits.access_log:
            log_refusal(status, self.client)
        self._refused = True
        self._clear_deadline()
        if self._stage is not _Stage.BODY and self._is_responding():
            # Earlier requests get their responses, then the connection is closed.
            self.cycle.keep_alive = False
        elif self._stage is _Stage.BODY and not self._take_over_response():
            self.transport.close()
        else:
            self._respond_and_close(encode_refusal(status))

    def _take_over_response(self) -> bool:
        """Respond instead of the app to the request being read; return whether so."""
        if self.cycle is None or self.cycle.response_started or self.pipeline:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True

    def _respond_and_close(self, response: bytes) -> None:
        self.transport.write(response)
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _is_responding(self) -> bool:
        # Before the first request `cycle` is None, which uvicorn's annotation omits.
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete


def _addresses(
    transport: asyncio.Transport,
) -> tuple[tuple[str, int | None] | None, tuple[str, int] | None]:
    """Return the local and the remote address in the form that uvicorn uses."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return get_local_addr(transport), get_remote_addr(transport)
    # The address family is irrelevant here: the kernel knows it.
    borrowed = socket.SocketType(fileno=sock.fileno())
    local = remote = None
    try:
        local = borrowed.getsockname()
        remote = borrowed.getpeername()
    except OSError:
        pass  # The peer has disconnected already.
    finally:
        borrowed.detach()
    if isinstance(local, str):
        return (local, None), None  # A Unix socket, whose peer has no address.
    return local and local[:2], remote and remote[:2]


def http_protocol(
    config: Config,
    *,
    fds_max: int = UNLIMITED_FDS,
    direct: DirectApp | None = None,
) -> type[HttpProtocol]:
    """
    Return a protocol class with the limits of `config`.

    Args:
        config: The settings.
        fds_max: Number of files that the process can open.
        direct: Answers some requests beneath ASGI.

    """
    direct_app = direct

    class Limited(HttpProtocol):
        limits = config
        direct = direct_app
        idle_connections = IdleConnections(max(1, fds_max - FDS_BESIDE_CONNECTIONS))

    return Limited
