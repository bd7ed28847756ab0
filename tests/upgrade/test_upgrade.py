"""Two versions at once on one store: an upgrade node by node, and one step back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.core.deployment import FORMAT

from ..torture.run import torture
from .base import NoBase, base_commit, build_base, git, require_base
from .topology import SCALE, Upgraded, rolling

Report = Callable[[object], None]


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the `streamer` command of the older version."""
    try:
        return build_base(tmp_path_factory.mktemp("older"))
    except NoBase as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def chance(seeded: None) -> None:
    """Seed the choice of ports from the seed of the run."""


def test_the_older_version_has_this_format() -> None:
    try:
        source = git("show", f"{require_base()}:streamer/core/deployment.py")
    except NoBase as error:
        pytest.skip(str(error))

    found = re.search(r"^FORMAT: Final = (\d+)$", source, re.MULTILINE)

    assert found is not None
    assert int(found[1]) == FORMAT, "name a commit in tests/upgrade/BASE that reads it"
    assert re.fullmatch(r"[0-9a-f]{40}", base_commit())


@pytest.mark.row("T4")
@pytest.mark.nightly
@pytest.mark.timeout(1_500)
async def test_an_upgrade_node_by_node_accounts_for_every_effect(
    older: str, tmp_path: Path, report: Report
) -> None:
    seen: list[Any] = []
    outcome = await torture(
        tmp_path,
        1,
        Upgraded,
        plan=rolling(1),
        scale=SCALE,
        executable=older,
        meddle=seen.append,
    )

    if outcome.findings.troubles:
        pytest.fail(outcome.explain(), pytrace=False)
    # What ran, and not what should have run.
    assert seen[0].versions == [
        *(("this", "older"), ("older", "older"), ("older", "this"), ("this", "this")),
    ]
    report(f"{outcome.findings.figure}, from {base_commit()[:8]}")
