"""
What this package raises on purpose.

The tree::

    Error
    ├── Rejected            a request was answered with a 4xx; has status and problem
    ├── Unavailable         no usable answer after the last attempt; repeat it later
    ├── BadAnswer           an answer came and cannot be read; not a streamer server?
    ├── CommandFailed       what was asked for on a stream was not done; has problem
    └── Refused             a stream ended and must not come back as it is; has a code
        └── TokenExpired    ... because its token is invalid or expired

A lost connection is no error: a stream comes back by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from .model import FieldProblem

__all__ = [
    "BadResponse",
    "CommandFailed",
    "Error",
    "Refused",
    "Rejected",
    "TokenExpired",
    "Unavailable",
]


class Error(Exception):
    """Base of everything this package raises on purpose."""


class Rejected(Error):
    """
    The server will not carry out this request as it is.

    `status` is the HTTP status; `type` the last part of the problem's type, e.g.
    ``idempotency-key-reuse``; `errors` says which fields are wrong, if any are, and
    `limit` which limit is reached, if one is.
    """

    def __init__(
        self,
        status: int,
        title: str,
        *,
        type: str = "about:blank",
        detail: str = "",
        errors: Sequence[FieldProblem] = (),
        limit: str = "",
    ) -> None:
        super().__init__(status, title)
        self.status = status
        self.title = title
        self.type = type
        self.detail = detail
        self.errors = tuple(errors)
        self.limit = limit

    def __str__(self) -> str:
        # The fields say what the detail says, and better.
        problems = [f"{error.where}: {error.problem}" for error in self.errors]
        text = "; ".join(problems) or self.detail
        return f"{self.status} {self.title}{': ' if text else ''}{text}"


class Unavailable(Error):
    """
    There was no usable answer, and the attempts are used up.

    Whether a publish was carried out is then not known. Publishing the same thing
    with the same `idempotency_key` finds out, and has no second effect.
    """

    def __init__(
        self,
        problem: str,
        *,
        attempt_count: int,
        status: int | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(problem, attempt_count)
        self.problem = problem
        self.attempt_count = attempt_count
        self.status = status
        self.idempotency_key = idempotency_key

    def __str__(self) -> str:
        attempts = "attempt" if self.attempt_count == 1 else "attempts"
        return f"{self.problem} (after {self.attempt_count} {attempts})"


class BadResponse(Error):
    """An answer is not of the agreed form: this is not a streamer server, or a bug."""


class CommandFailed(Error):
    """The server has not done what was asked for on a stream; the stream goes on."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Refused(Error):
    """
    The stream is over: coming back with the same credential is no use.

    `code` is the close code of the protocol, 4200 to 4299; a refusal in the
    handshake is given the code that an open stream would have had.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the stream was refused: {self.reason} ({self.code})"


class TokenExpired(Refused):
    """The token is invalid or expired: open another stream with another token."""
