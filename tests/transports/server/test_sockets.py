from __future__ import annotations

import asyncio
import errno
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from streamer.transports.server import sockets as sockets_module
from streamer.transports.server.sockets import (
    FREE_PORTS_TRIED,
    SocketFiles,
    are_local,
    authority,
    base_urls,
    inherited_sockets,
    listen,
)

from ...conftest import Until
from ...e2e.processes import free_port
from ..conftest import GUARD_S, MakeWorld, RecordingApp, Serve


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


@pytest.mark.skipif(sys.platform != "linux", reason="names of Linux's options")
@pytest.mark.row("C8")
async def test_accepted_sockets_inherit_the_options(
    serve: Serve, app: RecordingApp
) -> None:
    client = await (await serve(app)).connect()
    client.send(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
    await client.read_until(b"event\r\n")
    accepted = app.handle._transport.get_extra_info("socket")

    def option(level: int, name: int) -> Any:
        return accepted.getsockopt(level, name)

    assert option(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 65_536
    assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
    assert option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
    assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 18_000
    assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_all_addresses_of_a_host_get_the_same_port() -> None:
    sockets = await listen("localhost", 0)

    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    close(sockets)


@pytest.mark.parametrize(("taken", "works"), [(3, True), (10**9, False)])
async def test_a_port_is_free_at_every_address(
    monkeypatch: pytest.MonkeyPatch, taken: int, works: bool
) -> None:
    listen_at, tried = sockets_module._listen_at, []

    def in_use_elsewhere(family: Any, address: Any, **options: Any) -> socket.socket:
        if address[1]:
            tried.append(address[1])
            if len(tried) <= taken:
                raise OSError(errno.EADDRINUSE, "in use")
        return listen_at(family, address, **options)

    monkeypatch.setattr(sockets_module, "_listen_at", in_use_elsewhere)

    if works:
        sockets = await listen("127.0.0.1, ::1", 0)
        assert [sock.getsockname()[1] for sock in sockets] == tried[-1:] * 2
        close(sockets)
    else:
        with pytest.raises(OSError, match="in use"):
            await listen("127.0.0.1, ::1", 0)
        assert len(tried) == FREE_PORTS_TRIED


async def test_the_error_names_a_port_in_use() -> None:
    first = await listen("127.0.0.1", 0)
    port = first[0].getsockname()[1]

    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} is in use") as caught:
        await listen("127.0.0.1", port)

    assert caught.value.errno == errno.EADDRINUSE
    close(first)


async def test_a_port_with_connections_in_time_wait_can_be_reused() -> None:
    # Not one that another process gets while it is closed.
    port = free_port()
    (first,) = await listen("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = first.accept()
        accepted.close()  # this side closes first, and so keeps TIME_WAIT
        client.recv(1)
    first.close()

    close(await listen("127.0.0.1", port))


async def test_the_error_names_an_unavailable_address() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0"):
        await listen("192.0.2.1", 0)


async def test_the_error_names_an_unknown_host() -> None:
    with pytest.raises(OSError, match=r"unknown host 'no such host'"):
        await listen("no such host", 0)


def test_an_ipv6_address_gets_brackets() -> None:
    assert authority("::1", 80) == "[::1]:80"
    assert authority("127.0.0.1", 80) == "127.0.0.1:80"


# Several addresses.


@pytest.mark.parametrize("host", ["::", "", "::,0.0.0.0"])
async def test_every_address_is_one_of_both_families(host: str) -> None:
    sockets = await listen(host, 0)
    port = sockets[0].getsockname()[1]

    assert {sock.family for sock in sockets} == {socket.AF_INET, socket.AF_INET6}
    for address in ("127.0.0.1", "::1"):
        socket.create_connection((address, port)).close()
    assert base_urls(host, sockets) == f"http://127.0.0.1:{port}"
    close(sockets)


async def test_a_list_of_hosts_has_one_port() -> None:
    sockets = await listen("127.0.0.1, ::1", 0)

    port = sockets[0].getsockname()[1]
    assert base_urls("127.0.0.1, ::1", sockets) == (
        f"http://127.0.0.1:{port} http://[::1]:{port}"
    )
    close(sockets)


async def test_the_url_of_every_address_is_of_a_family_that_is_served() -> None:
    sockets = await listen("::1", 0)

    port = sockets[0].getsockname()[1]
    assert base_urls("::", sockets) == f"http://[::1]:{port}"
    close(sockets)


# Unix sockets.


async def test_a_unix_socket_serves_and_its_file_is_removed(
    serve: Serve, app: RecordingApp, tmp_path: Path, until: Until
) -> None:
    path = tmp_path / "s"
    served = await serve(app, host=f"127.0.0.1,unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660

    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b"0 bytes")
    writer.close()
    assert app.scopes[0]["client"] is None

    served.host.stop()
    await until(lambda: not path.exists())


async def test_a_stream_leaves_asgi_on_a_unix_socket(
    make_world: MakeWorld, serve: Serve, tmp_path: Path
) -> None:
    world = await make_world()
    path = tmp_path / "s"
    world.served = await serve(world, host=f"unix:{path}")
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(world.request())
    async with asyncio.timeout(GUARD_S):
        await reader.readuntil(b"event: hello")
        await world.publish("live")
        await reader.readuntil(b"live")
    writer.close()


async def test_the_file_of_a_process_that_was_killed_is_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    (killed,) = await listen(f"unix:{path}", 0)
    killed.close()

    (sock,) = await listen(f"unix:{path}", 0)

    files = SocketFiles([sock])
    with pytest.raises(OSError, match="it is in use"):
        await listen(f"unix:{path}", 0)
    sock.close()
    files.remove()
    assert not path.exists()


async def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")

    with pytest.raises(OSError, match="no socket"):
        await listen(f"unix:{path}", 0)

    assert path.read_text() == "precious"


async def test_the_file_of_a_successor_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (old,) = await listen(f"unix:{path}", 0)
    files = SocketFiles([old])
    old.close()
    (new,) = await listen(f"unix:{path}", 0)

    files.remove()

    assert path.exists()
    new.close()


# Sockets of a service manager.


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_FDS": "1"}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}]
)
def test_sockets_for_another_process_are_not_taken(environ: dict[str, str]) -> None:
    assert inherited_sockets(environ) == []
    assert environ == {}


@pytest.mark.parametrize(
    ("hosts", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1, ::1 ,localhost,unix:/run/s", True),
        ("127.8.8.8", True),
        ("unix:/run/s", True),
        ("", False),
        ("::", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("127.0.0.1,10.0.0.1", False),
        ("unix:/run/s,0.0.0.0", False),
        ("push.game.example", False),
        ("localhost.game.example", False),
    ],
)
def test_a_server_is_local_on_loopback_and_unix_sockets(
    hosts: str, local: bool
) -> None:
    assert are_local(hosts) is local


def test_sockets_that_were_passed_decide_who_can_connect(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as loopback,
        socket.create_server(("0.0.0.0", 0)) as everywhere,
        socket.socket(socket.AF_UNIX) as path,
    ):
        path.bind(str(tmp_path / "s"))
        assert are_local("0.0.0.0", [loopback, path])
        assert not are_local("127.0.0.1", [loopback, everywhere])
