"""
Problem documents (RFC 9457): why a request or a handshake was refused.

Knows their members. An answer that is no such document, a proxy's page for example, is
a problem without any.
"""

from __future__ import annotations

import re

import msgspec

from .model import FieldProblem

__all__ = ["Problem", "read_problem"]


class Problem(msgspec.Struct, frozen=True):
    """What a server says about a refusal; everything may be missing."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    limit: str = ""
    errors: tuple[dict[str, str], ...] = ()

    @property
    def kind(self) -> str:
        """The last word of `type`: a name that programs may compare."""
        return re.split("[:/]", self.type)[-1]

    @property
    def fields(self) -> tuple[FieldProblem, ...]:
        """What is wrong with which field, header, parameter or part of the path."""
        return tuple(map(_field, self.errors))


def read_problem(body: bytes | bytearray) -> Problem:
    """Return the problem in the body of an answer, however little it is."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return Problem()


def _field(error: dict[str, str]) -> FieldProblem:
    """Read ``{"pointer": "/to", …}`` or, not of a body, ``{"query": "limit", …}``."""
    where = " ".join(f"{k} {v}" for k, v in error.items() if k != "problem")
    if "pointer" in error:
        where = error["pointer"] or "the body"
    return FieldProblem(where, error.get("problem", ""))
