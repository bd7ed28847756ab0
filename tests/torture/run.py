"""
One run: a deployment, readers, traffic and faults, and the judgement at the end.

A run has rounds. In a round backends and players act while faults happen. Then the
faults end, a burst of requests follows without a pause, and when everything has arrived
the badges, the pages and the deliveries are checked. `Outcome.explain` has all that is
needed to understand a failure.
"""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .check import (
    Findings,
    check_badges,
    check_inbox,
    check_readings,
    findings,
)
from .epilogue import Epilogue, poll_until
from .history import History, Inbox, Publication, Reading, Trouble, own
from .plan import Fault, Plan, chance, make_plan
from .readers import ClientReader, PollReader, Reader, StreamReader
from .topology import HEARTBEAT_S, Topology
from .traffic import Backend, Cast, Http, PlayerActs

SETTLE_S = 60.0
"""How long requests may remain unanswered once there are no faults."""


RUN_S = 720.0
"""How long a run may take, in which nothing is stuck."""


@dataclass
class Scale:
    """How large a run is, and how long it waits for what does not come."""

    players: int = 4
    backends: int = 3
    per_s: float = 6.0
    """Acts of one backend in a second; players act a quarter as often."""
    rounds: int = 2
    round_s: float = 6.0
    burst: int = 3
    """Acts of each actor in the burst after the faults."""
    nodes: int = 2
    arrival_s: float = 60.0
    """How long deliveries may take once there are no faults."""
    badge_s: float = 20.0
    """How long a badge may be wrong after everything has arrived."""


class Outcome:
    """The findings of a run and how they came about."""

    def __init__(
        self, plan: Plan, history: History, found: Findings, folder: Path
    ) -> None:
        self.plan = plan
        self.history = history
        self.findings = found
        self._folder = folder

    def explain(self) -> str:
        """Return the plan, the troubles, and the event log; write the whole history."""
        path = self.history.write(self._folder / f"history-{self.plan.seed}.jsonl")
        troubles = [f"  {kind}: {what}" for kind, what in self.findings.troubles]
        ids = {
            word
            for _, what in self.findings.troubles
            for word in what.replace(",", " ").split()
            if len(word) == 36 and word.count("-") == 4
        }
        about = [
            line
            for line in self.history.lines()
            if any(id in line for id in list(ids)[:8])
        ]
        return "\n".join(
            [
                str(self.plan),
                str(self.findings),
                *troubles[:40],
                "Event log:",
                *(f"  {note}" for note in self.history.notes[-400:]),
                "What happened to the ids above:",
                *(f"  {line[:300]}" for line in about[-200:]),
                f"The whole history: {path}",
            ]
        )


