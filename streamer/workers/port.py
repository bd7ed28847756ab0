"""
The port that all workers listen on, and the sockets that are lent to them.

Decides which worker gets which socket. Knows how the system treats several sockets on
one port. Knows nothing of processes.

On Linux each worker has a listening socket of its own on the same port (SO_REUSEPORT),
and the kernel distributes connections evenly. To close such a socket resets the
connections in its queue, and their clients are refused. So it stays open: the
supervisor holds it, too, and lends it to the worker's replacement, which continues with
the queue even if the worker was killed. Only if no worker starts, the socket is closed,
and the others get its share of connections. On macOS the socket opened last would get
all connections; there the workers share a single socket. So they do with a Unix socket,
and with sockets that a service manager has opened.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from ..transports.server.sockets import (
    UNIX_PREFIX,
    SocketFiles,
    base_urls,
    hosts_of,
    listen,
    split_hosts,
)

__all__ = ["Port"]

_KERNEL_BALANCES: Final = sys.platform == "linux"


class Port:
    """
    A port, reserved for as long as this process lives.

    Args:
        host: Address to listen on.
        port: Number of the port; 0 means any free port.
        given: Listening sockets to use instead.

    """

    def __init__(
        self, host: str, port: int, given: list[socket.socket] | None = None
    ) -> None:
        self._host = hosts_of(given) if given else host
        self._port = port
        self._given = given or []
        self._paths: list[socket.socket] = []
        self._files = SocketFiles(())
        hosts, paths = ([], []) if given else split_hosts(host)
        self._inet = ",".join(hosts) if hosts else None
        self._unix = ",".join(UNIX_PREFIX + path for path in paths)
        self._reserved: list[socket.socket] = []
        self._lent: dict[int, list[socket.socket]] = {}

    @property
    def url(self) -> str:
        """The base URLs of the port, once it is taken."""
        sockets = [*self._reserved, *self._given, *self._paths]
        return base_urls(self._host, sockets)

    async def take(self) -> None:
        """Reserve the port. Raises OSError if it cannot be opened."""
        if self._unix:
            self._paths = await listen(self._unix, 0)
            self._files = SocketFiles(self._paths)
        if self._inet is None:
            return
        # Shared sockets would silently join those of another server, so the port is
        # first opened exclusively.
        exclusive = await listen(self._inet, self._port)
        self._port = exclusive[0].getsockname()[1]
        if not _KERNEL_BALANCES:
            self._reserved = exclusive
            return
        for sock in exclusive:
            sock.close()
        self._reserved = await listen(self._inet, self._port, shared=True, backlog=0)

    async def lend(self, index: int) -> list[socket.socket]:
        """Return the sockets of a worker, the same as before if it had any."""
        for_all = [*self._given, *self._paths]
        if self._inet is None:
            return for_all
        if not _KERNEL_BALANCES:
            return [*self._reserved, *for_all]
        if not self._lent.get(index):
            self._lent[index] = await listen(self._inet, self._port, shared=True)
        return [*self._lent[index], *for_all]

    def give_up(self, index: int) -> None:
        """Close a worker's sockets, so that the others get its connections."""
        for sock in self._lent.pop(index, []):
            sock.close()

    def close(self) -> None:
        """Close all sockets; new connections are refused."""
        for index in tuple(self._lent):
            self.give_up(index)
        for sock in (*self._reserved, *self._given, *self._paths):
            sock.close()
        self._files.remove()
