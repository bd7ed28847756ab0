"""
Checks that the store still holds the deployment of this node.

Decides what it means if the record is another one, or is gone, and when its level is
raised. Knows the record only by `store.deployment`. A store that was emptied gets the
record back, so that a node that starts later does not take its data for those of
format 1.

While the store holds what this node must not work on (another deployment, a newer
format, a higher level), the node writes nothing there: calls that write fail as if the
store were unavailable. It reads the record every second, and goes on when it may.
"""

from __future__ import annotations

import logging
from typing import Final

from redis.exceptions import ResponseError

from ...core.deployment import LEVEL, Deployment
from ...core.store_health import Finding
from ...errors import OutcomeUnknown, StoreUnavailable, StoreUnfit
from ...store.client.connection import RedisConnection, is_forbidden
from ...store.deployment import (
    enter_deployment,
    judge_record,
    raise_level,
    read_record,
    restore_deployment,
)

__all__ = ["DeploymentCheck"]

UNKNOWN: Final = "the deployment that it holds is not known yet"
"""Why a node does not write that has not read the record."""

_logger = logging.getLogger(__name__)


class DeploymentCheck:
    """
    The deployment of a node: the one that its first check finds or begins.

    Args:
        redis: The connection to the store.
        name: The name that it must have; empty means any.

    """

    def __init__(self, redis: RedisConnection, name: str) -> None:
        self._redis = redis
        self._name = name
        self._own: Deployment | None = None
        redis.terms.level = 0  # Until the record says more.
        self._seen: bytes | None = None
        """The record that was judged last."""

    async def has_changed(self) -> bool:
        """
        Whether the record is another one than was judged last. Raises Unavailable.

        A record that may not be read has not changed.
        """
        try:
            return await read_record(self._redis) != self._seen
        except (ResponseError, StoreUnavailable) as error:
            if not is_forbidden(error):
                raise
            return False

    def wait_for_judgement(self) -> None:
        """Write nothing before the first judgement, as the store was unavailable."""
        if self._own is None and not self._redis.terms.refusal:
            self._redis.terms.refusal = UNKNOWN

    async def judge(self) -> Finding:
        """Judge whether the node may work on the store. Raises StoreUnavailable."""
        try:
            found = await self._find()
        except StoreUnfit as error:
            return self._refuse(error.reasons)
        except (ResponseError, StoreUnavailable) as error:
            if not is_forbidden(error):
                raise
            words = getattr(error, "words", str(error))
            return Finding(
                "problem", f"the store does not show its deployment: {words}"
            )
        except OutcomeUnknown as error:
            # To begin a deployment, or to restore its record, is repeated.
            raise StoreUnavailable from error
        assert self._own is not None
        if found.id != self._own.id:
            return self._refuse(
                f"the store holds {found}, and this node is of {self._own}"
            )
        return Finding("ok", f"the store holds {found}")

    def _refuse(self, reasons: str) -> Finding:
        self._redis.terms.refusal = reasons
        return Finding("problem", reasons)

    async def _find(self) -> Deployment:
        found = await self._find_record()
        assert self._own is not None
        if found.id == self._own.id:
            self._redis.terms.refusal = ""
            if found.level < LEVEL:
                found = await self._raise_level(found)
        return found

    async def _raise_level(self, found: Deployment) -> Deployment:
        try:
            raised = await raise_level(self._redis, found)
        except (ResponseError, OutcomeUnknown) as error:
            # Older versions go on as before, and the next check tries again.
            _logger.info("could not raise the level of %s: %s", found, error)
            return found
        if raised.level > found.level:
            _logger.warning(
                "all nodes read level %d of store format %d: from now on older "
                "versions of streamer cannot work on %s",
                raised.level,
                raised.format,
                raised,
            )
            self._own = raised
        return raised

    async def _find_record(self) -> Deployment:
        if self._own is None:
            self._own = await enter_deployment(self._redis, self._name)
        self._seen = await read_record(self._redis)
        if self._seen is not None:
            return judge_record(self._redis, self._seen, self._name)
        _logger.warning(
            "the store has lost the record of %s: was it emptied?", self._own
        )
        return await restore_deployment(self._redis, self._own)
