"""
`streamer trim`: frees memory of the store by removing old notifications.

For a store that is full or nearly full. Works while servers run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .names import Duration, app_name
from .settings import open_store, resolve, run, store_options

if TYPE_CHECKING:
    from ..config import Config
    from ..core.store_health import Finding
    from ..model import App
    from ..store.logs.trimming import Trimmed

__all__ = ["trim"]


@click.command()
@click.option(
    "--older-than",
    "age_s",
    type=Duration(),
    required=True,
    help="Age from which notifications are removed, for example 30d.",
)
@click.option(
    "--app",
    "app",
    metavar="NAME",
    help="Remove only notifications of this app. Default: all apps.",
)
@store_options
def trim(age_s: int, app: str | None, file: str | None, **flags: str | None) -> None:
    """
    Remove old notifications from all inboxes, to free memory of the store.

    They are gone as if `retention_days` had removed them. A full store accepts this.
    """
    name = app_name(app) if app else None
    config = resolve(file, **flags).config
    trimmed, memory = run(_trim(config, name, age_s))
    click.echo(
        f"removed {trimmed.entries} notifications from {trimmed.logs} inboxes; "
        f"{memory.text}"
    )
    if trimmed.refused:
        raise click.ClickException(
            f"{trimmed.refused} inboxes could not be trimmed: the log names them"
        )


async def _trim(config: Config, app: App | None, age_s: int) -> tuple[Trimmed, Finding]:
    from ..core.store_health import judge_memory
    from ..store.client.health import read_facts
    from ..store.logs.trimming import trim_logs

    async with open_store(config) as redis:
        before_us = (await redis.now_ms() - age_s * 1_000) * 1_000
        trimmed = await trim_logs(redis, before_us=before_us, app=app)
        facts = await read_facts(redis)
        return trimmed, judge_memory(facts.maxmemory, facts.counted_memory)
