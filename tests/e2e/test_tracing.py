"""Two nodes as processes that send their traces to a collector, by OTLP over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)

from streamer_conformance.listener import Listener

from .processes import DURABLE, ServerProcess, StoreProcess, eventually, free_port
from .readers import SseStream

MakeServer = Callable[..., ServerProcess]
MakeStore = Callable[..., StoreProcess]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collector:
    """An OpenTelemetry collector, as far as nodes need one."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """Spans, each after the name of the node that has sent it."""
        self.listener = Listener(self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.port}"

    def named(self, name: str) -> list[tuple[str, Any]]:
        return [it for it in self.spans if it[1].name == name]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n"), head
            lines = head.lower().split(b"\r\n")
            (size,) = [it[15:] for it in lines if it.startswith(b"content-length:")]
            body = await reader.readexactly(int(size))
            for of_node in ExportTraceServiceRequest.FromString(body).resource_spans:
                named = {it.key: it.value for it in of_node.resource.attributes}
                node = named["service.instance.id"].string_value
                for scope in of_node.scope_spans:
                    self.spans += [(node, span) for span in scope.spans]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collector = Collector()
    async with collector.listener:
        yield collector


async def publish(node: ServerProcess) -> None:
    key = await node.key()
    async with httpx2.AsyncClient(base_url=node.url) as client:
        answer = await client.post(
            "/v1/notifications",
            headers={"Authorization": f"Bearer {key}", "traceparent": TRACEPARENT},
            json={"to": {"players": ["ann"]}, "title": "t"},
        )
    assert answer.status_code == 200, answer.text


async def test_two_nodes_send_one_trace_and_the_rest_when_they_stop(
    make_server: MakeServer,
    make_store: MakeStore,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    # Nothing is sent by time, so it is sent by the end of the process.
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    store = await make_store(*DURABLE).start()
    # The longest time for it: a drain without streams ends when it is done.
    here, there = (make_server(redis=store.url, drain_s=30) for _ in range(2))
    await asyncio.gather(here.start(), there.start())
    stream = await SseStream.open(there.port, await there.token("ann"))
    await stream.until("hello")

    await publish(here)

    await stream.notifications(1)
    assert collector.spans == []
    stream.cut()
    await there.listeners("ann", 0)
    assert [*await asyncio.gather(here.stop(), there.stop())] == [0, 0]
    (published,) = collector.named("publish player")
    (delivered,) = collector.named("deliver player")
    assert published[0] != delivered[0]
    assert delivered[1].parent_span_id == published[1].span_id
    assert {it[1].trace_id.hex() for it in (published, delivered)} == {TRACE}
    for node in (here, there):
        assert node.complaints == ""


async def test_a_collector_that_is_away_changes_nothing_but_one_line_of_the_log(
    make_server: MakeServer,
    make_store: MakeStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Nobody listens there, and no other test will.
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    # How long the exporter tries again to send a batch, in seconds.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    store = await make_store(*DURABLE).start()
    node = await make_server(redis=store.url).start()

    for _ in range(3):
        await publish(node)

    await eventually(lambda: "traces are lost" in node.logged)
    assert await node.stop() == 0
    assert node.logged.count("does not take them") == 1
    assert "Traceback" not in node.logged
