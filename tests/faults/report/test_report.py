"""The page of the battery says what was run, and names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .battery import GREEN, NOT_HELD, RED, ROWS, Outcome, render
from .checklist import CHECKLIST

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name", sorted({test for _, held in CHECKLIST for test in held})
)
def test_every_test_that_is_named_exists(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_there_are_thirty_attacks_each_with_a_test() -> None:
    assert len(CHECKLIST) == 30
    assert all(tests for _, tests in CHECKLIST)


def test_a_reason_is_given_for_rows_that_exist() -> None:
    assert NOT_HELD.keys() <= ROWS.keys()


@pytest.mark.parametrize(
    ("verdicts", "colour", "says"),
    [
        (["passed", "passed"], GREEN, "2 of 2 tests"),
        (["passed", "left out"], GREEN, "1 left out of the run"),
        (["passed", "failed"], RED, "`one` failed: why"),
        (["passed", "skipped"], RED, "`one` skipped: why"),
        (["left out"], RED, "did not run"),
        ([], RED, "no test"),
    ],
)
def test_a_row_is_green_only_if_it_was_shown(
    verdicts: list[str], colour: str, says: str
) -> None:
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ROWS}
    outcomes["C4"] = [Outcome("a::one", verdict, "why", [], 1) for verdict in verdicts]

    (line,) = (
        line for line in render(outcomes).splitlines() if line.startswith("| C4 ")
    )

    assert colour in line
    assert says in line
