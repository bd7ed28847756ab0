"""
What the LootLocker surface answers when it does not do what it was asked.

Decides statuses and codes of ``{code, message, request_id, trace_id}``. Pure. The codes
``parameter_missing``, ``parameter_invalid``, ``request_body_invalid`` and
``internal_server_error`` are LootLocker's (docs.lootlocker.com, error codes, read
2026-11); which status goes with a code is not public, so here all but the last are 400.
The others are named in the same manner. `param` names the field that is wrong; where
several are, the message tells of all.

Who is not known gets 401, who may not gets 403; the SDKs open a fresh session on both.
A player or a game with too many requests in flight gets 429, and so does a game that
has used up a quota; everything that is this server's own trouble is a 503. All of them
have ``Retry-After``.

`request_id` is what the client sent as ``LL-Request-Id``, if that is 1 to 64 letters,
digits, ``.``, ``_`` or ``-``, else one is made. `trace_id` is the same: there is no
further name for a request here. There is no `doc_url`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ... import errors
from ...contract.responses import json_response, retry_after_of
from ...errors import Error, FieldError, Invalid

__all__ = ["failed", "no_route", "refusal", "request_id"]

_encode: Final = msgspec.json.Encoder().encode
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_TOO_MANY: Final = (
    errors.Limit.REQUESTS_PER_PLAYER,
    errors.Limit.REQUESTS_PER_APP,
)
_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def request_id(headers: Headers) -> str:
    """Return the name of a request."""
    given = headers.get("ll-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def refusal(error: Error, request: str) -> Response:
    """Return the answer that tells the request of that name of an error."""
    match error:
        case Invalid(errors=fields):
            return _invalid(fields, request)
        case errors.Malformed():
            answer = 400, "request_body_invalid"
        case errors.Unsupported():
            answer = 415, "request_body_invalid"
        case errors.TooLarge():
            answer = 413, "request_body_too_large"
        case errors.Unauthenticated():
            answer = 401, "unauthorized"
        case errors.Forbidden():
            answer = 403, "forbidden"
        case errors.Conflict():
            answer = 422, "idempotency_key_reused"
        case errors.LimitReached(limit=limit) if limit in _TOO_MANY:
            answer = 429, "rate_limited"
        case errors.OverQuota():
            answer = 429, "rate_limited"
        case errors.LimitReached() | errors.Unavailable():
            answer = 503, "service_unavailable"
        case _:
            raise AssertionError(f"{error!r} has no place in the table of refusals")
    retry_after_s = retry_after_of(error)
    return _response(*answer, str(error), request, retry_after_s=retry_after_s)


def no_route(error: HTTPException, headers: Headers) -> Response:
    """Return the response to a path or method that LootLocker does not have."""
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    name = request_id(headers)
    return _response(error.status_code, code, error.detail, name, headers=error.headers)


def failed(request: str) -> Response:
    """Return the response to a request of that name that failed."""
    return _response(500, "internal_server_error", "this is a fault of ours", request)


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
    # The publisher counts notifications; here there is one, and it has the content.
    if len(where) > 1 and isinstance(where[1], int):
        return "content"
    return ".".join(map(str, where[1:])) or str(where[0])
