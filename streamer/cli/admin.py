"""
`streamer app`, `key` and `token`: who may use the server, from a shell.

Knows names, scopes and permissions as they are typed, and that the last line of stdout
is the secret alone, so that ``$(streamer key … | tail -n1)`` works; the rest goes to
stderr. Works beside a running server, where everything counts at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

from .settings import open_link, resolve, run, store_options, store_url

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App, Player
    from ..store.apps import Apps

__all__ = ["app", "key", "token"]

_UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,9})([smhd]?)")


class _Duration(click.ParamType[int, str | int]):
    """Seconds, or a number with one of the units s, m, h, d."""

    name = "duration"

    def convert(
        self,
        value: str | int,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no duration such as 90, 30m or 24h", param, ctx)
        return int(match[1]) * _UNIT_S[match[2]]


@click.group()
def app() -> None:
    """Make and list apps; an app is a game with players of its own."""


@app.command()
@click.argument("name")
@store_options
def create(name: str, file: str | None, **flags: str | None) -> None:
    """Make the app NAME: 1 to 64 letters, digits, "_" or "-"."""
    config = resolve(file, **flags).config
    run(_create(config, _app(name)))
    click.echo(f"made the app {name}; `streamer key --app {name}` makes it a key")


@app.command(name="list")
@store_options
def list_apps(file: str | None, **flags: str | None) -> None:
    """Print the names of all apps, a line each."""
    for name in run(_list(resolve(file, **flags).config)):
        click.echo(name)


@click.command()
@click.option("--app", "app_name", required=True, metavar="NAME", help="Its app.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="What the key may do; repeatable. Default: everything but admin.",
)
@store_options
def key(
    app_name: str, scopes: tuple[str, ...], file: str | None, **flags: str | None
) -> None:
    """
    Make a backend key and print it.

    It is shown this once: the store keeps its digest.
    """
    config = resolve(file, **flags).config
    click.echo(run(_add_key(config, _app(app_name), scopes)))


@click.command()
@click.option("--app", "app_name", required=True, metavar="NAME", help="Its app.")
@click.option("--player", required=True, help="Whose token it is.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    help="What the player may do; repeatable. Default: notification:player:self:*.",
)
@click.option(
    "--ttl", type=_Duration(), default="24h", show_default=True, help="Good for."
)
@store_options
def token(
    app_name: str,
    player: str,
    permissions: tuple[str, ...],
    ttl: int,
    file: str | None,
    **flags: str | None,
) -> None:
    """Make a token for a player and print it."""
    config = resolve(file, **flags).config
    click.echo(run(_mint(config, _app(app_name), _player(player), permissions, ttl)))


async def _create(config: Config, name: App) -> None:
    from ..store.apps import AppExists

    async with _apps(config) as apps:
        try:
            await apps.create(name)
        except AppExists as exc:
            raise click.ClickException(str(exc)) from exc


async def _list(config: Config) -> list[str]:
    async with _apps(config) as apps:
        return [record.name for record in await apps.list()]


async def _add_key(config: Config, name: App, scopes: tuple[str, ...]) -> str:
    async with _apps(config) as apps:
        try:
            return await apps.add_key(name, scopes)
        except ValueError as exc:
            raise click.BadParameter(str(exc), param_hint="--scope") from exc


async def _mint(
    config: Config,
    name: App,
    player: Player,
    permissions: tuple[str, ...],
    ttl_s: int,
) -> str:
    from ..core.tokens import mint
    from ..errors import NotFound

    async with _apps(config) as apps:
        record = await apps.get(name)
    if record is None:
        raise NotFound(f"the app {name}")
    try:
        return mint(
            record,
            player,
            permissions=permissions,
            ttl_s=ttl_s,
            now_s=int(time.time()),
        )
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


@asynccontextmanager
async def _apps(config: Config) -> AsyncIterator[Apps]:
    from ..store.apps import Apps

    async with store_url(config) as url, open_link(url) as link:
        yield Apps(link)


def _app(text: str) -> App:
    from ..model import parse_app

    name = parse_app(text)
    if name is None:
        raise click.UsageError(
            f"{text!r} is no name of an app: 1 to 64 letters, digits, _ or -"
        )
    return name


def _player(text: str) -> Player:
    from ..model import parse_player

    player = parse_player(text)
    if player is None:
        raise click.UsageError(
            f"{text!r} is no player: 1 to 128 characters without control characters, "
            "and not 'me'"
        )
    return player
