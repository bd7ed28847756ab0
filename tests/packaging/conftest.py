"""The two distributions, built as for a release: wheels from source archives."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Run a command outside this repository; return what it prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
    kept.pop("PYTHONPATH", None)
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=kept | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(target: str, source: Path, folder: Path, **env: str) -> Path:
    """Build an "sdist" or a "wheel" of a project with what is installed here."""
    before = {*folder.iterdir()}
    hatch = (sys.executable, "-m", "hatchling", "build", "-t", target)
    run(*hatch, "-d", folder, cwd=source, **env)
    (built,) = {*folder.iterdir()} - before
    return built


def wheel(sdist: Path, folder: Path, **env: str) -> Path:
    """Build the wheel of a source archive."""
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(sdist) as archive:
        archive.extractall(scratch, filter="data")
        (source,) = Path(scratch).iterdir()
        return build("wheel", source, folder, **env)


@pytest.fixture(scope="session")
def sdists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source archives of client and server."""
    folder = tmp_path_factory.mktemp("sdists")
    return {
        "client": build("sdist", ROOT / "clients" / "python", folder),
        "server": build("sdist", ROOT, folder),
    }


@pytest.fixture(scope="session")
def wheels(
    sdists: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The wheels of client and server, side by side in one folder."""
    folder = tmp_path_factory.mktemp("wheels")
    return {name: wheel(sdist, folder) for name, sdist in sdists.items()}
