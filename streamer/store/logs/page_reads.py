"""
The reads of one page, in as few packets as possible.

Decides what is read together. A page shows the player's own log, everyone's log, and
those of the topics that the player has joined. The first packet has the player's log,
the names of the topics, and the state of everyone's log; the second the player's views
of the topics and their states, all at once. If the topics are those that the player had
before, as is usual, both are one packet. Entries of audiences are read afterwards, by
the caller of `read_shared`, which then knows in which logs to look for them.

Only the player's own log needs a script, and not even that if the caller's version of
it is current, or nothing in it is unread (`own_logs`). Its entries are read by commands
beside the script, and belong to the same moment if they fit its reply. Knows the
scripts of inbox and views. Knows nothing of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from ...errors import Unavailable
from ...model import Log, Position, everyone_log
from ..client.commands import Command, Packed, pack_all
from ..client.connection import RedisConnection
from ..client.replies import ok
from .entries import Page, bound
from .inbox import PAGE_BYTES, Inbox, needs_items
from .own_logs import OwnLogs
from .shared_logs import Damaged, SharedLog, SharedLogs
from .views import PlayerViews, Views

__all__ = ["EARLY_ITEMS", "HEAVY_BYTES", "PageReads", "PlayerPage"]

EARLY_ITEMS: Final = 22
"""Items that are read at once while their size is not known."""

HEAVY_BYTES: Final = 8_192
"""Average size of fragments over which no more than `EARLY_ITEMS` are read at once."""

PLAYERS_MAX: Final = 10_000
"""
Players whose topics are remembered, and players whose entries are known to be small; at
more, all are forgotten.
"""

_TIME: Final = pack_all([("TIME",)])


class PlayerPage(NamedTuple):
    """
    A page of a player's own log, the player's views, and the states of their logs.

    A log that is damaged has its error as the state. Everyone's log is always there.
    """

    own: Page
    views: PlayerViews
    shared: dict[Log, SharedLog | Damaged]


class _Asked(NamedTuple):
    """What is asked of the player's own log; `bounds` are those of stream ids."""

    log: Log
    bounds: tuple[str, str]
    limit: int
    newest: Position | None
    oldest: Position | None
    only_unread: bool


