"""
The error tree, and the reasons for which a stream ends.

Knows no HTTP status and no vendor's format: each surface has one table from these
classes to its own responses.

The tree::

    Error
    ├── Rejected                a client error; repeating it unchanged does not help
    │   ├── Malformed           the body is not valid JSON
    │   ├── Unsupported         the body's media type or encoding is not supported
    │   ├── Invalid             fields, parameters or cursors are invalid; lists them
    │   ├── Unauthenticated     no credential, or an invalid one; has a defect
    │   ├── Forbidden           the credential is valid and does not allow this
    │   │   └── ForeignOrigin   a browser sent it from a page of another origin
    │   ├── NotFound            does not exist, or the caller may not see it
    │   ├── Conflict            the idempotency key was used for another request
    │   ├── TooLate             the schedule has begun and can no longer be changed
    │   ├── TooLarge            a body or message exceeds its limit
    │   ├── RateLimited         a rate limit shared by all nodes is reached
    │   ├── OverQuota           an app has used one of its quotas; has a quota
    │   ├── UsedUp              a number that is granted once is used up
    │   └── LimitReached        a limit on streams, requests or connects; has a limit
    ├── StoreUnfit              the store would break what the settings promise
    └── Unavailable             a server error; worth a retry
        ├── StoreUnavailable    the store cannot be reached; nothing was written
        │   └── StoreFull       the store is full; nothing was written
        ├── IssuerUnavailable   the issuer's keys cannot be retrieved
        ├── OutcomeUnknown      a write was sent and its response did not arrive
        └── Draining            this node is shutting down

A stream ends not with an exception but with a value: `Disconnect`, from the table at
the end of this module. The range of a code tells a client what to do without knowing
the code: 4000-4099 reconnect with back-off and resume, 4100-4199 reconnect after the
delay given, 4200-4299 do not reconnect without a new token or a fix.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

__all__ = [
    "CLOSED_BY_OPERATOR",
    "DRAINING",
    "ERASED",
    "FORBIDDEN",
    "ISSUER_UNAVAILABLE",
    "NODE_FULL",
    "PROTOCOL",
    "RATE_EXCEEDED",
    "REPLACED",
    "RESYNC",
    "SILENT",
    "SLOW",
    "STOPPED_BY_OPERATOR",
    "STORE_UNAVAILABLE",
    "TOKEN_INVALID",
    "TOO_MANY_LISTENERS",
    "Conflict",
    "Defect",
    "Disconnect",
    "Draining",
    "Error",
    "FieldError",
    "Forbidden",
    "ForeignOrigin",
    "Invalid",
    "IssuerUnavailable",
    "Limit",
    "LimitReached",
    "Malformed",
    "NotFound",
    "OutcomeUnknown",
    "OverQuota",
    "Quota",
    "RateLimited",
    "Rejected",
    "StoreFull",
    "StoreUnavailable",
    "StoreUnfit",
    "TooLarge",
    "TooLate",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
    "UsedUp",
]


class Error(Exception):
    """Base of all errors that this server raises on purpose."""


class Rejected(Error):
    """The request cannot be carried out as it is."""


class StoreUnfit(Error):
    """
    A node must not start on this store. `reasons` says everything that is wrong.

    No client sees it: it ends the process before the first request.
    """

    def __init__(self, reasons: str) -> None:
        self.reasons = reasons

    def __str__(self) -> str:
        return f"unsuitable store: {self.reasons}"


class FieldError(NamedTuple):
    """
    One thing wrong with a request.

    `where` is a path of names and indices that starts with ``body``, ``query``,
    ``path`` or ``header``. `problem` is a sentence without a full stop.
    """

    where: tuple[str | int, ...]
    problem: str


class Malformed(Rejected):
    """The body is not a valid JSON document. `problem` says why."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __str__(self) -> str:
        return f"the body is not valid JSON: {self.problem}"


class Unsupported(Rejected):
    """A header asks for a media type or encoding that is not supported."""

    def __init__(self, header: str, expected: str) -> None:
        self.header = header
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.header} must be {self.expected}"


