"""Rounds in which all servers are measured together."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from streamer.bench import runner as running
from streamer.bench.load.handle import LoadError
from streamer.bench.scenario import Conclusion, Figure, Measurements, Scenario, Trial
from streamer.bench.target import Requirements, Target

STARTED: list[str] = []


class NoLoad:
    """Starts no process."""

    def __init__(self, processes: int, cores: set[int]) -> None:
        pass

    def stop(self) -> None:
        pass


class First(Target):
    name = "first"
    title = "the first"
    does = ""

    def start(self, requirements: Requirements, folder: Path) -> None:
        STARTED.append(self.name)

    def stop(self) -> None:
        STARTED.remove(self.name)


class Second(First):
    name = "second"
    title = "the second"


class Together:
    """A measurement that notes who was there; it may fail in a round."""

    def __init__(self, *, fails_in: int | None = None) -> None:
        self.rounds: list[list[str]] = []
        self._fails_in = fails_in

    def __call__(self, trials: Sequence[Trial]) -> list[Measurements]:
        assert sorted(STARTED) == ["first", "second"]
        self.rounds.append([trial.target.name for trial in trials])
        if len(self.rounds) - 1 == self._fails_in:
            raise LoadError("no luck")
        return [{"n": len(trial.target.name)} for trial in trials]


def run(measure: Together, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(running, "Load", NoLoad)

    def alone(trial: Trial) -> Measurements:
        raise AssertionError("measured alone")

    scenario = Scenario(
        name="both",
        title="both",
        figures=[Figure("n", "length of the name")],
        requirements=lambda options: Requirements(),
        measure=alone,
        measure_together=measure,
        conclude=lambda runs: Conclusion(["of"], [[name] for name in runs]),
    )
    runner = running._Runner(
        scenario,
        SimpleNamespace(rounds=2, loaders=1),
        {First: First, Second: Second},
        Console(file=io.StringIO()),
        pin=False,
        observe=running._unobserved,
    )
    result = runner.run(["bench"], [])
    assert STARTED == []
    return result


def test_all_are_started_and_change_places_from_round_to_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure = Together()

    result = run(measure, monkeypatch)

    assert measure.rounds == [["first", "second"], ["second", "first"]]
    runs = {row["peer"]: [one["n"] for one in row["runs"]] for row in result["rows"]}
    assert runs == {"first": [5, 5], "second": [6, 6]}
    assert result["conclusion"] == {"heading": ["of"], "rows": [["first"], ["second"]]}


def test_a_round_that_fails_counts_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(Together(fails_in=0), monkeypatch)

    for row in result["rows"]:
        assert [one["round"] for one in row["runs"]] == [1]
        assert row["failures"] == ["round 1: no luck"]
