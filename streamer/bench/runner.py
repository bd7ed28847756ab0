"""
Runs a scenario: rounds, trials, progress on the terminal, medians.

Knows targets, load processes and the terminal. Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from . import report
from .load.handle import Load, LoadError
from .machine import machine, raise_fd_limit
from .scenario import Figure, Options, Scenario, Trial
from .target import Target, Unsupported
from .usage import cores

__all__ = ["run"]

FILE_COLUMNS = 160

BUSY = 0.9
"""Share of a core from which on a process counts as the limit."""

ERRORS = Figure("errors", "errors", "", 0)

_SECRET = {"key", "redis", "token_command"}
"""Options that may contain a secret, and are in no result."""

Kinds = Mapping[type[Target], Callable[[], Target]]
"""Targets to measure: their class, and what makes one."""

Row = dict[str, Any]


def _unobserved(target: Target, section: str) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


def run(
    scenario: Scenario,
    options: Options,
    kinds: Kinds,
    *,
    command: list[str],
    pin: bool = False,
    absent: list[dict[str, str]] | None = None,
    observe: Callable[[Target, str], AbstractContextManager[None]] = _unobserved,
) -> bool:
    """
    Measure all targets, print a table, and write the files that the options name.

    Args:
        scenario: What to measure.
        options: The options of the run and of the scenario.
        kinds: The targets.
        command: The command line, which the result repeats without the key.
        pin: Whether servers get a core of their own, and the load the others.
        absent: Targets that are not installed, and how to install them.
        observe: Entered around each section that is watched.

    Returns whether anything was measured.
    """
    raise_fd_limit()
    # A process that is stopped ends those that it has started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    if not console.is_terminal:
        console = Console(width=FILE_COLUMNS)
    runner = _Runner(scenario, options, kinds, console, pin=pin, observe=observe)
    result = runner.run(command, absent or [])
    report.print_table(result, console)
    report.write(
        result,
        runner.latencies,
        json_path=options.json,
        html_path=options.html,
        png_path=options.png,
    )
    return any(row["runs"] for row in result["rows"])


class _Runner:
    """One run of a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        options: Options,
        kinds: Kinds,
        console: Console,
        *,
        pin: bool,
        observe: Callable[[Target, str], AbstractContextManager[None]],
    ) -> None:
        self._scenario = scenario
        self._options = options
        self._kinds = list(kinds.items())
        self._pin = pin
        self._observe = observe
        self._rows: dict[str, Row] = {
            kind.name: {
                "peer": kind.name,
                "title": kind.title,
                "does": kind.does,
                "runs": [],
                "failures": [],
                "errors": {},
            }
            for kind in kinds
        }
        self.latencies: report.Latencies = {}
        self._task = TaskID(0)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )

    def run(self, command: list[str], absent: list[dict[str, str]]) -> report.Result:
        scenario, options, kinds = self._scenario, self._options, self._kinds
        about = machine(command)
        with self._progress as progress:
            total = options.rounds * len(kinds)
            self._task = progress.add_task(scenario.name, total=total)
            for round_ in range(options.rounds):
                # The first one meets the machine as the round before has left it.
                first = round_ % len(kinds)
                turned = kinds[first:] + kinds[:first]
                if scenario.measure_together is not None:
                    self._measure_together(turned, round_)
                    progress.advance(self._task, len(kinds))
                    continue
                for kind, make in turned:
                    self._measure(kind, make, round_)
                    progress.advance(self._task)
        plain = {
            name: value
            for name, value in vars(options).items()
            if isinstance(value, int | float | str) and name not in _SECRET
        }
        measured = [row for row in self._rows.values() if "left_out" not in row]
        result: report.Result = {
            "scenario": scenario.name,
            "title": scenario.title.format(**vars(options)),
            "about": scenario.about,
            "machine": about,
            "options": plain,
            "figures": [vars(figure) for figure in (*scenario.figures, ERRORS)],
            "rows": [summarise(row, self._rows) for row in measured],
            "absent": absent,
            "left_out": {
                row["title"]: row["left_out"]
                for row in self._rows.values()
                if "left_out" in row
            },
        }
        if scenario.conclude is not None and all(row["runs"] for row in measured):
            runs = {row["peer"]: row["runs"] for row in measured}
            result["conclusion"] = scenario.conclude(runs)._asdict()
        return result

    def _measure(
        self, kind: type[Target], make: Callable[[], Target], round_: int
    ) -> None:
        row = self._rows[kind.name]
        try:
            with self._trial(kind, make, round_) as trial:
                measurements = self._scenario.measure(trial)
                run = self._run_of(trial, measurements, round_)
            row["runs"].append(run)
        except Unsupported as exc:
            row["left_out"] = str(exc)
        except (LoadError, RuntimeError, OSError) as exc:
            self._fail([kind], round_, exc)

    def _measure_together(
        self, kinds: list[tuple[type[Target], Callable[[], Target]]], round_: int
    ) -> None:
        """Measure all targets of a round; if one fails, the round has none."""
        measure = self._scenario.measure_together
        assert measure is not None
        try:
            with contextlib.ExitStack() as stack:
                trials = [
                    stack.enter_context(self._trial(kind, make, round_))
                    for kind, make in kinds
                ]
                runs = [
                    self._run_of(trial, measurements, round_)
                    for trial, measurements in zip(trials, measure(trials), strict=True)
                ]
            for (kind, _), run in zip(kinds, runs, strict=True):
                self._rows[kind.name]["runs"].append(run)
        except Unsupported as exc:
            for kind, _ in kinds:
                self._rows[kind.name]["left_out"] = str(exc)
        except (LoadError, RuntimeError, OSError) as exc:
            self._fail([kind for kind, _ in kinds], round_, exc)

    def _fail(self, kinds: list[type[Target]], round_: int, exc: Exception) -> None:
        for kind in kinds:
            self._rows[kind.name]["failures"].append(f"round {round_ + 1}: {exc}")
        titles = ", ".join(kind.title for kind in kinds)
        self._progress.console.print(
            f"{self._where(round_, titles)}{exc}", style="red", markup=False
        )

    def _where(self, round_: int, title: str) -> str:
        return f"round {round_ + 1} of {self._options.rounds}, {title}: "

    @contextlib.contextmanager
    def _trial(
        self, kind: type[Target], make: Callable[[], Target], round_: int
    ) -> Iterator[Trial]:
        """Start a target and its load; stop both at the end of the block."""
        where = self._where(round_, kind.title)

        def say(what: str) -> None:
            self._progress.update(self._task, description=where + what)

        say("starting")
        target = make()
        load_cores = cores()[1] if self._pin else set()
        # The path of a unix socket has to be short.
        folder = Path(tempfile.mkdtemp(prefix="bench-"))
        load = Load(self._options.loaders, load_cores)
        trial = Trial(
            target, load, self._options, say, self._observe, frozenset(load_cores)
        )
        try:
            target.start(self._scenario.requirements(self._options), folder)
            if self._pin:
                target.pin()
            yield trial
        finally:
            self._count_errors(kind.name, trial)
            try:
                load.stop()
            finally:
                target.stop()
                shutil.rmtree(folder, ignore_errors=True)

    def _run_of(
        self, trial: Trial, measurements: dict[str, float], round_: int
    ) -> dict[str, float]:
        """Return what a row keeps of a round."""
        usage = trial.target.usage()
        for figure in self._scenario.figures:
            needed = usage.store_count if figure.of_store else usage.server_count
            if figure.of_process and not needed:
                # Nothing is not 0.
                measurements.pop(figure.key, None)
        self.latencies[trial.target.name, round_] = trial.latencies
        shares = {
            "load_share": trial.load_shares,
            "server_share": trial.server_shares,
            "store_share": trial.store_shares,
        }
        busiest = {name: max(values) for name, values in shares.items() if values}
        errors = float(sum(trial.errors.values()))
        return {"round": round_, **measurements, **busiest, "errors": errors}

    def _count_errors(self, name: str, trial: Trial) -> None:
        errors = self._rows[name]["errors"]
        for kind, count in trial.errors.items():
            errors[kind] = errors.get(kind, 0) + count