class Invalid(Rejected):
    """Fields, parameters or cursors are invalid. `errors` has all of them."""

    def __init__(self, *errors: FieldError) -> None:
        assert errors
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(
            f"{'.'.join(map(str, error.where))}: {error.problem}"
            for error in self.errors
        )


class Defect(enum.Enum):
    """What is wrong with a credential. Surfaces translate the names."""

    MISSING = "no credential was given"
    AMBIGUOUS = "more than one credential was given"
    SCHEME = "the authorization scheme is not Bearer"
    NOT_JWT = "the token is not a JSON Web Token"
    MALFORMED = "the token's header cannot be read"
    UNREADABLE = "the token's claims cannot be read"
    KEY_ID = "the token names an unknown key"
    SIGNATURE = "the token's signature does not match"
    VERSION = "the token's version is not supported"
    CLAIM = "a claim of the token is missing or invalid"
    LIFETIME = "the token is valid for more than a day after its iat"
    EXPIRED = "the token has expired"
    UNKNOWN_KEY = "the backend key is unknown"
    EXPIRED_KEY = "the backend key has expired"
    REVOKED = "the credential has been revoked"
    TICKET = "the ticket is unknown, already used or expired"


class Unauthenticated(Rejected):
    """
    No credential, or an invalid one.

    `detail` names the claim, if any. Where there is no credential it may say what to
    do.
    """

    def __init__(self, defect: Defect, detail: str = "") -> None:
        self.defect = defect
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.defect.value}{': ' if self.detail else ''}{self.detail}"


class Forbidden(Rejected):
    """The credential is valid and does not allow this. `needed` would."""

    def __init__(self, needed: str) -> None:
        self.needed = needed

    def __str__(self) -> str:
        return f"this requires {self.needed}"


class ForeignOrigin(Forbidden):
    """
    A browser sent this for a page of an origin that is not allowed.

    The server refuses a stream to such a page before it opens the stream.
    """


class NotFound(Rejected):
    """The thing does not exist, or the caller may not see it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} does not exist"


class Conflict(Rejected):
    """An idempotency key was used before for a different request."""

    def __str__(self) -> str:
        return "the idempotency key was used for a different request"


class TooLate(Rejected):
    """
    A schedule has begun or ended and can no longer be changed.

    Args:
        state: Its state, or ``expired`` if its notification has.
        hint: What the caller can do instead.

    """

    def __init__(self, state: str, hint: str = "") -> None:
        self.state = state
        self.hint = hint

    def __str__(self) -> str:
        text = f"the schedule is already {self.state}"
        return f"{text}; {self.hint}" if self.hint else text


class TooLarge(Rejected):
    """A body or message exceeds its limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes"


class RateLimited(Rejected):
    """An app calls too often. It may call again after `retry_after_s`."""

    def __init__(self, per_s: int, *, retry_after_s: int = 1) -> None:
        self.per_s = per_s
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the rate limit of {self.per_s} calls per second is reached"


class Quota(enum.Enum):
    """A resource with a quota per app. The names are those of `core.quotas`."""

    PUBLISHES_PER_S = "notifications per second"
    BYTES_PER_DAY = "bytes per day"
    PLAYERS = "players"
    PENDING_SCHEDULES = "pending schedules"


class OverQuota(Rejected):
    """An app has used one of its quotas. A retry after `retry_after_s` may succeed."""

    def __init__(self, quota: Quota, maximum: int, *, retry_after_s: int = 1) -> None:
        self.quota = quota
        self.maximum = maximum
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the app has used its quota of {self.maximum} {self.quota.value}"


class UsedUp(Rejected):
    """A number that is granted once is used up; waiting does not help."""

    def __init__(self, what: str, maximum: int) -> None:
        self.what = what
        self.maximum = maximum

    def __str__(self) -> str:
        return f"{self.what} are limited to {self.maximum}, and none is left"