class Run:
    """The parts of a run while it lasts."""

    def __init__(self, topology: Topology, history: History, plan: Plan, scale: Scale):
        self.topology = topology
        self.history = history
        self.plan = plan
        self.scale = scale
        self.troubles: list[Trouble] = []
        self._https: list[Http] = []
        self._readers: list[asyncio.Task[None]] = []

    # The parts.

    def _http(self, credential: str, *name: object) -> Http:
        fronts = self.topology.fronts()
        http = Http(self.history, fronts, credential, chance(self.plan.seed, *name))
        self._https.append(http)
        return http

    async def _make_cast(self) -> None:
        names = ("ann", "ben", "cid", "dot", "eve", "fay", "gil", "hal")
        players = names[: self.scale.players]
        key = self.topology.backend_key
        self.admin = self._http(key, "admin")
        tokens = {}
        for player in players:
            body = {"player": player, "ttl_s": 86_400}
            answer = await self.admin.ask("POST", "/v1/tokens", body=body)
            tokens[player] = answer.json()["token"]
        self.cast = Cast(players, ("news", "sport"), key, tokens)
        seed = self.plan.seed
        self.players = [
            # Only a backend may join any topic for a player.
            PlayerActs(
                player,
                self.cast,
                self.history,
                self._http(key, "http", player),
                chance(seed, "player", player),
            )
            for player in players
        ]
        self.backends = [
            Backend(
                f"b{number}",
                self.cast,
                self.history,
                self._http(key, "http", number),
                chance(seed, "backend", number),
            )
            for number in range(self.scale.backends)
        ]

    def _make_readers(self) -> list[Reader]:
        readers: list[Reader] = []
        for number, player in enumerate(self.cast.players):
            for transport in ("websocket", "sse", "poll" if number % 2 else "client"):
                dice = chance(self.plan.seed, "reader", player, transport)
                earliest = transport != "poll" and dice.random() < 0.5
                name = f"{player}/{transport}"
                reading = Reading(name, player, transport, earliest)
                self.history.readings.append(reading)
                readers.append(self._make_reader(reading, dice))
        return readers

    def _make_reader(self, reading: Reading, dice: Any) -> Reader:
        token = self.cast.tokens[reading.player]
        if reading.transport == "client":
            url = f"http://127.0.0.1:{self.topology.balancer.port}"
            return ClientReader(reading, dice, url=url, token=token)
        fronts = self.topology.fronts()
        for _ in range(dice.randrange(3)):
            next(fronts)
        if reading.transport == "poll":
            return PollReader(reading, dice, fronts=fronts, token=token)
        return StreamReader(
            reading, dice, fronts=fronts, token=token, heartbeat_s=HEARTBEAT_S
        )

    # The course.

    async def course(self) -> bool:
        """Run all rounds and the epilogue; return whether it came to the end."""
        for faults in self.plan.rounds:
            if not await self.round(faults):
                return False
            await self.quiet()
        epilogue = Epilogue(
            self.topology,
            self.history,
            self.cast,
            self.admin,
            self.backends[0],
            self.players,
            self.scale.arrival_s,
        )
        await epilogue.requests()
        await epilogue.streams()
        await self.quiet()
        await self.end_readers()
        await epilogue.slots()
        return True

    @asynccontextmanager
    async def parts(self) -> AsyncIterator[None]:
        try:
            await self._make_cast()
            for player in self.players:
                await player.enter()
            self._readers = [
                asyncio.create_task(reader.run()) for reader in self._make_readers()
            ]
            yield
        finally:
            await self.end_readers()
            for http in self._https:
                await http.close()

    async def end_readers(self) -> None:
        for task in self._readers:
            task.cancel()
        for outcome in await asyncio.gather(*self._readers, return_exceptions=True):
            if not isinstance(outcome, asyncio.CancelledError):
                self.history.trouble("stuck", f"a reader ended: {outcome!r}")
        self._readers = []

    async def round(self, faults: Sequence[Fault]) -> bool:
        """Run one round; return whether the deployment recovered."""
        ended = asyncio.Event()
        acting = [
            asyncio.create_task(self._go_on(actor.act, ended, rate, f"pace{number}"))
            for number, (actor, rate) in enumerate(self._actors())
        ]
        suffering = [asyncio.create_task(self._suffer(fault)) for fault in faults]
        await asyncio.sleep(self.plan.round_s)
        ended.set()
        for outcome in await asyncio.gather(*suffering, return_exceptions=True):
            if isinstance(outcome, BaseException):
                self.history.trouble("stuck", f"a fault did not end: {outcome!r}")
        self.history.note("no faults from here")
        recovered = await self.topology.heal()
        if not await self._finish(acting):
            return False
        bursts = [
            asyncio.create_task(self._burst(actor.act)) for actor, _ in self._actors()
        ]
        return await self._finish(bursts) and recovered

    def _actors(self) -> list[tuple[Any, float]]:
        rate = self.scale.per_s
        return [(one, rate) for one in self.backends] + [
            (one, rate / 4) for one in self.players
        ]

    async def _go_on(
        self,
        act: Callable[[], Any],
        ended: asyncio.Event,
        per_s: float,
        name: str,
    ) -> None:
        dice = chance(self.plan.seed, name)
        while not ended.is_set():
            await act()
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), dice.expovariate(per_s))

    async def _burst(self, act: Callable[[], Any]) -> None:
        for _ in range(self.scale.burst):
            await act()

    async def _suffer(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        await self.topology.inject(fault)

    async def _finish(self, tasks: Sequence[asyncio.Task[None]]) -> bool:
        """Wait for the last responses; what remains unanswered is stuck."""
        done, pending = await asyncio.wait(tasks, timeout=SETTLE_S)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
            self.history.trouble("stuck", f"{len(pending)} requests without an answer")
        for task in done:
            task.result()
        return not pending

    async def quiet(self) -> None:
        """Wait until all has arrived, then check badges and pages."""
        loses = self.topology.loses_unconfirmed
        last_end = max(
            (
                one.acked_at + one.ttl_s
                for one in self.history.publications
                if one.ttl_s and one.acked
            ),
            default=0.0,
        )
        last_due = max((one.due_at for one in self.history.schedules), default=0.0)
        await asyncio.sleep(max(last_end, last_due, time.time()) - time.time())

        await poll_until(self._all_fired, self.scale.arrival_s, 0.5)

        def missing() -> list[Trouble]:
            found = check_readings(self.history, loses=loses).troubles
            return [trouble for trouble in found if trouble.kind == "silent"]

        await poll_until(lambda: not missing(), self.scale.arrival_s, 0.3)
        begun = time.monotonic()
        while True:
            unread = {p: await self._unread(p) for p in self.cast.players}
            wrong = check_badges(self.history, unread)
            if not wrong or time.monotonic() - begun > self.scale.badge_s:
                break
            await asyncio.sleep(0.2)
        late_s = time.monotonic() - begun
        self.history.note("badges", right=not wrong, after_s=round(late_s, 2))
        self.history.badges_late_s = max(self.history.badges_late_s, late_s)
        self.troubles += wrong
        for actor in self.players:
            inbox = await self._inbox(actor)
            self.history.inboxes[inbox.player] = inbox
            # Each round has a check of its own, as the next one may cover it up.
            self.troubles += check_inbox(self.history, inbox)
        self.history.note("quiet")

    async def _all_fired(self) -> bool:
        """Whether the pages have what every schedule has to send."""
        for actor in self.players:
            self._add_fired(actor.player, await actor.all_pages("", limit=100))
        fired = {(o.key, o.log) for o in self.history.publications if o.scheduled}
        deleting = {o.player for o in self.history.withdrawals if not o.log}
        return all(
            (one.key, own(player)) in fired
            for one in self.history.schedules
            if one.cancelled is False and one.acked_at < math.inf
            for player in one.players
            if player not in deleting
        )

    def _add_fired(self, player: str, shown: Sequence[dict[str, Any]]) -> None:
        """Add what schedules have sent to the publications: it is owed as they are."""
        known = self.history.ids()
        keys = {one.key for one in self.history.schedules}
        for one in shown:
            if one["title"] in keys and one["id"] not in known:
                self.history.publications.append(
                    Publication(
                        one["title"],
                        own(player),
                        datetime.fromisoformat(one["created_at"]).timestamp(),
                        id=one["id"],
                        acked_at=time.time(),
                        scheduled=True,
                    )
                )

    async def _unread(self, player: str) -> int:
        path = f"/v1/players/{player}/notifications"
        answer = await self.admin.ask("GET", path, params={"limit": "1"})
        return int(answer.json()["unread"])

    async def _inbox(self, actor: PlayerActs) -> Inbox:
        player = actor.player
        newest = await actor.all_pages("", limit=7)
        oldest = await actor.all_pages("oldest", limit=7)
        filtered = await actor.all_pages("", limit=7, unread="true")
        body = {"players": [player]}
        counted = await self.admin.ask("POST", "/v1/unread", body=body)
        (row,) = counted.json()["unread"]
        unread = await self._unread(player)
        ids = [one["id"] for one in filtered]
        read_at = time.time()
        return Inbox(player, read_at, newest, oldest, ids, unread, row["unread"])


async def torture(
    folder: Path,
    seed: int,
    make_topology: type[Topology],
    *,
    kinds: Sequence[str] = (),
    scale: Scale | None = None,
    executable: str = "",
    meddle: Callable[[Topology], object] | None = None,
    every_s: float = 1.0,
    plan: Plan | None = None,
) -> Outcome:
    """
    Run the plan of a seed and judge it.

    Args:
        kinds: The faults to choose from; by default all that the topology can have.
        plan: The faults, if they are not to be chosen.
        executable: The `streamer` command of another checkout.
        meddle: Called when the deployment runs; a control spoils something there.
    """
    scale = scale or Scale()
    plan = plan or make_plan(
        seed,
        kinds or make_topology.KINDS,
        nodes=scale.nodes,
        rounds=scale.rounds,
        round_s=scale.round_s,
        every_s=every_s,
    )
    history = History()
    topology = make_topology(
        folder,
        history,
        executable=executable,
        nodes=scale.nodes,
        position_check_s=plan.position_check_s,
    )
    run = Run(topology, history, plan, scale)
    complete = False
    async with topology.running():
        if meddle is not None:
            meddle(topology)
        try:
            async with asyncio.timeout(RUN_S), run.parts():
                complete = await run.course()
        except Exception as error:
            # A failure says what led to it, whatever it is.
            trace = traceback.format_exception(error)
            history.trouble("stuck", f"the run ended: {' '.join(trace[-3:])}")
    found = findings(
        history,
        loses=topology.loses_unconfirmed,
        further=run.troubles,
        complete=complete,
    )
    return Outcome(plan, history, found, folder)
