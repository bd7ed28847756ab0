from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .conftest import Inbox

TEXT_MAX = 4_096
KIB = 1_024


def messages(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["message"] for item in answer.json()["notifications"]]


def places(answer: Any) -> list[list[str | int]]:
    """Return the locations of a validation error."""
    assert answer.status_code == 422, answer.text
    assert answer.json().keys() == {"detail"}
    for detail in answer.json()["detail"]:
        assert detail.keys() == {"loc", "msg", "type"}
    return [detail["loc"] for detail in answer.json()["detail"]]


async def test_the_response_has_the_last_id(inbox: Inbox) -> None:
    answer = await inbox.create({"message": "a"}, {"message": "b"})

    assert answer.status_code == 200
    assert answer.json().keys() == {"notification_id"}
    shown = (await inbox.one(answer.json()["notification_id"])).json()
    assert shown["message"] == "b"
    assert messages(await inbox.page()) == ["b", "a"]


async def test_an_empty_message_alone_is_stored(inbox: Inbox) -> None:
    await inbox.create({"message": ""})

    assert messages(await inbox.page()) == [""]


async def test_a_created_notification_is_read_unchanged(inbox: Inbox) -> None:
    sent = {
        "message": "line\r\nbreak \x00 \u2028 \U0001f600 <b>",
        "rh_url": "x" * TEXT_MAX,
        "custom_data": {"": "empty key", "type": "mine", "title": "mine", "é": "\n"},
        "etag": 'W/"1"',
    }
    answer = await inbox.create(sent)

    shown = (await inbox.one(answer.json()["notification_id"])).json()

    assert {name: shown[name] for name in sent} == sent


async def test_an_etag_needs_no_url(inbox: Inbox) -> None:
    answer = await inbox.create({"message": "a", "etag": "1"})

    shown = (await inbox.one(answer.json()["notification_id"])).json()

    assert shown["etag"] == "1"
    assert "rh_url" not in shown


@pytest.mark.parametrize(
    "item",
    [
        {"message": "x" * TEXT_MAX},
        {"message": "\U0001f600" * TEXT_MAX},
        {"message": "", "rh_url": "x"},
        {"message": "", "custom_data": {}},
        {"message": "", "custom_data": {"k": "x" * TEXT_MAX}},
        {"message": "", "custom_data": {"k" * 10_000: "x"}},
        {"message": "", "custom_data": {f"{i:04}": "x" * 4092 for i in range(64)}},
        {"message": "", "custom_data": {str(i): "x" for i in range(5_000)}},
        {"message": "", "etag": "x" * 10_000},
        {"message": "", "rh_url": None, "custom_data": None, "etag": None},
        {"message": "", "unknown": {"is": ["ignored"]}, "notification_id": 1},
    ],
)
async def test_every_documented_form_is_stored(inbox: Inbox, item: Any) -> None:
    answer = await inbox.create(item)

    assert answer.status_code == 200, answer.text
    assert messages(await inbox.page()) == [item["message"]]


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({}, ["message"]),
        ({"message": None}, ["message"]),
        ({"message": 1}, ["message"]),
        ({"message": "x" * (TEXT_MAX + 1)}, ["message"]),
        ({"message": "", "rh_url": ""}, ["rh_url"]),
        ({"message": "", "rh_url": "x" * (TEXT_MAX + 1)}, ["rh_url"]),
        ({"message": "", "rh_url": 1}, ["rh_url"]),
        ({"message": "", "etag": ""}, ["etag"]),
        ({"message": "", "etag": "x" * 600 * KIB}, []),
        ({"message": "", "custom_data": []}, ["custom_data"]),
        ({"message": "", "custom_data": {"k": ""}}, ["custom_data", "k"]),
        (
            {"message": "", "custom_data": {"k": "x" * (TEXT_MAX + 1)}},
            ["custom_data", "k"],
        ),
        ({"message": "", "custom_data": {"a.b[0]": "x", "": 1}}, ["custom_data", ""]),
        ({"message": "", "custom_data": {"7": None}}, ["custom_data", "7"]),
        ({"message": "", "custom_data": {"a.b[0]": ""}}, ["custom_data", "a.b[0]"]),
        ({"message": "", "custom_data": {"k": 1}}, ["custom_data", "k"]),
        ({"message": "", "custom_data": {"k": {}}}, ["custom_data", "k"]),
        (
            {
                "message": "",
                "custom_data": {
                    **{f"{i:04}": "x" * 4092 for i in range(63)},
                    "last": "x" * 4093,
                },
            },
            ["custom_data"],
        ),
        ("text", []),
        (None, []),
        ([], []),
    ],
)
async def test_problems_are_reported_and_nothing_is_stored(
    inbox: Inbox, item: Any, place: list[str]
) -> None:
    answer = await inbox.create({"message": "good"}, item)

    assert places(answer) == [["body", "notifications", 1, *place]]
    assert messages(await inbox.page()) == []


