"""
Listening sockets, and what every connection inherits from them.

Decides how much the kernel may hold for a reader that does not read, and how long a
peer that is gone without a word may look alive. Knows sockets. Knows nothing of what
is spoken on them.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any, Final

__all__ = ["BACKLOG", "authority", "base_url", "listen"]

# The kernel clips it to net.core.somaxconn. A node that is restarted meets all of its
# clients within a second or two.
BACKLOG: Final = 4_096

# Linux books twice the number. Without it the kernel buffers megabytes for each reader
# that does not read, memory that no process is seen to use.
SEND_BUFFER_BYTES: Final = 65_536

# How long sent bytes may stay unacknowledged. With a heartbeat at least every 25 s it
# finds a peer that is gone without a word, also behind an event stream.
UNACKNOWLEDGED_MS: Final = 18_000

# For connections on which nothing is written: a held poll, an idle kept-alive one.
KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3


async def listen(
    host: str, port: int, *, shared: bool = False, backlog: int = BACKLOG
) -> list[socket.socket]:
    """
    Return a listening socket for each address of `host`, all on the same port.

    Connections queue from here on, up to `backlog`; with 0 the sockets only hold the
    port, and `socket.listen` opens them.

    Args:
        host: Name or address; empty is every address.
        port: 0 is any that is free.
        shared: Whether other sockets of this user may be opened on the same port. The
            kernel divides connections evenly among those that listen.
        backlog: How many connections may queue.

    Raises:
        OSError: Its text names the address and says what to do about it.

    """
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as exc:
        raise OSError(exc.errno, f"host {host!r} is not known: {exc.strerror}") from exc
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        try:
            bind_address = (address[0], port, *address[2:])
            sock = _listen_at(family, bind_address, shared=shared, backlog=backlog)
        except OSError as exc:
            # `localhost` stands for ::1 too, also where IPv6 is switched off.
            if exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                unavailable = exc
                continue
            for sock in sockets:
                sock.close()
            raise
        sockets.append(sock)
        port = port or sock.getsockname()[1]
    if not sockets:
        raise unavailable or OSError(f"host {host!r} has no address")
    return sockets


def authority(host: str, port: int) -> str:
    """Return `host` and `port` as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def base_url(host: str, sockets: list[socket.socket]) -> str:
    """Return the URL under which `sockets`, opened for `host`, are reached."""
    return f"http://{authority(host or '0.0.0.0', sockets[0].getsockname()[1])}"


def _listen_at(
    family: int, address: tuple[Any, ...], *, shared: bool, backlog: int
) -> socket.socket:
    sock = None
    try:
        # asyncio switches Nagle's algorithm off only where the protocol is named.
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        _set_options(sock)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        if backlog:
            sock.listen(backlog)
    except OSError as exc:
        if sock is not None:
            sock.close()
        explanation = _explain(authority(*address[:2]), exc)
        raise OSError(exc.errno, explanation) from exc
    return sock


def _explain(address: str, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"{address} is in use; stop the program that listens there or use --port"
    if exc.errno == errno.EACCES:
        return f"{address} may not be used by this user; use a --port from 1024 up"
    return f"{address} cannot be listened on: {exc.strerror}"


def _set_options(sock: socket.socket) -> None:
    """Set what every accepted socket inherits."""
    if sys.platform != "win32":  # There it would let two programs share the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_S),  # macOS calls it so
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),  # Linux
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
