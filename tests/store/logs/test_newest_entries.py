"""What is kept of the newest entries of a log."""

from __future__ import annotations

import pytest

from streamer.core.streams.views import Audience
from streamer.model import TAG_MAX, Position
from streamer.store.logs import newest_entries, shared_logs
from streamer.store.logs.newest_entries import EntryMemory, Item, NewestEntries

NOTHING = (0, 0, 0)


def item(offset: int, fragment: bytes = b'"title":"t"}') -> Item:
    """Return the item of an entry: its time and its tag follow from its offset."""
    fields = [b"t", b"%d" % (offset + 100), b"n", fragment]
    return [b"%d-%d" % (10 * offset, offset), fields]


def items(newest: int, oldest: int) -> list[Item]:
    return [item(offset) for offset in range(newest, oldest - 1, -1)]


def newest_of(memory: EntryMemory | None = None, ended: bytes = b"") -> NewestEntries:
    """Return what is kept of a log with nine entries: nothing yet."""
    audience = Audience(Position(7, 90, 9, 109), 1, 0, ended)
    return NewestEntries(audience, memory or EntryMemory())


def offsets(newest: NewestEntries) -> list[int]:
    return [order[1] for order, _ in newest.entries]


def test_nothing_is_known_at_first() -> None:
    newest = newest_of()

    assert newest.entries == []
    assert newest.unknown == (90, 9, 109)
    assert newest.begin == "90-9"


def test_a_full_range_says_nothing_of_what_follows() -> None:
    newest = newest_of()

    newest.add(newest.begin, items(9, 8), 2, NOTHING)

    assert newest.entries == [((90, 9, 109), item(9)), ((80, 8, 108), item(8))]
    assert newest.unknown == (80, 7, TAG_MAX)
    assert newest.begin == "(80-8"


def test_a_range_that_is_not_full_reaches_its_end() -> None:
    newest = newest_of()

    newest.add(newest.begin, items(9, 8), 3, (75, 7, 5))

    assert newest.unknown == (75, 7, -1)


def test_a_range_without_items_reaches_its_end() -> None:
    newest = newest_of()
    newest.add(newest.begin, items(9, 8), 2, NOTHING)

    newest.add(newest.begin, [], 2, NOTHING)

    assert offsets(newest) == [9, 8]
    assert newest.unknown == (0, 0, -1)
    assert newest.begin == "(80-8"


def test_ranges_continue_each_other() -> None:
    newest = newest_of()

    newest.add(newest.begin, items(9, 8), 2, NOTHING)
    newest.add(newest.begin, items(7, 5), 3, NOTHING)

    assert offsets(newest) == [9, 8, 7, 6, 5]


def test_a_range_that_another_request_has_read_is_not_added_again() -> None:
    newest = newest_of()
    begin = newest.begin

    newest.add(begin, items(9, 8), 2, NOTHING)
    newest.add(begin, items(9, 6), 4, NOTHING)

    assert offsets(newest) == [9, 8]


def test_entries_that_have_ended_or_were_purged_are_left_out() -> None:
    newest = newest_of(ended=bytes([0, 0b10000000]))

    newest.add(newest.begin, [item(9), item(8), item(7, b""), item(6)], 4, NOTHING)

    assert offsets(newest) == [9, 6]
    assert newest.unknown == (60, 5, TAG_MAX)


def test_of_large_entries_fewer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_entries, "BYTES_OF_LOG_MAX", 1_500)
    newest = newest_of()

    newest.add(newest.begin, items(9, 1), 20, NOTHING)
    newest.add(newest.begin, items(6, 1), 20, NOTHING)

    assert offsets(newest) == [9, 8, 7]
    assert newest.unknown == (70, 6, TAG_MAX)
    assert newest.begin == "(70-7"


def test_what_is_older_than_the_state_of_any_log_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr(newest_entries, "monotonic", lambda: now_s)
    memory = EntryMemory()
    first, second = newest_of(memory), newest_of(memory)
    first.add(first.begin, items(9, 8), 2, NOTHING)

    now_s += newest_entries.KEPT_S
    second.add(second.begin, items(9, 9), 1, NOTHING)
    assert offsets(first) == [9, 8]

    now_s += 0.1
    second.add(second.begin, items(8, 8), 1, NOTHING)

    assert offsets(first) == []
    assert offsets(second) == [9, 8]
    assert memory.size == second.size
    assert newest_entries.KEPT_S > shared_logs.LENGTH_S


def test_what_was_kept_longest_is_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(newest_entries, "BYTES_MAX", 3_000)
    memory = EntryMemory()
    logs = [newest_of(memory) for _ in range(3)]

    for newest in logs:
        newest.add(newest.begin, items(9, 8), 2, NOTHING)

    assert [offsets(newest) for newest in logs] == [[], [9, 8], [9, 8]]
    assert memory.size == sum(newest.size for newest in logs) <= 3_000
    assert logs[0].unknown == (90, 9, 109)
    logs[0].add(logs[0].begin, items(9, 9), 1, NOTHING)
    assert offsets(logs[0]) == [9]
    assert memory.size == sum(newest.size for newest in logs)
