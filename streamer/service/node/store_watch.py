"""
Checks of the store: whether it still keeps the promises of the settings.

Decides whether a node may start on a store, when a store is checked, and what is
logged. Knows the settings. `core.store_health` judges what the store reports.

A node checks the store when it connects and every 30 s. It refuses to start on a store
that would break a promise. Later the same store makes the node not ready and is logged.
Streams stay open, and an operator who corrects the store's setting need not restart the
node.

A check tries every command that the server sends, since an access list may forbid one
that is first needed when a schedule is due. A command that is forbidden to any part of
the node leads to a check at once.

The store may move to another server. The connection for commands finds that out by the
replies that it gets, and connects again. The other connections may still lead to the
previous server, which announces nothing, so they are compared once a second.

A full store refuses what takes memory and serves the rest. It does not make a node
unready: all nodes share the store, so there would be none left to serve readers. When
that begins and when it ends is logged, within a second of the first refusal.

With ``appendfsync everysec`` a store whose disk does not keep up replies before its
append-only file is written, and reports that by a counter only. It is checked every two
seconds, and its durability is *degraded* while the counter increases.

Every primary of a cluster is checked, and every replica for what it would break as a
primary. A problem of one is a problem of the store. One that is away is logged, and
leaves the node ready while another one serves: all nodes share the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from ...config import Config
from ...core.store_health import (
    LOG_FAILS,
    DurabilityPromise,
    Finding,
    MemoryLevel,
    StoreFacts,
    Verdict,
    judge_all,
    judge_memory,
    judge_replica,
    memory_level,
    told_of,
    unready_reason,
    unsuitable_reasons,
    weakest_durability,
)
from ...errors import StoreUnavailable, StoreUnfit, Unavailable
from ...store.client.cluster import ClusterConnection, redis_at
from ...store.client.cluster_address import NO_CLUSTER
from ...store.client.connection import RedisConnection
from ...store.client.faults import STORE_FAILURES, StoreFaults
from ...store.client.health import read_all_facts, read_facts, read_replicas
from ...store.client.trial import find_forbidden
from ...store.deployment import enter_deployment
from .deployment_check import DeploymentCheck

__all__ = ["StoreWatch", "refuse_unsuitable_store"]

CHECK_S: Final = 30.0
CHECK_EVERYSEC_S: Final = 2.0
POLL_S: Final = 1.0
"""
The interval in which a new connection or an outage is noticed, and in which an
unsuitable store is checked.
"""

FAULT_POLL_S: Final = 0.25
"""The same during an outage: the node is ready again so soon after it."""

DEGRADED_S: Final = 30.0
"""How long durability stays degraded after the store last replied before its disk."""

RETRY_S: Final = 0.05

PART: Final = "store watch"
ALLOWED: Final = "allowed commands"
"""The names of the check and of its trial in `StoreFaults`."""

_SEVERITY: Final[dict[Verdict, int]] = {"ok": 0, "warning": 1, "problem": 2}
_LEVELS: Final[Sequence[MemoryLevel]] = ("ok", "nearly full", "full")
_LOG_LEVEL: Final = (logging.INFO, logging.WARNING, logging.ERROR)

_logger = logging.getLogger(__name__)


class OtherConnection(Protocol):
    """A connection that has to lead to the same server as the one for commands."""

    @property
    def server(self) -> str:
        """The name of the server's run; "" if not known."""

    def reconnect(self) -> None:
        """Close the connection; another one is opened."""


