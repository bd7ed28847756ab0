"""One measurement: what it counts, and when it means nothing."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streamer.bench.load.handle import Load, LoadError
from streamer.bench.scenario import Trial
from streamer.bench.target import Target
from streamer.bench.usage import Usage


class FakeTarget(Target):
    """Has used what `usages` says, one after the other."""

    def __init__(self, *usages: Usage) -> None:
        super().__init__()
        self._usages = list(usages)

    def usage(self) -> Usage:
        return self._usages.pop(0)


def trial(*usages: Usage) -> Trial:
    said: list[str] = []
    return Trial(FakeTarget(*usages), cast(Load, None), SimpleNamespace(), said.append)


def facts(**statuses: int) -> dict[str, Any]:
    by_status = {name.removeprefix("s"): count for name, count in statuses.items()}
    return {"load_shares": [0.2], "statuses": by_status, "failed": None, "refusal": b""}


def test_few_errors_are_counted_and_fail_nothing() -> None:
    one = trial()

    one.note_load(facts(s200=999, s503=1))
    one.note_load(facts(s200=990, s429=10, s304=5))

    assert one.errors == {"503": 1, "429": 10}


def test_more_errors_fail_the_measurement_and_are_counted() -> None:
    one = trial()

    with pytest.raises(LoadError, match="503"):
        one.note_load(facts(s200=980, s503=20))

    assert one.errors == {"503": 20}


def test_a_lost_connection_fails_the_measurement() -> None:
    one = trial()

    with pytest.raises(LoadError, match="reset"):
        one.note_load({**facts(s200=1), "failed": "reset by peer"})

    assert one.errors == {"connection": 1}


def test_a_server_without_processes_here_has_no_share() -> None:
    one = trial(Usage(0, 0, 0, 0), Usage(0, 0, 0, 0))
    one.say("measuring")
    one.note_load(facts(s200=1))

    assert (one.server_shares, one.store_shares) == ([], [])
    assert one.load_shares == [0.2]


def test_the_share_of_a_server_is_per_process() -> None:
    before, after = Usage(1, 5, 0, 0, 4, 1), Usage(9, 7, 0, 0, 4, 1)
    one = trial(before, after)
    one.say("measuring")
    one.note_load(facts(s200=1))

    (server,), (store,) = one.server_shares, one.store_shares
    # Both are of the same time: 8 s by four processes, and 2 s by one.
    assert server == pytest.approx(store)


def test_a_latency_has_four_percentiles() -> None:
    measured = trial().note_latency("answer", array("I", range(1_000)))

    assert measured == {"p50_us": 500, "p90_us": 900, "p95_us": 950, "p99_us": 990}
