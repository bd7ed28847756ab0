"""What a process remembers of entries and connections, and what it forgets."""

from __future__ import annotations

import pytest

from streamer.core.counters import TransportCounters
from streamer.core.streams.subscription import Start
from streamer.errors import DRAINING
from streamer.model import App, Log, Player, Position
from streamer.service.inspection import history as history_module
from streamer.service.inspection.history import Closed, History, Refused
from streamer.service.streams.poll_waiter import PollWaiter

ANN = Log(App("app"), Player("ann"))
BOB = Log(App("app"), Player("bob"))
THEIRS = Log(App("other"), Player("ann"))


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(clock: Clock) -> History:
    return History(clock_s=clock, entries_max=4)


def announce(history: History, log: Log, *offsets: int) -> None:
    for offset in offsets:
        history.announcements.append((log, offset, 7, "", 1_000.0 + offset))


def test_an_announcement_is_found_by_log_offset_and_tag(history: History) -> None:
    history.announcements.append((ANN, 1, 7, "phone", 1_000.5))
    history.announcements.append((BOB, 1, 7, "", -1_001.5))

    found = history.announcements_of([(ANN, 1, 7), (ANN, 1, 8), (THEIRS, 1, 7)])

    assert found == {(ANN, 1, 7): (1_000_500, 1_000_500, "phone")}
    assert history.announcements_of([(BOB, 1, 7)]) == {(BOB, 1, 7): (1_001_500, 0, "")}


def test_the_newest_entries_replace_the_oldest(history: History) -> None:
    announce(history, ANN, 1, 2, 3, 4, 5)

    found = history.announcements_of([(ANN, n, 7) for n in range(1, 6)])

    assert sorted(offset for _, offset, _ in found) == [2, 3, 4, 5]


def test_a_repeated_announcement_counts_the_first_time(history: History) -> None:
    history.announcements.append((ANN, 1, 7, "", 1_000.0))
    history.announcements.append((ANN, 1, 7, "", -1_002.0))

    assert history.announcements_of([(ANN, 1, 7)]) == {
        (ANN, 1, 7): (1_000_000, 1_000_000, "")
    }


def test_what_is_written_later_was_announced_before(history: History) -> None:
    """A large audience is written to in portions."""
    for at_s in (-1_000.0, 1_003.0, 1_004.0):
        history.announcements.append((ANN, 1, 7, "", at_s))

    assert history.announcements_of([(ANN, 1, 7)]) == {
        (ANN, 1, 7): (1_000_000, 1_003_000, "")
    }


def test_an_acknowledgement_counts_from_the_first_that_covers_the_entry(
    history: History, clock: Clock
) -> None:
    for offset in (3, 5, 9):
        clock.now_s += 1
        history.acknowledged(ANN, [(ANN.name, offset), ("\x01tnews", 1)])

    assert history.acknowledged_ms(ANN, ANN.name, 4, 0) == 1_002_000
    assert history.acknowledged_ms(ANN, "\x01tnews", 1, 0) == 1_001_000
    # One before the entry was stored is of a log that was lost.
    assert history.acknowledged_ms(ANN, ANN.name, 4, 1_002_500) == 1_003_000
    assert history.acknowledged_ms(ANN, ANN.name, 10, 0) == 0
    assert history.acknowledged_ms(BOB, ANN.name, 4, 0) == 0


def refuse(history: History, log: Log, reason: str) -> None:
    history.refused(log, transport="sse", refusal="r", reason=reason, client="c")


def test_the_last_events_of_a_player_are_kept(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "EVENTS_PER_PLAYER", 2)
    for reason in ("a", "b", "c"):
        refuse(history, ANN, reason)
    refuse(history, BOB, "d")

    assert [it.reason for it in history.events_of(ANN)] == ["b", "c"]
    assert history.events_of(THEIRS) == []


def test_the_player_without_events_for_longest_is_forgotten(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "PLAYERS_MAX", 2)
    refuse(history, ANN, "a")
    refuse(history, BOB, "b")
    refuse(history, ANN, "c")
    refuse(history, THEIRS, "d")

    assert history.events_of(BOB) == []
    assert len(history.events_of(ANN)) == 2


def test_an_ending_has_how_far_the_connection_came(history: History) -> None:
    reader = PollWaiter(Start.LATEST, "c1", TransportCounters("sse"))
    reader.subscription.live_at = Position(1, 5_000, 5, 7)

    history.closed(
        ANN, reader, DRAINING, transport="sse", client="1.2.3.4", connected_ms=7
    )

    (closed,) = history.events_of(ANN)
    assert isinstance(closed, Closed)
    assert (closed.code, closed.reason, closed.connected_ms) == (4100, "draining", 7)
    assert [(it.name, it.upto) for it in closed.places] == [("ann", 5)]


def test_a_player_that_is_forgotten_leaves_nothing(history: History) -> None:
    announce(history, ANN, 1)
    announce(history, BOB, 1)
    history.replayed(ANN, "c1", 1, 2)
    history.acknowledged(ANN, [(ANN.name, 1)])
    refuse(history, ANN, "a")
    refuse(history, BOB, "b")

    history.forget(ANN)

    assert history.events_of(ANN) == []
    assert history.announcements_of([(ANN, 1, 7)]) == {}
    assert history.replays_to({"c1"}) == []
    assert history.acknowledged_ms(ANN, ANN.name, 1, 0) == 0
    assert len(history.announcements_of([(BOB, 1, 7)])) == 1
    assert isinstance(history.events_of(BOB)[0], Refused)
