"""What service managers and containers do to a process, by the kernel's own means."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..e2e.processes import ServerProcess, eventually
from ..e2e.readers import Api
from .proxies import ROOT, path_of

MakeServer = Callable[..., ServerProcess]

PID_NAMESPACE = ("unshare", "-pf", "--mount-proc", "--kill-child")

IS_ROOT = os.geteuid() == 0


class Wrapped(ServerProcess):
    """`streamer serve`, started by another program that becomes it or watches it."""

    wrapper: tuple[str, ...] = ()
    environ: dict[str, str] | None = None

    def _spawn(self, command: list[str], env: dict[str, str] | None = None) -> None:
        super()._spawn(
            [*self.wrapper, *command], env if self.environ is None else self.environ
        )


MakeWrapped = Callable[..., Wrapped]


async def works(server: ServerProcess) -> None:
    """Check that it stores and serves."""
    async with Api(server.port, await server.key()) as backend:
        await backend.published("ann", title="here")
        assert [one["title"] for one in await backend.inbox("ann")] == ["here"]


@pytest.fixture
def wrapped(tmp_path: Path) -> Iterator[MakeWrapped]:
    """Yield a function that makes a server behind a wrapper, without starting it."""
    made: list[Wrapped] = []

    def make(
        *wrapper: str, environ: dict[str, str] | None = None, **settings: object
    ) -> Wrapped:
        folder = tmp_path / f"wrapped{len(made)}"
        server = Wrapped(folder, redis="", **settings)
        server.wrapper, server.environ = wrapper, environ
        made.append(server)
        return server

    yield make
    for server in made:
        server.discard()


@pytest.mark.stack(
    "systemd-socket-activate", "a socket that systemd opened; the first request"
)
async def test_systemd_opens_the_socket_and_starts_the_server(
    wrapped: MakeWrapped,
) -> None:
    program = path_of("systemd-socket-activate")
    server = wrapped()
    server.wrapper = (program, "-l", f"127.0.0.1:{server.port}")
    server.wrapper += ("-E", "HOME", "-E", "TMPDIR", "-E", "XDG_DATA_HOME")

    await server.start()

    await works(server)
    # It has become the server, and so the signal is for that.
    assert await server.stop() == 0


@pytest.mark.stack("Linux namespaces", "no HOME, no variables at all (`env -i`)")
async def test_without_any_variable_a_data_directory_is_enough(
    wrapped: MakeWrapped,
) -> None:
    server = wrapped(environ={})

    await server.start()

    await works(server)
    assert await server.stop() == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.stack("Linux namespaces", "closed stdin, stdout, stderr")
async def test_a_closed_standard_stream_harms_nothing(
    wrapped: MakeWrapped, closed: str
) -> None:
    server = wrapped("sh", "-c", f'exec "$@" {closed}', "sh")

    await server.start()

    await works(server)
    assert await server.stop() == 0


@pytest.mark.privileged
@pytest.mark.skipif(not IS_ROOT, reason="needs root")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.stack("Linux namespaces", "PID 1 (`unshare -pf`): `SIGTERM` ends it")
async def test_as_pid_1_it_stops_on_sigterm(wrapped: MakeWrapped, workers: str) -> None:
    server = wrapped(*PID_NAMESPACE, workers=workers)

    await server.start()
    await works(server)
    (pid,) = children(server.pid)
    os.kill(pid, signal.SIGTERM)

    assert await server.end() == 0


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@pytest.mark.privileged
@pytest.mark.skipif(not IS_ROOT, reason="needs root")
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.stack("Linux namespaces", "PID 1: orphans that it inherits are reaped")
async def test_as_pid_1_it_reaps_orphans(wrapped: MakeWrapped, workers: str) -> None:
    server = wrapped(*PID_NAMESPACE, workers=workers)
    await server.start()
    (pid,) = children(server.pid)
    own = set(children(pid))

    # A health check that leaves processes behind, as `docker exec` runs it.
    enter = (path_of("nsenter"), "-t", str(pid), "-p", "sh", "-c")
    leaving = await asyncio.create_subprocess_exec(*enter, "sleep 60 & sleep 60 &")
    await leaving.wait()
    await eventually(lambda: len(set(children(pid)) - own) == 2)
    for orphan in set(children(pid)) - own:
        os.kill(orphan, signal.SIGKILL)

    await eventually(lambda: set(children(pid)) == own)
    await works(server)
    os.kill(pid, signal.SIGTERM)
    assert await server.end() == 0


@pytest.mark.privileged
@pytest.mark.skipif(not IS_ROOT, reason="needs root")
@pytest.mark.stack(
    "Linux namespaces",
    "a read-only root, with a data directory that can be written",
)
async def test_a_read_only_root_is_enough(wrapped: MakeWrapped) -> None:
    server = wrapped()
    server.data_dir.mkdir(parents=True)
    data = str(server.data_dir)
    # The data directory is a mount of its own; nothing else can be written.
    script = """
        mount --bind "$0" "$0"
        for place in / /tmp /var/tmp /run /dev/shm; do
            mountpoint -q $place && mount -o remount,bind,ro $place
        done
        for place in / /tmp "$HOME"; do touch "$place/written" && exit 99; done
        exec "$@"
    """
    server.wrapper = (path_of("unshare"), "-m", "sh", "-c", script, data)
    server.environ = {"PATH": os.environ["PATH"]}

    await server.start()

    await works(server)
    assert await server.stop() == 0


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """Yield a folder that other users reach; those of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def hidden_from_others(path: Path) -> Path | None:
    """Return the first folder on the way to `path` that other users may not pass."""
    ways = [*reversed(path.resolve().parents)]
    return next((way for way in ways if not way.stat().st_mode & 1), None)


@pytest.mark.privileged
@pytest.mark.skipif(not IS_ROOT, reason="needs root")
@pytest.mark.stack("Linux namespaces", "a uid without a name, and without HOME")
async def test_a_user_without_a_name_is_enough(
    wrapped: MakeWrapped, shared_folder: Path
) -> None:
    server = wrapped()
    server.data_dir = shared_folder / "data"
    server.data_dir.mkdir()
    os.chown(server.data_dir, 54_321, 54_321)
    # Python and the checkout may be in the home of root: they are mounted again below
    # a folder of the same name that others may pass, in a namespace of its own.
    needed = [Path(sys.base_prefix), ROOT, Path(sys.prefix)]
    hidden = {way for path in needed if (way := hidden_from_others(path))}
    script = ["set -e"]
    for number, path in enumerate(needed):
        script += [f"mkdir -p {shared_folder}/{number}"]
        script += [f"mount --bind {path} {shared_folder}/{number}"]
    script += [f"mount -t tmpfs -o mode=755 tmpfs {way}" for way in sorted(hidden)]
    for number, path in enumerate(needed):
        if hidden_from_others(path):
            script += [f"mkdir -p {path}; mount --bind {shared_folder}/{number} {path}"]
    script += ['exec setpriv --reuid=54321 --regid=54321 --clear-groups "$@"']
    server.wrapper = (path_of("unshare"), "-m", "sh", "-c", "\n".join(script), "sh")
    server.environ = {"PATH": os.environ["PATH"]}

    await server.start()

    await works(server)
    assert await server.stop() == 0
