"""
The Teak surface's errors: statuses and messages.

Decides the status and the messages of each error, as ``{status, errors}``, where
`errors` has every problem by parameter. Pure. Where Teak's pages specify nothing, these
rules apply:

A wrong secret is a 404 on ``game_id``, word for word the response to an unknown game,
so that nobody can find out which games exist. A player's token is a wrong secret, too.
A key without the scope for an operation is a 403 on ``authorization``, as on Teak's
``/v2/identify``. A body that is neither JSON nor a form is a 422 on ``body``; another
media type is a 415, a body over its limit a 413, and an unavailable store a 503. An
unknown path is a 404 on ``path``, another method than POST a 405 on ``method``, and a
request that failed a 500 on ``internal``.
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
from ...errors import Error, Invalid, Rejected

__all__ = [
    "InvalidParameters",
    "Problems",
    "UnknownGame",
    "failed",
    "no_route",
    "refusal",
]

GAME_ID_SHOWN_MAX: Final = 100

_encode: Final = msgspec.json.Encoder().encode

Problems = dict[str, list[str]]


class InvalidParameters(Rejected):
    """Parameters are invalid. `errors` has every problem, by parameter."""

    def __init__(self, errors: Problems) -> None:
        self.errors = errors


class UnknownGame(Rejected):
    """No game has this id and secret."""

    def __init__(self, game_id: str) -> None:
        self.game_id = game_id


def refusal(error: Error, path: str) -> Response:
    """Return the response to an error, on the operation at `path`."""
    message = str(error)
    match error:
        case InvalidParameters(errors=problems):
            status = 422
        case UnknownGame(game_id=game_id):
            echoed = game_id[:GAME_ID_SHOWN_MAX]
            status, problems = 404, {"game_id": [f"Unknown app id {echoed}"]}
        case errors.RateLimited(per_s=per_s):
            message = (
                f"{path} may only be called {per_s} times per second. "
                "Please wait a second and try again"
            )
            status, problems = 429, {"rate_limit": [message]}
        case errors.OverQuota():
            # Teak has one word for every kind of excess.
            message = f"{error}. Please wait and try again"
            status, problems = 429, {"rate_limit": [message]}
        case errors.Forbidden():
            status, problems = 403, {"authorization": [message]}
        case Invalid(errors=fields) if fields[0].where[0] == "header":
            status, problems = 422, {"Idempotency-Key": [fields[0].problem]}
        case errors.Conflict():
            status, problems = 422, {"Idempotency-Key": [message]}
        case Invalid() | errors.Malformed():
            status, problems = 422, {"body": [message]}
        case errors.TooLarge():
            status, problems = 413, {"body": [message]}
        case errors.Unsupported(header=header):
            status, problems = 415, {header: [message]}
        case errors.Unavailable():
            status, problems = 503, {"unavailable": [message]}
        case _:
            raise AssertionError(f"{error!r} is not in the table of refusals")
    return _response(status, problems, retry_after_s=retry_after_of(error))


def no_route(error: HTTPException, headers: Headers) -> Response:
    """Return the response to a path or method that Teak does not have."""
    name = "method" if error.status_code == 405 else "path"
    problems = {name: [error.detail]}
    return _response(error.status_code, problems, headers=error.headers)


def failed(headers: Headers) -> Response:
    """Return the response to a request that failed."""
    return _response(500, {"internal": ["internal server error"]})


def _response(
    status: int,
    problems: Problems,
    *,
    headers: Mapping[str, str] | None = None,
    retry_after_s: int | None = None,
) -> Response:
    kind = "rate_limit" if status == 429 else "error"
    body = _encode({"status": kind, "errors": problems})
    return json_response(body, status, headers=headers, retry_after_s=retry_after_s)
