"""SIGHUP, with and without the terminal that the process had."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from streamer.transports.server import hangup
from streamer.transports.server.hangup import Hangup, HangupMeaning


@pytest.fixture
def terminals(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list whose last element is whether there is a terminal."""
    present = [True]
    monkeypatch.setattr(hangup, "_has_terminal", lambda: present[-1])
    return present


@pytest.fixture
def nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("present", [True, False])
def test_with_the_same_terminal_it_asks_for_a_reload(
    terminals: list[bool], present: bool
) -> None:
    terminals.append(present)
    assert Hangup().meaning() is HangupMeaning.RELOAD


def test_without_its_terminal_it_stops_the_process(terminals: list[bool]) -> None:
    signals = Hangup()
    terminals.append(False)
    assert signals.meaning() is HangupMeaning.STOP


@pytest.mark.usefixtures("nohup")
def test_a_process_under_nohup_outlives_its_terminal(terminals: list[bool]) -> None:
    signals = Hangup()
    terminals.append(False)
    assert signals.meaning() is HangupMeaning.NOTHING
