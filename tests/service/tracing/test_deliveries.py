"""Deliveries that wait for a connection: their end, and their bounds."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.core.trace_context import TraceContext
from streamer.model import App, Entry, Log, Player
from streamer.service.node.player_names import PlayerNames
from streamer.service.tracing import deliveries
from streamer.service.tracing.deliveries import WAITING_MAX, WAITING_S, DeliveryTraces

LOG, OTHER = Log(App("app"), Player("p")), Log(App("app"), Player("q"))
TRACE = TraceContext("00-1-2-01")


class Recorder:
    """Records the attributes of each span."""

    def __init__(self) -> None:
        self.done_: list[dict[str, Any]] = []

    def done(self, name: str, kind: object, attributes: Any, **_: object) -> None:
        self.done_.append({"name": name, **attributes})


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def traces(recorder: Recorder) -> DeliveryTraces:
    return DeliveryTraces(recorder, PlayerNames("none", ""))  # type: ignore[arg-type]  # it makes no other span


def announce(traces: DeliveryTraces, log: Log, *offsets: int) -> None:
    for offset in offsets:
        traces.begin(log, Entry(1, 2, offset, 3, b"}"), TRACE, readers=1)


def test_a_delivery_ends_once(traces: DeliveryTraces, recorder: Recorder) -> None:
    announce(traces, LOG, 7)

    for _ in range(2):
        traces.delivered(LOG, 7)
    traces.read(LOG, 1, 9)

    assert [it["streamer.delivery"] for it in recorder.done_] == ["announcement"]
    assert not traces.waiting


def test_a_read_ends_the_deliveries_of_what_it_brought(
    traces: DeliveryTraces, recorder: Recorder
) -> None:
    announce(traces, LOG, 1, 2, 3, 4)
    announce(traces, OTHER, 2)

    traces.read(LOG, 2, 3)

    assert [it["streamer.delivery"] for it in recorder.done_] == ["read"] * 2
    assert [*traces.waiting] == [(LOG, 1), (LOG, 4), (OTHER, 2)]


def test_what_is_not_stored_has_no_delivery_without_readers(
    traces: DeliveryTraces,
) -> None:
    for readers in (0, 1):
        traces.begin(LOG, None, TRACE, readers=readers)

        assert len(traces.waiting) == readers


def test_the_oldest_give_way(traces: DeliveryTraces) -> None:
    announce(traces, LOG, *range(1, WAITING_MAX + 3))

    assert len(traces.waiting) == WAITING_MAX
    assert (LOG, 2) not in traces.waiting
    assert (LOG, 3) in traces.waiting


def test_what_nobody_takes_is_forgotten_after_a_while(
    traces: DeliveryTraces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "time_ns", lambda: 0)
    announce(traces, LOG, 1, 2)
    later = int(WAITING_S * 1e9) + 1
    monkeypatch.setattr(deliveries, "time_ns", lambda: later)

    announce(traces, LOG, 3)

    assert [*traces.waiting] == [(LOG, 3)]


def test_nothing_of_an_erased_player_is_left(traces: DeliveryTraces) -> None:
    announce(traces, LOG, 1, 2)
    announce(traces, OTHER, 1)

    traces.forget(LOG)

    assert [*traces.waiting] == [(OTHER, 1)]
