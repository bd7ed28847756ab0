"""
Arguments that several commands share: names of apps and players, durations.

Knows click and the error messages for wrong names. Opens the apps of a store.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from .settings import open_store

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App, Player
    from ..service.privacy.audit import Action, Audit
    from ..store.access.apps import AppRecord, Apps
    from ..store.client.connection import RedisConnection

__all__ = [
    "Audited",
    "Duration",
    "Lifetime",
    "app_name",
    "open_apps",
    "open_audited",
    "player_name",
    "user",
]

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


class Audited(NamedTuple):
    """The apps of a store, and what records the operations of this command."""

    redis: RedisConnection
    apps: Apps
    audit: Audit

    async def require_app(self, name: App) -> AppRecord:
        """Return an app. Raises NotFound: a log is not begun for what is none."""
        from ..errors import NotFound

        record = await self.apps.get(name)
        if record is None:
            raise NotFound(f"the app {name}")
        return record

    def recorded(
        self,
        app: App | None,
        action: Action,
        *,
        target: str = "",
        player: Player | None = None,
        reason: str = "",
    ) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Return `Audit.recorded` for an operation of the user of this machine."""
        return self.audit.recorded(
            app, user(), action, target=target, player=player, reason=reason
        )


@asynccontextmanager
async def open_audited(config: Config) -> AsyncIterator[Audited]:
    """Open the apps and the audit logs of the configured store."""
    from ..service.privacy.audit import Audit
    from ..store.access.apps import Apps

    async with open_store(config) as redis:
        apps = Apps(redis)
        names_players = config.log_players == "name"
        yield Audited(redis, apps, Audit(redis, apps, names_players=names_players))


def user() -> str:
    """Return how the audit log names the user of this machine."""
    try:
        return f"cli {getpass.getuser()}"
    except (KeyError, OSError):
        # A container may run as a user that the system does not know.
        return f"cli uid {os.getuid()}"


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
