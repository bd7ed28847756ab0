"""Sending to campaigns as WalletWerk's clients do it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from ..conftest import AddKey, Mint, Until

KINDS = {"draft", "active", "revoked", "expired", "removed"}
FIELDS = {
    "id",
    "campaignId",
    "header",
    "body",
    "status",
    "scheduledFor",
    "sentAt",
    "recipientCount",
    "createdAt",
    "updatedAt",
}


class Campaign:
    """A campaign, with the credential of one caller."""

    def __init__(self, client: Any, key: str, *, name: str = "c", at: str = "") -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}
        self.url = f"{at}/campaigns/{name}/notifications"
        self.cards_url = f"/v1/campaigns/{name}/cards"
        self.native_url = f"/v1/campaigns/{name}"

    async def make(self, **cards: str) -> None:
        """Create it, with a card for each player in the given status."""
        url = self.native_url
        answer = await self.client.put(url, headers=self.headers, json={})
        assert answer.status_code == 200, answer.text
        if cards:
            await self.put_cards(**cards)

    async def put_cards(self, **cards: str) -> None:
        items = [
            {"id": f"card-{player}", "player": player, "status": status}
            for player, status in cards.items()
        ]
        answer = await self.client.put(self.cards_url, headers=self.headers, json=items)
        assert answer.status_code == 200, answer.text

    async def send(self, key: str = "", **fields: Any) -> Any:
        return await self._post(self.url, key, fields)

    async def schedule(self, when: Any = None, *, key: str = "", **fields: Any) -> Any:
        fields = {"scheduledFor": ahead(hours=1) if when is None else when, **fields}
        return await self._post(f"{self.url}/schedule", key, fields)

    async def get(self, send_id: str) -> Any:
        return await self.client.get(f"{self.url}/{send_id}", headers=self.headers)

    async def cancel(self, send_id: str) -> Any:
        return await self.client.delete(f"{self.url}/{send_id}", headers=self.headers)

    async def scheduled(self, **query: Any) -> Any:
        return await self.client.get(
            f"{self.url}/scheduled", headers=self.headers, params=query
        )

    async def _post(self, url: str, key: str, fields: dict[str, Any]) -> Any:
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        body = {"header": "h", "body": "b", **fields}
        return await self.client.post(url, headers=headers, json=body)


@pytest_asyncio.fixture(loop_scope="module")
async def campaign(client: httpx2.AsyncClient, backend_key: str) -> Campaign:
    campaign = Campaign(client, backend_key)
    await campaign.make(alice="active")
    return campaign


Titles = Callable[[str], Awaitable[list[str]]]


@pytest.fixture
def titles(client: httpx2.AsyncClient, mint: Mint) -> Titles:
    """Return a function that returns titles of a player's notifications."""

    async def titles(player: str) -> list[str]:
        url = "/v1/players/me/notifications"
        answer = await client.get(url, headers=mint.bearer(player))
        return [shown["title"] for shown in answer.json()["notifications"]]

    return titles


def ahead(**time: float) -> str:
    return f"{datetime.now(UTC) + timedelta(**time):%Y-%m-%dT%H:%M:%S.%fZ}"


def data_of(answer: Any, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"success", "data"}
    assert body["success"] is True
    data: dict[str, Any] = body["data"]
    return data


def error_of(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"success", "error"}
    assert body["success"] is False
    assert body["error"].keys() == {"code", "message"}
    assert body["error"]["message"]
    return str(body["error"]["code"])


# Sending.


async def test_a_notification_reaches_active_cards_only(
    campaign: Campaign, client: httpx2.AsyncClient, mint: Mint
) -> None:
    await campaign.put_cards(**{kind: kind for kind in KINDS})

    sent = data_of(await campaign.send(header="Title", body="Text"), 201)

    assert sent.keys() == FIELDS
    assert (sent["header"], sent["body"]) == ("Title", "Text")
    assert sent["campaignId"] == "c"
    assert sent["status"] == "sent"
    assert sent["recipientCount"] == 2
    assert sent["scheduledFor"] is None
    assert sent["sentAt"] >= sent["createdAt"]
    for player in ("alice", *KINDS):
        answer = await client.get(
            "/v1/players/me/notifications", headers=mint.bearer(player)
        )
        shown = answer.json()["notifications"]
        if player in ("alice", "active"):
            assert [(n["title"], n["body"]) for n in shown] == [("Title", "Text")]
            assert shown[0]["source"] == "walletwerk"
        else:
            assert shown == []
    assert data_of(await campaign.get(sent["id"])) == sent


