"""
`streamer export`, `erase` and `erasures`: prints or removes a player, and removes what
a restored backup brings back.

Knows how a command asks for confirmation, and the file of the list of erasures. Works
while servers run.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from .names import Audited, app_name, open_audited, player_name, user
from .settings import locate_store, resolve, run, store_options

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App, Player
    from ..service.privacy.erasure import Erased, Erasing
    from ..service.privacy.export import Exporting
    from ..store.privacy.erasures import ErasureList

__all__ = ["erase", "erasures", "export", "read_list", "replay"]

_REWRITTEN = "the store has rewritten its log: its files have nothing of the player"
_EXTERNAL = (
    "the store is external: its append-only file has the player until it is rewritten "
    "(BGREWRITEAOF), replicas and snapshots until they are replaced"
)


@click.command()
@click.argument("player", metavar="PLAYER")
@click.option("--app", "app", required=True, metavar="NAME", help="App of the player.")
@click.option("--reason", default="", help="Why, for the audit log.")
@store_options
def export(
    player: str, app: str, reason: str, file: str | None, **flags: str | None
) -> None:
    """
    Print everything that is stored of PLAYER (GDPR, article 15), as JSON lines.

    Notifications with marks and receipts, topics, mutes, connections, devices,
    schedules, cards, tickets, what the audit log says. The last line has the kind
    `end`.
    """
    name, of_player = app_name(app), player_name(player)
    run(_export(resolve(file, **flags).config, name, of_player, reason))


@click.command()
@click.argument("player", metavar="PLAYER")
@click.option("--app", "app", required=True, metavar="NAME", help="App of the player.")
@click.option("--yes", is_flag=True, help="Do not ask for the name once more.")
@click.option("--reason", default="", help="Why, for the audit log.")
@store_options
def erase(
    player: str,
    app: str,
    yes: bool,
    reason: str,
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Erase PLAYER with everything that is stored of it (GDPR, article 17).

    Inbox, marks, topics, mutes, schedules, cards, devices, tickets. Its tokens are
    revoked and its streams end. Messages to topics and to everyone stay. There is no
    way back but a backup. An erasure that failed half way is completed by a server, or
    by the same command.
    """
    name, of_player = app_name(app), player_name(player)
    config = resolve(file, **flags).config
    if not yes:
        typed = click.prompt(
            f"This erases the player {player} of the app {app} for good. Type the "
            "player's name to confirm",
            default="",
            show_default=False,
        )
        if typed != player:
            raise click.ClickException("nothing was erased: that is another name")
    erased = run(_erase(config, name, of_player, reason))
    counts = ", ".join(f"{count} {what}" for what, count in erased.removed.items())
    click.echo(f"erased player {player}: {counts or 'nothing was stored'}")
    click.echo(_REWRITTEN if erased.in_files else _EXTERNAL, err=not erased.in_files)


@click.command()
@click.option(
    "--replay",
    "listed",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="LIST",
    help="Erase the players of this list again, after an older backup was restored.",
)
@store_options
def erasures(listed: Path | None, file: str | None, **flags: str | None) -> None:
    """
    Print the list of erased players, as JSON lines, or repeat one.

    It has hashes in place of names, and their key first: keep it as you keep backups,
    and apart from them. After a backup of an external store was restored, --replay
    erases the players again who were erased since.
    """
    config = resolve(file, **flags).config
    if listed is None:
        click.echo(run(_list(config)), nl=False)
        return
    again = run(replay(config, listed))
    click.echo(f"erased {again} players again")


def read_list(path: Path) -> ErasureList:
    """Return the list in a file; one that cannot be read ends the command."""
    from ..store.privacy.erasures import parse_list

    try:
        return parse_list(path.read_bytes())
    except OSError as exc:
        raise click.ClickException(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise click.ClickException(f"{path} is no list of erasures: {exc}") from exc


async def replay(config: Config, path: Path) -> int:
    """Erase the players of a list again; return how many the store had."""
    listed = read_list(path)
    async with _opened(config) as opened:
        return await opened.erasing.replay(listed)


class _Opened(NamedTuple):
    audited: Audited
    erasing: Erasing
    exporting: Exporting


@contextlib.asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[_Opened]:
    from ..service.inboxes.audiences import PlayerAudiences
    from ..service.privacy.erasure import Erasing
    from ..service.privacy.export import Exporting
    from ..store.logs.inbox import Inbox
    from ..store.logs.mutes import Mutes
    from ..store.logs.receipts import ReceiptStore
    from ..store.logs.settings import DAY_MS, LogSettings
    from ..store.logs.views import Views
    from ..store.privacy.traces import Traces
    from ..store.scheduling.timetable import Timetable

    if not config.redis:
        config = locate_store(config)
    settings = LogSettings(
        retention_ms=config.retention_days * DAY_MS, entries_max=config.entries_max
    )
    async with open_audited(config) as audited:
        redis = audited.redis
        inbox = Inbox(redis, settings)
        audiences = PlayerAudiences(Views(redis, settings), inbox)
        yield _Opened(
            audited,
            Erasing(
                redis,
                audited.apps,
                audiences,
                audited.audit,
                data_dir=None if config.redis else Path(config.data_dir),
            ),
            Exporting(
                audited.apps,
                inbox,
                ReceiptStore(redis, settings),
                audiences,
                Mutes(redis),
                Timetable(redis, settings),
                Traces(redis, settings),
                audited.audit,
            ),
        )


async def _erase(config: Config, app: App, player: Player, reason: str) -> Erased:
    from ..model import Log

    async with _opened(config) as opened:
        erased = await opened.erasing.erase_for(user(), Log(app, player), reason=reason)
        await opened.erasing.complete_all()
        return erased


async def _export(config: Config, app: App, player: Player, reason: str) -> None:
    import msgspec

    from ..model import Log

    async with _opened(config) as opened:
        await opened.audited.require_app(app)
        items = opened.exporting.export_for(user(), Log(app, player), reason=reason)
        async for item in items:
            click.echo(msgspec.json.encode(item))


async def _list(config: Config) -> bytes:
    from ..store.privacy.erasures import print_list

    async with _opened(config) as opened:
        return print_list(await opened.erasing.erasures.listed())
