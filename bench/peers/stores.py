"""A Valkey for a peer, configured like the one that streamer embeds."""

from __future__ import annotations

import time
from pathlib import Path

from .base import Peer

__all__ = ["start_store"]

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
