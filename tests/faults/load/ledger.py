"""
A ledger of publishes: what was sent, the responses, and what is stored in the end.

A publish is *acknowledged* (200), *refused* (a 503 that says that nothing was stored)
or *unknown* (a 503 that says so, or no response). After the faults, an acknowledged
publish is stored exactly once and a refused one is not stored. An unknown one is stored
at most once, and exactly once after a retry with its key.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx2

from streamer.model import decode_id

from ...e2e.readers import Api


class PublishAttempt(NamedTuple):
    """One publish, identified by its key, which is also its title."""

    key: str
    players: tuple[str, ...]


class Findings(NamedTuple):
    """The result of the check, in entries of players."""

    acknowledged: int
    unknown: int
    refused: int
    lost: int
    doubled: int
    unwanted: int
    """Stored, although the response said that nothing was."""
    holes: int
    """Inboxes whose offsets are not 1, 2, 3 …"""

    def __str__(self) -> str:
        return (
            f"{self.lost} lost of {self.acknowledged} acknowledged, "
            f"{self.doubled} duplicates, {self.unwanted} of {self.refused} rejected "
            f"publishes stored, {self.unknown} unknown outcomes retried, "
            f"{self.holes} inboxes with holes"
        )

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.unwanted or self.holes)


class Ledger:
    """Publishes under faults, and records the responses."""

    def __init__(self, port: int, credential: str, players: Sequence[str]) -> None:
        self._port = port
        self._credential = credential
        self._players = players
        self._stopping = False
        self._grown = asyncio.Event()
        self.acknowledged: dict[PublishAttempt, list[str]] = {}
        self.refused: list[PublishAttempt] = []
        self.unknown: list[PublishAttempt] = []

    @contextmanager
    def publishing(self, publishers: int) -> Iterator[None]:
        """Run so many publishers for the block; `settle` waits for their end."""
        self._stopping = False
        self._running = [
            asyncio.create_task(self._publish(f"{n}.{random.getrandbits(40):x}"))
            for n in range(publishers)
        ]
        try:
            yield
        finally:
            self._stopping = True

    async def settle(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*self._running)

    async def acknowledge(self, count: int) -> None:
        """Wait until so many further publishes are acknowledged."""
        target = len(self.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.acknowledged) < target:
                self._grown.clear()
                await self._grown.wait()

    async def _publish(self, name: str) -> None:
        count = 0
        async with Api(self._port, self._credential) as api:
            while not self._stopping:
                count += 1
                several = min(3, len(self._players))
                players = random.sample(self._players, random.choice([1, 1, several]))
                attempt = PublishAttempt(f"{name}.{count}", tuple(players))
                if not await self._send(api, attempt):
                    await asyncio.sleep(0.05)

    async def _repeat(self, api: Api, attempt: PublishAttempt) -> None:
        ids = await api.stored(*attempt.players, key=attempt.key, title=attempt.key)
        self.acknowledged[attempt] = ids

    async def _send(self, api: Api, attempt: PublishAttempt) -> bool:
        try:
            answer = await api.publish(
                *attempt.players, key=attempt.key, title=attempt.key
            )
        except httpx2.ConnectError:
            self.refused.append(attempt)
            return False
        except httpx2.TransportError:
            self.unknown.append(attempt)
            return False
        if answer.status_code == 200:
            results = answer.json()["results"]
            self.acknowledged[attempt] = [result["id"] for result in results]
            self._grown.set()
            return True
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) > 0
        kind = answer.json()["type"]
        book = self.unknown if kind == "about:outcome-unknown" else self.refused
        book.append(attempt)
        return False

    async def check(self) -> Findings:
        """Retry unknown publishes, then compare the ledger with the inboxes."""
        async with Api(self._port, self._credential) as api:
            before = _titles(await self._inboxes(api))
            repeated, self.unknown = self.unknown, []
            for attempt in repeated:
                await self._repeat(api, attempt)
            inboxes = await self._inboxes(api)
        expected = Counter(
            (player, id)
            for attempt, ids in self.acknowledged.items()
            for player, id in zip(attempt.players, ids, strict=True)
        )
        stored = Counter(
            (player, one["id"]) for player, inbox in inboxes.items() for one in inbox
        )
        titles = _titles(inboxes)
        refused = {(player, o.key) for o in self.refused for player in o.players}
        offsets = [
            [decode_id(one["id"]).offset for one in inbox]  # type: ignore[union-attr]
            for inbox in inboxes.values()
        ]
        return Findings(
            acknowledged=len(expected),
            unknown=len(repeated),
            refused=len(refused),
            lost=sum((expected - stored).values()),
            doubled=sum(n - 1 for n in (*before.values(), *titles.values()) if n > 1),
            unwanted=len(refused & titles.keys()),
            holes=sum(1 for row in offsets if row != list(range(1, len(row) + 1))),
        )

    async def _inboxes(self, api: Api) -> dict[str, list[Any]]:
        # The node may be ready and still be waiting for its connection: one that leads
        # nowhere is given up after a second and a half.
        return {p: await api.inbox(p, patient=True) for p in self._players}


def _titles(inboxes: dict[str, list[Any]]) -> Counter[tuple[str, str]]:
    return Counter(
        (player, one["title"]) for player, inbox in inboxes.items() for one in inbox
    )
