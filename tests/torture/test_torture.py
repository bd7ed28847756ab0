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
from .topology import OneStore, StoreCluster, StoreWithReplica, Topology

Report = Callable[[object], None]
Tamper = Callable[[ProxiedConnection, bytes, bool], bytes]

NIGHTLY_SEEDS = range(1, 3)
"""More of them: `python -m tests.torture --seeds 1-20`."""
SHORT = Scale(players=3, backends=2, rounds=1, round_s=8.0)
LONG = Scale(players=6, backends=4, per_s=8.0, rounds=4, round_s=10.0, nodes=3)
ON_CLUSTER = Scale(players=6, backends=4, per_s=8.0, rounds=2, round_s=14.0, nodes=2)
CONTROL = Scale(
    players=1, backends=1, rounds=1, round_s=3.0, nodes=1, arrival_s=4.0, badge_s=4.0
)


@pytest.fixture(autouse=True)
def chance(seeded: None) -> None:
    """Seed the choice of ports from the seed of the run."""


def assert_clean(outcome: Outcome) -> None:
    if outcome.findings.troubles:
        pytest.fail(outcome.explain(), pytrace=False)


@pytest.mark.row("T1")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1])
async def test_a_short_run_accounts_for_every_effect(
    seed: int, tmp_path: Path, report: Report
) -> None:
    outcome = await torture(tmp_path, seed, OneStore, kinds=QUICK, scale=SHORT)

    assert_clean(outcome)
    report(f"seed {seed}: {outcome.findings.figure}")


@pytest.mark.row("T1")
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", NIGHTLY_SEEDS)
async def test_one_store_accounts_for_every_effect(
    seed: int, tmp_path: Path, report: Report
) -> None:
    outcome = await torture(tmp_path, seed, OneStore, scale=LONG)

    assert_clean(outcome)
    report(f"seed {seed}: {outcome.findings.figure}")


@pytest.mark.row("T2")
@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", NIGHTLY_SEEDS)
async def test_a_store_with_a_replica_accounts_for_every_effect(
    seed: int, tmp_path: Path, report: Report
) -> None:
    outcome = await torture(tmp_path, seed, StoreWithReplica, scale=LONG)

    assert_clean(outcome)
    report(f"seed {seed}: {outcome.findings.figure}")


@pytest.mark.row("T5")
@pytest.mark.nightly
@pytest.mark.timeout(900)
async def test_a_cluster_accounts_for_every_effect(
    tmp_path: Path, report: Report
) -> None:
    seed = 1
    outcome = await torture(tmp_path, seed, StoreCluster, scale=ON_CLUSTER, every_s=1.5)

    assert_clean(outcome)
    # These are what the run is for.
    happened = {note.what for note in outcome.history.notes}
    assert happened >= {"promoted", "moved", "added", "removed"}
    report(f"seed {seed}: {outcome.findings.figure}")


# Controls: the same run with a proxy that spoils something must fail.


def swallow(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
    """Drop the messages of one backend that stay, on each stream."""
    ends = b"expires_at" in chunk or b"collapse_key" in chunk
    return b"" if not up and not ends and _is_message(chunk) else chunk


def double(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
    """Pass the messages of one backend on twice, on each stream."""
    return chunk * 2 if not up and _is_message(chunk) else chunk


def _is_message(chunk: bytes) -> bool:
    # A response to a request has a head; what a stream sends later has none.
    return b'"title":"b0.' in chunk and not chunk.startswith(b"HTTP/1.1")


def falsify_counts(chunk: bytes) -> bytes:
    return re.sub(
        rb'("unread": ?)(\d)',
        lambda found: found[1] + b"%d" % (9 - int(found[2])),
        chunk,
    )


def falsify_streams(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
    """Change the first digit of every count on streams."""
    return chunk if up or chunk.startswith(b"HTTP/1.1 200") else falsify_counts(chunk)


def falsify_pages(pair: ProxiedConnection, chunk: bytes, up: bool) -> bytes:
    """Change the first digit of every count on pages."""
    return falsify_counts(chunk) if chunk.startswith(b"HTTP/1.1 200") else chunk


@pytest.mark.row("T3")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        pytest.param(swallow, "silent", marks=pytest.mark.nightly),
        pytest.param(double, "doubled", marks=pytest.mark.nightly),
        pytest.param(falsify_streams, "badge", marks=pytest.mark.nightly),
        pytest.param(falsify_pages, "count", marks=pytest.mark.nightly),
    ],
)
async def test_control_a_spoiled_run_is_found_out(
    tamper: Tamper, kind: str, tmp_path: Path, report: Report
) -> None:
    def spoil(topology: Topology) -> None:
        for node in topology.nodes:
            node.front.tamper = tamper

    seed = random.randrange(1_000)
    outcome = await torture(
        tmp_path, seed, OneStore, kinds=("script_flush",), scale=CONTROL, meddle=spoil
    )

    assert outcome.findings.count(kind), outcome.explain()
    report(f"control: {outcome.findings.count(kind)} {kind}")
