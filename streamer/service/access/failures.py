"""
Failed authentications, counted by reason and by client address.

Decides when the log has a line about an address: at 10, 100, 1,000 … failures within a
minute, so that a flood of wrong credentials is not a flood of lines. Nothing is refused
because of these counts: behind one address may be a whole school, and a good credential
is accepted whatever its neighbours sent. Knows addresses. Knows nothing of requests.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from ...errors import Defect, Unauthenticated
from ..node.fast_log import emit

__all__ = ["ADDRESSES_MAX", "FailedAuthentications", "network_of"]

WINDOW_S: Final = 60.0

FIRST_LINE: Final = 10
"""
Failures of an address within `WINDOW_S` at which it is logged; then at each tenfold.

Below are clients whose token has just expired.
"""

ADDRESSES_MAX: Final = 10_000
"""Addresses counted at a time; about 200 bytes each. The oldest is forgotten."""

LINES_MAX: Final = 10
"""Lines within `WINDOW_S`, of all addresses together."""

IPV6_PREFIX: Final = 64
"""One subscriber has at least so many bits of addresses to choose from."""

_logger = logging.getLogger("streamer.authentication")


class FailedAuthentications:
    """
    The failed authentications of this process.

    Args:
        clock_s: A monotonic clock.

    """

    def __init__(self, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self.reasons: Counter[Defect] = Counter()
        """All failures since the start, also requests without a credential."""
        # Address -> the start of its window and its failures since, oldest start first.
        self._by_address: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lines_since_s = float("-inf")
        self._lines = 0
        self._unlogged = 0

    @property
    def addresses(self) -> int:
        """How many addresses failed to authenticate in the last minute."""
        self._forget_before(self._clock_s() - WINDOW_S)
        return len(self._by_address)

    def note(self, client: str, error: Unauthenticated) -> None:
        """
        Count a failure of the client at an address, "" for a Unix socket.

        A request without a credential counts by its reason only: it tries nothing.
        """
        self.reasons[error.defect] += 1
        if error.defect is Defect.MISSING:
            return
        now_s = self._clock_s()
        self._forget_before(now_s - WINDOW_S)
        address = network_of(client)
        since_s, count = self._by_address.get(address, (now_s, 0))
        if not count and len(self._by_address) >= ADDRESSES_MAX:
            self._by_address.popitem(last=False)
        self._by_address[address] = since_s, count + 1
        if _is_logged(count + 1):
            self._log(address, count + 1, error, now_s)

    def _forget_before(self, started_s: float) -> None:
        while self._by_address:
            address, (since_s, _) = next(iter(self._by_address.items()))
            if since_s > started_s:
                return
            del self._by_address[address]

    def _log(
        self, address: str, count: int, error: Unauthenticated, now_s: float
    ) -> None:
        if now_s - self._lines_since_s >= WINDOW_S:
            self._lines_since_s, self._lines = now_s, 0
        if self._lines >= LINES_MAX:
            self._unlogged += 1
            return
        self._lines += 1
        fields = {
            "client": address,
            "failures": count,
            "reason": error.defect.name.lower(),
        }
        if self._unlogged:
            fields["lines_left_out"] = self._unlogged
            self._unlogged = 0
        text = f"{count} failed authentications of {address or 'unix'} within a minute"
        emit(_logger, text, fields, logging.WARNING)


def _is_logged(count: int) -> bool:
    while count > FIRST_LINE and count % 10 == 0:
        count //= 10
    return count == FIRST_LINE


def network_of(client: str) -> str:
    """Return what counts as one address: an IPv4 address, or an IPv6 network."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
