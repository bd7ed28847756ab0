"""The locks: one version of each package in all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^\S+==\S+", (ROOT / lock).read_text(), re.M))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-otel.lock"])
def test_the_tests_run_with_the_versions_that_are_installed(lock: str) -> None:
    assert pins(lock) <= pins("tests/requirements.lock")


def test_the_lock_with_the_extra_has_the_others_too() -> None:
    more = pins("requirements-otel.lock") - pins("requirements.lock")

    assert pins("requirements.lock") < pins("requirements-otel.lock")
    assert any(it.startswith("opentelemetry-sdk==") for it in more)
