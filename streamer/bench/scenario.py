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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import click

from .load.handle import Load, LoadError
from .target import Requirements, Target, Transport

__all__ = [
    "Figure",
    "Measurements",
    "Options",
    "Scenario",
    "Trial",
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

    """

    key: str
    label: str
    unit: str = ""
    digits: int = 1
    lower_is_better: bool = True
    of_process: bool = False


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

    """

    name: str
    title: str
    figures: Sequence[Figure]
    requirements: Callable[[Options], Requirements]
    measure: Callable[[Trial], Measurements]
    options: Sequence[click.Option] = ()
    about: str = ""


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
    latencies: dict[str, array[int]] = field(default_factory=dict)

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
        Keep how busy the load was.

        Raises:
            LoadError: Requests have failed or were refused.

        """
        self.load_shares.append(max(facts["load_shares"]))
        refused = {
            s: n for s, n in facts.get("statuses", {}).items() if s[0] not in "23"
        }
        if facts.get("failed") or refused:
            raise LoadError(f"{facts['failed'] or facts['refusal']} {refused}")

    def note_latency(self, name: str, us: array[int]) -> Measurements:
        """Keep a latency's distribution; return its p50 and p99."""
        self.latencies[name] = us
        ordered = sorted(us)
        if not ordered:
            raise LoadError("no message has arrived")
        return {
            "p50_us": float(ordered[len(ordered) // 2]),
            "p99_us": float(ordered[len(ordered) * 99 // 100]),
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