async def test_a_player_with_several_cards_gets_one_notification(
    campaign: Campaign, titles: Titles
) -> None:
    cards = [
        {"id": f"extra-{i}", "player": "alice", "status": "active"} for i in range(3)
    ]
    url, headers = campaign.cards_url, campaign.headers
    await campaign.client.put(url, headers=headers, json=cards)

    assert data_of(await campaign.send(), 201)["recipientCount"] == 1
    assert await titles("alice") == ["h"]


async def test_a_campaign_without_cards_sends_to_nobody(
    client: httpx2.AsyncClient, backend_key: str
) -> None:
    empty = Campaign(client, backend_key, name="empty")
    await empty.make()

    sent = data_of(await empty.send(), 201)

    assert (sent["status"], sent["recipientCount"]) == ("sent", 0)


async def test_both_bases_are_the_same(
    campaign: Campaign, client: httpx2.AsyncClient, backend_key: str
) -> None:
    other = Campaign(client, backend_key, at="/api/v1")

    sent = data_of(await other.send(), 201)

    assert data_of(await campaign.get(sent["id"])) == sent
    assert data_of(await other.scheduled()) == data_of(await campaign.scheduled())


# Scheduling.


async def test_the_cards_at_the_time_of_sending_count(
    campaign: Campaign, titles: Titles, until: Until
) -> None:
    await campaign.put_cards(bob="draft", carl="active")
    made = data_of(await campaign.schedule(ahead(seconds=0.7)), 201)
    assert made["status"] == "pending"
    assert made["recipientCount"] is None
    assert made["sentAt"] is None

    await campaign.put_cards(bob="active", carl="revoked")

    async def is_sent() -> bool:
        return bool(data_of(await campaign.get(made["id"]))["status"] == "sent")

    await until(is_sent)
    assert data_of(await campaign.get(made["id"]))["recipientCount"] == 2
    assert [await titles(p) for p in ("alice", "bob", "carl")] == [["h"], ["h"], []]


@pytest.mark.parametrize(
    "spelling",
    [
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S.000000Z",
    ],
)
async def test_every_time_format_is_parsed(campaign: Campaign, spelling: str) -> None:
    when = datetime.now(UTC) + timedelta(days=29)

    made = data_of(await campaign.schedule(when.strftime(spelling)), 201)

    assert made["scheduledFor"] == f"{when:%Y-%m-%dT%H:%M:%S}.000Z"


@pytest.mark.parametrize(
    "when",
    [
        "",
        "soon",
        "2018-08-23T17:00:00Z",
        "2026-02-29T00:00:00Z",
        "2999-12-31T23:59:60Z",
        "9999-12-31T23:59:59Z",
        "-2999-01-01T00:00:00Z",
        1e308,
        1_900_000_000,
        None,
        ["2999-01-01T00:00:00Z"],
    ],
)
async def test_a_time_that_is_not_in_the_future_is_refused(
    campaign: Campaign, when: Any
) -> None:
    answer = await campaign.client.post(
        f"{campaign.url}/schedule",
        headers=campaign.headers,
        json={"header": "h", "body": "b", "scheduledFor": when},
    )

    assert error_of(answer, 400) == "VALIDATION_ERROR"
    assert "scheduledFor" in answer.json()["error"]["message"]
    assert data_of(await campaign.scheduled())["pagination"]["total"] == 0


async def test_a_time_is_at_most_thirty_days_ahead(campaign: Campaign) -> None:
    data_of(await campaign.schedule(ahead(days=30)), 201)
    error_of(await campaign.schedule(ahead(days=30, seconds=2)), 400)
    error_of(await campaign.schedule(ahead(seconds=-1)), 400)
    data_of(await campaign.schedule(ahead(seconds=30)), 201)


@pytest.mark.parametrize(
    ("name", "at_limit", "past_it"),
    [
        ("header", "h" * 100, "h" * 101),
        ("header", "😀" * 100, "😀" * 101),
        ("body", "b" * 500, "b" * 501),
        ("header", "h", ""),
        ("body", "b", ""),
        ("header", "h", None),
        ("body", "b", 7),
    ],
)
async def test_every_limit_is_enforced(
    campaign: Campaign, name: str, at_limit: str, past_it: Any
) -> None:
    for call in (campaign.send, campaign.schedule):
        data_of(await call(**{name: at_limit}), 201)
        refused = await call(**{name: past_it})
        assert error_of(refused, 400) == "VALIDATION_ERROR"
        assert name in refused.json()["error"]["message"]


# Three per campaign.


