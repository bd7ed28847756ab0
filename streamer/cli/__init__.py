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


class _CommandModule(NamedTuple):
    module: str
    help: str


_COMMANDS: Final = {
    "serve": _CommandModule("serve", "Run the server (no configuration needed)."),
    "scheduler": _CommandModule("serve", "Send due schedules for servers that do not."),
    "store": _CommandModule("store", "Run the embedded store on its own."),
    "app": _CommandModule("apps", "Manage apps, their secrets and their quotas."),
    "key": _CommandModule(
        "credentials", "Create, list, rotate and revoke backend keys."
    ),
    "token": _CommandModule("credentials", "Create and revoke player tokens."),
    "publish": _CommandModule("messages", "Publish a notification."),
    "tail": _CommandModule(
        "messages", "Print a player's notifications as they arrive."
    ),
    "doctor": _CommandModule(
        "doctor", "Check the settings, this machine and the store."
    ),
}


_INTERNAL: Final = {"worker": _CommandModule("serve", "")}
"""Commands that our own processes call each other by; no help shows them."""


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        source = _COMMANDS.get(cmd_name) or _INTERNAL.get(cmd_name)
        if source is None:
            return None
        try:
            module = importlib.import_module(f"{__name__}.{source.module}")
        except ModuleNotFoundError as error:
            if error.name != "streamer_client":
                raise
            if ctx.resilient_parsing:
                return None
            raise click.ClickException(
                f"`streamer {cmd_name}` needs the Python client: "
                "pip install streamer-client"
            ) from error
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, at.help) for name, at in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamer-server")
def main() -> None:
    """
    Real-time notification server: a durable inbox per player, delivered live over
    WebSocket, SSE and long poll.

    Every setting can be given as an environment variable (for example STREAMER_PORT) or
    in the TOML file named by --config. `streamer serve` works without any.
    """
