"""The web client: alone, against a real server in Node, and in Chromium."""

from __future__ import annotations

import os
import re

import pytest

from .conftest import CHROMIUM, NIGHTLY_S, WEB, node_tests, run

UNITS = ("backoff", "client", "connection", "json", "messages", "parts", "queue")

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="neither chromium nor google-chrome is installed"
)


def test_what_it_decides() -> None:
    printed = node_tests(*UNITS)

    assert re.search(r"^. fail 0$", printed, re.MULTILINE)


def test_every_test_of_the_client_runs_here() -> None:
    files = {path.name.removesuffix(".test.js") for path in WEB.glob("tests/*.test.js")}

    assert files == {*UNITS, "against_server", "browser", "size"}


def test_its_types_are_strict() -> None:
    run("npx", "--no-install", "tsc", "-p", ".")


def test_it_is_small() -> None:
    node_tests("size")


def test_against_a_real_server() -> None:
    printed = node_tests("against_server")

    assert re.search(r"^. skipped 0$", printed, re.MULTILINE)


@needs_chromium
def test_in_a_browser_it_survives_the_network() -> None:
    node_tests("browser", pattern="^(in Chromium|websocket|offline|a page in)")


@pytest.mark.nightly
@pytest.mark.timeout(NIGHTLY_S)
@needs_chromium
def test_everything_in_a_browser_with_a_hundred_tabs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_NIGHTLY", "1")
    assert "TEST_NIGHTLY" in os.environ

    printed = node_tests("browser", timeout_s=NIGHTLY_S)

    assert re.search(r"^. skipped 0$", printed, re.MULTILINE)
