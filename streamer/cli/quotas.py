"""
`streamer app quota`: shows and changes the quotas of an app.

Knows quotas as options. Works while servers run; they apply a change within seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .names import app_name, open_audited
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


class QuotaValue(click.ParamType[int | str, int | str]):
    """A whole number, or ``default`` for the value in the settings; 0 is unlimited."""

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
    """Add an option for each quota."""
    for name, meaning in reversed(_NAMES.items()):
        flag = "--" + name.replace("_", "-")
        command = click.option(flag, name, type=QuotaValue(), help=meaning)(command)
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
    options = zip(_NAMES, values, strict=True)
    changes = {
        quota_name: None if value == DEFAULT else value
        for quota_name, value in options
        if value is not None
    }
    config = resolve(file, **flags).config
    quotas = run(_change(config, app_name(name), changes))
    for quota_name in _NAMES:
        maximum = getattr(quotas, quota_name)
        text = DEFAULT if maximum is None else maximum or "unlimited"
        click.echo(f"{quota_name} {text}")


async def _change(
    config: Config, name: App, changes: dict[str, int | str | None]
) -> QuotaOverrides:
    from msgspec.structs import replace

    from ..errors import NotFound

    async with open_audited(config) as audited:
        record = await audited.apps.get(name)
        if record is None:
            raise NotFound(f"the app {name}")
        if not changes:
            return record.quotas
        async with audited.recorded(name, "app.quota") as details:
            details.update(changes)
            changed = await audited.apps.update(
                name,
                lambda app: replace(app, quotas=replace(app.quotas, **changes)),
            )
            return changed.quotas
