"""
The erasure of players (GDPR, article 17).

Decides in which order a player's traces are removed, so that a crash at any point
leaves an erasure that any node completes, and what happens to what is stored meanwhile.
Knows nothing of surfaces.

In order: the name is noted, so that the erasure can be completed; the player's tokens
are revoked; open streams end; the player's keys are deleted, with the marks in
audiences taken from their tallies; everything else that names the player is searched
for and removed; the audit log forgets name and reasons; the player's keys are deleted
once more, with what was stored meanwhile; the nodes forget the player's connections,
refusals and writes; the name is replaced by its hash. The embedded store then rewrites
its log.

What is published to the player before the erasure has returned may be erased with the
rest, although it was acknowledged. What is published afterwards begins a new inbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ...core.access.rights import Caller
from ...core.streams.views import Audience, View
from ...errors import NotFound, StoreUnavailable
from ...model import App, Log, Player
from ...store.access.apps import Apps
from ...store.client.connection import RedisConnection, is_forbidden
from ...store.client.faults import StoreFaults
from ...store.presence.leases import alive_nodes
from ...store.privacy.erasures import ErasureList, Erasures, parse_list, print_list
from ...store.privacy.files import (
    list_path,
    read_list,
    rewrite_log,
    set_list_aside,
    write_list,
)
from ...store.privacy.pseudonyms import pseudonym
from ...store.privacy.traces import Traces
from ..inboxes.audiences import PlayerAudiences
from ..inspection.nodes import forget_player
from .audit import Audit

__all__ = ["Erased", "Erasing"]

INTERVAL_S: Final = 60.0
"""How often a node looks for erasures that another one has not completed."""

CLOSING_S: Final = 5.0
"""How long streams may take to close. Their leases are deleted in any case."""

POLL_S: Final = 0.02

PART: Final = "erasures"
"""The name of this part in `StoreFaults`."""

_logger = logging.getLogger(__name__)


class Erased(NamedTuple):
    """
    The result of an erasure.

    `removed` has the number of things removed, by kind. `in_files` is whether the files
    of the embedded store still have to be rewritten, which a node does soon.
    """

    removed: Mapping[str, int]
    in_files: bool


class Erasing:
    """
    Erases players, and completes what was begun.

    Args:
        redis: The connection to the store.
        apps: The apps.
        audiences: The audiences of players.
        audit: Records erasures, and forgets players.
        data_dir: The directory of the embedded store, None for an external one.
        faults: Told of what the store refuses.
        closing_s: How long streams may take to close.

    """

    def __init__(
        self,
        redis: RedisConnection,
        apps: Apps,
        audiences: PlayerAudiences,
        audit: Audit,
        *,
        data_dir: Path | None = None,
        faults: StoreFaults | None = None,
        closing_s: float = CLOSING_S,
    ) -> None:
        self._redis = redis
        self._apps = apps
        self._audiences = audiences
        self._audit = audit
        self._data_dir = data_dir
        self._faults = faults or StoreFaults()
        self._closing_s = closing_s
        self._traces = Traces(redis)
        self.erasures = Erasures(redis)
        self._due = asyncio.Event()

    async def erase(
        self, caller: Caller, player: Player, *, reason: str = ""
    ) -> Erased:
        """
        Erase a player of the caller's app. Idempotent. O(keys of the store).

        Raises:
            Forbidden: The caller lacks the scope ``admin:write``.
            StoreUnavailable, OutcomeUnknown: A node completes it if it has begun; a
                retry is safe.

        """
        caller.require_scope("admin:write")
        return await self.erase_for(caller, Log(caller.app, player), reason=reason)

    async def erase_for(
        self, by: Caller | str, log: Log, *, reason: str = ""
    ) -> Erased:
        """Do what `erase` does, without checking rights; see `Audit.recorded`."""
        if await self._apps.get(log.app) is None:
            raise NotFound(f"the app {log.app}")
        async with self._audit.recorded(
            log.app, by, "player.erase", player=log.player, reason=reason
        ) as details:
            details["removed"] = removed = await self._erase(log)
        self._due.set()
        return Erased(removed, in_files=self._data_dir is not None)

    async def run(self) -> None:
        """Complete erasures that were begun, periodically, until cancelled."""
        attempts = self._faults.attempts(PART)
        while True:
            try:
                async with attempts:
                    await self.complete_all()
            except Exception:
                # For example a record that cannot be decoded. It must not end the node;
                # the next round tries again.
                _logger.exception("could not complete an erasure")
            self._due.clear()
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def complete_all(self) -> None:
        """
        Complete every erasure that was begun, and rewrite the files of the store.

        Raises:
            StoreUnavailable, OutcomeUnknown: Not all of it was done.
            StoreFailed: The store could not rewrite its log.

        """
        await self._replay_beside()
        await self._complete_all()

    async def _complete_all(self) -> None:
        for log in await self.erasures.unfinished():
            await self._erase(log)
        in_files = await self.erasures.in_files()
        if not in_files:
            return
        if self._data_dir is not None:
            # First: a list that is lost with the store has to be there before.
            await self._write_list()
            await rewrite_log(self._redis)
        await self.erasures.rewritten(in_files)

    async def replay(self, listed: ErasureList) -> int:
        """
        Erase again the players of a list of whom the store has something.

        For a store that was restored from an older backup. What its own list has is
        left out: those players were erased before the backup, and what the store has
        of them came later. So is what is older than its app: that was another app of
        the same name. Returns how many there were. Raises as `complete_all`.
        """
        listed = await self._missing(listed)
        hashes: dict[App, set[str]] = {}
        for erasure in listed.erasures:
            hashes.setdefault(erasure.app, set()).add(erasure.player)
        found: set[Log] = set()
        for app, of_app in hashes.items():
            async for log in self._traces.names(app):
                if pseudonym(listed.key, log) in of_app:
                    found.add(log)
        # Before the list is the store's own: after a crash it would name nobody as
        # missing, and so everything has to be noted or done.
        for log in found:
            await self.erasures.begin(log)
        for app, of_app in hashes.items():
            await self._audit.forget_hashes(app, of_app)
        await self.erasures.adopt(listed)
        await self._complete_all()
        return len(found)

    async def _replay_beside(self) -> None:
        """
        Erase again whom the list beside the store knows, and the store does not.

        So an old data directory that was put in place of a newer one brings nobody
        back, and the list loses nothing when it is written. Raises as `complete_all`.
        """
        if self._data_dir is None:
            return
        namespace = self._redis.keys.namespace
        text = await asyncio.to_thread(read_list, self._data_dir, namespace)
        if text is None:
            return
        path = list_path(self._data_dir, namespace)
        try:
            listed = parse_list(text)
        except ValueError as error:
            aside = set_list_aside(self._data_dir, namespace)
            _logger.error(
                "%s is no list of erasures (%s); renamed to %s. If the store is older "
                "than it: streamer erasures --replay LIST, with a copy of the list",
                *(path, error, aside.name),
            )
            return
        missing = await self._missing(listed)
        if not missing.erasures:
            return
        is_foreign = missing.key != (await self.erasures.listed()).key
        if is_foreign:
            # Another store's: its hashes cannot be in one list with this one's. It
            # stays until it is replaced, when its players are erased.
            path = set_list_aside(self._data_dir, namespace, stays=True)
        found = await self.replay(missing)
        if is_foreign:
            # Else the next round would find it again.
            await self._write_list()
        if found or is_foreign:
            _logger.warning(
                "the store is older than %s: erased %d players again", path, found
            )

    async def _missing(self, listed: ErasureList) -> ErasureList:
        """Return a list without what is no concern of this store; see `replay`."""
        listed = await self.erasures.missing(listed)
        records = await self._apps.list() if listed.erasures else []
        began_ms = {record.name: record.created_at_ms for record in records}
        # Erasures whose app is missing stay: a backup may bring the app back.
        concerning = [
            it for it in listed.erasures if it.at_ms >= began_ms.get(it.app, 0)
        ]
        return listed._replace(erasures=concerning)

    async def _write_list(self) -> None:
        """Replace the list beside the embedded store by the store's own."""
        assert self._data_dir is not None
        text = print_list(await self.erasures.listed())
        await asyncio.to_thread(
            write_list, self._data_dir, self._redis.keys.namespace, text
        )

    async def _erase(self, log: Log) -> dict[str, int]:
        removed: Counter[str] = Counter()
        await self.erasures.begin(log)
        try:
            await self._apps.revoke_tokens(log.app, log.player)
        except NotFound:
            pass  # The app was deleted meanwhile.
        await self._end_streams(log)
        removed["keys"] += await self._remove_own(log)
        async for trace in self._traces.search(log):
            await self._traces.remove(log, trace)
            removed[_WORDS.get(trace.kind, "keys")] += 1
        await self._audit.forget(log)
        removed["keys"] += await self._remove_own(log)
        await self._forget_on_nodes(log)
        await self.erasures.complete(log)
        return dict(removed)

    async def _forget_on_nodes(self, log: Log) -> None:
        """Have the nodes forget connections, refusals and writes of a player."""
        try:
            await forget_player(self._redis, log)
        except StoreUnavailable as error:
            # A store that refuses these messages lets no node answer about the player.
            if not is_forbidden(error):
                raise

    async def _end_streams(self, log: Log) -> None:
        """End a player's streams, and wait until their nodes have released them."""
        try:
            await self._traces.announce_erasure(log)
        except StoreUnavailable as error:
            if not is_forbidden(error):
                raise
            return  # They end within 30 s: their tokens are revoked.
        until_s = asyncio.get_running_loop().time() + self._closing_s
        while asyncio.get_running_loop().time() < until_s:
            leases = await self._traces.connections(log)
            if not leases:
                return
            nodes = set(await alive_nodes(self._redis))
            if not any(lease.partition(b":")[0] in nodes for lease in leases):
                return
            # The store tells of no deletions.
            await asyncio.sleep(POLL_S)

    async def _remove_own(self, log: Log) -> int:
        """Delete the player's keys, and take the marks from the tallies."""
        views = await self._audiences.views.read(log)
        audiences = await self._audiences.read([view.log for view in views.views])
        counted = [
            (view, *await self._counted(log, view, audiences[view.log]))
            for view in views.views
        ]
        removed = await self._traces.remove_own(log)
        # Of several that erase the same player, one has deleted the views. If it stops
        # here, the tallies stay too high, by a player whom nothing names.
        if removed.views:
            read = [(view.log, runs) for view, runs, _ in counted]
            acked = [(view.log, runs) for view, _, runs in counted]
            await self._audiences.views.count("read", read, by=-1)
            await self._audiences.views.count("acked", acked, by=-1)
        return removed.keys

    async def _counted(
        self, log: Log, view: View, audience: Audience
    ) -> tuple[list[range], list[range]]:
        """Return the runs of offsets that a player counts as having read, and acked."""
        head = audience.head
        if head.is_zero:
            return [], []
        view = view.at(audience)
        first = max(audience.floor, view.joined.offset + 1)
        read = [
            offset
            for offset in range(first, head.offset + 1)
            if view.is_done(offset) and offset not in view.deleted
        ]
        acked = await self._audiences.views.acked_offset(log, view.log, head.epoch)
        seen = range(first, min(acked, head.offset) + 1)
        return _runs_of(read), [seen] if seen else []


def _runs_of(offsets: Iterable[int]) -> list[range]:
    """Return ascending offsets as the ranges that they fill."""
    runs: list[range] = []
    for offset in offsets:
        if runs and runs[-1].stop == offset:
            runs[-1] = range(runs[-1].start, offset + 1)
        else:
            runs.append(range(offset, offset + 1))
    return runs


_WORDS: Final = {
    "schedule": "schedules",
    "to": "recipients",
    "card": "cards",
    "ticket": "tickets",
}
"""How results name kinds of keys."""
