"""Publishing on the native surface: lists, audiences, fields of a message."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from ..conftest import Mint, OpenEvents, Until

PUBLISH = "/v1/notifications"


class Backend:
    """A studio's backend."""

    def __init__(self, client: Any, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def publish(self, body: Any, *, key: str = "") -> Any:
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        return await self.client.post(PUBLISH, headers=headers, json=body)

    async def send(self, **message: Any) -> Any:
        """Publish one message to alice unless told otherwise; return its result."""
        body = {"to": {"players": ["alice"]}, "title": "t", **message}
        answer = await self.publish(body)
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        return result

    async def titles(self, player: str = "alice") -> list[str]:
        """Return the titles in an inbox, oldest first."""
        url = f"/v1/players/{player}/notifications"
        answer = await self.client.get(url, headers=self.headers)
        return [shown["title"] for shown in reversed(answer.json()["notifications"])]

    async def refused(self, body: Any, status: int = 422) -> dict[str, str]:
        """Publish an invalid body; return the problems by pointer."""
        answer = await self.publish(body)
        assert answer.status_code == status, answer.text
        errors = answer.json().get("errors", [])
        return {error["pointer"]: error["problem"] for error in errors}


@pytest.fixture
def backend(client: httpx2.AsyncClient, backend_key: str) -> Backend:
    return Backend(client, backend_key)


def to(*players: str, **message: Any) -> dict[str, Any]:
    return {"to": {"players": list(players)}, "title": "t", **message}


def ahead(**time: float) -> str:
    return f"{datetime.now(UTC) + timedelta(**time):%Y-%m-%dT%H:%M:%S.%fZ}"


# Lists of messages.


async def test_a_list_of_messages_returns_a_list(backend: Backend) -> None:
    messages = [to("b", "a", title="1"), {**to(), "to": {"everyone": True}}, to("a")]

    answer = await backend.publish(messages)

    assert answer.status_code == 200, answer.text
    recipients = [[r["to"] for r in one["results"]] for one in answer.json()]
    assert recipients == [["b", "a"], [{"everyone": True}], ["a"]]
    ids = [r["id"] for one in answer.json() for r in one["results"]]
    assert len(set(ids)) == 4


async def test_a_list_is_stored_in_its_order(backend: Backend) -> None:
    await backend.publish([to("alice", title=str(i)) for i in range(5)])

    assert await backend.titles() == list("01234")


async def test_a_repeated_list_is_not_stored_again(backend: Backend) -> None:
    messages = [to("alice", title="1"), to("alice", "bob", title="2")]

    first = await backend.publish(messages, key="k")
    again = await backend.publish(messages, key="k")

    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await backend.titles() == ["1", "2"]


async def test_a_list_has_at_most_a_thousand_messages(backend: Backend) -> None:
    problems = await backend.refused([to("alice")] * 1_001)

    assert problems == {"": "Expected `array` of length <= 1000"}


@pytest.mark.parametrize("to", ["alice", ["alice"], None, 7])
@pytest.mark.parametrize("many", [False, True])
async def test_recipients_of_another_form_are_refused_with_an_example(
    backend: Backend, to: Any, many: bool
) -> None:
    message = {"to": to, "title": "x"}
    answer = await backend.publish([message] if many else message)

    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == ("/0/to" if many else "/to")
    assert 'write {"players": ["alice"]}' in error["problem"]


@pytest.mark.parametrize(
    ("to", "pointer"),
    [
        ({"players": "alice"}, "/to/players"),
        ({"player": "alice", "everyone": True}, "/to/player"),
        ({"everyone": "true"}, "/to/everyone"),
    ],
)
async def test_a_wrong_member_of_recipients_is_refused_with_an_example(
    backend: Backend, to: Any, pointer: str
) -> None:
    problems = await backend.refused({"to": to, "title": "x"})

    assert 'write {"players": ["alice"]}' in problems[pointer]


async def test_a_list_has_at_most_a_thousand_recipients(backend: Backend) -> None:
    problems = await backend.refused([to("a"), to(*map(str, range(999))), to("b")])

    assert problems == {"/2/to": "exceeds the limit of 1000 recipients per request"}
    assert await backend.titles("a") == []


@pytest.mark.parametrize(
    "fields", [{"send_at": "2100-01-01T00:00:00Z"}, {"spread_s": 1}, {"persist": False}]
)
async def test_fields_of_a_single_message_are_refused_in_a_list(
    backend: Backend, fields: Any
) -> None:
    problems = await backend.refused([to("alice"), to("alice", **fields)])

    (field,) = fields
    assert list(problems) == [f"/1/{field}"]
    assert await backend.titles() == []


# Invalid requests.


async def test_one_response_reports_every_problem_of_a_list(backend: Backend) -> None:
    problems = await backend.refused(
        [
            to("alice", "me", titel="x", title=1),
            {"title": "t"},
            to("alice", expires_at="2100-01-01T00:00:00", ttl_s=0),
            "no message",
        ]
    )

    assert problems == {
        "/0/to/players/1": "is not a player name",
        "/0/titel": "is not a known field",
        "/0/title": "Expected `str | null`, got `int`",
        "/1/to": "is missing",
        "/2/ttl_s": "Expected `int` >= 1",
        "/2/expires_at": "requires a time zone, as in 2026-11-20T18:00:00Z",
        "/3": "Expected `object`, got `str`",
    }


async def test_a_pointer_is_escaped(backend: Backend) -> None:
    problems = await backend.refused(to("alice", **{"a/b~c": 1}))

    assert list(problems) == ["/a~1b~0c"]


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ({"to": {}}, "/to"),
        ({"to": {"players": ["a"], "everyone": True}}, "/to"),
        ({"to": {"everyone": False}}, "/to"),
        ({"to": {"topic": "a b"}}, "/to/topic"),
        ({"to": {"topic": "x" * 129}}, "/to/topic"),
        ({"to": {"topic": "news\n"}}, "/to/topic"),
        ({"ttl_s": 1, "expires_at": "2100-01-01T00:00:00Z"}, "/ttl_s"),
        ({"ttl_s": 31_536_001}, "/ttl_s"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+12:00"}, "/expires_at"),
        ({"collapse_key": ""}, "/collapse_key"),
        ({"collapse_key": "x" * 129}, "/collapse_key"),
        ({"device": "none"}, "/device"),
        ({"to": {"everyone": True}, "device": "latest"}, "/device"),
        ({"persist": False, "ttl_s": 1}, "/ttl_s"),
        ({"persist": False, "collapse_key": "k"}, "/collapse_key"),
        ({"persist": False, "device": "latest"}, "/device"),
        ({"persist": False, "send_at": "2100-01-01T00:00:00Z"}, "/send_at"),
        ({"persist": False, "to": {"players": ["x"] * 1_001}}, "/to/players"),
        ({"send_at": "2100-01-01T00:00:00Z"}, "/send_at"),
        ({"properties": [{"key": "k", "value": "\0" * 4_096}] * 64}, ""),
    ],
)
async def test_an_invalid_field_has_a_pointer(
    backend: Backend, message: Any, pointer: str
) -> None:
    assert list(await backend.refused({**to("alice"), **message})) == [pointer]


