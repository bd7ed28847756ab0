"""What detached streams cost, what they leave behind, and how they end."""

from __future__ import annotations

import asyncio
import datetime
import gc
import os
import socket
import ssl
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from streamer.compiled import events, fanout
from streamer.core.counters import TransportCounters
from streamer.core.streams.audience_subscription import AudienceSubscription
from streamer.core.streams.codec import SseCodec, WebSocketCodec
from streamer.core.streams.session import Session, SessionLimits
from streamer.core.streams.subscription import History
from streamer.errors import SLOW
from streamer.hub import Hub
from streamer.model import ZERO, App, Entry, Log, Player, Position, everyone_log
from streamer.service.streams.admission import JOINING_MAX, Connection
from streamer.service.streams.departures import Departures
from streamer.transports.server.handle import Handle
from streamer.transports.server.handshake_protocol import Handshake
from streamer.transports.server.http_protocol import HttpProtocol
from streamer.transports.server.websocket_protocol import WebSocketProtocol
from streamer.transports.streams.detached import BatchWriter, Detached, EventStream
from streamer.transports.streams.detached_websocket import (
    DetachedWebSocket,
    websocket_batch_writer,
)
from streamer.transports.streams.framing import (
    chunk,
    text_frame,
    text_frames,
    unframed,
)

from ...compiled.twins import WAYS, go
from ...conftest import Until
from ..conftest import MakeWorld, World
from ..server.test_websocket_protocol import CLOSE, PING, PONG, TEXT, frame


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


async def test_a_stream_keeps_nothing_of_the_server(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    for kind, name in (
        (HttpProtocol, "connection_made"),
        (Handshake, "begin"),
        (WebSocketProtocol, "continue_from_handshake"),
    ):
        monkeypatch.setattr(kind, name, remembering(getattr(kind, name), made))
    gc.disable()
    try:
        sockets = [await world.websocket(credential=late) for late in (True, False)]
        sockets[1].send(frame(TEXT, b'{"type":"auth","token":"x"}'))
        clients = [await world.event_stream() for _ in range(2)]
        for socket in sockets:
            await socket.message()
        await until(lambda: not world.tasks)

        assert {type(one) for one in world.connections} == {
            DetachedWebSocket,
            EventStream,
        }
        assert len(made) == 7
        assert [ref() for ref in made if ref() is not None] == []
    finally:
        gc.enable()
    for client in (*sockets, *clients):
        client.writer.transport.abort()


def remembering(
    method: Callable[..., None], made: list[weakref.ref[Any]]
) -> Callable[..., None]:
    def remember(self: Any, *args: Any) -> None:
        made.append(weakref.ref(self))
        method(self, *args)

    return remember


async def test_a_lost_stream_needs_no_garbage_collection(
    world: World, until: Until
) -> None:
    websocket, event_stream = await world.websocket(), await world.event_stream()
    await websocket.message()
    websocket.send(frame(TEXT, b'{"type":"ping"}')[:-1])
    await event_stream.event()
    await until(lambda: len(world.connections) == 2)
    gc.collect()
    gc.disable()
    try:
        assert count_streams() == 4

        websocket.writer.transport.abort()
        event_stream.writer.transport.abort()

        await until(lambda: not world.connections)
        # A read of the log for one of them may be in progress.
        await until(lambda: count_streams() == 0)
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel says it")
@pytest.mark.parametrize("upgrade", [True, False])
async def test_a_disconnect_that_only_the_kernel_knows_takes_no_lease(
    world: World,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    upgrade: bool,
) -> None:
    taken: list[str] = []
    clients = [await world.connect()]
    require_capacity = world.admission.queue.require_capacity

    def hang_up() -> None:
        # In the iteration of the loop in which the request is served.
        fd = clients.pop().writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(fd)) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        require_capacity()

    async def noting(pending_join: Any, reader: Any, instance: str) -> Any:
        taken.append(reader.connection)
        raise AssertionError

    monkeypatch.setattr(world.admission, "_take_lease", noting)
    monkeypatch.setattr(world.admission.queue, "require_capacity", hang_up)

    clients[0].send(world.request(upgrade=upgrade))

    await until(lambda: not clients and not world.connections)
    await until(lambda: not world.tasks)
    assert world.admission.open == 0
    assert taken == []
    assert "ASGI" not in caplog.text


