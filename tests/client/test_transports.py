"""Which transport a stream uses after what has happened."""

from __future__ import annotations

import pytest

from streamer_client.backoff import Ending
from streamer_client.transports import Choice, Transport

LOST = Ending(None, "lost")
UPGRADE_REQUIRED = Ending(4203, "426", status=426)
PORTAL = Ending(4203, "200", status=200)


def test_a_proxy_that_answers_leads_to_the_next_transport_at_once() -> None:
    for ending in (UPGRADE_REQUIRED, PORTAL):
        choice = Choice("auto")

        assert choice.after(ending)
        assert choice.current == "sse"


def test_two_connections_without_hello_lead_to_the_next_transport() -> None:
    choice = Choice("auto")
    used: list[Transport] = []
    for _ in range(6):
        used.append(choice.current)
        choice.after(LOST)

    assert used == ["websocket", "websocket", "sse", "sse", "poll", "poll"]
    assert choice.current == "websocket"


def test_the_last_transport_does_not_hide_a_refusal() -> None:
    choice = Choice("auto")
    results = [choice.after(Ending(4203, "404", status=404)) for _ in range(3)]

    assert results == [True, True, False]


def test_a_transport_that_has_worked_is_left_later() -> None:
    choice = Choice("auto")
    choice.mark_open()
    results = [choice.after(LOST) for _ in range(4)]

    assert results == [False, False, False, True]


@pytest.mark.parametrize(
    "ending",
    [
        Ending(None, "refused", is_unreachable=True),
        *(Ending(4102, "no", status=status) for status in (401, 403, 409, 503)),
        Ending(4104, "a bye"),
    ],
)
def test_a_server_that_refuses_or_is_away_keeps_the_transport(ending: Ending) -> None:
    choice = Choice("auto")
    for _ in range(10):
        assert not choice.after(ending)

    assert choice.current == "websocket"


def test_a_transport_that_was_asked_for_never_changes() -> None:
    choice = Choice("sse")
    for _ in range(10):
        assert not choice.after(UPGRADE_REQUIRED)

    assert choice.current == "sse"


def test_an_unknown_transport_is_an_error() -> None:
    with pytest.raises(ValueError, match="carrier pigeon"):
        Choice("carrier pigeon")  # type: ignore[arg-type]
