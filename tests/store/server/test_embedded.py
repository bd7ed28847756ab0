"""The embedded store runs the real server: durable, exclusive, without orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamer.store.client.connection import RedisConnection
from streamer.store.server import directory
from streamer.store.server.directory import DirectoryInUse, holds_store
from streamer.store.server.embedded import Embedded, attach
from streamer.store.server.server_binary import StoreFailed

Start = Callable[[Path], Coroutine[Any, Any, Embedded]]

# A process that starts a store and exits on demand.
SUPERVISOR = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from streamer.store.server.embedded import Embedded

    async def main():
        embedded = await Embedded.start(Path(sys.argv[1]), binary=Path(sys.argv[2]))
        print(embedded.pid, flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
    """
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def start(store_binary: Path) -> AsyncIterator[Start]:
    """Start stores that are stopped after the test."""
    started: list[Embedded] = []

    async def start(data_dir: Path) -> Embedded:
        embedded = await Embedded.start(data_dir, binary=store_binary)
        started.append(embedded)
        return embedded

    yield start
    for embedded in started:
        await embedded.stop()


@asynccontextmanager
async def linked(url: str) -> AsyncIterator[RedisConnection]:
    redis = RedisConnection(url)
    try:
        yield redis
    finally:
        await redis.close()


async def ping(url: str) -> bool:
    async with linked(url) as redis:
        return bool(await redis.call("PING") == b"PONG")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # The new parent may collect the orphan late, or in a container never.
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # There is no /proc on macOS.
        return sys.platform != "linux"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110 - a fact of another process has no event
            await asyncio.sleep(0.005)


async def test_a_started_store_responds_and_syncs_its_log(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)

    async with linked(embedded.url) as redis:
        assert await redis.call("CONFIG", "GET", "appendonly") == [
            b"appendonly",
            b"yes",
        ]
        sync = await redis.call("CONFIG", "GET", "appendfsync")
        policy = await redis.call("CONFIG", "GET", "maxmemory-policy")

    assert sync == [b"appendfsync", b"always"]
    assert policy == [b"maxmemory-policy", b"noeviction"]


async def test_only_the_owner_can_read_the_store(start: Start, data_dir: Path) -> None:
    await start(data_dir)

    assert mode(data_dir) == 0o700
    assert mode(data_dir / directory.SOCKET) == 0o700
    assert mode(data_dir / directory.MANIFEST) & 0o077 == 0


async def test_stop_ends_the_server_and_frees_the_directory(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)

    await embedded.stop()
    await embedded.stop()

    assert not is_running(embedded.pid)
    assert not (data_dir / directory.SOCKET).exists()
    assert await embedded.wait() == 0
    await start(data_dir)


@pytest.mark.row("A1")
async def test_a_thousand_acknowledged_entries_survive_kill_9(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)
    async with linked(embedded.url) as redis:
        adds = [("XADD", "log", "*", "n", n) for n in range(1000)]
        replies = await redis.call_many(adds, write=True)
        os.kill(embedded.pid, signal.SIGKILL)
        await embedded.wait()
    assert not any(isinstance(reply, Exception) for reply in replies)
    await embedded.stop()

    again = await start(data_dir)

    async with linked(again.url) as redis:
        kept = await redis.call("XRANGE", "log", "-", "+")
    assert [entry[0] for entry in kept] == replies


async def test_the_exit_of_a_server_ends_every_wait(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)
    gone = asyncio.create_task(embedded.wait())
    waiting = asyncio.create_task(embedded.wait())
    gone.cancel()

    os.kill(embedded.pid, signal.SIGKILL)

    assert await waiting == -signal.SIGKILL


