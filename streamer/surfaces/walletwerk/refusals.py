"""
The WalletWerk surface's errors: statuses and codes.

Decides the status and the code of each error, as
``{success: false, error: {code, message}}``. Pure. WalletWerk's pages specify no
statuses, so these rules apply:

400 for an invalid request; 401, 403 and 404 as usual; 409 for a notification that can
no longer be cancelled, and for an idempotency key of a different request; 413; 415; 429
for limits; 500 if the request failed; 503. ``NOTIFICATION_LIMIT_EXCEEDED``, the limit
of a campaign, has no ``Retry-After``, since waiting does not help.
``RATE_LIMIT_EXCEEDED``, a quota of the app, has one.
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
from ...errors import Error, Invalid

__all__ = ["failed", "no_route", "refusal"]

_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
_encode: Final = msgspec.json.Encoder().encode


def refusal(error: Error) -> Response:
    """Return the response to an error."""
    headers = None
    message = str(error)
    match error:
        case errors.Unauthenticated():
            status, code = 401, "INVALID_API_KEY"
            message = f"The API key is not valid: {error}"
            headers = _CHALLENGE
        case errors.Forbidden():
            status, code = 403, "INSUFFICIENT_SCOPE"
        case errors.NotFound(what=what):
            status, code = 404, f"{what.rpartition(' ')[2].upper()}_NOT_FOUND"
        case errors.UsedUp(maximum=maximum):
            status, code = 429, "NOTIFICATION_LIMIT_EXCEEDED"
            message = f"A campaign may have {maximum} notifications in its lifetime"
        case errors.OverQuota():
            status, code = 429, "RATE_LIMIT_EXCEEDED"
        case errors.TooLate(state=state):
            status, code = 409, "NOTIFICATION_NOT_PENDING"
            message = (
                f"Only pending notifications can be cancelled. This one is {state}"
            )
        case errors.Conflict():
            status, code = 409, "IDEMPOTENCY_KEY_REUSED"
        case errors.TooLarge():
            status, code = 413, "PAYLOAD_TOO_LARGE"
        case errors.Unsupported():
            status, code = 415, "UNSUPPORTED_MEDIA_TYPE"
        case errors.Malformed():
            status, code = 400, "VALIDATION_ERROR"
        case Invalid():
            status, code = 400, "VALIDATION_ERROR"
            message = message.replace("body.send_at", "body.scheduledFor")
        case errors.Unavailable():
            status, code = 503, "SERVICE_UNAVAILABLE"
        case _:
            raise AssertionError(f"{error!r} is not in the table of refusals")
    return _response(
        status, code, message, headers=headers, retry_after_s=retry_after_of(error)
    )


def no_route(error: HTTPException, headers: Headers) -> Response:
    """Return the response to a path or method that WalletWerk does not have."""
    codes = {400: "VALIDATION_ERROR", 405: "METHOD_NOT_ALLOWED"}
    code = codes.get(error.status_code, "NOT_FOUND")
    return _response(error.status_code, code, error.detail, headers=error.headers)


def failed(headers: Headers) -> Response:
    """Return the response to a request that failed."""
    return _response(500, "INTERNAL_ERROR", "internal server error")


def _response(
    status: int,
    code: str,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    body = _encode({"success": False, "error": {"code": code, "message": message}})
    return json_response(body, status, headers=headers, retry_after_s=retry_after_s)
