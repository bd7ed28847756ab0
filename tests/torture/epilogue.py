"""
What is asked at the end, when nothing else happens and each answer is certain.

The newest message of a topic is withdrawn, and then its id and the cursors after it are
used for everything that takes one: acknowledging, marking, resuming. Each has to do
what it would do if the message were there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..e2e.readers import StreamEnded, StreamRefused, WsStream
from .check import check_receipts
from .history import History, Mark, own
from .topology import Topology
from .traffic import Backend, Cast, Http, PlayerActs

SLOTS = 5
SLOTS_S = 60.0
"""How long a slot of a dead node may be taken: 20 s by the documents."""

RECEIPTS = 80


class Epilogue:
    """The last requests, and their checks; troubles go to the history."""

    def __init__(
        self,
        topology: Topology,
        history: History,
        cast: Cast,
        admin: Http,
        backend: Backend,
        players: Sequence[PlayerActs],
        guard_s: float,
    ) -> None:
        self._topology = topology
        self._history = history
        self._cast = cast
        self._admin = admin
        self._backend = backend
        self._players = players
        self._topic = cast.topics[0]
        self._guard_s = guard_s

    async def requests(self) -> None:
        """Make the requests whose effects the next check of the pages will judge."""
        await self._receipts()
        log = f"#{self._topic}"
        (kept,) = await self._backend.publish(log, plain=True)
        (newest,) = await self._backend.publish(log, plain=True)
        await self._backend.withdraw_this(newest)
        for actor in self._players:
            await actor.acknowledge()
        path = f"/v1/topics/{self._topic}/notifications"
        answer = await self._admin.ask("GET", f"{path}/{kept.id}/receipt")
        members = len(self._players)
        if (count := answer.json()["acknowledged"]) != members:
            self._history.trouble(
                "receipt",
                f"{kept.id} is acknowledged by {count} of {members} members by the "
                "cursors of their pages, whose newest message was withdrawn",
            )
        for actor in self._players:
            known = tuple(o.id for o in self._history.publications if o.acked)
            mark = Mark(actor.player, "up_to", known, time.time(), time.time())
            await actor.send_mark(mark, "read", {"up_to": newest.id})
        await self._resume_after(newest.id)

    async def _receipts(self) -> None:
        """Compare the receipts of the last notifications to players."""
        mine = [o for o in self._history.publications if o.acked and o.log[0] == "@"]
        receipts = {}
        for one in mine[-RECEIPTS:]:
            path = f"/v1/players/{one.log[1:]}/notifications/{one.id}/receipt"
            answer = await self._admin.ask("GET", path, expected=(200, 404))
            if answer.status_code == 200:
                receipts[one.id] = answer.json()
            else:
                self._history.trouble("receipt", f"{one.id} has no receipt")
        for trouble in check_receipts(self._history, receipts, time.time()):
            self._history.trouble(*trouble)

    async def _resume_after(self, ended_id: str) -> None:
        """Resume from a message that has ended: the next one comes, without a gap."""
        player = self._cast.players[0]
        stream = await self._open(player, cursor=ended_id)
        what = f"{player} resumed from the ended {ended_id}"
        try:
            async with asyncio.timeout(self._guard_s):
                await stream.until("hello")
                (sent,) = await self._backend.publish(f"#{self._topic}", plain=True)
                while (message := await stream.next()).kind != "notification":
                    if message.kind == "gap":
                        self._history.trouble("gap", f"{what}: {message.data}")
                        return
        except (TimeoutError, StreamEnded) as error:
            self._history.trouble("silent", f"{what}, and received nothing: {error!r}")
        else:
            if message.id != sent.id:
                self._history.trouble("silent", f"{what}, and received {message.id}")
        finally:
            stream.cut()

    async def streams(self) -> None:
        """
        Resume from a page: the badge counts up to that of the page, and never beyond.
        """
        for actor in self._players:
            page = await actor.page(limit="1")
            for _ in range(2):
                await self._backend.publish(own(actor.player), plain=True)
            unread = (await actor.page(limit="1"))["unread"]
            stream = await self._open(actor.player, cursor=page["cursor"])
            badges: list[int] = []
            try:
                async with asyncio.timeout(self._guard_s):
                    badges.append((await stream.until("hello")).data["unread"])
                    while badges[-1] != unread or len(badges) < 3:
                        message = await stream.next()
                        if message.kind == "notification":
                            badges.append(badges[-1] + 1)
                        elif message.kind == "unread":
                            badges.append(message.data["unread"])
            except (TimeoutError, StreamEnded):
                pass
            finally:
                stream.cut()
            if len(badges) < 3 or max(badges) > unread or badges[-1] != unread:
                self._history.trouble(
                    "badge",
                    f"{actor.player} resumed with two to come, and its badge went "
                    f"{badges}; the page says {unread}",
                )

    async def _open(self, player: str, *, cursor: str | None = None) -> WsStream:
        """Open a stream; a slot may have to become free first."""
        opened: list[WsStream] = []

        async def has_opened() -> bool:
            port = next(self._topology.fronts())
            try:
                token = self._cast.tokens[player]
                opened.append(await WsStream.open(port, token, cursor=cursor))
            except (StreamRefused, StreamEnded, TimeoutError):
                return False
            return True

        assert await poll_until(has_opened, SLOTS_S, 0.5), f"{player} has no slot"
        return opened[0]

    async def slots(self) -> None:
        """Check that every player can open all slots, since nobody has one."""
        for player in self._cast.players:

            async def all_open(player: str = player) -> bool:
                streams: list[WsStream] = []
                fronts, token = self._topology.fronts(), self._cast.tokens[player]
                try:
                    for _ in range(SLOTS):
                        streams.append(await WsStream.open(next(fronts), token))
                        await streams[-1].until("hello")
                    return True
                except (StreamRefused, StreamEnded, TimeoutError):
                    return False
                finally:
                    for stream in streams:
                        stream.cut()

            if not await poll_until(all_open, SLOTS_S, 1.0):
                self._history.trouble("lease", f"{player} cannot open {SLOTS} streams")


async def poll_until(fact: Callable[[], Any], guard_s: float, step_s: float) -> bool:
    """Wait for a fact; return whether it became true."""
    deadline = time.monotonic() + guard_s
    while True:
        value = fact()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(step_s)
