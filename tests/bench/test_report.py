"""Results as tables and pictures."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from streamer.bench import report
from streamer.bench.machine import machine
from streamer.bench.runner import limit_of, summarise

pytest.importorskip("rich")

FIGURES = [
    {"key": "cpu_us", "label": "CPU", "unit": "µs", "digits": 2},
    {"key": "per_s", "label": "max. per second", "unit": "", "digits": 0},
    {"key": "errors", "label": "errors", "unit": "", "digits": 0},
]


def result(*runs: dict[str, float], **members: Any) -> Any:
    row = {
        "peer": "streamer",
        "title": "streamer",
        "does": "",
        "runs": [{"round": i, **run} for i, run in enumerate(runs)],
        "failures": [],
        "errors": {},
        **members,
    }
    return {
        "title": "a load",
        "figures": FIGURES,
        "rows": [summarise(row, {})],
        "absent": [],
    }


def test_what_was_not_measured_is_no_number() -> None:
    measured = result({"per_s": 10.0, "errors": 0.0}, {"per_s": 30.0, "errors": 0.0})

    assert report.cells(measured) == [
        ["streamer", "not measured", "20 ± 50%", "0", "0%"]
    ]


def test_one_round_has_no_range() -> None:
    assert report.cells(result({"per_s": 10.0}))[0][2] == "10"


def test_a_figure_of_some_rounds_alone_is_not_measured() -> None:
    assert report.cells(result({"cpu_us": 1.0}, {"per_s": 1.0}))[0][1] == "not measured"


@pytest.mark.parametrize(
    ("shares", "limit", "sentence"),
    [
        ({}, "", "what the limit was is not measured"),
        ({"load": 0.95, "server": 0.99, "store": 0.1}, "load", "load was the limit"),
        ({"load": 0.1, "server": 0.95, "store": 0.1}, "server", "server was the limit"),
        ({"load": 0.1, "server": 0.5, "store": 0.97}, "store", "store was the limit"),
        ({"load": 0.1, "server": 0.5, "store": 0.2}, "", "neither load, server nor"),
        ({"load": 0.1}, "", "server and store not measured"),
    ],
)
def test_the_busy_part_is_the_limit(
    shares: dict[str, float], limit: str, sentence: str
) -> None:
    run = {f"{name}_share": share for name, share in shares.items()}

    assert limit_of(run) == limit
    assert any(sentence in note for note in report.notes(result(run)))


def test_errors_are_listed_by_kind() -> None:
    measured = result({"errors": 7.0}, errors={"503": 5, "429": 2})

    assert "streamer: errors: 5 x 503, 2 x 429." in report.notes(measured)


@pytest.mark.parametrize("values", [[], [5], list(range(2_000))])
def test_a_result_of_one_server_is_drawn(values: list[int]) -> None:
    pytest.importorskip("matplotlib")
    measured = result({"per_s": 10.0, "load_share": 0.3, "server_share": 0.95})
    latencies = {("streamer", 0): {"answer": array("I", values)}} if values else {}

    assert report.draw(measured, latencies).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--key", "sk_secret"], "--key '***'"),
        (["--key=sk_secret"], "'--key=***'"),
        (["--token-command", "echo secret"], "--token-command '***'"),
        (["--redis", "redis://u:secret@h:1/0"], "'redis://***@h:1/0'"),
        (["--redis=redis://:secret@h"], "'--redis=redis://***@h'"),
        (["--url", "http://h", "--key"], "--url http://h --key"),
    ],
)
def test_a_result_repeats_the_command_without_secrets(
    words: list[str], shown: str
) -> None:
    command = machine(["streamer", "bench", "page", *words])["command"]

    assert shown in command
    assert "secret" not in command
