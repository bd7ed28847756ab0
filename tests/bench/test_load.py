"""The load: requests and connections to several nodes, in turn and at a rate."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from typing import Any, cast

import pytest

if sys.platform != "linux":
    pytest.skip("the load uses epoll", allow_module_level=True)

from streamer.bench.load.engine import Engine
from streamer.bench.load.handle import Load, LoadError, answers
from streamer.bench.load.readers import OpenPlan, Readers
from streamer.bench.load.resuming import Dialect, ResumingPlan, ResumingReaders
from streamer.bench.load.senders import Sender, Template, is_whole

GUARD_S = 60
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Node:
    """A listening socket, and the connections that were accepted."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.address: tuple[str, int] = self._listening.getsockname()
        self.accepted: list[socket.socket] = []

    def accept(self) -> list[socket.socket]:
        """Accept what is waiting, without blocking; return it."""
        new = []
        with contextlib.suppress(BlockingIOError):
            while True:
                new.append(self._listening.accept()[0])
        self.accepted += new
        return new

    def close(self) -> None:
        for sock in (self._listening, *self.accepted):
            sock.close()


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    pair = Node(), Node()
    yield pair
    for node in pair:
        node.close()


def guard_ns() -> int:
    return time.monotonic_ns() + GUARD_S * 1_000_000_000


def test_nodes_get_requests_in_turn(nodes: tuple[Node, Node]) -> None:
    engine = Engine()
    request = Template([b"GET /", "seq", b" HTTP/1.1\r\n\r\n"])
    sender = Sender(engine, [node.address for node in nodes], 1, [request])
    received: list[list[bytes]] = [[], []]

    for _ in range(6):
        sender.submit(time.monotonic_ns())
    # One connection each: a node gets its next request when it has answered.
    assert sender.idle == 0

    def answer() -> None:
        for node, requests in zip(nodes, received, strict=True):
            node.accept()
            for connection in node.accepted:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    requests.append(connection.recv(100).split()[1])
                    connection.sendall(ANSWER)

    answer()
    assert engine.run(lambda: sender.answered == 6, until_ns=guard_ns(), on_turn=answer)
    sender.close()

    assert received == [
        [b"/%010d" % number for number in numbers] for numbers in ((0, 2, 4), (1, 3, 5))
    ]
    assert sender.idle == 1


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\n0\r\n\r\n\r\n1a;name=value\r\n" + 26 * b"x" + b"\r\n0\r\n\r\n"
)
"""Its first chunk looks like the end of a response."""


@pytest.mark.parametrize("answer", [CHUNKED, ANSWER, b"HTTP/1.1 204 No\r\n\r\n"])
def test_a_response_is_whole_at_its_end(answer: bytes) -> None:
    assert [is_whole(answer[:end]) for end in range(len(answer))] == [
        False for _ in answer
    ]
    assert is_whole(answer)


def frame(text: str) -> bytes:
    return b"\x81" + bytes([len(text)]) + text.encode()


def message(number: int, offset: int) -> str:
    return f'{{"data":"#{0:019}.{number:010}x","offset":{offset}}}'


DIALECT = Dialect(
    opened=b'"connect"',
    position={b"@EPOCH@": rb'"epoch":"([^"]+)"', b"@OFFSET@": rb'"offset":(\d+)'},
    gap=b'"gap"',
)


