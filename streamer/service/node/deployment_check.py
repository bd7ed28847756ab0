"""
Checks that the store still holds the deployment of this node.

Decides what it means if the record is another one, or is gone. Knows the record only by
`store.deployment`. A store that was emptied gets the record back, so that a node that
starts later does not take its data for those of format 1.
"""

from __future__ import annotations

import logging

from redis.exceptions import ResponseError

from ...core.deployment import Deployment
from ...core.store_health import Finding
from ...errors import OutcomeUnknown, StoreUnavailable, StoreUnfit
from ...store.client.connection import RedisConnection, is_forbidden
from ...store.deployment import (
    enter_deployment,
    read_deployment,
    restore_deployment,
)

__all__ = ["DeploymentCheck"]

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

    async def judge(self) -> Finding:
        """Judge whether the node may work on the store. Raises StoreUnavailable."""
        try:
            found = await self._find()
        except StoreUnfit as error:
            return Finding("problem", error.reasons)
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
            return Finding(
                "problem", f"the store holds {found}, and this node is of {self._own}"
            )
        return Finding("ok", f"the store holds {found}")

    async def _find(self) -> Deployment:
        if self._own is None:
            self._own = await enter_deployment(self._redis, self._name)
            return self._own
        found = await read_deployment(self._redis, self._name)
        if found is None:
            _logger.warning(
                "the store has lost the record of %s: was it emptied?", self._own
            )
            return await restore_deployment(self._redis, self._own)
        return found
