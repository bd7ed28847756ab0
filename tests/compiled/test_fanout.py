"""Sending to many sockets: C and Python return the same result."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from streamer.compiled import fanout
from streamer.compiled.fanout import FEW, send_to_all

from .twins import WAYS, go

MANY = 3 * FEW
EVENT = b"an event \0 with everything in it " * 8

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=WAYS)
def sending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    go(request.param, fanout, monkeypatch)


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(MANY)]
    for pair in made:
        for end in pair:
            end.setblocking(False)
    yield made
    for pair in made:
        for end in pair:
            end.close()


def numbers(pairs: list[Pair]) -> list[int]:
    return [ours.fileno() for ours, _ in pairs]


def fill(ours: socket.socket) -> None:
    for size in (65_536, 1_024, 1):
        try:
            while True:
                ours.send(b"." * size)
        except BlockingIOError:
            pass


@pytest.mark.usefixtures("sending")
@pytest.mark.parametrize("count", [0, 1, FEW - 1, FEW, MANY])
def test_all_sockets_get_the_whole_event(pairs: list[Pair], count: int) -> None:
    assert send_to_all(numbers(pairs[:count]), EVENT) == []

    assert [theirs.recv(1_000) for _, theirs in pairs[:count]] == [EVENT] * count
    for _, theirs in pairs[count:]:
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


@pytest.mark.usefixtures("sending")
def test_a_negative_descriptor_is_skipped(pairs: list[Pair]) -> None:
    sockets = numbers(pairs)
    sockets[0] = sockets[5] = -1

    assert send_to_all(sockets, EVENT) == [(0, 0), (5, 0)]
    assert pairs[-1][1].recv(1_000) == EVENT


@pytest.mark.usefixtures("sending")
def test_full_and_broken_sockets_do_not_delay_the_others(
    pairs: list[Pair],
) -> None:
    fill(pairs[2][0])
    pairs[4][1].close()
    sockets = numbers(pairs)
    with socket.socket() as closed:
        sockets[7] = closed.fileno()

    assert send_to_all(sockets, EVENT) == [(2, 0), (4, 0), (7, 0)]
    assert pairs[-1][1].recv(1_000) == EVENT


@pytest.mark.usefixtures("sending")
def test_a_partly_full_socket_reports_the_bytes_accepted() -> None:
    large = b"x" * 50_000_000
    with socket.create_server(("127.0.0.1", 0)) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(FEW)]
        ours = [server.accept()[0] for _ in clients]
    for end in ours:
        end.setblocking(False)

    short = send_to_all([end.fileno() for end in ours], large)

    assert [i for i, _ in short] == list(range(FEW))
    for client, end, (_, sent) in zip(clients, ours, short, strict=True):
        assert 0 < sent < len(large)
        end.close()
        received = 0
        while data := client.recv(1_000_000):
            received += len(data)
        assert received == sent
        client.close()
