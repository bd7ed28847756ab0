"""
The parameters of a query, read so that one response reports every problem.

Decides how problems are collected. Knows declared parameters. A surface with further
kinds of parameters subclasses `QueryFields` and adds a method for each kind.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import FieldError, Invalid
from .operation import IntParameter

__all__ = ["QueryFields"]


class QueryFields:
    """
    The fields of a query.

    An invalid field reads as its default; `done` raises. `problems` has the problems so
    far, in the order of reading.
    """

    def __init__(self, query: Mapping[str, str]) -> None:
        self.query = query
        self.problems: list[FieldError] = []

    def int(self, parameter: IntParameter) -> int:
        """Return the value of `parameter`."""
        try:
            return parameter.read(self.query)
        except Invalid as error:
            self.problems += error.errors
            return parameter.default

    def note(self, name: str, problem: str) -> None:
        """Add a problem with the field `name`."""
        self.problems.append(FieldError(("query", name), problem))

    def done(self) -> None:
        """Raise Invalid if there are problems."""
        if self.problems:
            raise Invalid(*self.problems)
