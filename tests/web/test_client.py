"""The web client: alone, against a real server in Node, and in Chromium."""

from __future__ import annotations

import re

import pytest

from .conftest import CHROMIUM, GUARD_S, NIGHTLY_S, WEB, node_tests, run

NEED_A_SERVER = ("against_server", "browser", "readme")
UNITS = sorted(
    {path.name.removesuffix(".test.js") for path in WEB.glob("tests/*.test.js")}
    - {*NEED_A_SERVER}
)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="neither chromium nor google-chrome is installed"
)


def test_what_it_decides() -> None:
    printed = node_tests(*UNITS)

    assert re.search(r"^. fail 0$", printed, re.MULTILINE)


def test_its_types_are_strict() -> None:
    run("npx", "--no-install", "tsc", "-p", ".")


def test_against_a_real_server() -> None:
    node_tests("against_server", timeout_s=2 * GUARD_S)


@needs_chromium
def test_in_a_browser_it_resumes_and_tabs_share_a_connection() -> None:
    pattern = "^(websocket|another tab takes over)"

    node_tests("browser", pattern=pattern, timeout_s=2 * GUARD_S)


def test_the_first_examples_of_its_readme_run_as_printed() -> None:
    pattern = "^(the table|the page|in Node|in a page)"

    node_tests("readme", pattern=pattern, timeout_s=2 * GUARD_S)


@pytest.mark.nightly
@pytest.mark.timeout(2 * NIGHTLY_S)
@needs_chromium
@pytest.mark.parametrize("name", NEED_A_SERVER)
def test_everything_with_a_hundred_tabs(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TEST_NIGHTLY", "1")

    printed = node_tests(name, timeout_s=NIGHTLY_S)

    assert re.search(r"^. skipped 0$", printed, re.MULTILINE)
