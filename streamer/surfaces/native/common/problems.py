"""
The native surface's errors as problem documents (RFC 9457).

Decides the status and the type of each error. `type` is ``about:`` and a word whose
meaning never changes. `detail` is for people. `errors` lists every invalid field, each
with a JSON pointer (RFC 6901) into the body, or the name of a header, query parameter
or path parameter. Pure: no I/O, no services.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.responses import Response

from .... import errors
from ....contract.responses import json_response, retry_after_of
from ....errors import Error, FieldError, Invalid

__all__ = ["problem", "problem_response"]

_encode: Final = msgspec.json.Encoder().encode

_CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}
# The title of a type is its words, except for these.
_TITLES: Final = {
    "internal": "internal server error",
    "issuer-away": "token issuer unavailable",
    "not-allowed": "method not allowed",
    "store-away": "store unavailable",
    "store-full": "store full",
    "unsupported-media": "unsupported media type",
}
_LIMIT_STATUS: Final = {
    errors.Limit.LISTENERS_PER_PLAYER: 409,
    errors.Limit.REQUESTS_PER_PLAYER: 409,
    errors.Limit.TOPICS_PER_PLAYER: 409,
    errors.Limit.MUTES_PER_PLAYER: 409,
    errors.Limit.REQUESTS_PER_APP: 429,
}


def problem(error: Error) -> Response:
    """Return an error as a problem document."""
    headers = None
    members: dict[str, Any] = {}
    match error:
        case errors.Malformed():
            status, kind = 400, "malformed"
        case errors.Unsupported():
            status, kind = 415, "unsupported-media"
        case Invalid(errors=fields):
            status = 422 if fields[0].where[0] == "body" else 400
            kind = "invalid"
            members["errors"] = [_field(field) for field in fields]
        case errors.Unauthenticated(defect=defect):
            status, kind = 401, "unauthenticated"
            headers = _CHALLENGE
            members["defect"] = defect.name.lower()
        case errors.Forbidden():
            status, kind = 403, "forbidden"
        case errors.NotFound():
            status, kind = 404, "not-found"
        case errors.Conflict():
            status, kind = 422, "idempotency-key-reuse"
        case errors.TooLate():
            status, kind = 409, "too-late"
        case errors.TooLarge():
            status, kind = 413, "too-large"
        case errors.LimitReached(limit=limit):
            status, kind = _LIMIT_STATUS.get(limit, 503), "limit-reached"
            members["limit"] = limit.name.lower()
        case errors.RateLimited():
            status, kind = 429, "limit-reached"
        case errors.OverQuota(quota=quota):
            status, kind = 429, "over-quota"
            members["quota"] = quota.name.lower()
        case errors.Unavailable():
            status, kind = 503, _UNAVAILABLE[type(error)]
        case _:
            raise AssertionError(f"{error!r} is not in the table of problems")
    return problem_response(
        status,
        kind,
        str(error),
        headers=headers,
        retry_after_s=retry_after_of(error),
        **members,
    )


_UNAVAILABLE: Final[dict[type[Error], str]] = {
    errors.StoreFull: "store-full",
    errors.StoreUnavailable: "store-away",
    errors.IssuerUnavailable: "issuer-away",
    errors.OutcomeUnknown: "outcome-unknown",
    errors.Draining: "draining",
}


def problem_response(
    status: int,
    kind: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
    **members: Any,
) -> Response:
    """Return a problem document. `members` are additional ones."""
    document = {
        "type": f"about:{kind}",
        "title": _TITLES.get(kind) or kind.replace("-", " "),
        "status": status,
        "detail": detail,
        **members,
    }
    return json_response(
        _encode(document),
        status,
        headers=headers,
        media_type="application/problem+json",
        retry_after_s=retry_after_s,
    )


def _field(error: FieldError) -> dict[str, str]:
    root, *path = error.where
    if root == "body":
        # RFC 6901, section 3: "~" and "/" are escaped.
        steps = (str(s).replace("~", "~0").replace("/", "~1") for s in path)
        return {"pointer": "".join(f"/{s}" for s in steps), "problem": error.problem}
    return {str(root): ".".join(map(str, path)), "problem": error.problem}
