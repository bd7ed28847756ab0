"""
The exceptions of this package.

::

    Error
    ├── Rejected            the server answered a request with a 4xx
    ├── Unavailable         no usable response after the last attempt; repeat it later
    ├── BadResponse         a response that cannot be read; is it a streamer server?
    ├── CommandFailed       the server did not carry out a command of a stream
    └── Refused             the stream has ended and must not reconnect; has a code
        └── TokenExpired    its token is invalid or expired

A lost connection is not an error: a stream reconnects by itself.
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
    """Base class of the exceptions of this package."""


class Rejected(Error):
    """
    The server refuses this request; repeating it unchanged does not help.

    `status` is the HTTP status, `type` the last part of the problem's type, such as
    ``idempotency-key-reuse``. `errors` lists the fields that are wrong, if any, and
    `limit` names the limit that was reached, if one was.
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
        # The field errors have the same information as the detail, more precisely.
        problems = [f"{error.where}: {error.problem}" for error in self.errors]
        text = "; ".join(problems) or self.detail
        return f"{self.status} {self.title}{': ' if text else ''}{text}"


class Unavailable(Error):
    """
    There was no usable response within the allowed attempts.

    It is unknown whether a publish was carried out. Publish the same content with the
    same `idempotency_key` to find out; this has no second effect.
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
    """A response has another form: this is not a streamer server, or a bug."""


class CommandFailed(Error):
    """The server did not carry out a command of a stream; the stream continues."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Refused(Error):
    """
    The stream has ended, and reconnecting with the same credential does not help.

    `code` is the close code, 4200 to 4299. A handshake that was refused has the code
    with the same meaning.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the stream was refused: {self.reason} ({self.code})"


class TokenExpired(Refused):
    """The token is invalid or expired: open a new stream with another token."""
