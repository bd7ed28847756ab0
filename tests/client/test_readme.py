"""The examples of the client's README, unchanged, on a real server."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from streamer_client import Client, Notification

from .conftest import Running

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Enough(Exception):
    """Ends an endless loop that has received a notification."""


def handle(event: object) -> None:
    if isinstance(event, Notification):
        raise Enough


def ignore(*_: object) -> None:
    pass


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_of_the_readme_runs_unchanged(
    shared_server: Running, number: int
) -> None:
    async with Client(shared_server.url, token=shared_server.key) as backend:
        await backend.publish("alice", title="Hello", type="friend")
        namespace = {
            "url": shared_server.url,
            "key": shared_server.key,
            "token": shared_server.token("alice", topics=("match/*",)),
            "handle": handle,
            "load_cursor": lambda: "earliest",
            "show": ignore,
            "save_cursor": ignore,
            "show_unread": ignore,
        }
        # The imports of the examples before it.
        imports = re.findall(r"^from .*", "\n".join(EXAMPLES[:number]), re.MULTILINE)
        code = "\n".join([*imports, EXAMPLES[number]])
        compiled = compile(
            code, README.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )

        running = asyncio.create_task(run(compiled, namespace))
        # Gives a stream that begins now something to deliver.
        while not running.done():
            await backend.publish("alice", title="Live")
            await asyncio.wait([running], timeout=0.05)
        await running


async def run(code: CodeType, namespace: dict[str, Any]) -> None:
    with contextlib.suppress(Enough):
        # In a thread, because some of them block.
        awaited = await asyncio.to_thread(eval, code, namespace)
        if inspect.isawaitable(awaited):
            await awaited
