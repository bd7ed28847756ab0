"""Why a request was refused, as the log has it: nothing that the request contains."""

from __future__ import annotations

import pytest

from streamer.errors import (
    Conflict,
    Defect,
    Error,
    FieldError,
    Forbidden,
    Invalid,
    Limit,
    LimitReached,
    NotFound,
    Unauthenticated,
)
from streamer.service.access.failures import FailedAuthentications
from streamer.service.node.request_context import (
    RequestContext,
    current_request,
    note_refusal,
)


@pytest.mark.parametrize(
    ("error", "refusal", "reason"),
    [
        (Unauthenticated(Defect.EXPIRED), "unauthenticated", "expired"),
        (Unauthenticated(Defect.CLAIM, "/scp"), "unauthenticated", "claim /scp"),
        (
            Forbidden("the permission notification:player:self:*"),
            *("forbidden", "permission notification:player:self:*"),
        ),
        (Forbidden("the scope tokens:mint"), "forbidden", "scope tokens:mint"),
        (Forbidden("a token for the topic ann"), "forbidden", ""),
        (Invalid(FieldError(("body", "ann"), "is wrong")), "invalid", "body"),
        (Invalid(FieldError(("ann",), "is wrong")), "invalid", ""),
        (LimitReached(Limit.REQUESTS_PER_APP), *("limit_reached", "requests_per_app")),
        (NotFound("the player ann"), "not_found", ""),
        (Conflict(), "conflict", ""),
    ],
)
def test_a_refusal_has_its_kind_and_its_reason(
    error: Error, refusal: str, reason: str
) -> None:
    failures = FailedAuthentications()
    context = RequestContext(client="192.0.2.1", failures=failures)
    token = current_request.set(context)
    try:
        note_refusal(error)
    finally:
        current_request.reset(token)

    assert (context.refusal, context.reason) == (refusal, reason)
    assert failures.addresses == isinstance(error, Unauthenticated)
