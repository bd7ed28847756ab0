"""
The processes, proxies and readers of the e2e tests, and a place for figures.

A fault test that passes says how much it has seen: its figures are printed at the end
of the run, since "0 lost" is worth as much as what it is out of.
"""

from __future__ import annotations

from collections.abc import Callable

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

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Return a function that takes a figure for the summary."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return lambda figure: figures.append(f"{request.node.name}: {figure}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if figures := config.stash.get(_FIGURES, []):
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)
