"""Walking and marking an inbox while it changes, over HTTP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

import pytest

from .processes import ServerProcess
from .readers import Api

WALKS = 24
MARKS = 200


@pytest.mark.row("D4")
async def test_a_walk_meets_each_entry_once_that_existed_throughout(
    server: ServerProcess, backend: Api, player: str
) -> None:
    there = [
        id
        for ids in await asyncio.gather(
            *(backend.published(player, title="there before") for _ in range(60))
        )
        for id in ids
    ]
    stopping = False

    async def disturb() -> None:
        while not stopping:
            (id,) = await backend.published(player, title="came meanwhile")
            await mark(backend, player, ids=[id, random.choice(there)])

    async def walk(limit: int) -> None:
        met: list[str] = []
        before = ""
        while True:
            params = {"limit": str(limit), "before": before}
            path = f"/v1/players/{player}/notifications"
            page = (await backend.http.get(path, params=params)).json()
            met += [one["id"] for one in page["notifications"]]
            before = page["next"]
            if before is None:
                break
        assert len(met) == len(set(met))
        assert set(there) <= set(met)
        assert met == sorted(met, reverse=True)

    disturbing = asyncio.create_task(disturb())
    for _ in range(WALKS // 4):
        await asyncio.gather(*(walk(random.randint(4, 100)) for _ in range(4)))
    stopping = True
    await disturbing


async def mark(api: Api, player: str, **marks: object) -> int:
    path = f"/v1/players/{player}/notifications/read"
    answer = await api.http.post(path, json=marks)
    assert answer.status_code == 200, answer.text
    unread: int = answer.json()["unread"]
    return unread


@pytest.mark.row("D5")
async def test_random_marks_keep_the_unread_count_exact(
    server: ServerProcess, backend: Api, player: str, token: str
) -> None:
    ids: list[str] = []
    foreign = await backend.published(f"not-{player}", title="somebody else's")

    async def act(number: int) -> None:
        match number % 10:
            case 0 | 1 | 2:
                ids.extend(await backend.published(player, title=str(number)))
            case 3 if number % 50 == 3:
                await mark(backend, player, all=True)
            case 4 if ids:
                await mark(backend, player, up_to=random.choice(ids))
            case _:
                chosen = random.sample(ids, min(len(ids), 5))
                await mark(backend, player, ids=[*chosen, *chosen, *foreign, "none"])

    async with Api(server.port, token) as mine:
        for first in range(0, MARKS, 20):
            await asyncio.gather(*(act(first + i) for i in range(20)))
            inbox = await mine.inbox("me")
            page = (await mine.http.get("/v1/players/me/notifications")).json()
            unread = sum(1 for one in inbox if "read_at" not in one)
            assert page["unread"] == unread
        assert await mark(mine, "me", all=True) == 0
        assert await mark(mine, "me", all=True) == 0
        assert all("read_at" in one for one in await mine.inbox("me"))
    (other,) = await backend.inbox(f"not-{player}")
    assert "read_at" not in other


async def same(*answers: Awaitable[int]) -> set[int]:
    return set(await asyncio.gather(*answers))


@pytest.mark.row("D5")
async def test_concurrent_identical_marks_have_one_effect(
    backend: Api, player: str
) -> None:
    ids = [(await backend.published(player, title=str(i)))[0] for i in range(6)]
    marks = [mark(backend, player, ids=ids[:4]) for _ in range(20)]
    assert await same(*marks) == {2}
    # Out of order: an older mark after a newer one reverts nothing.
    assert await mark(backend, player, up_to=ids[4]) == 1
    assert await mark(backend, player, up_to=ids[0]) == 1


@pytest.mark.parametrize("parallel", [50])
@pytest.mark.row("D2")
async def test_concurrent_publishes_with_one_key_have_one_effect(
    backend: Api, player: str, parallel: int
) -> None:
    answers = await asyncio.gather(
        *(backend.publish(player, key=player, title="once") for _ in range(parallel))
    )
    assert {answer.status_code for answer in answers} == {200}
    ids = {answer.json()["results"][0]["id"] for answer in answers}
    assert [one["id"] for one in await backend.inbox(player)] == [*ids]
    replays = [a for a in answers if a.headers.get("idempotent-replayed") == "true"]
    assert len(replays) == parallel - 1
    other = await backend.publish(player, key=player, title="something else")
    assert other.status_code == 422
    assert other.json()["type"] == "about:idempotency-key-reuse"
