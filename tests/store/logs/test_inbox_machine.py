"""
A player's inbox against a plain model of it, on a real server.

Hypothesis publishes, marks and takes marks back, withdraws, replaces, lets time pass,
trims, loses the log or only its tail, and reads by every way there is. After each step
all of these have to agree on the same entries, the counts are recounted, the read marks
compared, and the version has to change exactly when a page would.
"""

from __future__ import annotations

import asyncio
import itertools
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from streamer.core.streams.subscription import Start
from streamer.model import ZERO, App, Entry, Gap, Log, Player, Position
from streamer.store.client.connection import RedisConnection
from streamer.store.keys import keys_of
from streamer.store.logs.inbox import Draft, Inbox, MarkResult, Page, Read, ReadAfter
from streamer.store.logs.numbered import NumberedLists
from streamer.store.logs.page_reads import PageReads
from streamer.store.logs.receipts import Receipt, ReceiptStore
from streamer.store.logs.settings import LogSettings
from streamer.store.logs.views import Views

RETENTION_MS = 1_000_000
RETENTION_US = RETENTION_MS * 1_000
ENTRIES_MAX = 12
numbers = itertools.count()


def at(place: Position, fragment: bytes, **facts: Any) -> Entry:
    return Entry(place.epoch, place.at_us, place.offset, place.tag, fragment, **facts)


class Model:
    """The inbox as a list."""

    def __init__(self) -> None:
        self.epoch = 0
        self.head = ZERO
        self.entries: list[Entry] = []
        self.read_at: dict[int, int] = {}
        """Time by offset, of the first mark."""
        self.marks = 0
        self.forced = 0
        self.expires: dict[int, int] = {}
        """Time by offset, of entries that have not ended in another way."""
        self.ended_by: dict[int, Any] = {}
        """How entries have ended, by offset; "control" for control entries."""
        self.by_key: dict[str, Entry] = {}
        self.acked = 0

    def tidy(self, now_us: int) -> None:
        kept = [e for e in self.entries if e.at_us >= now_us - RETENTION_US]
        self.entries = kept[-ENTRIES_MAX:]
        for entry in self.live:
            if 0 < self.expires.get(entry.offset, 0) <= now_us // 1_000:
                self.ended_by[entry.offset] = "expired"

    @property
    def live(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.offset not in self.ended_by]

    def append(self, entry: Entry, collapse_key: str, expires_ms: int) -> None:
        before = self.by_key.get(collapse_key)
        if before in self.live and before is not None:
            self.ended_by[before.offset] = "replaced"
            self.expires.pop(before.offset, None)
            entry = entry._replace(replaces=before.id)
        if collapse_key:
            self.by_key[collapse_key] = entry
        self.entries.append(entry)
        self.head = entry.position
        if expires_ms:
            self.expires[entry.offset] = expires_ms

    def append_control_entry(self, place: Position, withdrawn: str) -> None:
        """Append a control entry for a withdrawn notification."""
        self.epoch = place.epoch
        self.entries.append(at(place, b"", withdraws=withdrawn))
        self.head = place
        self.ended_by[place.offset] = "control"

    def as_read(self, entry: Entry) -> Entry:
        """Return the entry as a reader of the log gets it."""
        if self.ended_by.get(entry.offset, "control") == "control":
            return entry
        return at(entry.position, b"", replaces=entry.replaces, ended=True)

    @property
    def floor(self) -> int:
        return self.entries[0].offset if self.entries else self.head.offset + 1

    @property
    def unread(self) -> int:
        return sum(entry.offset not in self.read_at for entry in self.live)

    @property
    def page_state(self) -> Any:
        """Everything that a page can show or that changes its version."""
        return (
            (self.epoch, self.head, self.floor, self.forced),
            [(entry, self.read_at.get(entry.offset, 0)) for entry in self.live],
        )

    def find(self, place: Position) -> Entry | None:
        for entry in self.entries:
            if entry.position.order == place.order:
                return entry
        return None

    def mark(self, entries: list[Entry], now_ms: int) -> int:
        offsets = {entry.offset for entry in entries if entry in self.live}
        fresh = offsets - self.read_at.keys()
        self.read_at |= dict.fromkeys(fresh, now_ms)
        self.marks += bool(fresh)
        return len(fresh)

    def gap(self, place: Position, replay_max: int) -> Gap | None:
        if place.epoch not in (0, self.epoch):
            return Gap.EPOCH
        if place.offset > self.head.offset:
            return Gap.AHEAD
        if place.offset + 1 < self.floor:
            return Gap.TRIMMED
        known = {entry.offset: entry.position for entry in self.entries}
        known |= {self.head.offset: self.head}
        there = known.get(place.offset)
        if place.offset and there and there.order != place.order:
            return Gap.DIVERGED
        if replay_max and self.head.offset - place.offset > replay_max:
            return Gap.TOO_FAR
        return None


