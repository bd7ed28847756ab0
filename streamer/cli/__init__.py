"""
The command `streamer`.

Knows the names of its commands and where each is. A command is imported when it is
called: ``streamer --help`` and ``streamer key`` do not load a web server.
"""

from __future__ import annotations

import importlib
from typing import Final, NamedTuple

import click

__all__ = ["main"]


class _Place(NamedTuple):
    module: str
    help: str


_COMMANDS: Final = {
    "serve": _Place("serve", "Run the server; needs no configuration."),
    "scheduler": _Place("serve", "Do the housekeeping of servers run without it."),
    "store": _Place("store", "Run the embedded store alone."),
    "app": _Place("apps", "Make and change apps."),
    "key": _Place("credentials", "Make a backend key for an app; list, take back."),
    "token": _Place("credentials", "Make a token for a player; take them back."),
    "publish": _Place("messages", "Publish a notification."),
    "tail": _Place("messages", "Print a player's notifications as they come."),
    "doctor": _Place("doctor", "Say what is configured and whether it will do."),
}


_INTERNAL: Final = {"worker": _Place("serve", "")}
"""Commands that our own processes call each other by; no help shows them."""


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(cmd_name) or _INTERNAL.get(cmd_name)
        if place is None:
            return None
        module = importlib.import_module(f"{__name__}.{place.module}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, at.help) for name, at in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamer")
def main() -> None:
    """
    Real-time notifications: a durable inbox per player, live on WebSocket, SSE and
    long poll.

    Every setting is also an environment variable (STREAMER_PORT) and a key of the TOML
    file that --config names. `streamer serve` needs none of them.
    """
