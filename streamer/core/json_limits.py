"""
Limits of free-form JSON values.

Decides whether every client can read a value that a sender chose freely. Knows how
Python represents JSON.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["problem_with"]

DEPTH_MAX: Final = 64
"""Nesting depth that every parser accepts; ours accepts about a thousand."""

# Not a union, which would be built for each value.
_NESTED: Final = (dict, list)

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1
"""
Integers that fit 64 bits, with or without a sign.

Others fail in most clients and silently lose digits in some.
"""


def problem_with(value: Any, *, any_integer: bool = False) -> str | None:
    """
    Return what is wrong with a JSON value, or None. O(size), without recursion.

    With `any_integer` integers may be of any size.
    """
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, _NESTED):
            if depth > DEPTH_MAX:
                return f"is nested deeper than {DEPTH_MAX} levels"
            children = item.values() if isinstance(item, dict) else item
            waiting += [(child, depth + 1) for child in children]
        elif any_integer or not isinstance(item, int):
            continue
        elif not INT_MIN <= item <= INT_MAX:
            return "has an integer of more than 64 bits"
    return None
