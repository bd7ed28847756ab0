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

A lost connection is not an error: a stream reconnects by itself. A stream that has
never been connected is one: after a few attempts its address, its proxy or its
certificate is more likely to be wrong than the server to be restarting.
"""

from __future__ import annotations

import urllib.parse
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
    "public_url",
]


class Error(Exception):
    """
    Base class of the exceptions of this package.

    `url` is the address that was asked, without its query and without the name and
    password that it may contain.
    """

    def __init__(self, *args: object, url: str = "") -> None:
        super().__init__(*args)
        self.url = url

    def __str__(self) -> str:
        return f"{self._text()}{f' ({self.url})' if self.url else ''}"

    def _text(self) -> str:
        return super().__str__()


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
        url: str = "",
    ) -> None:
        super().__init__(status, title, url=url)
        self.status = status
        self.title = title
        self.type = type
        self.detail = detail
        self.errors = tuple(errors)
        self.limit = limit

    @property
    def problem(self) -> str:
        """What is wrong, without the address."""
        # The field errors have the same information as the detail, more precisely.
        problems = [f"{error.where}: {error.problem}" for error in self.errors]
        text = "; ".join(problems) or self.detail
        return f"{self.status} {self.title}{': ' if text else ''}{text}"

    def _text(self) -> str:
        return self.problem


class Unavailable(Error):
    """
    There was no usable response within the allowed attempts.

    `status` is the HTTP status of the last one, None if there was none, and `detail`
    what the server said about it. From a stream: its first connection never worked.

    It is unknown whether a publish was carried out. Publish the same content with the
    same `idempotency_key` to find out; this has no second effect.
    """

    def __init__(
        self,
        problem: str,
        *,
        attempt_count: int,
        status: int | None = None,
        detail: str = "",
        idempotency_key: str | None = None,
        url: str = "",
    ) -> None:
        super().__init__(problem, attempt_count, url=url)
        self.problem = problem
        self.attempt_count = attempt_count
        self.status = status
        self.detail = detail
        self.idempotency_key = idempotency_key

    def _text(self) -> str:
        attempts = "attempt" if self.attempt_count == 1 else "attempts"
        return f"{self.problem} (after {self.attempt_count} {attempts})"


class BadResponse(Error):
    """A response has another form: this is not a streamer server, or a bug."""


class CommandFailed(Error):
    """The server did not carry out a command of a stream; the stream continues."""

    def __init__(self, problem: str, *, url: str = "") -> None:
        super().__init__(problem, url=url)
        self.problem = problem


class Refused(Error):
    """
    The stream has ended, and reconnecting with the same credential does not help.

    `code` is the close code, 4200 to 4299. A handshake that was refused has the code
    with the same meaning, and its HTTP `status` and the `detail` of its body.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        *,
        status: int | None = None,
        detail: str = "",
        url: str = "",
    ) -> None:
        super().__init__(code, reason, url=url)
        self.code = code
        self.reason = reason
        self.status = status
        self.detail = detail

    def _text(self) -> str:
        return f"the stream was refused: {self.reason} ({self.code})"


class TokenExpired(Refused):
    """The token is invalid or expired: open a new stream with another token."""


def public_url(url: str) -> str:
    """Return `url` for people and logs: no query, no fragment, no name and password."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
