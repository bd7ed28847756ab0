"""
The terms on which this process uses its store.

Knows what the record of the deployment allows, and nothing of how it is read:
`store.deployment` reads it, and sets these terms. All connections of a process to one
store share them.
"""

from __future__ import annotations

from ...core.deployment import LEVEL
from ...errors import StoreUnavailable

__all__ = ["Terms"]


class Terms:
    """
    What this process may do with the data of its store.

    A node begins with level 0, until its first check has read the record.
    """

    __slots__ = ("level", "refusal")

    def __init__(self) -> None:
        self.level = LEVEL
        """The level that all nodes can read; see `core.deployment.LEVEL`."""
        self.refusal = ""
        """Why this process must not write, for operators; empty if it may."""

    def require_writable(self, where: str = "") -> None:
        """Raise StoreUnavailable if this process must not write."""
        if self.refusal:
            raise StoreUnavailable(self.refusal, where=where)