@pytest.mark.parametrize("upgrade", [True, False])
async def test_a_disconnect_in_the_admission_queue_takes_no_lease(
    world: World,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    upgrade: bool,
) -> None:
    taken: list[str] = []
    take = world.admission._take_lease

    async def noting(pending_join: Any, reader: Any, instance: str) -> Any:
        taken.append(reader.connection)
        return await take(pending_join, reader, instance)

    monkeypatch.setattr(world.admission, "_take_lease", noting)
    others = AsyncExitStack()
    for _ in range(JOINING_MAX):
        await others.enter_async_context(world.admission.queue)
    gone, there = await world.connect(), await world.connect()
    for client in (gone, there):
        client.writer.write(world.request(upgrade=upgrade))
    await until(lambda: world.admission.open == 2)

    gone.writer.transport.abort()
    await until(lambda: len(world.connections) == 1)
    await others.aclose()

    await until(lambda: taken and world.admission.open == 1)
    assert len(taken) == 1
    assert "ASGI" not in caplog.text
    there.writer.transport.abort()


def count_streams() -> int:
    """Return the number of sessions and streams, which allow no weak references."""
    return sum(isinstance(one, Session | Detached) for one in gc.get_objects())


async def test_a_parser_exists_while_a_frame_is_incomplete(
    world: World, until: Until
) -> None:
    socket = await world.websocket()
    await socket.message()
    (stream,) = world.connections
    assert stream._parser is None

    socket.send(frame(TEXT, b'{"type":"ping"}')[:3])
    await until(lambda: stream._parser is not None)
    socket.send(frame(TEXT, b'{"type":"ping"}')[3:])

    assert await socket.message() == {"type": "pong"}
    assert stream._parser is None


async def test_a_response_over_http_1_0_has_no_chunks(world: World) -> None:
    client = await world.connect()
    client.send(world.request(version="1.0"))
    head = await client.read_until(b"\r\n\r\n")
    await client.read_until(b"event: hello\n")
    await world.publish("live")
    event = await client.read_until(b'"title":"live"}\n\n')
    await world.admission.drain()

    assert b"transfer-encoding" not in head
    assert b"\r" not in event
    assert (await client.read_to_end()).endswith(b"}\n\n")


async def test_a_peer_that_does_not_pong_is_closed_as_silent(
    make_world: MakeWorld,
) -> None:
    world = await make_world(heartbeat_s=1)
    silent, answering = await world.websocket(), await world.websocket()

    closed = asyncio.create_task(silent.close_code())
    # Without pongs this one would be closed by its third ping, too.
    pings = 0
    while pings < 3:
        opcode, payload = await answering.frame()
        if opcode == PING:
            answering.send(frame(PONG, payload))
            pings += 1

    assert await closed == 4002


async def test_a_ping_is_discarded_while_a_close_of_the_client_is_pending(
    make_world: MakeWorld, until: Until
) -> None:
    world = await make_world(send_age_s=3_600)
    client = await world.websocket(receive_buffer=4_096)
    await client.message()
    (stream,) = world.connections
    session, now_s = stream.session, time.monotonic()
    client.pause_reading()
    while session._sink.waiting_since_s() is None:
        await world.publish("x" * 60_000)
    session.tick(now_s + 100, time.time())
    client.send(frame(CLOSE, b"\x03\xe8"))
    await until(lambda: stream._ignores_input)
    assert world.connections == {stream}

    # The client owes a pong, and the reply to its close waits in the buffer.
    session.tick(now_s + 200, time.time())

    assert session.ended is None


