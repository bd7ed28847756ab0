"""Which idle connections are closed when there are too many."""

from __future__ import annotations

import asyncio
import logging

import pytest

from streamer.transports.server import idle_connections as module
from streamer.transports.server.idle_connections import (
    IdleConnections,
    MayBeIdle,
    Waiting,
    WaitingFor,
)


class Connection(MayBeIdle):
    """A connection that has waited for `seconds`."""

    def __init__(
        self, others: set[Connection], what: WaitingFor | None, seconds: float = 0
    ) -> None:
        self._others = others
        self._what = what
        self._since_s = asyncio.get_running_loop().time() - seconds
        others.add(self)

    def waiting(self) -> Waiting | None:
        return None if self._what is None else Waiting(self._what, self._since_s)

    def close_idle(self) -> None:
        self._others.discard(self)


async def test_the_least_useful_and_oldest_are_closed_first() -> None:
    everything: set[Connection] = set()
    in_use = [Connection(everything, None) for _ in range(3)]
    order = [
        Connection(everything, WaitingFor.HEAD, 3),
        Connection(everything, WaitingFor.HEAD, 2),
        Connection(everything, WaitingFor.FIRST_REQUEST, 9),
        Connection(everything, WaitingFor.NEXT_REQUEST, 70),
        Connection(everything, WaitingFor.NEXT_REQUEST, 2),
        Connection(everything, WaitingFor.BODY, 20),
    ]

    for connections_max in range(9, 2, -1):
        IdleConnections(connections_max).note_opened(everything)
        assert everything == {*in_use, *order[9 - connections_max :]}


async def test_what_has_waited_for_a_moment_is_not_closed_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything: set[Connection] = set()
    for what in WaitingFor:
        Connection(everything, what, 0)

    IdleConnections(1).note_opened(everything)

    assert len(everything) == len(WaitingFor)


async def test_closing_goes_on_until_there_is_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0)
    everything: set[Connection] = set()
    young = [Connection(everything, WaitingFor.HEAD, 0) for _ in range(5)]
    idle = IdleConnections(2)
    with caplog.at_level(logging.WARNING):
        idle.note_opened(everything)
        assert len(everything) == 5
        for one in young:
            one._since_s -= 2

        async with asyncio.timeout(60):
            while len(everything) > 2:  # noqa: ASYNC110
                await asyncio.sleep(0)

    assert idle.closed == 3
    assert "closing those without a request, 3 so far" in caplog.text
