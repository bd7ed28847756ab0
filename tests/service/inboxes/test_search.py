"""
The end of a page while its inbox changes.

Which entries match, and in which order, is tested on a whole server in the tests of
surfaces. Here entries end between two reads of one page, which a server cannot be made
to do.
"""

from __future__ import annotations

from typing import Any

import pytest

from streamer.core.access.rights import Caller
from streamer.core.streams.cursor import Cursor
from streamer.core.streams.subscription import Start
from streamer.model import ZERO, App, Entry, Player, Position
from streamer.service.inboxes.merge import EntriesAfter, MergedPage
from streamer.service.inboxes.search import InboxSearch
from streamer.store.logs.inbox import PageEntry

CALLER = Caller(App("searching"), None, frozenset({"notification:player:*"}))
ALICE = Player("alice")


def entry(offset: int) -> Entry:
    return Entry(1, offset, offset, offset, b'"body":"x"}')


class InboxOperations:
    """One inbox with the entries 1 to 6."""

    def __init__(self) -> None:
        self.kept = [1, 2, 3, 4, 5, 6]

    async def page(self, *_: Any, **__: Any) -> MergedPage:
        shown = [PageEntry.of(entry(o), 0) for o in reversed(self.kept)]
        return MergedPage("v", Cursor(ZERO), 0, shown, None)

    async def entries_after(
        self, _: Any, __: Any, place: Any, *, count: int
    ) -> EntriesAfter:
        start = 0 if place is Start.EARLIEST else place.own.offset
        following = [o for o in self.kept if o > start]
        entries = [entry(o) for o in following[:count]]
        cursor = Cursor(entries[-1].position if entries else Position(1, 0, 0, 0))
        return EntriesAfter(entries, cursor, None, more=len(following) > count)


@pytest.mark.parametrize(
    ("ending", "place"),
    [(set(), 4), ({1}, 4), ({1, 2, 3}, 4), ({4}, 3), ({3, 4}, 2), ({1, 2, 3, 4}, 0)],
)
async def test_the_next_page_skips_nothing_when_entries_end_meanwhile(
    ending: set[int], place: int
) -> None:
    inboxes: Any = InboxOperations()
    audiences: Any = None
    searching = InboxSearch(inboxes, audiences)
    even = [2, 4]

    def matches(found: PageEntry) -> bool:
        if found.entry.offset == even[-1]:
            # The page is full: this entry ends before the next cursor is read.
            inboxes.kept = [o for o in inboxes.kept if o not in ending]
        return found.entry.offset in even

    page = await searching.oldest_first(
        CALLER, ALICE, after=None, count=len(even), matches=matches
    )

    assert page.entries is not None
    assert [found.entry.offset for found in page.entries] == even
    assert page.next is not None
    assert page.next.own.offset == place
