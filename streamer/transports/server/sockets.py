"""
Listening sockets, and the options that every accepted connection inherits.

Decides how much the kernel buffers for a client that does not read, and how long a peer
that vanished may look alive. Knows sockets. Knows nothing of protocols.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Any, Final

__all__ = ["BACKLOG", "authority", "base_url", "listen"]

BACKLOG: Final = 4_096
"""
Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.

After a restart all clients of a node reconnect within a second or two.
"""

SEND_BUFFER_BYTES: Final = 65_536
"""
SO_SNDBUF; Linux doubles it.

Otherwise the kernel buffers megabytes for each client that does not read, memory that
is attributed to no process.
"""

UNACKNOWLEDGED_MS: Final = 18_000
"""
How long sent bytes may stay unacknowledged before the kernel drops the connection.

With a heartbeat at least every 25 s this detects peers that vanished, event streams
included.
"""

# For connections on which nothing is written: a waiting poll, or idle in keep-alive.
KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3


async def listen(
    host: str, port: int, *, shared: bool = False, backlog: int = BACKLOG
) -> list[socket.socket]:
    """
    Return a listening socket for each address of `host`, all on the same port.

    Connections queue from now on, up to `backlog`. With 0 the sockets are only bound,
    and refuse connections until `socket.listen` is called.

    Args:
        host: Name or address; empty means every address.
        port: 0 means any free port.
        shared: Whether the user may bind other sockets to the same port. The kernel
            distributes connections evenly among those that listen.
        backlog: How many connections may queue.

    Raises:
        OSError: The host is unknown, or an address cannot be bound. The message names
            the address and a remedy.

    """
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as exc:
        raise OSError(exc.errno, f"unknown host {host!r}: {exc.strerror}") from exc
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    for family, _, _, _, address in dict.fromkeys(addresses):
        try:
            bind_address = (address[0], port, *address[2:])
            sock = _listen_at(family, bind_address, shared=shared, backlog=backlog)
        except OSError as exc:
            # `localhost` resolves to ::1 too, even if IPv6 is disabled.
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
    """Return `host` and `port` in the form of a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def base_url(host: str, sockets: list[socket.socket]) -> str:
    """Return the URL of a server that listens on `sockets`, opened for `host`."""
    return f"http://{authority(host or '0.0.0.0', sockets[0].getsockname()[1])}"


def _listen_at(
    family: int, address: tuple[Any, ...], *, shared: bool, backlog: int
) -> socket.socket:
    sock = None
    try:
        # asyncio disables Nagle's algorithm only if the protocol is given explicitly.
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
        return f"no permission to listen on {address}; use --port 1024 or higher"
    return f"cannot listen on {address}: {exc.strerror}"


def _set_options(sock: socket.socket) -> None:
    """Set the options that every accepted socket inherits."""
    if sys.platform != "win32":  # On Windows it would let two programs share a port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPALIVE", KEEPALIVE_IDLE_S),  # the same on macOS
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_MS),  # Linux
    ):
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
