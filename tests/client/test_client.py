"""Publishing, pages and marks against a server with prepared responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from streamer_client import (
    BadResponse,
    Client,
    FieldProblem,
    Property,
    Rejected,
    Resource,
    Sent,
    Unavailable,
)
from streamer_client.backoff import Clock
from streamer_client.credential import Credential

Answer = httpx2.Response | Exception

PUBLISHED = {"results": [{"to": "alice", "id": "n1"}]}
PAGE = {
    "notifications": [
        {
            "id": "n1",
            "created_at": "2026-11-20T22:52:39.123Z",
            "read_at": "2026-11-20T22:53:00Z",
            "properties": [{"key": "k", "value": "v"}],
        }
    ],
    "next": "older",
    "unread": 3,
    "cursor": "head",
}


class Fake:
    """Returns its responses one after the other, and keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[httpx2.Request] = []
        self.now_s = 0.0
        self.slept_s: list[float] = []
        self.clock = Clock(lambda: self.now_s, self.sleep, lambda: 0.5)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        # The headers, because one request object may be sent more than once.
        self.requests.append(
            httpx2.Request(
                request.method,
                request.url,
                headers=request.headers,
                content=request.content,
            )
        )
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        self.now_s += delay_s

    @property
    def keys(self) -> list[str]:
        return [request.headers["Idempotency-Key"] for request in self.requests]

    @property
    def body(self) -> object:
        return json.loads(self.requests[-1].content)


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
async def client(fake: Fake) -> AsyncIterator[Client]:
    async with Client(
        "http://server/base/",
        token="t0",
        transport=httpx2.MockTransport(fake.answer),
        clock=fake.clock,
    ) as client:
        yield client


def ok(value: object, status: int = 200) -> httpx2.Response:
    return httpx2.Response(status, json=value)


def away(status: int = 503, retry_after: str | None = None) -> httpx2.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    problem = {"title": "the store is away", "detail": "try later"}
    return httpx2.Response(status, json=problem, headers=headers)


async def test_a_publish_contains_only_its_arguments(
    fake: Fake, client: Client
) -> None:
    fake.answers = [ok(PUBLISHED)]

    assert await client.publish("alice", title="Hi") == (Sent("alice", "n1"),)

    request = fake.requests[0]
    assert (request.method, str(request.url)) == (
        "POST",
        "http://server/base/v1/notifications",
    )
    assert request.headers["Authorization"] == "Bearer t0"
    assert fake.body == {"to": {"players": ["alice"]}, "title": "Hi"}
    assert fake.keys[0]


async def test_a_publish_carries_every_field(fake: Fake, client: Client) -> None:
    fake.answers = [ok(PUBLISHED)]

    await client.publish(
        ["alice", "bob"],
        type="chat",
        title="Hi",
        body="there",
        data=None,
        properties={"a": "1"},
        priority="high",
        resource=Resource("/x", "e"),
        idempotency_key="mine",
    )

    assert fake.body == {
        "to": {"players": ["alice", "bob"]},
        "type": "chat",
        "title": "Hi",
        "body": "there",
        "data": None,
        "properties": [{"key": "a", "value": "1"}],
        "priority": "high",
        "resource": {"url": "/x", "etag": "e"},
    }
    assert fake.keys == ["mine"]


async def test_properties_may_repeat_a_key(fake: Fake, client: Client) -> None:
    fake.answers = [ok(PUBLISHED)]

    await client.publish("a", body="b", properties=[Property("k", "1")] * 2)

    assert isinstance(fake.body, dict)
    assert fake.body["properties"] == [{"key": "k", "value": "1"}] * 2


async def test_every_attempt_of_a_publish_has_the_same_key(
    fake: Fake, client: Client
) -> None:
    fake.answers = [
        away(retry_after="2"),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("no answer"),
        away(429),
        ok(PUBLISHED),
    ]

    await client.publish("alice", title="Hi")

    assert len(fake.keys) == 5
    assert len(set(fake.keys)) == 1
    assert fake.slept_s == [2.25, 0.5, 1.0, 2.0]


