"""
What SIGHUP means: a service manager asks for a reload, or the terminal was closed.

Knows the process's terminal. Knows nothing of what a reload is.
"""

from __future__ import annotations

import enum
import os
import signal

__all__ = ["Hangup", "HangupMeaning", "ignore_reloads"]


class HangupMeaning(enum.Enum):
    """What a process should do."""

    RELOAD, STOP, NOTHING = range(3)


class Hangup:
    """Interprets the signal; made at the start of the process."""

    def __init__(self) -> None:
        self._had_terminal = _has_terminal()
        # So that `nohup` has the effect that it is used for.
        self._outlives_terminal = (
            hasattr(signal, "SIGHUP")
            and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        )

    def meaning(self) -> HangupMeaning:
        """Return what a signal that has just arrived means."""
        if not self._had_terminal or _has_terminal():
            return HangupMeaning.RELOAD
        if self._outlives_terminal:
            return HangupMeaning.NOTHING
        return HangupMeaning.STOP


def ignore_reloads() -> None:
    """
    Ignore requests for a reload until the process handles the signal itself.

    Without a terminal the signal is such a request, and would otherwise end the
    process.
    """
    if hasattr(signal, "SIGHUP") and not _has_terminal():
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            # Not SIG_IGN, which would look like `nohup`, and children would inherit it.
            signal.signal(signal.SIGHUP, lambda *_: None)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
