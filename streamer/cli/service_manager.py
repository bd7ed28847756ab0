"""
What a service manager is told (sd_notify): that the server is ready, or stops.

Knows systemd's protocol: datagrams to the socket in ``NOTIFY_SOCKET``. Without that
variable nothing is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket

__all__ = ["READY", "STOPPING", "notify"]

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> None:
    """Send a state. A service manager that cannot be reached is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # in the abstract namespace
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.connect(address)
        sock.sendall(state.encode())
