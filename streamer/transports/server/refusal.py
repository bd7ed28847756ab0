"""
Responses that the server sends without calling the app, and their lines in the log.
"""

from __future__ import annotations

import http
import logging
from typing import Final

from ...service.node.fast_log import emit

__all__ = ["LINGER_S", "WEBSOCKET_REQUIRED", "encode_refusal", "log_refusal"]

LINGER_S: Final = 1.0
"""
How long a refused client may go on sending before its connection is closed.

What it sends is discarded. Closing a socket with unread bytes resets the connection,
and a reset destroys a response that the client has not read yet.
"""


WEBSOCKET_REQUIRED: Final = (
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
)
"""
The headers of a 426: what the client has to send (RFC 6455 section 4.2.2).

The header ``Connection`` has to name ``Upgrade``, too (RFC 9110 section 7.8).
"""


# The app writes the lines of all other requests.
_logger = logging.getLogger("streamer.access")


def log_refusal(status: int, client: tuple[str, int] | None) -> None:
    """Log a request that the app will not see, from the peer at `client`."""
    fields = {
        "status": int(status),
        "client": client[0] if client else "",
        "refusal": "not_http",
        "reason": _REASONS.get(status, "malformed"),
    }
    emit(_logger, f"request refused: {status:d}", fields, logging.INFO)


_REASONS: Final[dict[int, str]] = {
    http.HTTPStatus.REQUEST_TIMEOUT: "too_slow",
    http.HTTPStatus.REQUEST_URI_TOO_LONG: "url_too_long",
    http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "headers_too_large",
    http.HTTPStatus.UPGRADE_REQUIRED: "no_websocket_upgrade",
}


def encode_refusal(status: http.HTTPStatus) -> bytes:
    """Return a whole response with `status`; the connection is closed after it."""
    fields: tuple[tuple[bytes, bytes], ...] = ((b"connection", b"close"),)
    if status is http.HTTPStatus.UPGRADE_REQUIRED:
        fields = ((b"connection", b"close, upgrade"), *WEBSOCKET_REQUIRED)
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    body = b'{"type":"about:blank","title":"%b","status":%d}' % (
        status.phrase.encode(),
        status,
    )
    return (
        b"HTTP/1.1 %d %b\r\n"
        b"content-type: application/problem+json\r\n"
        b"content-length: %d\r\n"
        b"%b\r\n%b"
    ) % (status, status.phrase.encode(), len(body), head, body)
