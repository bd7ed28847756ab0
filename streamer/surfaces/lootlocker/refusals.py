"""
The LootLocker surface's errors: statuses and codes.

Decides statuses and codes of ``{code, message, request_id, trace_id}``. Pure. The codes
``parameter_missing``, ``parameter_invalid``, ``request_body_invalid`` and
``internal_server_error`` are LootLocker's (docs.lootlocker.com, error codes, read
2026-11). Their statuses are not public; here they are 400, except the last. The other
codes follow the same style. `param` names the invalid field; with several, the message
has all of them.

An unknown caller gets 401, a caller without the right 403; the SDKs start a new session
on both. Too many requests in flight of a player or a game, and a used quota, are 429.
Problems of this server are 503. 429 and 503 have ``Retry-After``.

`request_id` and `trace_id` are the id of the request: the response has it as
``X-Request-Id``, and so has the log. It is the client's ``LL-Request-Id``, if that is 1
to 64 letters, digits, ``_`` or ``-``, unless the client or a proxy sends an
``X-Request-Id``. There is no `doc_url`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ... import errors
from ...contract.responses import json_response, retry_after_of
from ...errors import Error, FieldError, Invalid

__all__ = ["failed", "no_route", "refusal"]

_encode: Final = msgspec.json.Encoder().encode
_RATE_LIMITS: Final = (
    errors.Limit.REQUESTS_PER_PLAYER,
    errors.Limit.REQUESTS_PER_APP,
)
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def refusal(error: Error, request: str) -> Response:
    """Return the response to an error of the request with the id `request`."""
    match error:
        case Invalid(errors=fields):
            return _invalid(fields, request)
        case errors.Malformed():
            outcome = 400, "request_body_invalid"
        case errors.Unsupported():
            outcome = 415, "request_body_invalid"
        case errors.TooLarge():
            outcome = 413, "request_body_too_large"
        case errors.Unauthenticated():
            outcome = 401, "unauthorized"
        case errors.Forbidden():
            outcome = 403, "forbidden"
        case errors.Conflict():
            outcome = 422, "idempotency_key_reused"
        case errors.LimitReached(limit=limit) if limit in _RATE_LIMITS:
            outcome = 429, "rate_limited"
        case errors.OverQuota():
            outcome = 429, "rate_limited"
        case errors.LimitReached() | errors.Unavailable():
            outcome = 503, "service_unavailable"
        case _:
            raise AssertionError(f"{error!r} is not in the table of refusals")
    retry_after_s = retry_after_of(error)
    return _response(*outcome, str(error), request, retry_after_s=retry_after_s)


def no_route(error: HTTPException, request: str) -> Response:
    """Return the response to a path or method that LootLocker does not have."""
    codes = {400: "parameter_invalid", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "not_found")
    status, headers = error.status_code, error.headers
    return _response(status, code, error.detail, request, headers=headers)


def failed(request: str) -> Response:
    """Return the response to the request with the id `request`, which failed."""
    return _response(500, "internal_server_error", "internal server error", request)


def _response(
    status: int,
    code: str,
    message: str,
    request: str,
    *,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
    **members: Any,
) -> Response:
    body = {
        "code": code,
        "message": message,
        "request_id": request,
        "trace_id": request,
        **members,
    }
    return json_response(
        _encode(body), status, headers=headers, retry_after_s=retry_after_s
    )


def _invalid(fields: tuple[FieldError, ...], request: str) -> Response:
    first = fields[0]
    message = "; ".join(map(_sentence, fields))
    missing = _MISSING.fullmatch(first.problem)
    if missing:
        where = (*first.where, missing[1])
        code, message = "parameter_missing", f"{_param(where)} is required"
    elif len(first.where) == 1:
        return _response(400, "request_body_invalid", message, request)
    else:
        where, code = first.where, "parameter_invalid"
    return _response(400, code, message, request, param=_param(where))


def _sentence(error: FieldError) -> str:
    return f"{_param(error.where)}: {error.problem}"


def _param(where: tuple[str | int, ...]) -> str:
    # The publisher counts notifications. Here there is one, and it has the content.
    if len(where) > 1 and isinstance(where[1], int):
        return "content"
    return ".".join(map(str, where[1:])) or str(where[0])
