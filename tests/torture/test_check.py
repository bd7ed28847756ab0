"""The judgement: a whole history is clean, and each falsified one is found out."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from .check import KINDS, check_badges, check_receipts, findings
from .history import (
    EVERYONE,
    Acknowledgement,
    History,
    Inbox,
    Mark,
    Membership,
    Publication,
    Reading,
    Received,
    Scheduled,
    Withdrawal,
    own,
)

NEWS = "#news"
Falsify = Callable[[History], object]


def at(second: float) -> str:
    return datetime.fromtimestamp(1_000 + second, UTC).isoformat()


def publication(number: int, log: str, **more: Any) -> Publication:
    """Return one that was sent at a second and acknowledged half a second later."""
    sent_at = 1_000.0 + number
    return Publication(
        f"k{number}",
        log,
        sent_at,
        id=f"id-{number:02}",
        acked_at=sent_at + 0.5,
        **more,
    )


def notification(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"id-{number:02}",
        "title": f"k{number}",
        "created_at": at(number),
        **more,
    }


def received(number: int, log: str, connection: int = 1, **more: Any) -> Received:
    return Received(
        1_000.7 + number, connection, "notification", f"id-{number:02}", log, **more
    )


def recount(inbox: Inbox) -> None:
    """Let the counts and the filtered page agree with the pages."""
    unread = [one["id"] for one in inbox.newest if "read_at" not in one]
    inbox.filtered = unread
    inbox.unread = inbox.counted = len(unread)


@pytest.fixture
def history() -> History:
    """
    Return a whole history: ann has read 1, 5 was withdrawn, 7 has replaced 6.

    The reader has two connections, of which the second begins after 3.
    """
    history = History()
    history.publications = [
        publication(1, own("ann")),
        publication(2, NEWS),
        publication(3, EVERYONE),
        publication(4, own("ann")),
        publication(5, NEWS),
        publication(6, own("ann"), collapse_key="c"),
        publication(7, own("ann"), collapse_key="c"),
    ]
    history.memberships = [Membership("ann", "news", 990.0, 991.0)]
    history.marks = [Mark("ann", "ids", ("id-01",), 1_010.0, acked_at=1_010.5)]
    history.withdrawals = [Withdrawal("id-05", NEWS, "", 1_011.0, 1_011.5, 204)]
    history.schedules = [Scheduled("s1", ("ann",), 1_012.0, 1_011.0, "x", 1_011.2)]
    history.acknowledgements = [Acknowledgement("ann", ("id-04",), 1_013, 1_013.5)]
    events = [
        Received(999.0, 1, "hello", unread=0),
        received(1, own("ann")),
        received(2, NEWS),
        received(3, EVERYONE),
        Received(1_003.8, 1, "ended"),
        Received(1_003.9, 2, "hello", unread=2),
        received(4, own("ann"), 2),
        received(5, NEWS, 2),
        received(6, own("ann"), 2, other="c"),
        Received(1_007.6, 2, "replaced", id="id-06", other="id-07"),
        received(7, own("ann"), 2, other="c"),
        Received(1_011.4, 2, "withdrawn", id="id-05"),
    ]
    history.readings = [Reading("r", "ann", "sse", False, events, unread=5)]
    oldest = [
        notification(1, read_at=at(10)),
        notification(2),
        notification(3),
        notification(4),
        notification(7),
        {"id": "id-12", "title": "s1", "created_at": at(12)},
    ]
    inbox = Inbox("ann", 1_020.0, oldest[::-1], oldest, [], 5, 5)
    recount(inbox)
    history.inboxes = {"ann": inbox}
    return history


def test_a_whole_history_is_clean(history: History) -> None:
    found = findings(history)

    assert found.clean, found.troubles
    assert (found.acknowledged, found.owed, found.delivered) == (7, 5, 5)


def drop_event(id: str) -> Falsify:
    def falsify(history: History) -> None:
        events = history.readings[0].events
        events[:] = [one for one in events if one.id != id]

    return falsify


def drop_shown(id: str) -> Falsify:
    def falsify(history: History) -> None:
        inbox = history.inboxes["ann"]
        for order in (inbox.newest, inbox.oldest):
            order[:] = [one for one in order if one["id"] != id]
        recount(inbox)

    return falsify


def show(number: int, **more: Any) -> Falsify:
    """Show one more notification, where its id belongs."""

    def falsify(history: History) -> None:
        inbox = history.inboxes["ann"]
        inbox.oldest.append({**notification(number), **more})
        inbox.oldest.sort(key=lambda one: str(one["id"]))
        inbox.newest[:] = inbox.oldest[::-1]
        recount(inbox)

    return falsify


def repeat_event(connection: int) -> Falsify:
    def falsify(history: History) -> None:
        events = history.readings[0].events
        events.append(events[1]._replace(at=1_012.0, connection=connection))

    return falsify


def swap_events(history: History) -> None:
    events = history.readings[0].events
    one, other = events[1], received(4, own("ann"))
    events[1] = other
    events[6] = one._replace(connection=2)


def swap_shown(history: History) -> None:
    inbox = history.inboxes["ann"]
    inbox.oldest[0], inbox.oldest[2] = inbox.oldest[2], inbox.oldest[0]
    inbox.newest[:] = inbox.oldest[::-1]
    recount(inbox)


def add_gap(reason: str) -> Falsify:
    def falsify(history: History) -> None:
        events = history.readings[0].events
        events.insert(6, Received(1_004.6, 2, "gap", other=reason))

    return falsify


def change(what: str, name: str, value: object) -> Falsify:
    """Set a member of the first of the history's records of one kind."""

    def falsify(history: History) -> None:
        setattr(getattr(history, what)[0], name, value)

    return falsify


