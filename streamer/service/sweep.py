"""
Ending what goes on when its credential was taken back.

Decides whether callers who were recognised once still would be, and ends the listeners
of those who would not. Knows apps, keys and readers. Knows nothing of tokens' form: a
caller carries a proof, which is what its credential was believed for.

A stream that is open asks for nothing, so nobody looks at its credential again. The
sweep does, all listeners of this node every `INTERVAL_S`. It reads the records anew and
by app, player and key, not by connection, and `PORTION` listeners at a time, so that
neither the store nor the others on this node notice. Credentials that end by
themselves are the sessions' own business, and end with the second. While the store is
away nothing ends: an outage is no revocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from ..core.access import Caller, KeyProof, TokenProof
from ..core.apps import AppRecord
from ..errors import TOKEN_INVALID, IssuerAway, Unavailable
from ..hub import Reader
from ..model import Log
from ..store.apps import Apps
from .key_sets import KeySets

__all__ = ["INTERVAL_S", "Sweep"]

INTERVAL_S: Final = 10.0
"""With the time of reading, what was taken back ends within half a minute."""

PORTION: Final = 500
"""Looking at as many takes a millisecond or two."""

_logger = logging.getLogger(__name__)


class Sweep:
    """
    The listeners of this node, each with its caller.

    Args:
        apps: Where records are read.
        key_sets: Where the keys of foreign issuers come from.
        clock: Unix time in seconds.
        interval_s: How often everybody is asked about.

    """

    def __init__(
        self,
        apps: Apps,
        key_sets: KeySets,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._apps = apps
        self._key_sets = key_sets
        self._clock = clock
        self._interval_s = interval_s
        self._callers: dict[Reader, Caller] = {}

    def add(self, reader: Reader, caller: Caller) -> None:
        """End `reader` from here on when its caller's credential does not hold."""
        self._callers[reader] = caller

    def remove(self, reader: Reader) -> None:
        """Forget a reader; one that was not added is passed over."""
        self._callers.pop(reader, None)

    def renew(self, reader: Reader, caller: Caller) -> None:
        """Go by a fresh credential from here on."""
        assert reader in self._callers
        self._callers[reader] = caller

    async def run(self) -> None:
        """Sweep for ever; runs until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.once()
            except Unavailable:
                _logger.info("credentials were not checked again: the store is away")
            except Exception:
                # A record that cannot be read, say. Those of the others are looked at
                # next time, and nobody's stream may end for it.
                _logger.exception("credentials were not checked again")

    async def once(self) -> None:
        """
        End every listener whose credential was taken back.

        Raises:
            Unavailable: The store is away; who was not looked at goes on.
        """
        watched = tuple(self._callers.items())
        for first in range(0, len(watched), PORTION):
            portion = watched[first : first + PORTION]
            withdrawn = await self.withdrawn(caller for _, caller in portion)
            ended = [
                reader
                for reader, caller in portion
                # Who has renewed or gone in the meantime is not meant.
                if caller in withdrawn and self._callers.get(reader) is caller
            ]
            for reader in ended:
                reader.end(TOKEN_INVALID)
            if ended:
                _logger.info("%d listeners' credentials were taken back", len(ended))

    async def withdrawn(self, callers: Iterable[Caller]) -> set[Caller]:
        """
        Return those whose credential would not be believed any more, whatever its time.

        Reads the records anew. What cannot be judged, because the issuer's keys are
        not to be had, is left as it is.

        Raises:
            Unavailable: The store is away.
        """
        asked = set(callers)
        by_token = {one for one in asked if isinstance(one.proof, TokenProof)}
        by_key = {one for one in asked if isinstance(one.proof, KeyProof)}
        return await self._withdrawn_tokens(by_token) | await self._withdrawn_keys(
            by_key
        )

    async def _withdrawn_tokens(self, callers: Collection[Caller]) -> set[Caller]:
        now_s = int(self._clock())
        names = tuple({caller.app for caller in callers})
        found = zip(names, await self._apps.get_many(names), strict=True)
        records = {name: record for name, record in found if record is not None}
        revoking = {
            name for name, record in records.items() if now_s < record.revoking_until_s
        }
        logs = tuple({_log(one) for one in callers if one.app in revoking})
        times = dict(zip(logs, await self._apps.revoked_before_s(logs), strict=True))
        withdrawn: set[Caller] = set()
        for name in names:
            own = {caller for caller in callers if caller.app == name}
            record = records.get(name)
            withdrawn |= (
                own
                if record is None
                else await self._disowned(record, own, times, now_s)
            )
        return withdrawn

    async def _disowned(
        self,
        record: AppRecord,
        callers: Collection[Caller],
        times: Mapping[Log, int],
        now_s: int,
    ) -> set[Caller]:
        try:
            keys = await self._key_sets.find(record, now_s=now_s)
        except IssuerAway:
            return set()
        return {
            caller
            for caller in callers
            if isinstance(caller.proof, TokenProof)
            and not record.vouches_for(
                caller.proof, keys, not_before_s=times.get(_log(caller), 0)
            )
        }

    async def _withdrawn_keys(self, callers: Collection[Caller]) -> set[Caller]:
        by_digest: dict[bytes, set[Caller]] = {}
        for caller in callers:
            assert isinstance(caller.proof, KeyProof)
            by_digest.setdefault(caller.proof.digest, set()).add(caller)
        digests = tuple(by_digest)
        withdrawn: set[Caller] = set()
        found = await self._apps.find_keys(digests)
        for digest, record in zip(digests, found, strict=True):
            if record is None or record.is_over(self._clock() * 1000):
                withdrawn |= by_digest[digest]
        return withdrawn


def _log(caller: Caller) -> Log:
    return Log(caller.app, caller.require_me())
