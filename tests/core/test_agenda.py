"""When a scheduler looks at which bucket."""

from __future__ import annotations

from streamer.core.agenda import Agenda


def look(agenda: Agenda, first_ms: dict[int, float | None], now_ms: float = 0) -> None:
    """Look at the buckets that are due; find `first_ms` there, nothing elsewhere."""
    buckets = agenda.begin_look(now_ms)
    agenda.end_look({bucket: first_ms.get(bucket) for bucket in buckets})


def test_a_new_agenda_looks_at_every_bucket_once() -> None:
    agenda = Agenda(3)

    assert agenda.begin_look(0) == [0, 1, 2]
    agenda.end_look({0: 50, 1: None, 2: 70})

    assert agenda.next_ms == 50
    assert agenda.begin_look(49) == []
    assert agenda.begin_look(50) == [0]
    assert agenda.begin_look(70) == [0, 2]


def test_without_schedules_nothing_is_ever_due() -> None:
    agenda = Agenda(3)

    look(agenda, {})

    assert agenda.next_ms == float("inf")
    assert agenda.begin_look(10**15) == []


def test_an_earlier_notice_counts_and_a_later_one_does_not() -> None:
    agenda = Agenda(2)
    look(agenda, {1: 50})

    agenda.note(1, 60)
    assert agenda.next_ms == 50
    agenda.note(1, 40)
    agenda.note(0, 45)

    assert agenda.next_ms == 40
    assert agenda.begin_look(45) == [0, 1]


def test_a_notice_during_a_look_is_not_overwritten_by_its_result() -> None:
    agenda = Agenda(2)
    look(agenda, {0: 10})
    buckets = agenda.begin_look(10)

    agenda.note(0, 20)
    agenda.end_look(dict.fromkeys(buckets))

    assert agenda.next_ms == 20


def test_a_notice_before_a_look_is_replaced_by_its_result() -> None:
    agenda = Agenda(2)
    look(agenda, {})
    agenda.note(0, 20)

    look(agenda, {0: 90}, now_ms=20)

    assert agenda.next_ms == 90


def test_a_look_that_fails_leaves_its_buckets_due() -> None:
    agenda = Agenda(2)
    look(agenda, {1: 5})

    assert agenda.begin_look(5) == [1]
    assert agenda.begin_look(5) == [1]


def test_a_bucket_whose_notices_were_lost_is_looked_at_at_once() -> None:
    agenda = Agenda(4)
    look(agenda, {2: 1_000})

    agenda.look_at(2)

    assert agenda.begin_look(0) == [2]


def test_buckets_that_are_not_due_are_looked_at_on_request() -> None:
    agenda = Agenda(4)
    look(agenda, {2: 1_000})

    assert agenda.begin_look(0, also=[3, 1]) == [1, 3]