async def test_every_publish_has_a_key_of_its_own(fake: Fake, client: Client) -> None:
    fake.answers = [ok(PUBLISHED), ok(PUBLISHED)]

    await client.publish("alice", title="Hi")
    await client.publish("alice", title="Hi")

    assert len(set(fake.keys)) == 2


async def test_attempts_are_counted(fake: Fake, client: Client) -> None:
    fake.answers = [away() for _ in range(9)]

    with pytest.raises(Unavailable, match="the store is away") as caught:
        await client.publish("alice", title="Hi")

    assert caught.value.attempt_count == 6
    assert caught.value.status == 503
    assert caught.value.idempotency_key == fake.keys[0]
    assert caught.value.detail == "try later"
    assert caught.value.url == "http://server/base/v1/notifications"
    assert len(fake.requests) == 6


async def test_no_attempt_begins_after_a_minute(fake: Fake, client: Client) -> None:
    fake.answers = [away(retry_after="29") for _ in range(9)]

    with pytest.raises(Unavailable) as caught:
        await client.page()

    assert caught.value.attempt_count == 3
    assert fake.now_s < 60


async def test_a_limit_with_retry_after_is_waited_for(
    fake: Fake, client: Client
) -> None:
    fake.answers = [away(409, retry_after="1"), ok(PAGE)]

    await client.page()

    assert fake.slept_s == [1.25]


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422, 500])
async def test_a_response_that_would_not_change_is_not_retried(
    fake: Fake, client: Client, status: int
) -> None:
    fake.answers = [ok({"title": "no"}, status)]

    with pytest.raises(Rejected) as caught:
        await client.publish("alice", title="Hi")

    assert caught.value.status == status
    assert fake.slept_s == []


async def test_a_problem_is_passed_on_in_full(fake: Fake, client: Client) -> None:
    fake.answers = [
        ok(
            {
                "type": "about:invalid",
                "title": "invalid",
                "status": 422,
                "detail": "see errors",
                "errors": [
                    {"pointer": "/to/players/0", "problem": "is empty"},
                    {"pointer": "", "problem": "says nothing"},
                    {"header": "Idempotency-Key", "problem": "is long"},
                ],
            },
            422,
        )
    ]

    with pytest.raises(Rejected) as caught:
        await client.publish("", title="Hi")

    assert caught.value.type == "invalid"
    assert caught.value.errors == (
        FieldProblem("/to/players/0", "is empty"),
        FieldProblem("the body", "says nothing"),
        FieldProblem("header Idempotency-Key", "is long"),
    )
    assert str(caught.value) == (
        "422 invalid: /to/players/0: is empty; the body: says nothing; "
        "header Idempotency-Key: is long (http://server/base/v1/notifications)"
    )


async def test_a_response_of_another_server_is_a_bad_response(
    fake: Fake, client: Client
) -> None:
    fake.answers = [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(404, text="<html>"),
        httpx2.Response(302, headers={"Location": "http://elsewhere/"}),
    ]

    with pytest.raises(BadResponse) as caught:
        await client.page(type="a")
    with pytest.raises(Rejected, match="404 Not Found"):
        await client.page()
    with pytest.raises(Rejected, match="302 Found"):
        await client.page()
    assert caught.value.url == "http://server/base/v1/players/me/notifications"


async def test_a_notification_that_is_not_persisted_is_sent_once(
    fake: Fake, client: Client
) -> None:
    fake.answers = [away()]

    with pytest.raises(Unavailable) as caught:
        await client.publish("alice", title="Hi", persist=False)

    assert caught.value.attempt_count == 1
    assert "Idempotency-Key" not in fake.requests[0].headers
    assert isinstance(fake.body, dict)
    assert fake.body["persist"] is False


async def test_a_permanent_limit_is_not_waited_for(fake: Fake, client: Client) -> None:
    problem = {"title": "no", "limit": "topics_per_player"}
    fake.answers = [httpx2.Response(409, json=problem, headers={"Retry-After": "5"})]

    with pytest.raises(Rejected) as caught:
        await client.join("news")

    assert caught.value.limit == "topics_per_player"
    assert fake.slept_s == []


