"""Work in portions: how much a turn does, and in which order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamer.core.portions import RESERVED, Portions


class Turns:
    """Portions whose turns are begun by hand."""

    def __init__(self, per_turn: int = 10, waiting_max: int = 16) -> None:
        self.done: list[str] = []
        self.needed = 0
        self.portions = Portions(
            per_turn, waiting_max=waiting_max, on_unfinished=self.need
        )

    def need(self) -> None:
        self.needed += 1

    def steps(self, name: str, *costs: int) -> Iterator[int]:
        for number, cost in enumerate(costs):
            yield cost
            self.done.append(f"{name}{number}")

    def turn(self) -> list[str]:
        """Let a turn pass; return what was done in it."""
        done = len(self.done)
        self.needed = 0
        self.portions.begin_turn()
        self.portions.go_on()
        return self.done[done:]


def test_work_that_fits_into_the_turn_is_done_at_once() -> None:
    turns = Turns()

    turns.portions.add(turns.steps("a", 4, 6))

    assert turns.done == ["a0", "a1"]
    assert not turns.needed


def test_a_turn_does_no_more_than_it_has_and_the_next_ones_go_on() -> None:
    turns = Turns()

    turns.portions.add(turns.steps("a", 6, 6, 4, 1))

    assert turns.done == ["a0"]
    assert turns.needed
    assert turns.turn() == ["a1", "a2"]
    assert turns.needed
    assert turns.turn() == ["a3"]
    assert not turns.needed
    assert turns.turn() == []


def test_work_begins_when_what_was_added_before_has_ended() -> None:
    turns = Turns()

    turns.portions.add(turns.steps("a", 6, 6))
    turns.portions.add(turns.steps("b", 1, 8))

    assert turns.done == ["a0"]
    assert turns.turn() == ["a1", "b0"]
    assert turns.turn() == ["b1"]


def test_work_that_a_step_adds_follows() -> None:
    turns = Turns()

    def adds() -> Iterator[int]:
        yield 1
        turns.portions.add(turns.steps("b", 1))
        turns.done.append("a0")
        yield 1
        turns.done.append("a1")

    turns.portions.add(adds())

    assert turns.done == ["a0", "a1", "b0"]


@pytest.mark.parametrize("fails_at", [0, 1])
def test_work_that_fails_does_not_stop_what_waits_behind_it(fails_at: int) -> None:
    turns = Turns()

    def fails() -> Iterator[int]:
        yield 6
        if fails_at == 0:
            raise ValueError
        yield 6
        raise ValueError

    def go() -> None:
        turns.portions.add(turns.steps("z", 10))
        turns.portions.add(fails())
        turns.portions.add(turns.steps("b", 1))
        turns.turn()
        turns.turn()

    with pytest.raises(ValueError):
        go()

    assert turns.needed
    assert turns.turn() == ["b0"]
    assert not turns.portions


def test_an_error_reaches_nobody_who_adds_something_else() -> None:
    turns, errors = Turns(), list[Exception]()
    turns.portions = Portions(10, on_unfinished=turns.need, on_error=errors.append)

    def fails() -> Iterator[int]:
        yield 5
        raise ValueError

    turns.portions.add(turns.steps("a", 10, 10))
    turns.portions.add(fails())
    assert turns.turn() == ["a1"]
    turns.portions.begin_turn()

    turns.portions.add(turns.steps("b", 5))

    assert turns.done == ["a0", "a1", "b0"]
    assert [type(it) for it in errors] == [ValueError]
    assert not turns.portions


def test_a_turn_takes_other_things_until_it_has_no_more() -> None:
    turns = Turns()

    assert [turns.portions.take(4) for _ in range(3)] == [True, True, False]
    assert turns.needed


def test_unfinished_work_leaves_a_part_of_the_turn_to_other_things() -> None:
    turns = Turns(per_turn=10 * RESERVED)
    turns.portions.add(turns.steps("a", *[10 * RESERVED] * 3))
    turns.portions.add(turns.steps("a", *[10 * RESERVED - 10] * 3))
    turns.portions.begin_turn()

    taken = [turns.portions.take(5) for _ in range(3)]

    assert taken == [True, True, False]


def test_nothing_else_is_taken_while_too_much_work_waits() -> None:
    turns = Turns(waiting_max=2)
    turns.portions.add(turns.steps("a", 10, 1))
    turns.portions.begin_turn()
    assert turns.portions.take(1)
    turns.portions.add(turns.steps("b", 10))

    assert not turns.portions.take(1)
    assert turns.needed


def test_a_step_larger_than_a_turn_has_a_turn_to_itself() -> None:
    turns = Turns()
    turns.portions.add(turns.steps("a", 1, 15, 1))

    assert turns.done == ["a0"]
    assert turns.turn() == ["a1"]
    assert turns.turn() == ["a2"]


def test_without_a_bound_everything_is_done_at_once() -> None:
    turns = Turns()
    portions = Portions()

    portions.add(turns.steps("a", *[1_000_000] * 3))

    assert turns.done == ["a0", "a1", "a2"]