async def test_the_fourth_notification_is_refused(
    campaign: Campaign, titles: Titles
) -> None:
    data_of(await campaign.send(), 201)
    data_of(await campaign.schedule(), 201)
    data_of(await campaign.send(), 201)

    for refused in (await campaign.send(), await campaign.schedule()):
        assert error_of(refused, 429) == "NOTIFICATION_LIMIT_EXCEEDED"
        assert "retry-after" not in refused.headers
    assert await titles("alice") == ["h", "h"]


async def test_one_of_many_concurrent_requests_gets_the_last_slot(
    campaign: Campaign, titles: Titles, client: httpx2.AsyncClient, backend_key: str
) -> None:
    """Return concurrent requests: three keys, both base paths, sends and schedules."""
    data_of(await campaign.send(header="1"), 201)
    data_of(await campaign.schedule(), 201)
    other = Campaign(client, backend_key, at="/api/v1")

    raced = await asyncio.gather(
        *(
            call(header="last")
            for call in (campaign.send, other.send)
            for _ in range(6)
        ),
        *(call(header="last") for call in (campaign.schedule, other.schedule)),
    )

    statuses = sorted(answer.status_code for answer in raced)
    assert statuses == [201] + [429] * 13
    listed = data_of(await campaign.scheduled())["notifications"]
    assert (await titles("alice")).count("last") + len(listed) == 2


async def test_a_cancellation_while_pending_releases_the_slot(
    campaign: Campaign,
) -> None:
    made = [data_of(await campaign.schedule(), 201) for _ in range(3)]
    error_of(await campaign.send(), 429)

    cancelled = data_of(await campaign.cancel(made[0]["id"]))
    assert cancelled["status"] == "cancelled"
    # A second cancellation releases no second slot.
    error_of(await campaign.cancel(made[0]["id"]), 409)

    sent = data_of(await campaign.send(), 201)
    error_of(await campaign.send(), 429)
    # Neither does a sent notification.
    assert error_of(await campaign.cancel(sent["id"]), 409)
    error_of(await campaign.send(), 429)


async def test_a_cancellation_on_any_surface_releases_the_slot(
    campaign: Campaign,
) -> None:
    made = [data_of(await campaign.schedule(), 201) for _ in range(3)]

    url = f"/v1/schedules/{made[0]['id']}"
    answer = await campaign.client.delete(url, headers=campaign.headers)

    assert answer.status_code == 200, answer.text
    data_of(await campaign.send(), 201)


async def test_a_refused_request_takes_no_slot(campaign: Campaign) -> None:
    for _ in range(3):
        error_of(await campaign.send(header=""), 400)
        error_of(await campaign.schedule(ahead(days=31)), 400)
        data_of(await campaign.send(), 201)


# Listing, retrieving, cancelling.


async def test_the_list_is_newest_first_with_pagination(
    client: httpx2.AsyncClient, backend_key: str
) -> None:
    campaign = Campaign(client, backend_key)
    await campaign.make()
    made = []
    for i in range(25):
        made.append(data_of(await campaign.schedule(header=f"{i}"), 201))
        if i < 23:
            data_of(await campaign.cancel(made[-1]["id"]))
    data_of(await campaign.send(), 201)

    first = data_of(await campaign.scheduled())
    assert [n["header"] for n in first["notifications"]] == [
        f"{i}" for i in range(24, 4, -1)
    ]
    assert first["pagination"] == {
        "total": 25,
        "limit": 20,
        "offset": 0,
        "hasMore": True,
    }
    last = data_of(await campaign.scheduled(limit=10, offset=20))
    assert [n["header"] for n in last["notifications"]] == ["4", "3", "2", "1", "0"]
    assert last["pagination"]["hasMore"] is False
    assert data_of(await campaign.scheduled(offset=25))["notifications"] == []


async def test_the_list_is_filtered_by_status(campaign: Campaign, until: Until) -> None:
    pending = data_of(await campaign.schedule(), 201)["id"]
    cancelled = data_of(await campaign.schedule(), 201)["id"]
    data_of(await campaign.cancel(cancelled))
    sent = data_of(await campaign.schedule(ahead(seconds=0.3)), 201)["id"]

    async def ids(status: str) -> list[str]:
        page = data_of(await campaign.scheduled(status=status))
        assert page["pagination"]["total"] == len(page["notifications"])
        return [shown["id"] for shown in page["notifications"]]

    async def is_sent() -> bool:
        return await ids("sent") == [sent]

    await until(is_sent)
    assert await ids("pending") == [pending]
    assert await ids("cancelled") == [cancelled]
    assert await ids("sending") == await ids("failed") == []
    assert len(await ids("")) == 3


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 101},
        {"limit": "x"},
        {"limit": "٣"},
        {"offset": -1},
        {"offset": "1.0"},
        {"status": "PENDING"},
        {"status": "done"},
    ],
)
async def test_an_invalid_parameter_is_refused(
    campaign: Campaign, query: dict[str, Any]
) -> None:
    refused = await campaign.scheduled(**query)

    assert error_of(refused, 400) == "VALIDATION_ERROR"
    assert next(iter(query)) in refused.json()["error"]["message"]