class _Peek(NamedTuple):
    """
    Commands for a player's views and the states of their logs.

    The first two are for the views. The time of the store follows, if it is needed. The
    last, from `first_state` on, are for the states; `states` has the logs, and how many
    commands each takes.
    """

    topics: list[Log]
    commands: list[Command | Packed]
    has_time: bool
    of_topics: int | None
    first_state: int
    states: list[tuple[Log, int]]


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
        self._own_logs = OwnLogs(redis.keys, inbox.settings)
        self._topics: dict[Log, tuple[bytes, list[Log]]] = {}
        self._small: set[Log] = set()

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
        asked = _Asked(log, bounds, count, newest, oldest, only_unread)
        own = self._own_logs.commands(log, version, only_unread=only_unread)
        # What the player's topics were is mostly what they are.
        names, topics = self._topics.get(log, (None, []))
        peek = self._peek(log, topics, has_time=bool(own))
        if own:
            replies = await self._redis.call_many([*own, *peek.commands])
            peeked = replies[len(own) :]
            now_us = self._now_us(peek, peeked)
            known = None
            if now_us is not None:
                known = self._own_logs.parse(log, replies[: len(own)], now_us)
            if known is not None and known.version == version:
                page = Page(version, known.head, 0, None)
            elif known is not None and only_unread and known.unread == 0:
                page = Page(known.version, known.head, 0, [])
            else:
                # The caller's version is not current if another is.
                asked_version = version if known is None else ""
                page, _ = await self._by_script(asked, asked_version, [])
        else:
            page, peeked = await self._by_script(asked, version, peek.commands)
        fields = ok(peeked[0])
        if fields[0] != names:
            topics = self._views.topics_in(log, fields)
            self._note_topics(log, fields[0], topics)
            if topics != peek.topics:
                peek = self._peek(log, topics)
                peeked = await self._redis.call_many(peek.commands)
        return await self._completed(log, page, self._parse_peek(log, peek, peeked))

    async def _by_script(
        self, asked: _Asked, version: str, after: Sequence[Command | Packed]
    ) -> tuple[Page, list[Any]]:
        """Read the page of the player's log; return it, and the replies to `after`."""
        log, bounds, count = asked.log, asked.bounds, asked.limit
        call = self._inbox.page_beside_call(
            log, bounds, count, version, only_unread=asked.only_unread
        )
        is_early = not version and not asked.only_unread
        beside: list[Command | Packed] = []
        early = 0
        if is_early:
            early = self._at_once(log, count + 1)
            beside.append(self._items(log, bounds, early))
        learning: list[Packed] = []
        if version or asked.only_unread:
            # Callers who ask so ask again.
            learning = self._own_logs.learning(log)
        replies = await self._redis.run_many(
            [call], write=False, after=[*beside, *learning, *after]
        )
        reply = ok(replies[0])
        items = ok(replies[1]) if is_early else []
        page = await self._own(asked, reply, items, early)
        if learning:
            self._own_logs.learn(log, page, replies[1 : 1 + len(learning)])
        return page, replies[len(replies) - len(after) :]

    def _items(self, log: Log, bounds: tuple[str, str], count: int) -> Command:
        return ("XREVRANGE", self._keys.inbox(log).log, *bounds, "COUNT", count)

    def _at_once(self, log: Log, count: int) -> int:
        """Return how many items of a player's log are read before others are."""
        return count if log in self._small else min(count, EARLY_ITEMS)

    async def _own(
        self, asked: _Asked, reply: list[Any], items: list[Any], read: int
    ) -> Page:
        """
        Return the page of the player's log; read what is missing of its items.

        Args:
            asked: What is asked of the log.
            reply: The script's.
            items: The first items of the page.
            read: How many of them were asked for.

        """
        log, bounds, count, newest, oldest, _ = asked
        if needs_items(reply):
            size = 0
            if count + 1 > EARLY_ITEMS:
                size = sum(len(fields[3]) for _, fields in items)
            while read < count + 1 and len(items) == read and size <= PAGE_BYTES:
                part = count + 1 - read
                if not read:
                    part = self._at_once(log, part)
                elif size > HEAVY_BYTES * read:
                    part = min(part, EARLY_ITEMS)
                begin = f"({items[-1][0].decode()}" if items else bounds[0]
                command = self._items(log, (begin, bounds[1]), part)
                more = await self._redis.call(*command)
                size += sum(len(fields[3]) for _, fields in more)
                items = [*items, *more]
                read += part
            if count + 1 > EARLY_ITEMS:
                self._note_size(log, size, len(items))
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

    def _peek(self, log: Log, topics: list[Log], *, has_time: bool = False) -> _Peek:
        commands: list[Command | Packed] = [*self._views.peek(log)]
        everyone = everyone_log(log.app)
        if topics or not self._shared_logs.is_absent(everyone):
            has_time = True
        if has_time:
            commands.append(_TIME)
        of_topics = None
        if topics:
            of_topics = len(commands)
            commands.append(self._views.topics_command(log, topics))
        logs = (everyone, *topics)
        states, first_state = [], len(commands)
        commands_of_each = self._shared_logs.state_commands(*logs)
        for audience, asked in zip(logs, commands_of_each, strict=True):
            states.append((audience, len(asked)))
            commands += asked
        return _Peek(topics, commands, has_time, of_topics, first_state, states)

    def _now_us(self, peek: _Peek, replies: Sequence[Any]) -> int | None:
        """Return the time of the store, 0 if it was not asked for, None if away."""
        now_us = self._inbox.settings.clock_us()
        if now_us or not peek.has_time:
            return now_us
        if isinstance(replies[2], Unavailable):
            return None
        seconds, micros = ok(replies[2])
        return int(seconds) * 1_000_000 + int(micros)

    def _parse_peek(self, log: Log, peek: _Peek, replies: Sequence[Any]) -> _Shared:
        now_us = self._now_us(peek, replies)
        of_topics = [] if peek.of_topics is None else ok(replies[peek.of_topics])
        of_player = [ok(reply) for reply in replies[:2]]
        views = self._views.parse_with_topics(log, of_player, peek.topics, of_topics)
        states: dict[Log, SharedLog | Damaged | None] = {}
        # Without it, the primary that tells the time is away, and those of the logs may
        # not be. Their scripts know the time.
        if now_us is not None:
            of_states = replies[peek.first_state :]
            states = self._shared_logs.parse_states(peek.states, of_states, now_us)
        return _Shared(views, states)

    async def _completed(self, log: Log, page: Page, shared: _Shared) -> PlayerPage:
        views = shared.views or await self._views.read(log)
        known = shared.states
        missing = [it.log for it in views.views if known.get(it.log) is None]
        everyone = everyone_log(log.app)
        if known.get(everyone) is None and everyone not in missing:
            missing.append(everyone)
        states = cast("dict[Log, SharedLog | Damaged]", known)
        if missing or None in known.values():
            states = {it: state for it, state in known.items() if state is not None}
        if missing:
            by_script = await self._shared_logs.read_by_script(missing)
            states |= dict(zip(missing, by_script, strict=True))
        return PlayerPage(page, views, states)

    def _note_size(self, log: Log, size: int, count: int) -> None:
        """Note whether the entries of a log are small, from the size of `count`."""
        if size > HEAVY_BYTES * count:
            self._small.discard(log)
            return
        if len(self._small) >= PLAYERS_MAX:
            self._small.clear()
        self._small.add(log)

    def _note_topics(self, log: Log, names: bytes, topics: list[Log]) -> None:
        if len(self._topics) >= PLAYERS_MAX:
            self._topics.clear()
        if topics:
            self._topics[log] = names, topics
        else:
            self._topics.pop(log, None)
