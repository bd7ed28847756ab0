"""
Keeping an eye on the store: is it still the one that was promised?

Decides whether a node may start on a store, and when one that was good stops being so.
Knows what the settings promise. What the store's words mean is decided by
`core.store_health`.

A store is asked when the node connects and every 30 s. At the start a store that would
break a promise is refused. Later on the same makes the node not ready and is logged:
its streams are of no less use than before, and an operator who turns the setting back
needs no restart.

Under ``everysec`` a store whose disk cannot keep up answers before the log is written,
and tells so by a counter only. It is asked every two seconds then, and is *degraded*
while the counter goes up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from ...config import Config
from ...core.store_health import (
    DurabilityPromise,
    Finding,
    StoreFacts,
    Verdict,
    durability_of,
    judge,
    unready_reason,
    unsuitable_reasons,
)
from ...errors import StoreUnavailable, StoreUnfit
from ...store.client.connection import RedisConnection
from ...store.client.health import read_facts

__all__ = ["StoreWatch", "refuse_unsuitable_store"]

CHECK_S: Final = 30.0
CHECK_EVERYSEC_S: Final = 2.0
POLL_S: Final = 1.0
"""
How soon a connection that was made anew is noticed, and an absence looked into; and how
often a store that would not do is looked at.
"""

DEGRADED_S: Final = 30.0
"""How long a store counts as degraded after it last answered ahead of its disk."""

RETRY_S: Final = 0.05

_SEVERITY: Final[dict[Verdict, int]] = {"ok": 0, "warning": 1, "problem": 2}
_LOG_LEVEL: Final = (logging.INFO, logging.WARNING, logging.ERROR)

_logger = logging.getLogger(__name__)


class StoreWatch:
    """
    The node's opinion of its store.

    Args:
        redis: The way to the store.
        config: What is promised.
        clock_s: A monotonic clock.

    """

    def __init__(
        self,
        redis: RedisConnection,
        config: Config,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._clock_s = clock_s
        self._promise = _promise(config)
        self._facts: StoreFacts | None = None
        self._findings: Mapping[str, Finding] = {}
        self._checked_at_s = float("-inf")
        self._connects = 0
        self._degraded_at_s = float("-inf")
        self._degraded = False

    @property
    def durability(self) -> str:
        """What is in force: always, everysec, degraded, replicated, none, unknown."""
        if self._facts is None:
            return "unknown"
        durability = durability_of(self._facts)
        if self._degraded:
            return "degraded"
        if self._promise.durability == "replicated" and durability != "none":
            return "replicated"
        return "none" if durability == "no" else durability

    def unready_reason(self) -> str | None:
        """Say why this store would not do at present, None if it would."""
        if self._facts is None:
            return "the store has not responded yet"
        return unsuitable_reasons(self._findings) or unready_reason(
            self._facts, self._promise
        )

    async def run(self) -> None:
        """Look, again and again; runs until cancelled."""
        while True:
            try:
                if self._is_check_due():
                    await self.check()
            except StoreUnavailable:
                # Another may answer in its place, so it is looked at first thing.
                self._checked_at_s = float("-inf")
            await asyncio.sleep(RETRY_S if self._facts is None else POLL_S)

    async def wait_first_check(self) -> None:
        """Look until the store was seen once."""
        while self._facts is None:
            try:
                await self.check()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)

    async def check(self) -> None:
        """Ask the store and note what has changed. Raises StoreUnavailable."""
        facts = await read_facts(self._redis)
        self._checked_at_s = self._clock_s()
        self._connects = self._redis.connects
        self._update_degraded(facts)
        findings = judge(facts, self._promise)
        for subject in findings.keys() | self._findings.keys():
            _log_change(self._findings.get(subject), findings.get(subject))
        self._facts, self._findings = facts, findings

    def _is_check_due(self) -> bool:
        if self.unready_reason() is not None:
            return True  # What it lacks, a replica say, may have come a moment later.
        everysec = self._facts is not None and durability_of(self._facts) == "everysec"
        every_s = CHECK_EVERYSEC_S if everysec else CHECK_S
        return (
            self._redis.connects != self._connects
            or self._clock_s() - self._checked_at_s >= every_s
        )

    def _update_degraded(self, facts: StoreFacts) -> None:
        before = self._facts.fsyncs_delayed if self._facts else facts.fsyncs_delayed
        if facts.fsyncs_delayed > before:
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


async def refuse_unsuitable_store(url: str, config: Config) -> None:
    """
    Look at the store before anything is started on it.

    A store that is away is not judged: the node waits for it, and is not ready.

    Raises:
        StoreUnfit: It would break what the settings promise.

    """
    redis = RedisConnection(url)
    try:
        facts = await read_facts(redis)
    except StoreUnavailable:
        return
    finally:
        await redis.close()
    if reasons := unsuitable_reasons(judge(facts, _promise(config))):
        raise StoreUnfit(reasons)


def _promise(config: Config) -> DurabilityPromise:
    return DurabilityPromise(config.durability, config.replicas_min)


def _log_change(before: Finding | None, after: Finding | None) -> None:
    old_severity = _SEVERITY[before.verdict] if before else 0
    new_severity = _SEVERITY[after.verdict] if after else 0
    if after is not None and new_severity > old_severity:
        _logger.log(_LOG_LEVEL[new_severity], "%s", after.text)
    elif before is not None and new_severity < old_severity:
        _logger.warning("resolved: %s", before.text)
