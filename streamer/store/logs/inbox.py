"""
The log of a player, with its read marks.

Decides how to append, read and mark; each of these is one script, and therefore atomic.
Knows the scripts in ``lua/``. Knows nothing of rights and surfaces. The log of an
audience is the same, without marks.

An entry ends when it expires, is withdrawn, or is replaced by another. It keeps its
offset, but no page shows it, nothing counts it, and a read returns its position without
its fragment. No timer expires entries: the next operation on the log records which have
expired.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from ...core.deployment import LISTED_MARKS
from ...core.streams.subscription import ReadFrom, Start
from ...core.streams.views import Audience
from ...core.trace_context import TraceContext
from ...model import (
    ZERO,
    Entry,
    Log,
    Position,
    encode_position,
    new_epoch,
    new_tag,
    notification_id_of,
)
from ..client.commands import KeyedCommand
from ..client.connection import RedisConnection, Script, ScriptCall
from ..client.damage import parsed
from ..client.replicated import Replicated
from ..client.replies import ok
from ..presence.leases import alive_nodes
from .appending import INLINE_MAX, ONCE_MS, append_calls, are_plain, distinct_drafts
from .entries import (
    PEEK_FIELDS,
    AppendResult,
    Draft,
    MarkResult,
    Once,
    Page,
    PageEntry,
    Peek,
    Read,
    bound,
    parse_append_result,
    parse_audience,
    parse_entry,
    parse_page,
    parse_page_beside,
    parse_peek,
    parse_read,
    position_args,
    stream_id,
)
from .settings import DEFAULTS, LogSettings

__all__ = [
    "INLINE_MAX",
    "ONCE_MS",
    "PAGE_BYTES",
    "AppendResult",
    "Draft",
    "Inbox",
    "MarkResult",
    "Once",
    "Page",
    "PageEntry",
    "Peek",
    "Read",
    "ReadAfter",
    "WithdrawResult",
    "needs_items",
]

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of the fragments in a page, which may make it shorter than `count`."""

MARK_IDS_ANNOUNCED_MAX: Final = 100

_WITHDRAW = Script("withdraw", includes=("_announce", "_whole", "_inbox", "_append"))
_PURGE = Script(
    "purge", includes=("_announce", "_whole", "_inbox", "_append", "_rewrite")
)
_READ_AFTER = Script(
    "read_after",
    includes=(
        "_whole",
        "_inbox",
    ),
)
_PAGE = Script("page", includes=("_whole", "_inbox", "_ranges", "_read_at"))
_MARK = Script(
    "mark",
    includes=("_announce", "_whole", "_inbox", "_bits", "_ranges", "_marks"),
)
_MARK_UNREAD = Script(
    "mark_unread", includes=("_announce", "_whole", "_inbox", "_marks")
)
_AUDIENCE = Script(
    "audience",
    includes=(
        "_whole",
        "_inbox",
    ),
)
_PEEK = KeyedCommand("HMGET", *PEEK_FIELDS)

_UNKNOWN: Final = -1

_ALL: Final = ("+", "-")


class ReadAfter(NamedTuple):
    """
    A request to read entries after a position.

    `limit` is the maximum number of entries. If more than `replay_max` entries follow
    the position, the read returns a gap instead (0: no maximum). `bytes_max` ends the
    read early, a few entries after that many bytes (0: never).
    """

    log: Log
    read_from: ReadFrom
    limit: int
    replay_max: int = 0
    bytes_max: int = 0


class WithdrawResult(NamedTuple):
    """Whether the entry was withdrawn by this call, or had ended before."""

    done: bool


