"""
`streamer doctor`: checks the settings, the machine and the store.

Knows what the server requires of its environment. Each finding is ``ok``, a ``warning``
(works, but deserves attention) or a ``problem`` (a promise would be broken). Changes
nothing: commands of the store are tried on keys that nobody uses. Exits with status 1
if there is a problem.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import click

from ..compiled.library import is_compiled
from ..config import DEFAULT
from ..core.store_health import (
    DurabilityPromise,
    Finding,
    judge,
    judge_clock,
    judge_durability,
    judge_policy,
    judge_replica,
    judge_version,
    told_of,
)
from ..store_url import parse_store_url
from .limits import FDS_BESIDE_CONNECTIONS, fd_limit_max, streams_max
from .settings import (
    locate_store,
    open_redis,
    password_path,
    resolve,
    run,
    store_options,
    store_url,
)

if TYPE_CHECKING:
    from ..config import Config, Resolved
    from ..core.store_health import StoreFacts
    from ..store.client.connection import RedisConnection

__all__ = [
    "doctor",
    "judge_clock",
    "judge_compiled",
    "judge_data_dir",
    "judge_durability",
    "judge_fds",
    "judge_interpreter",
    "judge_policy",
    "judge_version",
]

DAMAGED_SHOWN_MAX: Final = 5

# By any spelling that `store_url` decodes: "%" stands for an encoded letter.
_PASSWORD_OPTION: Final = re.compile(r"((?:^|&)[^=&]*(?:password|%)[^=&]*=)[^&]*")

_COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@store_options
def doctor(file: str | None, **flags: object) -> None:
    """
    Check the settings, this machine and the store.

    Exits with status 1 if there is a problem.
    """
    resolved = resolve(file, **flags)
    _print_settings(resolved)
    findings = run(_examine(resolved.config))
    for verdict, text in findings:
        click.echo(f"{click.style(f'{verdict:8}', fg=_COLOURS[verdict])} {text}")
    if any(finding.verdict == "problem" for finding in findings):
        sys.exit(1)


def judge_fds(limit: int, config: Config, process: str) -> Finding:
    """
    Judge whether as many streams as configured can be open at once.

    With several workers `limit` is that of each, and so is what it needs.
    """
    from ..workers.control_channel import share

    config = share(config, 0)
    connections = config.connections_max + config.requests_in_flight_max
    needed = connections + FDS_BESIDE_CONNECTIONS
    text = f"{process} can open {limit} files and needs {needed}"
    allowed = streams_max(limit, config.requests_in_flight_max)
    if allowed < config.connections_max:
        return Finding(
            "problem",
            f"{text}: it admits {allowed} streams instead of the "
            f"{config.connections_max} of connections_max. Raise the limit "
            "(ulimit -Hn, LimitNOFILE=) or lower connections_max",
        )
    return Finding("ok", text)


def judge_data_dir(data_dir: Path) -> Finding:
    """Judge whether this user can serve a store from a directory, or create it."""
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    if not existing.is_dir():
        return Finding("problem", f"{existing} is not a directory: set data_dir")
    # The answer of the system, which knows read-only file systems, too.
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        return Finding(
            "problem",
            f"cannot write to {existing}: make it writable for user {os.geteuid()}, or "
            "set data_dir to another directory",
        )
    for path in sorted(data_dir.glob("*")):
        if not os.access(path, os.R_OK | os.W_OK):
            return Finding(
                "problem",
                f"cannot write to {path}: it has to belong to user {os.geteuid()}",
            )
    return Finding("ok", f"the data directory {data_dir} can be written")


def judge_password_file(config: Config) -> Iterator[Finding]:
    """Warn of a password file that other users can read, if there is one."""
    from ..store.server.password import is_private

    path = password_path(config)
    with contextlib.suppress(OSError):  # What needs it says why.
        if not is_private(path):
            yield Finding(
                "warning",
                f"other users can read the password file {path}: chmod 600 it",
            )


def judge_compiled(*, compiled: bool) -> Finding:
    """Judge whether the fan-out loop and the encoding of pages are compiled."""
    if compiled:
        return Finding("ok", "fan-out and page encoding are compiled")
    return Finding(
        "warning",
        "fan-out and page encoding run in Python and need a tenth more CPU: install a "
        "C compiler, then reinstall streamer",
    )


def judge_interpreter(build: Mapping[str, Any]) -> Finding:
    """
    Judge whether this Python was built with profile-guided optimization.

    Args:
        build: How it was built, as `sysconfig.get_config_vars` returns it.

    """
    arguments = build.get("CONFIG_ARGS")
    if arguments is None:  # Windows, whose installers are optimized.
        return Finding("ok", "how this Python was built is not recorded")
    # Debian and its derivatives optimize by a make target of their own, and drop the
    # flag of its second half from the record.
    of_debian = build.get("PGO_PROF_GEN_FLAG") and build.get("PGO_PROF_USE_FLAG") == ""
    if "--enable-optimizations" in arguments or of_debian:
        return Finding("ok", "this Python was built with optimizations")
    return Finding(
        "warning",
        "this Python was built without optimizations and needs more CPU: use one that "
        "was configured with --enable-optimizations",
    )


def judge_timetable(schedules: int, damaged: Sequence[str]) -> Finding:
    """Judge the timetable by what is damaged of the schedules that were looked at."""
    if not damaged:
        return Finding("ok", f"the timetable is sound ({schedules} schedules checked)")
    shown = "; ".join(damaged[:DAMAGED_SHOWN_MAX])
    others = len(damaged) - DAMAGED_SHOWN_MAX
    more = f"; and {others} more" if others > 0 else ""
    return Finding(
        "problem",
        f"the timetable is damaged, and these schedules are not sent: {shown}{more}. "
        "Repair or delete the key, or remove the member",
    )


def _print_settings(resolved: Resolved) -> None:
    """Print the settings that are not defaults, and those that locate the server."""
    config, sources = resolved
    for name, source in sources.items():
        if source != DEFAULT or name in ("host", "port", "data_dir", "redis"):
            value = getattr(config, name)
            text = _without_passwords(value) if name == "redis" else value
            if name in ("metrics_token", "log_key") and value:
                text = "***"
            click.echo(f"{name} = {text!r}  ({source})")
    click.echo()


def _without_passwords(url: str) -> str:
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if ":" in userinfo:
        userinfo = f"{userinfo.partition(':')[0]}:***"
    query = _PASSWORD_OPTION.sub(r"\1***", parts.query)
    return urlunsplit(parts._replace(netloc=f"{userinfo}{at}{host}", query=query))


async def _examine(config: Config) -> list[Finding]:
    findings = [
        judge_fds(
            fd_limit_max(),
            config,
            "a worker started here" if config.workers > 1 else "a server started here",
        ),
        judge_compiled(compiled=is_compiled()),
        judge_interpreter(sysconfig.get_config_vars()),
    ]
    if not config.redis:
        config = locate_store(config)
        findings.append(judge_data_dir(Path(config.data_dir)))
    if config.data_dir or config.redis_password_file:
        findings += judge_password_file(config)
    findings += [finding async for finding in _examine_store(config)]
    return findings


async def _examine_store(config: Config) -> AsyncIterator[Finding]:
    from ..errors import StoreUnavailable
    from ..store.client.faults import STORE_FAILURES
    from ..store.server.directory import holds_store
    from ..store.server.server_binary import StoreFailed, find_server

    promise = DurabilityPromise(config.durability, config.replicas_min)
    if config.redis:
        parsed = parse_store_url(config.redis)
        if parsed.scheme == "rediss" and not parsed.verifies_certificate:
            yield Finding(
                "warning",
                "the certificate of the store is not verified (ssl_cert_reqs=none): "
                "anyone between here and there can read and change everything",
            )
    if not config.redis and not holds_store(Path(config.data_dir)):
        # A check must not create a data directory.
        try:
            yield Finding("ok", f"the embedded store runs {find_server()}")
        except StoreFailed as exc:
            yield Finding("problem", str(exc))
        yield Finding(
            "ok", f"{config.data_dir} has no store yet; the first start creates it"
        )
        return
    try:
        async with (
            store_url(config) as url,
            open_redis(url, config) as redis,
        ):
            async for finding in _query_store(redis, promise, config.deployment):
                yield finding
    except StoreUnavailable as exc:
        yield Finding("problem", exc.reason)
    except StoreFailed as exc:
        yield Finding("problem", str(exc))
    except STORE_FAILURES as exc:
        yield Finding("problem", f"the store refused a command: {exc}")


async def _query_store(
    redis: RedisConnection, promise: DurabilityPromise, deployment: str
) -> AsyncIterator[Finding]:
    from ..store.client.health import read_all_facts, read_replicas
    from ..store.client.trial import find_forbidden, receive_announcement
    from ..store.scheduling.inspection import inspect_timetable

    stores = await read_all_facts(redis)
    if "" not in stores:
        for finding in await _judge_cluster(redis, stores):
            yield finding
    modes = []
    for place, facts in stores.items():
        findings = judge(facts, promise, of_cluster=place != "")
        modes.append(findings["mode"].verdict)
        for finding in findings.values():
            yield told_of(finding, place)
    for place, facts in (await read_replicas(redis)).items():
        for finding in judge_replica(facts, promise).values():
            yield told_of(finding, f"{place} (replica)")
    if "problem" in modes:
        return  # What follows is for a server with data.
    yield await _judge_deployment(redis, deployment)
    forbidden = await find_forbidden(
        redis, replicated=promise.durability == "replicated"
    )
    if forbidden is None:
        yield Finding("ok", "the store allows every command that is needed")
    else:
        yield Finding("problem", f"the store {forbidden}")
    if forbidden is None or "TIME" not in forbidden.commands:
        for server in await redis.servers():
            before = time.time()
            store_s = await server.now_ms() / 1_000
            place = "" if server is redis else server.address.where
            yield told_of(judge_clock((before + time.time()) / 2 - store_s), place)
    if forbidden is None:
        yield judge_timetable(*await inspect_timetable(redis))
    if problem := await receive_announcement(redis):
        yield Finding("problem", f"the store {problem}")
    else:
        yield Finding("ok", "the store delivers announcements")


async def _judge_cluster(
    redis: RedisConnection, stores: Mapping[str, StoreFacts]
) -> list[Finding]:
    """Judge whether every slot has a primary, and whether all primaries answer."""
    from ..store.client.cluster import ClusterConnection

    assert isinstance(redis, ClusterConnection)
    map_ = await redis.cluster.slots()
    replicas = sum(len(shard.replicas) for shard in map_.shards.values())
    count = f"{len(map_.shards)} primaries and {replicas} replicas"
    findings = [Finding("ok", f"the store is a cluster of {count}")]
    if map_.uncovered:
        findings.append(
            Finding(
                "problem",
                f"no primary has {map_.uncovered} slots of the cluster: what belongs "
                "there is unavailable. See redis-cli --cluster check",
            )
        )
    findings += [
        Finding("problem", f"{place}: the primary does not answer")
        for place in map_.shards
        if str(place) not in stores
    ]
    return findings


async def _judge_deployment(redis: RedisConnection, name: str) -> Finding:
    from ..core.deployment import LEVEL
    from ..errors import StoreUnavailable, StoreUnfit
    from ..store.deployment import find_deployment, read_levels

    try:
        found = await find_deployment(redis, name)
        levels = list((await read_levels(redis)).values()) if found else []
    except StoreUnfit as exc:
        return Finding("problem", exc.reasons)
    except StoreUnavailable as exc:
        return Finding("problem", exc.reason)
    where = f"the namespace {redis.keys.namespace!r}"
    if found is None:
        return Finding("ok", f"{where} is empty; the first start begins a deployment")
    text = f"{where} holds {found}, store format {found.format}, level {found.level}"
    if found.level < LEVEL:
        ready = sum(level >= LEVEL for level in levels)
        text += (
            f", which rises to {LEVEL} when all nodes read that ({ready} of "
            f"{len(levels)} do); then older versions cannot work on it any more"
        )
    return Finding("ok", text)