async def test_a_server_that_does_not_stop_is_killed(
    start: Start, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.store.server.embedded.STOP_S", 0.05)
    embedded = await start(data_dir)
    os.kill(embedded.pid, signal.SIGSTOP)

    await embedded.stop()

    assert await embedded.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux only")
async def test_kill_9_of_the_supervisor_leaves_no_orphan(
    start: Start, store_binary: Path, data_dir: Path
) -> None:
    pid = await supervised_then_killed(data_dir, store_binary)

    await until(lambda: not is_running(pid))
    embedded = await start(data_dir)
    assert await ping(embedded.url)


async def test_the_next_start_shuts_an_orphan_down(
    start: Start, store_binary: Path, data_dir: Path
) -> None:
    pid = await supervised_then_killed(
        data_dir, store_binary, prelude="sys.platform = 'darwin'"
    )
    assert is_running(pid)

    embedded = await start(data_dir)

    await until(lambda: not is_running(pid))
    assert await ping(embedded.url)


async def supervised_then_killed(
    data_dir: Path, store_binary: Path, *, prelude: str = ""
) -> int:
    """Return the pid of a server whose supervisor was just killed."""
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import sys\n{prelude}\n{SUPERVISOR}",
        str(data_dir),
        str(store_binary),
        stdout=subprocess.PIPE,
    )
    assert supervisor.stdout is not None
    pid = int(await supervisor.stdout.readline())
    supervisor.kill()
    await supervisor.wait()
    return pid


async def test_a_server_of_another_container_is_no_orphan(
    start: Start, data_dir: Path
) -> None:
    first = await start(data_dir)
    pid_unknown_here = 2**22 + 1
    holder = directory.Holder(pid_unknown_here, temporary=False, space="elsewhere")
    (data_dir / directory.LOCK).write_bytes(msgspec.json.encode(holder))

    with pytest.raises(DirectoryInUse):
        await start(data_dir)

    assert await ping(first.url)


async def test_attach_waits_for_a_server_that_does_not_respond_yet(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)
    os.kill(embedded.pid, signal.SIGSTOP)

    async def attached() -> bool:
        async with attach(data_dir) as url:
            return await ping(url)

    attaching = asyncio.create_task(attached())
    await asyncio.sleep(0)
    os.kill(embedded.pid, signal.SIGCONT)

    assert await attaching


async def test_attach_fails_if_a_server_never_responds(
    start: Start, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "LOCK_WAIT_S", 0.0)
    monkeypatch.setattr(directory, "REPLY_S", 0.05)
    embedded = await start(data_dir)
    os.kill(embedded.pid, signal.SIGSTOP)

    with pytest.raises(StoreFailed, match="does not respond at"):
        async with attach(data_dir):
            pass

    os.kill(embedded.pid, signal.SIGCONT)


async def test_a_second_server_on_the_directory_is_refused(
    start: Start, data_dir: Path
) -> None:
    first = await start(data_dir)

    with pytest.raises(DirectoryInUse, match=f"in use by process {os.getpid()}"):
        await start(data_dir)

    assert await ping(first.url)


async def test_a_second_start_waits_for_a_server_of_one_command(
    start: Start, store_binary: Path, data_dir: Path
) -> None:
    command = await Embedded.start(data_dir, temporary=True, binary=store_binary)
    second = asyncio.create_task(start(data_dir))
    await asyncio.sleep(0)
    assert not second.done()

    await command.stop()

    assert await ping((await second).url)


async def test_the_server_holds_the_lock_not_its_supervisor(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)
    assert embedded._lock is not None

    os.close(embedded._lock)  # As the death of the supervisor does.
    embedded._lock = None

    with pytest.raises(DirectoryInUse):
        await start(data_dir)


async def test_attach_uses_a_running_server_and_leaves_it_running(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)

    async with attach(data_dir) as url:
        assert url == embedded.url
        assert await ping(url)

    assert await ping(embedded.url)


async def test_attach_starts_a_server_for_the_duration(data_dir: Path) -> None:
    async with attach(data_dir) as url:
        async with linked(url) as redis:
            await redis.call("SET", "a", "b", write=True)

    assert not (data_dir / directory.SOCKET).exists()
    async with attach(data_dir) as url, linked(url) as redis:
        assert await redis.call("GET", "a") == b"b"


async def test_concurrent_commands_wait_for_each_other(data_dir: Path) -> None:
    async def command() -> bool:
        async with attach(data_dir) as url:
            return await ping(url)

    assert all(await asyncio.gather(*(command() for _ in range(4))))


