"""
What a call returns: a reply, or the failure that came instead.

`RedisConnection.call_many` and `RedisConnection.run_many` return failures as items of
their list, so that one does not hide the others. This module turns an error reply into
an exception, and raises the failure for callers that need all replies.
"""

from __future__ import annotations

from typing import Any, Final

from redis.exceptions import ResponseError

__all__ = ["Reply", "StoreConflict", "ok", "refusal"]

Reply = Any  # bytes, int, None, a list of these, or an exception

_CONFLICT: Final = "CONFLICT"


class StoreConflict(ResponseError):
    """The idempotency key belongs to another request. Nothing was written."""


def refusal(text: str) -> ResponseError:
    """Return the exception for an error reply with this text."""
    # Redis 7 puts its own code in front of an error that is a single word.
    if text.removeprefix("ERR ") == _CONFLICT:
        return StoreConflict(text)
    return ResponseError(text)


def ok(reply: Reply) -> Any:
    """Return a reply. Raises it if it is a failure."""
    if isinstance(reply, Exception):
        raise reply
    return reply
