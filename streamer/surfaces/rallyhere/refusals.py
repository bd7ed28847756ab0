"""
The RallyHere surface's errors: statuses and codes.

Decides statuses, error codes and the formats ``{auth_success, error_code, desc}`` and,
for 422, ``{detail: [{loc, msg, type}]}``. Pure. Where the vendor's page specifies
nothing, these rules apply:

Every defect of a credential is a 403 with ``auth_success`` false, which makes
RallyHere's clients refresh their token; there is no 401. All other errors have true,
including a missing right. A missing credential, several credentials, and another scheme
are ``auth_token_format``; an unknown backend key is ``auth_invalid_key_id``, an expired
one ``auth_token_expired``.

``too_many_listening_to_single_client`` is also the limit on requests in flight of a
player, and ``connection_limit_reached`` those of the node and of the app. Both have
``Retry-After``.

Codes that the page does not have: ``resource_not_found`` (404, from the OpenAPI
document) also for an unknown path, ``method_not_allowed`` (405), ``body_too_large``
(413), ``quota_exceeded`` (429, with ``Retry-After``) if the app has used a quota,
``internal_server_error`` (500) if the request failed,
``service_unavailable`` (503, with ``Retry-After``) while the store is unavailable or
this node drains. A body that is not JSON or has another media type is a 422, and so is
an idempotency key of a different request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ... import errors
from ...contract.responses import json_response, retry_after_of
from ...errors import Defect, Error, FieldError, Invalid

__all__ = ["ValidationItem", "failed", "no_route", "refusal"]

_encode: Final = msgspec.json.Encoder().encode

_DEFECTS: Final = {
    Defect.MISSING: ("auth_token_format", "Invalid Authorization - {}"),
    Defect.AMBIGUOUS: ("auth_token_format", "Invalid Authorization - {}"),
    Defect.SCHEME: ("auth_token_format", "Invalid Authorization - {}"),
    Defect.NOT_JWT: ("auth_not_jwt", "Invalid Authorization"),
    Defect.MALFORMED: (
        "auth_malformed_access",
        "Invalid Authorization - malformed access token",
    ),
    Defect.UNREADABLE: ("auth_token_unknown", "Failed to parse token"),
    Defect.KEY_ID: (
        "auth_invalid_key_id",
        "Invalid Authorization - Invalid Key ID in Access Token",
    ),
    Defect.SIGNATURE: ("auth_token_sig_invalid", "Token Signature is invalid"),
    Defect.VERSION: ("auth_invalid_version", "Invalid Authorization - version"),
    Defect.CLAIM: (
        "auth_token_invalid_claim",
        "Token contained invalid claim value: {}",
    ),
    Defect.LIFETIME: ("auth_token_invalid_claim", "Token contained invalid claim: {}"),
    Defect.EXPIRED: ("auth_token_expired", "Token is expired"),
    Defect.UNKNOWN_KEY: (
        "auth_invalid_key_id",
        "Invalid Authorization - {}",
    ),
    Defect.EXPIRED_KEY: ("auth_token_expired", "Invalid Authorization - {}"),
    Defect.REVOKED: ("auth_token_expired", "Token is expired"),
    Defect.TICKET: ("auth_token_format", "Invalid Authorization - {}"),
}
"""Code and description of each defect. {} is the claim, or the defect."""

_PLAYER_LIMIT: Final = (409, "too_many_listening_to_single_client")
_NODE_LIMIT: Final = (503, "connection_limit_reached")
_LIMITS: Final = {
    errors.Limit.LISTENERS_PER_PLAYER: _PLAYER_LIMIT,
    errors.Limit.REQUESTS_PER_PLAYER: _PLAYER_LIMIT,
    errors.Limit.CONNECTIONS_PER_NODE: _NODE_LIMIT,
    errors.Limit.CONNECTS_PER_SECOND: _NODE_LIMIT,
    errors.Limit.REQUESTS_PER_NODE: _NODE_LIMIT,
    errors.Limit.REQUESTS_PER_APP: _NODE_LIMIT,
}


def refusal(error: Error) -> Response:
    """Return the response to an error."""
    desc = str(error)
    auth_success = True
    match error:
        case errors.Unauthenticated(defect=defect, detail=detail):
            status, auth_success = 403, False
            code, text = _DEFECTS[defect]
            desc = text.format(detail or defect.value)
        case errors.Forbidden():
            status, code = 403, "insufficient_permissions"
            desc = f"Insufficient Permissions: {error}"
        case errors.NotFound():
            status, code = 404, "resource_not_found"
        case errors.TooLarge():
            status, code = 413, "body_too_large"
        case errors.LimitReached(limit=limit):
            status, code = _LIMITS[limit]
        case errors.OverQuota():
            status, code = 429, "quota_exceeded"
        case errors.Unavailable():
            status, code = 503, "service_unavailable"
        case Invalid(errors=fields) if fields[0].where[0] == "path":
            status, code = 400, "bad_id"
            desc = "Passed client id is not a valid id"
        case Invalid(errors=fields):
            return _unprocessable(*map(_item, fields))
        case errors.Malformed():
            return _unprocessable(ValidationItem(["body"], desc, "json_invalid"))
        case errors.Unsupported(header=header):
            return _bad_header(header.lower(), desc)
        case errors.Conflict():
            return _bad_header("idempotency-key", desc)
        case _:
            raise AssertionError(f"{error!r} is not in the table of refusals")
    return _response(
        status,
        code,
        desc,
        auth_success=auth_success,
        retry_after_s=retry_after_of(error),
    )


def no_route(error: HTTPException, headers: Headers) -> Response:
    """Return the response to a path or method that RallyHere does not have."""
    codes = {400: "bad_id", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "resource_not_found")
    return _response(error.status_code, code, error.detail, headers=error.headers)


def failed(headers: Headers) -> Response:
    """Return the response to a request that failed."""
    return _response(500, "internal_server_error", "internal server error")


def _response(
    status: int,
    code: str,
    desc: str,
    *,
    auth_success: bool = True,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    body = _encode({"auth_success": auth_success, "error_code": code, "desc": desc})
    return json_response(body, status, headers=headers, retry_after_s=retry_after_s)


class ValidationItem(msgspec.Struct, frozen=True):
    """One item of a validation error. `type` is one of Pydantic's error types."""

    loc: list[str | int]
    msg: str
    type: str


_MISSING: Final = re.compile(r"Object missing required field `(\w+)`")


def _item(error: FieldError) -> ValidationItem:
    loc = list(error.where)
    if missing := _MISSING.fullmatch(error.problem):
        return ValidationItem([*loc, missing[1]], "Field required", "missing")
    if len(loc) > 1 and loc[0] == "body" and isinstance(loc[1], int):
        # The publisher counts notifications; here they are items of a list.
        loc.insert(1, "notifications")
    if loc[0] == "header":
        loc = [str(name).lower() for name in loc]
    return ValidationItem(loc, error.problem, _type(error.problem))


def _type(problem: str) -> str:
    if "of length >=" in problem:
        return "too_short"
    if "of length <=" in problem:
        return "too_long"
    return "type_error" if problem.startswith("Expected `") else "value_error"


def _bad_header(name: str, problem: str) -> Response:
    return _unprocessable(ValidationItem(["header", name], problem, "value_error"))


def _unprocessable(*items: ValidationItem) -> Response:
    return json_response(_encode({"detail": items}), 422)
