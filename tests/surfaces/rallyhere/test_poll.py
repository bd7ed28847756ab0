from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from streamer.model import ZERO
from streamer.service.streams.poll_waiter import PollWaiter

from ..conftest import GUARD_S, Mint, Server, Start, Until
from .conftest import UNKNOWN_CURSORS, Inbox

HELD_S = 120
"""A deadline that no test reaches: a poll that is held longer has failed."""
ID_OF_NO_ENTRY = b"01975a3b-1c2d-7000-8a4b-5c6d7e8f9a0b"
"""Well-formed, so that a page compares its time."""


def messages(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["message"] for item in answer.json()["notifications"]]


def cursor(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["cursor"]
    return text


def error_code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error_code", "")


async def start_cursor(inbox: Any) -> str:
    """Return the cursor after the newest entry."""
    return cursor(await inbox.poll(deadline=0))


# Existing notifications.


async def test_a_poll_is_oldest_first_and_has_ten(inbox: Inbox) -> None:
    start = await start_cursor(inbox)
    await inbox.say(*(str(i) for i in range(12)))

    answer = await inbox.poll(exclude_before=start)
    assert messages(answer) == [str(i) for i in range(10)]

    answer = await inbox.poll(exclude_before=cursor(answer))
    assert messages(answer) == ["10", "11"]


async def test_a_poll_starts_after_an_id(inbox: Inbox) -> None:
    first = await inbox.say("a")
    await inbox.say("b")

    assert messages(await inbox.poll(exclude_before=first)) == ["b"]


async def test_without_a_cursor_the_strategy_applies(inbox: Inbox) -> None:
    await inbox.say("a")

    assert messages(await inbox.poll(deadline=0)) == []
    assert messages(await inbox.poll(deadline=0, exclude_before="")) == []
    earliest = await inbox.poll(deadline=0, offset_reset_strategy="earliest")
    assert messages(earliest) == ["a"]


async def test_the_cursor_of_an_empty_inbox_loses_nothing(inbox: Inbox) -> None:
    start = await start_cursor(inbox)

    await inbox.say("a", "b")

    assert messages(await inbox.poll(exclude_before=start)) == ["a", "b"]


async def test_the_cursor_after_the_last_page_precedes_every_entry(
    inbox: Inbox,
) -> None:
    await inbox.say("a", "b")
    end = (await inbox.page()).json()["cursor"]

    assert messages(await inbox.poll(exclude_before=end)) == ["a", "b"]


async def test_a_trimmed_cursor_resets_by_strategy(
    start: Start, mint: Mint, player: str, inbox_of: type[Inbox]
) -> None:
    server = await start(entries_max=3)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    first = await inbox.say("0")
    await inbox.say(*"12345")

    latest = await inbox.poll(exclude_before=first, deadline=0)
    earliest = await inbox.poll(
        exclude_before=first, deadline=0, offset_reset_strategy="earliest"
    )

    assert messages(latest) == []
    assert messages(earliest) == ["3", "4", "5"]
    await inbox.say("6")
    assert messages(await inbox.poll(exclude_before=cursor(latest))) == ["6"]
    assert messages(await inbox.poll(exclude_before=cursor(earliest))) == ["6"]


@pytest.mark.parametrize(
    ("strategy", "shown"), [("latest", ["own"]), ("earliest", ["own", "3", "4", "5"])]
)
async def test_a_log_of_an_audience_resets_alone(
    start: Start,
    mint: Mint,
    player: str,
    inbox_of: type[Inbox],
    backend_key: str,
    strategy: str,
    shown: list[str],
) -> None:
    server = await start(entries_max=3)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    backend = {"Authorization": f"Bearer {backend_key}"}

    async def say_to_everyone(text: str) -> None:
        body = {"to": {"everyone": True}, "body": text}
        answer = await server.client.post(
            "/v1/notifications", headers=backend, json=body
        )
        assert answer.status_code == 200, answer.text

    await say_to_everyone("0")
    before = cursor(await inbox.poll(deadline=0, offset_reset_strategy="earliest"))
    await inbox.say("own")
    for text in "12345":
        await say_to_everyone(text)

    answer = await inbox.poll(
        exclude_before=before, deadline=0, offset_reset_strategy=strategy
    )

    assert messages(answer) == shown
    await say_to_everyone("6")
    await inbox.say("next")
    later = await inbox.poll(exclude_before=cursor(answer))
    assert messages(later) == ["6", "next"]


async def test_a_foreign_cursor_resets_by_strategy(
    inbox: Inbox, client: httpx2.AsyncClient, mint: Mint, inbox_of: type[Inbox]
) -> None:
    await inbox.say("a", "b")
    other = inbox_of(client, mint.bearer("bob"), "me")
    foreign_id = await other.say("x")
    foreign_cursor = await start_cursor(other)

    for foreign in (foreign_id, foreign_cursor):
        latest = await inbox.poll(exclude_before=foreign, deadline=0)
        earliest = await inbox.poll(
            exclude_before=foreign, deadline=0, offset_reset_strategy="earliest"
        )
        assert messages(latest) == []
        assert messages(earliest) == ["a", "b"]


@pytest.mark.parametrize("unknown", [*UNKNOWN_CURSORS, ID_OF_NO_ENTRY])
async def test_an_unknown_cursor_resets_by_strategy(
    inbox: Inbox, unknown: bytes
) -> None:
    await inbox.say("a", "b")

    latest = await inbox.poll(exclude_before=unknown, deadline=0)
    earliest = await inbox.poll(
        exclude_before=unknown, deadline=0, offset_reset_strategy="earliest"
    )

    assert messages(latest) == []
    assert messages(earliest) == ["a", "b"]
    await inbox.say("c")
    for answer in (latest, earliest):
        assert messages(await inbox.poll(exclude_before=cursor(answer))) == ["c"]


async def test_a_poll_with_an_unknown_cursor_waits(
    inbox: Inbox, server: Server, player: str, until: Until
) -> None:
    await inbox.say("before")
    held = asyncio.create_task(
        inbox.poll(exclude_before="1700000000000-0", deadline=HELD_S)
    )
    await until(lambda: server.leases(player))

    await inbox.say("a")

    assert messages(await held) == ["a"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("max_page_size", ["1", "100"], ["0", "101", "-1", "", "x", "1e1"]),
        ("deadline", ["0", "900"], ["-1", "901", "", "x", "1.5", "9" * 30]),
        ("offset_reset_strategy", ["latest", "earliest"], ["", "none", "LATEST"]),
    ],
)
async def test_parameters_have_limits(
    inbox: Inbox, name: str, good: list[str], bad: list[str]
) -> None:
    # With a notification to return, so that no poll waits.
    start = await start_cursor(inbox)
    await inbox.say("a")
    query = {"exclude_before": start}

    for value in good:
        answer = await inbox.poll(**{**query, "deadline": "0", name: value})
        if name == "deadline":
            answer = await inbox.poll(**{**query, name: value})
        assert answer.status_code == 200, value
    for value in bad:
        answer = await inbox.poll(**{**query, name: value})
        assert answer.status_code == 422, value
        (detail,) = answer.json()["detail"]
        assert detail["loc"] == ["query", name]


