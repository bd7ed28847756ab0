"""
`streamer app quota`: what an app may use, from a shell.

Knows how a quota is written on a command line. Works beside running servers, where it
counts within seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .names import app_name, open_apps
from .settings import resolve, run, store_options

if TYPE_CHECKING:
    from ..config import Config
    from ..core.quotas import QuotaOverrides
    from ..model import App

__all__ = ["quota"]

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT: Final = "default"

_NAMES: Final = {
    "publishes_per_s": "Notifications per second, counted once for each inbox.",
    "bytes_per_day": "Bytes stored per day, counted once for each inbox.",
    "players": "Players that have an inbox.",
    "pending_schedules": "Schedules that are not due yet.",
}


class Most(click.ParamType[int | str, int | str]):
    """A whole number, 0 for no limit; or ``default`` for what the settings say."""

    name = "n|default"

    def convert(
        self,
        value: int | str,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int | str:
        from ..core.quotas import QUOTA_MAX

        text = str(value)
        if text == DEFAULT:
            return DEFAULT
        if text.isascii() and text.isdecimal() and int(text[:20]) <= QUOTA_MAX:
            return int(text)
        self.fail(
            f"{value!r} is neither a whole number from 0 to {QUOTA_MAX} nor {DEFAULT}",
            param,
            ctx,
        )


def quota_options(command: Command) -> Command:
    """Give a command an option for each quota."""
    for name, meaning in reversed(_NAMES.items()):
        flag = "--" + name.replace("_", "-")
        command = click.option(flag, name, type=Most(), help=meaning)(command)
    return command


@click.command()
@click.argument("name")
@quota_options
@store_options
def quota(
    name: str,
    publishes_per_s: int | str | None,
    bytes_per_day: int | str | None,
    players: int | str | None,
    pending_schedules: int | str | None,
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Show the quotas of the app NAME, or change them.

    0 means unlimited; "default" means the value in the settings of the nodes
    (STREAMER_PLAYERS_MAX, …). Running nodes apply a change within 5 s.
    """
    values = (publishes_per_s, bytes_per_day, players, pending_schedules)
    asked = zip(_NAMES, values, strict=True)
    given = {which: value for which, value in asked if value is not None}
    config = resolve(file, **flags).config
    quotas = run(_change(config, app_name(name), given))
    for which in _NAMES:
        most = getattr(quotas, which)
        click.echo(f"{which} {DEFAULT if most is None else most or 'unlimited'}")


async def _change(
    config: Config, name: App, given: dict[str, int | str]
) -> QuotaOverrides:
    from msgspec.structs import replace

    from ..errors import NotFound

    changes = {
        which: None if value == DEFAULT else value for which, value in given.items()
    }
    async with open_apps(config) as apps:
        if changes:
            record = await apps.update(
                name,
                lambda seen: replace(seen, quotas=replace(seen.quotas, **changes)),
            )
            return record.quotas
        found = await apps.get(name)
    if found is None:
        raise NotFound(f"the app {name}")
    return found.quotas
