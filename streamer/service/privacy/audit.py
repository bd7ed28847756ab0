"""
The audit log: what operators and backends did to an app and its players.

Decides which operations are recorded, what is written of the caller, and who may read
it. `Audit.recorded` is the one way to record an operation. Knows nothing of surfaces.

An entry is written after the operation, with its outcome. If it cannot be written, the
process's log gets it at level ``error``, and the operation stays done: it cannot be
undone. A caller that lacks the right leaves no entry, so that nobody can push entries
out of the log without one.

What the console does is recorded by the console, and some of it by the service that
does it, too. It is one entry, that of the service, which says more exactly what was
done; it gets the reason that the console was given.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from ...core.access.rights import Caller, KeyProof, PersonProof
from ...errors import Forbidden, Unavailable
from ...model import App, Log, Player
from ...store.access.apps import Apps, key_id
from ...store.client.connection import RedisConnection
from ...store.privacy.audit_log import AuditEntry, AuditLog, AuditRecord
from ...store.privacy.pseudonyms import Pseudonyms
from ..node.request_context import request_id

__all__ = ["Action", "Audit", "recording", "target_of"]

Action = Literal[
    "app.create",
    "app.update",
    "app.rotate",
    "app.quota",
    "app.delete",
    "key.create",
    "key.rotate",
    "key.revoke",
    "tokens.revoke",
    "publish.everyone",
    "withdraw",
    "purge",
    "schedule.cancel",
    "schedule.pause",
    "schedule.resume",
    "mute",
    "unmute",
    "player.export",
    "player.erase",
    "player.disconnect",
    "player.compensate",
    "player.mark",
    "player.subscribe",
    "player.unsubscribe",
    "schedule.move",
    "console.login",
    "console.logout",
    "console.end",
    "console.publish",
]
"""The operations that are recorded."""

_WORD_START: Final = re.compile(r"(?<=.)(?=[A-Z])")

_logger = logging.getLogger(__name__)


@dataclass
class _Yielding:
    """An operation that another one within it replaces, and how that one ended."""

    app: App | None
    player: Player | None
    reason: str
    replaced_by: str = ""


_yielding: Final[ContextVar[_Yielding | None]] = ContextVar("yielding", default=None)


def recording(
    audit: Audit | None,
    caller: Caller,
    action: Action,
    *,
    target: str = "",
    player: Player | None = None,
    reason: str = "",
) -> AbstractAsyncContextManager[dict[str, Any]]:
    """Return `Audit.recorded` for a caller's own app; without an audit, nothing."""
    if audit is None:
        return nullcontext({})
    return audit.recorded(
        caller.app, caller, action, target=target, player=player, reason=reason
    )


def target_of(audience: Log) -> str:
    """Return how an entry names an audience: ``everyone``, or ``topic:`` and a name."""
    return "everyone" if audience.topic is None else f"topic:{audience.topic}"


