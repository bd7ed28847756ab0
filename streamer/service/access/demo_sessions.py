"""
The sessions of the page ``/demo``: two players, a topic, and what is published to them.

Decides what somebody gets who has no credential. A session is a random name, usable for
an hour. Who has it gets tokens of the session's two players, which read and mark their
own inboxes and join the session's topic, and may publish to these three, through
`publish` alone: short texts, a few a second on all nodes together. Nobody gets a
backend key, nor anything of another session or app.

What is stored for a session is removed when the last of its tokens has expired: a
notification that has expired stays in its log, and what a player mutes never expires.
The opening of a session removes old ones, so nothing grows while nobody opens any.
Knows the app ``demo``, the publisher, and the rates and the sandboxes in the store.
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
from ...store.access.sandboxes import Sandboxes
from ..publishing.drafts import Message
from ..publishing.publisher import Publisher

__all__ = [
    "DEMO_APP",
    "OPEN_S",
    "PLAYERS",
    "SESSION_CHARS",
    "TOKEN_TTL_S",
    "DemoPlayer",
    "DemoSession",
    "DemoSessions",
    "Recipient",
    "demo_logs",
]

DEMO_APP: Final = App("demo")

PLAYERS: Final = ("alice", "bob")
"""The players of a session; in the store each has the session's name behind its own."""

SESSION_CHARS: Final = 24
"""Hexadecimal digits of a session's name: nobody guesses 96 bits."""

TOKEN_TTL_S: Final = 900
"""The page gets other tokens while it is open."""

OPEN_S: Final = 3_600
"""How long a session can be continued and published to."""

_REMOVED_AFTER_S: Final = 2 * OPEN_S
"""More than `OPEN_S` and `TOKEN_TTL_S`: nobody can use the session any more."""

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
    The sessions of the demo. Their state is in the store, so any node continues them.

    Args:
        apps: The apps in the store.
        publisher: Stores and announces what is published.
        rates: The rates of calls in the store.
        sandboxes: What is stored for the sessions, by `demo_logs`.
        clock: Returns Unix time in seconds.

    """

    def __init__(
        self,
        apps: Apps,
        publisher: Publisher,
        rates: Rates,
        sandboxes: Sandboxes,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._apps = apps
        self._publisher = publisher
        self._rates = rates
        self._sandboxes = sandboxes
        self._clock = clock
        self._backend = Caller.from_key(DEMO_APP, frozenset({"notifications:send"}))

    async def open(self, session: str | None = None) -> DemoSession:
        """
        Return tokens: fresh ones for `session` if it is open, or those of a new one.

        Raises:
            NotFound: The store has no app ``demo`` whose tokens this server signs.
            RateLimited: Too many sessions are opened at once.
            StoreUnavailable: The store is unavailable.
            OutcomeUnknown: A session may have been opened that nobody knows.

        """
        record = await self._record()
        await self._rates.count(DEMO_APP, "demo session", per_s=_SESSIONS_PER_S)
        await self._sandboxes.remove(before_s=self._clock() - _REMOVED_AFTER_S)
        if session is None or not await self._is_open(session):
            session = secrets.token_hex(SESSION_CHARS // 2)
            await self._sandboxes.add(session, now_s=self._clock())
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
            NotFound: The store has no app ``demo``, or the session is not open.
            RateLimited: Too much is published at once.
            Invalid: The notification is invalid.
            OverQuota: A quota of the app is used up.
            StoreUnavailable: Nothing was stored.
            OutcomeUnknown: It may have been stored.

        """
        await self._record()
        await self._rates.count(DEMO_APP, "demo publish", per_s=_PUBLISHES_PER_S)
        if not await self._is_open(session):
            raise NotFound("the session")
        if to == "topic":
            log = topic_log(DEMO_APP, _topic(session))
        else:
            log = Log(DEMO_APP, _player(to, session))
        message = Message([log], notification, ttl_ms=_LIFETIME_MS)
        sent = await self._publisher.send(self._backend, [message])
        ((position,),) = sent.positions
        return None if position is None else position.id

    async def _is_open(self, session: str) -> bool:
        opened_s = await self._sandboxes.opened_s(session)
        return opened_s is not None and self._clock() - opened_s < OPEN_S

    async def _record(self) -> AppRecord:
        record = await self._apps.get(DEMO_APP)
        if record is None or record.algorithm != "HS256":
            raise NotFound("the app demo")
        return record


def demo_logs(session: str) -> list[Log]:
    """Return the logs in which something may be stored for a session."""
    players = [Log(DEMO_APP, _player(name, session)) for name in PLAYERS]
    return [*players, topic_log(DEMO_APP, _topic(session))]


def _player(name: str, session: str) -> Player:
    return Player(f"{name}-{session}")


def _topic(session: str) -> Topic:
    return Topic(f"demo/{session}")
