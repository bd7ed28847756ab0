"""
What an operation costs with more processes of a part of a deployment, against one.

All topologies run at once, under load at the same time. What else the machine does then
meets all of them alike, and so do caches and clocks that are better where more is done.
One topology is there twice: what the two differ by is noise, and so the least that can
be seen.

Two loads. The part that there is more of is measured with as much load for each piece,
as it would be in a deployment that has grown. The other part is measured with the same
load in all. What a process uses when there is nothing to do is measured first, after
some load that makes it ready, and is no part of the cost of an operation.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple

from streamer.bench.load.handle import LoadError
from streamer.bench.scenario import (
    Conclusion,
    Figure,
    Measurements,
    Scenario,
    Trial,
    option,
)
from streamer.bench.target import Requirements, Unsupported
from streamer.bench.usage import connections, cpu_s, private_bytes, rss_bytes

from ..peers.topology import Publishers, Topology

__all__ = ["BOUND", "CLUSTER", "Parts", "Verdict", "growth", "judge", "measured"]

BOUND: Final = 0.10
"""The share by which a cost may rise and is still that of linear growth."""

SIZE: Final = 200
WARM_UP_S: Final = 1.0
BROADCASTS_PER_S: Final = 4.0
SETTLE_S: Final = 0.3
OPENS_PER_S_MIN: Final = 10
"""A busy machine may be slow; what is measured is CPU time."""
MIB: Final = 2**20

OPERATIONS: Final = {
    "publish": "publish",
    "connect": "connect",
    "delivery": "publish and deliver to one",
    "broadcast": "deliver to all",
}
WITH_READERS: Final = ("delivery", "broadcast")


class Parts(NamedTuple):
    """The parts of a deployment, which the names of its processes begin with."""

    server: str
    store: str
    supervisor: str = ""
    """
    What starts the servers, which share a port then. Does no part of an operation.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, self))


CLUSTER: Final = Parts("node", "shard")


def measured(parts: Parts) -> list[tuple[str, str]]:
    """Return the operations that are measured and the part of each, in order."""
    server, store = parts.server, parts.store
    return [
        ("publish", server),
        ("publish", store),
        ("connect", server),
        ("connect", store),
        ("delivery", server),
        # One entry in one store, however many readers it has.
        ("broadcast", server),
        ("delivery", store),
    ]


Costs = dict[str, float]
"""CPU seconds by the name of a process."""


class Verdict(NamedTuple):
    """
    Whether the cost of an operation stays what it was.

    `ratio` is the median over the rounds of the cost, relative to that of the first
    topology in the same round. `control` is the largest difference from 1 of the same
    for the first topology measured twice.
    """

    operation: str
    part: str
    topology: str
    ratio: float
    control: float

    @property
    def bound(self) -> float:
        return 1 + max(BOUND, self.control)

    @property
    def is_linear(self) -> bool:
        return self.ratio <= self.bound


def judge(runs: Mapping[str, Sequence[Measurements]], parts: Parts) -> list[Verdict]:
    """
    Return the verdicts.

    Args:
        runs: Rounds by topology: the first, the first again, the others. All have the
            same rounds. What is not measured has no verdict.
        parts: The parts of these topologies.

    """
    _, again, *others = runs
    verdicts = []
    for operation, part in measured(parts):
        key = f"{operation}_{part}_us"
        if not all(run.get(key) for rounds in runs.values() for run in rounds):
            continue
        control = max(abs(ratio - 1) for ratio in _ratios(runs, again, key))
        for topology in others:
            ratio = statistics.median(_ratios(runs, topology, key))
            verdicts.append(Verdict(operation, part, topology, ratio, control))
    return verdicts


def _ratios(
    runs: Mapping[str, Sequence[Measurements]], topology: str, key: str
) -> Iterator[float]:
    first = next(iter(runs))
    for before, after in zip(runs[first], runs[topology], strict=True):
        yield after[key] / before[key]


def conclude(runs: Mapping[str, Sequence[Measurements]], parts: Parts) -> Conclusion:
    """Return the verdicts as a table, with the costs and what they allow."""
    first, *_ = runs
    rows = []
    for verdict in judge(runs, parts):
        key = f"{verdict.operation}_{verdict.part}_us"
        before, after = (
            statistics.median(run[key] for run in runs[name])
            for name in (first, verdict.topology)
        )
        each = _each(runs[verdict.topology], verdict.operation, verdict.part)
        rows.append(
            [
                f"{OPERATIONS[verdict.operation]}: {verdict.part}s",
                verdict.topology,
                f"{before:,.1f}",
                f"{after:,.1f}",
                " + ".join(f"{us:,.1f}" for us in each),
                f"{1e6 / max(each):,.0f}",
                f"{verdict.ratio:.2f} x",
                f"± {verdict.control:.2f}",
                "pass" if verdict.is_linear else "MISS",
            ]
        )
    heading = ["CPU per operation", "with", f"{first}, µs", "here, µs", "by process"]
    heading += ["a second, by CPU of the busiest", "ratio", "control", "linear"]
    return Conclusion(heading, rows)


