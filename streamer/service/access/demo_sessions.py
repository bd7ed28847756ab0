"""
The sessions of the page ``/demo``: two players, a topic, and what is published to them.

Decides what somebody gets who has no credential. A session is a random name. Who has it
gets tokens of the session's two players, which read and mark their own inboxes and join
the session's topic, and may publish to these three, through `publish` alone: short
texts, a few a second on all nodes together, that expire within the hour. Nobody gets a
backend key, nor anything of another session or app.

So what a stranger can do is bounded: some megabytes that go away by themselves. Knows
the app ``demo``, the publisher, and the rates in the store.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from ...core.access.apps import AppRecord
from ...core.access.rights import Caller
from ...core.access.tokens import mint
from ...errors import NotFound
from ...model import App, Log, Notification, Player, Topic, topic_log
from ...store.access.apps import Apps
from ...store.access.rates import Rates
from ..publishing.drafts import Message
from ..publishing.publisher import Publisher

__all__ = [
    "DEMO_APP",
    "PLAYERS",
    "SESSION_CHARS",
    "TOKEN_TTL_S",
    "DemoPlayer",
    "DemoSession",
    "DemoSessions",
    "Recipient",
]

DEMO_APP: Final = App("demo")

PLAYERS: Final = ("alice", "bob")
"""The players of a session; in the store each has the session's name behind its own."""

SESSION_CHARS: Final = 24
"""Hexadecimal digits of a session's name: nobody guesses 96 bits."""

TOKEN_TTL_S: Final = 900
"""The page gets other tokens while it is open."""

_LIFETIME_MS: Final = 3_600_000
_SESSIONS_PER_S: Final = 10
_PUBLISHES_PER_S: Final = 20

Recipient = Literal["alice", "bob", "topic"]


class DemoPlayer(NamedTuple):
    """A player of a session: the name on the page, the name in the store, a token."""

    name: str
    player: Player
    token: str


class DemoSession(NamedTuple):
    """What a page needs. The tokens expire at `expires_at_s`, Unix time."""

    session: str
    topic: Topic
    players: tuple[DemoPlayer, ...]
    expires_at_s: int


class DemoSessions:
    """
    The sessions of the demo. They have no state: a session is its name.

    Args:
        apps: The apps in the store.
        publisher: Stores and announces what is published.
        rates: The rates of calls in the store.
        clock: Returns Unix time in seconds.

    """

    def __init__(
        self,
        apps: Apps,
        publisher: Publisher,
        rates: Rates,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._apps = apps
        self._publisher = publisher
        self._rates = rates
        self._clock = clock
        self._backend = Caller.from_key(DEMO_APP, frozenset({"notifications:send"}))

    async def open(self, session: str | None = None) -> DemoSession:
        """
        Return tokens for a session: of a new one, or fresh ones for one that is open.

        Raises:
            NotFound: The store has no app ``demo`` whose tokens this server signs.
            RateLimited: Too many sessions are opened at once.
            StoreUnavailable: The store is unavailable.

        """
        record = await self._record()
        await self._rates.count(DEMO_APP, "demo session", per_s=_SESSIONS_PER_S)
        session = session or secrets.token_hex(SESSION_CHARS // 2)
        topic = _topic(session)
        players = [_player(name, session) for name in PLAYERS]
        revoked_s = await self._apps.revoked_before_s(
            [Log(DEMO_APP, player) for player in players]
        )
        # A token must not have been issued before a revocation, nor in its second.
        now_s = max(int(self._clock()), record.not_before_s, *revoked_s)
        return DemoSession(
            session,
            topic,
            tuple(
                DemoPlayer(
                    name,
                    player,
                    mint(
                        record,
                        player,
                        permissions=["notification:player:self:read"],
                        topics=[topic],
                        ttl_s=TOKEN_TTL_S,
                        now_s=now_s,
                    ),
                )
                for name, player in zip(PLAYERS, players, strict=True)
            ),
            now_s + TOKEN_TTL_S,
        )

    async def publish(
        self, session: str, to: Recipient, notification: Notification
    ) -> str | None:
        """
        Publish to a player or to the topic of a session; return the notification's id.

        Returns None if the player has muted the type. The notification expires within
        an hour.

        Raises:
            NotFound: The store has no app ``demo``.
            RateLimited: Too much is published at once.
            Invalid: The notification is invalid.
            OverQuota: A quota of the app is used up.
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: It may have been stored.

        """
        await self._record()
        await self._rates.count(DEMO_APP, "demo publish", per_s=_PUBLISHES_PER_S)
        if to == "topic":
            log = topic_log(DEMO_APP, _topic(session))
        else:
            log = Log(DEMO_APP, _player(to, session))
        message = Message([log], notification, ttl_ms=_LIFETIME_MS)
        sent = await self._publisher.send(self._backend, [message])
        ((_, position),) = sent.positions[0]
        return None if position is None else position.id

    async def _record(self) -> AppRecord:
        record = await self._apps.get(DEMO_APP)
        if record is None or record.algorithm != "HS256":
            raise NotFound("the app demo")
        return record


def _player(name: str, session: str) -> Player:
    return Player(f"{name}-{session}")


def _topic(session: str) -> Topic:
    return Topic(f"demo/{session}")
