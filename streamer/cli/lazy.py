"""
Groups of commands that are imported when they are called.

Knows how the help of such a group is printed without importing its commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group that loads a command on demand."""

    summaries: ClassVar[Mapping[str, str]]
    """The names of the commands, and their help in one line."""

    def load(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command of a name, None if there is none."""
        raise NotImplementedError

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.load(ctx, cmd_name)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))
