"""
The addon for Godot: its layout, its style, and its tests on a real engine.

The engine is the export for the Web of Godot 4.6, in headless Chromium.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from ...e2e.browser import CHROMIUM
from .engine import ENGINE, Godot
from .project import ADDON, ADDON_FOLDER, PROJECT, files_of

SCRIPTS = sorted(ADDON_FOLDER.rglob("*.gd"))
ALL_SCRIPTS = [*SCRIPTS, *sorted(PROJECT.glob("*.gd"))]
TOOLS = Path(sys.executable).parent

needs_toolkit = pytest.mark.skipif(
    not (TOOLS / "gdparse").exists(), reason="gdtoolkit is not installed"
)


@needs_toolkit
def test_scripts_parse_and_have_the_usual_style() -> None:
    subprocess.run([TOOLS / "gdlint", *SCRIPTS], check=True, cwd=ADDON_FOLDER)


@needs_toolkit
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_scripts_are_formatted() -> None:
    subprocess.run([TOOLS / "gdparse", *ALL_SCRIPTS], check=True)
    subprocess.run([TOOLS / "gdformat", "--check", "-l100", *ALL_SCRIPTS], check=True)


def test_the_plugin_names_what_is_there() -> None:
    plugin = configparser.ConfigParser()
    plugin.read(ADDON / "plugin.cfg")

    assert {"name", "description", "author", "version"} <= plugin["plugin"].keys()
    assert (ADDON / plugin["plugin"]["script"].strip('"')).is_file()
    assert (ADDON / "LICENSE").is_file()


def test_scripts_are_typed() -> None:
    for script in SCRIPTS:
        for number, line in enumerate(script.read_text().splitlines(), 1):
            assert not re.match(r"\s*(static )?func .*\)\s*:$", line), (
                f"{script}:{number}: no return type"
            )
            assert not re.match(r"\s*(static )?var \w+( =|$)", line), (
                f"{script}:{number}: no type"
            )


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.skipif(
    not ENGINE.exists(), reason="`npm ci` has not run in tests/clients/godot"
)
async def test_client_on_a_real_engine(tmp_path: Path) -> None:
    godot = Godot(tmp_path)
    await godot.start(files_of("tests"))
    results: dict[str, Sequence[str]] = {}
    try:
        while (result := await next_result(godot)).test != "end":
            results[result.test] = result.problems
    finally:
        await godot.close()

    source = (PROJECT / "tests.gd").read_text()
    assert sorted(results) == sorted(re.findall(r"^func (test_\w+)", source, re.M))
    assert not {name: problems for name, problems in results.items() if problems}
    wrong = [it for it in godot.errors if "SCRIPT ERROR" in it]
    assert not wrong, godot.errors


class Result(NamedTuple):
    """What was wrong in one test."""

    test: str
    problems: Sequence[str] = ()


async def next_result(godot: Godot) -> Result:
    # The engine greets first.
    while not (line := await godot.line()).startswith("{"):
        pass
    return Result(**json.loads(line))
