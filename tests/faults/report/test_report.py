"""The report of the battery: it says what was run, and names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from .battery import GREEN, NOT_TESTED, RED, ROWS, Outcome, render
from .checklist import CHECKLIST

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name", sorted({test for _, tests in CHECKLIST for test in tests})
)
def test_the_checklist_names_tests_that_exist(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function in {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_each_of_thirty_attacks_has_a_test() -> None:
    assert len(CHECKLIST) == 30
    assert all(tests for _, tests in CHECKLIST)


def test_rows_without_a_test_exist() -> None:
    assert NOT_TESTED.keys() <= ROWS.keys()


@pytest.mark.parametrize(
    ("verdicts", "colour", "says"),
    [
        (["passed", "passed"], GREEN, "2 of 2 tests passed"),
        (["passed", "not run"], GREEN, "1 not run"),
        (["passed", "failed"], RED, "`one` failed: why"),
        (["passed", "skipped"], RED, "`one` skipped: why"),
        (["not run"], RED, "not run"),
        ([], RED, "no test"),
    ],
)
def test_a_row_is_green_only_if_a_test_ran_and_none_failed(
    verdicts: list[str], colour: str, says: str
) -> None:
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ROWS}
    outcomes["C4"] = [Outcome("a::one", verdict, "why", [], 1) for verdict in verdicts]

    (line,) = (
        line for line in render(outcomes).splitlines() if line.startswith("| C4 ")
    )

    assert colour in line
    assert says in line
