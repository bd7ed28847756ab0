from __future__ import annotations

import pytest

from streamer import errors
from streamer.errors import Error, FieldError, Invalid
from streamer.surfaces.gateway.refusals import refusal

REFUSALS: list[tuple[Error, int]] = [
    (Invalid(FieldError(("body",), "x")), 400),
    (Invalid(FieldError(("body", "message_ids"), "x")), 400),
    (Invalid(FieldError(("query", "only_unread"), "x")), 400),
    (errors.Malformed("x"), 400),
    (errors.Unsupported("Content-Type", "x"), 400),
    (errors.Unauthenticated(errors.Defect.EXPIRED), 401),
    (errors.Forbidden("x"), 401),
    (errors.Unsupported("Accept", "x"), 406),
    (errors.LimitReached(errors.Limit.LISTENERS_PER_PLAYER), 409),
    (errors.TooLarge(1), 413),
    (errors.LimitReached(errors.Limit.REQUESTS_PER_PLAYER), 429),
    (errors.LimitReached(errors.Limit.CONNECTIONS_PER_NODE), 503),
    (errors.LimitReached(errors.Limit.CONNECTS_PER_SECOND), 503),
    (errors.LimitReached(errors.Limit.REQUESTS_PER_NODE), 503),
    (errors.StoreUnavailable(), 500),
    (errors.IssuerUnavailable(), 500),
    (errors.OutcomeUnknown(), 500),
    (errors.Draining(), 503),
]


@pytest.mark.parametrize(("error", "status"), REFUSALS, ids=str)
def test_every_error_is_in_the_table(error: Error, status: int) -> None:
    answer = refusal(error)

    assert answer.status_code == status
    assert bytes(answer.body).startswith(b'{"status":"error","message":"')
    assert ("retry-after" in answer.headers) is (status in (409, 429, 500, 503))
    if status == 500:
        page = b'{"status":"error","message":"Internal server error"}'
        assert bytes(answer.body) == page
