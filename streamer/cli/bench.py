"""
`streamer bench`: load tests of a running deployment.

Knows the names of the scenarios, and what they need that the server does not: Linux,
and the packages of the extra ``bench``. A scenario is imported when it is called.
"""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar, Final

import click

from .lazy import LazyGroup

if TYPE_CHECKING:
    from ..bench.scenario import Scenario

__all__ = ["bench"]

_PACKAGES: Final = frozenset({"rich", "hdrh", "matplotlib"})
"""What the extra installs, by the names of the modules."""


class _Scenarios(LazyGroup):
    summaries: ClassVar = {
        "fanout": "Send one message to many readers.",
        "unicast": "Send many messages to one reader each.",
        "connect": "Open many streams, and hold them.",
        "publish": "Store notifications.",
        "page": "Read the first page of inboxes.",
        "mixed": "Publish and read pages while readers are connected.",
        "resume": "Let readers catch up on missed messages.",
        "storm": "Cut all readers off, and let them come back at once.",
        "schedule": "Send schedules while many others wait.",
    }

    def load(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.summaries:
            return None
        if sys.platform != "linux":
            raise click.ClickException("`streamer bench` runs on Linux only")
        from ..bench.options import deployment_options, run_options

        module = importlib.import_module(f"streamer.bench.scenarios.{name}")
        scenario: Scenario = module.SCENARIO
        return click.Command(
            name,
            params=[
                *deployment_options(required=True),
                *scenario.options,
                *run_options(rounds=3),
            ],
            callback=lambda **values: _run(scenario, SimpleNamespace(**values)),
            short_help=self.summaries[name],
            help=f"{self.summaries[name]}\n\n{scenario.about}",
        )


@click.group(cls=_Scenarios)
def bench() -> None:
    """
    Measure a running deployment under load.

    Players p0000000, p0000001, … of the key's app receive messages, so use an app for
    tests. Run the load on another machine than the server, or name the server's
    processes with --pid to measure their CPU and memory. The limits of the deployment
    apply.
    """


def _run(scenario: Scenario, options: SimpleNamespace) -> None:
    from ..bench.deployment import Deployment
    from ..bench.options import make_deployment
    from ..bench.target import Unsupported

    _require_packages(options)
    from ..bench.runner import run

    try:
        make_deployment(options)
    except Unsupported as exc:
        raise click.UsageError(str(exc)) from exc
    measured = run(
        scenario,
        options,
        {Deployment: lambda: make_deployment(options)},
        command=["streamer", "bench", *sys.argv[2:]],
    )
    if not measured:
        sys.exit(1)


def _require_packages(options: SimpleNamespace) -> None:
    """End the command before it measures what it could not write."""
    needed = ["rich"]
    needed += ["hdrh.histogram"] if options.json else []
    needed += ["matplotlib"] if options.html or options.png else []
    for name in needed:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if (exc.name or "").partition(".")[0] not in _PACKAGES:
                raise
            raise click.ClickException(
                f"`streamer bench` needs further packages ({exc.name} is missing): "
                "pip install 'streamer-server[bench]'"
            ) from exc
