"""
Tables on a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["table"]


def table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Return rows as aligned columns; the last one has any width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    lines = (indent + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
