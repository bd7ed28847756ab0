"""Scheduling on the native surface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from ..conftest import AddKey, Mint, Until


class Backend:
    def __init__(self, client: Any, key: str) -> None:
        self.client = client
        self.headers = {"Authorization": f"Bearer {key}"}

    async def publish(self, *players: str, key: str = "", **message: Any) -> Any:
        headers = {**self.headers, **({"Idempotency-Key": key} if key else {})}
        body = {"to": {"players": list(players)}, "body": "b", **message}
        return await self.client.post("/v1/notifications", headers=headers, json=body)

    async def schedule(self, *players: str, **message: Any) -> dict[str, Any]:
        """Schedule for one hour ahead unless told otherwise."""
        message = {"send_at": ahead(hours=1), **message}
        answer = await self.publish(*(players or ("alice",)), **message)
        assert answer.status_code == 202, answer.text
        assert answer.json().keys() == {"schedule"}
        schedule: dict[str, Any] = answer.json()["schedule"]
        return schedule

    async def ask(self, method: str, schedule_id: str, body: Any = None) -> Any:
        url = f"/v1/schedules/{schedule_id}"
        return await self.client.request(method, url, headers=self.headers, json=body)

    async def get(self, schedule_id: str) -> dict[str, Any]:
        answer = await self.ask("GET", schedule_id)
        assert answer.status_code == 200, answer.text
        schedule: dict[str, Any] = answer.json()
        return schedule

    async def is_sent(self, schedule_id: str) -> bool:
        return bool((await self.get(schedule_id))["state"] == "sent")


Read = Callable[[str], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def backend(client: httpx2.AsyncClient, backend_key: str) -> Backend:
    return Backend(client, backend_key)


@pytest.fixture
def read(client: httpx2.AsyncClient, mint: Mint) -> Read:
    async def read(player: str) -> list[dict[str, Any]]:
        url = "/v1/players/me/notifications"
        answer = await client.get(url, headers=mint.bearer(player))
        return list(reversed(answer.json()["notifications"]))

    return read


def ahead(**time: float) -> str:
    return f"{datetime.now(UTC) + timedelta(**time):%Y-%m-%dT%H:%M:%S.%fZ}"


def problem(answer: Any, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"about:{kind}"
    return body


async def test_a_scheduled_notification_arrives_at_its_time(
    backend: Backend, read: Read, until: Until
) -> None:
    when = ahead(seconds=0.4)
    schedule = await backend.schedule("alice", send_at=when, title="T")
    assert schedule["state"] == "pending"
    assert (schedule["total"], schedule["delivered"], schedule["late"]) == (1, 0, False)
    assert schedule["notification"] == {"title": "T", "body": "b", "source": "native"}
    assert schedule["to"] == "alice"
    assert await read("alice") == []

    await until(lambda: backend.is_sent(schedule["id"]))

    (shown,) = await read("alice")
    assert (shown["title"], shown["body"]) == ("T", "b")
    assert when[:23] <= shown["created_at"]
    sent = await backend.get(schedule["id"])
    assert (sent["delivered"], sent["late"]) == (1, False)
    assert sent["settled_at"] >= sent["send_at"]


async def test_a_schedule_has_the_fields_of_its_message(
    backend: Backend, read: Read, until: Until
) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    fields = {"ttl_s": 60, "collapse_key": "k", "device": "latest"}
    schedule = await backend.schedule("alice", send_at=when.isoformat(), **fields)
    ends = datetime.fromisoformat(schedule["notification"]["expires_at"])
    assert abs((ends - when).total_seconds() - 60) < 1

    now = {"send_at": ahead(seconds=0.1)}
    assert (await backend.ask("PATCH", schedule["id"], now)).status_code == 200
    await until(lambda: backend.is_sent(schedule["id"]))

    (shown,) = await read("alice")
    assert shown["collapse_key"] == "k"
    assert shown["expires_at"] < schedule["notification"]["expires_at"]


async def test_a_past_time_sends_at_once(
    backend: Backend, read: Read, until: Until
) -> None:
    schedule = await backend.schedule(send_at="2018-08-23T17:00:00Z")

    await until(lambda: backend.is_sent(schedule["id"]))
    (shown,) = await read("alice")
    assert "due_at" not in shown


async def test_a_large_schedule_reports_its_progress(
    backend: Backend, read: Read, until: Until
) -> None:
    players = [f"p{i}" for i in range(120)]

    schedule = await backend.schedule(*players, "p0", send_at=ahead(seconds=0.2))
    assert schedule["total"] == 120
    await until(lambda: backend.is_sent(schedule["id"]))

    assert (await backend.get(schedule["id"]))["delivered"] == 120
    for player in players:
        assert len(await read(player)) == 1


async def test_more_than_a_thousand_players_are_served_by_the_scheduler(
    backend: Backend, read: Read, until: Until
) -> None:
    answer = await backend.publish(*(f"p{i}" for i in range(1_001)))
    assert answer.status_code == 202, answer.text
    schedule = answer.json()["schedule"]

    await until(lambda: backend.is_sent(schedule["id"]))

    assert (await backend.get(schedule["id"]))["delivered"] == 1_001


async def test_schedules_are_listed_by_pages(backend: Backend) -> None:
    schedule = [await backend.schedule() for _ in range(5)]
    listed: list[Any] = []
    after = ""
    while True:
        answer = await backend.client.get(
            "/v1/schedules",
            headers=backend.headers,
            params={"limit": 2, **({"after": after} if after else {})},
        )
        page = answer.json()
        listed += page["schedules"]
        after = page["next"]
        if after is None:
            break

    assert sorted(listed, key=str) == sorted(schedule, key=str)
    assert listed == sorted(listed, key=lambda s: (s["created_at"], s["id"]))


@pytest.mark.parametrize("query", [{"after": "x"}, {"limit": 0}, {"limit": 101}])
async def test_an_invalid_parameter_is_refused(
    backend: Backend, query: dict[str, Any]
) -> None:
    answer = await backend.client.get(
        "/v1/schedules", headers=backend.headers, params=query
    )

    problem(answer, 400, "invalid")


async def test_a_cancelled_schedule_stays_cancelled(backend: Backend) -> None:
    schedule = await backend.schedule()

    cancelled = await backend.ask("DELETE", schedule["id"])
    assert cancelled.status_code == 200
    assert cancelled.json()["state"] == "cancelled"
    again = await backend.ask("DELETE", schedule["id"])
    assert again.status_code == 200
    assert again.json() == cancelled.json()
    moved = await backend.ask("PATCH", schedule["id"], {"send_at": ahead(hours=2)})
    problem(moved, 409, "too-late")


async def test_a_sent_schedule_cannot_be_changed(
    backend: Backend, until: Until
) -> None:
    schedule = await backend.schedule(send_at=ahead(seconds=-1))
    await until(lambda: backend.is_sent(schedule["id"]))

    problem(await backend.ask("DELETE", schedule["id"]), 409, "too-late")
    move = {"send_at": ahead(hours=1)}
    problem(await backend.ask("PATCH", schedule["id"], move), 409, "too-late")


async def test_a_schedule_moved_to_the_past_is_sent_at_once(
    backend: Backend, until: Until
) -> None:
    schedule = await backend.schedule()

    moved = await backend.ask(
        "PATCH", schedule["id"], {"send_at": "2018-08-23T17:00:00Z"}
    )
    assert moved.status_code == 200

    await until(lambda: backend.is_sent(schedule["id"]))


@pytest.mark.parametrize(
    "send_at",
    [
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%dT%H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S.5Z",
        "%Y-%m-%d %H:%M:%SZ",
    ],
)
async def test_every_accepted_time_format_is_parsed(
    backend: Backend, send_at: str
) -> None:
    when = datetime.now(UTC) + timedelta(days=29)

    schedule = await backend.schedule(send_at=when.strftime(send_at))

    assert schedule["send_at"].startswith(f"{when:%Y-%m-%dT%H:%M:%S}.")


@pytest.mark.parametrize(
    "send_at",
    [
        "",
        "soon",
        "2018-08-23",
        "2999-01-01T00:00:00",
        "2026-02-29T00:00:00Z",
        "2026-11-20T23:59:60Z",
        "2026-03-29T02:30:00+01:00[Europe/Berlin]",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "-0001-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        1e308,
        -1,
        True,
        {},
    ],
)
async def test_an_invalid_or_distant_time_is_refused(
    backend: Backend, send_at: Any
) -> None:
    wrong = problem(await backend.publish("alice", send_at=send_at), 422, "invalid")
    assert [error["pointer"] for error in wrong["errors"]] == ["/send_at"]

    schedule = await backend.schedule()
    moved = await backend.ask("PATCH", schedule["id"], {"send_at": send_at})
    problem(moved, 422, "invalid")
    assert (await backend.get(schedule["id"]))["send_at"] == schedule["send_at"]


async def test_a_schedule_is_at_most_thirty_days_ahead(backend: Backend) -> None:
    await backend.schedule(send_at=ahead(days=30))
    refused = await backend.publish("alice", send_at=ahead(days=30, seconds=2))
    problem(refused, 422, "invalid")


@pytest.mark.parametrize("spread_s", [0, 14_400])
async def test_a_spread_is_at_most_four_hours(backend: Backend, spread_s: int) -> None:
    schedule = await backend.schedule("a", "b", spread_s=spread_s)
    assert schedule.get("spread_s", 0) == spread_s

    for wrong in (14_401, -1, "x"):
        refused = await backend.publish("a", send_at=ahead(hours=1), spread_s=wrong)
        problem(refused, 422, "invalid")


async def test_an_invalid_player_prevents_the_whole_schedule(
    backend: Backend, client: httpx2.AsyncClient
) -> None:
    refused = await backend.publish("alice", "me", send_at=ahead(hours=1))
    problem(refused, 422, "invalid")

    listed = await client.get("/v1/schedules", headers=backend.headers)
    assert listed.json() == {"schedules": [], "next": None}


async def test_a_repetition_with_its_key_has_the_same_response(
    backend: Backend, read: Read, until: Until
) -> None:
    when = ahead(seconds=0.3)
    first = await backend.publish("alice", key="k", send_at=when)
    twins = await asyncio.gather(
        *(backend.publish("alice", key="k", send_at=when) for _ in range(5))
    )
    schedule_id = first.json()["schedule"]["id"]
    await until(lambda: backend.is_sent(schedule_id))
    after = await backend.publish("alice", key="k", send_at=when)

    for again in (*twins, after):
        assert (again.status_code, again.text) == (202, first.text)
        assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(await read("alice")) == 1
    refused = await backend.publish("bob", key="k", send_at=when)
    problem(refused, 422, "idempotency-key-reuse")


async def test_schedules_of_other_apps_look_unknown(
    backend: Backend, client: httpx2.AsyncClient, add_key: AddKey
) -> None:
    schedule = await backend.schedule()
    foreign = Backend(client, await add_key(app="other"))

    for schedule_id in (schedule["id"], "nothing"):
        for method, body in (
            ("GET", None),
            ("DELETE", None),
            ("PATCH", {"send_at": ahead(hours=2)}),
        ):
            answer = await foreign.ask(method, schedule_id, body)
            assert problem(answer, 404, "not-found")["detail"] == (
                "the schedule does not exist"
            )
    assert (await backend.get(schedule["id"]))["state"] == "pending"


async def test_a_player_schedules_for_itself_but_cannot_list_schedules(
    backend: Backend, client: httpx2.AsyncClient, mint: Mint
) -> None:
    alice = Backend(client, mint("alice"))

    schedule = await alice.schedule("alice")

    problem(await alice.ask("GET", schedule["id"]), 403, "forbidden")
    refused = await alice.publish("bob", send_at=ahead(hours=1))
    problem(refused, 403, "forbidden")


# Pausing and resuming.


async def test_a_paused_schedule_is_sent_when_it_is_resumed(
    backend: Backend, read: Read, until: Until
) -> None:
    schedule = await backend.schedule("alice", title="t", ttl_s=3600)
    paused = await backend.ask("POST", f"{schedule['id']}/pause")
    assert paused.status_code == 200, paused.text
    assert paused.json()["state"] == "paused"
    assert paused.json()["paused_at"] >= schedule["created_at"]
    moved = await backend.ask("PATCH", schedule["id"], {"send_at": ahead(hours=-1)})
    assert moved.json()["state"] == "paused"
    # What was due later is sent, so the paused one was passed over.
    later = await backend.schedule("bob", send_at=ahead())
    await until(lambda: backend.is_sent(later["id"]))
    assert await read("alice") == []

    resumed = await backend.ask("POST", f"{schedule['id']}/resume")

    assert resumed.status_code == 200, resumed.text
    assert "paused_at" not in resumed.json()
    await until(lambda: backend.is_sent(schedule["id"]))
    (arrived,) = await read("alice")
    assert arrived["title"] == "t"
    # Its lifetime counts from then.
    assert arrived["expires_at"] > moved.json()["notification"]["expires_at"]


async def test_pausing_and_resuming_again_is_harmless(backend: Backend) -> None:
    schedule = await backend.schedule("alice")
    at = schedule["id"]

    states = [
        (await backend.ask("POST", f"{at}/{step}")).json()["state"]
        for step in ("resume", "pause", "pause", "resume", "resume")
    ]

    assert states == ["pending", "paused", "paused", "pending", "pending"]


async def test_a_paused_schedule_is_moved_and_cancelled(backend: Backend) -> None:
    schedule = await backend.schedule("alice")
    await backend.ask("POST", f"{schedule['id']}/pause")
    send_at = ahead(hours=3)

    moved = await backend.ask("PATCH", schedule["id"], {"send_at": send_at})

    assert moved.json()["state"] == "paused"
    assert moved.json()["send_at"][:19] == send_at[:19]
    cancelled = await backend.ask("DELETE", schedule["id"])
    assert cancelled.json()["state"] == "cancelled"
    for step in ("pause", "resume"):
        answer = await backend.ask("POST", f"{schedule['id']}/{step}")
        detail = problem(answer, 409, "too-late")["detail"]
        assert detail == "the schedule is already cancelled"


async def test_a_large_schedule_is_stopped_half_way(
    backend: Backend, until: Until
) -> None:
    players = [f"p{i}" for i in range(200)]
    schedule = await backend.schedule(*players, send_at=ahead(), spread_s=14_400)

    async def is_begun() -> bool:
        return bool((await backend.get(schedule["id"]))["delivered"])

    await until(is_begun)
    refused = await backend.ask("DELETE", schedule["id"])
    assert problem(refused, 409, "too-late")["detail"] == (
        "the schedule is already sending; pause it first"
    )
    paused = (await backend.ask("POST", f"{schedule['id']}/pause")).json()
    assert paused["state"] == "paused"
    moved = await backend.ask("PATCH", schedule["id"], {"send_at": ahead(hours=1)})
    assert problem(moved, 409, "too-late")["detail"] == (
        "the schedule is already sending"
    )

    cancelled = (await backend.ask("DELETE", schedule["id"])).json()

    assert cancelled["state"] == "cancelled"
    assert 0 < cancelled["delivered"] < 200
    got = 0
    for player in players:
        url = f"/v1/players/{player}/notifications"
        page = await backend.client.get(url, headers=backend.headers)
        got += len(page.json()["notifications"])
    assert got == cancelled["delivered"]


async def test_pausing_requires_the_scope(
    backend: Backend, add_key: AddKey, client: httpx2.AsyncClient
) -> None:
    schedule = await backend.schedule("alice")
    other = Backend(client, await add_key("notifications:send"))

    for step in ("pause", "resume"):
        problem(await other.ask("POST", f"{schedule['id']}/{step}"), 403, "forbidden")
        url = f"{schedule['id']}/{step}?reason=ticket+7"
        assert (await backend.ask("POST", url)).status_code == 200