async def test_problems_found_by_services_have_pointers(backend: Backend) -> None:
    past = "2020-01-01T00:00:00Z"

    problems = await backend.refused([to("a"), to("a", expires_at=past), to("b")])

    assert problems == {"/1/expires_at": "must be in the future"}
    assert await backend.titles("a") == []


# Audiences.


async def test_a_topic_reaches_its_subscribers(
    backend: Backend, client: httpx2.AsyncClient, mint: Mint
) -> None:
    url = "/v1/players/alice/topics/a/b"
    joined = await client.put(url, headers=backend.headers)
    assert joined.status_code == 204, joined.text

    result = await backend.send(to={"topic": "a/b"}, title="news")

    assert result["to"] == {"topic": "a/b"}
    one = f"/v1/players/me/notifications/{result['id']}"
    shown = (await client.get(one, headers=mint.bearer("alice"))).json()
    assert (shown["title"], shown["topic"]) == ("news", "a/b")
    assert await backend.titles("bob") == []


async def test_everyone_reaches_every_known_player(
    backend: Backend, client: httpx2.AsyncClient
) -> None:
    await backend.titles("alice")  # makes alice one of everyone

    result = await backend.send(to={"everyone": True}, title="hello")

    assert result["to"] == {"everyone": True}
    assert await backend.titles("alice") == ["hello"]


@pytest.mark.parametrize("audience", [{"topic": "t"}, {"everyone": True}])
async def test_a_player_cannot_send_to_an_audience(
    client: httpx2.AsyncClient, mint: Mint, audience: Any
) -> None:
    headers = mint.bearer("alice", topics=("t",))
    body = {"to": audience, "title": "t"}

    assert (await client.post(PUBLISH, headers=headers, json=body)).status_code == 403


@pytest.mark.parametrize("audience", [{"topic": "t"}, {"everyone": True}])
async def test_a_message_to_an_audience_can_be_scheduled(
    backend: Backend, client: httpx2.AsyncClient, until: Until, audience: Any
) -> None:
    await backend.titles("alice")
    await client.put("/v1/players/alice/topics/t", headers=backend.headers)
    body = {"to": audience, "title": "later", "send_at": ahead(seconds=0.3)}

    schedule = (await backend.publish(body)).json()["schedule"]
    assert (schedule["to"], schedule["total"]) == (audience, 1)

    async def has_come() -> bool:
        return await backend.titles("alice") == ["later"]

    await until(has_come)
    url = f"/v1/players/alice/notifications?topic={audience.get('topic', '')}"
    if "topic" in audience:
        page = (await client.get(url, headers=backend.headers)).json()
        assert [shown["topic"] for shown in page["notifications"]] == ["t"]


