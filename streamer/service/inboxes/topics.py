"""
What players have to do with topics, and what they do not want.

Decides the rights each needs. Knows the audiences and the mutes. Knows nothing of
surfaces.

A player's own token opens the topics that it names, and no others: which a player may
join is the backend's to say. A backend key, which may write to everybody, lets any
player join and leave. What a player does not want it says itself.
"""

from __future__ import annotations

from typing import NamedTuple

from ...core.access.rights import Caller
from ...errors import NotFound
from ...model import Log, Player, Topic, topic_log
from ...store.logs.mutes import Mutes
from .audiences import PlayerAudiences

__all__ = ["JoinedTopic", "TopicOperations"]


class JoinedTopic(NamedTuple):
    """A topic that a player has joined."""

    topic: Topic
    muted: bool


class TopicOperations:
    """
    What a caller may do with players' topics and mutes.

    All raise Forbidden and StoreUnavailable; those that change something OutcomeUnknown
    too, and a repetition is harmless.

    Args:
        audiences: Who belongs to what.
        mutes: Which types players do not want.

    """

    def __init__(self, audiences: PlayerAudiences, mutes: Mutes) -> None:
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
        Let a player have what a topic is sent from now on.

        Raises:
            LimitReached: The player has joined as many topics as it may.

        """
        _require_topic(caller, player, topic)
        await self._audiences.join(Log(caller.app, player), topic)

    async def leave(self, caller: Caller, player: Player, topic: Topic) -> None:
        """Let a player have nothing of a topic any more."""
        _require_topic(caller, player, topic)
        await self._audiences.leave(Log(caller.app, player), topic)

    async def muted_types(self, caller: Caller, player: Player) -> list[str]:
        """Return the types of notification that a player has muted, by name."""
        caller.require_read(player)
        return await self._mutes.of(Log(caller.app, player))

    async def mute_type(
        self, caller: Caller, player: Player, type_: str, *, muted: bool
    ) -> None:
        """
        Store nothing of a type for a player from now on, or store it again.

        Raises:
            LimitReached: The player has muted as many types as it may.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        await (self._mutes.mute if muted else self._mutes.unmute)(log, type_)

    async def mute_topic(
        self, caller: Caller, player: Player, topic: Topic, *, muted: bool
    ) -> None:
        """
        Show a player nothing of a topic until it is shown again.

        Raises:
            NotFound: The player has not joined it, so there is nothing to mute.

        """
        caller.require_mark(player)
        log = Log(caller.app, player)
        audience = topic_log(caller.app, topic)
        joined = await self._audiences.views.mute(log, audience, muted=muted)
        if muted and not joined:
            raise NotFound("the topic")


def _require_topic(caller: Caller, player: Player, topic: Topic) -> None:
    if player == caller.player:
        caller.require_mark(player)
        caller.require_topic(topic)
    else:
        caller.require_write_all()
