"""
The command `streamer`.

Knows the names of its commands and the modules they are in. A command is imported when
it is called: ``streamer --help`` and ``streamer key`` do not load a web server.
"""

from __future__ import annotations

import importlib
from typing import ClassVar, Final

import click

from .lazy import LazyGroup
from .standard_streams import open_standard_streams

__all__ = ["main"]

_MODULES: Final = {
    "serve": "serve",
    "scheduler": "serve",
    "store": "store",
    "app": "apps",
    "key": "credentials",
    "token": "credentials",
    "logout": "credentials",
    "export": "privacy",
    "erase": "privacy",
    "erasures": "privacy",
    "audit": "audit",
    "config": "configuration",
    "publish": "messages",
    "tail": "messages",
    "inspect": "players",
    "connections": "players",
    "disconnect": "players",
    "presence": "players",
    "trim": "trim",
    "doctor": "doctor",
    "health": "health",
    "backup": "backup",
    "restore": "backup",
    "bench": "bench",
    # Only `serve` starts it; no help lists it.
    "worker": "serve",
}


class _Commands(LazyGroup):
    summaries: ClassVar = {
        "serve": "Run the server (no configuration needed).",
        "scheduler": "Send due schedules for servers that do not.",
        "store": "Run the embedded store on its own.",
        "app": "Manage apps, their secrets and their quotas.",
        "key": "Create, list, rotate and revoke backend keys.",
        "token": "Create and revoke player tokens.",
        "logout": "End all sessions of a person in the console.",
        "export": "Export what is stored of a player.",
        "erase": "Erase a player with everything that is stored.",
        "erasures": "Print the list of erased players, or repeat one.",
        "audit": "Show what was done to an app and its players.",
        "config": "Show every setting with its value and its source.",
        "publish": "Publish a notification.",
        "tail": "Print a player's notifications as they arrive.",
        "inspect": "Show why a player did not get a notification.",
        "connections": "List a player's open connections, or the nodes.",
        "disconnect": "Close a player's connections.",
        "presence": "Show who is online, and when players were last seen.",
        "trim": "Remove old notifications to free memory.",
        "doctor": "Check the settings, this machine and the store.",
        "health": "Ask a running server whether it is ready.",
        "backup": "Write the embedded store to a file, while it runs.",
        "restore": "Put a backup into an empty data directory.",
        "bench": "Measure a running deployment under load.",
    }

    def load(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _MODULES:
            return None
        try:
            module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        except ModuleNotFoundError as error:
            if error.name != "streamer_client":
                raise
            if ctx.resilient_parsing:
                return None
            raise click.ClickException(
                f"`streamer {name}` needs the Python client: "
                "pip install streamer-client"
            ) from error
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamer-server")
def main() -> None:
    """
    Real-time notification server: a durable inbox per player, delivered live over
    WebSocket, SSE and long poll.

    Every setting can be given as an environment variable (for example STREAMER_PORT) or
    in the TOML file named by --config. `streamer serve` works without any.
    """
    open_standard_streams()
