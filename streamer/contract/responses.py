"""
JSON responses, with the headers that have the same meaning on every surface.

Decides the form of a response, never its content. Knows which errors tell when to
retry. Knows no surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from ..errors import Error, LimitReached, OverQuota, RateLimited, Unavailable
from ..transports.web.requests import JSON, RawResponse

__all__ = ["json_response", "no_content", "retry_after_of"]

_CONTENT_TYPE: Final = (b"content-type", JSON.encode())


def json_response(
    body: bytes,
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    media_type: str = JSON,
    replayed: bool = False,
    retry_after_s: int | None = None,
) -> Response:
    """
    Return a response.

    Args:
        body: JSON text.
        status: The HTTP status.
        headers: Additional headers.
        media_type: A JSON media type.
        replayed: Whether an earlier request with the same idempotency key had this
            response.
        retry_after_s: Seconds to wait before a retry. None omits ``Retry-After``.

    """
    sent = [(b"content-length", b"%d" % len(body))]
    if media_type is JSON:
        sent.append(_CONTENT_TYPE)
    else:
        sent.append((b"content-type", media_type.encode()))
    if replayed:
        sent.append((b"idempotent-replayed", b"true"))
    if retry_after_s is not None:
        sent.append((b"retry-after", b"%d" % retry_after_s))
    if headers:
        sent += [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
    return RawResponse(status, sent, body)


def no_content() -> Response:
    """Return a response without a body."""
    return RawResponse(204, [])


def retry_after_of(error: Error) -> int | None:
    """Return how many seconds to wait before a retry, None if the error has no time."""
    match error:
        case (
            LimitReached(retry_after_s=retry_after_s)
            | OverQuota(retry_after_s=retry_after_s)
            | RateLimited(retry_after_s=retry_after_s)
            | Unavailable(retry_after_s=retry_after_s)
        ):
            return retry_after_s
    return None
