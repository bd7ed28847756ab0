"""The commands `streamer publish` and `streamer tail`."""

from __future__ import annotations

import asyncio
import functools
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest
from click.testing import CliRunner, Result
from websockets.asyncio.server import ServerConnection, serve

from streamer.cli import main, messages
from streamer_client import Client

HELLO = {"type": "hello", "cursor": "c0", "heartbeat_s": 3600}
NOTE = {
    "type": "notification",
    "cursor": "c1",
    "notification": {
        "id": "n1",
        "created_at": "2026-11-20T22:52:39.123Z",
        "type": "chat",
        "title": "Hi\x1b[31m",
        "body": "there",
        "priority": "high",
        "data": {"a": 1},
        "properties": [{"key": "k", "value": "v"}],
        "resource": {"url": "/x"},
    },
}
GAP = {"type": "gap", "reason": "trimmed", "cursor": "c9"}


Run = Callable[..., Result]


@pytest.fixture
def requests() -> list[httpx2.Request]:
    return []


@pytest.fixture
def run(requests: list[httpx2.Request], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against a server that publishes to every player but mallory."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        players = json.loads(request.content)["to"]["players"]
        if "mallory" in players:
            return httpx2.Response(403, json={"title": "forbidden"})
        results = [{"to": player, "id": f"id-{player}"} for player in players]
        return httpx2.Response(200, json={"results": results})

    transport = httpx2.MockTransport(answer)
    monkeypatch.setattr(
        messages, "Client", functools.partial(Client, transport=transport)
    )
    return functools.partial(CliRunner().invoke, main)


def test_publish_prints_one_id_per_line(
    run: Run, requests: list[httpx2.Request]
) -> None:
    result = run(
        [
            *("publish", "--key", "k1", "--player", "a", "--player", "b"),
            *("--title", "Hi", "--data", '{"x": null}', "--priority", "high"),
            *("--idempotency-key", "mine"),
        ]
    )

    assert (result.exit_code, result.stdout) == (0, "id-a\nid-b\n")
    assert requests[0].headers["Authorization"] == "Bearer k1"
    assert requests[0].headers["Idempotency-Key"] == "mine"
    assert json.loads(requests[0].content) == {
        "to": {"players": ["a", "b"]},
        "title": "Hi",
        "data": {"x": None},
        "priority": "high",
    }


def test_publish_prints_results_as_json(run: Run) -> None:
    result = run(["publish", "--key", "k", "--player", "a", "--body", "x", "--json"])

    assert json.loads(result.stdout) == {"to": "a", "id": "id-a"}


def test_publish_takes_url_and_key_from_the_environment(
    run: Run, requests: list[httpx2.Request]
) -> None:
    environ = {"STREAMER_CLI_URL": "http://far:1", "STREAMER_CLI_KEY": "k2\n"}

    result = run(["publish", "--player", "a", "--body", "x"], env=environ)

    assert result.exit_code == 0
    assert str(requests[0].url) == "http://far:1/v1/notifications"
    assert requests[0].headers["Authorization"] == "Bearer k2"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--player", "mallory", "--body", "x"], "Error: 403 forbidden"),
        (["--player", "a", "--data", "{"], "--data"),
        (["--player", "a", "--url", "nowhere"], "not an http(s) URL"),
        (["--body", "x"], "--player"),
    ],
)
def test_publish_reports_an_error_in_one_line(
    run: Run, arguments: list[str], complaint: str
) -> None:
    result = run(["publish", "--key", "k", *arguments])

    assert result.exit_code in (1, 2)
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


@asynccontextmanager
async def tailing(
    *arguments: str, script: Sequence[Mapping[str, object]], code: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `streamer tail` on a server that sends these messages."""

    async def play(connection: ServerConnection) -> None:
        for message in script:
            await connection.send(json.dumps(message))
        if code is not None:
            await connection.close(code)
        await connection.wait_closed()

    async with serve(play, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamer", "tail", "--token", "t"),
            *("--url", f"http://127.0.0.1:{port}", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def line_of(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    return (await stream.readline()).decode().rstrip("\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_tail_prints_lines_until_it_is_stopped_then_its_cursor(
    number: signal.Signals,
) -> None:
    async with tailing(script=[HELLO, NOTE]) as process:
        line = await line_of(process.stdout)
        process.send_signal(number)
        _, errors = await process.communicate()

    assert line.endswith('[high] <chat> Hi\\x1b[31m - there data={"a":1} k=v -> /x')
    assert errors.decode() == "cursor: c1\n"
    assert process.returncode == 0


async def test_tail_prints_json_lines_and_gaps_on_stderr() -> None:
    async with tailing("--json", script=[HELLO, GAP, NOTE]) as process:
        note = json.loads(await line_of(process.stdout))
        gap = json.loads(await line_of(process.stderr))

    assert note["id"] == "n1"
    assert gap == GAP


async def test_tail_fails_when_refused_and_prints_its_cursor() -> None:
    async with tailing(script=[HELLO, NOTE, GAP], code=4200) as process:
        await line_of(process.stdout)
        _, errors = await process.communicate()

    gap, cursor, refused = errors.decode().splitlines()
    assert gap == "gap: trimmed; some notifications are missing"
    assert cursor == "cursor: c9"
    assert refused.startswith("Error: the stream was refused")
    assert process.returncode == 1


async def test_tail_stops_when_its_output_is_closed() -> None:
    script: list[Mapping[str, object]] = [HELLO, *[NOTE] * 5_000]
    async with tailing(script=script) as process:
        await line_of(process.stdout)
        process.stdout._transport.close()  # type: ignore[union-attr]
        assert await process.wait() == 0
