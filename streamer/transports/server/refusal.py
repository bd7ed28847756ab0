"""
Responses that the server sends without calling the app.
"""

from __future__ import annotations

import http
from typing import Final

__all__ = ["LINGER_S", "encode_refusal"]

LINGER_S: Final = 1.0
"""
How long a refused client may go on sending before its connection is closed.

What it sends is discarded. Closing a socket with unread bytes resets the connection,
and a reset destroys a response that the client has not read yet.
"""


def encode_refusal(status: http.HTTPStatus) -> bytes:
    """Return a whole response with `status`; the connection is closed after it."""
    body = b'{"type":"about:blank","title":"%b","status":%d}' % (
        status.phrase.encode(),
        status,
    )
    return (
        b"HTTP/1.1 %d %b\r\n"
        b"content-type: application/problem+json\r\n"
        b"content-length: %d\r\n"
        b"connection: close\r\n\r\n%b"
    ) % (status, status.phrase.encode(), len(body), body)
