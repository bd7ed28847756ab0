from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from ..conftest import Mint, Start
from .conftest import UNKNOWN_CURSORS, Inbox

ZERO_CURSOR = "A" * 27


def assert_shape(value: dict[str, Any], shape: dict[str, list[str]]) -> None:
    assert set(shape["required"]) <= value.keys()
    assert value.keys() <= {*shape["required"], *shape["optional"]}


def messages(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["message"] for item in answer.json()["notifications"]]


async def test_a_page_has_the_documented_shape(
    inbox: Inbox, shapes: dict[str, Any]
) -> None:
    await inbox.create(
        {
            "message": "all",
            "rh_url": "/session/v1/1",
            "custom_data": {"k": "v"},
            "etag": 'W/"1"',
        },
        {"message": "least"},
    )

    page = (await inbox.page()).json()

    assert_shape(page, shapes["page"])
    least, whole = page["notifications"]
    for shown in (least, whole):
        assert_shape(shown, shapes["notification"])
    assert whole["rh_url"] == "/session/v1/1"
    assert whole["custom_data"] == {"k": "v"}
    assert whole["etag"] == 'W/"1"'
    assert "rh_url" not in least
    assert "etag" not in least


async def test_created_is_a_time_in_utc(inbox: Inbox) -> None:
    await inbox.say("a")

    (shown,) = (await inbox.page()).json()["notifications"]

    assert shown["created"].endswith("Z")
    age = datetime.now(UTC) - datetime.fromisoformat(shown["created"])
    assert abs(age) < timedelta(seconds=60)


async def test_a_page_is_newest_first_and_has_ten(inbox: Inbox) -> None:
    await inbox.say(*(str(i) for i in range(12)))

    assert messages(await inbox.page()) == [str(i) for i in range(11, 1, -1)]


async def test_an_empty_inbox_has_a_cursor(inbox: Inbox) -> None:
    page = (await inbox.page()).json()

    assert page["notifications"] == []
    assert page["cursor"] == ZERO_CURSOR


@pytest.mark.parametrize("page_size", [1, 2, 3, 7, 100])
async def test_cursors_visit_every_entry_once(inbox: Inbox, page_size: int) -> None:
    await inbox.say(*(str(i) for i in range(7)))

    walked: list[str] = []
    cursor = ""
    for _ in range(20):
        page = await inbox.page(page_size=page_size, start_at=cursor)
        walked += messages(page)
        if page.json()["cursor"] == cursor:
            break
        cursor = page.json()["cursor"]

    assert walked == [str(i) for i in range(6, -1, -1)]


async def test_a_page_after_the_end_stays_empty(inbox: Inbox) -> None:
    await inbox.say("a")
    end = (await inbox.page()).json()["cursor"]

    await inbox.say("b")
    page = await inbox.page(start_at=end)

    assert messages(page) == []
    assert page.json()["cursor"] == end


async def test_start_at_is_inclusive_and_accepts_ids(inbox: Inbox) -> None:
    first = await inbox.say("a")
    await inbox.say("b")

    assert messages(await inbox.page(start_at=first)) == ["a"]
    assert messages(await inbox.page(start_at=first.upper())) == ["a"]


async def test_exclude_before_is_exclusive(inbox: Inbox) -> None:
    first = await inbox.say("a")
    await inbox.say("b", "c")

    assert messages(await inbox.page(exclude_before=first)) == ["c", "b"]


async def test_start_at_and_exclude_before_form_a_window(inbox: Inbox) -> None:
    ids = [await inbox.say(str(i)) for i in range(5)]

    page = await inbox.page(start_at=ids[3], exclude_before=ids[0])
    assert messages(page) == ["3", "2", "1"]
    assert page.json()["cursor"] == ZERO_CURSOR

    page = await inbox.page(start_at=ids[3], exclude_before=ids[0], page_size=2)
    assert messages(page) == ["3", "2"]
    cursor = page.json()["cursor"]
    page = await inbox.page(start_at=cursor, exclude_before=ids[0], page_size=2)
    assert messages(page) == ["1"]

    assert messages(await inbox.page(start_at=ids[0], exclude_before=ids[3])) == []


async def test_empty_cursors_are_absent(inbox: Inbox) -> None:
    await inbox.say("a")

    assert messages(await inbox.page(start_at="", exclude_before="")) == ["a"]