# Waiting.


async def test_a_publish_wakes_a_poll(
    inbox: Inbox, server: Server, player: str, until: Until
) -> None:
    held = asyncio.create_task(inbox.poll(deadline=HELD_S))
    await until(lambda: server.leases(player))

    await inbox.say("a", "b")
    answer = await held

    assert messages(answer) == ["a", "b"]
    assert await server.leases(player) == 0
    assert server.app.admission.open == 0
    await inbox.say("c")
    assert messages(await inbox.poll(exclude_before=cursor(answer))) == ["c"]


async def test_a_notification_too_large_to_be_announced_wakes_a_poll(
    inbox: Inbox, server: Server, player: str, until: Until
) -> None:
    held = asyncio.create_task(inbox.poll(deadline=HELD_S))
    await until(lambda: server.leases(player))

    data = {str(i): "x" * 4096 for i in range(20)}
    await inbox.create({"message": "large", "custom_data": data})

    (shown,) = (await held).json()["notifications"]
    assert shown["custom_data"] == data


async def test_two_readers_are_both_woken(
    inbox: Inbox,
    server: Server,
    player: str,
    until: Until,
    inbox_of: type[Inbox],
    mint: Mint,
) -> None:
    me = inbox_of(server.client, mint.bearer(player), "me")
    held = [asyncio.create_task(one.poll(deadline=HELD_S)) for one in (inbox, me)]

    async def both() -> bool:
        return bool(await server.leases(player) == 2)

    await until(both)
    await inbox.say("a")

    for task in held:
        assert messages(await task) == ["a"]


async def test_a_chain_of_polls_misses_nothing(inbox: Inbox) -> None:
    total = 60
    at = await start_cursor(inbox)

    async def publish() -> None:
        for i in range(total):
            await inbox.say(str(i))

    publishing = asyncio.create_task(publish())
    seen: list[str] = []
    while len(seen) < total:
        answer = await inbox.poll(exclude_before=at, max_page_size=3, deadline=HELD_S)
        seen += messages(answer)
        at = cursor(answer)
    await publishing

    assert seen == [str(i) for i in range(total)]


async def test_an_empty_poll_has_a_cursor_to_continue_from(inbox: Inbox) -> None:
    await inbox.say("before")
    begun_s = time.monotonic()

    answer = await inbox.poll(deadline=1)

    assert messages(answer) == []
    assert time.monotonic() - begun_s > 0.9
    await inbox.say("a")
    assert messages(await inbox.poll(exclude_before=cursor(answer))) == ["a"]


async def test_a_poll_ends_with_its_token(
    client: httpx2.AsyncClient, mint: Mint, inbox_of: type[Inbox]
) -> None:
    # Four seconds short of the end of the leeway.
    token = mint.bearer("alice", ttl_s=100, at_s=int(time.time()) - 126)
    held = inbox_of(client, token, "me").poll(deadline=900)

    answer = await asyncio.wait_for(held, GUARD_S)

    assert messages(answer) == []


