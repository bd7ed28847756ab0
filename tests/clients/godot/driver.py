"""
The driver of the conformance suite for the Godot client, as a program.

    python -m tests.clients.godot.driver

Relays lines between the runner and a project in a real engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

from .engine import Godot
from .project import files_of


async def relay() -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        godot = Godot(Path(folder))
        await godot.start(files_of("driver"))
        telling = asyncio.create_task(tell(godot))
        try:
            while line := await commands.readline():
                await godot.tell(line.decode())
        finally:
            telling.cancel()
            await godot.close()
            print(*godot.errors, sep="\n", file=sys.stderr)  # noqa: T201


async def tell(godot: Godot) -> None:
    while True:
        line = await godot.lines.get()
        # The engine greets first.
        if line.startswith("{"):
            print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(relay())
