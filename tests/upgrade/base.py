"""
An older version of the server, built from this repository's history.

The file ``BASE`` names its commit. Its files are unpacked in a folder, and installed
with the requirements of that commit in a virtual environment of its own. Nothing is
written to the repository: it may belong to another user, and a run may be killed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD_S = 600.0
"""How long an installation may take on a busy machine."""


class NoBase(Exception):
    """The older version cannot be had here, for the reason in the text."""


def base_commit() -> str:
    """Return the commit of the older version."""
    return (Path(__file__).parent / "BASE").read_text().strip()


def git(*arguments: str) -> str:
    """
    Return what git prints about this repository.

    Raises:
        NoBase: There is no git, or it refuses.

    """
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoBase(f"git cannot be run: {error}") from error
    if done.returncode:
        raise NoBase(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def require_base() -> str:
    """
    Return the commit of the older version, which the repository has.

    Raises:
        NoBase: This is no clone, or a shallow one.

    """
    commit = base_commit()
    if Path(git("rev-parse", "--show-toplevel").strip()) != ROOT:
        raise NoBase("the working tree is not a clone: it has no history")
    try:
        git("cat-file", "-e", f"{commit}^{{commit}}")
    except NoBase as error:
        if git("rev-parse", "--is-shallow-repository").strip() == "true":
            raise NoBase(f"the clone is shallow, and has no commit {commit}") from error
        raise
    return commit


def build_base(folder: Path) -> str:
    """
    Return the `streamer` command of the older version, after installing it in a folder.

    Raises:
        NoBase: As `require_base`.

    """
    commit = require_base()
    tree, environment = folder / "tree", folder / "environment"
    archive = folder / "tree.tar"
    git("archive", f"--output={archive}", commit)
    shutil.unpack_archive(archive, tree, filter="data")
    programs = environment / "bin"
    pip = (str(programs / "python"), "-m", "pip", "install", "--quiet")
    _run(sys.executable, "-m", "venv", str(environment), folder=tree)
    _run(*pip, "-r", "requirements.lock", folder=tree)
    _run(*pip, "--no-deps", ".", folder=tree)
    return str(programs / "streamer")


def _run(*command: str, folder: Path) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