def summarise(row: Row, rows: dict[str, Row]) -> Row:
    """Add medians, spreads and ratios to streamer, formed within each round."""
    runs = row["runs"]
    keys = [key for key in (runs[0] if runs else {}) if all(key in run for run in runs)]
    keys = [key for key in keys if key != "round"]
    medians, spreads = {}, {}
    for key in keys:
        values = [run[key] for run in runs]
        medians[key] = statistics.median(values)
        half = (max(values) - min(values)) / 2
        spreads[key] = half / medians[key] if medians[key] else 0.0
    own_runs = {run["round"]: run for run in rows.get("streamer", {}).get("runs", [])}
    ratios = {}
    for key in keys:
        both = [
            own_runs[run["round"]][key] / run[key]
            for run in runs
            if run["round"] in own_runs and own_runs[run["round"]].get(key) and run[key]
        ]
        if both:
            ratios[key] = [statistics.median(both), min(both), max(both)]
    return {
        **row,
        "medians": medians,
        "spreads": spreads,
        "ratios": ratios,
        "limited_by_load": medians.get("load_share", 0) > BUSY,
        "limit": limit_of(medians),
    }


def limit_of(medians: dict[str, float]) -> str:
    """
    Return what was busy, "" if nothing was: load, server or store.

    The load comes first: figures that it limits say nothing of the server.
    """
    for name in ("load", "server", "store"):
        if medians.get(f"{name}_share", 0) > BUSY:
            return name
    return ""
