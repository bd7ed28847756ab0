"""
`streamer bench`: load tests of a running deployment.

Knows the names of the scenarios, the store in which they make their app, and what they
need that the server does not: Linux, and the packages of the extra ``bench``. A
scenario is imported when it is called.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Final

import click

from .lazy import LazyGroup
from .settings import (
    enter,
    locate_store,
    open_redis,
    resolve,
    run,
    store_options,
    store_url,
)

if TYPE_CHECKING:
    from ..bench.own_app import Store
    from ..bench.scenario import Scenario
    from ..config import Config
    from ..store.client.connection import RedisConnection

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
        "lists": "Read pages in other ways, compared with plain ones.",
        "grow": "Publish and read where there is much, compared with little.",
        "mixed": "Publish and read pages while readers are connected.",
        "tail": "Read pages beside messages to many readers.",
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
        store = _store_params()
        names = {param.name for param in store}
        return click.Command(
            name,
            params=[
                *deployment_options(required=True),
                *store,
                *(it for it in scenario.options if it.name not in names),
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

    Each measurement makes an app of its own in the deployment's store and removes it,
    with all that it stored, also after Ctrl-C. It therefore needs access to the store,
    as `streamer app create` does: by default that of the server of this user on this
    machine, otherwise --data-dir or --redis. Where the store cannot be reached, pass
    a backend key with --key: its app is used, for players and a topic of random names;
    what is stored there expires after --ttl.

    Run the load on another machine than the server, or name the server's processes with
    --pid to measure their CPU and memory. The limits of the deployment apply.
    """


def _run(scenario: Scenario, options: SimpleNamespace) -> None:
    from ..bench.deployment import Deployment
    from ..bench.options import make_deployment
    from ..bench.target import Unsupported

    _require_packages(options)
    from ..bench.runner import run as measure

    store = None if options.key else _store_of(options)
    try:
        make_deployment(options, store)
    except Unsupported as exc:
        raise click.UsageError(str(exc)) from exc
    measured = measure(
        scenario,
        options,
        {Deployment: lambda: make_deployment(options, store)},
        command=["streamer", "bench", *sys.argv[2:]],
    )
    if not measured:
        sys.exit(1)


def _store_params() -> list[click.Option]:
    """Return the options that select a store."""

    @store_options
    def command() -> None:
        pass

    params: list[click.Option] = getattr(command, "__click_params__")  # noqa: B009
    return params


def _store_of(options: SimpleNamespace) -> Store:
    """Return what opens the store of the deployment, where that is one of ours."""
    values: dict[str, Any] = vars(options)
    names = [param.name for param in _store_params() if param.name != "file"]
    flags = {name: values[name] for name in names if name is not None}
    config = resolve(options.file, **flags).config
    if not config.redis:
        config = locate_store(config)

    @contextlib.asynccontextmanager
    async def store() -> AsyncIterator[RedisConnection]:
        async with store_url(config) as url, open_redis(url, config) as redis:
            await enter(redis, config)
            yield redis

    options.redis, options.namespace = run(_url_of(config)), config.namespace
    return store


async def _url_of(config: Config) -> str:
    async with store_url(config) as url:
        return url


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
