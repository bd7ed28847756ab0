"""
The processes, proxies and readers of the e2e tests, and reproducible random choices.

A fault test reports its figures (`battery.report`), since "0 lost" means little without
the number that could have been lost.
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
    """Seed the random choices of every test here from the seed of the run."""
