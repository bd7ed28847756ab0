from __future__ import annotations

import logging
from typing import Any

import pytest

from streamer import errors
from streamer.core.counters import CLIENT_LEFT, TransportCounters
from streamer.core.streams.subscription import Start
from streamer.errors import Disconnect
from streamer.model import App, Log, Player
from streamer.service.inspection.history import History
from streamer.service.node.player_names import PlayerNames
from streamer.service.node.request_context import RequestContext, current_request
from streamer.service.streams.connection_log import ConnectionLog
from streamer.service.streams.poll_waiter import PollWaiter

LOG = Log(App("app"), Player("alice"))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


NAMED = PlayerNames("name", "")


def run(
    caplog: pytest.LogCaptureFixture, end: Disconnect | None, *, transport: str = "sse"
) -> tuple[TransportCounters, list[dict[str, Any]]]:
    """Let a connection live for 2.5 s; return its counters and its log records."""
    clock = Clock()
    journal, counted = ConnectionLog(NAMED, clock_s=clock), TransportCounters(transport)
    reader = PollWaiter(Start.LATEST, "c", counted)
    current_request.set(RequestContext("the-opening", "192.0.2.1"))
    with caplog.at_level(logging.INFO):
        journal.opened(LOG, reader)
        assert counted.open == 1
        current_request.set(None)
        clock.now_s += 2.5
        if end is not None:
            reader.end(end)
        journal.closed(LOG, reader, reader.ended)
    return counted, [vars(record)["fields"] for record in caplog.records]


def test_the_end_of_a_stream_is_logged_with_the_request_that_opened_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted, lines = run(caplog, errors.DRAINING)

    assert lines == [
        {
            "transport": "sse",
            "code": 4100,
            "reason": "draining",
            "duration_ms": 2_500,
            "app": "app",
            "player": LOG.player,
            "client": "192.0.2.1",
            "request_id": "the-opening",
        }
    ]
    assert (counted.open, counted.closes) == (0, {"draining": 1})


def test_a_client_that_disconnects_has_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted, lines = run(caplog, None)

    assert (lines[0]["code"], lines[0]["reason"]) == (None, CLIENT_LEFT)
    assert counted.closes == {CLIENT_LEFT: 1}


def test_a_poll_is_counted_but_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted, lines = run(caplog, None, transport="longpoll")

    assert (counted.opened, counted.open, lines) == (1, 0, [])


def test_a_reader_that_never_joined_is_not_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted = TransportCounters("sse")

    ConnectionLog().closed(LOG, PollWaiter(Start.LATEST, "c", counted), None)

    assert counted.open == 0


@pytest.mark.parametrize(
    ("end", "count"), [(errors.ERASED, 0), (errors.DRAINING, 1), (None, 1)]
)
def test_no_end_is_remembered_of_a_player_who_is_erased(
    end: Disconnect | None, count: int
) -> None:
    history, counted = History(), TransportCounters("sse")
    journal = ConnectionLog(NAMED, history=history)
    reader = PollWaiter(Start.LATEST, "c", counted)
    journal.opened(LOG, reader)
    # Its lease is released, so the erasure goes on, before its end is recorded.
    history.forget(LOG)

    journal.closed(LOG, reader, end)

    assert len(history.events_of(LOG)) == count
    assert (counted.open, counted.closes.total()) == (0, 1)