class InboxMachine(RuleBasedStateMachine):
    """One player's inbox."""

    url = ""
    steps = 0

    places = Bundle("places")
    """Positions that were returned at some time, valid or not."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = RedisConnection(self.url)
        self.now_us = 1_700_000_000_000_000
        self.log = Log(App("machine"), Player(f"p{next(numbers)}"))
        settings = LogSettings(RETENTION_MS, ENTRIES_MAX, lambda: self.now_us)
        self.inbox = Inbox(self.redis, settings)
        self.lists = NumberedLists(self.redis, settings)
        self.receipts = ReceiptStore(self.redis, settings)
        self.views = Views(self.redis, settings)
        self.model = Model()
        self.saved: tuple[Model, list[bytes | None]] | None = None
        self.version: tuple[str, Any] = ("", None)

    def teardown(self) -> None:
        self.run(self.redis.close())
        self.runner.close()

    def run(self, coroutine: Any) -> Any:
        type(self).steps += 1
        return self.runner.run(coroutine)

    @initialize(target=places)
    def begin(self) -> Position:
        return ZERO

    # What happens to the log.

    @rule(
        target=places,
        weight=st.sampled_from([1, 1, 5_000]),
        kinds=st.lists(
            st.tuples(
                st.sampled_from(["", "", "a", "b"]),
                st.sampled_from([None, None, -1, 0, 1, 200_000, 600_000]),
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def publish(self, weight: int, kinds: list[tuple[str, int | None]]) -> Position:
        count = len(kinds)
        drafts = [
            Draft(
                b"%d" % (n % 10) * weight,
                expires_ms=0 if ttl_ms is None else self.now_ms + ttl_ms,
                collapse_key=collapse_key,
            )
            for n, (collapse_key, ttl_ms) in enumerate(kinds)
        ]
        self.model.tidy(self.now_us)

        appended = self.run(self.inbox.append(self.log, drafts))

        model = self.model
        epochs = {position.epoch for position in appended.stored}
        assert len(epochs) == 1
        assert epochs == {model.epoch} or model.epoch == 0
        (model.epoch,) = epochs
        at_us = max(self.now_us, model.head.at_us)
        first = model.head.offset + 1
        assert [p.offset for p in appended.stored] == [*range(first, first + count)]
        assert {p.at_us for p in appended.stored} == {at_us}
        for place, draft in zip(appended.stored, drafts, strict=True):
            entry = at(place, draft.fragment)
            model.append(entry, draft.collapse_key, draft.expires_ms)
            if 0 < draft.expires_ms <= self.now_ms:
                model.ended_by[entry.offset] = "expired"
        model.tidy(self.now_us)
        last: Position = appended.stored[-1]
        return last

    @rule(
        place=places,
        forged=st.sampled_from(["", "", "", "tag", "time", "offset", "other log"]),
    )
    def withdraw(self, place: Position, forged: str) -> None:
        self.model.tidy(self.now_us)
        asked = forge(place, forged)
        if asked.is_zero:
            return
        if forged == "other log":
            other = asked.id
            self.run(self.inbox.append_withdrawal(self.log, other))
            self.copy_control_entry(other)
            return
        found = self.model.find(asked)

        withdrawn = self.run(self.inbox.withdraw(self.log, asked))

        if found is None or found.withdraws:
            assert withdrawn is None
        elif found not in self.model.live:
            assert not withdrawn.done
        else:
            assert withdrawn.done
            self.model.ended_by[found.offset] = "withdrawn"
            self.model.expires.pop(found.offset, None)
            self.copy_control_entry(found.id)

    def copy_control_entry(self, withdrawn: str) -> None:
        """Copy the position of a control entry from the store to the model."""
        head = self.run(self.inbox.page(self.log, count=0)).head
        assert head.offset == self.model.head.offset + 1
        assert head.at_us == max(self.now_us, self.model.head.at_us)
        self.model.append_control_entry(head, withdrawn)
        self.model.tidy(self.now_us)

    @property
    def now_ms(self) -> int:
        return self.now_us // 1_000

    @rule(us=st.integers(1, 2_000) | st.integers(1, RETENTION_US * 3 // 4))
    def time_passes(self, us: int) -> None:
        self.now_us += us

    @rule(us=st.integers(1, 2_000) | st.integers(1, 5_000_000))
    def the_clock_is_set_back(self, us: int) -> None:
        self.now_us -= us

    @rule()
    def a_copy_is_made(self) -> None:
        keys = keys_of().inbox(self.log)
        dump = self.run(self.redis.call_many([("DUMP", key) for key in keys]))
        self.saved = deepcopy(self.model), dump

    @precondition(lambda self: self.saved)
    @rule()
    def the_copy_takes_over(self) -> None:
        """Fail over to a replica that lacks the last writes."""
        assert self.saved is not None
        model, dump = self.saved
        keys = keys_of().inbox(self.log)
        commands: list[Any] = [("DEL", *keys)]
        commands += [
            ("RESTORE", key, 10**9, value)
            for key, value in zip(keys, dump, strict=True)
            if value is not None
        ]
        replies = self.run(self.redis.call_many(commands))
        assert not [reply for reply in replies if isinstance(reply, Exception)]
        self.model = deepcopy(model)
        self.version = ("", None)

    @precondition(lambda self: len(self.model.entries) > 1)
    @rule(state_first=st.booleans())
    def the_log_is_lost(self, state_first: bool) -> None:
        keys = keys_of().inbox(self.log)
        if state_first:
            self.run(self.redis.call("DEL", keys[0]))
        self.run(self.redis.call("DEL", *keys))
        self.model = Model()

    # Marks.

    def marked(self, entries: list[Entry], marked: MarkResult) -> None:
        assert marked.changed == self.model.mark(entries, self.now_ms)
        assert marked.unread == self.model.unread
        assert marked.marks == self.model.marks

    @rule(
        known=st.lists(places, max_size=4),
        picked=st.sets(st.integers(0, ENTRIES_MAX), max_size=4),
        forged=st.sampled_from(["", "", "tag", "time", "offset"]),
        force=st.booleans(),
    )
    def mark_ids(
        self, known: list[Position], picked: set[int], forged: str, force: bool
    ) -> None:
        self.model.tidy(self.now_us)
        found = [e.position for i, e in enumerate(self.model.entries) if i in picked]
        if forged:
            found = [forge(position, forged) for position in found]
        asked = [p for p in (*known, *found) if p.offset]

        marked = self.run(
            self.inbox.mark_ids(self.log, asked, elsewhere=int(force), force=force)
        )

        before = self.model.marks
        changed = self.model.mark(
            [e for p in asked if (e := self.model.find(p))], self.now_ms
        )
        if force and self.model.marks == before:
            self.model.marks += 1
            self.model.forced += 1
        unread = self.model.unread + int(force)
        assert marked == (unread, changed, self.model.marks)

    @rule(place=places, forged=st.sampled_from(["", "", "tag", "epoch", "offset"]))
    def mark_up_to(self, place: Position, forged: str) -> None:
        self.model.tidy(self.now_us)
        asked = forge(place, forged)

        marked = self.run(self.inbox.mark_up_to(self.log, asked))

        good = asked.epoch in (0, self.model.epoch) and self.model.find(asked)
        entries = [e for e in self.model.entries if good and e.offset <= asked.offset]
        self.marked(entries, marked)

    @rule()
    def mark_all(self) -> None:
        self.model.tidy(self.now_us)

        marked = self.run(self.inbox.mark_all(self.log))

        self.marked(self.model.entries, marked)

    @rule(
        known=st.lists(places, max_size=4),
        picked=st.sets(st.integers(0, ENTRIES_MAX), max_size=4),
        forged=st.sampled_from(["", "", "tag", "time", "offset"]),
    )
    def mark_unread(self, known: list[Position], picked: set[int], forged: str) -> None:
        self.model.tidy(self.now_us)
        found = [e.position for i, e in enumerate(self.model.entries) if i in picked]
        if forged:
            found = [forge(position, forged) for position in found]
        asked = [p for p in (*known, *found) if p.offset]

        marked = self.run(self.inbox.mark_unread(self.log, asked))

        entries = [e for p in asked if (e := self.model.find(p))]
        read = {e.offset for e in entries if e in self.model.live}
        read &= self.model.read_at.keys()
        for offset in read:
            del self.model.read_at[offset]
        self.model.marks += bool(read)
        assert marked.changed == len(read)
        assert marked.unread == self.model.unread
        assert marked.marks == self.model.marks

    @rule(place=places, forged=st.sampled_from(["", "", "tag", "epoch", "offset"]))
    def acknowledge(self, place: Position, forged: str) -> None:
        self.model.tidy(self.now_us)
        asked = forge(place, forged)

        news = self.run(self.receipts.acknowledge(self.log, asked))

        good = asked.epoch in (0, self.model.epoch) and self.model.find(asked)
        assert news == bool(good and asked.offset > self.model.acked)
        if news:
            self.model.acked = asked.offset

    # Reading.

    def shown_as_in_the_model(self, page: Page, entries: list[Entry]) -> None:
        assert page.entries is not None
        assert [item.entry for item in page.entries] == entries
        assert [item.read_at_ms for item in page.entries] == [
            self.model.read_at.get(entry.offset, 0) for entry in entries
        ]

    @rule(limit=st.integers(1, 5))
    def walk_the_pages(self, limit: int) -> None:
        self.model.tidy(self.now_us)
        left = self.model.live[::-1]
        newest = None
        while True:
            page = self.run(
                self.inbox.page(
                    self.log, newest=newest, newest_included=False, count=limit
                )
            )
            self.shown_as_in_the_model(page, left[:limit])
            if len(left) <= limit:
                return
            newest, left = left[limit - 1].position, left[limit:]

    @rule(
        bounds=st.tuples(st.none() | places, st.none() | places),
        included=st.tuples(st.booleans(), st.booleans()),
        limit=st.integers(0, ENTRIES_MAX + 1),
    )
    def page_between(
        self,
        bounds: tuple[Position | None, Position | None],
        included: tuple[bool, bool],
        limit: int,
    ) -> None:
        self.model.tidy(self.now_us)
        newest, oldest = bounds

        page = self.run(
            self.inbox.page(
                self.log,
                newest=newest,
                newest_included=included[0],
                oldest=oldest,
                oldest_included=included[1],
                count=limit,
            )
        )

        def within(entry: Entry) -> bool:
            place = entry.position[1:3]
            return not (
                (newest and place > newest[1:3])
                or (newest and place == newest[1:3] and not included[0])
                or (oldest and place < oldest[1:3])
                or (oldest and place == oldest[1:3] and not included[1])
            )

        expected = [e for e in self.model.live[::-1] if within(e)]
        self.shown_as_in_the_model(page, expected[:limit])
        follows = expected[limit].position if len(expected) > limit else None
        assert page.following == follows

    @rule(
        place=places,
        forged=st.sampled_from(["", "", "", "tag", "time", "epoch", "offset", "id"]),
        limit=st.integers(1, 8),
        replay_max=st.sampled_from([0, 0, 3]),
        bytes_max=st.sampled_from([0, 0, 6_000]),
    )
    def read_after(
        self, place: Position, forged: str, limit: int, replay_max: int, bytes_max: int
    ) -> None:
        self.model.tidy(self.now_us)
        asked = forge(place, forged)

        (read,) = self.run(
            self.inbox.read_many(
                [ReadAfter(self.log, asked, limit, replay_max, bytes_max)]
            )
        )

        self.counted(read)
        gap = self.model.gap(asked, replay_max)
        assert read.history.gap is gap
        if gap is not None:
            assert read.history.entries == []
            return
        entries = map(self.model.as_read, self.model.entries)
        follows = [e for e in entries if e.offset > asked.offset]
        entries = read.history.entries
        assert entries == follows[: len(entries)]
        if bytes_max:
            assert entries or not follows
        else:
            assert len(entries) == min(limit, len(follows))
        assert read.history.start.offset == asked.offset

    @rule(limit=st.integers(1, 5))
    def read_from_the_earliest(self, limit: int) -> None:
        self.model.tidy(self.now_us)

        read = self.run(self.inbox.read_after(self.log, Start.EARLIEST, count=limit))

        self.counted(read)
        entries = [self.model.as_read(entry) for entry in self.model.entries]
        assert read.history.entries == entries[:limit]
        assert read.history.start.offset == self.model.floor - 1

    @rule(target=places)
    def read_from_the_latest(self) -> Position:
        self.model.tidy(self.now_us)

        read = self.run(self.inbox.read_after(self.log, Start.LATEST, count=5))

        self.counted(read)
        assert read.history.start == read.history.head
        assert read.history.entries == []
        head: Position = read.history.head
        return head

    def counted(self, read: Read) -> None:
        assert read.history.head == self.model.head
        assert (read.unread, read.marks) == (self.model.unread, self.model.marks)

    @invariant()
    def counts_and_versions_are_right(self) -> None:
        self.model.tidy(self.now_us)

        page = self.run(self.inbox.page(self.log, count=100))

        assert page.head == self.model.head
        assert page.unread == self.model.unread
        self.shown_as_in_the_model(page, self.model.live[::-1])
        before, state = self.version
        if state is not None:
            assert (page.version == before) == (state == self.model.page_state)
        self.version = page.version, deepcopy(self.model.page_state)
        again = self.run(self.inbox.page(self.log, count=5, version=page.version))
        assert (again.version, again.entries) == (page.version, None)

    @invariant()
    def every_way_of_reading_shows_the_same(self) -> None:
        async def ask() -> Any:
            return await asyncio.gather(
                self.inbox.page(self.log, count=100),
                self.inbox.read_after(self.log, Start.EARLIEST, count=100),
                *(
                    self.lists.page(self.log, skip=0, count=100, read=which)
                    for which in (None, True, False)
                ),
                self.receipts.of_many(places),
            )

        model = self.model
        places = [(self.log, entry.position) for entry in model.entries]
        page, read, *lists, receipts = self.run(ask())

        alive = [e for e in read.history.entries if not (e.ended or e.withdraws)]
        assert [item.entry for item in page.entries] == alive[::-1]
        assert lists[0].entries == page.entries
        assert lists[1].entries == [e for e in page.entries if e.read_at_ms]
        assert lists[2].entries == [e for e in page.entries if not e.read_at_ms]
        assert lists[2].total == read.unread == page.unread
        assert receipts == [
            None
            if model.ended_by.get(entry.offset) == "control"
            else Receipt(
                entry.at_ms,
                entry.offset <= model.acked,
                model.read_at.get(entry.offset, 0),
                model.ended_by.get(entry.offset, ""),
                model.expires.get(entry.offset, 0),
            )
            for entry in model.entries
        ]

    @invariant()
    def a_peek_is_the_state_that_a_read_returns(self) -> None:
        read = self.run(self.inbox.read_after(self.log, Start.LATEST, count=0))

        (peek,) = self.run(self.inbox.peek([self.log]))

        assert (peek.head, peek.marks) == (read.history.head, read.marks)
        assert not peek.is_due

    @invariant()
    def the_fast_first_page_is_the_same(self) -> None:
        async def ask() -> Any:
            page_reads = PageReads(self.redis, self.inbox, self.views)
            return await asyncio.gather(
                *(
                    page_reads.read(self.log, newest=None, oldest=None, count=count)
                    for count in (1, 5, 21)
                ),
                *(self.inbox.page(self.log, count=count) for count in (1, 5, 21)),
            )

        found = self.run(ask())

        assert [page.own for page in found[:3]] == found[3:]

    @invariant()
    def every_key_expires(self) -> None:
        keys = keys_of().inbox(self.log)
        lives = self.run(self.redis.call_many([("PTTL", key) for key in keys]))

        assert -1 not in lives


def forge(position: Position, part: str) -> Position:
    if part == "tag":
        return position._replace(tag=position.tag ^ 1)
    if part == "time":
        return position._replace(at_us=position.at_us + 10**12)
    if part == "epoch":
        return position._replace(epoch=position.epoch % (2**32 - 1) + 1)
    if part == "offset":
        return position._replace(offset=position.offset + 1_000)
    if part == "id":
        return position._replace(epoch=0)
    return position


def check(url: str, examples: int, steps: int) -> int:
    InboxMachine.url = url
    InboxMachine.steps = 0
    run_state_machine_as_test(
        InboxMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        ),
    )
    return InboxMachine.steps


@pytest.fixture(autouse=True)
def guard() -> None:
    """Replace the folder's guard, because the machine runs its own loops."""


@pytest.mark.row("C5")
def test_the_inbox_is_what_the_model_says(any_store: str) -> None:
    assert check(any_store, examples=16, steps=40) > 1_600


@pytest.mark.nightly
@pytest.mark.timeout(1_200)
@pytest.mark.row("C5")
def test_the_inbox_is_what_the_model_says_in_long_runs(any_store: str) -> None:
    assert check(any_store, examples=500, steps=80) > 50_000
