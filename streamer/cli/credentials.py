"""
`streamer key`, `token`, `logout`: backend keys, player tokens, people in the console.

Knows scopes and permissions as options. The last line of stdout is the secret alone, so
that ``$(streamer key … | tail -n1)`` works; everything else goes to stderr. Works while
servers run: they accept new credentials at once and reject revoked ones within seconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from .names import Duration, Lifetime, app_name, open_apps, open_audited, player_name
from .settings import resolve, run, store_options
from .tables import table

if TYPE_CHECKING:
    from ..config import Config
    from ..core.access.roles import Role
    from ..model import App, Player
    from ..store.access.apps import KeyRecord

__all__ = ["key", "logout", "token"]

KEY_NAME_CHARS_MAX: Final = 64

_COLUMNS: Final = ("ID", "APP", "NAME", "CREATED", "EXPIRES", "LAST USED", "SCOPES")


@click.group(invoke_without_command=True)
@click.option("--app", "app", metavar="NAME", help="App that the key belongs to.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="Scope to grant; repeatable. Default: all but those of administrators.",
)
@store_options
def key(
    app: str | None,
    scopes: tuple[str, ...],
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Create a backend key that never expires, and print it.

    The key is shown only once: the store keeps its digest. `streamer key create` gives
    it a name and an end.
    """
    if _has_subcommand():
        return
    name = app_name(_required(app, "--app"))
    config = resolve(file, **flags).config
    click.echo(run(_add_key(config, name, scopes)))


@key.command()
@click.option(
    "--app", "app", required=True, metavar="NAME", help="App that the key belongs to."
)
@click.option("--name", default="", help="Name of the key in lists.")
@click.option(
    "--expires",
    "lifetime_s",
    type=Lifetime(),
    metavar="TIME",
    help="When the key expires: in 24h or 90d, or at 2030-01-31T12:00:00Z. Default: "
    "never.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="Scope to grant; repeatable. Default: all but those of administrators, none "
    "with --role.",
)
@click.option(
    "--role",
    type=click.Choice(["viewer", "support", "operator"]),
    help="Role in the console of the app. The first such key turns the console on.",
)
@store_options
def create(
    app: str,
    name: str,
    lifetime_s: int | None,
    scopes: tuple[str, ...],
    role: Role | None,
    file: str | None,
    **flags: str | None,
) -> None:
    """
    Create a backend key with a name and an end, and print it.

    The key is shown only once: the store keeps its digest.
    """
    app_of_key, checked_name = app_name(app), _key_name(name)
    config = resolve(file, **flags).config
    click.echo(
        run(_add_key(config, app_of_key, scopes, checked_name, lifetime_s or 0, role))
    )


@key.command(name="list")
@click.option(
    "--app",
    "app",
    metavar="NAME",
    help="List only the keys of this app. Default: all apps.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@store_options
def list_keys(
    app: str | None, as_json: bool, file: str | None, **flags: str | None
) -> None:
    """
    List backend keys, oldest first.

    An id identifies a key; it grants no access. Times are UTC. The last use is known to
    the minute, and within a minute.
    """
    name = app_name(app) if app else None
    records, used_ms = run(_list_keys(resolve(file, **flags).config, name))
    if as_json:
        listed = [_key_members(it, used_ms.get(it.digest)) for it in records]
        click.echo(json.dumps(listed, indent=2))
    elif records:
        rows = [_key_row(it, used_ms.get(it.digest)) for it in records]
        click.echo(table([_COLUMNS, *rows]))
    else:
        click.echo("no keys", err=True)


@key.command()
@click.argument("key_id", metavar="ID")
@store_options
def revoke(key_id: str, file: str | None, **flags: str | None) -> None:
    """
    Revoke the backend key ID.

    Requests with the key are rejected within 5 s.
    """
    run(_revoke_key(resolve(file, **flags).config, key_id))
    click.echo(f"revoked key {key_id}", err=True)


@key.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--grace",
    type=Duration(),
    default="24h",
    show_default=True,
    help="How long the old key stays valid. Use 0 if it has leaked.",
)
@store_options
def rotate(key_id: str, grace: int, file: str | None, **flags: str | None) -> None:
    """
    Replace the backend key ID and print the new one.

    The new key has the same app, name, scopes and lifetime. The old key expires after
    --grace.
    """
    text = run(_rotate_key(resolve(file, **flags).config, key_id, grace))
    click.echo(f"key {key_id} expires in {grace} s; it is replaced by:", err=True)
    click.echo(text)


