"""
`streamer app`: manages apps and the issuers whose tokens they accept.

Knows key files and the options of a foreign issuer. Works while servers run; they apply
a change within seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .names import Duration, app_name, open_apps
from .quotas import quota
from .settings import resolve, run, store_options

if TYPE_CHECKING:
    from ..config import Config
    from ..core.access.apps import AppRecord
    from ..model import App

__all__ = ["app"]

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def app() -> None:
    """
    Manage apps, their secrets and their quotas.

    Apps are isolated tenants: each is a game with its own players, keys and tokens.
    """


app.add_command(quota)


def token_options(command: Command) -> Command:
    """Add the options that say which tokens an app accepts."""
    for option in (
        click.option(
            "--audience",
            help="Audience of the tokens (claim `aud`). Default: the app's name.",
        ),
        click.option(
            "--public-key",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="File with the issuer's public keys, as PEM or JWK.",
        ),
        click.option(
            "--key-set",
            metavar="URL|FILE",
            help="Location of the issuer's JSON Web Key Set. Every node reads it.",
        ),
        click.option(
            "--algorithm",
            type=click.Choice(["HS256", "RS256", "ES256", "EdDSA"]),
            help="Signature algorithm. Default: HS256, with the app's own secret.",
        ),
        click.option(
            "--issuer",
            help="Issuer of the tokens (claim `iss`). Default: streamer.",
        ),
    ):
        command = option(command)
    return command


@app.command()
@click.argument("name")
@token_options
@store_options
def create(
    name: str,
    issuer: str | None,
    algorithm: str | None,
    key_set: str | None,
    public_key: Path | None,
    audience: str | None,
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Create the app NAME.

    NAME has 1 to 64 letters, digits, "_" or "-".
    """
    config = resolve(file, **flags).config
    settings = _token_settings(issuer, algorithm, key_set, public_key, audience)
    run(_create(config, app_name(name), settings))
    click.echo(f"created app {name}; to create a key: streamer key --app {name}")


@app.command()
@click.argument("name")
@token_options
@store_options
def update(
    name: str,
    issuer: str | None,
    algorithm: str | None,
    key_set: str | None,
    public_key: Path | None,
    audience: str | None,
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Change which tokens the app NAME accepts.

    Options that are left out keep their values. Streams whose tokens are no longer
    accepted end within 30 s.
    """
    config = resolve(file, **flags).config
    changes = _token_settings(issuer, algorithm, key_set, public_key, audience)
    run(_update(config, app_name(name), changes))
    click.echo(f"updated app {name}")


@app.command()
@click.argument("name")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the old secret stays valid. Use 0 if it has leaked.",
)
@store_options
def rotate(name: str, grace: int, file: str | None, **flags: str | None) -> None:
    """
    Replace the secret of the app NAME and print the new one.

    The format is that of `streamer app secret`.
    """
    record = run(_rotate(resolve(file, **flags).config, app_name(name), grace))
    click.echo(f"the old secret of app {name} stays valid for {grace} s", err=True)
    click.echo(_printed_secret(record))


@app.command()
@click.argument("name")
@store_options
def secret(name: str, file: str | None, **flags: str | None) -> None:
    """
    Print the HS256 secret of the app NAME, as base64url.

    A backend that has it can sign tokens itself: with the text as it is printed, or
    with the bytes that it stands for.
    """
    record = run(_get(resolve(file, **flags).config, app_name(name)))
    if record.algorithm != "HS256":
        raise click.ClickException(
            f"app {name} has no secret: {record.issuer} issues its tokens"
        )
    click.echo(_printed_secret(record))


@app.command(name="list")
@store_options
def list_apps(file: str | None, **flags: str | None) -> None:
    """List the names of all apps, one per line."""
    for name in run(_list(resolve(file, **flags).config)):
        click.echo(name)


def _token_settings(
    issuer: str | None,
    algorithm: str | None,
    key_set: str | None,
    public_key: Path | None,
    audience: str | None,
) -> dict[str, str]:
    """Return the members of an app's record that the options set."""
    members = {
        "issuer": issuer,
        "algorithm": algorithm,
        "key_set": _location(key_set) if key_set else None,
        "public_keys": _public_keys(public_key) if public_key else None,
        "audience": audience,
    }
    return {name: value for name, value in members.items() if value is not None}


def _location(text: str) -> str:
    return text if "://" in text else str(Path(text).expanduser().absolute())


def _public_keys(path: Path) -> str:
    from ..core.access.signatures import read_public_keys

    try:
        return read_public_keys(path.read_bytes())
    except OSError as exc:
        raise click.UsageError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise click.UsageError(f"cannot use {path}: {exc}") from exc


def _printed_secret(record: AppRecord) -> str:
    from ..core.access.signatures import print_secret

    return print_secret(record.secret)


async def _create(config: Config, name: App, settings: dict[str, str]) -> None:
    from ..store.access.apps import AppExists, AudienceTaken

    async with open_apps(config) as apps:
        try:
            record = await apps.create(name, **settings)
        except (AppExists, AudienceTaken) as exc:
            raise click.ClickException(str(exc)) from exc
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
    await _check_key_set(record)


async def _update(config: Config, name: App, changes: dict[str, str]) -> None:
    from ..store.access.apps import AudienceTaken

    async with open_apps(config) as apps:
        try:
            record = await apps.change_tokens(name, changes)
        except AudienceTaken as exc:
            raise click.ClickException(str(exc)) from exc
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
    await _check_key_set(record)


async def _check_key_set(record: AppRecord) -> None:
    """Warn if the key set cannot be read from here; a node may be able to."""
    if not record.key_set:
        return
    from ..core.access.signatures import parse_key_set
    from ..service.access.key_sets import KeySetUnavailable, fetch_key_set

    try:
        parse_key_set(await fetch_key_set(record.key_set))
    except (KeySetUnavailable, ValueError) as exc:
        click.echo(
            f"warning: cannot read the key set at {record.key_set} yet: {exc}", err=True
        )


async def _rotate(config: Config, name: App, grace_s: int) -> AppRecord:
    async with open_apps(config) as apps:
        try:
            return await apps.rotate(name, grace_s=grace_s)
        except ValueError as exc:
            raise click.ClickException(str(exc)) from exc


async def _get(config: Config, name: App) -> AppRecord:
    from ..errors import NotFound

    async with open_apps(config) as apps:
        record = await apps.get(name)
    if record is None:
        raise NotFound(f"the app {name}")
    return record


async def _list(config: Config) -> list[str]:
    async with open_apps(config) as apps:
        return [record.name for record in await apps.list()]
