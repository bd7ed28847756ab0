"""
The topics of players, and what they have muted.

Decides the rights that each operation requires. Knows audiences and mutes. Knows
nothing of surfaces.

A player may join the topics that its token names and no others: the backend decides
which. A backend key that may write to all players may subscribe any player to any
topic. Players mute with their own tokens.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from ...core.access.rights import Caller
from ...errors import NotFound
from ...model import Log, Player, Topic, topic_log
from ...store.logs.mutes import Mutes
from ..privacy.audit import Action, Audit, recording, target_of
from .audiences import PlayerAudiences

__all__ = ["JoinedTopic", "TopicOperations"]


class JoinedTopic(NamedTuple):
    """A topic that a player has joined."""

    topic: Topic
    muted: bool


class TopicOperations:
    """
    The operations on players' topics and mutes, with the rights of a caller.

    All methods raise Forbidden and StoreUnavailable. Those that change something also
    raise OutcomeUnknown; a retry is safe.

    Args:
        audiences: The audiences of players.
        mutes: The muted types in the store.
        audit: Records what a backend mutes for a player.

    """

    def __init__(
        self, audiences: PlayerAudiences, mutes: Mutes, audit: Audit | None = None
    ) -> None:
        self._audit = audit
        self._audiences = audiences
        self._mutes = mutes

    async def topics(self, caller: Caller, player: Player) -> list[JoinedTopic]:
        """Return the topics that a player has joined, by name."""
        caller.require_read(player)
        views = await self._audiences.views_of(Log(caller.app, player))
        return sorted(
            JoinedTopic(topic, view.muted)
            for view in views
            if (topic := view.log.topic) is not None
        )

    async def join(self, caller: Caller, player: Player, topic: Topic) -> None:
        """
        Subscribe a player to a topic. Idempotent.

        Raises:
            LimitReached: The player has joined the maximum number of topics.

        """
        _require_topic(caller, player, topic)
        await self._audiences.join(Log(caller.app, player), topic)

    async def leave(self, caller: Caller, player: Player, topic: Topic) -> None:
        """Unsubscribe a player from a topic. Idempotent."""
        _require_topic(caller, player, topic)
        await self._audiences.leave(Log(caller.app, player), topic)

    async def muted_types(self, caller: Caller, player: Player) -> list[str]:
        """Return the types of notifications that a player has muted, by name."""
        caller.require_read(player)
        return await self._mutes.of(Log(caller.app, player))

    async def mute_type(
        self, caller: Caller, player: Player, type_: str, *, muted: bool
    ) -> None:
        """
        Mute or unmute a type: a muted one is not stored for the player. Idempotent.

        Raises:
            LimitReached: The player has muted the maximum number of types.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        async with self._recorded(caller, player, f"type:{type_}", muted=muted):
            await (self._mutes.mute if muted else self._mutes.unmute)(log, type_)

    async def mute_topic(
        self, caller: Caller, player: Player, topic: Topic, *, muted: bool
    ) -> None:
        """
        Mute or unmute a topic: a muted one is not shown to the player. Idempotent.

        Raises:
            NotFound: The topic is to be muted, and the player has not joined it.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        audience = topic_log(caller.app, topic)
        async with self._recorded(caller, player, target_of(audience), muted=muted):
            joined = await self._audiences.views.mute(log, audience, muted=muted)
            if muted and not joined:
                raise NotFound("the topic")

    def _recorded(
        self, caller: Caller, player: Player, target: str, *, muted: bool
    ) -> AbstractAsyncContextManager[dict[str, Any]]:
        # What players mute for themselves is no operation on them.
        audit = self._audit if caller.player is None else None
        action: Action = "mute" if muted else "unmute"
        return recording(audit, caller, action, target=target, player=player)


def _require_topic(caller: Caller, player: Player, topic: Topic) -> None:
    if player == caller.player:
        caller.require_mark(player)
        caller.require_topic(topic)
    else:
        caller.require_write_all()
