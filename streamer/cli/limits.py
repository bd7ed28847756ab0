"""
The limit of open files; every connection is one.

Decides how many streams a process admits, so that descriptors are left for requests:
without a reserve, streams that stay open would leave none to publishers. Knows the
system's soft and hard limits.
"""

from __future__ import annotations

import logging
import resource
from typing import TYPE_CHECKING, Final

from ..transports.server.idle_connections import FDS_BESIDE_CONNECTIONS

if TYPE_CHECKING:
    from ..config import Config

__all__ = [
    "FDS_BESIDE_CONNECTIONS",
    "fd_limit_max",
    "fit_connections",
    "raise_fd_limit",
    "streams_max",
]

RESERVE_DIVISOR: Final = 4
"""A quarter of the descriptors for connections is for requests, where they are few."""

_FDS_ENOUGH: Final = 1_048_576
"""Used where the hard limit is infinite, which some systems do not grant."""

_logger = logging.getLogger(__name__)


def fd_limit_max() -> int:
    """Return how many descriptors a server can have that is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _FDS_ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _FDS_ENOUGH)


def streams_max(limit: int, requests_max: int) -> int:
    """
    Return how many streams a process admits that can open `limit` files.

    Descriptors are reserved for `requests_max` requests, but not for more than a
    quarter of the connections.
    """
    connections = max(0, limit - FDS_BESIDE_CONNECTIONS)
    return max(1, connections - min(requests_max, connections // RESERVE_DIVISOR))


def fit_connections(config: Config) -> Config:
    """
    Return the settings of this process, with `connections_max` as its limit allows.

    Logs a warning if that is less than configured. Call `raise_fd_limit` before.
    """
    import msgspec

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return config
    allowed = streams_max(limit, config.requests_in_flight_max)
    if allowed >= config.connections_max:
        return config
    _logger.warning(
        "this process can open %d files, which allows %d streams instead of the %d of "
        "connections_max: raise the limit (ulimit -Hn, LimitNOFILE=) or lower "
        "connections_max",
        limit,
        allowed,
        config.connections_max,
    )
    return msgspec.structs.replace(config, connections_max=allowed)


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
