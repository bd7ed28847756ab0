"""Walks through an inbox, in both directions, while it changes between pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.core.streams.cursor import Cursor
from streamer.model import Gap, Log, Position
from streamer.service.inboxes import search as search_module
from streamer.service.inboxes.inbox import InboxOperations
from streamer.service.inboxes.merge import EntriesAfter
from streamer.service.inboxes.search import EntryFilter, InboxSearch, SearchPage
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import Draft, PageEntry

from .world import FRAGMENT, World, ids

RARE = b'"type":"rare","title":"t"}'


def is_unread(entry: PageEntry) -> bool:
    return not entry.read_at_ms


def is_rare(entry: PageEntry) -> bool:
    return entry.entry.fragment == RARE


class Walk:
    """A walk through alice's inbox, a page at a time."""

    def __init__(
        self,
        world: World,
        *,
        oldest_first: bool,
        count: int,
        matches: EntryFilter | None = None,
        only_unread: bool = False,
    ) -> None:
        self.world = world
        self.oldest_first = oldest_first
        self.count = count
        self.matches = matches
        self.only_unread = only_unread
        self.shown: list[str] = []
        self.pages: list[list[str]] = []
        self.cursor: Cursor | None = None
        self.gaps: list[Gap] = []
        self.done = False

    async def page(self) -> SearchPage:
        """Read a page at the cursor."""
        search = InboxSearch(self.world.inboxes)
        options: dict[str, Any] = {
            "count": self.count,
            "matches": self.matches,
            "only_unread": self.only_unread,
        }
        me, player = self.world.me, self.world.log.player
        if self.oldest_first:
            return await search.oldest_first(me, player, after=self.cursor, **options)
        return await search.newest_first(
            me, player, newest=self.cursor, oldest=None, **options
        )

    async def step(self) -> None:
        """Read the next page."""
        page = await self.page()
        assert page.entries is not None
        names = [entry.entry.id for entry in page.entries]
        assert len(names) <= self.count
        self.pages.append(names)
        self.shown += names
        if page.gap:
            self.gaps.append(page.gap)
        self.done = page.next is None
        if page.next is not None:
            # As a client passes it on.
            self.cursor = Cursor.parse(page.next.text)

    async def finish(self) -> list[str]:
        """Read the remaining pages; return the ids of all."""
        while not self.done:
            await self.step()
        return self.shown


async def expire_all(world: World) -> None:
    world.us += 1_000_000


async def test_a_page_oldest_first_goes_on_after_what_has_expired(world: World) -> None:
    positions = []
    for letter in "abxxcxdef":
        if letter == "x":
            await world.append_expiring(world.log)
        else:
            positions += await world.append(world.log)
    await expire_all(world)
    names = ids(positions)

    walk = Walk(world, oldest_first=True, count=4)
    await walk.finish()

    assert walk.pages == [names[:4], names[4:]]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
