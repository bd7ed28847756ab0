"""
The scenario's side of the load processes.

Starts them, sends them orders, splits readers among them and adds up their results.
"""

from __future__ import annotations

import multiprocessing
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from .worker import main

__all__ = ["Load", "LoadError", "answers"]

Facts = dict[str, Any]

_spawn = multiprocessing.get_context("spawn")


class LoadError(Exception):
    """A measurement failed, or a load process could not carry out an order."""


class _LoadProcess:
    def __init__(self, cores: set[int]) -> None:
        self.pipe: Connection
        self.pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=main, args=(theirs, cores), daemon=True)
        self._process.start()
        theirs.close()

    def order(self, name: str, **order: Any) -> None:
        self.pipe.send((name, order))

    def send(self, what: object) -> None:
        self.pipe.send(what)

    def answer(self, on_progress: Callable[[int], None]) -> Facts:
        (facts,) = answers([self.pipe], on_progress)
        return facts

    def stop(self) -> None:
        self.pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def answers(
    pipes: Sequence[Connection], on_progress: Callable[[int], None]
) -> list[Facts]:
    """
    Return the results of load processes, in the order of their pipes.

    Reads all of them as they come. A process that reports its progress to a full pipe
    waits, and reads nothing from its connections meanwhile.

    Raises:
        LoadError: One has failed or ended.

    """
    found: dict[Connection, Facts] = {}
    while len(found) < len(pipes):
        for pipe in wait([pipe for pipe in pipes if pipe not in found]):
            assert isinstance(pipe, Connection)
            try:
                kind, what = pipe.recv()
            except EOFError:
                raise LoadError("a load process has ended") from None
            if kind == "progress":
                on_progress(what)
            elif kind == "failed":
                raise LoadError(what)
            else:
                found[pipe] = what
    return [found[pipe] for pipe in pipes]


class Load:
    """
    All load processes, as one.

    Args:
        processes: Number of processes. The first one publishes, all have readers.
        cores: The cores they run on; empty means any.

    """

    def __init__(self, processes: int, cores: set[int]) -> None:
        self._processes = [_LoadProcess(cores) for _ in range(processes)]
        self._share: list[int] = []
        self.on_progress: Callable[[int], None] = lambda count: None

    def open(self, **plan: Any) -> Facts:
        """Open readers, split among the processes; see `readers.OpenPlan`."""
        connections, requests = plan.pop("connections"), plan.pop("requests")
        many = len(self._processes)
        self._share = [
            connections // many + (i < connections % many) for i in range(many)
        ]
        first = 0
        for process, share in zip(self._processes, self._share, strict=True):
            if len(requests) == 1:
                assigned = requests
            else:
                assigned = requests[first : first + share]
            process.order(
                "open", plan={**plan, "connections": share, "requests": assigned}
            )
            first += share
        return _sum(self._answers())

    def publish(self, *, per_message: int = 0, **order: Any) -> Facts:
        """
        Publish, and read until all messages have arrived; see `Worker.publish`.

        Args:
            per_message: Number of readers that receive each message; 0 means all.
            order: As of `Worker.publish`. With several processes, the window counts
                what the readers of the first one have received.

        """
        first, *others = self._processes
        readers = sum(self._share)
        own_readers = (self._share or [0])[0]
        reached = per_message or readers
        fraction = own_readers / readers if readers else 0
        first.order("publish", per_message=round(reached * fraction), **order)
        if not readers:
            others = []
        for process in others:
            process.order("listen", seconds=order["seconds"])
        answers = [first.answer(self.on_progress)]
        for process, share in zip(others, self._share[1:], strict=False):
            process.send(answers[0]["sent"] * reached * share // readers)
            answers.append(process.answer(self.on_progress))
        return _sum(answers)

    def run(self, name: str, **order: Any) -> Facts:
        """Send an order to the first process, and return its result."""
        self.begin(name, **order)
        return self.end()

    def begin(self, name: str, **order: Any) -> None:
        """Send an order to the first process; `end` returns its result."""
        self._processes[0].order(name, **order)

    def end(self) -> Facts:
        return self._processes[0].answer(self.on_progress)

    def rest(self, seconds: float) -> Facts:
        """Let all processes read for a time."""
        return self._all("rest", seconds=seconds)

    def close(self) -> Facts:
        """Drop all readers; messages are waited for by none then."""
        self._share = []
        return self._all("close")

    def stop(self) -> None:
        for process in self._processes:
            process.stop()

    def _all(self, name: str, **order: Any) -> Facts:
        for process in self._processes:
            process.order(name, **order)
        return _sum(self._answers())

    def _answers(self) -> list[Facts]:
        return answers([process.pipe for process in self._processes], self.on_progress)


def _sum(answers: list[Facts]) -> Facts:
    """Add up the results of several processes; times are those of the slowest."""
    total = dict(answers[0])
    total["load_shares"] = [
        a["load_cpu_s"] / a["wall_s"] if a.get("wall_s") else 0.0 for a in answers
    ]
    for answer in answers[1:]:
        for name, value in answer.items():
            if name in ("wall_s", "seconds"):
                total[name] = max(total[name], value)
            elif isinstance(value, dict):
                total[name] = dict(Counter(total[name]) + Counter(value))
            elif isinstance(value, int | float | array) and name in total:
                total[name] = total[name] + value
    return total
