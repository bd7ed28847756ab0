"""A Valkey for a peer, configured like the one that streamer embeds."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from streamer.store.client.connection import RedisConnection

from .base import Peer

__all__ = ["start_store", "used_bytes"]

START_S = 5.0


def start_store(peer: Peer, folder: Path) -> str:
    """Start a store as one of the peer's processes; return its URL."""
    from streamer.store.server.server_binary import find_server

    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "s"
    command = [str(find_server()), "--port", "0", "--unixsocket", str(socket)]
    command += ["--dir", str(folder), "--save", "", "--appendonly", "yes"]
    peer.run([*command, "--appendfsync", "always"], folder)
    until_s = time.monotonic() + START_S
    while not socket.exists() and time.monotonic() < until_s:
        time.sleep(0.01)
    return f"unix://{socket}"


def used_bytes(url: str) -> int:
    """Return the memory that a store uses."""
    return asyncio.run(_used_bytes(url))


async def _used_bytes(url: str) -> int:
    redis = RedisConnection(url, name="bench")
    try:
        info = bytes(await redis.call("INFO", "memory"))
    finally:
        await redis.close()
    return int(info.partition(b"used_memory:")[2].split(b"\r\n")[0])
