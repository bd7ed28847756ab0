"""
Arguments that several commands share: names of apps and players, durations.

Knows click and the error messages for wrong names. Opens the apps of a store.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from .settings import open_store

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App, Player
    from ..store.access.apps import Apps

__all__ = ["Duration", "Lifetime", "app_name", "open_apps", "player_name"]

_UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd]?)", re.ASCII)

LIFETIME_MAX_S: Final = 3_650 * 86_400
"""Ten years; what lasts longer should not end."""


class Duration(click.ParamType[int, str | int]):
    """A number of seconds, or a number with one of the units s, m, h and d."""

    name = "duration"

    def convert(
        self,
        value: str | int,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        seconds = _duration_s(str(value))
        if seconds is None:
            self.fail(
                f"{value!r} is not a duration, such as 90, 30m or 24h", param, ctx
            )
        return seconds


class Lifetime(click.ParamType[int, str | int]):
    """A duration, or a time with a zone in the future, as seconds from now."""

    name = "lifetime"

    def convert(
        self,
        value: str | int,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        seconds = _duration_s(str(value))
        if seconds is None:
            seconds = self._until(str(value), param, ctx)
        if not 0 < seconds <= LIFETIME_MAX_S:
            limit = f"at most {LIFETIME_MAX_S // 86_400:,} days"
            self.fail(f"{value!r} must be in the future, by {limit}", param, ctx)
        return seconds

    def _until(
        self, text: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        try:
            until = datetime.fromisoformat(text)
        except ValueError:
            until = None
        if until is None or until.tzinfo is None:
            self.fail(
                f"{text!r} is neither a duration, such as 24h or 90d, nor a time with "
                "a zone, such as 2030-01-31T12:00:00Z",
                param,
                ctx,
            )
        return int((until - datetime.now(UTC)).total_seconds())


def _duration_s(text: str) -> int | None:
    """Return the seconds of a duration, None if the text is none."""
    match = _DURATION.fullmatch(text)
    return int(match[1]) * _UNIT_S[match[2]] if match else None


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
            f"{text!r} is not a valid player: 1 to 128 characters, none of them "
            "invisible, no white space at the ends, and not 'me', '.' or '..'"
        )
    return player
