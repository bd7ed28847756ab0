"""
Problem documents (RFC 9457): why a request or a handshake was refused.

A response without such a document, for example the error page of a proxy, gives a
problem with empty members.
"""

from __future__ import annotations

import re

import msgspec

from .model import FieldProblem

__all__ = ["Problem", "read_problem"]


class Problem(msgspec.Struct, frozen=True):
    """Why the server refuses something; every member may be missing."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    limit: str = ""
    errors: tuple[dict[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """The last part of `type`: a name for programs to compare."""
        return re.split("[:/]", self.type)[-1]

    @property
    def fields(self) -> tuple[FieldProblem, ...]:
        """The fields, headers, parameters or path segments that are wrong."""
        return tuple(map(_field, self.errors))


def read_problem(body: bytes | bytearray) -> Problem:
    """Return the problem in the body of a response, as far as there is one."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Problem()


def _field(error: dict[str, str]) -> FieldProblem:
    """Read ``{"pointer": "/to", …}`` of a body, or ``{"query": "limit", …}``."""
    where = " ".join(f"{k} {v}" for k, v in error.items() if k != "problem")
    if "pointer" in error:
        where = error["pointer"] or "the body"
    return FieldProblem(where, error.get("problem", ""))