async def test_the_last_page_says_that_nothing_follows(
    world: World, oldest_first: bool, count: int
) -> None:
    await world.join(world.news)
    await world.append_expiring(world.news, 3)
    names = []
    for log in (world.log, world.news, world.everyone) * 2:
        names += ids(await world.append(log))
        world.us += 1
    await world.append_expiring(world.log, 3)
    await expire_all(world)

    walk = Walk(world, oldest_first=oldest_first, count=count)
    await walk.finish()

    assert walk.shown == names if oldest_first else names[::-1]
    assert [len(page) for page in walk.pages] == [count] * (6 // count)


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("matches", [is_rare, lambda entry: not is_rare(entry)])
async def test_the_last_page_of_a_filter_says_that_nothing_follows(
    world: World, oldest_first: bool, matches: EntryFilter
) -> None:
    for _ in range(2):
        await world.inbox.append(world.log, [FRAGMENT] * 5)
        await world.inbox.append(world.log, [RARE] * 5)

    walk = Walk(world, oldest_first=oldest_first, count=5, matches=matches)
    await walk.finish()

    assert [len(page) for page in walk.pages] == [5, 5]


@pytest.fixture
def short_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SCANNED_MAX", 4)
    monkeypatch.setattr(search_module, "LOOKED_MAX", 12)
    monkeypatch.setattr(search_module, "SCAN_PAGE_ENTRIES", 2)


async def spread(world: World, count: int) -> list[Position]:
    await world.join(world.news)
    positions = []
    for _ in range(count):
        for log in (world.log, world.news, world.everyone):
            world.us += 1
            positions += await world.append(log)
    return positions


@pytest.mark.usefixtures("short_scans")
@pytest.mark.parametrize("oldest_first", [False, True])
async def test_with_everything_read_no_unread_page_follows(
    world: World, oldest_first: bool
) -> None:
    await spread(world, 8)
    await world.inboxes.mark_all(world.me, world.log.player)

    walk = Walk(
        world, oldest_first=oldest_first, count=3, matches=is_unread, only_unread=True
    )
    await walk.finish()

    assert walk.pages == [[]]


@pytest.mark.usefixtures("short_scans")
@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_walk_through_what_is_unread_ends_with_the_last(
    world: World, oldest_first: bool, count: int
) -> None:
    positions = await spread(world, 8)
    await world.inboxes.mark_all(world.me, world.log.player)
    # Four adjacent ones, with much that is read on either side.
    unread = ids(positions[10:14])
    await world.inboxes.mark_unread(world.me, world.log.player, unread)

    walk = Walk(
        world,
        oldest_first=oldest_first,
        count=count,
        matches=is_unread,
        only_unread=True,
    )
    await walk.finish()

    assert walk.shown == (unread if oldest_first else unread[::-1])
    assert walk.pages[-1] != []


@pytest.mark.usefixtures("short_scans")
@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize(("kept", "pages"), [(4, 1), (9, 1), (12, 1), (15, 2)])
async def test_a_filter_that_matches_nothing_says_so(
    world: World, oldest_first: bool, kept: int, pages: int
) -> None:
    await spread(world, kept // 3)
    for _ in range(kept % 3):
        await world.append(world.log)

    walk = Walk(world, oldest_first=oldest_first, count=3, matches=is_rare)
    await walk.finish()

    assert walk.pages == [[]] * pages


@pytest.mark.usefixtures("short_scans")
@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_page_without_a_match_is_followed_by_one_with_the_next(
    world: World, oldest_first: bool, count: int
) -> None:
    await spread(world, 3)
    world.us += 1
    rare = ids((await world.inbox.append(world.log, [RARE] * 2)).stored)
    world.us += 1
    await spread(world, 3)

    walk = Walk(world, oldest_first=oldest_first, count=count, matches=is_rare)
    await walk.finish()

    assert walk.shown == (rare if oldest_first else rare[::-1])
    assert walk.pages[0] == []
    assert all(walk.pages[1:-1])


async def test_a_walk_goes_on_in_each_log_when_one_loses_its_oldest_entries(
    world: World,
) -> None:
    await world.join(world.news)
    own = ids(await world.append(world.log, 2))
    world.us += 1
    news = ids(await world.append(world.news, 4))
    walk = Walk(world, oldest_first=True, count=4)
    await walk.step()
    world.us += 1
    later = await world.with_settings(entries_max=3).append(world.log, [FRAGMENT] * 6)
    own += ids(later.stored)

    await walk.finish()

    assert walk.gaps == [Gap.TRIMMED]
    assert walk.shown == [*own[:2], *news, *own[-3:]]


class Racing(InboxOperations):
    """Inboxes in which entries arrive before entries after a cursor are read."""

    def arrive(self, world: World, *logs: Log) -> None:
        self._world, self._logs = world, list(logs)

    async def entries_after(self, *args: Any, **kwargs: Any) -> EntriesAfter:
        while self._logs:
            self._world.us += 1
            await self._world.append(self._logs.pop(0))
        return await super().entries_after(*args, **kwargs)


@pytest.mark.parametrize("matches", [None, lambda entry: True])
async def test_what_arrives_during_the_read_is_left_to_the_next_page(
    world: World, matches: EntryFilter | None
) -> None:
    await world.join(world.news)
    logs = [world.log, world.news, world.everyone]
    names = []
    for log in (*logs, *logs):
        world.us += 1
        names += ids(await world.append(log))
    racing = Racing(world.inbox, world.merged, world.audiences)
    racing.arrive(world, *reversed(logs))
    walk = Walk(world, oldest_first=True, count=10, matches=matches)
    search = InboxSearch(racing)
    me, player = world.me, world.log.player

    page = await search.oldest_first(me, player, after=None, count=10, matches=matches)

    assert page.entries is not None
    assert [entry.entry.id for entry in page.entries] == names
    assert page.next is None
    assert page.state.unread == 6
    walk.cursor = Cursor.parse(page.state.cursor.text)
    await walk.finish()
    assert len(walk.shown) == 3
    assert not set(walk.shown) & set(names)


async def test_an_audience_that_is_joined_during_the_read_waits_for_the_next_page(
    world: World,
) -> None:
    class Joining(Racing):
        async def entries_after(self, *args: Any, **kwargs: Any) -> EntriesAfter:
            if self._logs:
                await self._world.join(self._world.news)
            return await super().entries_after(*args, **kwargs)

    names = ids(await world.append(world.log, 2))
    joining = Joining(world.inbox, world.merged, world.audiences)
    joining.arrive(world, world.news)
    search = InboxSearch(joining)
    me, player = world.me, world.log.player

    page = await search.oldest_first(me, player, after=None, count=2, matches=None)

    assert page.entries is not None
    assert [entry.entry.id for entry in page.entries] == names
    assert page.next is None
    walk = Walk(world, oldest_first=True, count=2)
    walk.cursor = Cursor.parse(page.state.cursor.text)
    assert len(await walk.finish()) == 1


class Step(NamedTuple):
    """A change between two pages, and a number that says what it works on."""

    kind: str
    number: int


KINDS = ["append", "replace", "expire", "withdraw", "delete", "read", "unread", "page"]
_STEP = st.builds(Step, st.sampled_from(KINDS), st.integers(0, 99))
STEPS = st.lists(_STEP, min_size=4, max_size=25)


class Model:
    """The notifications of an inbox, and what has become of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.logs = [world.log, world.news, world.everyone]
        self.sent: dict[str, tuple[Log, Position]] = {}
        self.rare: set[str] = set()
        self.read: set[str] = set()
        self.marked: set[str] = set()
        """Those whose marks have changed since `begin`."""
        self.ended: set[str] = set()
        self._expires_ms: dict[str, int] = {}
        self._by_key: dict[tuple[Log, str], str] = {}

    def begin(self) -> None:
        self.marked.clear()

    def alive(self) -> set[str]:
        return self.sent.keys() - self.ended

    def pass_ms(self, ms: int) -> None:
        self.world.us += ms * 1_000
        self.ended |= {n for n, at in self._expires_ms.items() if at <= self.world.ms}

    async def append(self, number: int, *, key: str = "") -> None:
        log = self.logs[number % 3]
        if number % 7:  # Otherwise in the millisecond of the one before.
            self.pass_ms(1)
        expires_ms = self.world.ms + 3 if number % 4 == 0 else 0
        draft = Draft(RARE if number % 5 == 0 else FRAGMENT, "", expires_ms, key)
        (position,) = (await self.world.inbox.append(log, [draft])).stored
        assert position is not None
        name = position.id
        self.sent[name] = log, position
        if number % 5 == 0:
            self.rare.add(name)
        if expires_ms:
            self._expires_ms[name] = expires_ms
        if key:
            if (log, key) in self._by_key:
                self.ended.add(self._by_key[log, key])
            self._by_key[log, key] = name

    async def apply(self, step: Step) -> None:
        world, player = self.world, self.world.log.player
        alive = sorted(self.alive())
        name = alive[step.number % len(alive)] if alive else ""
        if step.kind == "append":
            await self.append(step.number)
        elif step.kind == "replace":
            await self.append(step.number, key="k")
        elif step.kind == "expire":
            self.pass_ms(step.number % 5)
        elif not name:
            pass
        elif step.kind == "withdraw":
            await world.inbox.withdraw(*self.sent[name])
            self.ended.add(name)
        elif step.kind == "delete":
            await world.inboxes.delete(world.me, player, name)
            self.ended.add(name)
        else:
            self.marked.add(name)
            if step.kind == "read":
                self.read.add(name)
                await world.inboxes.mark_ids(world.me, player, [name])
            else:
                self.read.discard(name)
                await world.inboxes.mark_unread(world.me, player, [name])


FILTERS: dict[str, tuple[EntryFilter | None, Callable[[Model], set[str]]]] = {
    "none": (None, lambda model: set(model.sent)),
    "type": (is_rare, lambda model: set(model.rare)),
    "unread": (is_unread, lambda model: model.sent.keys() - model.read),
}


async def check_walk(
    world: World,
    before: Sequence[Step],
    during: Sequence[Step],
    *,
    oldest_first: bool,
    count: int,
    filter_name: str,
    is_short: bool,
) -> None:
    """Walk with changes between the pages, and compare what was shown."""
    matches, matching = FILTERS[filter_name]
    model = Model(world)
    await world.join(world.news)
    world.us += 1
    for step in before:
        if step.kind != "page":
            await model.apply(step)
    model.begin()
    first, ended_before = model.alive() & matching(model), set(model.ended)
    walk = Walk(
        world,
        oldest_first=oldest_first,
        count=count,
        matches=matches,
        only_unread=filter_name == "unread",
    )
    arrived: set[str] = set()
    for step in during:
        if step.kind == "page":
            if not walk.done:
                await walk.step()
                arrived = set(model.sent)
        else:
            await model.apply(step)
    if not walk.done:
        arrived = set(model.sent)
    await walk.finish()

    def order(name: str) -> tuple[int, int, int]:
        return model.sent[name][1].order

    shown = walk.shown
    assert shown == sorted(set(shown), key=order, reverse=not oldest_first)
    assert not ended_before & set(shown)
    stable = model.alive() - (model.marked if filter_name == "unread" else set())
    assert first & stable <= set(shown)
    if oldest_first:
        assert arrived & stable & matching(model) <= set(shown)
    if filter_name != "unread":
        assert set(shown) <= matching(model)
    assert walk.gaps == []
    # An empty page is the last one, unless all that it had has ended since, or the
    # server examined as many entries as it does for one page.
    if not is_short and all(step.kind == "page" for step in during):
        assert all(walk.pages[:-1])


@pytest.mark.parametrize("filter_name", FILTERS)
@pytest.mark.parametrize("oldest_first", [False, True])
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(before=STEPS, during=STEPS, count=st.integers(1, 4), is_short=st.booleans())
async def test_a_walk_shows_each_notification_once_whatever_ends_meanwhile(
    redis: RedisConnection,
    before: list[Step],
    during: list[Step],
    count: int,
    is_short: bool,
    oldest_first: bool,
    filter_name: str,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_short:
            patch.setattr(search_module, "SCANNED_MAX", 5)
            patch.setattr(search_module, "LOOKED_MAX", 9)
            patch.setattr(search_module, "SCAN_PAGE_ENTRIES", 2)
        await check_walk(
            World(redis),
            before,
            during,
            oldest_first=oldest_first,
            count=count,
            filter_name=filter_name,
            is_short=is_short,
        )