@pytest.mark.parametrize("kind", ["websocket", "event_stream"])
async def test_a_client_that_does_not_complete_the_close_is_aborted(
    world: World, until: Until, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.transports.streams.detached.CLOSE_TIMEOUT_S", 0.1)
    client = await getattr(world, kind)(receive_buffer=4_096)
    await until(lambda: world.admission.open == 1)
    client.pause_reading()
    for _ in range(4):
        await world.publish("x" * 60_000)

    await world.admission.drain()

    await until(lambda: not world.connections)


async def test_a_client_that_sends_on_an_event_stream_is_aborted(
    world: World, until: Until
) -> None:
    client = await world.event_stream()
    await client.event()
    client.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    await world.publish("still here")
    while b"still here" not in await client.event():
        pass

    client.send(b"x" * 70_000)

    assert await client.read_to_end() == b""
    await until(lambda: world.admission.open == 0)


@pytest.mark.parametrize("kind", ["websocket", "event_stream"])
async def test_clients_that_disconnect_at_once_are_closed_in_several_turns(
    world: World, until: Until, kind: str
) -> None:
    clients = [await getattr(world, kind)() for _ in range(5)]
    await until(lambda: world.admission.open == 5)
    closings = world.admission._closings = Departures(1)
    waiting: list[int] = []
    add = closings.add

    def noted(step: Callable[[], object]) -> None:
        add(step)
        waiting.append(len(closings))

    closings.add = noted  # type: ignore[method-assign]
    # None of them is served meanwhile.
    for client in clients:
        fd = client.writer.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(fd)) as connection:
            connection.shutdown(socket.SHUT_WR)

    await until(lambda: world.admission.open == 0)

    assert waiting
    assert len(closings) == 0
    assert not world.connections
    for client in clients:
        await client.read_to_end()


