"""
`streamer backup` and `streamer restore`: the embedded store in one file.

Knows the data directory of the settings, and how a store is started to see whether it
can be loaded.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .privacy import read_list, replay
from .settings import (
    config_option,
    data_dir_option,
    embedded_password,
    locate_store,
    resolve,
    run,
    store_memory,
    temporary_dir,
)

if TYPE_CHECKING:
    from ..config import Config
    from ..store.server.backup import Backup

__all__ = ["backup", "restore"]

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXTERNAL = (
    "{} is for the embedded store; back up an external store with its own means, such "
    "as BGSAVE or the snapshots of a managed one"
)


@click.command()
@click.argument("target", metavar="FILE", type=_FILE)
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Whether to load the backup into a store of its own. Default: yes.",
)
@data_dir_option
@config_option
def backup(target: Path, verify: bool, file: str | None, data_dir: str | None) -> None:
    """
    Write the embedded store to a new FILE, while it runs.

    FILE has everything that was acknowledged before the command began, and the secrets
    of all apps: only its owner may read it. A name that ends in .gz compresses it.
    """
    config = _embedded(file, data_dir, "backup")
    run(_backup(locate_store(config), target, verify))


@click.command()
@click.argument("archive", metavar="FILE", type=_FILE)
@click.option(
    "--erasures",
    "erasures",
    type=_FILE,
    metavar="LIST",
    help="List of erased players, from `streamer erasures`. Default: the one in the "
    "data directory, if it is there.",
)
@data_dir_option
@config_option
def restore(
    archive: Path, erasures: Path | None, file: str | None, data_dir: str | None
) -> None:
    """
    Put a backup into a data directory that has no store.

    Notifications that were sent after the backup are gone; streams that had received
    them are told by a `gap`. Players who were erased after the backup are erased again,
    by the list of erasures: the server repeats it beside its store, as
    erasures-NAMESPACE.jsonl. Keep the newest one elsewhere, too.
    """
    config = _embedded(file, data_dir, "restore")
    if not archive.exists():
        raise click.ClickException(f"there is no file {archive}")
    target = Path(config.data_dir).expanduser().absolute()
    run(_restore(config, target, archive, erasures))


def _embedded(file: str | None, data_dir: str | None, command: str) -> Config:
    config = resolve(file, data_dir=data_dir).config
    if config.redis:
        raise click.ClickException(_EXTERNAL.format(command))
    return config


async def _backup(config: Config, target: Path, verify: bool) -> None:
    from ..store.server.backup import restore_backup, write_backup

    about = write_backup(Path(config.data_dir), target)
    click.echo(f"wrote {target}: {_describe(about)}")
    if not verify:
        return
    with tempfile.TemporaryDirectory(dir=temporary_dir(), prefix="streamer-") as folder:
        restore_backup(target, Path(folder))
        keys = await _load(Path(folder), config, password="")
    click.echo(f"verified: a store loads it, with {keys} keys")


async def _restore(
    config: Config, data_dir: Path, archive: Path, erasures: Path | None
) -> None:
    from msgspec.structs import replace

    from ..store.privacy.files import list_path
    from ..store.server.backup import restore_backup
    from ..store.server.directory import drop_lock, take_lock

    if erasures is not None:
        read_list(erasures)  # Before anything is restored.

    lock = await take_lock(data_dir, temporary=True)
    try:
        about = restore_backup(archive, data_dir)
    finally:
        drop_lock(lock)
    click.echo(f"restored {archive} to {data_dir}: {_describe(about)}")
    listed = erasures or list_path(data_dir, config.namespace)
    if erasures is not None or listed.exists():
        again = await replay(replace(config, data_dir=str(data_dir)), listed)
        click.echo(f"erased {again} players again, by {listed}")
    else:
        click.echo(
            f"there is no list of erasures at {listed}: players who were erased after "
            "the backup are back. With a list: streamer erasures --replay LIST",
            err=True,
        )
    keys = await _load(data_dir, config, password=embedded_password(config))
    click.echo(f"verified: a store loads it, with {keys} keys")


async def _load(data_dir: Path, config: Config, *, password: str) -> int:
    """Start a store on a directory; return its number of keys."""
    from ..store.client.connection import RedisConnection
    from ..store.server.embedded import Embedded

    store = await Embedded.start(
        data_dir, memory=store_memory(config), password=password, temporary=True
    )
    try:
        redis = RedisConnection(store.url, name="streamer-cli")
        try:
            return int(await redis.call("DBSIZE"))
        finally:
            await redis.close()
    finally:
        await store.stop()


def _describe(about: Backup) -> str:
    taken = datetime.fromtimestamp(about.taken_at_ms / 1_000, UTC)
    return (
        f"{about.bytes:,} bytes as of {taken:%Y-%m-%d %H:%M:%S} UTC, by streamer "
        f"{about.version}"
    )