def _each(runs: Sequence[Measurements], operation: str, part: str) -> list[float]:
    """
    Return the cost of an operation in each process of a part, the busiest first: µs.

    Medians over the rounds of the busiest, of the second, and so on: which process that
    is differs by the round, where chance decides who gets which connection or key.
    """
    prefix = f"{operation}_{part}_"
    keys = [
        key
        for key in runs[0]
        if key.startswith(prefix) and key.removeprefix(prefix).isdigit()
    ]
    rounds = [sorted((run[key] for key in keys), reverse=True) for run in runs]
    return [statistics.median(ranked) for ranked in zip(*rounds, strict=True)]


def growth(
    name: str, what: str, grows: str, about: str, *, parts: Parts = CLUSTER
) -> Scenario:
    """
    Return the scenario.

    Args:
        name: The name of its module.
        what: What there is more of, in words.
        grows: The part that there is more of.
        about: What to know about its figures.
        parts: The parts of the topologies that it compares.

    """

    def measure_together(trials: Sequence[Trial]) -> list[Measurements]:
        return _measure(trials, grows, parts)

    def measure(trial: Trial) -> Measurements:
        raise Unsupported(f"bench.{name} starts the deployments that it compares")

    return Scenario(
        name=name,
        title=f"CPU per operation with more {what}: {{rate:,.0f}} publishes and "
        "{connects:,.0f} connects per second for each",
        figures=[
            Figure(
                f"{operation}_{part}_us",
                f"{operation}, {part}s",
                "µs",
                1,
                of_process=True,
                of_store=part == parts.store,
            )
            for operation, part in measured(parts)
        ]
        + _figures_at_rest(parts),
        requirements=lambda options: Requirements(
            connections=options.readers * 4, stored=True
        ),
        measure=measure,
        measure_together=measure_together,
        conclude=partial(conclude, parts=parts),
        options=[
            option("--rate", 60.0, "Publishes per second for each piece."),
            option("--connects", 30.0, "Connects per second for each piece."),
            option("--readers", 200, "Readers for each piece; an even number."),
            option("--players", 1_000, "Number of players that are published to."),
        ],
        about=about,
    )


def _figures_at_rest(parts: Parts) -> list[Figure]:
    figures = [
        Figure(f"idle_{part}", f"idle, {part}s", "%", 2, of_process=True)
        for part in parts.names
    ]
    for part in parts.names:
        if part != parts.store:
            figures += [
                Figure(f"rss_{part}", f"RSS, {part}s", "MiB", 1, of_process=True),
                Figure(f"private_{part}", "of it private", "MiB", 1, of_process=True),
            ]
    if parts.supervisor:
        label = f"readers of the fullest {parts.server}"
        figures.append(Figure("fullest", label, "%", 1, of_process=True))
    return figures


