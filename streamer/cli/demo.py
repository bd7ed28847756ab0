"""
The app `demo`, with which a first start works without any preparation.

Decides when `streamer serve` and `streamer store` create it, and when they print
credentials: only on a terminal, or if they are told to by ``--demo``, since the output
of a service is kept in logs. The credentials end after a day and are for `demo` alone.
Knows the commands that are printed.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from .settings import open_redis

if TYPE_CHECKING:
    from ..config import Config
    from ..model import App
    from ..store.access.apps import Apps
    from ..store.client.connection import RedisConnection

__all__ = ["Demo", "demo_option", "greeting", "key_command", "prepare"]

LIFETIME_S: Final = 86_400
_APP: Final = "demo"
_PLAYER: Final = "alice"
KEY_NAME: Final = "printed at a start"
"""The name of the keys that are printed, by which expired ones are found."""

demo_option: Final = click.option(
    "--demo/--no-demo",
    "demo",
    default=None,
    help="Whether to print credentials of the app `demo`, valid for 24 h. Default: on "
    "a terminal only.",
)


class Demo(NamedTuple):
    """
    What a start has done with the app `demo`.

    `token` and `key` are empty if they are not to be printed.
    """

    created: bool
    token: str = ""
    key: str = ""


async def prepare(
    url: str, config: Config, *, demo: bool | None, local: bool = True
) -> Demo | None:
    """
    Create the app `demo` in an empty store at `url`, and credentials to print.

    Args:
        url: The URL of the embedded store.
        config: The settings. Other namespaces of the store do not count.
        demo: Whether to print credentials; None for only on a terminal.
        local: Whether only this machine can connect to the server. Otherwise nothing is
            done unless `demo` is true.

    Returns None if there is no such app, or if a foreign issuer signs its tokens.

    """
    from ..core.access.tokens import mint
    from ..model import App, Player
    from ..store.access.apps import Apps

    if not local and not demo:
        return None
    async with open_redis(url, config) as redis:
        apps = Apps(redis)
        created = await _is_empty(redis)
        if created:
            await apps.create(App(_APP))
        record = await apps.get(App(_APP))
        if record is None or record.algorithm != "HS256":
            return None
        if not (sys.stdout.isatty() if demo is None else demo):
            return Demo(created)
        await _remove_expired(apps, App(_APP))
        key = await apps.add_key(
            App(_APP), name=KEY_NAME, lifetime_ms=LIFETIME_S * 1_000
        )
    token = mint(record, Player(_PLAYER), ttl_s=LIFETIME_S, now_s=int(time.time()))
    return Demo(created, token, key)


def greeting(demo: Demo | None, addresses: str, options: Mapping[str, str]) -> str:
    """
    Return the text to print when the server at `addresses` is ready.

    Args:
        demo: What the start has done with the app `demo`, None if it has none.
        addresses: URLs without a final slash, or ``unix:`` and a path; separated by
            spaces. Commands use the first.
        options: Settings that select the store, unless they have their defaults. An
            empty value stands for one that is not printed.

    """
    first, *others = addresses.split()
    lines = [f"streamer is ready at {' and '.join([first, *others])}"]
    # The command-line form of the address: options of curl, and a URL.
    address = first
    if path := _unix_path(first):
        address = f"--unix-socket {shlex.quote(path)} http://localhost"
    if demo is None:
        return "\n".join([*lines, *_first_commands(options)])
    if not demo.key:
        return "\n".join([*lines, *_credential_commands(_APP, _PLAYER, options)])
    lines += [
        "",
        f"  token of player {_PLAYER} in the app {_APP}, valid for 24 h:",
        f"    {demo.token}",
        f"  backend key of the app {_APP}, valid for 24 h, shown only once:",
        f"    {demo.key}",
    ]
    return "\n".join([*lines, "", *_curl_commands(address, demo.token, demo.key), ""])


def _first_commands(options: Mapping[str, str]) -> list[str]:
    create = f"{_program()} app create NAME{_words(options)}"
    return [
        "  to create an app, unless there is one:",
        f"    {create}",
        *_credential_commands("NAME", "PLAYER", options),
    ]


def _credential_commands(
    app: str, player: str, options: Mapping[str, str]
) -> list[str]:
    """Return how to create credentials, which are not printed."""
    return [
        f"  to create a backend key, and the token of a player, of the app {app}:",
        f"    {key_command(app, options)}",
        f"    {_program()} token --app {app} --player {player}{_words(options)}",
    ]


def key_command(app: str, options: Mapping[str, str]) -> str:
    """Return the command that creates a key of an app."""
    end = " --expires 24h" if app == _APP else ""
    return f"{_program()} key create --app {app}{end}{_words(options)}"


def _words(options: Mapping[str, str]) -> str:
    words = (
        f" --{name.replace('_', '-')} {shlex.quote(value) if value else '...'}"
        for name, value in options.items()
    )
    return "".join(words)


def _curl_commands(address: str, token: str, key: str) -> list[str]:
    message = f'{{"to":{{"players":["{_PLAYER}"]}},"title":"Hello","body":"It works."}}'
    return [
        f"  stream {_PLAYER}'s notifications (leave it running):",
        f"curl -N -H 'Authorization: Bearer {token}' {address}/v1/stream",
        f"  publish to {_PLAYER}, from another terminal:",
        f'curl -H "Authorization: Bearer {key}" -H "Content-Type: application/json" '
        f"-d '{message}' {address}/v1/notifications",
        f"  read {_PLAYER}'s inbox, newest first:",
        f"curl -H 'Authorization: Bearer {token}' "
        f"{address}/v1/players/me/notifications",
    ]


def _unix_path(address: str) -> str:
    _, is_path, path = address.partition("unix:")
    return path if is_path else ""


def _program() -> str:
    """Return how to call `streamer`: by its path if it is not on ``PATH``."""
    name = "streamer"
    called = sys.argv[0]
    if Path(called).name != name or shutil.which(name) == called:
        return name
    return shlex.quote(called)


async def _is_empty(redis: RedisConnection) -> bool:
    return not await redis.call("EXISTS", redis.keys.apps)


async def _remove_expired(apps: Apps, app: App) -> None:
    """Remove the keys of earlier starts, so that not each start leaves one behind."""
    now_ms = time.time() * 1_000
    for record in await apps.list_keys(app):
        if record.name == KEY_NAME and record.is_expired(now_ms):
            await apps.revoke_key(record.id)