def change_inbox(name: str, value: object) -> Falsify:
    return lambda history: setattr(history.inboxes["ann"], name, value)


FALSIFIED: dict[str, tuple[Falsify, set[str]]] = {
    "a stored notification is gone": (drop_shown("id-04"), {"lost"}),
    "one of a topic is gone": (drop_shown("id-02"), {"lost"}),
    "one to everyone is gone": (drop_shown("id-03"), {"lost"}),
    "one key is stored twice": (show(8, title="k4"), {"doubled"}),
    "a withdrawn one is shown": (show(5), {"stale"}),
    "a replaced one is shown": (show(6), {"stale"}),
    "a reader missed its own": (drop_event("id-04"), {"silent"}),
    "a reader missed one of a topic": (drop_event("id-02"), {"silent"}),
    "a reader missed one to everyone": (drop_event("id-03"), {"silent"}),
    "a reader received one twice on a connection": (
        repeat_event(1),
        {"doubled", "disorder"},
    ),
    "a reader received its own again": (repeat_event(2), {"doubled", "disorder"}),
    "a reader received two in reverse": (swap_events, {"disorder"}),
    "a gap, and nothing was lost": (add_gap("diverged"), {"gap"}),
    "a page is out of order": (swap_shown, {"disorder"}),
    "a page counts wrong": (change_inbox("unread", 6), {"count"}),
    "the filter for unread ones is wrong": (change_inbox("filtered", []), {"count"}),
    "the count of a player is wrong": (change_inbox("counted", 4), {"count"}),
    "a mark is missing": (
        lambda history: history.inboxes["ann"].oldest[0].pop("read_at"),
        {"mark", "count"},
    ),
    "a mark that nobody made": (change("marks", "ids", ("id-02",)), {"mark"}),
    "a schedule did not fire": (drop_shown("id-12"), {"schedule"}),
    "a schedule fired twice": (show(13, title="s1"), {"schedule", "doubled"}),
    "a schedule fired early": (change("schedules", "due_at", 1_013), {"schedule"}),
    "a cancelled schedule fired": (
        change("schedules", "cancelled", True),
        {"schedule"},
    ),
    "a publish was never answered": (
        lambda history: history.publications.append(
            Publication("k9", NEWS, 1_009.0, acked_at=math.inf)
        ),
        {"stuck"},
    ),
}


@pytest.mark.parametrize(("falsify", "kinds"), FALSIFIED.values(), ids=FALSIFIED)
def test_a_falsified_history_is_found_out(
    history: History, falsify: Falsify, kinds: set[str]
) -> None:
    falsify(history)
    # The later part of a doubled delivery may be in disorder as well.
    found = {trouble.kind for trouble in findings(history).troubles}
    assert found
    assert found <= kinds


def test_a_reader_that_is_not_told_of_a_withdrawal_is_found_out(
    history: History,
) -> None:
    events = history.readings[0].events
    events[:] = [one for one in events if one.kind != "withdrawn"]

    (trouble,) = findings(history).troubles

    assert trouble.kind == "silent"
    assert "withdrawal" in trouble.what


def test_a_gap_tells_what_is_missing_at_its_place_and_nothing_else(
    history: History,
) -> None:
    drop_event("id-04")(history)
    add_gap("too_far")(history)

    assert findings(history).told == 1
    assert findings(history).clean

    drop_event("id-07")(history)

    assert [t.kind for t in findings(history).troubles] == ["silent"]


def test_a_badge_other_than_the_page_is_found_out(history: History) -> None:
    assert check_badges(history, {"ann": 5}) == []

    (trouble,) = check_badges(history, {"ann": 4})

    assert trouble.kind == "badge"


@pytest.mark.parametrize(
    ("id", "right", "wrong"),
    [
        ("id-01", "read", "stored"),
        ("id-04", "acknowledged", "stored"),
        ("id-06", "replaced", "stored"),
        ("id-07", "stored", "withdrawn"),
    ],
)
def test_a_receipt_that_says_something_else_is_found_out(
    history: History, id: str, right: str, wrong: str
) -> None:
    assert check_receipts(history, {id: {"state": right}}, 1_020.0) == []

    (trouble,) = check_receipts(history, {id: {"state": wrong}}, 1_020.0)

    assert trouble.kind == "receipt"


def test_what_met_a_request_on_its_way_is_not_judged(history: History) -> None:
    # Nobody knows whether the leave or the publish was first.
    history.memberships[0].leave_sent_at = 1_002.2
    drop_event("id-02")(history)
    drop_event("id-05")(history)
    drop_shown("id-02")(history)

    assert findings(history).clean


def test_every_kind_of_trouble_has_a_meaning(history: History) -> None:
    kinds = set().union(*(kinds for _, kinds in FALSIFIED.values()))

    assert kinds <= KINDS.keys()
