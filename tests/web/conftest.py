"""The web client's own tests and tools, run by Node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WEB = ROOT / "clients" / "web"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
GUARD_S = 130  # Twice of it is less than the limit of a test.
NIGHTLY_S = 500


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why."""
    reason = ""
    if not shutil.which("npm"):
        reason = "Node and npm are not installed"
    elif not (WEB / "node_modules").exists():
        reason = "`npm ci` has not run in clients/web"
    for item in items:
        if reason and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason=reason))


def run(*command: str | Path, cwd: Path = WEB, timeout_s: int = GUARD_S) -> str:
    """Run a command; return what it prints, and fail with all of it."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
    command = [sys.executable, "-m", "streamer"]
    kept["TEST_SERVER_COMMAND"] = json.dumps(command)
    if CHROMIUM is not None:
        kept["TEST_CHROMIUM"] = CHROMIUM
    return kept


def node_tests(*names: str, pattern: str = "", timeout_s: int = GUARD_S) -> str:
    """Run files of `clients/web/tests` with Node's test runner."""
    options = ["--test", "--test-reporter=spec"]
    if pattern:
        options.append(f"--test-name-pattern={pattern}")
    files = [f"tests/{name}.test.js" for name in names]
    return run("node", *options, *files, timeout_s=timeout_s)
