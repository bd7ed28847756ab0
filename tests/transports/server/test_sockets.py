from __future__ import annotations

import errno
import socket
import sys
from typing import Any

import pytest

from streamer.transports.server.sockets import authority, listen

from ..conftest import RecordingApp, Serve


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


async def test_the_error_names_a_port_in_use() -> None:
    first = await listen("127.0.0.1", 0)
    port = first[0].getsockname()[1]

    with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port} is in use") as caught:
        await listen("127.0.0.1", port)

    assert caught.value.errno == errno.EADDRINUSE
    close(first)


async def test_a_port_with_connections_in_time_wait_can_be_reused() -> None:
    (first,) = await listen("127.0.0.1", 0)
    port = first.getsockname()[1]
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