@click.group(invoke_without_command=True)
@click.option("--app", "app", metavar="NAME", help="App of the player.")
@click.option("--player", help="Player that the token authenticates.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    help="Permission to grant; repeatable. Default: notification:player:self:*.",
)
@click.option(
    "--ttl",
    type=Duration(),
    default="24h",
    show_default=True,
    help="Lifetime of the token.",
)
@store_options
def token(
    app: str | None,
    player: str | None,
    permissions: tuple[str, ...],
    ttl: int,
    file: str | None,
    **flags: str | None,
) -> None:
    """Create a token for a player and print it."""
    if _has_subcommand():
        return
    name = app_name(_required(app, "--app"))
    player_id = player_name(_required(player, "--player"))
    config = resolve(file, **flags).config
    click.echo(run(_mint(config, name, player_id, permissions, ttl)))


@token.command(name="revoke")
@click.option(
    "--app", "app", required=True, metavar="NAME", help="App that the tokens belong to."
)
@click.option("--player", help="Revoke only the tokens of this player.")
@store_options
def revoke_tokens(
    app: str, player: str | None, file: str | None, **flags: str | None
) -> None:
    """
    Revoke all tokens issued so far, of an app or of one player.

    Requests with a revoked token are rejected within 5 s, and streams end within 30 s.
    Tokens issued afterwards are accepted at once.
    """
    name, player_id = app_name(app), player_name(player) if player else None
    run(_revoke_tokens(resolve(file, **flags).config, name, player_id))
    owner = f"player {player} in app {app}" if player else f"app {app}"
    click.echo(f"revoked all tokens of {owner}", err=True)


@click.command()
@click.argument("subject")
@store_options
def logout(subject: str, file: str | None, **flags: str | None) -> None:
    """
    End all sessions of a person in the console.

    SUBJECT is the person's id at the issuer, as the audit log shows it after "oidc".
    The next request of the person is refused. Who still has an account at the issuer
    can log in again.
    """
    run(_end_sessions(resolve(file, **flags).config, subject))
    click.echo(f"ended all sessions of {subject}", err=True)