async def test_a_deep_directory_is_reached_through_a_short_link(
    start: Start, tmp_path: Path
) -> None:
    deep = tmp_path.joinpath(*["a-long-name-of-a-directory"] * 8)

    embedded = await start(deep)

    assert len(embedded.url) < 100
    assert await ping(embedded.url)
    async with attach(deep) as url:
        assert await ping(url)
    await embedded.stop()
    assert not Path(embedded.url.removeprefix("unix://")).parent.is_symlink()


async def test_a_directory_may_have_any_name(start: Start, tmp_path: Path) -> None:
    embedded = await start(tmp_path / 'my data\'s "ünïcode" #1?% dir')

    assert await ping(embedded.url)


async def test_a_socket_of_a_dead_server_is_replaced(
    start: Start, data_dir: Path
) -> None:
    embedded = await start(data_dir)
    os.kill(embedded.pid, signal.SIGKILL)
    await embedded.wait()
    await embedded.stop()
    assert (data_dir / directory.SOCKET).exists()

    again = await start(data_dir)

    assert await ping(again.url)


@pytest.mark.row("A8")
async def test_a_missing_log_is_not_mistaken_for_an_empty_store(
    start: Start, data_dir: Path
) -> None:
    await (await start(data_dir)).stop()
    (data_dir / directory.MANIFEST).unlink()

    with pytest.raises(StoreFailed, match="is missing"):
        await start(data_dir)

    (data_dir / directory.MARKER).unlink()
    assert not holds_store(data_dir)
    await start(data_dir)


@pytest.mark.row("A8")
async def test_a_missing_part_of_the_log_is_reported_by_the_server(
    start: Start, data_dir: Path
) -> None:
    await (await start(data_dir)).stop()
    (data_dir / "appendonlydir" / "appendonly.aof.1.incr.aof").unlink()

    with pytest.raises(StoreFailed, match=r"did not start .*incr\.aof.* No such file"):
        await start(data_dir)


@pytest.mark.row("A8")
async def test_a_broken_log_is_reported_by_the_server(
    start: Start, data_dir: Path
) -> None:
    await (await start(data_dir)).stop()
    log = data_dir / "appendonlydir" / "appendonly.aof.1.incr.aof"
    log.write_bytes(b"this is no log\r\n")

    with pytest.raises(StoreFailed, match="Bad file format") as caught:
        await start(data_dir)

    assert "overcommit" not in str(caught.value)
    log.write_bytes(b"")
    await start(data_dir)


async def test_a_directory_that_cannot_be_created_is_reported(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(
        StoreFailed, match=r"cannot use the data directory .*file/data: Not a directory"
    ):
        await start(tmp_path / "file" / "data")


async def test_a_port_in_use_is_reported_by_the_server(
    store_binary: Path, data_dir: Path
) -> None:
    taken = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        with pytest.raises(
            StoreFailed, match=r"does not accept port \d+: .*already in use"
        ):
            await Embedded.start(data_dir, port=port, binary=store_binary)


async def test_a_cancelled_start_leaves_nothing_behind(
    start: Start, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def never(path: Path, command: bytes) -> bytes:
        asked.set()
        return await asyncio.Event().wait() and b""

    with monkeypatch.context() as patch:
        patch.setattr(directory, "send_command", never)
        starting = asyncio.create_task(start(data_dir))
        await asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    await start(data_dir)


async def test_a_server_starts_from_the_main_thread_only(data_dir: Path) -> None:
    # On Linux the server would end with the thread that started it.
    caught: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(Embedded.start(data_dir))
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert "main thread" in str(caught[0])


async def test_the_server_inherits_the_environment(
    store_binary: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Such as an allocator in LD_PRELOAD.
    monkeypatch.setenv("INHERITED", "it is")
    program, noted = tmp_path / "server", tmp_path / "noted"
    program.write_text(
        f'#!/bin/sh\nprintf %s "$INHERITED" > "{noted}"\nexec "{store_binary}" "$@"\n'
    )
    program.chmod(0o700)

    embedded = await Embedded.start(data_dir, binary=program)

    await embedded.stop()
    assert noted.read_text() == "it is"