@pytest.mark.parametrize("audience", ["topics/t", "everyone"])
async def test_a_message_to_an_audience_is_withdrawn(
    backend: Backend, client: httpx2.AsyncClient, mint: Mint, audience: str
) -> None:
    await backend.titles("alice")
    await client.put("/v1/players/alice/topics/t", headers=backend.headers)
    recipients = {"everyone": True} if audience == "everyone" else {"topic": "t"}
    sent = await backend.send(to=recipients, title="oops")
    url = f"/v1/{audience}/notifications/{sent['id']}"

    assert (await client.delete(url, headers=mint.bearer("alice"))).status_code == 403
    assert await backend.titles() == ["oops"]
    for _ in range(2):
        answer = await client.delete(url, headers=backend.headers)
        assert (answer.status_code, answer.content) == (204, b"")
    assert await backend.titles() == []
    unknown = f"/v1/{audience}/notifications/01a1fb45-4a92-76ac-8000-00006974eed3"
    assert (await client.delete(unknown, headers=backend.headers)).status_code == 404


async def test_the_receipt_of_an_audience_has_totals(
    backend: Backend, client: httpx2.AsyncClient, mint: Mint
) -> None:
    for player in ("alice", "bob", "carol"):
        await backend.titles(player)
    sent = await backend.send(to={"everyone": True})
    ids = {"ids": [sent["id"]]}
    for player in ("alice", "bob"):
        inbox = f"/v1/players/{player}/notifications/read"
        await client.post(inbox, headers=mint.bearer(player), json=ids)
    url = f"/v1/everyone/notifications/{sent['id']}/receipt"

    receipt = (await client.get(url, headers=backend.headers)).json()

    assert receipt.pop("stored_at")
    expected = {"id": sent["id"], "state": "stored", "read": 2, "acknowledged": 0}
    assert receipt == expected
    await client.delete(url.removesuffix("/receipt"), headers=backend.headers)
    receipt = (await client.get(url, headers=backend.headers)).json()
    assert (receipt["state"], receipt["read"]) == ("withdrawn", 2)
    assert (await client.get(url, headers=mint.bearer("alice"))).status_code == 403


# Fields of a message.


async def test_a_ttl_becomes_an_expiry_time(
    backend: Backend, client: httpx2.AsyncClient
) -> None:
    sent = await backend.send(ttl_s=3_600)

    url = f"/v1/players/alice/notifications/{sent['id']}"
    shown = (await client.get(url, headers=backend.headers)).json()
    begin, end = (
        datetime.fromisoformat(shown[name]) for name in ("created_at", "expires_at")
    )
    assert abs((end - begin).total_seconds() - 3_600) < 5


async def test_an_expired_notification_is_on_no_page(
    backend: Backend, until: Until
) -> None:
    await backend.send(title="short", expires_at=ahead(seconds=1))
    await backend.send(title="long")

    async def only_one_is_left() -> bool:
        return await backend.titles() == ["long"]

    await until(only_one_is_left)


async def test_a_late_repetition_returns_the_first_response(
    backend: Backend, until: Until
) -> None:
    message = to("alice", expires_at=ahead(seconds=1))
    first = await backend.publish(message, key="k")
    assert first.status_code == 200

    async def is_over() -> bool:
        return await backend.titles() == []

    await until(is_over)
    again = await backend.publish(message, key="k")

    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await backend.publish(message)).status_code == 422


async def test_a_collapse_key_keeps_the_last_notification(backend: Backend) -> None:
    for title in ("1", "2"):
        await backend.send(title=title, collapse_key="score")
    await backend.publish(
        [to("alice", title=t, collapse_key="score") for t in ("3", "4")]
    )

    assert await backend.titles() == ["4"]


async def test_a_recipient_that_muted_the_type_has_no_id(
    backend: Backend, client: httpx2.AsyncClient
) -> None:
    url = "/v1/players/bob/mutes/types/ad"
    assert (await client.put(url, headers=backend.headers)).status_code == 204

    answer = await backend.publish(to("alice", "bob", type="ad"))

    mine, theirs = answer.json()["results"]
    assert mine["id"]
    assert theirs == {"to": "bob", "muted": True}
    assert await backend.titles("bob") == []


async def test_an_ephemeral_notification_is_in_no_inbox(backend: Backend) -> None:
    answer = await backend.publish(to("alice", "bob", persist=False))

    assert answer.status_code == 200, answer.text
    first, second = answer.json()["results"]
    assert (first["to"], second["to"]) == ("alice", "bob")
    assert first["id"] == second["id"]
    assert await backend.titles() == []


async def test_an_ephemeral_notification_reaches_open_streams(
    backend: Backend, open_events: OpenEvents, mint: Mint
) -> None:
    stream = await open_events("/v1/stream", mint.bearer("alice"))
    (hello,) = stream.data

    answer = await backend.publish(to("alice", title="now", persist=False))

    (_, message) = await stream.take(2)
    assert "heartbeat_s" in hello
    assert message["title"] == "now"
    assert message["id"] == answer.json()["results"][0]["id"]
