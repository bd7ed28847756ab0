"""
What the commands share: the options that select a store, and how to reach it.

Knows click, the settings and the messages of expected failures. Knows nothing of what a
command does with the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..config import Config, Resolved
    from ..store.client.connection import RedisConnection

__all__ = [
    "config_option",
    "data_dir_option",
    "embedded_password",
    "enter",
    "fsync_policy",
    "locate_store",
    "open_redis",
    "open_store",
    "password_path",
    "redis_url",
    "resolve",
    "run",
    "store_memory",
    "store_options",
    "store_url",
    "temporary_dir",
]

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


config_option = click.option(
    "--config",
    "file",
    metavar="PATH",
    help="TOML file with settings. Default: $STREAMER_CONFIG.",
)
data_dir_option = click.option(
    "--data-dir", metavar="PATH", help="Directory of the embedded store."
)


def store_options(command: Command) -> Command:
    """Add the options that select a store: where it is, and the namespace in it."""
    for option in (
        config_option,
        click.option(
            "--namespace",
            metavar="NAME",
            help="What keys and channels in the store begin with. Default: streamer.",
        ),
        click.option(
            "--deployment",
            metavar="NAME",
            help="Name that the deployment in the store must have. Default: any.",
        ),
        click.option(
            "--redis",
            metavar="URL",
            help="External Redis or Valkey (7.0 or later) to use as the store.",
        ),
        click.option(
            "--redis-password-file",
            metavar="PATH",
            help="File with the password of the store.",
        ),
        data_dir_option,
    ):
        command = option(command)
    return command


def resolve(file: str | None, **flags: object) -> Resolved:
    """Return the settings; wrong ones end the command with a list of all problems."""
    from .. import config

    try:
        return config.resolve(flags, os.environ, file=file)
    except config.ConfigError as exc:
        raise click.ClickException(str(exc)) from exc


def fsync_policy(durability: str) -> str:
    """Return the fsync policy with which the embedded store keeps `durability`."""
    # ``none`` promises nothing, but there is no reason to lose more than two seconds.
    return "always" if durability == "always" else "everysec"


def store_memory(config: Config, *, processes: int = 0) -> int:
    """
    Return the memory limit of the embedded store in bytes; 0 for none.

    Args:
        config: The settings.
        processes: Number of processes of the server beside the store; 0 for those of
            `streamer serve`.

    """
    from ..config import parse_memory
    from ..store.server.memory import available_bytes, default_limit

    if config.store_memory:
        return parse_memory(config.store_memory)
    # Several workers have a supervisor.
    processes = processes or config.workers + (config.workers > 1)
    return default_limit(available_bytes(), processes=processes)


def temporary_dir() -> Path:
    """Return the system's directory for temporary files."""
    return Path(os.environ.get("TMPDIR") or "/tmp")


def locate_store(config: Config) -> Config:
    """
    Return the settings with the data directory that a command uses, and print it.

    That matters where no setting names it. The server may run with another home
    directory, so its data directory is used if the default one has no store.

    Raises:
        ClickException: Several servers run, and the default directory has no store.

    """
    import msgspec

    from ..config import default_data_dir
    from ..store.server.directory import holds_store
    from ..store.server.running import is_running, running_directories

    data_dir = Path(config.data_dir)
    try:
        if data_dir != default_data_dir(os.environ):
            return config
    except RuntimeError:
        return config
    others = [
        other for other in running_directories(temporary_dir()) if other != data_dir
    ]
    if not others or is_running(data_dir):
        click.echo(f"using the store in {data_dir}", err=True)
        return config
    options = " or ".join(f"--data-dir {shlex.quote(str(other))}" for other in others)
    if holds_store(data_dir):
        click.echo(
            f"using the store in {data_dir}, which no server is using; a server is "
            f"running on another store: to use that, add {options}",
            err=True,
        )
        return config
    if len(others) > 1:
        raise click.ClickException(
            f"several servers are running, and {data_dir} has no store: add {options}"
        )
    click.echo(f"using the store in {others[0]}, where a server is running", err=True)
    return msgspec.structs.replace(config, data_dir=str(others[0]))


def password_path(config: Config) -> Path:
    """Return the file of the store's password, which need not exist."""
    from ..store.server.password import PASSWORD

    return Path(config.redis_password_file or Path(config.data_dir, PASSWORD))


def embedded_password(config: Config) -> str:
    """Return the password of the embedded store; empty if it has none."""
    from ..store.server.password import read_password

    path = password_path(config)
    if not config.redis_password_file and not path.exists():
        return ""
    return read_password(path)


async def redis_url(config: Config, *, wait_s: float = 0) -> str:
    """
    Return the URL of the external store, with the password of its file, if it has one.

    Args:
        config: The settings.
        wait_s: How long to wait for the file: `streamer store` may be about to make it.

    Raises:
        StoreFailed: There is no password in the file.

    """
    from ..store.server.password import has_password, read_password, with_password

    if not config.redis_password_file:
        return config.redis
    path = Path(config.redis_password_file)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    # No event tells of a file.
    while not has_password(path) and loop.time() < until_s:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return with_password(config.redis, read_password(path))


def run(
    work: Coroutine[Any, Any, T],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run `work` to its end; an expected error ends the command with a message."""
    from ..errors import Error, StoreUnavailable

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(work)
    except StoreUnavailable as exc:
        hint = ""
        if "NOAUTH" in exc.reason:
            hint = " Name the file with its password: --redis-password-file PATH"
        raise click.ClickException(f"{exc.reason}{hint}") from exc
    except Error as exc:
        raise click.ClickException(str(exc)) from exc
    except _store_errors() as exc:
        raise click.ClickException(f"the store rejected a command: {exc}") from exc


@contextlib.asynccontextmanager
async def store_url(config: Config) -> AsyncIterator[str]:
    """
    Yield the URL of the configured store, started meanwhile if it does not run.

    Args:
        config: The settings, from `locate_store` if the store is the embedded one.

    """
    from ..store.server.embedded import attach

    if config.redis:
        yield await redis_url(config)
        return
    memory = store_memory(config)
    async with attach(
        Path(config.data_dir), memory=memory, password=embedded_password(config)
    ) as url:
        yield url


@contextlib.asynccontextmanager
async def open_redis(url: str, config: Config) -> AsyncIterator[RedisConnection]:
    """Yield a connection to the store at `url`, which the first call opens."""
    from ..store.client.cluster import redis_at
    from ..store.client.sentinel import address_at

    redis = redis_at(address_at(url), namespace=config.namespace, name="streamer-cli")
    try:
        yield redis
    finally:
        await redis.close()


@contextlib.asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[RedisConnection]:
    """
    Yield a connection to the configured store, on whose deployment the command works.

    Raises:
        StoreUnfit, StoreFailed: As `enter`.

    """
    if not config.redis:
        config = locate_store(config)
    async with store_url(config) as url, open_redis(url, config) as redis:
        await enter(redis, config)
        yield redis


async def enter(redis: RedisConnection, config: Config) -> None:
    """
    Work on the deployment in the store, or begin one.

    Raises:
        StoreUnfit: The store holds another deployment, or data of another format.
        StoreFailed: The data directory belongs to another deployment.

    """
    from ..store.deployment import enter_deployment
    from ..store.server.directory import mirror_deployment

    deployment = await enter_deployment(redis, config.deployment)
    if not config.redis:
        mirror_deployment(Path(config.data_dir), config.namespace, deployment)


def _store_errors() -> type[Exception]:
    # Imported only after an error; a command that succeeds does not need it.
    from redis.exceptions import RedisError

    return RedisError