async def test_every_wrong_value_of_custom_data_is_reported(inbox: Inbox) -> None:
    answer = await inbox.create(
        {"message": "", "custom_data": {"a": "", "b": "x"}},
        {"message": "", "custom_data": {"c": 1, "d": "x" * (TEXT_MAX + 1)}},
    )

    assert places(answer) == [
        ["body", "notifications", 0, "custom_data", "a"],
        ["body", "notifications", 1, "custom_data", "c"],
        ["body", "notifications", 1, "custom_data", "d"],
    ]
    kinds = [detail["type"] for detail in answer.json()["detail"]]
    assert kinds == ["too_short", "type_error", "too_long"]


async def test_a_missing_field_has_the_type_missing(inbox: Inbox) -> None:
    (detail,) = (await inbox.create({})).json()["detail"]

    assert detail["type"] == "missing"


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 200), (100, 200)])
async def test_a_batch_has_limits(inbox: Inbox, count: int, status: int) -> None:
    answer = await inbox.create(*({"message": str(i)} for i in range(count)))

    assert answer.status_code == status
    assert len(messages(await inbox.page(page_size=100))) == count


async def test_a_batch_of_101_is_refused(inbox: Inbox) -> None:
    answer = await inbox.create(*({"message": ""} for _ in range(101)))

    assert places(answer) == [["body", "notifications"]]
    assert messages(await inbox.page()) == []


async def test_batches_do_not_mix(inbox: Inbox) -> None:
    batches = [[f"{name}{i}" for i in range(5)] for name in "abcdef"]

    await asyncio.gather(*(inbox.say(*batch) for batch in batches))

    stored = messages(await inbox.page(page_size=100))[::-1]
    assert sorted(stored[i : i + 5] for i in range(0, 30, 5)) == batches


# Bodies.


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"{}",
        b'{"notifications":{}}',
        b'{"notifications":null}',
        b'{"notifications":[{"message":"\xff"}]}',
        b'{"notifications":[{"message":"\\ud800"}]}',
        b'{"notifications":[{"message":"\\udc00\\ud800"}]}',
        b'{"notifications":[{"message":"a\x00b"}]}',
        b'{"notifications":[{"message":NaN}]}',
        b'{"notifications":[{"message":"","x":' + b"[" * 100_000 + b"]" * 100_000,
        b'{"notifications":[{"message":' + b"9" * 100_000 + b"}]}",
        b"\xef\xbb\xbf{}",
        b'{"notifications":[{"message":""}]} trailing',
    ],
)
async def test_hostile_bodies_are_refused(inbox: Inbox, body: bytes) -> None:
    assert places(await inbox.post(body))
    assert messages(await inbox.page()) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-encoding": "gzip"},
    ],
)
async def test_other_media_are_refused(inbox: Inbox, headers: dict[str, str]) -> None:
    answer = await inbox.post(b'{"notifications":[{"message":""}]}', **headers)

    assert places(answer) == [["header", *headers]]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_four_mib_is_refused(inbox: Inbox, declared: bool) -> None:
    filler = b'{"notifications":[{"message":""}],"filler":"%b"}'
    fits = filler % (b"x" * (4 * KIB * KIB - len(filler) + 2))
    assert len(fits) == 4 * KIB * KIB

    async def chunks(body: bytes) -> Any:
        for first in range(0, len(body), KIB * KIB):
            yield body[first : first + KIB * KIB]

    async def post(body: bytes) -> Any:
        return await inbox.post(body if declared else chunks(body))

    assert (await post(fits)).status_code == 200
    answer = await post(fits + b" ")
    assert answer.status_code == 413
    assert answer.json().keys() == {"auth_success", "error_code", "desc"}
    assert answer.json()["error_code"] == "body_too_large"


# Idempotency.


async def test_a_repetition_with_its_key_is_not_stored_again(inbox: Inbox) -> None:
    key = {"Idempotency-Key": "k1"}

    first = await inbox.create({"message": "a"}, {"message": "b"}, headers=key)
    again = await inbox.create({"message": "a"}, {"message": "b"}, headers=key)

    assert first.json() == again.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert messages(await inbox.page()) == ["b", "a"]


async def test_a_key_of_another_request_is_refused(inbox: Inbox) -> None:
    key = {"Idempotency-Key": "k1"}
    await inbox.create({"message": "a"}, headers=key)

    answer = await inbox.create({"message": "other"}, headers=key)

    assert places(answer) == [["header", "idempotency-key"]]
    assert messages(await inbox.page()) == ["a"]


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\xe9"])
async def test_a_key_has_limits(inbox: Inbox, key: bytes) -> None:
    answer = await inbox.create({"message": "a"}, headers={"Idempotency-Key": key})

    assert places(answer) == [["header", "idempotency-key"]]
    assert messages(await inbox.page()) == []


async def test_a_repetition_without_a_key_is_stored_again(inbox: Inbox) -> None:
    await inbox.say("a")
    await inbox.say("a")

    assert messages(await inbox.page()) == ["a", "a"]
