"""
What every process of a run would compute again, computed once.

The bytecode of the server, the rewritten asserts of the tests, and Hypothesis' tables
of Unicode are files that the next process reads. In a new clone none of them exists.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
TESTS = ROOT / "tests"


def keep_files() -> None:
    """
    Let this process and those that it starts write such files, and find them.

    Images of containers often forbid Python to write bytecode. Each of the hundreds of
    servers that tests start would then compile the whole of `streamer`, which takes
    longer than all else that a start does.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # By default it is in the current directory, which is not that of all processes.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(ROOT / ".hypothesis"))


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Divide the work among the processes of pytest-xdist, before they collect."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    asked_for = {Path(arg).resolve() for arg in session.config.args}
    # A run of some tests may need none of it.
    if number.isdecimal() and not asked_for.isdisjoint({ROOT, TESTS}):
        if number == "0":
            st.characters(codec="utf-8").validate()
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        for path in sorted(TESTS.rglob("test_*.py"))[int(number) :: count]:
            rewrite_asserts(path, session.config)
    return (yield)


def rewrite_asserts(path: Path, config: pytest.Config) -> None:
    """
    Write the file that pytest writes when it imports a module of tests.

    By itself every process rewrites every module: they import the same one at the same
    time, and none finds the file of another.
    """
    folder = rewrite.get_cache_dir(path)
    cached = folder / (path.name.removesuffix(".py") + rewrite.PYC_TAIL)
    if not cached.exists() and rewrite.try_makedirs(folder):
        try:
            hashed, code = rewrite._rewrite_test(path, config)
        except (SyntaxError, ValueError):
            return  # The collection says what is wrong with it.
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, hashed, cached)
