"""
`streamer config`: shows every setting with its value and its source.

Knows how values look on a terminal. Opens nothing: it reads what every other command
would use.
"""

from __future__ import annotations

import json
from typing import Any

import click

from .settings import resolve, store_options

__all__ = ["config"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option(
    "--changed", is_flag=True, help="Show only settings that a source has set."
)
@store_options
def config(as_json: bool, changed: bool, file: str | None, **flags: str | None) -> None:
    """
    Show every setting: its value, and the source that has set it.

    Sources, in rising precedence: default, the TOML file, the environment, options.
    Secrets are hidden. Settings that are not valid are listed as an error, with a
    non-zero exit code.
    """
    from ..config import DEFAULT, masked

    resolved = resolve(file, **flags)
    rows = [
        (name, value, resolved.sources[name])
        for name, value in masked(resolved.config).items()
        if not changed or resolved.sources[name] != DEFAULT
    ]
    if as_json:
        members = ("name", "value", "source")
        listed = [dict(zip(members, row, strict=True)) for row in rows]
        click.echo(json.dumps(listed, indent=2))
        return
    texts = [(name, _text(value), source) for name, value, source in rows]
    widths = [max(map(len, column), default=0) for column in zip(*texts, strict=True)]
    for name, value, source in texts:
        click.echo(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}")


def _text(value: Any) -> str:
    """Return a value as the environment writes it, "-" for an empty one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        value = ",".join(value)
    return str(value) if value != "" else "-"
