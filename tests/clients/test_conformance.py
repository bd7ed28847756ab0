"""The clients for game engines pass the conformance suite, as far as it applies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ..e2e.browser import CHROMIUM
from .godot.engine import ENGINE

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "clients" / "conformance"
UNITY = f"sh {ROOT}/tests/clients/unity/driver.sh"
GODOT = f"env PYTHONPATH={ROOT} {sys.executable} -m tests.clients.godot.driver"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not (SUITE / "streamer_conformance").exists(),
        reason="the conformance suite is not there",
    ),
]


def outcomes(driver: str, jobs: int, file: Path) -> dict[str, list[str]]:
    """Run the suite; return the names of scenarios by their outcome."""
    command = [sys.executable, "-m", "streamer_conformance", "run", "--quiet"]
    command += ["--transport", "websocket", "--jobs", str(jobs), "--json", str(file)]
    # Other tests keep the machine busy.
    command += ["--scale-min", "0.2"]
    subprocess.run(
        [*command, "--driver", driver],
        cwd=SUITE,
        env={**os.environ, "PYTHONPATH": str(SUITE)},
        check=False,
    )
    rows = json.loads(file.read_text())["results"]
    return {
        outcome: [row["scenario"] for row in rows if row["outcome"] == outcome]
        for outcome in Counter(row["outcome"] for row in rows)
    }


@pytest.mark.skipif(
    not (shutil.which("mcs") and shutil.which("mono")), reason="mono is not installed"
)
def test_unity(tmp_path: Path) -> None:
    found = outcomes(UNITY, 2, tmp_path / "results.json")

    assert found.get("failed", []) == []
    assert len(found["passed"]) >= 115


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(
    not ENGINE.exists(), reason="`npm ci` has not run in tests/clients/godot"
)
def test_godot(tmp_path: Path) -> None:
    found = outcomes(GODOT, 1, tmp_path / "results.json")

    assert found.get("failed", []) == []
    assert len(found["passed"]) >= 110