async def test_a_cursor_of_a_trimmed_entry_still_works(
    start: Start, mint: Mint, player: str, inbox_of: type[Inbox]
) -> None:
    server = await start(entries_max=3)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    ids = [await inbox.say(str(i)) for i in range(5)]

    page = await inbox.page(exclude_before=ids[0])
    assert messages(page) == ["4", "3", "2"]
    page = await inbox.page(start_at=ids[0])
    assert messages(page) == []
    assert page.json()["cursor"] == ZERO_CURSOR


@pytest.mark.parametrize(
    ("page_size", "status"),
    [
        *(("1", 200), ("100", 200), ("0", 422), ("101", 422), ("-1", 422), ("", 422)),
        *(("1.0", 422), ("x", 422), ("9" * 30, 422), ("²", 422), ("\u0663", 422)),
    ],
)
async def test_page_size_has_limits(inbox: Inbox, page_size: str, status: int) -> None:
    assert (await inbox.page(page_size=page_size)).status_code == status


@pytest.mark.parametrize("unknown", UNKNOWN_CURSORS)
async def test_an_unknown_cursor_is_ignored(inbox: Inbox, unknown: bytes) -> None:
    await inbox.say("a", "b")
    etag = (await inbox.page()).headers["ETag"]

    for name in ("start_at", "exclude_before"):
        query: dict[str, Any] = {name: unknown}
        page = await inbox.page(**query)
        assert messages(page) == ["b", "a"]
        assert page.headers["ETag"] == etag


async def test_an_invalid_parameter_is_reported_where_it_is(
    inbox: Inbox, shapes: dict[str, Any]
) -> None:
    answer = await inbox.page(page_size=0, start_at="x", exclude_before="y")

    assert answer.status_code == 422
    (detail,) = answer.json()["detail"]
    assert_shape(detail, shapes["validation_error"])
    assert detail["loc"] == ["query", "page_size"]


async def test_a_cached_page_is_not_sent_again(inbox: Inbox) -> None:
    await inbox.say("a")
    etag = (await inbox.page()).headers["ETag"]

    for tag in (etag, f"W/{etag}", etag.strip('"'), f'"x", {etag}', "*"):
        again = await inbox.page(headers={"If-None-Match": tag})
        assert again.status_code == 304, tag
        assert again.content == b""
        assert again.headers["ETag"] == etag

    for tag in ("", '"x"', '"é"', etag[:-2] + '"', f'"{"x" * 5000}"'):
        again = await inbox.page(headers={"If-None-Match": tag.encode()})
        assert again.status_code == 200, tag


async def test_the_etag_depends_on_the_page_and_the_query(inbox: Inbox) -> None:
    first = await inbox.say("a")
    queries: list[dict[str, Any]] = [
        {},
        {"page_size": 11},
        {"exclude_before": first},
        {"start_at": first},
    ]
    pages = [await inbox.page(**query) for query in queries]
    etags = [page.headers["ETag"] for page in pages]
    assert len(set(etags)) == 4

    await inbox.say("b")

    statuses = [
        (await inbox.page(headers={"If-None-Match": etag}, **query)).status_code
        for etag, query in zip(etags, queries, strict=True)
    ]
    # What begins at the first notification is the same page as before.
    assert statuses == [200, 200, 200, 304]


async def test_what_a_page_does_not_show_leaves_the_etag(
    inbox: Inbox, client: httpx2.AsyncClient, player: str
) -> None:
    first = await inbox.say("a")
    await inbox.say("b")
    page = await inbox.page()
    native = f"/v1/players/{player}/notifications"

    for path in (f"{native}/read", f"{native}/unread"):
        ids = {"ids": [first]}
        answer = await client.post(path, headers=inbox.headers, json=ids)
        assert answer.is_success, answer.text
        again = await inbox.page()
        assert again.content == page.content
        assert again.headers["ETag"] == page.headers["ETag"]

    answer = await client.delete(f"{native}/{first}", headers=inbox.headers)
    assert answer.is_success, answer.text
    tag = {"If-None-Match": page.headers["ETag"]}
    assert messages(await inbox.page(headers=tag)) == ["b"]


