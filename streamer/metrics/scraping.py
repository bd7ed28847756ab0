"""
A separate listener for ``/metrics``, beside the server's port.

Decides what it answers: ``GET /metrics`` and nothing else. It is meant for a port that
only operators can reach, so it requires no credential. Knows sockets, and the part of
HTTP that a scraper needs: one request, one response, then the connection is closed.
Knows nothing of the meaning of metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from ..config import parse_bind
from ..transports.server.sockets import listen
from .exposition import CONTENT_TYPE, Family, render

__all__ = ["Collect", "scraping"]

Collect = Callable[[], list[Family]]

HEAD_BYTES_MAX: Final = 16_384
TIMEOUT_S: Final = 5.0
"""Limit on the duration of a scrape, from connecting to the end of the response."""


@asynccontextmanager
async def scraping(bind: str, collect: Collect) -> AsyncIterator[None]:
    """
    Answer scrapers on ``host:port`` for the block. Does nothing if it is empty.

    Raises:
        OSError: The address cannot be bound.

    """
    if not bind:
        yield
        return
    host, port = parse_bind(bind)

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A scraper that is too slow, sends too much or leaves gets no response.
        with contextlib.suppress(
            TimeoutError,
            OSError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ):
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, collect))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        writer.transport.abort()

    try:
        sockets = await listen(host, port)
    except OSError as exc:
        raise OSError(exc.errno, f"metrics_bind: {exc.strerror}") from exc
    servers = [
        await asyncio.start_server(answer, sock=sock, limit=HEAD_BYTES_MAX)
        for sock in sockets
    ]
    try:
        yield
    finally:
        for server in servers:
            server.close()


def _answer(head: bytes, collect: Collect) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if path != b"/metrics":
        return _response(HTTPStatus.NOT_FOUND)
    if method not in (b"GET", b"HEAD"):
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET, HEAD\r\n")
    body = render(collect())
    fields = f"Content-Type: {CONTENT_TYPE}\r\n"
    return _response(HTTPStatus.OK, fields, body, head=method == b"HEAD")


def _response(
    status: HTTPStatus, fields: str = "", body: bytes = b"", *, head: bool = False
) -> bytes:
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{fields}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return lines.encode() + (b"" if head else body)
