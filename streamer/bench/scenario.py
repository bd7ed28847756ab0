"""
What a scenario is: what is measured, of which servers, in which figures.

To add one, write a module with a `Scenario` in `scenarios`::

    def measure(trial: Trial) -> Measurements:
        trial.open_readers("ws", connections=100, players=1)
        with trial.watch() as used:
            sent = trial.load.publish(address=trial.target.address, …)
        return {"cpu_us": used.server_cpu_s / sent["received"] * 1e6}
"""

from __future__ import annotations

import contextlib
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeAlias

import click

from .load.handle import Load, LoadError
from .target import Requirements, Target, Transport
from .usage import Usage

__all__ = [
    "PERCENTILES",
    "Conclusion",
    "Figure",
    "Measurements",
    "Options",
    "Scenario",
    "Trial",
    "latency_figures",
    "latency_us",
    "option",
    "transport_option",
]

Options: TypeAlias = SimpleNamespace
"""The values of the options, by name."""

Measurements: TypeAlias = dict[str, float]
"""The values of the figures, by key."""


@dataclass(frozen=True)
class Figure:
    """
    One column of a result.

    Args:
        key: Its key in `Measurements`.
        label: Its heading.
        unit: Its unit.
        digits: Decimal places.
        lower_is_better: Which way is better.
        of_process: Whether it needs a server whose processes are on this machine.
        of_store: Whether it needs a store whose processes are on this machine.

    """

    key: str
    label: str
    unit: str = ""
    digits: int = 1
    lower_is_better: bool = True
    of_process: bool = False
    of_store: bool = False


class Conclusion(NamedTuple):
    """A table of what follows from the figures; its cells are texts."""

    heading: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Scenario:
    """
    What is measured.

    Args:
        name: The name of its module.
        title: The heading; may name options in braces.
        figures: The figures. The first one is compared and drawn.
        requirements: Returns what a server has to make room for.
        measure: Measures one started server.
        options: Options of its own.
        about: What to know about the figures, in a sentence or two.
        measure_together: Measures all servers of a round, which are started together,
            in place of `measure`; returns their measurements in the same order. What
            the machine does at a time then meets all of them, if they take turns.
        conclude: Returns what follows from the measurements, by server and round.

    """

    name: str
    title: str
    figures: Sequence[Figure]
    requirements: Callable[[Options], Requirements]
    measure: Callable[[Trial], Measurements]
    options: Sequence[click.Option] = ()
    about: str = ""
    measure_together: Callable[[Sequence[Trial]], list[Measurements]] | None = None
    conclude: Callable[[dict[str, list[Measurements]]], Conclusion] | None = None


PERCENTILES: Final = (50, 90, 95, 99)

ERRORS_MAX: Final = 0.01
"""The share of failed requests above which a measurement means nothing."""


def latency_figures(label: str = "", *, prefix: str = "") -> list[Figure]:
    """
    Return the figures of the latency that `Trial.note_latency` returns.

    `label` says what it is, at the first one. `prefix` precedes the keys.
    """
    return [
        Figure(
            f"{prefix}p{percent}_us",
            f"{label} p{percent}".strip() if i == 0 else f"p{percent}",
            "µs",
            0,
        )
        for i, percent in enumerate(PERCENTILES)
    ]


@dataclass
class Used:
    """What a server has used between two moments."""

    server_cpu_s: float = 0
    store_cpu_s: float = 0
    server_rss: int = 0
    store_rss: int = 0
    wall_s: float = 0


