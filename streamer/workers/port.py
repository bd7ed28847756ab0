"""
The port that workers listen on together, and the sockets that are lent to them.

Decides who holds which socket, and for how long. Knows what the system does with
several sockets on one port. Knows nothing of processes.

Why nobody who connects is refused. On Linux each worker has a listening socket of its
own on the same port (SO_REUSEPORT), and the kernel divides connections evenly. Closing
such a socket cuts off who stands in its queue, so it is never closed: this process
holds it as well and hands the same one to the worker that comes next, which goes on
with the queue where the last one has stopped, even one that was killed. Only where no
worker gets up is the queue given up, and its share goes to the others. On macOS the
port's last socket would get all connections; there the workers share a single one.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from ..transports.server.sockets import base_url, listen

__all__ = ["Port"]

_KERNEL_BALANCES: Final = sys.platform == "linux"


class Port:
    """
    A port, held for as long as this process lives, whoever listens on it.

    Args:
        host: Address to listen on.
        port: Its number; 0 takes any that is free.

    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._reserved: list[socket.socket] = []
        self._lent: dict[int, list[socket.socket]] = {}

    @property
    def url(self) -> str:
        """The base URL of what listens there, once the port is taken."""
        return base_url(self._host, self._reserved)

    async def take(self) -> None:
        """Take the port. Raises OSError if it cannot be listened on."""
        # Shared sockets would join those of another server without a word, so this asks
        # for the port alone, before it is taken to be shared.
        exclusive = await listen(self._host, self._port)
        self._port = exclusive[0].getsockname()[1]
        if not _KERNEL_BALANCES:
            self._reserved = exclusive
            return
        for sock in exclusive:
            sock.close()
        self._reserved = await listen(self._host, self._port, shared=True, backlog=0)

    async def lend(self, index: int) -> list[socket.socket]:
        """Return the sockets of a worker: those it had before, if it had any."""
        if not _KERNEL_BALANCES:
            return self._reserved
        if not self._lent.get(index):
            self._lent[index] = await listen(self._host, self._port, shared=True)
        return self._lent[index]

    def give_up(self, index: int) -> None:
        """Close the sockets of a worker, so that the others take its share."""
        for sock in self._lent.pop(index, []):
            sock.close()

    def close(self) -> None:
        """Close all sockets: whoever connects is refused."""
        for index in tuple(self._lent):
            self.give_up(index)
        for sock in self._reserved:
            sock.close()
