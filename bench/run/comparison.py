"""
Runs a scenario against servers that it starts, or against a running deployment.

Knows which peers there are and whether they are installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from streamer.bench.deployment import Deployment
from streamer.bench.options import deployment_options, make_deployment, run_options
from streamer.bench.scenario import Scenario
from streamer.bench.target import Target

from ..peers import PEERS, NotInstalled, Peer
from .stacks import profiled

__all__ = ["compare"]


def compare(scenario: Scenario, peers: Sequence[str]) -> None:
    """Run the command of a scenario, which by default measures `peers` in turns."""
    command = click.Command(
        f"python -m bench.{scenario.name}",
        params=[
            *_comparison_options(peers),
            *deployment_options(required=False),
            *run_options(rounds=5),
            *scenario.options,
        ],
        callback=lambda **values: _run(scenario, SimpleNamespace(**values)),
        help=scenario.about,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    command()


def _comparison_options(peers: Sequence[str]) -> list[click.Option]:
    return [
        click.Option(
            ["--peers"],
            default=",".join(peers),
            show_default=True,
            help="Servers to start and measure, separated by commas.",
        ),
        click.Option(
            ["--no-pin"], is_flag=True, help="Let the kernel choose the cores."
        ),
        click.Option(
            ["--profile"],
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write the stacks of streamer while it is measured, in folded form. "
            "Needs py-spy, and slows down what is measured.",
        ),
    ]


def _run(scenario: Scenario, options: SimpleNamespace) -> None:
    try:
        from streamer.bench.runner import run
    except ImportError as exc:
        sys.exit(f"{exc}; the bench needs: pip install rich hdrhistogram matplotlib")
    if options.url and not options.key:
        raise click.UsageError("--url requires --key; `streamer bench` does not")
    absent: list[dict[str, str]] = []
    kinds: dict[type[Target], Callable[[], Target]]
    if options.url:
        kinds = {Deployment: lambda: make_deployment(options)}
    else:
        kinds = {kind: kind for kind in _installed(options, absent)}

    def observe(target: Target, section: str) -> AbstractContextManager[None]:
        return profiled(target, _profile_path(options, section))

    measured = run(
        scenario,
        options,
        kinds,
        command=["python", "-m", f"bench.{scenario.name}", *sys.argv[1:]],
        pin=not options.no_pin,
        absent=absent,
        observe=observe,
    )
    if not measured:
        sys.exit(1)


def _installed(options: Any, absent: list[dict[str, str]]) -> list[type[Peer]]:
    """Return the peers to measure; add those that are not installed to `absent`."""
    kinds = []
    for name in options.peers.split(","):
        if name not in PEERS:
            sys.exit(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
        kind = PEERS[name]
        if getattr(options, "transport", "ws") not in kind.transports:
            continue
        try:
            kind.require()
        except NotInstalled as exc:
            absent.append({"peer": kind.title, "install": str(exc)})
        else:
            kinds.append(kind)
    return kinds


def _profile_path(options: Any, section: str) -> Path | None:
    path: Path | None = options.profile
    if path is None or not section:
        return path
    return path.with_stem(f"{path.stem}-{section}")
