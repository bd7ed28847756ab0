"""
What a call came back with: its reply, or the failure that came instead.

Decides nothing. `RedisConnection.call_many` and `RedisConnection.run_many` give
failures as items of a list, so that one does not hide the others; here is for who has
no use for the others then.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Reply", "ok"]

Reply = Any  # bytes, int, None, a list of these, or an exception


def ok(reply: Reply) -> Any:
    """Return a reply. Raises it if it is a failure."""
    if isinstance(reply, Exception):
        raise reply
    return reply
