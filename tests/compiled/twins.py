"""Runs tests on the loops in C and on their twins in Python."""

from __future__ import annotations

from types import ModuleType
from typing import Final

import pytest

from streamer.compiled.library import is_compiled

__all__ = ["WAYS", "go"]

WAYS: Final = ("in C", "in Python")


def go(way: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module use one of `WAYS`; skip the test if that is unavailable."""
    if way == "in Python":
        monkeypatch.setattr(module, "_in_c", None)
    elif not is_compiled():
        pytest.skip("not compiled: no C compiler when this was installed")