class _Loaded:
    """One topology, and what its load costs."""

    def __init__(self, trial: Trial, grows: str, most: int, parts: Parts) -> None:
        assert isinstance(trial.target, Topology)
        self.trial = trial
        self.target = target = trial.target
        self._parts = parts
        pieces = target.pieces[grows]
        self.loads = {
            part: pieces if part == grows else most
            for part in (parts.server, parts.store)
        }
        """The load under which a part is measured, as a multiple of `options.rate`."""
        self._readers = 0
        self._idle: Costs = {}
        """What each process uses in a second without load."""
        self.measurements: Measurements = {}

    def warm_up(self) -> None:
        """Let all processes do what they do for the first time, such as imports."""
        for operation in ("publish", "connect"):
            self._do(operation, self.loads[self._parts.server], WARM_UP_S)

    def idle(self, seconds: float) -> None:
        """Measure what each part uses when there is nothing to do."""
        self.trial.load.rest(SETTLE_S)
        _, used = self._watched(lambda: self.trial.load.rest(seconds))
        self._idle = {name: used_s / seconds for name, used_s in used.items()}
        for part in self._parts.names:
            # Nothing is not 0: one worker has no supervisor.
            if not (pids := self._pids(part)):
                continue
            shares = [s for name, s in self._idle.items() if name.startswith(part)]
            self.measurements[f"idle_{part}"] = sum(shares) * 100
            self.measurements[f"rss_{part}"] = sum(map(rss_bytes, pids)) / MIB
            self.measurements[f"private_{part}"] = sum(map(private_bytes, pids)) / MIB

    def measure(self, operation: str, part: str, seconds: float) -> None:
        """Measure what an operation costs a part: in all, and each of its processes."""
        self._do(operation, self.loads[part], WARM_UP_S)
        done, used = self._do(operation, self.loads[part], seconds)
        total_us = 0.0
        for name, used_s in used.items():
            if name.startswith(part):
                us = used_s / done * 1e6
                self.measurements[f"{operation}_{part}_{name.split()[1]}"] = us
                total_us += us
        self.measurements[f"{operation}_{part}_us"] = total_us

    def open_readers(self, part: str) -> None:
        """Open as many readers as a part is to be measured with."""
        count: int = self.trial.options.readers * self.loads[part]
        if count == self._readers:
            return
        self.trial.load.close()
        self._readers = count
        requests = self.target.readers("ws", count)
        nodes = len(self.target.addresses)
        each = count // nodes
        # Requests to publish go to the nodes in turn, as connections do. So half of
        # what one of two nodes stores is for readers of the other.
        self._open([requests[n % nodes * each + n // nodes] for n in range(count)])
        self.trial.load.rest(SETTLE_S)
        if self._parts.supervisor and part == self._parts.server:
            port = self.target.address[1]
            held = [connections(pid, port) for pid in self._pids(part)]
            self.measurements["fullest"] = max(held) / count * 100

    def _do(self, operation: str, load: int, seconds: float) -> tuple[int, Costs]:
        """Return how often an operation was done, and what that has cost."""
        rate = self.trial.options.rate * load
        publishers = self.target.publishers(load)
        if operation == "publish":
            players = self.trial.options.players
            facts, used = self._send(
                self.target.publish(SIZE), publishers, rate, seconds, players
            )
            return facts["answered"], used
        if operation == "connect":
            return self._connect(load, seconds)
        reached = 1
        if operation == "delivery":
            templates, _ = self.target.publish_separately(SIZE, self._readers, 1)
        else:
            templates, _ = self.target.broadcast(SIZE, self._readers)
            rate, reached = BROADCASTS_PER_S, self._readers
            # To open many connections for few requests would cost more than these.
            publishers = self.target.addresses, 1
        facts, used = self._send(
            templates, publishers, rate, seconds, per_message=reached
        )
        if facts["received"] != facts["sent"] * reached:
            raise LoadError(
                f"{facts['sent']:,} messages to {reached:,} readers each, but "
                f"{facts['received']:,} deliveries"
            )
        return facts["received"], used

    def _send(
        self,
        templates: Any,
        publishers: Publishers,
        rate: float,
        seconds: float,
        players: int = 1,
        per_message: int = 0,
    ) -> tuple[Any, Costs]:
        self.trial.say("publishing")
        (address, *others), connections_each = publishers
        facts, used = self._watched(
            lambda: self.trial.load.publish(
                address=address,
                others=others,
                templates=templates,
                players=players,
                connections=connections_each,
                per_message=per_message,
                rate=rate,
                seconds=seconds,
            )
        )
        self.trial.note_load(facts)
        return facts, used

    def _connect(self, load: int, seconds: float) -> tuple[int, Costs]:
        per_s = self.trial.options.connects * load
        requests = self.target.readers("ws", max(1, round(per_s * seconds)))
        self.trial.say("connecting")
        opened, used = self._watched(lambda: self._open(requests, per_s))
        self.trial.note_load(opened)
        self.trial.load.close()
        self.trial.load.rest(SETTLE_S)
        return opened["open"], used

    def _open(self, requests: list[bytes], per_s: float = 0) -> Any:
        address, *others = self.target.addresses
        opened = self.trial.load.open(
            address=address,
            others=others,
            requests=requests,
            connections=len(requests),
            ready=self.target.ready("ws"),
            sampled=0,
            per_s=per_s,
            within_s=30 + len(requests) / OPENS_PER_S_MIN,
        )
        if opened["open"] < len(requests):
            raise LoadError(
                f"{opened['open']:,} of {len(requests):,} readers could be opened; "
                f"refused: {opened['refused']}"
            )
        return opened

    def _watched(self, work: Callable[[], Any]) -> tuple[Any, Costs]:
        """Return what `work` does, and what it has cost beyond idling."""
        before, began_s = self._used(), time.monotonic()
        facts = work()
        after, seconds = self._used(), time.monotonic() - began_s
        return facts, {
            name: after[name] - before[name] - self._idle.get(name, 0) * seconds
            for name in after
        }

    def _pids(self, part: str) -> list[int]:
        processes = self.target.processes.items()
        return [pid for name, pid in processes if name.startswith(part)]

    def _used(self) -> Costs:
        return {name: cpu_s(pid) for name, pid in self.target.processes.items()}


def _measure(trials: Sequence[Trial], grows: str, parts: Parts) -> list[Measurements]:
    pieces = [
        trial.target.pieces[grows]
        for trial in trials
        if isinstance(trial.target, Topology)
    ]
    if len(pieces) < len(trials):
        raise Unsupported("only deployments that the bench has started are compared")
    loaded = [_Loaded(trial, grows, max(pieces), parts) for trial in trials]
    seconds: float = trials[0].options.seconds
    with ThreadPoolExecutor(len(loaded)) as pool:

        def all_at_once(work: Callable[[_Loaded], None]) -> None:
            list(pool.map(work, loaded))

        all_at_once(_Loaded.warm_up)
        all_at_once(partial(_Loaded.idle, seconds=seconds))
        for operation, part in measured(parts):
            if operation in WITH_READERS:
                all_at_once(partial(_Loaded.open_readers, part=part))
            all_at_once(
                partial(
                    _Loaded.measure, operation=operation, part=part, seconds=seconds
                )
            )
    return [one.measurements for one in loaded]
