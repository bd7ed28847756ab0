"""
HTTP/1.1 on one connection, bounded in bytes and in time.

Decides when a request is refused before the app sees it: a head, URL or trailer over
its limit, a Host or Transfer-Encoding that two servers could read differently, bytes
that are not HTTP, and a peer that starts something and does not finish it. Knows
uvicorn's `HttpToolsProtocol`, which parses, calls the app and writes its answer, and
has none of these limits. Knows nothing of what the app does; the size and encoding of
a body are the app's business.

One deadline runs at a time, and it follows from where the connection stands::

                    first byte of a head           head complete
      WAITING ---------------------------> HEAD --------------------> BODY
      first_request_s,                     header_timeout_s           body_timeout_s
      later keep-alive                                                  |
          ^                                                             | complete
          |                 answer complete                             v
          +---------------------------------------------------------- ANSWERING
                                                                       no deadline

so a long poll or an event stream, whose request is complete, is never timed here. All
three are totals and not the time since the last byte: a peer that sends one byte a
second makes progress for ever and holds a connection and a task while it does.
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
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from ...config import Config
from .handle import (
    EXTENSION,
    WRITE_BUFFER_HIGH_BYTES,
    WRITE_BUFFER_LOW_BYTES,
    Detachable,
    Handle,
    Successor,
)
from .handshake_protocol import Handshake
from .refusal import LINGER_S, encode_refusal

__all__ = ["HttpProtocol", "http_protocol"]

logger = logging.getLogger(__name__)

# A connection that is silent for longer was made in advance, as browsers do.
NEW_CONNECTION_S: Final = 0.5

# Room in a head for what no limit counts: method, version, line ends, optional space.
HEAD_SLACK_BYTES: Final = 1_024

# uri-host [ ":" port ] of RFC 3986, with the empty value RFC 9112 section 3.2 allows.
_HOST: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?"
)

_CONTINUE: Final = b"HTTP/1.1 100 "


class _Stage(enum.Enum):
    """What of a request is being read."""

    NOTHING, HEAD, BODY = range(3)


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser."""

    def __init__(self, status: http.HTTPStatus) -> None:
        self.status = status


