"""
The plan of a run: which fault happens when, to which node, for how long.

A seed determines it. The same seed gives the same faults at the same times and the same
choices of publishers and players; what the scheduler of the system makes of them
differs from run to run. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NODE = ("kill", "kill_worker", "stop", "term", "hup")
CLIENT = ("client_cut", "client_stall", "client_half_open")
DOOR = ("door_cut", "door_stall", "door_half_open", "door_refuse")
STORE = (
    *("store_kill", "store_restart", "client_kill", "client_kill_pubsub"),
    *("client_pause", "script_flush", "store_full"),
)
REFUSING = ("refuse_channels", "refuse_command")
REPLICA = ("failover", "switch", "promote", "replica_cut")

CLUSTER = ("promote", "move_slots", "add_and_remove")

ONE_STORE = (*NODE, *CLIENT, *DOOR, *STORE, *REFUSING)
WITH_REPLICA = (*NODE, *CLIENT, *DOOR, *STORE, *REFUSING, *REPLICA)

ON_CLUSTER = (
    *(*NODE, *CLIENT, *CLUSTER),
    *("client_kill", "client_kill_pubsub", "script_flush"),
)

QUICK = (
    *("kill", "stop", "term", "client_cut", "client_stall", "client_half_open"),
    *("door_cut", "door_stall", "door_refuse", "client_kill", "client_kill_pubsub"),
    *("client_pause", "script_flush", "store_restart", "store_full"),
)
"""Faults that are over within a second or two."""


class Fault(NamedTuple):
    """
    A fault. `kind` is a name above; `node` counts from 0.

    A node, a proxy of a node or the store suffers it; `for_s` is how long. `choice` is
    a random number for what else has to be chosen.
    """

    at_s: float
    kind: str
    node: int
    for_s: float
    choice: int

    def __str__(self) -> str:
        return f"{self.at_s:5.1f} s {self.kind} node {self.node} for {self.for_s:.1f} s"


class Plan(NamedTuple):
    """The faults of a run by rounds; a round ends without faults, and is checked."""

    seed: int
    round_s: float
    rounds: tuple[tuple[Fault, ...], ...]
    position_check_s: int

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {len(self.rounds)} rounds of {self.round_s} s, "
            f"position_check_s {self.position_check_s}"
        ]
        for number, faults in enumerate(self.rounds, 1):
            lines += [f"  round {number}: {fault}" for fault in faults]
        return "\n".join(lines)


def chance(seed: int, *name: object) -> random.Random:
    """Return the random choices of one part of a run, independent of other parts."""
    return random.Random(f"{seed} {' '.join(map(str, name))}")


def make_plan(
    seed: int,
    kinds: Sequence[str],
    *,
    nodes: int,
    rounds: int,
    round_s: float,
    every_s: float = 1.0,
) -> Plan:
    """Return the plan of a seed: one fault about every `every_s` seconds."""
    dice = chance(seed, "plan")
    dealt = _endless(kinds, dice)
    planned = []
    for _ in range(rounds):
        faults = []
        at_s = dice.uniform(0.3, every_s)
        while at_s < round_s - 0.5:
            faults.append(
                Fault(
                    round(at_s, 3),
                    next(dealt),
                    dice.randrange(nodes),
                    round(dice.uniform(0.2, 2.0), 3),
                    dice.getrandbits(30),
                )
            )
            at_s += dice.uniform(0.3, 2 * every_s - 0.3)
        planned.append(tuple(faults))
    return Plan(seed, round_s, tuple(planned), dice.choice([2, 2, 15]))


def _endless(kinds: Sequence[str], dice: random.Random) -> Iterator[str]:
    """Yield every kind once in a random order, and then again in another one."""
    while True:
        yield from dice.sample(kinds, len(kinds))
