"""
The client's core without a network: a state machine with fake sockets and a fake clock.

The tests are programs in C#, under ``programs``. One run of each gives all results.
"""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from .conftest import CORE, PROGRAMS, ROOT, UNITY_PART, Compile, needs_mono

COUNTING = ROOT / "clients" / "conformance" / "counting.json"
HARNESS = PROGRAMS / "Testing.cs"
STUBS = PROGRAMS / "UnityStubs.cs"
PART = PROGRAMS / "UnityPartTests.cs"
CORE_TESTS = sorted(set(PROGRAMS.glob("*Tests.cs")) - {PART})

pytestmark = needs_mono


def names_in(*sources: Path) -> list[str]:
    """Return the names of the tests in C# sources."""
    names = []
    for source in sources:
        kind = ""
        for line in source.read_text().splitlines():
            if found := re.match(r"internal static class (\w+)", line):
                kind = found[1]
            elif found := re.match(r"    public static void (\w+)\(\)", line):
                names.append(f"{kind}.{found[1]}")
    return names


@cache
def results_of(program: Path) -> dict[str, str | None]:
    """Run a program of tests; return what was wrong with each."""
    output = subprocess.run(
        ["mono", program, COUNTING], check=True, capture_output=True, text=True
    ).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    return {line["test"]: line["problem"] for line in lines}


@pytest.mark.parametrize("name", names_in(*CORE_TESTS))
def test_core(name: str, compile_cs: Compile) -> None:
    problem = results_of(compile_cs([HARNESS, *CORE_TESTS, *CORE]))[name]
    assert problem is None, problem


@pytest.mark.parametrize("name", names_in(PART))
def test_part_for_unity_on_stubs(name: str, compile_cs: Compile) -> None:
    sources = [HARNESS, STUBS, PART, *CORE, *UNITY_PART]
    problem = results_of(compile_cs(sources))[name]
    assert problem is None, problem


def test_all_tests_were_found(compile_cs: Compile) -> None:
    ran = results_of(compile_cs([HARNESS, *CORE_TESTS, *CORE]))
    assert sorted(ran) == sorted(names_in(*CORE_TESTS))
