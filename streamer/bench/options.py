"""
Options that all scenarios share.

Knows click and how the options of a deployment become a `Deployment`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from ..store_url import NAMESPACE
from .deployment import Deployment
from .own_app import OwnApp, Store
from .scenario import Options
from .target import Unsupported

__all__ = ["deployment_options", "make_deployment", "run_options"]

DEFAULT_URL: Final = "http://127.0.0.1:8080"


def deployment_options(*, required: bool) -> list[click.Option]:
    """
    Return the options that name a running deployment.

    Args:
        required: Whether there has to be one. If not, they are read from the command
            line alone, and the URL has no default.

    """
    url: dict[str, Any] = {"help": "URL of a running deployment; plain HTTP."}
    key: dict[str, Any] = {
        "help": "Backend key with the scopes notifications:send and tokens:mint, for a "
        "deployment whose store cannot be reached from here. Its app is used, and none "
        "is made and removed."
    }
    if required:
        url |= {
            "envvar": "STREAMER_CLI_URL",
            "show_envvar": True,
            "default": DEFAULT_URL,
            "show_default": True,
        }
    return [
        click.Option(["--url"], **url),
        click.Option(["--key"], **key),
        click.Option(
            ["--token-command"],
            default="",
            help="Command that prints a token for {player}. Default: request tokens "
            "with the backend key.",
        ),
        click.Option(
            ["--ttl"],
            type=click.IntRange(min=0, max=31_536_000),
            default=3_600,
            show_default=True,
            help="Seconds after which notifications expire; 0 for never, which only an "
            "app of its own may have.",
        ),
        click.Option(
            ["--pid", "pids"],
            type=int,
            multiple=True,
            help="Process of the server on this machine, whose CPU and memory are "
            "measured; repeatable.",
        ),
    ]


def run_options(*, rounds: int) -> list[click.Option]:
    """Return the options that say how to measure, and where to write the result."""
    path = click.Path(path_type=Path, dir_okay=False)
    count = click.IntRange(min=1)
    return [
        click.Option(
            ["--rounds"],
            type=count,
            default=rounds,
            show_default=True,
            help="Number of rounds; the figures are medians.",
        ),
        click.Option(
            ["--seconds"],
            type=click.FloatRange(min=0, min_open=True),
            default=5.0,
            show_default=True,
            help="Duration of a measurement.",
        ),
        click.Option(
            ["--loaders"],
            type=count,
            default=1,
            show_default=True,
            help="Processes that generate the load.",
        ),
        click.Option(["--json"], type=path, help="Write the full result as JSON."),
        click.Option(["--html"], type=path, help="Write a report as HTML."),
        click.Option(["--png"], type=path, help="Write the chart as PNG."),
    ]


def make_deployment(options: Options, store: Store | None = None) -> Deployment:
    """
    Return the deployment that the options name. Raises Unsupported.

    Without a key, it gets an app of its own in `store`.
    """
    values: dict[str, Any] = vars(options)
    key = (options.key or "").strip()
    if key and not options.ttl:
        raise Unsupported("--ttl 0 requires an app of its own: leave out --key")
    return Deployment(
        options.url,
        key,
        own_app=None if key or store is None else OwnApp(store),
        ttl_s=options.ttl,
        token_command=options.token_command,
        pids=tuple(options.pids),
        store_url=values.get("redis") or "",
        namespace=values.get("namespace") or NAMESPACE,
    )
