"""
A whole deployment under faults: every acknowledged effect is accounted for.

A failure prints the plan, the troubles and the event log. To run one seed again::

    python -m tests.torture --seeds SEED --topology one
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ..e2e.proxy import ProxiedConnection
from .plan import QUICK
from .run import Outcome, Scale, torture
from .topology import OneStore, StoreWithReplica, Topology

Report = Callable[[object], None]
Tamper = Callable[[ProxiedConnection, bytes, bool], bytes]

NIGHTLY_SEEDS = range(1, 11)
SHORT = Scale(players=3, backends=2, rounds=1, round_s=8.0)
LONG = Scale(players=6, rounds=4, round_s=10.0, nodes=3)
CONTROL = Scale(
    players=1, backends=1, rounds=1, round_s=3.0, nodes=1, arrival_s=4.0, badge_s=4.0
)


@pytest.fixture(autouse=True)
def chance(seeded: None) -> None:
    """Seed the choice of ports from the seed of the run."""


def assert_clean(outcome: Outcome) -> None:
    if not outcome.findings.clean:
        pytest.fail(outcome.explain(), pytrace=False)


@pytest.mark.row("T1")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1])
async def test_a_short_run_accounts_for_every_effect(
    seed: int, tmp_path: Path, report: Report
) -> None:
    outcome = await torture(tmp_path, seed, OneStore, kinds=QUICK, scale=SHORT)

    assert_clean(outcome)
    report(f"seed {seed}: {outcome.findings}")


@pytest.mark.row("T1")
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", NIGHTLY_SEEDS)
async def test_one_store_accounts_for_every_effect(
    seed: int, tmp_path: Path, report: Report
) -> None:
    outcome = await torture(tmp_path, seed, OneStore, scale=LONG)

    assert_clean(outcome)
    report(f"seed {seed}: {outcome.findings}")


@pytest.mark.row("T2")
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", NIGHTLY_SEEDS)
async def test_a_store_with_a_replica_accounts_for_every_effect(
    seed: int, tmp_path: Path, report: Report
) -> None:
    outcome = await torture(tmp_path, seed, StoreWithReplica, scale=LONG)

    assert_clean(outcome)
    report(f"seed {seed}: {outcome.findings}")


# Controls: the same run with a proxy that spoils something must fail.


def swallow_some(marker: bytes) -> Tamper:
    """Drop the first chunks that have messages with this text, of those that stay."""
    swallowed: list[bytes] = []

    def tamper(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        if up or len(swallowed) == 3 or not _is_message(chunk, marker):
            return chunk
        if b"expires_at" in chunk or b"collapse_key" in chunk:
            return chunk
        swallowed.append(chunk)
        return b""

    return tamper


def double_one(marker: bytes) -> Tamper:
    """Pass the first chunk that has a message with this text on twice."""
    doubled: list[bytes] = []

    def tamper(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        if up or doubled or not _is_message(chunk, marker):
            return chunk
        doubled.append(chunk)
        return chunk * 2

    return tamper


def _is_message(chunk: bytes, marker: bytes) -> bool:
    # A response to a request has a head; what a stream sends later has none.
    return marker in chunk and b'"id"' in chunk and not chunk.startswith(b"HTTP/1.1")


def falsify_counts(pages: bool) -> Tamper:
    """Change the first digit of every count, on pages or on streams."""

    def tamper(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
        if up or chunk.startswith(b"HTTP/1.1 200 OK\r\n") is not pages:
            return chunk
        return re.sub(
            rb'("unread": ?)(\d)', lambda m: m[1] + b"%d" % (9 - int(m[2])), chunk
        )

    return tamper


@pytest.mark.row("T3")
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lambda: swallow_some(b'"title":"b0.'), "silent"),
        (lambda: double_one(b'"title":"b0.'), "doubled"),
        pytest.param(lambda: falsify_counts(False), "badge", marks=pytest.mark.nightly),
        pytest.param(lambda: falsify_counts(True), "count", marks=pytest.mark.nightly),
    ],
    ids=["messages swallowed", "a message doubled", "a badge", "a page"],
)
async def test_control_a_spoiled_run_is_found_out(
    tamper: Callable[[], Tamper], kind: str, tmp_path: Path, report: Report
) -> None:
    def spoil(topology: Topology) -> None:
        for node in topology.nodes:
            node.front.tamper = tamper()

    seed = random.randrange(1_000)
    outcome = await torture(
        tmp_path, seed, OneStore, kinds=("script_flush",), scale=CONTROL, meddle=spoil
    )

    assert outcome.findings.count(kind), outcome.explain()
    report(f"control: {outcome.findings}")
