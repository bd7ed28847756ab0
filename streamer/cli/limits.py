"""
The limit of open files; every connection is one.

Knows the system's soft and hard limits.
"""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["FDS_BESIDE_CONNECTIONS", "fd_limit_max", "raise_fd_limit"]

FDS_BESIDE_CONNECTIONS: Final = 64
"""Listeners, the store's connections, modules, logs."""

_FDS_ENOUGH: Final = 1_048_576
"""Used where the hard limit is infinite, which some systems do not grant."""


def fd_limit_max() -> int:
    """Return how many descriptors a server can have that is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _FDS_ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _FDS_ENOUGH)


def raise_fd_limit() -> None:
    """
    Raise the soft limit to the hard limit, as far as the system allows.

    The soft limit is low (1,024, or 256 on macOS) for programs that use `select`. With
    it, a server would refuse its thousandth player.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = fd_limit_max()
    while soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):
            target //= 2  # macOS has a lower limit that it does not report.
        else:
            return