async def test_a_poll_with_a_backend_key_waits_too(
    inbox: Inbox,
    server: Server,
    player: str,
    inbox_of: type[Inbox],
    backend_key: str,
    until: Until,
) -> None:
    headers = {"Authorization": f"Bearer {backend_key}"}
    backend = inbox_of(server.client, headers, player)
    held = asyncio.create_task(backend.poll(deadline=HELD_S))
    await until(lambda: server.leases(player))

    await inbox.say("a")

    assert messages(await held) == ["a"]


# Slots.


async def test_only_a_waiting_poll_occupies_a_slot(
    start: Start, mint: Mint, player: str, inbox_of: type[Inbox], until: Until
) -> None:
    server = await start(listeners_per_player_max=1, connections_max=1)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    first = await inbox.say("a")
    held = asyncio.create_task(inbox.poll(deadline=HELD_S))
    await until(lambda: server.leases(player))

    assert messages(await inbox.poll(deadline=0)) == []
    await inbox.say("b")
    assert messages(await inbox.poll(exclude_before=first)) == ["b"]
    assert messages(await held) == ["b"]


async def test_a_poll_over_the_limit_is_refused(
    start: Start, mint: Mint, player: str, inbox_of: type[Inbox], until: Until
) -> None:
    server = await start(listeners_per_player_max=2)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    held = [asyncio.create_task(inbox.poll(deadline=HELD_S)) for _ in range(2)]

    async def both() -> bool:
        return bool(await server.leases(player) == 2)

    await until(both)
    refused = await inbox.poll()

    assert error_code(refused) == (409, "too_many_listening_to_single_client")
    assert refused.json()["auth_success"] is True
    assert int(refused.headers["Retry-After"]) > 0
    other = inbox_of(server.client, mint.bearer("bob"), "me")
    assert messages(await other.poll(deadline=1)) == []
    await inbox.say("a")
    for task in held:
        assert messages(await task) == ["a"]


async def test_a_full_node_refuses(
    start: Start, mint: Mint, player: str, inbox_of: type[Inbox], until: Until
) -> None:
    server = await start(connections_max=1)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    held = asyncio.create_task(inbox.poll(deadline=HELD_S))
    await until(lambda: server.leases(player))

    refused = await inbox_of(server.client, mint.bearer("bob"), "me").poll()

    assert error_code(refused) == (503, "connection_limit_reached")
    assert refused.json()["auth_success"] is True
    assert int(refused.headers["Retry-After"]) > 0
    await inbox.say("a")
    assert messages(await held) == ["a"]


async def test_a_client_that_disconnects_frees_its_slot(
    inbox: Inbox, server: Server, player: str, until: Until
) -> None:
    gone = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await gone.wait()
            return {"type": "http.disconnect"}
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    scope = {
        "type": "http",
        "method": "GET",
        "path": inbox.poll_url,
        "query_string": b"deadline=900",
        "headers": [
            (name.lower().encode(), value.encode())
            for name, value in inbox.headers.items()
        ],
    }
    serving = asyncio.ensure_future(server.app.asgi(scope, receive, send))
    await until(lambda: server.leases(player))

    gone.set()
    await asyncio.wait_for(serving, GUARD_S)

    assert await server.leases(player) == 0
    assert server.app.admission.open == 0
    assert server.readers(player) == 0


async def test_a_poll_that_is_cancelled_frees_its_slot(
    inbox: Inbox, server: Server, player: str, until: Until
) -> None:
    held = asyncio.create_task(inbox.poll(deadline=900))
    await until(lambda: server.leases(player))

    held.cancel()

    async def freed() -> bool:
        return not (await server.leases(player) or server.app.admission.open)

    await until(freed)


async def test_a_draining_node_ends_polls_without_notifications(
    start: Start, mint: Mint, player: str, inbox_of: type[Inbox], until: Until
) -> None:
    server = await start(drain_s=0)
    inbox = inbox_of(server.client, mint.bearer(player), player)
    held = asyncio.create_task(inbox.poll(deadline=900))
    await until(lambda: server.leases(player))

    await asyncio.wait_for(server.app.drain(), GUARD_S)
    answer = await asyncio.wait_for(held, GUARD_S)

    assert messages(answer) == []
    assert cursor(answer)
    refused = await inbox.poll()
    assert error_code(refused) == (503, "service_unavailable")
    assert int(refused.headers["Retry-After"]) > 0


async def test_a_poll_that_is_being_admitted_is_drained_too(
    start: Start, player: str
) -> None:
    # A poll that was admitted and waited for its lease was not yet attached when
    # `drain` ended the attached ones, so it was held until its deadline.
    server = await start()
    admission = server.app.admission
    waiter = PollWaiter(ZERO, admission.new_connection())
    admission.draining = True

    async with admission.listen(server.log(player), waiter):
        assert waiter.woken.is_set()
