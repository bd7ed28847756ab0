"""
The revocation check: ends open streams and polls whose credential was revoked.

Decides whether authenticated callers would still be authenticated, and ends the readers
of those that would not. Knows apps, keys and readers. Knows nothing of the format of
tokens: a caller has a proof, with the claims and the key for which its credential was
accepted.

An open stream sends no requests, so its credential is not checked again. This check
does that for all readers of the node every `INTERVAL_S`. It reads the current records
by app, player and key, not by connection. If an app's record and keys have not changed
since the last check, and none of its players' tokens are being revoked, the last result
holds for its readers. The others are checked in portions of `PORTION`, so that neither
the store nor this node is blocked. Sessions end by themselves when their credential
expires. While the store is unavailable nothing ends: an outage is not a revocation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from ...core.access.apps import AppRecord
from ...core.access.rights import Caller, KeyProof, TokenProof
from ...core.access.signatures import Algorithm
from ...errors import TOKEN_INVALID, IssuerUnavailable, Unavailable
from ...hub import Reader
from ...model import App, Log
from ...store.access.apps import Apps
from ...store.client.faults import StoreFaults
from .key_sets import KeySets

__all__ = ["INTERVAL_S", "RevocationCheck"]

INTERVAL_S: Final = 10.0
"""With the time that the check takes, revoked credentials end within 30 s."""

PART: Final = "revocation check"
"""The name of this part in `StoreFaults`."""

PORTION: Final = 500
"""Readers checked at a time, which takes a millisecond or two."""

_logger = logging.getLogger(__name__)


class _TokenRules(NamedTuple):
    """
    The record and the keys that verify an app's tokens; keys by algorithm and name.
    """

    record: AppRecord
    keys: frozenset[tuple[Algorithm, str]]


class RevocationCheck:
    """
    The readers of this node with their callers, and the check of all of them.

    Args:
        apps: The records in the store.
        key_sets: The keys of apps.
        clock: Unix time in seconds.
        interval_s: The time between two checks.
        faults: Told of what the store refuses.

    """

    def __init__(
        self,
        apps: Apps,
        key_sets: KeySets,
        *,
        clock: Callable[[], float] = time.time,
        interval_s: float = INTERVAL_S,
        faults: StoreFaults | None = None,
    ) -> None:
        self._faults = faults or StoreFaults()
        self._apps = apps
        self._key_sets = key_sets
        self._clock = clock
        self._interval_s = interval_s
        self._callers: dict[Reader, Caller] = {}
        self._unchecked: set[Reader] = set()
        """Readers that no check has included yet."""
        self._rules: dict[App, _TokenRules] = {}
        """The rules of the last check."""

    def add(self, reader: Reader, caller: Caller) -> None:
        """Add a reader, which ends when its caller's credential is revoked."""
        self._callers[reader] = caller
        self._unchecked.add(reader)

    def remove(self, reader: Reader) -> None:
        """Remove a reader; unknown ones are ignored."""
        self._callers.pop(reader, None)
        self._unchecked.discard(reader)

    def renew(self, reader: Reader, caller: Caller) -> None:
        """Replace the credential of a reader."""
        assert reader in self._callers
        self.add(reader, caller)

    async def run(self) -> None:
        """Check all readers periodically until cancelled."""
        attempts = self._faults.attempts(PART)
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                async with attempts:
                    await self.check_all()
            except Exception:
                # For example a record that cannot be decoded. It must not end the
                # node's streams; the next check tries again.
                _logger.exception("could not check credentials")

    async def check_all(self) -> None:
        """
        End every reader whose credential was revoked.

        Raises:
            Unavailable: The store is unavailable; readers not checked stay open.
        """
        unchecked, self._unchecked = self._unchecked, set()
        try:
            rules = await self._read_rules()
            await self._check(self._to_check(unchecked, rules))
        except BaseException:
            self._unchecked |= unchecked & self._callers.keys()
            raise
        self._rules = rules

    async def _read_rules(self) -> dict[App, _TokenRules]:
        """
        Return the rules of apps, except those whose players have rules of their own.
        """
        names = tuple({caller.app for caller in self._callers.values()})
        now_s = int(self._clock())
        rules = {}
        for name, record in (await self._records(names)).items():
            if record is None or now_s < record.revoking_until_s:
                continue
            with contextlib.suppress(IssuerUnavailable):
                keys = await self._key_sets.keys_of(record, now_s=now_s)
                named = frozenset((key.algorithm, key.name) for key in keys.keys)
                rules[name] = _TokenRules(record, named)
        return rules

    def _to_check(
        self, unchecked: Collection[Reader], rules: Mapping[App, _TokenRules]
    ) -> list[tuple[Reader, Caller]]:
        """Return the readers for which the last result may no longer hold."""
        unchanged = {
            app for app, app_rules in rules.items() if self._rules.get(app) == app_rules
        }
        return [
            (reader, caller)
            for reader, caller in self._callers.items()
            if caller.app not in unchanged
            or reader in unchecked
            or isinstance(caller.proof, KeyProof)
        ]

    async def _check(self, to_check: Sequence[tuple[Reader, Caller]]) -> None:
        for first in range(0, len(to_check), PORTION):
            portion = to_check[first : first + PORTION]
            revoked = await self._find_revoked_of([caller for _, caller in portion])
            ended = [
                reader
                for reader, caller in portion
                # A reader may have renewed its credential or left meanwhile.
                if caller in revoked and self._callers.get(reader) is caller
            ]
            for reader in ended:
                reader.end(TOKEN_INVALID)
            if ended:
                _logger.info(
                    "ended %d streams and polls: credentials revoked", len(ended)
                )

    async def _records(self, names: Sequence[App]) -> dict[App, AppRecord | None]:
        """Return the records of apps, without those that are damaged."""
        try:
            return dict(zip(names, await self._apps.get_many(names), strict=True))
        except Exception as error:
            if isinstance(error, Unavailable):
                raise
            if len(names) == 1:
                _logger.error("could not read the record of %s: %s", names[0], error)
                return {}
        records: dict[App, AppRecord | None] = {}
        for name in names:
            records |= await self._records([name])
        return records

    async def _find_revoked_of(self, callers: Collection[Caller]) -> set[Caller]:
        """
        Return what `find_revoked` does, without callers whose records are damaged.

        What is damaged is told apart by app, and then by caller.
        """
        try:
            return await self.find_revoked(callers)
        except Exception as error:
            if isinstance(error, Unavailable):
                raise
            distinct = set(callers)
            if len(distinct) == 1:
                app = next(iter(distinct)).app
                _logger.error("could not check a credential in %s: %s", app, error)
                return set()
        by_app: dict[App, set[Caller]] = {}
        for caller in distinct:
            by_app.setdefault(caller.app, set()).add(caller)
        parts: Iterable[Collection[Caller]] = by_app.values()
        if len(by_app) == 1:
            parts = [{caller} for caller in distinct]
        revoked: set[Caller] = set()
        for part in parts:
            revoked |= await self._find_revoked_of(part)
        return revoked

    async def find_revoked(self, callers: Iterable[Caller]) -> set[Caller]:
        """
        Return the callers whose credential was revoked, regardless of its expiry.

        Reads the current records. Callers whose issuer's keys cannot be retrieved are
        not included.

        Raises:
            Unavailable: The store is unavailable.
        """
        distinct = set(callers)
        by_token = {one for one in distinct if isinstance(one.proof, TokenProof)}
        by_key = {one for one in distinct if isinstance(one.proof, KeyProof)}
        return await self._revoked_tokens(by_token) | await self._revoked_keys(by_key)

    async def _revoked_tokens(self, callers: Collection[Caller]) -> set[Caller]:
        now_s = int(self._clock())
        names = tuple({caller.app for caller in callers})
        pairs = zip(names, await self._apps.get_many(names), strict=True)
        records = {name: record for name, record in pairs if record is not None}
        revoking = {
            name for name, record in records.items() if now_s < record.revoking_until_s
        }
        logs = tuple({_log(one) for one in callers if one.app in revoking})
        times = dict(zip(logs, await self._apps.revoked_before_s(logs), strict=True))
        revoked: set[Caller] = set()
        for name in names:
            own = {caller for caller in callers if caller.app == name}
            record = records.get(name)
            revoked |= (
                own
                if record is None
                else await self._not_accepted(record, own, times, now_s)
            )
        return revoked

    async def _not_accepted(
        self,
        record: AppRecord,
        callers: Collection[Caller],
        times: Mapping[Log, int],
        now_s: int,
    ) -> set[Caller]:
        try:
            keys = await self._key_sets.keys_of(record, now_s=now_s)
        except IssuerUnavailable:
            return set()
        return {
            caller
            for caller in callers
            if isinstance(caller.proof, TokenProof)
            and not record.accepts(
                caller.proof, keys, not_before_s=times.get(_log(caller), 0)
            )
        }

    async def _revoked_keys(self, callers: Collection[Caller]) -> set[Caller]:
        by_digest: dict[bytes, set[Caller]] = {}
        for caller in callers:
            assert isinstance(caller.proof, KeyProof)
            by_digest.setdefault(caller.proof.digest, set()).add(caller)
        digests = tuple(by_digest)
        revoked: set[Caller] = set()
        records = await self._apps.find_keys(digests)
        for digest, record in zip(digests, records, strict=True):
            if record is None or record.is_expired(self._clock() * 1000):
                revoked |= by_digest[digest]
        return revoked


def _log(caller: Caller) -> Log:
    return Log(caller.app, caller.require_player())
