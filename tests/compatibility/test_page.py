"""The page of compatibility names every trial that exists, and no other."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

from ..faults.report.battery import RED
from .page import COMMAND, Result, Trial, render
from .stacks import STACKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text("utf-8")


@functools.cache
def marked() -> list[Trial]:
    """Return the trials of all tests, as their markers are written."""
    return [
        Trial(
            *map(ast.literal_eval, call.args),
            **{str(k.arg): ast.literal_eval(k.value) for k in call.keywords},
        )
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.stack(" in (text := path.read_text("utf-8"))
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.stack"
    ]


def on_the_page() -> list[list[str]]:
    return [
        re.split(r" (?<!\\)\| ", line.strip("| "))
        for line in PAGE.splitlines()
        if re.match(r"\| (?!Stack )\S", line)
    ]


def test_the_page_has_the_trials_of_the_tests_and_no_other() -> None:
    rows = Counter((stack, tried) for stack, _, tried, _, _ in on_the_page())
    trials = {(trial.stack, trial.tried) for trial in marked()}

    assert rows == Counter(trials), f"generate it again: {COMMAND}"


def test_every_trial_on_the_page_was_run() -> None:
    assert RED not in PAGE
    for stack, version, *_ in on_the_page():
        assert version not in ("", "not installed", "unknown"), stack


def test_the_verdicts_of_the_page_are_those_of_the_markers() -> None:
    verdicts = {(row[0], row[2]): row[3] for row in on_the_page()}
    for trial in marked():
        verdict = verdicts[trial.stack, trial.tried]
        assert ("works with" in verdict, "does not work" in verdict) == (
            bool(trial.setting),
            bool(trial.fails),
        ), f"generate it again: {COMMAND}"


def test_every_stack_is_tried() -> None:
    assert {trial.stack for trial in marked()} == STACKS.keys()


@pytest.mark.parametrize(
    ("trial", "verdicts", "says"),
    [
        (Trial("nginx", "streams"), ["passed", "passed"], "| works |"),
        (Trial("nginx", "streams", setting="`x`"), ["passed"], "| works with `x` |"),
        (Trial("nginx", "streams", fails="no"), ["passed"], "| does not work: no |"),
        (Trial("nginx", "streams"), ["passed", "failed"], f"| {RED} failed: why |"),
        (Trial("nginx", "streams"), ["skipped"], f"| {RED} skipped: why |"),
        (Trial("nginx", "streams", fails="no"), ["not run"], f"| {RED} not run: why |"),
    ],
)
def test_a_trial_works_only_if_all_of_its_tests_ran_and_passed(
    trial: Trial, verdicts: list[str], says: str
) -> None:
    results = [Result(trial, "tests/a.py::t", one, "why", "1.2") for one in verdicts]

    (row,) = (x for x in render(results).splitlines() if x.startswith("| nginx "))

    assert says in row
    assert "| 1.2 | streams |" in row