async def test_limits_of_the_list_are_enforced(campaign: Campaign) -> None:
    data_of(await campaign.scheduled(limit=1))
    data_of(await campaign.scheduled(limit=100, offset=0))


async def test_a_sent_notification_cannot_be_cancelled(campaign: Campaign) -> None:
    sent = data_of(await campaign.send(), 201)

    assert (
        error_of(await campaign.cancel(sent["id"]), 409) == "NOTIFICATION_NOT_PENDING"
    )


async def test_a_cancelled_notification_cannot_be_cancelled(
    campaign: Campaign,
) -> None:
    here, natively = [data_of(await campaign.schedule(), 201) for _ in range(2)]
    data_of(await campaign.cancel(here["id"]))
    url = f"/v1/schedules/{natively['id']}"
    await campaign.client.delete(url, headers=campaign.headers)

    for made in (here, natively):
        answer = await campaign.cancel(made["id"])

        assert error_of(answer, 409) == "NOTIFICATION_NOT_PENDING"
        assert "cancelled" in answer.json()["error"]["message"]
        assert data_of(await campaign.get(made["id"]))["status"] == "cancelled"


async def test_one_of_concurrent_cancellations_succeeds(campaign: Campaign) -> None:
    made = data_of(await campaign.schedule(), 201)

    answers = await asyncio.gather(*(campaign.cancel(made["id"]) for _ in range(6)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [409] * 5


async def test_a_paused_notification_is_pending_here(campaign: Campaign) -> None:
    """The vendor's page knows no pause: it is done on the native surface."""
    made = data_of(await campaign.schedule(), 201)
    url = f"/v1/schedules/{made['id']}/pause"
    paused = await campaign.client.post(url, headers=campaign.headers)
    assert paused.json()["state"] == "paused", paused.text

    found = data_of(await campaign.get(made["id"]))
    listed = data_of(await campaign.scheduled(status="pending"))
    error_of(await campaign.scheduled(status="paused"), 400)
    cancelled = data_of(await campaign.cancel(made["id"]))

    assert found["status"] == "pending"
    assert [it["id"] for it in listed["notifications"]] == [made["id"]]
    assert cancelled["status"] == "cancelled"


async def test_cancelled_notifications_never_arrive(
    campaign: Campaign, titles: Titles, until: Until
) -> None:
    made = data_of(await campaign.schedule(ahead(seconds=0.4), header="no"), 201)
    data_of(await campaign.cancel(made["id"]))
    data_of(await campaign.schedule(ahead(seconds=0.5), header="yes"), 201)

    async def arrived() -> bool:
        return bool(await titles("alice"))

    await until(arrived)
    assert await titles("alice") == ["yes"]


@pytest.mark.parametrize("send_id", ["scheduled", "x", "01a1fb68-f083-7000-8000-0"])
async def test_an_invalid_id_is_unknown(campaign: Campaign, send_id: str) -> None:
    assert error_of(await campaign.cancel(send_id), 404) == "NOTIFICATION_NOT_FOUND"
    if send_id != "scheduled":
        assert error_of(await campaign.get(send_id), 404) == "NOTIFICATION_NOT_FOUND"


async def test_ids_of_other_campaigns_and_apps_are_unknown(
    campaign: Campaign, client: httpx2.AsyncClient, backend_key: str, add_key: AddKey
) -> None:
    made = data_of(await campaign.schedule(), 201)
    sibling = Campaign(client, backend_key, name="d")
    await sibling.make()
    foreign = Campaign(client, await add_key(app="other"))

    for call in (sibling.get, sibling.cancel):
        assert error_of(await call(made["id"]), 404) == "NOTIFICATION_NOT_FOUND"
    for answer in (
        await foreign.get(made["id"]),
        await foreign.cancel(made["id"]),
        await foreign.send(),
        await foreign.schedule(),
        await foreign.scheduled(),
        await Campaign(client, backend_key, name="unknown").send(),
    ):
        assert error_of(answer, 404) == "CAMPAIGN_NOT_FOUND"
    # It existed before, and must exist after.
    await foreign.make()
    assert error_of(await foreign.get(made["id"]), 404) == "NOTIFICATION_NOT_FOUND"
    assert data_of(await campaign.get(made["id"])) == made


async def test_a_native_schedule_is_not_a_notification_of_the_campaign(
    campaign: Campaign,
) -> None:
    answer = await campaign.client.post(
        "/v1/notifications",
        headers=campaign.headers,
        json={"to": {"players": ["alice"]}, "body": "b", "send_at": ahead(hours=1)},
    )
    schedule_id = answer.json()["schedule"]["id"]

    assert error_of(await campaign.cancel(schedule_id), 404)


# Credentials.


async def test_operations_require_their_scopes(
    campaign: Campaign, client: httpx2.AsyncClient, add_key: AddKey, mint: Mint
) -> None:
    made = data_of(await campaign.schedule(), 201)
    reader = Campaign(client, await add_key("campaigns:read"))
    writer = Campaign(client, await add_key("campaigns:write"))
    player = Campaign(client, mint("alice", "notification:player:*"))

    data_of(await reader.scheduled())
    data_of(await reader.get(made["id"]))
    data_of(await writer.send(), 201)
    data_of(await writer.cancel(made["id"]))
    for refused in (
        await reader.send(),
        await reader.schedule(),
        await reader.cancel(made["id"]),
        await writer.scheduled(),
        await writer.get(made["id"]),
        await player.send(),
        await player.scheduled(),
    ):
        assert error_of(refused, 403) == "INSUFFICIENT_SCOPE"


@pytest.mark.parametrize("header", ["", "Bearer sk_wrong", "Bearer x", "Basic x"])
async def test_a_missing_credential_is_401(
    client: httpx2.AsyncClient, campaign: Campaign, header: str
) -> None:
    campaign.headers = {"Authorization": header} if header else {}

    assert error_of(await campaign.send(), 401) == "INVALID_API_KEY"
    refused = await campaign.scheduled()
    assert error_of(refused, 401) == "INVALID_API_KEY"
    assert refused.headers["www-authenticate"] == "Bearer"


# Idempotency.


async def test_a_repetition_with_its_key_takes_one_slot(
    campaign: Campaign, titles: Titles
) -> None:
    first = await campaign.send("k")
    again = await campaign.send("k")

    assert data_of(again, 201) == data_of(first, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await titles("alice") == ["h"]
    for _ in range(2):
        data_of(await campaign.send(), 201)
    # The limit is reached, and yet the response is the same.
    assert data_of(await campaign.send("k"), 201) == data_of(first, 201)


async def test_concurrent_duplicates_take_one_slot(campaign: Campaign) -> None:
    when = ahead(hours=1)

    twins = await asyncio.gather(*(campaign.schedule(when, key="k") for _ in range(10)))

    assert len({data_of(twin, 201)["id"] for twin in twins}) == 1
    assert data_of(await campaign.scheduled())["pagination"]["total"] == 1


async def test_a_repetition_after_a_cancellation_has_the_first_response(
    campaign: Campaign, until: Until
) -> None:
    when = ahead(seconds=0.3)
    first = data_of(await campaign.schedule(when, key="k"), 201)

    async def is_sent() -> bool:
        return bool(data_of(await campaign.get(first["id"]))["status"] == "sent")

    await until(is_sent)
    # Its time has passed by then.
    assert data_of(await campaign.schedule(when, key="k"), 201) == first


async def test_another_request_with_the_key_is_refused(
    campaign: Campaign, client: httpx2.AsyncClient, backend_key: str
) -> None:
    data_of(await campaign.send("k"), 201)
    other = Campaign(client, backend_key, name="d")
    await other.make()

    for refused in (
        await campaign.send("k", body="x"),
        await campaign.schedule(key="k"),
        await other.send("k"),
    ):
        assert error_of(refused, 409) == "IDEMPOTENCY_KEY_REUSED"


# Bodies and paths.


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * 300_000, "application/json", 413),
    ],
)
async def test_a_malformed_body_is_refused(
    campaign: Campaign, body: bytes, media_type: str, status: int
) -> None:
    headers = {**campaign.headers, "content-type": media_type}
    for url in (campaign.url, f"{campaign.url}/schedule"):
        error_of(await campaign.client.post(url, headers=headers, content=body), status)


async def test_unknown_paths_have_the_same_error_format(
    campaign: Campaign, client: httpx2.AsyncClient
) -> None:
    for base in ("/campaigns", "/api/v1/campaigns"):
        answer = await client.get(f"{base}/c/nothing", headers=campaign.headers)
        assert error_of(answer, 404) == "NOT_FOUND"
    answer = await client.put(campaign.url, headers=campaign.headers)
    assert error_of(answer, 405) == "METHOD_NOT_ALLOWED"