class StoreWatch:
    """
    The checks of the node's store.

    Args:
        redis: The connection to the store.
        config: The settings, which promise a durability.
        faults: What the store refuses, which makes the node not ready.
        others: The other connections to the store.
        confirmed: The connection for writes that replicas confirm, if there is one.
        clock_s: A monotonic clock.

    """

    def __init__(
        self,
        redis: RedisConnection,
        config: Config,
        *,
        faults: StoreFaults | None = None,
        others: Sequence[OtherConnection] = (),
        confirmed: RedisConnection | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._faults = faults or StoreFaults()
        self._others = (*others, confirmed) if confirmed is not None else others
        self._confirmed = confirmed
        self._clock_s = clock_s
        self._promise = _promise(config)
        self._deployment = DeploymentCheck(redis, config.deployment)
        self._facts: Mapping[str, StoreFacts] = {}
        """What each server reports, by its address; that of a single one is empty."""
        self._findings: Mapping[str, Finding] = {}
        self._checked_at_s = self._tried_at_s = float("-inf")
        self._connects = 0
        self._forbidden = 0
        """The count of forbidden commands after the last check."""
        self._degraded_at_s = float("-inf")
        self._degraded = False
        self._memory: MemoryLevel = "ok"
        self._refused = 0

    @property
    def memory(self) -> MemoryLevel:
        """How full the store was when it was checked last."""
        return self._memory

    @property
    def memory_used(self) -> int:
        """Bytes that count against the store's memory limit, at the last check."""
        return sum(facts.counted_memory for facts in self._facts.values())

    @property
    def memory_max(self) -> int:
        """The store's memory limit in bytes; 0 if it has none or does not report it."""
        limits = [facts.memory_limit for facts in self._facts.values()]
        return sum(limits) if all(limits) else 0

    @property
    def memory_by_shard(self) -> dict[str, tuple[int, int]]:
        """
        Memory and limit in bytes, as above, by the address of a cluster's primary.

        A single server has no address, so its key is empty. Without a server that has
        responded, and for a primary that is away, there is no item.
        """
        return {
            place: (facts.counted_memory, facts.memory_limit)
            for place, facts in self._facts.items()
        }

    @property
    def facts(self) -> StoreFacts | None:
        """
        What the store reported at the last check, None before the first.

        Of a cluster, what one of its primaries did.
        """
        return next(iter(self._facts.values()), None)

    @property
    def durability(self) -> str:
        """One of always, everysec, degraded, replicated, none and unknown."""
        durability = weakest_durability(self._facts.values())
        if self._degraded:
            return "degraded"
        if self._promise.durability == "replicated" and durability != "none":
            return "replicated"
        return "none" if durability == "no" else durability

    def unready_reason(self) -> str | None:
        """Return why publishes cannot be stored at present, None if they can."""
        if self._faults.reason is not None:
            return self._faults.reason
        if not self._facts:
            return "the store has not responded yet"
        reasons = [unready_reason(it, self._promise) for it in self._facts.values()]
        # All nodes share a cluster, so none is left out while it serves in part.
        return unsuitable_reasons(self._findings) or (
            reasons[0] if all(reasons) else None
        )

    async def run(self) -> None:
        """Check the store periodically until cancelled."""
        attempts = self._faults.attempts(PART)
        while True:
            async with attempts:
                await self._check_if_due()
            if attempts.failing:
                self._deployment.wait_for_judgement()
                # Another store may replace it: check as soon as one responds.
                self._checked_at_s = float("-inf")
            self._faults.tell_recovery()
            await asyncio.sleep(self._wait_s())

    def _wait_s(self) -> float:
        if not self._facts:
            return RETRY_S
        return FAULT_POLL_S if self._faults.is_failing() else POLL_S

    async def _check_if_due(self) -> None:
        if self._is_check_due():
            await self.check(tries_commands=self._is_trial_due())
        else:
            await self._ping()
            if await self._deployment.has_changed():
                await self.check(tries_commands=False)
        for other in self._others:
            if other.server and self._redis.server not in ("", other.server):
                other.reconnect()

    async def _ping(self) -> None:
        """Find a connection to a primary that leads nowhere while nothing is sent."""
        servers = await self._redis.servers()
        if len(servers) == 1:
            return  # The record of the deployment is read there.
        pings = [server.call("PING") for server in servers]
        for server, reply in zip(
            servers, await asyncio.gather(*pings, return_exceptions=True), strict=True
        ):
            if not isinstance(reply, BaseException):
                server.note_serving()
            elif not isinstance(reply, STORE_FAILURES):
                raise reply

    async def check(self, *, tries_commands: bool = True) -> None:
        """
        Check the store and log what has changed.

        Args:
            tries_commands: Whether to try every command, too.

        Raises:
            StoreUnavailable: The store takes no commands at present.
            ResponseError: It refuses one that is not optional.

        """
        # Before the facts, which ask for what a host may well forbid.
        was_forbidden = self._faults.forbidden != self._forbidden
        words = self._faults.forbidden_words if was_forbidden else ""
        stores = await self._read_facts()
        is_replica = all(facts.is_replica for facts in stores.values())
        self._checked_at_s = self._clock_s()
        self._connects = self._redis.connects
        self._update_degraded(stores)
        self._update_memory(stores)
        findings = judge_all(stores, self._promise)
        if tries_commands:
            for place, replica in (await read_replicas(self._redis)).items():
                for subject, finding in judge_replica(replica, self._promise).items():
                    findings[f"{subject} {place}"] = told_of(finding, place)
        try:
            findings["deployment"] = await self._deployment.judge()
        except StoreUnavailable:
            # A replica takes no writes. That it is one is the finding.
            if not is_replica:
                raise
        for subject in (findings.keys() | self._findings.keys()) - {"memory"}:
            _log_change(self._findings.get(subject), findings.get(subject))
        self._facts, self._findings = stores, findings
        # The trial writes, and this node may not write to another deployment.
        if not tries_commands or self._redis.terms.refusal:
            self._forbidden = self._faults.forbidden
            return
        try:
            await self._open_confirmed()
            await self._try_commands(words)
        except StoreUnavailable:
            # The writes of the trial have made the connection leave a replica.
            if not is_replica:
                raise

    async def _read_facts(self) -> Mapping[str, StoreFacts]:
        if isinstance(self._redis, ClusterConnection):
            return await read_all_facts(self._redis)
        return {"": await read_facts(self._redis)}

    async def _open_confirmed(self) -> None:
        """
        Connect for confirmed writes, which after a loss may wait longer than reads.

        The node would be ready again, and refuse publishes. Raises StoreUnavailable if
        no server of the store can be reached.
        """
        if self._confirmed is None:
            return
        servers = await self._confirmed.servers()
        opened = [server.open() for server in servers]
        results = await asyncio.gather(*opened, return_exceptions=True)
        failures = [it for it in results if it is not None]
        for failure in failures:
            if len(failures) == len(servers) or not isinstance(failure, STORE_FAILURES):
                raise failure

    async def _try_commands(self, forbidden_words: str) -> None:
        """Try all commands; `forbidden_words` is what was said of one, if any."""
        forbidden = await find_forbidden(
            self._redis, replicated=self._promise.durability == "replicated"
        )
        self._forbidden = self._faults.forbidden
        self._tried_at_s = self._clock_s()
        self._faults.passed()
        if forbidden is not None:
            self._faults.failed(ALLOWED, str(forbidden))
        elif forbidden_words:
            # A command may be allowed on some keys, those of the trial among them.
            self._faults.failed(ALLOWED, f"forbids a command: {forbidden_words}")
        else:
            self._faults.passed(ALLOWED)

    def _is_check_due(self) -> bool:
        if self.unready_reason() is not None:
            return True  # A missing replica, for example, may return at any time.
        if self._memory != "ok" or self._redis.errors["full"] != self._refused:
            return True
        everysec = weakest_durability(self._facts.values()) == "everysec"
        every_s = CHECK_EVERYSEC_S if everysec else CHECK_S
        return (
            self._redis.connects != self._connects
            or self._faults.forbidden != self._forbidden
            or self._clock_s() - self._checked_at_s >= every_s
        )

    def _is_trial_due(self) -> bool:
        """Whether a check that is due includes the trial, which takes 60 commands."""
        return (
            self._faults.is_failing()
            or self._faults.is_failing(ALLOWED)
            or self._redis.connects != self._connects
            or self._faults.forbidden != self._forbidden
            or any(facts.is_replica for facts in self._facts.values())
            or self._clock_s() - self._tried_at_s >= CHECK_S
        )

    def _update_memory(self, stores: Mapping[str, StoreFacts]) -> None:
        refused = self._redis.errors["full"] != self._refused
        self._refused = self._redis.errors["full"]
        levels = [
            (_LEVELS.index(memory_level(facts, self._memory, refused=refused)), facts)
            for facts in stores.values()
        ]
        # The fullest one refuses first.
        worst, facts = max(levels, key=lambda it: (it[0], it[1].counted_memory))
        level = _LEVELS[worst]
        if level == self._memory:
            return
        text = judge_memory(facts.maxmemory, facts.counted_memory).text
        if not facts.log_write_ok:
            text = LOG_FAILS
        if level == "full":
            _logger.error(
                "the store is full and refuses publishes, schedules and joins: %s", text
            )
        elif self._memory == "full":
            _logger.warning("the store is no longer full: %s", text)
        elif level == "nearly full":
            _logger.warning("%s", text)
        else:
            _logger.warning("the store is no longer nearly full: %s", text)
        self._memory = level

    def _update_degraded(self, stores: Mapping[str, StoreFacts]) -> None:
        for place, facts in stores.items():
            before = self._facts.get(place, facts)
            if facts.fsyncs_delayed > before.fsyncs_delayed:
                self._degraded_at_s = self._checked_at_s
        degraded = self._checked_at_s - self._degraded_at_s < DEGRADED_S
        if degraded and not self._degraded:
            _logger.error(
                "durability is degraded: the store's disk does not keep up; a crash of "
                "the store would lose acknowledged writes"
            )
        elif self._degraded and not degraded:
            _logger.warning("durability is restored: the store's disk keeps up")
        self._degraded = degraded


async def refuse_unsuitable_store(
    url: str, config: Config, *, faults: StoreFaults | None = None
) -> None:
    """
    Check the store before the node starts on it.

    A store that is unavailable is not judged: the node starts, and is not ready until
    the store responds.

    Args:
        url: The URL of the store.
        config: The settings, which promise a durability.
        faults: Told if the store is unavailable.

    Raises:
        StoreUnfit: It would break what the settings promise, or holds another
            deployment, or data of another format.

    """
    redis = redis_at(url, namespace=config.namespace, faults=faults)
    try:
        stores = await read_all_facts(redis)
        if reasons := unsuitable_reasons(judge_all(stores, _promise(config))):
            raise StoreUnfit(reasons)
        await enter_deployment(redis, config.deployment)
    except Unavailable as error:
        if isinstance(error, StoreUnavailable) and NO_CLUSTER in error.words:
            raise StoreUnfit(error.words) from error
        return
    finally:
        await redis.close()


def _promise(config: Config) -> DurabilityPromise:
    return DurabilityPromise(config.durability, config.replicas_min)


def _log_change(before: Finding | None, after: Finding | None) -> None:
    old_severity = _SEVERITY[before.verdict] if before else 0
    new_severity = _SEVERITY[after.verdict] if after else 0
    if after is not None and new_severity > old_severity:
        _logger.log(_LOG_LEVEL[new_severity], "%s", after.text)
    elif before is not None and new_severity < old_severity:
        _logger.warning("resolved: %s", before.text)
