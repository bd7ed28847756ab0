"""
Arguments that several commands share: names of apps and players, durations.

Knows click and the error messages for wrong names. Opens the apps of a store.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

from .settings import open_store

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App, Player
    from ..store.access.apps import Apps

__all__ = ["Duration", "app_name", "open_apps", "player_name"]

_UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd]?)")


class Duration(click.ParamType[int, str | int]):
    """A number of seconds, or a number with one of the units s, m, h and d."""

    name = "duration"

    def convert(
        self,
        value: str | int,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(
                f"{value!r} is not a duration, such as 90, 30m or 24h", param, ctx
            )
        return int(match[1]) * _UNIT_S[match[2]]


@asynccontextmanager
async def open_apps(config: Config) -> AsyncIterator[Apps]:
    """Open the apps of the configured store."""
    from ..store.access.apps import Apps

    async with open_store(config) as redis:
        yield Apps(redis)


def app_name(text: str) -> App:
    """Return the name of an app; an invalid name ends the command."""
    from ..model import parse_app

    name = parse_app(text)
    if name is None:
        raise click.UsageError(
            f"{text!r} is not a valid app name: 1 to 64 letters, digits, _ or -"
        )
    return name


def player_name(text: str) -> Player:
    """Return the name of a player; an invalid name ends the command."""
    from ..model import parse_player

    player = parse_player(text)
    if player is None:
        raise click.UsageError(
            f"{text!r} is not a valid player: 1 to 128 characters, no control "
            "characters, and not 'me'"
        )
    return player