def test_a_reader_resumes_from_the_last_position(nodes: tuple[Node, Node]) -> None:
    node, _ = nodes
    plan = ResumingPlan(
        node.address,
        DIALECT,
        [b"GET /first HTTP/1.1\r\n\r\n"],
        [b"GET /@EPOCH@/@OFFSET@ HTTP/1.1\r\n\r\n"],
    )
    readers = ResumingReaders(Engine(), plan)
    opening = '{"connect":{"epoch":"e1","offset":7}}'
    scripts = [
        [opening, message(0, 8), message(1, 9)],
        # What was missed comes in one message; one of it is known, and one is missing.
        ['{"connect":{}}', f"[{message(1, 9)},{message(3, 11)}]", '{"gap":{}}'],
        ['{"connect":{}}', message(4, 12)],
    ]
    requests: list[bytes] = []

    def serve() -> None:
        for connection in node.accept():
            connection.setblocking(True)
            requests.append(connection.recv(100).split()[1])
            connection.sendall(UPGRADED)
            connection.sendall(b"".join(map(frame, scripts[len(requests) - 1])))

    for expected in (2, 4, 5):
        assert readers.connect_all(
            expected, spread_s=0, within_s=GUARD_S, on_turn=serve
        )
        readers.drop()

    assert requests == [b"/first", b"/e1/9", b"/e1/11"]
    facts = readers.facts()
    counts = {name: facts[name] for name in ("messages", "doubled", "lost", "gaps")}
    assert counts == {"messages": 5, "doubled": 1, "lost": 1, "gaps": 1}


def open_all(nodes: tuple[Node, Node], **plan: float) -> float:
    """Open six readers, of both nodes; return how long that took in seconds."""
    readers = Readers(Engine())

    def upgrade(_opened: int) -> None:
        for node in nodes:
            for connection in node.accept():
                connection.sendall(UPGRADED)

    first, second = nodes
    opened = readers.open(
        OpenPlan(
            first.address,
            [b"GET / HTTP/1.1\r\n\r\n"],
            6,
            in_flight=6,
            others=[second.address],
            **plan,  # type: ignore[arg-type]
        ),
        upgrade,
    )
    readers.close()
    assert (opened.open, opened.refused) == (6, {})
    return opened.seconds


def test_nodes_get_as_many_readers(nodes: tuple[Node, Node]) -> None:
    open_all(nodes)

    assert [len(node.accepted) for node in nodes] == [3, 3]


def test_handshakes_begin_at_a_rate(nodes: tuple[Node, Node]) -> None:
    # The sixth begins after five intervals.
    assert open_all(nodes, per_s=50) >= 5 / 50


def test_no_process_waits_until_another_has_finished() -> None:
    (first, to_first), (second, to_second) = Pipe(), Pipe()

    def work() -> None:
        # More than a pipe holds. The first one ends after the second.
        for count in range(20_000):
            to_second.send(("progress", count))
        to_second.send(("done", {"who": "second"}))
        to_first.send(("done", {"who": "first"}))

    working = threading.Thread(target=work, daemon=True)
    working.start()
    progress: list[int] = []

    found = answers([first, second], progress.append)

    working.join(GUARD_S)
    assert [facts["who"] for facts in found] == ["first", "second"]
    assert progress == list(range(20_000))


class FakeProcess:
    """Keeps its orders; each has the result of a load process without readers."""

    def __init__(self) -> None:
        self.pipe, self._theirs = Pipe()
        self.orders: list[tuple[str, dict[str, Any]]] = []

    def order(self, name: str, **order: Any) -> None:
        self.orders.append((name, order))
        self._theirs.send(("done", {"sent": 0}))

    def answer(self, on_progress: Callable[[int], None]) -> dict[str, Any]:
        (facts,) = answers([self.pipe], on_progress)
        return facts

    def stop(self) -> None:
        self.pipe.close()
        self._theirs.close()


def test_readers_that_were_dropped_are_not_waited_for() -> None:
    load, process = Load(0, set()), FakeProcess()
    load._processes = [cast(Any, process)]

    load.open(connections=3, requests=[b""])
    load.publish(seconds=1)
    load.close()
    load.publish(seconds=1)
    load.stop()

    waited = [
        order["per_message"] for name, order in process.orders if name == "publish"
    ]
    assert waited == [3, 0]


@pytest.mark.parametrize(
    ("message", "said"), [(("failed", "no luck"), "no luck"), (None, "has ended")]
)
def test_a_process_that_fails_or_ends_fails_the_order(
    message: tuple[str, str] | None, said: str
) -> None:
    (first, to_first), (second, to_second) = Pipe(), Pipe()
    if message is not None:
        to_second.send(message)
    to_second.close()

    with pytest.raises(LoadError, match=said):
        answers([first, second], lambda count: None)

    to_first.close()
