"""
How many files this process may have open; every connection is one.

Knows the soft and the hard limit of the system.
"""

from __future__ import annotations

import resource
from typing import Final

__all__ = ["FDS_BESIDE_CONNECTIONS", "fd_limit_max", "raise_fd_limit"]

FDS_BESIDE_CONNECTIONS: Final = 64
"""Listeners, the store's connections, modules, logs."""

_FDS_ENOUGH: Final = 1_048_576
"""Some systems call their hard limit infinite and refuse to give it."""


def fd_limit_max() -> int:
    """Return how many descriptors a server started here can have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _FDS_ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _FDS_ENOUGH)


def raise_fd_limit() -> None:
    """
    Raise the soft limit to the hard one, as far as the system lets us.

    The soft limit is low (1,024, or 256 on macOS) for the sake of programs that use
    `select`. Without this, a server would refuse its thousandth player.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = fd_limit_max()
    while soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (OSError, ValueError):
            target //= 2  # macOS has a lower limit of its own that it does not tell.
        else:
            return
