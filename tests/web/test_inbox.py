"""`<streamer-inbox>`, `/demo`, `/console` and the examples, in Chromium and in Node."""

from __future__ import annotations

import re

import pytest

from .conftest import CHROMIUM, NIGHTLY_S, WEB, node_tests

NAMES = ("element", "demo", "console", "console_login", "examples", "readme")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="neither chromium nor google-chrome is installed"
)


@pytest.mark.nightly
@pytest.mark.timeout(NIGHTLY_S)
@needs_chromium
@pytest.mark.parametrize("name", NAMES)
def test_in_a_browser(name: str) -> None:
    printed = node_tests(f"browser/{name}", timeout_s=NIGHTLY_S)

    assert re.search(r"^. skipped 0$", printed, re.MULTILINE)


def test_every_test_in_a_browser_runs_here() -> None:
    files = {path.name for path in WEB.glob("tests/browser/*.test.js")}

    assert files == {f"{name}.test.js" for name in NAMES}
