"""The Python client follows the vectors of the counting rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamer_client import Client, CursorMoved

from .scripted import ScriptedServer, says

VECTORS = Path(__file__).parents[2] / "clients" / "conformance" / "counting.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]
END = {"type": "cursor", "cursor": "end"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_the_python_client_follows_the_vectors(
    server: ScriptedServer, client: Client, case: dict[str, Any]
) -> None:
    steps = case["steps"]
    for count in range(1, len(steps) + 1):
        message, number = steps[count - 1]
        if number is None or message["type"] == "bye":
            continue
        connections: list[list[dict[str, Any]]] = [[]]
        for message, _ in steps[:count]:
            # A second `hello` is a new connection.
            if message["type"] == "hello" and has_hello(connections[-1]):
                connections.append([])
            connections[-1].append(message)
        *earlier, last = connections
        server.script = [*(says(*one) for one in earlier), says(*last, END, stay=True)]

        async with client.notifications(topics=case["topics"]) as stream:
            async for event in stream:
                if event == CursorMoved("end"):
                    break

            assert stream.unread == number, steps[:count]


def has_hello(messages: list[dict[str, Any]]) -> bool:
    return any(message["type"] == "hello" for message in messages)
