"""
`streamer audit`: shows the audit log of an app, or of the deployment.

Knows how an entry looks on a terminal. Reasons come from other people, so control
characters are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .names import app_name, open_audited, player_name
from .settings import resolve, run, store_options

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App, Player
    from ..store.privacy.audit_log import AuditRecord

__all__ = ["audit"]


@click.command()
@click.option(
    "--app",
    "app",
    metavar="NAME",
    help="App whose log to show. Default: the creation and deletion of apps.",
)
@click.option("--player", metavar="NAME", help="Show only what was done to a player.")
@click.option("--action", metavar="ACTION", help="Show only this action.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="Maximum number of entries.",
)
@click.option("--before", metavar="ID", help="Show only what precedes this entry.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
@store_options
def audit(
    app: str | None,
    player: str | None,
    action: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Show what was done to an app and its players, newest first.

    A player appears as a hash, or by name if the setting log_players says so. --player
    finds the entries of a player in both cases.
    """
    from ..store.privacy.audit_log import is_audit_id

    if player and not app:
        raise click.UsageError("--player needs --app, the app of the player")
    if before and not is_audit_id(before):
        raise click.UsageError(f"--before {before!r} is not the id of an entry")
    name = app_name(app) if app else None
    of_player = player_name(player) if player else None
    config = resolve(file, **flags).config
    records = run(_read(config, name, of_player, action or "", limit, before or ""))
    for record in records:
        click.echo(json.dumps(_members(record)) if as_json else _line(record))
    if not records:
        click.echo("no entries", err=True)


def _members(record: AuditRecord) -> dict[str, Any]:
    import msgspec

    from ..model import iso_time

    entry = msgspec.to_builtins(record.entry)
    entry.setdefault("outcome", "done")
    return {"id": record.id, "at": iso_time(record.at_ms), **entry}


def _line(record: AuditRecord) -> str:
    """Return an entry as a line; what is not printable is escaped."""
    from ..model import iso_time

    entry = record.entry
    who = f"{entry.by} ({entry.by_name})" if entry.by_name else entry.by
    player = entry.player_name or entry.player
    parts = [
        iso_time(record.at_ms)[:19].replace("T", " "),
        entry.action,
        entry.outcome,
        f"by {who}",
        entry.target,
        f"player {player}" if player else "",
        f"reason {entry.reason!r}" if entry.reason else "",
        f"request {entry.request_id}" if entry.request_id else "",
        json.dumps(entry.details) if entry.details else "",
    ]
    text = "  ".join(part for part in parts if part)
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


async def _read(
    config: Config,
    app: App | None,
    player: Player | None,
    action: str,
    limit: int,
    before: str,
) -> Sequence[AuditRecord]:
    async with open_audited(config) as audited:
        if app is not None:
            await audited.require_app(app)
        return await audited.audit.read(
            app, before=before, limit=limit, player=player, action=action
        )
