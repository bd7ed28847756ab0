"""
What a request costs that is answered beneath ASGI, next to the same through ASGI.

Both ways run in one process and one thread, in turns, on the same app and the embedded
store, with the log on. Clients are in memory: what is measured is the server from the
bytes of a request to those of its response, its part of the store's connection
included. ``asgi`` is measured twice; what these two differ by is noise. Times are CPU
time of the thread.

On a busy machine count instructions instead, as the difference of two runs::

    valgrind --tool=cachegrind --cache-sim=no python -m bench.direct \\
        --case publish --way direct --once 200
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.server import ServerState

from streamer.app import build
from streamer.cli.logs import log_to_stderr
from streamer.config import Config
from streamer.core.access.tokens import mint
from streamer.model import App, Player
from streamer.store.access.apps import Apps
from streamer.store.client.connection import RedisConnection
from streamer.store.server.embedded import Embedded
from streamer.store.server.server_binary import find_server
from streamer.transports.server.http_protocol import HttpProtocol, http_protocol

__all__ = ["CASES", "measure"]

CASES: Final = ("publish", "page", "304", "mark")
INBOX: Final = b"/v1/players/me/notifications"
KEPT: Final = 30
CONNECTIONS: Final = 16
MESSAGE: Final = {
    "to": {"players": ["alice"]},
    "type": "quest.done",
    "title": "Quest complete",
    "body": "You have finished the quest of the day. Collect your reward.",
    "data": {"quest": 17, "gold": 250},
}


class _Client(asyncio.Transport):
    """A client in memory: sends a request, and waits for its response."""

    def __init__(self, server: _Server, protocol: type[HttpProtocol]) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[bytes] = self._loop.create_future()
        self._protocol = protocol(server.uvicorn_config, server.state, {})
        self._protocol.connection_made(self)

    async def ask(self, request: bytes) -> bytes:
        self._answered = self._loop.create_future()
        self._protocol.data_received(request)
        return await self._answered

    def leave(self) -> None:
        self._protocol.connection_lost(None)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._answered.set_result(bytes(data))

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Server:
    """An app on a store of its own, its protocols by way, and requests by case."""

    def __init__(self, app: Any, config: Config, requests: dict[str, bytes]) -> None:
        self.requests = requests
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"Sun, 29 Nov 2026 00:00:00 GMT")]
        self.uvicorn_config = uvicorn.Config(
            app.asgi,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            ws="none",
        )
        self.uvicorn_config.load()
        self.ways = {
            "asgi": http_protocol(config),
            "direct": http_protocol(config, direct=app.direct),
        }

    async def serve(self, way: str, case: str, count: int) -> float:
        """Serve requests; return the CPU time of each, in µs."""
        request, each = self.requests[case], count // CONNECTIONS
        clients = [_Client(self, self.ways[way]) for _ in range(CONNECTIONS)]

        async def ask(client: _Client) -> None:
            for _ in range(each):
                await client.ask(request)

        began_s = time.thread_time()
        await asyncio.gather(*map(ask, clients))
        took_s = time.thread_time() - began_s
        for client in clients:
            client.leave()
        return took_s / (each * CONNECTIONS) * 1e6

    async def response(self, request: bytes) -> bytes:
        return await _Client(self, self.ways["asgi"]).ask(request)


def _request(
    method: bytes, path: bytes, credential: str, *fields: bytes, body: Any = None
) -> bytes:
    sent = b"" if body is None else json.dumps(body).encode()
    lines = [
        b"%b %b HTTP/1.1" % (method, path),
        b"Host: 127.0.0.1:8080",
        b"Authorization: Bearer " + credential.encode(),
        b"Accept: */*",
        b"User-Agent: bench",
        *fields,
    ]
    if sent:
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(sent)]
    return b"\r\n".join([*lines, b"", sent])


@contextlib.asynccontextmanager
async def _running() -> AsyncIterator[_Server]:
    with tempfile.TemporaryDirectory() as folder:
        store = await Embedded.start(Path(folder), binary=find_server())
        config = Config()
        app = build(config, store.url)
        # Only for the start: what is done periodically would count for the requests.
        running = asyncio.create_task(app.run())
        await app.ready()
        running.cancel()
        await asyncio.wait([running])
        redis = RedisConnection(store.url, name="bench")
        apps = Apps(redis)
        record = await apps.create(App("demo"))
        key = await apps.add_key(App("demo"))
        token = mint(
            record,
            Player("alice"),
            permissions=("notification:player:self:*",),
            ttl_s=36_000,
            now_s=int(time.time()),
        )
        page = _request(b"GET", INBOX + b"?limit=20", token)
        requests = {
            "publish": _request(b"POST", b"/v1/notifications", key, body=MESSAGE),
            "page": page,
        }
        server = _Server(app, config, requests)
        await server.serve("asgi", "publish", KEPT + CONNECTIONS)
        head, _, shown = (await server.response(page)).partition(b"\r\n\r\n")
        (tag,) = (it for it in head.split(b"\r\n") if it.startswith(b"etag: "))
        unchanged = b"If-None-Match: " + tag.removeprefix(b"etag: ")
        requests["304"] = _request(b"GET", INBOX + b"?limit=20", token, unchanged)
        ids = [json.loads(shown)["notifications"][0]["id"]]
        mark = _request(b"POST", INBOX + b"/read", token, body={"ids": ids})
        requests["mark"] = mark
        gc.collect()
        gc.freeze()
        yield server
        await redis.close()
        await store.stop()


async def measure(rounds: int, count: int, cases: list[str]) -> None:
    """Print a line per case: µs of each way, and the ratio of the ways."""
    async with _running() as server:
        turns = {"asgi": "asgi", "direct": "direct", "asgi again": "asgi"}
        # What changes the inbox comes last, so that a 304 stays one.
        for case in sorted(cases, key=["304", "page", "mark", "publish"].index):
            taken: dict[str, list[float]] = {name: [] for name in turns}
            for number in range(rounds + 1):
                names = list(turns) if number % 2 else list(reversed(turns))
                for name in names:
                    used = await server.serve(turns[name], case, count)
                    if number:  # The first round warms up.
                        taken[name].append(used)
            sys.stdout.write(f"{case}: {_summary(taken)}\n")
            sys.stdout.flush()


def _summary(taken: dict[str, list[float]]) -> str:
    times = [f"{name} {statistics.median(us):.0f} us" for name, us in taken.items()]
    ratios = [
        f"{name} {statistics.median(map(float.__truediv__, us, taken['asgi'])):.2f}"
        for name, us in taken.items()
        if name != "asgi"
    ]
    return f"{', '.join(times)}; of asgi: {', '.join(ratios)}"


async def _once(way: str, case: str, count: int) -> None:
    async with _running() as server:
        await server.serve(way, case, CONNECTIONS)
        await server.serve(way, case, count)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.direct")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--way", choices=("asgi", "direct"), default="direct")
    parser.add_argument("--once", type=int, help="only serve so many, in one way")
    options = parser.parse_args()
    cases = options.case or list(CASES)
    # The lines go where stderr does; send it to a file.
    log_to_stderr("info")
    if options.once is not None:
        uvloop.run(_once(options.way, cases[0], options.once))
    else:
        uvloop.run(measure(options.rounds, options.requests, cases))


if __name__ == "__main__":
    main()
