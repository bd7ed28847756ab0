"""
The processes, proxies and readers of the e2e tests, and chance that can be repeated.

A fault test that passes says how much it has seen (`battery.report`), since "0 lost" is
worth as much as what it is out of.
"""

from __future__ import annotations

import pytest

from ..e2e.conftest import (
    backend,
    make_proxy,
    make_server,
    make_store,
    player,
    server,
    token,
)

__all__ = [
    "backend",
    "make_proxy",
    "make_server",
    "make_store",
    "player",
    "server",
    "token",
]


@pytest.fixture(autouse=True)
def chance(seeded: None) -> None:
    """Let every test here begin where the run's seed says."""
