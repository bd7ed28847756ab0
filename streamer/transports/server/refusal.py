"""
Answers that no app has given.
"""

from __future__ import annotations

import http
from typing import Final

__all__ = ["LINGER_S", "encode_refusal"]

# Closing a socket that holds unread bytes resets the connection, and a reset destroys
# an answer the client has not read yet. So a refused client may go on sending into the
# void for a moment while it reads why.
LINGER_S: Final = 1.0


def encode_refusal(status: http.HTTPStatus) -> bytes:
    """Return a whole answer with `status` after which the connection is closed."""
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
