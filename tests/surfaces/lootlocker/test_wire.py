from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamer import errors
from streamer.errors import Error, FieldError, Invalid
from streamer.surfaces.lootlocker.refusals import refusal
from streamer.surfaces.lootlocker.wire import (
    LootLockerListQuery,
    LootLockerMarkBody,
    LootLockerSendBody,
    encode_ulid,
)

MESSAGE: dict[str, Any] = {
    "notification_type": "a.b.c",
    "priority": "low",
    "recipient": "01JQY4B0E8ZSYBTCC7Y6YJ56HX",
    "content": None,
    "properties": [],
}


def send(**changes: Any) -> Any:
    return msgspec.convert({**MESSAGE, **changes}, LootLockerSendBody).checked()


def assert_refused(name: str, value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        send(**{name: value})
    assert [error.where for error in caught.value.errors] == [("body", name)]


@pytest.mark.parametrize("kind", ["a.b.c", "_.-._", "pull.message.test", "-_-.b_.c-"])
def test_a_type_has_three_groups(kind: str) -> None:
    _, notification = send(notification_type=kind)

    assert notification.type == kind


@pytest.mark.parametrize(
    "kind",
    ["", "a", "a.b", "a.b.c.d", "A.b.c", "a.b.1", "a..c", " a.b.c", "a.b.c\n", "ä.b.c"],
)
def test_an_invalid_type_is_refused(kind: str) -> None:
    assert_refused("notification_type", kind)


@pytest.mark.parametrize("priority", ["emergency", "", "Low", "critical", "high "])
def test_an_invalid_priority_is_refused(priority: str) -> None:
    assert_refused("priority", priority)


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "alice",
        "8" + "0" * 25,
        "0" * 25,
        "0" * 27,
        "0195fc4581c8fe7cbd3187f1bd229a3d",
        "01JQY4B0E8Z\u017fYBTCC7Y6YJ56HX",
        "01JQY4B0E8ZSYBTCC7Y6YJ56HU",
        "01JQY4B0E8ZSYBTCC7Y6YJ56HX\n",
        "0195fc45-81c8-fe7c-bd31-87f1bd229a3d",
    ],
)
def test_an_invalid_recipient_is_refused(recipient: str) -> None:
    assert_refused("recipient", recipient)


@pytest.mark.parametrize("number", [2**64, -(2**64), 10**30])
def test_content_may_have_an_integer_of_more_than_64_bits(number: int) -> None:
    _, notification = send(content=[number])

    assert notification.data == [number]


def test_content_has_at_most_64_levels() -> None:
    content: Any = []
    for _ in range(63):
        content = [content]

    send(content=content)
    assert_refused("content", [content])


@pytest.mark.parametrize("name", ["priority", "recipient", "notification_type"])
def test_null_is_not_a_string(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        send(**{name: None})


@pytest.mark.parametrize(
    ("query", "page", "per_page", "field"),
    [
        ({}, 1, 20, None),
        ({"page": "0"}, 1, 20, "page"),
        ({"page": "-1"}, 1, 20, "page"),
        ({"page": "x"}, 1, 20, "page"),
        ({"page": "1.0"}, 1, 20, "page"),
        ({"page": "٣"}, 1, 20, "page"),
        ({"page": "9" * 9}, 999_999_999, 20, None),
        ({"page": "1" + "0" * 9}, 999_999_999, 20, "page"),
        ({"page": "9" * 5_000}, 999_999_999, 20, "page"),
        ({"page": ""}, 1, 20, None),
        ({"per_page": "0"}, 1, 1, "per_page"),
        ({"per_page": "1"}, 1, 1, None),
        ({"per_page": "100"}, 1, 100, None),
        ({"per_page": "101"}, 1, 100, "per_page"),
        ({"per_page": "many"}, 1, 20, "per_page"),
    ],
)
def test_an_invalid_page_becomes_the_nearest_valid_one(
    query: Any, page: int, per_page: int, field: str | None
) -> None:
    parsed = LootLockerListQuery.parse(query)

    assert (parsed.page, parsed.per_page) == (page, per_page)
    assert [error.field for error in parsed.errors] == ([field] if field else [])


def test_every_problem_of_a_query_is_reported() -> None:
    with pytest.raises(Invalid) as caught:
        LootLockerListQuery.parse({"read": "1", "custom": "yes", "priority": "urgent"})

    assert {error.where[1] for error in caught.value.errors} == {
        "read",
        "custom",
        "priority",
    }


@pytest.mark.parametrize(
    ("uuid", "ulid"),
    [
        ("00000000-0000-0000-0000-000000000000", "0" * 26),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", "7" + "Z" * 25),
        ("0195fc45-81c8-fe7c-bd31-87f1bd229a3d", "01JQY4B0E8ZSYBTCC7Y6YJ56HX"),
    ],
)
def test_a_ulid_has_the_bits_of_the_uuid(uuid: str, ulid: str) -> None:
    assert encode_ulid(uuid) == ulid
    assert set(LootLockerMarkBody([ulid, ulid.lower(), uuid]).ids()) == {uuid}


def test_a_text_that_is_not_a_uuid_is_unchanged() -> None:
    assert encode_ulid("alice") == "alice"
    assert LootLockerMarkBody(["alice", "8" + "Z" * 25]).ids() == [
        "alice",
        "8" + "Z" * 25,
    ]


REFUSALS: list[tuple[Error, int, str]] = [
    (errors.Malformed("x"), 400, "request_body_invalid"),
    (errors.Unsupported("Content-Type", "x"), 415, "request_body_invalid"),
    (errors.TooLarge(1), 413, "request_body_too_large"),
    (errors.Unauthenticated(errors.Defect.EXPIRED), 401, "unauthorized"),
    (errors.Forbidden("x"), 403, "forbidden"),
    (errors.Conflict(), 422, "idempotency_key_reused"),
    (errors.LimitReached(errors.Limit.REQUESTS_PER_PLAYER), 429, "rate_limited"),
    (errors.LimitReached(errors.Limit.REQUESTS_PER_NODE), 503, "service_unavailable"),
    (errors.StoreUnavailable(), 503, "service_unavailable"),
    (errors.OutcomeUnknown(), 503, "service_unavailable"),
    (errors.Draining(), 503, "service_unavailable"),
    (Invalid(FieldError(("body",), "x")), 400, "request_body_invalid"),
    (Invalid(FieldError(("body", 0), "x")), 400, "parameter_invalid"),
    (Invalid(FieldError(("query", "read"), "x")), 400, "parameter_invalid"),
]


@pytest.mark.parametrize(("error", "status", "code"), REFUSALS, ids=lambda x: str(x))
def test_every_error_is_in_the_table(error: Error, status: int, code: str) -> None:
    answer = refusal(error, "r-1")

    body = msgspec.json.decode(answer.body)
    assert (answer.status_code, body["code"]) == (status, code)
    assert body["message"]
    assert body["request_id"] == "r-1"
    assert ("retry-after" in answer.headers) is (status in (429, 503))
