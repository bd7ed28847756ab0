"""`streamer store` and the signals that it gets."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.cli import store as module
from streamer.config import Config
from streamer.store.client.connection import RedisConnection
from streamer.store.server.directory import socket_path, socket_url
from streamer.store.server.embedded import Embedded

from .processes import ChildProcess, command, eventually

SIGNALS = [signal.SIGINT, signal.SIGTERM]


class Store(ChildProcess):
    """`streamer store` on a data directory of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "store")
        self.data_dir = folder / "data"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")}
        self._env = kept | {"HOME": str(folder), "TMPDIR": str(folder)}

    def spawn(self) -> None:
        options = ("--data-dir", str(self.data_dir))
        self._spawn([*command("store"), *options], self._env)

    async def ready(self) -> None:
        await eventually(lambda: "the store is ready" in self.printed or self.ended)
        assert not self.ended, self.logged

    async def ping(self) -> object:
        redis = RedisConnection(socket_url(socket_path(self.data_dir.absolute())))
        try:
            return await redis.call("PING")
        finally:
            await redis.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    try:
        yield store
    finally:
        store.discard()


async def test_a_hangup_does_not_end_the_store_and_a_signal_does(store: Store) -> None:
    store.spawn()
    await store.ready()

    store.send_signal(signal.SIGHUP)
    await eventually(lambda: "nothing to reload" in store.logged or store.ended)

    assert await store.ping() == b"PONG"
    store.send_signal(signal.SIGTERM)
    assert await store.end() == 0


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP])
async def test_a_signal_while_it_starts_leaves_nothing_behind(
    store: Store, number: signal.Signals
) -> None:
    store.spawn()
    await eventually((store.data_dir / "lock").exists)
    store.send_signal(number)
    if number == signal.SIGHUP:
        await store.ready()
        assert await store.ping() == b"PONG"
        store.send_signal(signal.SIGTERM)
    assert await store.end() == 0

    # It starts again at once, so nothing has locked the directory.
    before = store.printed.count("the store is ready")
    store.spawn()
    await eventually(
        lambda: store.printed.count("the store is ready") > before or store.ended
    )
    store.send_signal(signal.SIGTERM)
    assert await store.end() == 0


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_ends_a_start_that_takes_long(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = asyncio.Event()

    async def start(*args: object, **options: object) -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(Embedded, "start", start)
    config = Config(data_dir=str(tmp_path / "data"))

    async with asyncio.timeout(60):
        await module._store(config, 0, None, fsync="always", memory=0)

    assert cancelled.is_set()
