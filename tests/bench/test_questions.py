"""The questions on growth and capacity, asked of real deployments."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUARD_S = 600

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(sys.platform != "linux", reason="the load uses epoll"),
]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Asks a question on growth, once, and returns the result."""
    pytest.importorskip("rich")

    @functools.cache
    def ask(question: str) -> Any:
        path = tmp_path_factory.mktemp(question) / "result.json"
        # Less than by default: several deployments at a time are enough load.
        run(
            *(f"bench.{question}", "--rounds", "1", "--seconds", "0.5", "--no-pin"),
            *("--rate", "20", "--connects", "10"),
            *("--readers", "10", "--players", "10", "--json", str(path)),
        )
        return json.loads(path.read_text())

    return ask


@pytest.mark.timeout(GUARD_S + 60)
@pytest.mark.parametrize(
    ("question", "verdicts"), [("shards", 14), ("nodes", 7), ("workers", 14)]
)
def test_growth_has_a_verdict_for_every_operation(
    question: str, verdicts: int, asked: Callable[[str], Any]
) -> None:
    rows = asked(question)["conclusion"]["rows"]

    assert len(rows) == verdicts
    # Every process of a part has its own figure.
    pieces = {row[1]: int(row[1].split("-")[1]) for row in rows}
    part = f"{question[:-1]}s"
    for row in rows:
        if row[0].endswith(part):
            assert row[4].count("+") == pieces[row[1]] - 1, row


@pytest.mark.timeout(GUARD_S + 60)
def test_workers_are_told_from_their_supervisor(asked: Callable[[str], Any]) -> None:
    rows = {row["peer"]: row["medians"] for row in asked("workers")["rows"]}
    one, four = rows["workers-1"], rows["workers-4"]

    assert "rss_supervisor" not in one
    assert 0 < four["rss_supervisor"] < four["rss_worker"]
    # A worker is a process of its own, as large as the node that has only one.
    assert 3 < four["rss_worker"] / one["rss_worker"] < 5
    assert one["private_worker"] < one["rss_worker"]
    # The kernel gives one of four at least a quarter, and never all of 40.
    assert one["fullest"] == 100
    assert 25 <= four["fullest"] < 100


@pytest.mark.timeout(GUARD_S + 60)
def test_a_run_of_idle_connections_is_compared_with_the_model() -> None:
    output = run(
        *("bench.capacity", "--hold", "40", "--workers", "2", "--nodes", "2"),
        *("--loaders", "2", "--size", "20", "--seconds", "0.5"),
    )

    assert "40 idle connections, 2 workers" in output
    for what in ("memory of the node", "memory of the store", "CPU, connect"):
        assert f"| {what} |" in output