async def test_a_stop_closes_clients_whose_close_waits(
    world: World, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await world.event_stream()
    await until(lambda: world.admission.open == 1)
    held: list[Callable[[], object]] = []

    def hold(close: Callable[[], object]) -> bool:
        held.append(close)
        return True

    monkeypatch.setattr(world.admission, "close_soon", hold)
    client.writer.write_eof()
    await until(lambda: held)
    assert world.admission.open == 1

    assert world.served is not None
    world.served.host.stop()

    await client.read_to_end()
    await until(lambda: world.admission.open == 0)
    held[0]()  # The connection is lost: nothing is left to close.


async def test_a_stop_closes_streams_that_the_drain_left(
    world: World, until: Until
) -> None:
    websocket, event_stream = await world.websocket(), await world.event_stream()
    await until(lambda: len(world.connections) == 2)

    assert world.served is not None
    world.served.host.stop()

    assert await websocket.close_code() == 1012
    await event_stream.read_to_end()
    await until(lambda: world.admission.open == 0)


async def test_a_command_that_fails_ends_the_stream(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    socket = await world.websocket()
    await socket.message()

    async def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError("broken")

    monkeypatch.setattr(type(world.components.inboxes), "mark_all", fail)
    socket.send(frame(TEXT, b'{"type":"read","all":true}'))

    assert await socket.close_code() == 4001
    socket.send(frame(CLOSE, b"\x0f\xa1"))
    await socket.read_to_end()
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        "a command failed"
    ]


async def test_a_closing_connection_is_not_handed_over() -> None:
    class Closing(asyncio.Transport):
        def is_closing(self) -> bool:
            return True

        def get_protocol(self) -> asyncio.BaseProtocol:
            return asyncio.Protocol()

    stream_connection = Connection(None, has_slot=False)  # type: ignore[arg-type]

    stream = Detached(stream_connection, websocket_batch_writer())

    assert not Handle(Closing()).hand_over(stream)


# TLS.


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a file with a certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Let servers speak TLS; return what trusts them."""
    made = sys.modules["streamer.server"]._uvicorn_config

    def with_tls(*args: Any) -> Any:
        config = made(*args)
        config.ssl_certfile = config.ssl_keyfile = str(certificate)
        return config

    monkeypatch.setattr("streamer.server._uvicorn_config", with_tls)
    return ssl.create_default_context(cafile=certificate)


async def test_streams_over_tls_leave_asgi(
    make_world: MakeWorld,
    until: Until,
    trusting: ssl.SSLContext,
) -> None:
    world = await make_world()
    socket = await world.websocket(tls=trusting)
    client = await world.event_stream(tls=trusting)
    await socket.message()
    await client.event()
    await until(lambda: not world.tasks)

    await world.publish("x" * 100_000)
    socket.send(frame(TEXT, b'{"type":"ping"}'))

    assert len(await client.event()) > 100_000
    messages = [await socket.message(), await socket.message()]
    assert {message["type"] for message in messages} == {"notification", "pong"}
    assert {type(one) for one in world.connections} == {DetachedWebSocket, EventStream}
    await world.admission.drain()
    assert b"event: bye" in await client.event()
    assert await socket.close_code() == 4100
    socket.send(frame(CLOSE, b"\x10\x04"))
    await until(lambda: world.admission.open == 0)


async def test_clients_over_tls_that_disconnect_are_closed_without_a_warning(
    make_world: MakeWorld,
    until: Until,
    trusting: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await make_world()
    clients = [await world.event_stream(tls=trusting) for _ in range(2)]
    await until(lambda: world.admission.open == 2)
    world.admission._closings = Departures(0)

    for client in clients:
        client.writer.close()

    await until(lambda: world.admission.open == 0)
    assert "eof_received" not in caplog.text


# The cost of a delivery.

READERS = 200
CALLS_MAX = {False: 6, True: 1}
"""
Calls per delivery, including calls into C; with a task it would be dozens.

In an audience, with thousands of readers, the only call is the kernel's `write`, and
none if C makes that call (`streamer.compiled`).
"""


REPLAY_CALLS_MAX = {"in C": 6, "in Python": 19}
"""Calls per replayed message, with work that is done once per reader."""


class Fan:
    """A hub with readers, each with a socket, of one player's or audience's log."""

    def __init__(self, readers: int, *, audience: bool) -> None:
        place = Position(1, 1, 1, 1)
        history = History(place, place, [])
        codec, batch_writer = WebSocketCodec(), websocket_batch_writer()
        carried = TransportCounters("websocket")
        player = Log(App("a"), Player("p"))
        self.hub = Hub()
        self.log = everyone_log(player.app) if audience else player
        self.pairs = [socket.socketpair() for _ in range(readers)]
        for i, (ours, _) in enumerate(self.pairs):
            stream = DetachedWebSocket(Absent(), batch_writer, None)  # type: ignore[arg-type]
            stream._descriptor = ours.fileno()
            session = Session(
                place,
                codec=codec,
                sink=stream,
                limits=SessionLimits(),
                pinged_at_s=0,
                transport=carried,
            )
            stream.session = session
            if audience:
                sub = AudienceSubscription(
                    self.log, session, place, joined_at=ZERO, is_member=True
                )
                session.set_audiences((sub,))
                self.hub.attach_audience(sub)
                sub.own_subscription().begin_read()
                sub.on_history(place, history)
                player = Log(player.app, Player(f"p{i}"))
            self.hub.attach(player, session)
            session.subscription.begin_read()
            session.on_history(place, history)
        self.received()

    def received(self) -> set[bytes]:
        """Return what the clients received, as a set, since all get the same."""
        return {theirs.recv(65_536) for _, theirs in self.pairs}

    def close(self) -> None:
        for pair in self.pairs:
            for end in pair:
                end.close()


class Absent(Connection):
    """A connection that holds no slot and no lease."""

    def __init__(self) -> None:
        super().__init__(None, has_slot=False)  # type: ignore[arg-type]

    def leave(self, *, opened: bool = True) -> None:
        pass

    def due_sooner(self) -> None:
        pass


def calls_of(dispatch: Callable[[], object]) -> int:
    calls = 0

    def count(frame: Any, event: str, what: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        dispatch()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "audience", [False, True], ids=["of a player", "of an audience"]
)
def test_a_delivery_takes_few_calls(
    monkeypatch: pytest.MonkeyPatch, *, audience: bool, way: str
) -> None:
    go(way, fanout, monkeypatch)
    calls_max = CALLS_MAX[audience] - (audience and way == "in C")
    with closing(Fan(READERS, audience=audience)) as fan:
        fan.hub.dispatch(fan.log, Entry(1, 2, 2, 2, b'"title":"first"}'))
        counted = Entry(1, 3, 3, 3, b'"title":"counted"}')
        calls = calls_of(lambda: fan.hub.dispatch(fan.log, counted))

        (received,) = fan.received()
        assert received.count(b'"title":"') == 2
    # Work that is done once is less than one call per reader.
    assert calls / READERS < calls_max + 1


@pytest.mark.parametrize(
    "audience", [False, True], ids=["of a player", "of an audience"]
)
def test_an_entry_is_encoded_and_framed_once(
    monkeypatch: pytest.MonkeyPatch, *, audience: bool
) -> None:
    framed: list[bytes] = []

    def noting(event: bytes) -> bytes:
        framed.append(text_frame(event))
        return framed[-1]

    monkeypatch.setattr(
        "streamer.transports.streams.detached_websocket.text_frame", noting
    )
    with closing(Fan(READERS, audience=audience)) as fan:
        framed.clear()
        fan.hub.dispatch(fan.log, Entry(1, 2, 2, 2, b'"title":"shared"}'))

        assert fan.received() == set(framed)
    assert len(framed) == 1
    assert framed[0].startswith(b"\x81\x7e")


class Piling(asyncio.Transport):
    """A transport that buffers everything."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.written))


def piling(batch_writer: BatchWriter) -> EventStream:
    stream = EventStream(Absent(), batch_writer)
    stream.begin(Piling(), set(), None)
    return stream


def test_sinks_without_room_are_returned_and_not_written_to() -> None:
    batch_writer = BatchWriter(unframed)
    streams = [piling(batch_writer) for _ in range(3)]
    for stream, waiting in zip(streams, (0, 950, 951), strict=True):
        stream.write(b"x" * waiting, 1_000)

    assert batch_writer.write_all(streams, b"x" * 50, 1_000) == streams[2:]
    assert [stream.buffered() for stream in streams] == [50, 1_000, 951]


# Several events at once.

WRAPS: list[tuple[Callable[[bytes], bytes], Any]] = [
    (unframed, None),
    (text_frame, text_frames),
]


@pytest.mark.parametrize(("wrap", "wrap_all"), WRAPS, ids=["SSE", "WebSocket"])
@given(
    waiting=st.integers(0, 120),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    buffer_bytes_max=st.integers(1, 120),
)
def test_events_at_once_find_the_same_room_as_one_after_the_other(
    wrap: Callable[[bytes], bytes],
    wrap_all: Any,
    waiting: int,
    sizes: list[int],
    buffer_bytes_max: int,
) -> None:
    written = [b"%d" % (i % 10) * size for i, size in enumerate(sizes)]
    at_once, one_by_one = (piling(BatchWriter(wrap, wrap_all)) for _ in range(2))
    for stream in (at_once, one_by_one):
        if waiting:
            stream.transport.write(b"x" * waiting)

    had_room = at_once.write_events(written, buffer_bytes_max)

    assert had_room is all(one_by_one.write(it, buffer_bytes_max) for it in written)
    if had_room:
        # Otherwise the session drops what waits.
        assert written_to(at_once) == written_to(one_by_one)


def written_to(stream: EventStream) -> bytes:
    assert isinstance(stream.transport, Piling)
    return b"".join(stream.transport.written)


def test_a_list_of_events_is_framed_once_for_readers_that_follow_each_other() -> None:
    lists: list[list[bytes]] = []

    def wrap_all(these: list[bytes]) -> bytes:
        lists.append(these)
        return text_frames(these)

    batch_writer = BatchWriter(text_frame, wrap_all)
    these, others = [b"one", b"two"], [b"three"]
    streams = [piling(batch_writer) for _ in range(3)]
    for those in (these, others):
        for stream in streams:
            stream.write_events(those, 1_000)

    assert lists == [these, others]
    for stream in streams:
        assert written_to(stream) == text_frames([*these, *others])


@pytest.mark.parametrize("kind", ["WebSocket", "SSE"])
def test_what_a_reader_has_missed_is_one_write(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    monkeypatch.setattr("streamer.transports.server.handle.os.write", write)
    missed = [Entry(1, at, at, at, b'"title":"missed"}') for at in range(2, 102)]
    later = [Entry(1, at, at, at, b'"title":"later"}') for at in range(102, 112)]
    session = resuming(kind)
    replay(session, missed)
    (first,) = written
    assert first.count(b"missed") == len(missed)
    written.clear()

    session.subscription.mark_stale()
    replay(session, later)

    assert [it.count(b"later") for it in written] == [len(later)]
    assert session.transport.deliveries == session.unread == len(missed + later)


@pytest.mark.parametrize("way", WAYS)
def test_a_replayed_message_takes_few_calls(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    go(way, events, monkeypatch)
    session = resuming("WebSocket")
    missed = [Entry(1, at, at, at, b'"title":"missed"}') for at in range(2, 102)]

    calls = calls_of(lambda: replay(session, missed))

    assert session.transport.deliveries == len(missed)
    assert calls / len(missed) < REPLAY_CALLS_MAX[way]


def resuming(kind: str) -> Session:
    """Return the session of a reader that connects again, with a descriptor."""
    is_websocket = kind == "WebSocket"
    stream: Detached = (
        DetachedWebSocket(Absent(), websocket_batch_writer(), None)  # type: ignore[arg-type]
        if is_websocket
        else EventStream(Absent(), BatchWriter(chunk))
    )
    stream._descriptor = 0
    return Session(
        Position(1, 1, 1, 1),
        codec=WebSocketCodec() if is_websocket else SseCodec(),
        sink=stream,
        limits=SessionLimits(),
        pinged_at_s=0,
    )


def replay(session: Session, missed: list[Entry]) -> None:
    position = session.subscription.position
    session.subscription.begin_read()
    history = History(position, missed[-1].position, missed)
    session.on_history(position, history)


# The first write.


async def test_a_head_is_written_with_the_first_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "streamer.transports.streams.detached.FIRST_WRITE_WAIT_S", 3_600
    )
    stream, transport = EventStream(Absent(), BatchWriter(unframed)), Piling()
    first_write = asyncio.create_task(stream.first_write())
    await asyncio.sleep(0)
    assert not first_write.done()
    stream.write(b"hello", 1_000)
    await first_write
    await stream.first_write()

    stream.begin(transport, set(), None, b"head, ")

    assert transport.written == [b"head, hello"]


async def test_head_preamble_and_first_event_are_one_write() -> None:
    batch_writer, transport = BatchWriter(chunk), Piling()
    stream = EventStream(Absent(), batch_writer, preamble=b"retry")
    stream.write(b"hello", 1_000)

    stream.begin(transport, set(), None, b"head, ")
    stream.write(b"hello", 1_000)

    hello = b"5\r\nhello\r\n"
    assert transport.written == [b"head, 5\r\nretry\r\n" + hello, hello]


async def test_a_head_is_written_though_no_event_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streamer.transports.streams.detached.FIRST_WRITE_WAIT_S", 0)
    stream, transport = EventStream(Absent(), BatchWriter(unframed)), Piling()

    await stream.first_write()
    stream.begin(transport, set(), None, b"head")
    stream.write(b"hello", 1_000)

    assert transport.written == [b"head", b"hello"]


async def test_an_aborted_stream_does_not_wait_for_its_first_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "streamer.transports.streams.detached.FIRST_WRITE_WAIT_S", 3_600
    )
    stream = EventStream(Absent(), BatchWriter(unframed))
    first_write = asyncio.create_task(stream.first_write())
    await asyncio.sleep(0)

    stream.abort(SLOW)

    await first_write
    await stream.first_write()