class Audit:
    """
    The audit logs, and what writes them.

    Args:
        redis: The connection to the store.
        apps: Knows the names of keys.
        names_players: Whether entries have the names of players beside their hashes.

    """

    def __init__(
        self, redis: RedisConnection, apps: Apps, *, names_players: bool = False
    ) -> None:
        self._log = AuditLog(redis)
        self._apps = apps
        self._names_players = names_players
        self.pseudonyms = Pseudonyms(redis)
        """The hashes of players in the entries."""

    @asynccontextmanager
    async def recorded(
        self,
        app: App | None,
        by: Caller | str,
        action: Action,
        *,
        target: str = "",
        player: Player | None = None,
        reason: str = "",
        yields: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """
        Record the operation in the block, with its outcome, when the block ends.

        Yields the details of the entry, JSON values, which the block may fill. They
        must not have the name of a player.

        Args:
            app: The app; None for an operation on apps.
            by: The caller, or who else: ``cli`` and a user.
            action: What is done.
            target: On what, if not on a player.
            player: On which player.
            reason: Why, in the words of the caller.
            yields: Whether an operation of the same app that is recorded within the
                block takes the place of this one. It gets the player and the reason.

        """
        details: dict[str, Any] = {}
        outcome = "done"
        around = _yielding.get()
        if around is not None and around.app != app:
            around = None
        if around is not None:
            player, reason = player or around.player, reason or around.reason
        this = _Yielding(app, player, reason) if yields else None
        if this is not None:
            _yielding.set(this)
        try:
            yield details
        except Forbidden:
            outcome = ""
            raise
        except (GeneratorExit, asyncio.CancelledError):
            outcome = "interrupted"
            raise
        except BaseException as error:
            outcome = _WORD_START.sub("_", type(error).__name__).lower()
            raise
        finally:
            if this is not None:
                _yielding.set(None)
            if outcome and (this is None or this.replaced_by != outcome):
                if around is not None:
                    around.replaced_by = outcome
                await self._write(
                    app,
                    by,
                    player,
                    AuditEntry(
                        action=action,
                        by="",
                        target=target,
                        reason=reason,
                        request_id=request_id(),
                        outcome=outcome,
                        details=details,
                    ),
                )

    async def page(
        self,
        caller: Caller,
        *,
        before: str = "",
        limit: int,
        player: Player | None = None,
        action: str = "",
    ) -> list[AuditRecord]:
        """
        Return the entries of the caller's app before an id, newest first.

        Args:
            caller: The reader.
            before: An id; "" for the newest entry.
            limit: Maximum number of entries.
            player: Only what was done to this player.
            action: Only this action.

        Raises:
            Forbidden: The caller lacks the scope ``admin:read``.
            StoreUnavailable: The store cannot be read.

        """
        caller.require_scope("admin:read")
        return await self.read(
            caller.app, before=before, limit=limit, player=player, action=action
        )

    async def read(
        self,
        app: App | None,
        *,
        before: str = "",
        limit: int,
        player: Player | None = None,
        action: str = "",
    ) -> list[AuditRecord]:
        """Return what `page` does, without checking rights; None: of all apps."""
        wanted = ""
        if app is not None and player is not None:
            wanted = await self.pseudonyms.of(Log(app, player))
        found: list[AuditRecord] = []
        if limit < 1:
            return found
        async for record in self._log.newest_first(app, before=before):
            if wanted and record.entry.player != wanted:
                continue
            if action and record.entry.action != action:
                continue
            found.append(record)
            if len(found) == limit:
                break
        return found

    async def about(self, log: Log) -> AsyncIterator[AuditRecord]:
        """Yield what was done to a player, newest first. Checks no rights."""
        wanted = await self.pseudonyms.of(log)
        async for record in self._log.newest_first(log.app):
            if record.entry.player == wanted:
                yield record

    async def forget(self, log: Log) -> None:
        """Remove what the app's log says of a player but the hash."""
        await self._log.forget(log.app, await self.pseudonyms.of(log))

    async def forget_hashes(self, app: App, hashes: Collection[str]) -> None:
        """
        Do what `forget` does for players whose names are not known, but their hashes.
        """
        found: set[str] = set()
        async for record in self._log.newest_first(app):
            found |= {record.entry.player, record.entry.by.removeprefix("token ")}
        for player in found.intersection(hashes):
            await self._log.forget(app, player)

    async def _write(
        self,
        app: App | None,
        by: Caller | str,
        player: Player | None,
        entry: AuditEntry,
    ) -> None:
        try:
            if isinstance(by, str):
                entry = msgspec.structs.replace(entry, by=by)
            else:
                entry = await self._with_caller(entry, by)
            if app is not None and player is not None:
                entry = msgspec.structs.replace(
                    entry,
                    player=await self.pseudonyms.of(Log(app, player)),
                    # What follows an erasure must not name the player again.
                    player_name=player
                    if self._names_players and entry.action != "player.erase"
                    else "",
                )
            await self._log.append(app, entry)
        except Unavailable as error:
            _logger.error(
                "could not write to the audit log: %s",
                error,
                extra={"fields": {"audit": msgspec.to_builtins(entry)}},
            )

    async def _with_caller(self, entry: AuditEntry, caller: Caller) -> AuditEntry:
        if isinstance(caller.proof, KeyProof):
            digest = caller.proof.digest
            (record,) = await self._apps.find_keys([digest])
            return msgspec.structs.replace(
                entry,
                by=f"key {key_id(digest)}",
                by_name=record.name if record is not None else "",
            )
        if isinstance(caller.proof, PersonProof):
            return msgspec.structs.replace(
                entry, by=f"oidc {caller.proof.subject}", by_name=caller.proof.name
            )
        if caller.player is None:
            return msgspec.structs.replace(entry, by="key")
        subject = await self.pseudonyms.of(Log(caller.app, caller.player))
        return msgspec.structs.replace(entry, by=f"token {subject}")