class Limit(enum.Enum):
    """The limit that refused a connection or request."""

    LISTENERS_PER_PLAYER = "too many listeners for this player"
    REQUESTS_PER_PLAYER = "too many requests in flight for this player"
    TOPICS_PER_PLAYER = "too many topics for this player"
    MUTES_PER_PLAYER = "too many muted types for this player"
    REQUESTS_PER_APP = "too many requests in flight for this app on this node"
    CONNECTIONS_PER_NODE = "too many connections on this node"
    CONNECTS_PER_SECOND = "too many new connections per second on this node"
    REQUESTS_PER_NODE = "too many requests in flight on this node"


class LimitReached(Rejected):
    """A limit is reached. A retry after `retry_after_s` may succeed."""

    def __init__(self, limit: Limit, *, retry_after_s: int = 1) -> None:
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.limit.value


class Unavailable(Error):
    """The server cannot do this now. Clients retry after `retry_after_s`."""

    retry_after_s = 1


class StoreUnavailable(Unavailable):
    """
    The store is unreachable or refuses commands. Nothing was written.

    Clients get the text of this error. `words` and `where` are for operators only.

    Args:
        words: Why, in the words of the store or of the system.
        where: The address of the store.
        write: Whether the command was a write.

    """

    def __init__(self, words: str = "", *, where: str = "", write: bool = True) -> None:
        super().__init__(words)
        self.words = words
        self.where = where
        self.write = write

    @property
    def reason(self) -> str:
        """The text for operators: with the address and the words of the store."""
        where = f" at {self.where}" if self.where else ""
        why = f": {self.words}" if self.words else ""
        return f"the store{where} is unavailable{why}{self._consequence}"

    @property
    def _consequence(self) -> str:
        return "; nothing was stored" if self.write else ""

    def __str__(self) -> str:
        return f"the store is unavailable{self._consequence}"


class StoreFull(StoreUnavailable):
    """
    The store's memory is full, or its disk. Nothing was written.

    What takes space is refused until space is freed; the rest goes on.
    """

    retry_after_s = 30

    def __str__(self) -> str:
        return "the store is full; nothing was stored"


class IssuerUnavailable(Unavailable):
    """
    An issuer does not answer; by default for the keys that verify a token.

    `problem` says what is missing.
    """

    retry_after_s = 5

    def __init__(
        self, problem: str = "the keys of the token's issuer cannot be retrieved"
    ) -> None:
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class OutcomeUnknown(Unavailable):
    """
    A write was sent, and its response did not arrive.

    The store may or may not have executed it. A client that used an idempotency key
    repeats the request with the same key, which returns the outcome without a second
    effect.
    """

    def __str__(self) -> str:
        return (
            "the store did not confirm the write; retry with the same idempotency key "
            "to learn its outcome without a second effect"
        )


class Draining(Unavailable):
    """This node is shutting down and accepts nothing new."""

    def __str__(self) -> str:
        return "this node is shutting down"


class Disconnect(NamedTuple):
    """
    The reason for which a stream ends, as its client receives it.

    `code` is a WebSocket close code; SSE carries it in the event ``bye``. A code is
    never reused for another reason.
    """

    code: int
    reason: str

    @property
    def reconnect(self) -> bool:
        """Whether a client should reconnect with the credential it has."""
        return self.code < 4200


SLOW = Disconnect(4000, "slow")
RESYNC = Disconnect(4001, "resync")
SILENT = Disconnect(4002, "silent")
DRAINING = Disconnect(4100, "draining")
TOO_MANY_LISTENERS = Disconnect(4101, "too many listeners")
NODE_FULL = Disconnect(4102, "node full")
RATE_EXCEEDED = Disconnect(4103, "rate")
STORE_UNAVAILABLE = Disconnect(4104, "store away")
ISSUER_UNAVAILABLE = Disconnect(4105, "issuer away")
CLOSED_BY_OPERATOR = Disconnect(4106, "closed by operator")
TOKEN_INVALID = Disconnect(4200, "token invalid or expired")
FORBIDDEN = Disconnect(4201, "forbidden")
REPLACED = Disconnect(4202, "replaced by the same instance")
PROTOCOL = Disconnect(4203, "protocol")
STOPPED_BY_OPERATOR = Disconnect(4204, "stopped by operator")
ERASED = Disconnect(4205, "player erased")