def _has_subcommand() -> bool:
    """
    Return whether a subcommand is called.

    Raises:
        UsageError: An option stands before the subcommand, which has options of its
            own.

    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        return False
    commandline = click.core.ParameterSource.COMMANDLINE
    for param in ctx.command.params:
        if param.name and ctx.get_parameter_source(param.name) is commandline:
            raise click.UsageError(
                f"{param.opts[0]} must follow {ctx.invoked_subcommand!r}"
            )
    return True


def _required(value: str | None, option: str) -> str:
    # Click would require the option of subcommands, too.
    if value is None:
        raise click.UsageError(f"Missing option '{option}'.")
    return value


def _key_name(text: str) -> str:
    if len(text) > KEY_NAME_CHARS_MAX or not text.isprintable() or text != text.strip():
        raise click.UsageError(
            f"{text!r} is not a valid name of a key: up to {KEY_NAME_CHARS_MAX} "
            "printable characters, without spaces around them"
        )
    return text


def _key_members(record: KeyRecord, used_ms: int | None) -> dict[str, object]:
    """Return a key as ``key list --json`` prints it."""
    from ..model import iso_time

    return {
        "id": record.id,
        "app": record.app,
        "name": record.name,
        "scopes": sorted(record.scopes),
        "created_at": iso_time(record.created_at_ms),
        "expires_at": iso_time(record.expires_at_ms) if record.expires_at_ms else None,
        "expired": record.is_expired(time.time() * 1_000),
        "last_used_at": iso_time(_whole_minute(used_ms)) if used_ms else None,
    }


def _key_row(record: KeyRecord, used_ms: int | None) -> tuple[str, ...]:
    expires = _minute(record.expires_at_ms) if record.expires_at_ms else "never"
    if record.is_expired(time.time() * 1_000):
        expires = "expired"
    return (
        *(record.id, record.app, record.name or "-"),
        *(_minute(record.created_at_ms), expires),
        _minute(used_ms) if used_ms else "never",
        ",".join(sorted(record.scopes)),
    )


def _whole_minute(at_ms: int) -> int:
    return at_ms // 60_000 * 60_000


def _minute(at_ms: int) -> str:
    from ..model import iso_time

    return iso_time(at_ms)[:16].replace("T", " ")


async def _add_key(
    config: Config,
    app: App,
    scopes: tuple[str, ...],
    name: str = "",
    lifetime_s: int = 0,
    role: Role | None = None,
) -> str:
    from ..store.access.apps import key_digest, key_id

    async with open_audited(config) as audited:
        await audited.require_app(app)
        try:
            async with audited.recorded(app, "key.create") as details:
                text = await audited.apps.add_key(
                    app,
                    scopes,
                    name=name,
                    lifetime_ms=lifetime_s * 1_000,
                    role=role,
                )
                details.update(
                    key=key_id(key_digest(text.encode())),
                    name=name,
                    scopes=sorted(scopes) or "default",
                )
                return text
        except ValueError as exc:
            raise click.BadParameter(str(exc), param_hint="--scope") from exc


async def _list_keys(
    config: Config, name: App | None
) -> tuple[Sequence[KeyRecord], Mapping[bytes, int]]:
    from ..errors import NotFound

    async with open_apps(config) as apps:
        if name is not None and await apps.get(name) is None:
            raise NotFound(f"the app {name}")
        return await apps.list_keys(name), await apps.key_uses()


async def _revoke_key(config: Config, key_id: str) -> None:
    async with open_audited(config) as audited:
        app = await audited.apps.app_of_key(key_id)
        async with audited.recorded(app, "key.revoke", target=f"key:{key_id}"):
            await audited.apps.revoke_key(key_id)


async def _rotate_key(config: Config, key_id: str, grace_s: int) -> str:
    async with open_audited(config) as audited:
        app = await audited.apps.app_of_key(key_id)
        async with audited.recorded(app, "key.rotate", target=f"key:{key_id}"):
            return await audited.apps.rotate_key(key_id, grace_s=grace_s)


async def _revoke_tokens(config: Config, name: App, player: Player | None) -> None:
    async with open_audited(config) as audited:
        await audited.require_app(name)
        async with audited.recorded(name, "tokens.revoke", player=player):
            await audited.apps.revoke_tokens(name, player)


async def _end_sessions(config: Config, subject: str) -> None:
    from ..service.access.console_sessions import end_sessions_of

    async with open_audited(config) as audited:
        target = f"oidc {subject}"
        async with audited.recorded(None, "console.end", target=target):
            await end_sessions_of(audited.redis, subject)


async def _mint(
    config: Config,
    name: App,
    player: Player,
    permissions: tuple[str, ...],
    ttl_s: int,
) -> str:
    from ..core.access.tokens import mint
    from ..errors import NotFound
    from ..model import Log

    async with open_apps(config) as apps:
        record = await apps.get(name)
        (not_before_s,) = await apps.revoked_before_s([Log(name, player)])
    if record is None:
        raise NotFound(f"the app {name}")
    try:
        return mint(
            record,
            player,
            permissions=permissions,
            ttl_s=ttl_s,
            now_s=int(time.time()),
            not_before_s=not_before_s,
        )
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