class Inbox:
    """
    All logs of the store.

    Args:
        redis: The connection to the store.
        settings: The settings of all logs.
        confirmed: The connection for appends, if replicas have to confirm them.
        when_full: Whether a full store accepts appends, too. For logs that do not grow.

    """

    def __init__(
        self,
        redis: RedisConnection,
        settings: LogSettings = DEFAULTS,
        *,
        confirmed: Replicated | None = None,
        when_full: bool = False,
    ) -> None:
        self._when_full = when_full
        self._redis = redis
        self.damage = redis.damage
        """Told of logs that are damaged."""
        self._keys = redis.keys
        self._appends = confirmed or redis
        self._settings = settings

    async def append(
        self,
        log: Log,
        drafts: Sequence[Draft | bytes],
        *,
        once: Once | None = None,
        trace: TraceContext | None = None,
    ) -> AppendResult:
        """Append one batch; see `append_many`. Raises the failures of its list."""
        (appended,) = await self.append_many([(log, drafts)], once=once, trace=trace)
        if isinstance(appended, Exception):
            raise appended
        return appended

    async def append_many(
        self,
        batches: Sequence[tuple[Log, Sequence[Draft | bytes]]],
        *,
        once: Once | None = None,
        trace: TraceContext | None = None,
    ) -> list[AppendResult | Exception]:
        """
        Append a batch to each log and announce it. Atomic per log, in order.

        Bytes are a draft with a fragment only. Entries of a type that the player has
        muted are omitted. With `once`, a batch that was appended under the same key
        within 24 hours is not appended again; its first positions are returned. A
        `trace` is announced with the entries, and is not stored.

        Failures are items of the list: StoreUnavailable (not appended; StoreFull if the
        store is full), OutcomeUnknown (perhaps appended), StoreConflict (the key
        belongs to another digest), ResponseError. O(entries) per log.

        Raises:
            StoreUnavailable: Nothing was appended anywhere.

        """
        drafts = distinct_drafts(batches)
        plain = are_plain(drafts.values())
        nodes: Sequence[bytes] = ()
        if not plain and any(draft.device == "latest" for draft in drafts.values()):
            nodes = await alive_nodes(self._redis)
        calls = append_calls(
            batches,
            drafts,
            keys=self._keys,
            settings=self._settings,
            once=once,
            plain=plain,
            nodes=nodes,
            when_full=self._when_full,
            trace=trace,
        )
        replies = await self._appends.run_many(calls)
        return [
            reply if isinstance(reply, Exception) else parse_append_result(reply)
            for reply in replies
        ]

    async def announce_ephemeral(
        self,
        logs: Sequence[Log],
        notification: bytes,
        *,
        trace: TraceContext | None = None,
    ) -> None:
        """
        Announce a notification, as JSON, without storing it.

        Streams that are open at this moment get it, at most once. A `trace` is
        announced before it. Raises StoreUnavailable, OutcomeUnknown.
        """
        messages = [b"passing " + notification]
        if trace is not None:
            name = notification_id_of(notification)
            messages.insert(0, b"traced %b %b" % (name, trace.fields.encode()))
        commands = [
            ("SPUBLISH", self._keys.channel(log), message)
            for log in logs
            for message in messages
        ]
        for reply in await self._redis.call_many(commands, write=True):
            ok(reply)

    async def withdraw(self, log: Log, position: Position) -> WithdrawResult | None:
        """
        Withdraw the entry at `position`, or return None if there is no such entry.

        The entry ends, and a control entry is appended and announced, in one step.
        Withdrawing it again does nothing. O(log n). Raises as `append`.
        """
        args = (position.id, *position_args([position]))
        outcome = await self._withdraw(log, args)
        return None if outcome == _UNKNOWN else WithdrawResult(bool(outcome))

    async def append_withdrawal(self, log: Log, notification_id: str) -> None:
        """
        Append a control entry for a notification in another log, and announce it.

        It tells this player's clients that the notification is withdrawn. Each call
        appends one. O(log n). Raises as `append`.
        """
        await self._withdraw(log, (notification_id,))

    async def fragment_at(self, log: Log, position: Position) -> bytes | None:
        """
        Return the text of the entry at `position`, ended or not; b"" if it was purged.

        None if there is no such notification. Raises StoreUnavailable.
        """
        item_id = stream_id(position)
        items = await self._redis.call(
            "XRANGE", self._keys.inbox(log).log, item_id, item_id
        )
        for _, fields in items:
            named = dict(zip(fields[::2], fields[1::2], strict=True))
            if int(named[b"t"]) == position.tag and b"w" not in named:
                return bytes(named[b"n"])
        return None

    async def portions(self, log: Log, count: int) -> AsyncIterator[list[Entry]]:
        """
        Yield the entries of a log, oldest first, up to the newest one at this moment.

        With their texts, also those that have ended; `count` at a time. O(log n) each.
        Raises StoreUnavailable.
        """
        key, (peek,) = self._keys.inbox(log).log, await self.peek([log])
        if isinstance(peek, Exception):
            raise peek
        head, first = peek.head, "-"
        while True:
            items = await self._redis.call("XRANGE", key, first, "+", "COUNT", count)
            entries = [parse_entry(head.epoch, item) for item in items]
            found = [entry for entry in entries if entry.offset <= head.offset]
            if found:
                yield found
            if len(items) < count or len(found) < len(entries):
                return
            first = f"({items[-1][0].decode()}"

    async def purge(self, log: Log, position: Position) -> bool:
        """
        Remove the text of the entry at `position`; return whether there is the entry.

        An entry that has not ended is withdrawn, as `withdraw` does. The entry keeps
        its position. One step, O(entries), since the log is written again. Idempotent.
        Raises as `append`.
        """
        args = (position.id, *position_args([position]))
        copy = self._keys.rewriting(log.app, log.name)
        return await self._withdraw(log, args, _PURGE, copy) != _UNKNOWN

    async def _withdraw(
        self, log: Log, args: Sequence[str], script: Script = _WITHDRAW, *more: str
    ) -> int:
        head = (
            self._settings.entries_max,
            new_epoch(),
            self._keys.channel(log),
            new_tag(),
        )
        call = ScriptCall(
            script,
            (*self._keys.inbox(log), *more),
            (*self._settings.script_args(), *head, *args),
        )
        (outcome,) = await self._appends.run_many([call])
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, int)
        return outcome

    async def read_after(
        self, log: Log, read_from: ReadFrom, *, count: int, replay_max: int = 0
    ) -> Read:
        """Read entries after a position; see `read_many`. Raises StoreUnavailable."""
        (read,) = await self.read_many([ReadAfter(log, read_from, count, replay_max)])
        if isinstance(read, Exception):
            raise read
        return read

    async def read_many(self, reads: Sequence[ReadAfter]) -> list[Read | Exception]:
        """
        Carry out reads in one packet. A failed one is an exception in the list.

        Each returns up to `limit` entries after its position, or the reason of a gap;
        see `core.streams.subscription`. No entry is left out: ended ones come as
        `ended`, without a fragment. O(log n + limit).
        """
        calls = [
            ScriptCall(
                _READ_AFTER,
                self._keys.inbox(read.log),
                (
                    *self._settings.script_args(),
                    *_read_from_args(read.read_from),
                    read.limit,
                    read.replay_max,
                    read.bytes_max,
                ),
            )
            for read in reads
        ]
        replies = await self._redis.run_many(calls, write=False)
        return [
            reply if isinstance(reply, Exception) else parsed(parse_read, reply)
            for reply in replies
        ]

    async def now_ms(self) -> int:
        """Return the time by which entries expire. Raises StoreUnavailable."""
        return self._settings.clock_ms() or await self._redis.now_ms()

    async def peek(self, logs: Sequence[Log]) -> list[Peek | Exception]:
        """
        Return the state of logs, in one packet. A failed one is an exception.

        A tenth of the cost of a read. A peek does not notice entries that have become
        older than the retention. Raises StoreUnavailable.
        """
        now_ms = self._settings.clock_ms() or int(time.time() * 1_000)
        replies = await self._redis.call_many(
            [_PEEK.on(self._keys.state(log)) for log in logs]
        )
        return [
            reply if isinstance(reply, Exception) else parsed(parse_peek, reply, now_ms)
            for reply in replies
        ]

    async def last_position(
        self, log: Log, newest: Position, *, included: bool
    ) -> Position:
        """
        Return the position of the last entry up to `newest`, whether it has ended.

        By time, offset and tag, so that `newest` may be a position of another log. With
        `included` the entry may be the one at `newest`. If all entries up to there have
        left the log, returns the head if that is one of them, otherwise ZERO. O(log n).
        Raises StoreUnavailable.
        """
        keys = self._keys.inbox(log)
        range_ = (bound(newest, included, "+"), "-", "COUNT", 2)
        items, state = [
            ok(reply)
            for reply in await self._redis.call_many(
                [("XREVRANGE", keys.log, *range_), _PEEK.on(keys.state)]
            )
        ]
        last = parsed(_last_position, items, state, newest)
        if isinstance(last, Exception):
            raise last
        return last

    async def page(
        self,
        log: Log,
        *,
        newest: Position | None = None,
        newest_included: bool = True,
        oldest: Position | None = None,
        oldest_included: bool = False,
        count: int,
        version: str = "",
    ) -> Page:
        """
        Read up to `count` entries, newest first, between two positions.

        Args:
            log: The log.
            newest: Position to begin at; None is the newest entry.
            newest_included: Whether the page may contain the entry at `newest`.
            oldest: Position to end at; None is the oldest entry.
            oldest_included: Whether the page may contain the entry at `oldest`.
            count: Maximum number of entries. Large entries make the page shorter, but
                it has at least one.
            version: The version that the caller has. If it is current, no entries are
                returned.

        Only time and offset of the bounds count, not their epoch, so a position of a
        lost log still separates newer entries from older ones. O(log n + count), and
        O(1) for each ended entry that is passed over.

        """
        bounds = (
            bound(newest, newest_included, "+"),
            bound(oldest, oldest_included, "-"),
        )
        call = self.page_call(log, bounds, count, version)
        return parse_page(await self._redis.run(*call, write=False))

    def page_call(
        self, log: Log, bounds: tuple[str, str], count: int, version: str = ""
    ) -> ScriptCall:
        """Return the call that `page` makes, between two results of `bound`."""
        args = (*self._settings.script_args(), *bounds, count, version, PAGE_BYTES)
        return ScriptCall(_PAGE, self._keys.inbox(log), (*args, "", ""))

    def page_beside_call(
        self,
        log: Log,
        bounds: tuple[str, str],
        count: int,
        version: str = "",
        *,
        only_unread: bool = False,
    ) -> ScriptCall:
        """
        Return a call whose reply `parse_page_beside` parses.

        The fast path of `page_call`, at a third of its cost for the store. The caller
        reads the items between the bounds, one more than `count`, by commands that
        follow the script. With `only_unread` a log without unread entries has none.
        """
        args = (*self._settings.script_args(), *bounds, count, version, PAGE_BYTES)
        flags = ("1", "1" if only_unread else "")
        return ScriptCall(_PAGE, self._keys.inbox(log), (*args, *flags))

    def parse_page_beside(
        self,
        reply: list[Any],
        items: list[Any],
        count: int,
        *,
        is_bounded: bool = False,
    ) -> Page | None:
        """
        Return the page, or None if the log changed in between; then call `page`.

        If some of the entries have ended, the script itself returned the page.
        """
        if not needs_items(reply):
            return parse_page(reply)
        return parse_page_beside(
            reply, items, count=count, bytes_max=PAGE_BYTES, is_bounded=is_bounded
        )

    async def mark_ids(
        self,
        log: Log,
        positions: Sequence[Position],
        *,
        elsewhere: int = 0,
        force: bool = False,
    ) -> MarkResult:
        """
        Mark the entries at `positions` as read, all in one step.

        A position is ignored if its tag is not the entry's or its entry has left the
        log. O(positions).

        Args:
            log: The player's log.
            positions: Entries to mark. Up to 100 are named in the announcement.
            elsewhere: Unread entries in the player's audiences, added to the count that
                is returned.
            force: Whether entries were marked there, which is announced even if nothing
                changes in this log.

        """
        args = ["ids", *position_args(positions)]
        return await self._mark(_MARK, log, _ids(positions), elsewhere, force, args)

    async def mark_up_to(
        self, log: Log, position: Position, *, elsewhere: int = 0, force: bool = False
    ) -> MarkResult:
        """
        Mark all entries up to and including `position`, if the log knows it.

        O(kept) at worst. Otherwise as `mark_ids`.
        """
        body = b'"up_to":"%b"' % encode_position(position).encode()
        args = ["up_to", *map(str, position)]
        return await self._mark(_MARK, log, body, elsewhere, force, args)

    async def mark_all(
        self, log: Log, *, elsewhere: int = 0, force: bool = False
    ) -> MarkResult:
        """Mark all entries that are in the log at this moment; see `mark_up_to`."""
        return await self._mark(_MARK, log, b'"all":true', elsewhere, force, ["all"])

    async def mark_unread(
        self,
        log: Log,
        positions: Sequence[Position],
        *,
        elsewhere: int = 0,
        force: bool = False,
    ) -> MarkResult:
        """
        Mark the entries at `positions` as unread; see `mark_ids`.

        Ended entries do not change. O(positions), and O(kept / 8) bytes if one of them
        is among the oldest.
        """
        body = b'"read":false,' + _ids(positions)
        args = position_args(positions)
        return await self._mark(_MARK_UNREAD, log, body, elsewhere, force, args)

    async def audiences(self, logs: Sequence[Log]) -> list[Audience]:
        """
        Return the state of audiences' logs, and which of their entries have ended.

        In one packet, but not at one moment. O(kept / 8) bytes each. Raises
        StoreUnavailable.
        """
        return [ok(audience) for audience in await self.audiences_each(logs)]

    async def audiences_each(self, logs: Sequence[Log]) -> list[Audience | Exception]:
        """Return what `audiences` does, with an exception for each that failed."""
        calls = [self.audience_call(log) for log in logs]
        replies = await self._redis.run_many(calls, write=False)
        return [
            reply if isinstance(reply, Exception) else parsed(parse_audience, reply)
            for reply in replies
        ]

    @property
    def settings(self) -> LogSettings:
        """The settings of all logs."""
        return self._settings

    @property
    def entries_max(self) -> int:
        """How many entries a log keeps."""
        return self._settings.entries_max

    def audience_call(self, log: Log) -> ScriptCall:
        """Return the call whose reply `parse_audience` parses."""
        args = self._settings.script_args()
        return ScriptCall(_AUDIENCE, self._keys.inbox(log), args)

    async def _mark(
        self,
        script: Script,
        log: Log,
        body: bytes,
        elsewhere: int,
        force: bool,
        args: Sequence[str],
    ) -> MarkResult:
        if script is _MARK and self._redis.terms.level < LISTED_MARKS:
            args = [f"older:{args[0]}", *args[1:]]
        reply = await self._redis.run(
            script,
            self._keys.inbox(log),
            (
                *self._settings.script_args(),
                self._keys.channel(log),
                body,
                elsewhere,
                int(force),
                *args,
            ),
        )
        return MarkResult(*reply)


def needs_items(reply: list[Any]) -> bool:
    """Whether a reply to `Inbox.page_beside_call` has no items of its own."""
    return isinstance(reply[-1], bytes) and len(reply) > 1


def _last_position(
    items: Sequence[Any], state: list[bytes | None], newest: Position
) -> Position:
    head = parse_peek(state, 0).head
    for item in items:
        position = parse_entry(head.epoch, item).position
        if position.order <= newest.order:
            return position
    return head if head.order < newest.order else ZERO


def _ids(positions: Sequence[Position]) -> bytes:
    # A client that gets no ids reloads its page.
    if len(positions) > MARK_IDS_ANNOUNCED_MAX:
        return b'"ids":null'
    ids = [b'"%b"' % position.id.encode() for position in positions]
    return b'"ids":[%b]' % b",".join(ids)


def _read_from_args(read_from: ReadFrom) -> tuple[str | int, ...]:
    if isinstance(read_from, Start):
        return (read_from.value, *ZERO)
    return ("after", *read_from)