async def test_me_is_the_caller_whatever_the_name(
    client: httpx2.AsyncClient, mint: Mint, inbox_of: type[Inbox]
) -> None:
    me = inbox_of(client, mint.bearer("alice"), "me")
    notification_id = await me.say("a")

    assert messages(await me.page()) == ["a"]
    assert (await me.one(notification_id)).json()["message"] == "a"
    assert messages(await me.poll(deadline=0, offset_reset_strategy="earliest")) == [
        "a"
    ]


async def test_me_and_the_id_are_one_inbox(
    inbox: Inbox, inbox_of: type[Inbox], mint: Mint, player: str
) -> None:
    me = inbox_of(inbox.client, mint.bearer(player), "me")
    await me.say("a")
    await inbox.say("b")

    assert messages(await me.page()) == messages(await inbox.page()) == ["b", "a"]


async def test_a_ulid_and_its_uuid_are_one_player(
    client: httpx2.AsyncClient, mint: Mint, inbox_of: type[Inbox]
) -> None:
    # 2^128 - 1 in both forms.
    uuid, ulid = "ffffffff-ffff-ffff-ffff-ffffffffffff", "7" + "Z" * 25
    headers = mint.bearer(uuid)
    await inbox_of(client, headers, uuid.upper()).say("a")

    assert messages(await inbox_of(client, headers, ulid).page()) == ["a"]


async def test_a_notification_is_retrieved_by_id(
    inbox: Inbox, shapes: dict[str, Any]
) -> None:
    first = await inbox.say("a")
    await inbox.say("b")

    shown = (await inbox.one(first)).json()

    assert_shape(shown, shapes["notification"])
    assert shown["message"] == "a"
    assert shown["notification_id"] == first
    assert (await inbox.one(first.upper())).json() == shown


@pytest.mark.parametrize(
    "hostile",
    [
        *("x", "..%2f", "A" * 27, "%00", "%C3%BF", "A" * 5000, "a/b", "a%2Fb"),
        *("00000000-0000-0000-0000-000000000000", "e%CC%81"),
        "0192f0c1-2b3c-7004-8000-0400000000aa",
    ],
)
async def test_an_unknown_id_is_not_found(inbox: Inbox, hostile: str) -> None:
    await inbox.say("a")

    answer = await inbox.one(hostile)

    assert answer.status_code == 404
    assert answer.json()["error_code"] == "resource_not_found"
    assert answer.json()["auth_success"] is True


async def test_an_id_of_another_inbox_is_not_found(
    inbox: Inbox, mint: Mint, inbox_of: type[Inbox]
) -> None:
    other = inbox_of(inbox.client, mint.bearer("bob"), "me")
    mine = await inbox.say("a")
    theirs = await other.say("b")

    assert (await inbox.one(theirs)).status_code == 404
    assert (await other.one(mine)).status_code == 404


async def test_apps_are_separate(
    inbox: Inbox, mint: Mint, inbox_of: type[Inbox]
) -> None:
    player = inbox.url.split("/")[4]
    other = inbox_of(inbox.client, mint.bearer(player, app="other"), player)
    mine = await inbox.say("a")

    assert messages(await other.page()) == []
    assert messages(await other.page(start_at=mine)) == []
    assert (await other.one(mine)).status_code == 404


async def test_notifications_of_other_surfaces_have_this_form(
    inbox: Inbox, client: httpx2.AsyncClient, backend_key: str, player: str
) -> None:
    async def publish(**message: Any) -> None:
        answer = await client.post(
            "/v1/notifications",
            headers={"Authorization": f"Bearer {backend_key}"},
            json={"to": {"players": [player]}, **message},
        )
        assert answer.status_code == 200, answer.text

    await publish(
        type="t",
        title="T",
        body="B",
        properties=[{"key": "k", "value": "v"}, {"key": "none", "value": ""}],
        resource={"url": "/r"},
    )
    await publish(type="t", title="T")
    await publish(type="t")
    await publish(data=[1])

    first, second, third, fourth = reversed(
        (await inbox.page()).json()["notifications"]
    )

    assert first["message"] == "B"
    assert first["custom_data"] == {"type": "t", "title": "T", "k": "v"}
    assert first["rh_url"] == "/r"
    assert "etag" not in first
    assert second["message"] == "T"
    assert third["message"] == "t"
    assert fourth["message"] == ""
    assert fourth["custom_data"] == {}
