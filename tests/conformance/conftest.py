"""A whole server in this process, whose position check never comes to the rescue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamer_client import Client

from ..client.conftest import Running, serve_streams

__all__ = ["serve_streams"]

NEVER_S = 3_600


@pytest.fixture
async def server(
    serve_streams: Callable[..., Awaitable[Running]],
) -> Running:
    """
    Return a server without position checks.

    A number that nothing else corrects stays wrong.
    """
    return await serve_streams(position_check_s=NEVER_S)


@pytest.fixture
async def backend(server: Running) -> AsyncIterator[Client]:
    async with Client(server.url, token=server.key) as backend:
        yield backend
