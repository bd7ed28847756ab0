"""
Traces of a whole server, by the real SDK with an exporter in memory.

Two nodes on one store: what is published on one is delivered by the other.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import httpx2
import msgspec
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from streamer.app import App
from streamer.compiled.fanout import FEW
from streamer.config import Config
from streamer.model import Player
from streamer.server import DRAIN_GRACE_S
from streamer.service.node.player_names import PlayerNames
from streamer.service.node.request_context import current_request
from streamer.service.tracing.otel import OpenTelemetry
from streamer.store.client.connection import RedisConnection
from streamer.store.logs.inbox import INLINE_MAX

from .conformance import Conformance
from .conftest import AddKey, Mint, OpenEvents, Server, Until, client_of, running
from .in_memory import WAYS, Way

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
STATE = "game=t61rcWkgMzE,other=1"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": STATE}
NOT_SAMPLED = SAMPLED | {"traceparent": f"00-{TRACE}-{CALLER}-00"}
PUBLISH = "/v1/notifications"


class Node:
    """A server, and the spans that have ended there."""

    def __init__(self, app: App, exporter: InMemorySpanExporter) -> None:
        self.app = app
        self.exporter = exporter
        self.server: Any = None

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        found = self.named(name)
        assert len(found) == 1, [span.name for span in self.spans]
        return found[0]


class Nodes(NamedTuple):
    """Where tests publish, and where players are connected."""

    here: Node
    there: Node
    key: str

    async def publish(self, message: dict[str, Any], **headers: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}", **headers}
        client: httpx2.AsyncClient = self.here.server.client
        return await client.post(PUBLISH, headers=headers, json=message)

    def anywhere(self, name: str) -> list[ReadableSpan]:
        return [*self.here.named(name), *self.there.named(name)]


@asynccontextmanager
async def traced(store_url: str, **settings: Any) -> AsyncIterator[Node]:
    exporter = InMemorySpanExporter()

    def start_tracing(node: str) -> OpenTelemetry:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return OpenTelemetry(provider)

    config = msgspec.structs.replace(Config(), **settings)
    async with running(store_url, config, start_tracing) as app:
        yield Node(app, exporter)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_app(store_url: str) -> AsyncIterator[App]:
    """Run a node that makes no traces. It would send schedules without one, too."""
    config = msgspec.structs.replace(Config(), background=False)
    async with running(store_url, config) as app:
        yield app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(store_url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        traced(store_url, log_players="name") as here,
        traced(store_url, log_players="name") as there,
    ):
        yield here, there


@pytest.fixture
def way() -> Way:
    return "direct"


@pytest_asyncio.fixture(loop_scope="module")
async def nodes(
    pair: tuple[Node, Node],
    redis: RedisConnection,
    mint: Mint,
    add_key: AddKey,
    conformance: Conformance,
    way: Way,
) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        for node in pair:
            node.exporter.clear()
            client = await stack.enter_async_context(
                client_of(node.app, conformance, way)
            )
            node.server = Server(node.app, client, redis, mint, Config())
            stack.push_async_callback(node.server.close)
        yield Nodes(*pair, await add_key())


def trace_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def id_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def parent_of(span: ReadableSpan) -> str:
    return "" if span.parent is None else f"{span.parent.span_id:016x}"


def state_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return str(span.context.trace_state.to_header())


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def to_alice(**message: Any) -> dict[str, Any]:
    return {"to": {"players": ["alice"]}, "title": "secret", **message}


@pytest.mark.parametrize("way", WAYS)
async def test_a_trace_goes_from_the_request_to_the_delivery_on_another_node(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)

    answer = await nodes.publish(to_alice(), **SAMPLED)

    await stream.take(2)
    await until(lambda: nodes.there.named("deliver player"))
    request = nodes.here.only(f"POST {PUBLISH}")
    publish = nodes.here.only("publish player")
    append = nodes.here.only("append")
    deliver = nodes.there.only("deliver player")
    line = [request, publish, append, deliver]
    assert [trace_of(it) for it in line] == [TRACE] * 4
    assert [state_of(it) for it in line] == [STATE] * 4
    assert [it.kind for it in line] == [
        SpanKind.SERVER,
        SpanKind.PRODUCER,
        SpanKind.CLIENT,
        SpanKind.CONSUMER,
    ]
    assert [parent_of(it) for it in line] == [
        CALLER,
        id_of(request),
        id_of(publish),
        id_of(publish),
    ]
    message_id = answer.json()["results"][0]["id"]
    app = mint.name()
    assert attributes_of(publish) == {
        "messaging.system": "streamer",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.template": "player",
        "messaging.message.id": message_id,
        "streamer.app": app,
        "streamer.player": "alice",
    }
    assert attributes_of(deliver) == {
        "messaging.system": "streamer",
        "messaging.operation.name": "deliver",
        "messaging.operation.type": "process",
        "messaging.destination.template": "player",
        "messaging.message.id": message_id,
        "streamer.app": app,
        "streamer.player": "alice",
        "streamer.delivery": "announcement",
        "streamer.readers": 1,
    }
    assert attributes_of(request) == {
        "http.request.method": "POST",
        "http.route": PUBLISH,
        "http.response.status_code": 200,
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "streamer.app": app,
        "streamer.request_id": answer.headers["X-Request-Id"],
    }
    # The node that published has no reader, and delivers nothing.
    assert nodes.here.named("deliver player") == []
    assert not [it for it in line if it.status.status_code is StatusCode.ERROR]


async def test_what_is_not_sampled_leaves_no_trace_anywhere(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)
    before = len(nodes.there.spans)

    await nodes.publish(to_alice(), **NOT_SAMPLED)
    await nodes.publish(to_alice(title="sampled"), **SAMPLED)

    await stream.take(3)
    await until(lambda: nodes.there.named("deliver player"))
    assert len(nodes.here.named("publish player")) == 1
    assert len(nodes.there.spans) - before == 1


async def test_a_request_without_a_trace_begins_one(nodes: Nodes) -> None:
    await nodes.publish(to_alice())
    await nodes.publish(to_alice(), traceparent="00-nonsense")

    requests = nodes.here.named(f"POST {PUBLISH}")
    publishes = nodes.here.named("publish player")
    assert [it.parent for it in requests] == [None, None]
    assert [trace_of(it) for it in requests] == [trace_of(it) for it in publishes]
    assert len({trace_of(it) for it in requests}) == 2


@pytest.mark.parametrize(
    ("to", "kind", "readers"),
    [({"topic": "news"}, "topic", FEW + 2), ({"everyone": True}, "everyone", 2)],
)
async def test_a_broadcast_is_one_span_on_each_node(
    nodes: Nodes,
    open_events: OpenEvents,
    mint: Mint,
    until: Until,
    to: dict[str, Any],
    kind: str,
    readers: int,
) -> None:
    streams = []
    for i in range(readers):
        headers = mint.bearer(f"p{i}", topics=("news",))
        client = nodes.here.server.client
        await client.put("/v1/players/me/topics/news", headers=headers)
        streams += [
            await open_events("/v1/stream", headers, at=node.server)
            for node in (nodes.here, nodes.there)
        ]
    # So many take the fan-out in C, once they are grouped.
    await nodes.publish({"to": to, "title": "first"})
    for stream in streams:
        await stream.until(lambda it: "first" in it.text)
    for node in (nodes.here, nodes.there):
        await until(partial(node.named, f"deliver {kind}"))
        node.exporter.clear()

    await nodes.publish({"to": to, "title": "second"}, **SAMPLED)

    for stream in streams:
        await stream.until(lambda it: "second" in it.text)
    publish = nodes.here.only(f"publish {kind}")
    name = {"topic": "news", "everyone": "everyone"}[kind]
    for node in (nodes.here, nodes.there):
        await until(partial(node.named, f"deliver {kind}"))
        deliver = node.only(f"deliver {kind}")
        assert parent_of(deliver) == id_of(publish)
        assert attributes_of(deliver)["streamer.readers"] == readers
        assert attributes_of(deliver)["messaging.destination.name"] == name


async def test_a_notification_too_large_to_announce_is_delivered_by_a_read(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)

    await nodes.publish(to_alice(data={"x": "x" * INLINE_MAX}), **SAMPLED)

    await stream.take(2)
    await until(lambda: nodes.there.named("deliver player"))
    deliver = nodes.there.only("deliver player")
    assert parent_of(deliver) == id_of(nodes.here.only("publish player"))
    assert attributes_of(deliver)["streamer.delivery"] == "read"


async def test_an_ephemeral_notification_is_traced_to_its_delivery(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)

    answer = await nodes.publish(to_alice(persist=False), **SAMPLED)

    await stream.take(2)
    await until(lambda: nodes.there.named("deliver player"))
    publish = nodes.here.only("publish player")
    assert parent_of(nodes.there.only("deliver player")) == id_of(publish)
    message_id = answer.json()["results"][0]["id"]
    assert attributes_of(publish)["messaging.message.id"] == message_id


async def test_clients_get_the_same_bytes_with_a_trace_and_without(
    nodes: Nodes, server: Server, open_events: OpenEvents, mint: Mint
) -> None:
    # A node without traces takes announcements that have one as any other.
    servers = nodes.there.server, server
    streams = [
        await open_events("/v1/stream", mint.bearer("alice"), at=at) for at in servers
    ]

    await nodes.publish(to_alice(title="a"))
    await nodes.publish(to_alice(title="a"), **SAMPLED)
    await nodes.publish(to_alice(title="a", persist=False), **SAMPLED)

    for stream in streams:
        _, plain, traced, ephemeral = await stream.take(4)
        assert plain.keys() == traced.keys() == ephemeral.keys()
        assert TRACE not in stream.text


async def test_a_batch_to_several_players_is_one_publish(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    for player in ("alice", "bob"):
        await open_events("/v1/stream", mint.bearer(player), at=nodes.there.server)

    to = {"players": ["alice", "bob", "carol"]}
    await nodes.publish({"to": to, "title": "t"}, **SAMPLED)

    await until(lambda: len(nodes.there.named("deliver player")) == 2)
    publish = attributes_of(nodes.here.only("publish player"))
    assert publish["messaging.batch.message_count"] == 3
    assert "streamer.player" not in publish
    append = attributes_of(nodes.here.only("append"))
    assert append["db.operation.batch.size"] == 3
    delivered = [attributes_of(it) for it in nodes.there.named("deliver player")]
    assert {it["streamer.player"] for it in delivered} == {"alice", "bob"}


async def test_a_repetition_says_so_and_announces_nothing(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)
    key = {"Idempotency-Key": "k"}

    for _ in range(2):
        await nodes.publish(to_alice(), **SAMPLED, **key)
    await nodes.publish(to_alice(title="after"), **SAMPLED)

    await stream.take(3)
    await until(lambda: len(nodes.there.named("deliver player")) == 2)
    first, again, _ = nodes.here.named("publish player")
    assert "streamer.replayed" not in attributes_of(first)
    assert attributes_of(again)["streamer.replayed"] is True


@pytest.mark.parametrize("way", WAYS)
async def test_a_refused_publish_is_an_error_by_its_class(
    nodes: Nodes, mint: Mint
) -> None:
    headers = mint.bearer("alice", "notification:player:self:write")
    nodes_of_alice = nodes._replace(
        key=headers["Authorization"].removeprefix("Bearer ")
    )

    answer = await nodes_of_alice.publish({"to": {"players": ["bob"]}, "title": "t"})

    assert answer.status_code == 403
    publish = nodes.here.only("publish player")
    assert publish.status.status_code is StatusCode.ERROR
    assert attributes_of(publish)["error.type"] == "Forbidden"
    assert publish.events == ()
    request = nodes.here.only(f"POST {PUBLISH}")
    # A refusal is no failure of this server.
    assert request.status.status_code is StatusCode.UNSET
    assert attributes_of(request)["streamer.refusal"] == "forbidden"
    assert nodes.here.named("append") == []


async def test_a_schedule_links_to_the_request_that_created_it(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)

    await nodes.publish(to_alice(send_at="2000-01-01T00:00:00Z"), **SAMPLED)

    await stream.take(2)
    await until(lambda: nodes.there.named("deliver player"))
    create = nodes.here.only("schedule player")
    assert parent_of(create) == id_of(nodes.here.only(f"POST {PUBLISH}"))
    assert attributes_of(create)["messaging.operation.type"] == "create"
    # Whichever node was the first to fire it.
    await until(lambda: nodes.anywhere("publish player"))
    (publish,) = nodes.anywhere("publish player")
    assert publish.parent is None
    assert trace_of(publish) != TRACE
    (link,) = publish.links
    assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (
        TRACE,
        id_of(create),
    )
    assert parent_of(nodes.there.only("deliver player")) == id_of(publish)
    for span in (create, publish):
        assert attributes_of(span)["streamer.schedule"]


async def test_a_schedule_for_many_is_published_in_portions_that_link(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)

    message = {"to": {"players": ["alice", "bob"]}, "title": "t"}
    due = "2000-01-01T00:00:00Z"
    await nodes.publish({**message, "send_at": due}, **SAMPLED)

    await stream.take(2)
    await until(lambda: nodes.there.named("deliver player"))
    deliver = nodes.there.only("deliver player")
    # A portion ends when the store has replied, which may be after the delivery.
    await until(
        lambda: parent_of(deliver) in map(id_of, nodes.anywhere("publish players"))
    )
    created = id_of(nodes.here.only("schedule players"))
    for portion in nodes.anywhere("publish players"):
        assert [f"{it.context.span_id:016x}" for it in portion.links] == [created]


async def test_a_schedule_that_was_not_sampled_is_sent_without_a_trace(
    nodes: Nodes, open_events: OpenEvents, mint: Mint
) -> None:
    at = nodes.there.server
    stream = await open_events("/v1/stream", mint.bearer("alice"), at=at)

    await nodes.publish(to_alice(send_at="2000-01-01T00:00:00Z"), **NOT_SAMPLED)

    await stream.take(2)
    for node in (nodes.here, nodes.there):
        assert node.named("publish player") == []


@pytest.mark.parametrize("form", ["hash", "none"])
async def test_players_are_named_as_in_the_log(
    nodes: Nodes, mint: Mint, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = PlayerNames(form, "key")
    monkeypatch.setattr(nodes.here.app._components.publisher, "_players", names)

    await nodes.publish(to_alice(), **SAMPLED)

    player = attributes_of(nodes.here.only("publish player")).get("streamer.player", "")
    assert player == names.of(mint.name(), Player("alice"))
    assert "alice" not in player


async def test_no_span_has_what_was_sent_or_who_may_send_it(
    nodes: Nodes, open_events: OpenEvents, mint: Mint, until: Until
) -> None:
    at, token = nodes.there.server, mint("alice")
    headers = {"Authorization": f"Bearer {token}"}
    await open_events("/v1/stream?cursor=", headers, at=at)

    await nodes.publish(to_alice(data={"deep": "secret"}), **SAMPLED)

    await until(lambda: nodes.there.named("deliver player"))
    shown = [it.to_json() for it in [*nodes.here.spans, *nodes.there.spans]]
    assert shown
    for secret in ("secret", token, nodes.key):
        assert not [it for it in shown if secret in it]


async def test_lines_of_a_sampled_request_have_its_trace(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    # As every line is made, by `streamer.cli.logs`.
    seen: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        serving = current_request.get()
        if record.name == "streamer.access":
            seen.append("" if serving is None else serving.trace_id)
        return True

    caplog.set_level(logging.INFO, "streamer.access")
    caplog.handler.addFilter(note)

    await nodes.publish(to_alice(), **SAMPLED)
    await nodes.publish(to_alice(), **NOT_SAMPLED)

    caplog.handler.removeFilter(note)
    assert seen == [TRACE, ""]


async def test_probes_are_not_traced_and_a_stream_ends_its_span_when_it_opens(
    nodes: Nodes, open_events: OpenEvents, mint: Mint
) -> None:
    await nodes.here.server.get("/readyz")

    await open_events("/v1/stream", mint.bearer("alice"), at=nodes.here.server)

    (only,) = nodes.here.spans
    assert only.name == "GET /v1/stream"


async def test_a_drain_without_a_window_waits_less_for_the_collector_than_it_may_take(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_s: list[float] = []

    async def flush(within_s: float) -> None:
        waits_s.append(within_s)

    async with traced(store_url, drain_s=0) as node:
        monkeypatch.setattr(node.app._components.tracing, "flush", flush)
        await node.app.drain()

    assert len(waits_s) == 1
    assert 0 < waits_s[0] < DRAIN_GRACE_S
