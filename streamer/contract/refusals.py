"""
An instance of every error, in bundles for the declaration of operations.

Decides which errors occur together: checking a credential may find any of its defects,
decoding a body may find it malformed, of another type, too large or invalid. Knows
nothing of statuses, which a surface's table assigns.
"""

from __future__ import annotations

from typing import Final

from ..errors import (
    Conflict,
    Defect,
    Draining,
    Error,
    FieldError,
    Forbidden,
    ForeignOrigin,
    Invalid,
    IssuerUnavailable,
    Limit,
    LimitReached,
    Malformed,
    NotFound,
    OutcomeUnknown,
    OverQuota,
    Quota,
    RateLimited,
    StoreFull,
    StoreUnavailable,
    TooLarge,
    TooLate,
    Unauthenticated,
    Unsupported,
    UsedUp,
)

__all__ = [
    "BAD_FIELD",
    "BAD_HEADER",
    "BAD_PATH",
    "BAD_QUERY",
    "BODY",
    "CONNECTING",
    "CREDENTIAL",
    "EVERY",
    "FOREIGN_ORIGIN",
    "IN_FLIGHT",
    "KEY",
    "KIND",
    "MISSING_FIELD",
    "MUTE_LIMIT",
    "QUOTA",
    "RATE_LIMITED",
    "RIGHT",
    "STORE",
    "TOO_LARGE",
    "TOO_LATE",
    "TOPIC_LIMIT",
    "USED_UP",
    "WRITE",
    "name_of",
    "unknown",
]

Errors = tuple[Error, ...]

CREDENTIAL: Final[Errors] = (
    *(
        Unauthenticated(defect, "aud" if defect is Defect.CLAIM else "")
        for defect in Defect
    ),
    IssuerUnavailable(),
)
"""The operation checks a credential."""

RIGHT: Final[Errors] = (Forbidden("the scope notifications:send"),)
"""The operation checks what the credential permits."""

FOREIGN_ORIGIN: Final[Errors] = (ForeignOrigin("an allowed origin"),)
"""A page of another origin could make a browser send the request."""

BAD_PATH: Final[Errors] = (
    Invalid(FieldError(("path", "player"), "is not a player name")),
)
BAD_QUERY: Final[Errors] = (
    Invalid(FieldError(("query", "limit"), "must be an integer from 1 to 100")),
)
BAD_HEADER: Final[Errors] = (
    Invalid(FieldError(("header", "Last-Event-ID"), "is not a cursor")),
)
BAD_FIELD: Final[Errors] = (
    Invalid(FieldError(("body", "field"), "Expected `str`, got `int`")),
)
MISSING_FIELD: Final[Errors] = (
    Invalid(FieldError(("body",), "Object missing required field `field`")),
)
KIND: Final[Errors] = (
    Unsupported("Content-Type", "application/json"),
    Unsupported("Content-Encoding", "identity"),
)
TOO_LARGE: Final[Errors] = (TooLarge(262_144),)

BODY: Final[Errors] = (
    Malformed("Input data was truncated"),
    *BAD_FIELD,
    *MISSING_FIELD,
    *KIND,
    *TOO_LARGE,
)
"""The operation reads and decodes a body."""

KEY: Final[Errors] = (
    Invalid(
        FieldError(("header", "Idempotency-Key"), "must be 1 to 255 ASCII characters")
    ),
    Conflict(),
)
"""The operation accepts an idempotency key."""

IN_FLIGHT: Final[Errors] = (
    LimitReached(Limit.REQUESTS_PER_PLAYER),
    LimitReached(Limit.REQUESTS_PER_APP),
    LimitReached(Limit.REQUESTS_PER_NODE),
)
"""The operation counts as a request in flight, of a player or an app."""

QUOTA: Final[Errors] = tuple(OverQuota(quota, 1_000) for quota in Quota)
"""The operation counts against the quotas of an app."""

CONNECTING: Final[Errors] = (
    LimitReached(Limit.LISTENERS_PER_PLAYER),
    LimitReached(Limit.CONNECTIONS_PER_NODE),
    LimitReached(Limit.CONNECTS_PER_SECOND),
    Draining(),
)
"""The operation holds a connection open."""

TOPIC_LIMIT: Final[Errors] = (LimitReached(Limit.TOPICS_PER_PLAYER),)
MUTE_LIMIT: Final[Errors] = (LimitReached(Limit.MUTES_PER_PLAYER),)

STORE: Final[Errors] = (StoreUnavailable(write=False),)
"""The operation reads from the store, and writes nothing that the caller sent."""

WRITE: Final[Errors] = (StoreUnavailable(), StoreFull(), OutcomeUnknown())
"""The operation writes to the store."""

TOO_LATE: Final[Errors] = (TooLate("sent"),)
RATE_LIMITED: Final[Errors] = (RateLimited(30),)
USED_UP: Final[Errors] = (UsedUp("the notifications of a campaign", 3),)


def unknown(*things: str) -> Errors:
    """Return errors that say that `things` do not exist."""
    return tuple(NotFound(thing) for thing in things)


EVERY: Final[Errors] = (
    *CREDENTIAL,
    *RIGHT,
    *FOREIGN_ORIGIN,
    *BAD_PATH,
    *BAD_QUERY,
    *BODY,
    *KEY,
    *IN_FLIGHT,
    *QUOTA,
    *CONNECTING,
    *TOPIC_LIMIT,
    *MUTE_LIMIT,
    *WRITE,
    *TOO_LATE,
    *RATE_LIMITED,
    *USED_UP,
    *unknown("the notification"),
)
"""All of them, for the test that every class of error is here."""


def name_of(error: Exception) -> str:
    """Return a name that distinguishes `error` from others of its class."""
    name = type(error).__name__
    match error:
        case Unauthenticated(defect=defect):
            return f"{name}.{defect.name}"
        case LimitReached(limit=limit):
            return f"{name}.{limit.name}"
        case OverQuota(quota=quota):
            return f"{name}.{quota.name}"
        case Unsupported(header=header):
            return f"{name}.{header}"
        case NotFound(what=what):
            return f"{name}.{what.rpartition(' ')[2]}"
        case Invalid(errors=fields):
            return f"{name}.{'.'.join(map(str, fields[0].where))}"
    return name
