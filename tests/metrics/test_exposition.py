"""The text format, as Prometheus' own parser reads it."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamer.core.counters import Histogram
from streamer.metrics.exposition import Family, counter, gauge, histogram, merge, render


def parsed(*families: Family) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(render(families).decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "ü"])
def test_any_label_value_survives_the_text_format(value: str) -> None:
    found = parsed(counter("x_total", 'its "help"\n\\', (1, {"l": value})))

    assert found == {("x_total", (("l", value),)): 1.0}


def test_buckets_are_cumulative() -> None:
    counted = Histogram((0.5, 1))
    for number in (0.1, 0.2, 0.7, 5.0):
        counted.observe(number)

    assert parsed(histogram("h", "h", counted)) == {
        ("h_bucket", (("le", "0.5"),)): 2,
        ("h_bucket", (("le", "1"),)): 3,
        ("h_bucket", (("le", "+Inf"),)): 4,
        ("h_sum", ()): 6.0,
        ("h_count", ()): 4,
    }


def test_families_of_several_processes_are_merged_with_a_worker_label() -> None:
    one, other = gauge("g", "g", (1, {})), gauge("g", "g", (2, {"l": "v"}))

    text = render(merge({"0": [one], "1": [other]})).decode()

    assert text.count("# TYPE g gauge\n") == 1
    assert parsed(*merge({"0": [one], "1": [other]})) == {
        ("g", (("worker", "0"),)): 1,
        ("g", (("l", "v"), ("worker", "1"))): 2,
    }