def _unobserved(target: Target, section: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclass
class Trial:
    """One measurement of one server, in one round."""

    target: Target
    load: Load
    options: Options
    say: Callable[[str], None]
    """Shows what is going on."""
    observe: Callable[[Target, str], AbstractContextManager[None]] = _unobserved
    """Entered around each section that is watched; for profilers."""
    load_cores: frozenset[int] = frozenset()
    load_shares: list[float] = field(default_factory=list)
    server_shares: list[float] = field(default_factory=list)
    """How busy the server's processes were, each as a share of a core, on average."""
    store_shares: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """Requests that failed, by status or reason."""
    latencies: dict[str, array[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._section: tuple[Usage, float] | None = None
        show, self.say = self.say, self._begin
        self._show = show

    def _begin(self, what: str) -> None:
        """Show what is going on; a section of the measurement begins."""
        self._show(what)
        self._section = self.target.usage(), time.monotonic()

    def note_shares(self) -> None:
        """Keep how busy server and store were since `say`."""
        if self._section is None:
            return
        (before, began_s), after = self._section, self.target.usage()
        wall_s = max(time.monotonic() - began_s, 1e-3)
        if after.server_count:
            cpu_s = after.server_cpu_s - before.server_cpu_s
            self.server_shares.append(cpu_s / wall_s / after.server_count)
        if after.store_count:
            cpu_s = after.store_cpu_s - before.store_cpu_s
            self.store_shares.append(cpu_s / wall_s / after.store_count)

    @contextlib.contextmanager
    def watch(self, section: str = "") -> Iterator[Used]:
        """Measure what the server uses in the block."""
        used = Used()
        with self.observe(self.target, section):
            before, started_s = self.target.usage(), time.monotonic()
            yield used
            after = self.target.usage()
            used.wall_s = time.monotonic() - started_s
        used.server_cpu_s = after.server_cpu_s - before.server_cpu_s
        used.store_cpu_s = after.store_cpu_s - before.store_cpu_s
        used.server_rss = after.server_rss - before.server_rss
        used.store_rss = after.store_rss - before.store_rss

    def open_readers(
        self,
        transport: Transport,
        connections: int,
        players: int,
        *,
        sampled: int = 1,
        **plan: Any,
    ) -> dict[str, Any]:
        """
        Open readers: one per player, or all of a single one.

        Raises:
            LoadError: The server has refused some.

        """
        self.say(f"opening {connections:,} readers")
        opened = self.load.open(
            address=self.target.address,
            requests=self.target.readers(transport, players),
            connections=connections,
            ready=self.target.ready(transport),
            sampled=sampled,
            **plan,
        )
        if opened["open"] < connections:
            raise LoadError(
                f"{opened['open']:,} of {connections:,} readers could be opened; "
                f"refused: {opened['refused']}"
            )
        self.load.rest(0.3)
        return opened

    def note_load(self, facts: dict[str, Any]) -> None:
        """
        Keep how busy load, server and store were since `say`, and count errors.

        Raises:
            LoadError: More than `ERRORS_MAX` of the requests have failed.

        """
        self.note_shares()
        self.load_shares.append(max(facts["load_shares"]))
        statuses = facts.get("statuses", {})
        refused = {s: n for s, n in statuses.items() if s[0] not in "23"}
        self.errors.update(refused)
        if facts.get("failed"):
            self.errors["connection"] += 1
            raise LoadError(f"{facts['failed']} {refused}")
        if sum(refused.values()) > ERRORS_MAX * sum(statuses.values()):
            raise LoadError(f"{facts['refusal']} {refused}")

    def note_latency(self, name: str, us: array[int]) -> Measurements:
        """Keep a latency's distribution; return its `PERCENTILES`."""
        self.latencies[name] = us
        ordered = sorted(us)
        if not ordered:
            raise LoadError("no message has arrived")
        return {
            f"p{percent}_us": float(ordered[len(ordered) * percent // 100])
            for percent in PERCENTILES
        }


def latency_us(facts: dict[str, Any]) -> array[int]:
    """Return the latencies of messages, in microseconds after they were due."""
    return array("I", (max(0, ns) // 1000 for ns in facts["latency_ns"]))


def option(
    flag: str, default: float | str, text: str, *, choices: Sequence[str] = ()
) -> click.Option:
    """Return an option of the type of its default, or of a set of values."""
    if choices:
        kind: click.ParamType[Any, Any] = click.Choice(choices)
        return click.Option(
            [flag], type=kind, default=default, show_default=True, help=text
        )
    shown = bool(default)
    return click.Option([flag], default=default, show_default=shown, help=text)


def transport_option() -> click.Option:
    """Return the option ``--transport``."""
    return option(
        "--transport", "ws", "Transport of the readers.", choices=["ws", "sse"]
    )