async def test_a_page_is_requested_with_its_last_etag(
    fake: Fake, client: Client
) -> None:
    fake.answers = [
        httpx2.Response(200, json=PAGE, headers={"ETag": '"7"'}),
        httpx2.Response(304),
        ok(PAGE),
        ok(PAGE),
    ]

    first = await client.page(limit=5)
    same = await client.page(limit=5)
    await client.page("bob", limit=5)
    await client.page(limit=6)

    etags = [request.headers.get("If-None-Match") for request in fake.requests]
    assert etags == [None, '"7"', None, None]
    assert same is first


async def test_a_page_is_read_with_its_marks(fake: Fake, client: Client) -> None:
    fake.answers = [ok(PAGE)]

    page = await client.page("al/ice", limit=5, before="c 1")

    assert str(fake.requests[0].url) == (
        "http://server/base/v1/players/al%2Fice/notifications?limit=5&before=c+1"
    ) or fake.requests[0].url.params == httpx2.QueryParams(limit="5", before="c 1")
    assert (page.next, page.unread, page.cursor) == ("older", 3, "head")
    assert page.notifications[0].read_at is not None
    assert page.notifications[0].properties == (Property("k", "v"),)


async def test_one_notification_is_read_by_id(fake: Fake, client: Client) -> None:
    fake.answers = [ok(PAGE["notifications"][0])]  # type: ignore[index]

    assert (await client.get("n1")).id == "n1"
    assert fake.requests[0].url.path == "/base/v1/players/me/notifications/n1"


@pytest.mark.parametrize(
    ("mark", "body"),
    [
        (lambda client: client.mark_read(ids=["a"]), {"ids": ["a"]}),
        (lambda client: client.mark_read(ids=[]), {"ids": []}),
        (lambda client: client.mark_read("bob", up_to="c"), {"up_to": "c"}),
        (lambda client: client.mark_read(all=True), {"all": True}),
    ],
)
async def test_a_mark_returns_the_unread_count(
    fake: Fake, client: Client, mark: Callable[[Client], object], body: object
) -> None:
    fake.answers = [ok({"unread": 2})]

    assert await mark(client) == 2  # type: ignore[misc]

    assert fake.body == body


async def test_an_ambiguous_mark_is_not_sent(client: Client) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        await client.mark_read(ids=["a"], all=True)
    with pytest.raises(ValueError, match="exactly one"):
        await client.mark_read()


async def test_a_token_refused_several_times_is_renewed_once(
    fake: Fake,
) -> None:
    asked = 0

    async def source() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return "good"

    def answer(request: httpx2.Request) -> httpx2.Response:
        good = request.headers["Authorization"] == "Bearer good"
        return ok({"unread": 0}) if good else ok({"title": "expired"}, 401)

    async with Client(
        "http://server",
        token="old",
        token_source=source,
        transport=httpx2.MockTransport(answer),
    ) as client:
        marks = [client.mark_read(all=True) for _ in range(3)]
        assert await asyncio.gather(*marks) == [0, 0, 0]

    assert asked == 1


async def test_a_refused_token_without_a_source_is_rejected(
    fake: Fake, client: Client
) -> None:
    fake.answers = [ok({"title": "unauthenticated", "detail": "it is expired"}, 401)]

    with pytest.raises(Rejected, match="401 unauthenticated: it is expired"):
        await client.page()


@pytest.mark.parametrize("url", ["", "server", "ftp://server", "http://", "ws://x"])
def test_a_client_needs_the_address_of_a_server(url: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        Client(url, token="t")


def test_a_client_needs_a_credential() -> None:
    with pytest.raises(ValueError, match="token"):
        Client("http://server")


@pytest.mark.parametrize("token", ["secret", "a.b.c", "a.e30.c", "a.eyJleHAiOiJ4In0.c"])
async def test_the_expiry_of_an_opaque_token_is_unknown(token: str) -> None:
    async def source() -> str:
        return token

    credential = Credential(None, source, unix_s=lambda: 0.0)
    await credential.token()

    assert credential.renewal_in_s(0.5) is None
