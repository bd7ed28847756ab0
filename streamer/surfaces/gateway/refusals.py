"""
The gateway surface's errors: statuses and messages.

Decides the status and the message of each error, as ``{status: "error", message}``.
Pure. Where the gateway's pages specify nothing, these rules apply:

Every problem with the credential is the one 401 of the pages, word for word: a missing
or invalid credential, another brand or player, and a token that may not read.

A problem of this server, such as an unavailable store, is the one 500 of the pages,
word for word; it has ``Retry-After`` if a retry may succeed. The pages have no limits:
409 means too many open streams of the player, 429 too many concurrent requests, 503 a
limit of this node, or that it is shutting down. These three have ``Retry-After``. A
request for the stream without ``Accept: text/event-stream`` is a 406.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ... import errors
from ...contract.responses import json_response, retry_after_of
from ...errors import Error, FieldError, Invalid

__all__ = ["UNAUTHORIZED", "GatewayError", "failed", "no_route", "refusal"]

UNAUTHORIZED: Final = "Unauthorized - Invalid or missing authentication token"
BAD_BODY: Final = "Bad Request - Invalid request body or missing message_ids"
INTERNAL: Final = "Internal server error"

_LIMITS: Final = {
    errors.Limit.LISTENERS_PER_PLAYER: 409,
    errors.Limit.REQUESTS_PER_PLAYER: 429,
    errors.Limit.REQUESTS_PER_APP: 429,
}
_encode: Final = msgspec.json.Encoder().encode


class GatewayError(msgspec.Struct, frozen=True):
    status: str
    message: str


def refusal(error: Error) -> Response:
    """Return the response to an error."""
    match error:
        case errors.Unauthenticated() | errors.Forbidden():
            status, message = 401, UNAUTHORIZED
        case Invalid(errors=(FieldError(where=("query", *_)), *_)):
            status, message = 400, f"Bad Request - {error}"
        case errors.Unsupported(header="Accept"):
            status, message = 406, f"Not Acceptable - {error}"
        case Invalid() | errors.Malformed() | errors.Unsupported():
            status, message = 400, BAD_BODY
        case errors.TooLarge():
            status, message = 413, f"Bad Request - {error}"
        case errors.LimitReached(limit=limit):
            status, message = _LIMITS.get(limit, 503), f"Limit reached - {error}"
        case errors.Draining():
            status, message = 503, f"Service unavailable - {error}"
        case errors.Unavailable():
            status, message = 500, INTERNAL
        case _:
            raise AssertionError(f"{error!r} is not in the table of refusals")
    return _response(status, message, retry_after_s=retry_after_of(error))


def no_route(error: HTTPException, headers: Headers) -> Response:
    """Return the response to a path or method that the gateway does not have."""
    return _response(error.status_code, error.detail, headers=error.headers)


def failed(headers: Headers) -> Response:
    """Return the response to a request that failed."""
    return _response(500, INTERNAL)


def _response(
    status: int,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    body = _encode(GatewayError("error", message))
    return json_response(body, status, headers=headers, retry_after_s=retry_after_s)
