"""
What the first process of a container has to do beside its work.

The kernel gives every orphan of a container to its process 1, and an orphan that ends
stays as a zombie until process 1 has waited for it. The server waits for its own
children only, so that each of its parts gets the status that it waits for. As process 1
it therefore continues in a child, and process 1 does nothing but wait and pass signals
on, as `tini` does.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

__all__ = ["continue_in_child"]

PASSED_ON: Final = frozenset(
    {
        *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
        *(signal.SIGUSR1, signal.SIGUSR2),
    }
)

FROM_KEYBOARD: Final = frozenset({signal.SIGINT, signal.SIGQUIT})

SI_KERNEL: Final = 0x80
"""The origin of a signal that a terminal sends."""


def continue_in_child() -> None:
    """
    Return in a child of this process if it is process 1; else do nothing.

    Process 1 ends with the status of the child, or with 128 and the number of the
    signal that ended it. Must be called before the process has threads.
    """
    if os.getpid() != 1 or sys.platform != "linux":
        return
    awaited = PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if os.environ.get("LISTEN_PID") == "1":
            # The sockets of a service manager are for this process now.
            os.environ["LISTEN_PID"] = str(os.getpid())
        return
    while True:
        info = signal.sigwaitinfo(awaited)
        if info.si_signo == signal.SIGCHLD:
            _reap(child)
        elif info.si_code != SI_KERNEL or info.si_signo not in FROM_KEYBOARD:
            # What is typed goes to the child as well, which is in the same group.
            os.kill(child, info.si_signo)


def _reap(child: int) -> None:
    """Wait for all that have ended; end with the child."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        if pid == 0:
            return