class _ResponseTransport(asyncio.Transport):
    """
    What an answer is written to: its head goes out with what follows it.

    uvicorn writes the two apart. Each write is a system call, a packet, and a client
    that is woken up. A head that nothing follows goes out at the end of its turn.
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
        """Return what is held back; whoever takes it writes it."""
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


class HttpProtocol(HttpToolsProtocol, Detachable):
    """One HTTP connection. Use `http_protocol` to get a class with its limits."""

    limits: ClassVar[Config]

    def __init__(
        self,
        config: UvicornConfig,
        server_state: ServerState,
        app_state: dict[str, Any],  # uvicorn's: what a lifespan left, here nothing
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._stage = _Stage.NOTHING
        self._request_count = 0
        self._made_at_s = 0.0
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_for: tuple[int, _Stage, bool] | None = None
        self._raw_bytes = 0
        self._raw_bytes_max = (
            self.limits.header_bytes_max + self.limits.url_bytes_max + HEAD_SLACK_BYTES
        )
        self._field_bytes = 0
        self._host_count = 0
        self._chunked = False

    # The connection.

    def connection_made(  # type: ignore[override]  # as in uvicorn: never a pipe
        self, transport: asyncio.Transport
    ) -> None:
        # As uvicorn does, but for the names of both ends: it asks the transport's own
        # socket, which keeps them for as long as there is a connection.
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

    @property
    def is_new(self) -> bool:
        """Whether its first request is on its way, as far as one can tell."""
        if self._stage is _Stage.NOTHING and self._request_count:
            return False
        return self.loop.time() - self._made_at_s < NEW_CONNECTION_S

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        # The parser keeps half a field until it is whole and tells nobody, so raw bytes
        # are counted since it last reported something finished. A read that ends one
        # request and begins the next escapes the count, once: one read is bounded.
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
        End what the drain left: streams at once, a request before its answer may end.

        An answer that has begun and is not complete is a stream; what is written of any
        other answer is written whole.
        """
        if self._is_responding() and not self.cycle.response_started:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    # Letting go.

    def hand_over(self, successor: Successor) -> None:
        self._clear_deadline()
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        # The app returns with an answer that is not complete.
        self.cycle.disconnected = True
        # They hold each other.
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

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes_max:
            raise _Refused(http.HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value) + len(b": \r\n")
        if (
            self._field_bytes > self.limits.header_bytes_max
            or len(self.headers) >= self.limits.header_count_max
        ):
            raise _Refused(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if self._stage is _Stage.BODY:
            # A trailer. Added to the headers it could give the app, which is reading
            # them already, a second Authorization or Content-Type.
            return
        super().on_header(name, value)
        self._check_framing(*self.headers[-1])

    def on_headers_complete(self) -> None:
        self._check_version(self.parser.get_http_version())
        super().on_headers_complete()
        # Unless this is an upgrade; then the last request's is still there, if any.
        if self.cycle is not None and self.cycle.transport is self.transport:
            self.cycle.transport = _ResponseTransport(self.transport)
        self._stage = _Stage.BODY
        self._raw_bytes = 0

    def on_body(self, body: bytes) -> None:
        self._raw_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stage = _Stage.NOTHING
        self._raw_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn times the idle connection from here, even if the next request is half
        # read; `_set_deadline` knows.
        self._unset_keepalive_if_required()
        if not self.transport.is_closing():
            self._set_deadline()

    # Upgrades.

    def _upgrade(self) -> None:
        if not self._should_upgrade():
            # An upgrade nobody speaks, such as h2c, is ignored as RFC 9110 section 7.8
            # has it. The parser stopped behind this head, hence no further request.
            self.cycle.keep_alive = False
            self._set_deadline()
        elif self._is_responding():
            # The WebSocket would write into the answer of an earlier request.
            self._refuse(http.HTTPStatus.BAD_REQUEST)
        else:
            self._clear_deadline()
            self.connections.discard(self)
            Handshake(self).begin()
            # Nobody tells this object that the connection is lost, and it and its
            # parser hold each other: free it here, not at some collection.
            self.parser = None  # type: ignore[assignment]  # as uvicorn does itself

    # Deadlines.

    def _set_deadline(self) -> None:
        """Start the deadline of where the connection stands, unless it is running."""
        state = (self._request_count, self._stage, self._is_responding())
        if self._refused or state == self._deadline_for:
            return
        self._clear_deadline()
        self._deadline_for = state
        seconds = self._deadline_s()
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._expire)

    def _clear_deadline(self) -> None:
        self._deadline_for = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

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

    def _expire(self) -> None:
        self._deadline = None
        if self._stage is _Stage.BODY and self.flow.read_paused:
            # It is us who do not read: the app has not asked for more yet.
            self._deadline_for = None
            self._set_deadline()
        elif self._stage is _Stage.NOTHING:
            self.transport.close()
        else:
            self._refuse(http.HTTPStatus.REQUEST_TIMEOUT)

    # Refusals.

    def _check_framing(self, name: bytes, value: bytes) -> None:
        """Refuse what a proxy in front might have understood differently."""
        if name == b"host":
            self._host_count += 1
            if not _HOST.fullmatch(value):
                raise _Refused(http.HTTPStatus.BAD_REQUEST)
        elif name == b"transfer-encoding":
            self._chunked = True
            if value.lower() != b"chunked":
                raise _Refused(http.HTTPStatus.BAD_REQUEST)

    def _check_version(self, version: str) -> None:
        """Refuse a head that its version of HTTP does not allow."""
        if version == "1.1":
            allowed = self._host_count == 1
        else:
            # RFC 9112 section 6.1: in HTTP/1.0 the framing of such a body is faulty.
            allowed = version == "1.0" and self._host_count < 2 and not self._chunked
        if not allowed:
            raise _Refused(http.HTTPStatus.BAD_REQUEST)

    def _refuse_for(self, exc: httptools.HttpParserError) -> None:
        cause = exc.__context__
        if isinstance(cause, _Refused):
            self._refuse(cause.status)
        else:
            logger.debug("%s sent a malformed request: %r", self.client, cause or exc)
            self._refuse(http.HTTPStatus.BAD_REQUEST)

    def _refuse(self, status: http.HTTPStatus) -> None:
        """Read nothing more, and answer if the answer would be in its place."""
        logger.debug("%s is refused with %d", self.client, status)
        self._refused = True
        self._clear_deadline()
        if self._stage is not _Stage.BODY and self._is_responding():
            # Earlier requests come first, and after them the connection is closed.
            self.cycle.keep_alive = False
        elif self._stage is _Stage.BODY and not self._take_over_response():
            self.transport.close()
        else:
            self._respond_and_close(encode_refusal(status))

    def _take_over_response(self) -> bool:
        """Take the answer to the request being read away from the app, if possible."""
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
        self._deadline = self.loop.call_later(LINGER_S, self.transport.close)

    def _is_responding(self) -> bool:
        # uvicorn's declaration leaves out that there is no cycle at first.
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete


def _addresses(
    transport: asyncio.Transport,
) -> tuple[tuple[str, int | None] | None, tuple[str, int] | None]:
    """Return the addresses of this end and the other, as uvicorn gives them."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return get_local_addr(transport), get_remote_addr(transport)
    # What it is said to be is no matter: the kernel knows what the names are of.
    borrowed = socket.SocketType(fileno=sock.fileno())
    local = remote = None
    try:
        local = borrowed.getsockname()
        remote = borrowed.getpeername()
    except OSError:
        pass  # It has left already.
    finally:
        borrowed.detach()
    if isinstance(local, str):
        return (local, None), None  # A Unix socket, whose other end has no name.
    return local and local[:2], remote and remote[:2]


def http_protocol(config: Config) -> type[HttpProtocol]:
    """Return the protocol class whose limits are those of `config`."""

    class Limited(HttpProtocol):
        limits = config

    return Limited
