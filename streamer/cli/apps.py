"""
`streamer app`: manages apps and the issuers whose tokens they accept.

Knows key files and the options of a foreign issuer. Works while servers run; they apply
a change within seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .names import Duration, app_name, open_apps, open_audited
from .quotas import quota
from .settings import resolve, run, store_options

if TYPE_CHECKING:
    from ..config import Config
    from ..core.access.apps import AppRecord
    from ..model import App

__all__ = ["app"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

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
            "--default-permission",
            "default_permissions",
            metavar="PERMISSION",
            multiple=True,
            help="Permission of tokens without a claim with permissions; repeatable; "
            "`none` for none. Default: such tokens are refused.",
        ),
        click.option(
            "--claim",
            "claims",
            metavar="WHAT=POINTER",
            multiple=True,
            help="Where in a token the player, the permissions or the topics are, as a "
            "JSON pointer (RFC 6901); repeatable: player=/sub, "
            "permissions=/realm_access/roles. `WHAT=default` is the standard claim.",
        ),
        click.option(
            "--audience",
            "audiences",
            metavar="TEXT",
            multiple=True,
            help="Audience of the tokens (claim `aud`), of which a token has one; "
            "repeatable. Default: the app's name.",
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
def create(name: str, file: str | None, **flags: Any) -> None:
    """
    Create the app NAME.

    NAME has 1 to 64 letters, digits, "_" or "-".
    """
    settings = _token_settings(flags)
    config = resolve(file, **flags).config
    run(_create(config, app_name(name), settings))
    click.echo(f"created app {name}; to create a key: streamer key --app {name}")


@app.command()
@click.argument("name")
@token_options
@store_options
def update(name: str, file: str | None, **flags: Any) -> None:
    """
    Change which tokens the app NAME accepts.

    Options that are left out keep their values. Streams whose tokens are no longer
    accepted, or are read in another way, end within 30 s.
    """
    changes = _token_settings(flags)
    config = resolve(file, **flags).config
    run(_update(config, app_name(name), changes))
    click.echo(f"updated app {name}")


@app.command()
@click.argument("name")
@json_option
@store_options
def show(name: str, as_json: bool, file: str | None, **flags: str | None) -> None:
    """Show which tokens the app NAME accepts."""
    record = run(_get(resolve(file, **flags).config, app_name(name)))
    if as_json:
        click.echo(json.dumps(_members(record), indent=2))
        return
    for label, value in _facts(record):
        click.echo(f"{label:<20} {value}")


@app.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for the name once more.")
@click.option("--reason", default="", help="Why, for the audit log.")
@store_options
def delete(
    name: str, yes: bool, reason: str, file: str | None, **flags: str | None
) -> None:
    """
    Delete the app NAME with everything that is stored for it.

    Its players, notifications, topics, schedules, campaigns, keys and its audit log.
    There is no way back but a backup. Requests are rejected within 5 s, and streams end
    within 30 s. A deletion that failed half way is completed by the same command.
    """
    checked = app_name(name)
    config = resolve(file, **flags).config
    if not yes:
        typed = click.prompt(
            f"This deletes the app {name} for good. Type its name to confirm",
            default="",
            show_default=False,
        )
        if typed != name:
            raise click.ClickException("nothing was deleted: that is another name")
    run(_delete(config, checked, reason))
    click.echo(f"deleted app {name}")


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
@json_option
@store_options
def list_apps(as_json: bool, file: str | None, **flags: str | None) -> None:
    """List the names of all apps, one per line."""
    records = run(_list(resolve(file, **flags).config))
    if as_json:
        click.echo(json.dumps(list(map(_members, records)), indent=2))
        return
    for record in records:
        click.echo(record.name)


def _token_settings(flags: dict[str, Any]) -> dict[str, Any]:
    """Take the token options from `flags`; return the members that they set."""
    key_set, public_key = flags.pop("key_set"), flags.pop("public_key")
    audiences, claims = flags.pop("audiences"), flags.pop("claims")
    permissions = flags.pop("default_permissions")
    members = {
        "issuer": flags.pop("issuer"),
        "algorithm": flags.pop("algorithm"),
        "key_set": _location(key_set) if key_set else None,
        "public_keys": _public_keys(public_key) if public_key else None,
        "claims": _pointers(claims) if claims else None,
    }
    if audiences:
        members["audience"], *others = map(_audience, audiences)
        members["other_audiences"] = tuple(others)
    if permissions:
        members["default_permissions"] = _default_permissions(permissions)
    return {name: value for name, value in members.items() if value is not None}


def _audience(text: str) -> str:
    if any(char in ", " for char in text):
        raise click.UsageError(
            f"--audience {text!r}: an audience has neither commas nor spaces; repeat "
            "the option for each audience"
        )
    return text


def _pointers(options: Sequence[str]) -> dict[str, str]:
    """Return the pointers of ``--claim``, an empty one for the standard claim."""
    from ..core.access.claims import TARGETS, pointer_problem

    pointers: dict[str, str] = {}
    for option in options:
        target, is_pair, pointer = option.partition("=")
        if not is_pair or target not in TARGETS:
            raise click.UsageError(
                f"--claim {option!r} is not WHAT=POINTER: WHAT is "
                f"{', '.join(TARGETS[:-1])} or {TARGETS[-1]}, such as player=/sub"
            )
        if target in pointers:
            raise click.UsageError(f"--claim {target} is given twice: leave out one")
        pointer = "" if pointer == "default" else pointer or "/"
        if pointer and (problem := pointer_problem(pointer)):
            raise click.UsageError(f"--claim {option!r}: {problem}")
        pointers[target] = pointer
    return pointers


def _default_permissions(options: Sequence[str]) -> tuple[str, ...]:
    if "none" not in options:
        return tuple(dict.fromkeys(options))
    if len(options) > 1:
        raise click.UsageError(
            "--default-permission none excludes other permissions: leave out one"
        )
    return ()


def _members(record: AppRecord) -> dict[str, Any]:
    """Return an app as it is printed, without public keys and secrets."""
    from ..core.access.claims import TARGETS
    from ..model import iso_time

    return {
        "name": record.name,
        "created_at": iso_time(record.created_at_ms),
        "issuer": record.issuer,
        "audiences": list(record.expected_audiences),
        "algorithm": record.algorithm,
        "key_set": record.key_set or None,
        "claims": {target: record.claims.of(target) for target in TARGETS},
        "default_permissions": list(record.default_permissions),
    }


def _facts(record: AppRecord) -> Iterator[tuple[str, str]]:
    """Yield the lines of `streamer app show`."""
    members = _members(record)
    yield "created", members["created_at"]
    yield "issuer", members["issuer"]
    yield "audience", ", ".join(members["audiences"])
    yield "algorithm", members["algorithm"]
    if record.algorithm == "HS256":
        yield "keys", f"the app's secret: streamer app secret {record.name}"
    else:
        yield "keys", members["key_set"] or "public keys in the app's record"
    for target, pointer in members["claims"].items():
        yield f"claim {target}", pointer
    yield "default permissions", ", ".join(record.default_permissions) or "none"


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


async def _create(config: Config, name: App, settings: dict[str, Any]) -> None:
    from ..store.access.apps import AppExists, AudienceTaken

    async with open_audited(config) as audited:
        try:
            async with audited.recorded(None, "app.create", target=f"app:{name}"):
                record = await audited.apps.create(name, **settings)
        except (AppExists, AudienceTaken) as exc:
            raise click.ClickException(str(exc)) from exc
        except ValueError as exc:
            raise click.UsageError(str(exc)) from exc
    await _check_key_set(record)


async def _update(config: Config, name: App, changes: dict[str, Any]) -> None:
    from ..store.access.apps import AudienceTaken

    async with open_audited(config) as audited:
        await audited.require_app(name)
        try:
            async with audited.recorded(name, "app.update") as details:
                details["members"] = sorted(changes)
                record = await audited.apps.change_tokens(name, changes)
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
    async with open_audited(config) as audited:
        await audited.require_app(name)
        try:
            async with audited.recorded(name, "app.rotate") as details:
                details["grace_s"] = grace_s
                return await audited.apps.rotate(name, grace_s=grace_s)
        except ValueError as exc:
            raise click.ClickException(str(exc)) from exc


async def _delete(config: Config, name: App, reason: str) -> None:
    from ..service.access.authenticator import RECORD_TTL_S
    from ..store.access.removal import is_removing, remove_app

    async with open_audited(config) as audited:
        if not await is_removing(audited.redis, name):
            await audited.require_app(name)
        async with audited.recorded(
            None, "app.delete", target=f"app:{name}", reason=reason
        ):
            # Nodes keep an app's record for that long.
            await remove_app(audited.redis, name, settle_s=2 * RECORD_TTL_S)


async def _get(config: Config, name: App) -> AppRecord:
    from ..errors import NotFound

    async with open_apps(config) as apps:
        record = await apps.get(name)
    if record is None:
        raise NotFound(f"the app {name}")
    return record


async def _list(config: Config) -> Sequence[AppRecord]:
    async with open_apps(config) as apps:
        return await apps.list()
