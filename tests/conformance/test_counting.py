"""The small client follows the vectors of the counting rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from small_client import Badge

VECTORS = Path(__file__).parents[2] / "clients" / "conformance" / "counting.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_small_client_follows_the_vectors(case: dict[str, Any]) -> None:
    badge = Badge(case["topics"])

    for message, number in case["steps"]:
        assert badge.take(message) == number, message
