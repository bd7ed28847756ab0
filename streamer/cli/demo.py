"""
The app `demo`, with which a first start works without any preparation.

Knows what `streamer serve` and `streamer store` put into an empty store, and the
commands they print. A store that is not empty is left unchanged.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from .settings import open_redis

if TYPE_CHECKING:
    from ..config import Config
    from ..store.client.connection import RedisConnection

__all__ = ["Demo", "greeting", "prepare"]

TOKEN_TTL_S: Final = 86_400
_APP: Final = "demo"
_PLAYER: Final = "alice"


class Demo(NamedTuple):
    """Credentials of the demo. `key` is None if an earlier start created one."""

    token: str
    key: str | None


async def prepare(url: str, config: Config) -> Demo | None:
    """
    Return credentials of the demo app; create the app if the store at `url` is empty.

    Other namespaces of the store do not count.

    A key is created only with the app, since otherwise each start would leave one
    behind. Returns None if the store has no app `demo`, or if a foreign issuer signs
    its tokens.
    """
    from ..core.access.tokens import mint
    from ..model import App, Player
    from ..store.access.apps import Apps

    async with open_redis(url, config) as redis:
        apps = Apps(redis)
        key = None
        if await _is_empty(redis):
            await apps.create(App(_APP))
            key = await apps.add_key(App(_APP))
        record = await apps.get(App(_APP))
    if record is None or record.algorithm != "HS256":
        return None
    token = mint(record, Player(_PLAYER), ttl_s=TOKEN_TTL_S, now_s=int(time.time()))
    return Demo(token, key)


def greeting(demo: Demo | None, addresses: str, options: Mapping[str, str]) -> str:
    """
    Return the text to print when the server at `addresses` is ready.

    Args:
        demo: Credentials of the demo, if the store has that app.
        addresses: URLs without a final slash, or ``unix:`` and a path; separated by
            spaces. Commands use the first.
        options: Settings that select the store, unless they have their defaults.

    """
    first, *others = addresses.split()
    lines = [f"streamer is ready at {' and '.join([first, *others])}", ""]
    # The command-line form of the address: options of curl, and a URL.
    address = first
    if path := _unix_path(first):
        address = f"--unix-socket {shlex.quote(path)} http://localhost"
    if demo is None:
        return "\n".join(
            [*lines[:1], "  create credentials: `streamer key`, `streamer token`"]
        )
    words = [
        f" --{name.replace('_', '-')} {shlex.quote(value)}"
        for name, value in options.items()
    ]
    key = demo.key or "$STREAMER_CLI_KEY"
    lines += [f"  token of player {_PLAYER}, valid for 24 h:", f"    {demo.token}"]
    if demo.key:
        lines += ["  backend key, shown only once:", f"    {demo.key}"]
    else:
        lines += [
            "  backend key: shown on the first start only. To create another:",
            f"    STREAMER_CLI_KEY=$({_program()} key --app {_APP}{''.join(words)})",
        ]
    return "\n".join([*lines, "", *_curl_commands(address, demo.token, key), ""])


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
