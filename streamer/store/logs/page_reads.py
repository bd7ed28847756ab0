"""
The reads of one page, in as few packets as possible.

Decides what is read together. A page shows the player's own log, everyone's log, and
those of the topics that the player has joined. The first packet has the player's log,
the names of the topics, and the state of everyone's log; the second the player's views
of the topics and their states, all at once. If the topics are those that the player had
before, as is usual, both are one packet. Entries of audiences are read afterwards, by
the caller of `read_shared`, which then knows in which logs to look for them.

Only the player's own log needs a script. Its entries are read by commands beside the
script, and belong to the same moment if they fit its reply. Knows the scripts of inbox
and views. Knows nothing of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ...errors import Unavailable
from ...model import Log, Position, everyone_log
from ..client.commands import Command, Packed, pack_all
from ..client.connection import RedisConnection
from ..client.replies import ok
from .entries import Page, bound
from .inbox import PAGE_BYTES, Inbox, needs_items
from .shared_logs import Damaged, SharedLog, SharedLogs
from .views import PlayerViews, Views

__all__ = ["EARLY_ITEMS", "HEAVY_BYTES", "PageReads", "PlayerPage"]

EARLY_ITEMS: Final = 22
"""Items that are read at once while their size is not known."""

HEAVY_BYTES: Final = 8_192
"""Average size of fragments over which no more than `EARLY_ITEMS` are read at once."""

PLAYERS_MAX: Final = 10_000
"""Players whose topics are remembered; at more, all are forgotten."""

_TIME: Final = pack_all([("TIME",)])


class PlayerPage(NamedTuple):
    """
    A page of a player's own log, the player's views, and the states of their logs.

    A log that is damaged has its error as the state. Everyone's log is always there.
    """

    own: Page
    views: PlayerViews
    shared: dict[Log, SharedLog | Damaged]


class _Peek(NamedTuple):
    """
    Commands for a player's views and the states of their logs, by their numbers.

    The first two are for the views. The time of the store follows, if it is needed.
    """

    topics: list[Log]
    commands: list[Command | Packed]
    has_time: bool
    of_topics: int | None
    states: list[tuple[Log, slice]]


class _Shared(NamedTuple):
    """The views of a player and the states of their logs; None needs the script."""

    views: PlayerViews | None
    states: dict[Log, SharedLog | Damaged | None]


class PageReads:
    """
    Reads for pages. Every method raises StoreUnavailable.

    Bounds are inclusive and compare time and offset. Entries of two logs may have the
    same time and offset; a caller that needs a total order compares tags.

    Args:
        redis: The connection to the store.
        inbox: The logs.
        views: The views of players.

    """

    def __init__(self, redis: RedisConnection, inbox: Inbox, views: Views) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._inbox = inbox
        self._views = views
        self._shared_logs = SharedLogs(redis, inbox, inbox.settings)
        self.read_shared = self._shared_logs.read
        """Reads entries of audiences' logs; see `SharedLogs.read`."""
        self._topics: dict[Log, list[Log]] = {}

    async def read(
        self,
        log: Log,
        *,
        newest: Position | None,
        oldest: Position | None,
        count: int,
        version: str = "",
        only_unread: bool = False,
    ) -> PlayerPage:
        """
        Read a page of the player's log, and all that tells where other entries are.

        With `only_unread` the page of a log without unread entries may be empty. For
        the rest see `store.logs.inbox.Inbox.page`.
        """
        bounds = bound(newest, True, "+"), bound(oldest, True, "-")
        call = self._inbox.page_beside_call(
            log, bounds, count, version, only_unread=only_unread
        )
        is_early = not version and not only_unread
        after: list[Command | Packed] = []
        if is_early:
            after.append(self._items(log, bounds, min(count + 1, EARLY_ITEMS)))
        # What the player's topics were is mostly what they are.
        peek = self._peek(log, self._topics.get(log, []))
        after += peek.commands
        replies = await self._redis.run_many([call], write=False, after=after)
        reply, peeked = ok(replies[0]), replies[len(replies) - len(peek.commands) :]
        items = ok(replies[1]) if is_early else []
        page = await self._own(
            log, reply, items, bounds, count, newest, oldest, is_early=is_early
        )
        topics = self._views.topics_in(log, ok(peeked[0]))
        if topics != peek.topics:
            self._note_topics(log, topics)
            peek = self._peek(log, topics)
            peeked = await self._redis.call_many(peek.commands)
        return await self._completed(log, page, self._parse_peek(log, peek, peeked))

    def _items(self, log: Log, bounds: tuple[str, str], count: int) -> Command:
        return ("XREVRANGE", self._keys.inbox(log).log, *bounds, "COUNT", count)

    async def _own(
        self,
        log: Log,
        reply: list[Any],
        items: list[Any],
        bounds: tuple[str, str],
        count: int,
        newest: Position | None,
        oldest: Position | None,
        *,
        is_early: bool,
    ) -> Page:
        """Return the page of the player's log; read what is missing of its items."""
        if needs_items(reply):
            asked = min(count + 1, EARLY_ITEMS) if is_early else 0
            size = 0
            if asked < count + 1:
                size = sum(len(fields[3]) for _, fields in items)
            while asked < count + 1 and len(items) == asked and size <= PAGE_BYTES:
                part = count + 1 - asked
                if not asked or size > HEAVY_BYTES * asked:
                    part = min(part, EARLY_ITEMS)
                begin = f"({items[-1][0].decode()}" if items else bounds[0]
                command = self._items(log, (begin, bounds[1]), part)
                more = await self._redis.call(*command)
                size += sum(len(fields[3]) for _, fields in more)
                items = [*items, *more]
                asked += part
            is_bounded = bounds[1] != "-" or size > PAGE_BYTES
            parsed_page = self._inbox.parse_page_beside(
                reply, items, count, is_bounded=is_bounded
            )
        else:
            parsed_page = self._inbox.parse_page_beside(reply, items, count)
        if parsed_page is not None:
            return parsed_page
        # The log has changed between the script and the commands.
        return await self._inbox.page(
            log, newest=newest, oldest=oldest, oldest_included=True, count=count
        )

    def _peek(self, log: Log, topics: list[Log]) -> _Peek:
        commands: list[Command | Packed] = [*self._views.peek(log)]
        has_time = bool(topics) or not self._shared_logs.is_absent(
            everyone_log(log.app)
        )
        if has_time:
            commands.append(_TIME)
        of_topics = None
        if topics:
            of_topics = len(commands)
            commands.append(self._views.topics_command(log, topics))
        states = []
        for audience in (everyone_log(log.app), *topics):
            asked = self._shared_logs.state_commands(audience)
            states.append((audience, slice(len(commands), len(commands) + len(asked))))
            commands += asked
        return _Peek(topics, commands, has_time, of_topics, states)

    def _parse_peek(self, log: Log, peek: _Peek, replies: Sequence[Any]) -> _Shared:
        now_us = self._inbox.settings.clock_us()
        knows_time = True
        if peek.has_time and not now_us:
            if knows_time := not isinstance(replies[2], Unavailable):
                seconds, micros = ok(replies[2])
                now_us = int(seconds) * 1_000_000 + int(micros)
        of_topics = [] if peek.of_topics is None else ok(replies[peek.of_topics])
        of_player = [ok(reply) for reply in replies[:2]]
        views = self._views.parse_with_topics(log, of_player, peek.topics, of_topics)
        states = {
            audience: self._shared_logs.parse_state(audience, replies[part], now_us)
            for audience, part in peek.states
            # The primary that tells the time is away, and those of the logs may not be.
            # Their scripts know the time.
            if knows_time
        }
        return _Shared(views, states)

    async def _completed(self, log: Log, page: Page, shared: _Shared) -> PlayerPage:
        views = shared.views or await self._views.read(log)
        wanted = {everyone_log(log.app), *(view.log for view in views.views)}
        missing = [it for it in wanted if shared.states.get(it) is None]
        states = {it: state for it, state in shared.states.items() if state is not None}
        if missing:
            by_script = await self._shared_logs.read_by_script(missing)
            states |= dict(zip(missing, by_script, strict=True))
        return PlayerPage(page, views, states)

    def _note_topics(self, log: Log, topics: list[Log]) -> None:
        if len(self._topics) >= PLAYERS_MAX:
            self._topics.clear()
        if topics:
            self._topics[log] = topics
        else:
            self._topics.pop(log, None)
