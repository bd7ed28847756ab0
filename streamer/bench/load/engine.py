"""
The event loop of a load process: ``epoll``, callbacks by descriptor, one alarm.

asyncio would cost three times as much per event, and the load often shares a small
machine with the server.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from collections.abc import Callable

__all__ = ["IN", "OUT", "Engine"]

IN = select.EPOLLIN
OUT = select.EPOLLOUT
EVENTS_MAX = 4_096

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Engine:
    """
    Calls back for descriptors, in `run`, until a condition holds.

    There is one alarm, at an absolute time of the monotonic clock: ``epoll`` alone
    rounds its timeout up to a millisecond, which would show in latencies.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timer = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._epoll.register(self._timer, IN)
        self._callbacks[self._timer] = self._on_timer
        self._rung = False

    def add(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        self._callbacks[fd] = callback
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def set_alarm(self, at_ns: int) -> None:
        """Wake `run` at a time; this replaces the previous alarm."""
        at_ns = max(at_ns, 1)
        spec = _Timespec(0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        _libc.timerfd_settime(self._timer, _ABSOLUTE, ctypes.byref(spec), None)

    def run(
        self,
        done: Callable[[], bool],
        *,
        until_ns: int,
        on_turn: Callable[[], None] = lambda: None,
    ) -> bool:
        """
        Call back until `done`, or until a time; return whether it was done.

        `on_turn` is called after each batch of events.
        """
        poll, callbacks = self._epoll.poll, self._callbacks
        while not done():
            left_s = (until_ns - time.monotonic_ns()) / 1e9
            if left_s <= 0:
                return False
            for fd, _ in poll(min(left_s, 0.25), EVENTS_MAX):
                callback = callbacks.get(fd)
                if callback is not None:
                    callback()
            on_turn()
        return True

    def _on_timer(self) -> None:
        os.read(self._timer, 8)
