"""
Servers in the event loop of a test that leave no connection open behind them.

A server of `asyncio.start_server` that is closed just after it accepted a connection
never closes that connection, and Python reports it in whichever test runs next. Here a
connection belongs to a handler from its first moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Self

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """
    A TCP server of this machine, and the handlers of its connections.

    Args:
        serve: Handles a connection until it returns or `close` cancels it. Then the
            connection is closed.
        tls: Accept TLS only.
        limit_bytes: How much a reader buffers, at most twice, before its client waits.

    """

    def __init__(
        self,
        serve: Serve,
        *,
        tls: ssl.SSLContext | None = None,
        limit_bytes: int = 2**16,
    ) -> None:
        self._serve = serve
        self._tls = tls
        self._limit_bytes = limit_bytes
        self._socket: socket.socket | None = None
        self._handlers: set[asyncio.Task[None]] = set()
        self._errors: list[Exception] = []
        self.port = 0

    async def open(self, port: int = 0) -> None:
        """Listen on a port, by default on any that is free."""
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1_000)
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    async def close(self) -> None:
        """
        Refuse new connections, reset those that are open, and end their handlers.

        Raises:
            Exception: The first error of a handler that is not one of its connection.

        """
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await asyncio.sleep(0)  # Aborted transports are closed in the next iteration.
        if self._errors:
            raise self._errors[0]

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _accept(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = self._socket.accept()
            handler = asyncio.ensure_future(self._handle(accepted))
            self._handlers.add(handler)
            handler.add_done_callback(self._handlers.discard)
            # A handler that is cancelled before it begins closes nothing itself.
            handler.add_done_callback(lambda _: accepted.close())

    async def _handle(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(self._limit_bytes)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._tls
            )
        except OSError:
            return  # The client has gone, or does not trust the certificate.
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await self._serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (OSError, EOFError):
            pass  # The client has gone.
        except Exception as error:
            self._errors.append(error)
        finally:
            transport.abort()
