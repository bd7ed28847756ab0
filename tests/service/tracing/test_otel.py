"""Spans by the real SDK, and collectors that fail, hang or forget."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from streamer.core.trace_context import TraceContext
from streamer.service.tracing import otel
from streamer.service.tracing.otel import OpenTelemetry, provider_of
from streamer.service.tracing.spans import Kind

PARENT = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=1")


class Collector(SpanExporter):
    """Keeps what it gets; fails, or hangs, while it is told to."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.answers: list[SpanExportResult | Exception] = []
        self.is_answering = threading.Event()
        self.is_answering.set()
        self.is_asked = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_asked.set()
        self.is_answering.wait()
        answer = self.answers.pop(0) if self.answers else SpanExportResult.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        if answer is SpanExportResult.SUCCESS:
            self.spans += spans
        return answer


PATIENCE_S = 20.0


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(otel, "CLOSE_S", PATIENCE_S)
    collector = Collector()
    yield collector
    # Threads of this test must not wait forever.
    collector.is_answering.set()


def tracing_to(collector: Collector) -> OpenTelemetry:
    return OpenTelemetry(
        provider_of(collector, node="n1", version="1", collector="collector:4318")
    )


def do(tracing: OpenTelemetry, name: str = "work") -> TraceContext | None:
    with tracing.doing(name, Kind.PRODUCER, {}) as span:
        return span.context


async def test_closing_sends_what_has_ended(collector: Collector) -> None:
    tracing = tracing_to(collector)
    do(tracing, "first")
    await tracing.flush(PATIENCE_S)
    assert [it.name for it in collector.spans] == ["first"]
    do(tracing, "second")

    await tracing.close()

    assert [it.name for it in collector.spans] == ["first", "second"]
    do(tracing, "after")
    await tracing.close()
    assert len(collector.spans) == 2


@pytest.mark.parametrize("failure", [SpanExportResult.FAILURE, OSError("refused")])
async def test_a_collector_that_fails_is_told_of_once(
    collector: Collector,
    failure: SpanExportResult | Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracing = tracing_to(collector)
    collector.answers = [failure, failure, SpanExportResult.SUCCESS]

    for _ in range(4):
        do(tracing)
        await tracing.flush(PATIENCE_S)

    messages = [it.getMessage() for it in caplog.records if it.name == otel.__name__]
    assert messages == [
        "traces are lost: collector:4318 does not take them; its address is in "
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "traces are sent again: collector:4318 takes them",
    ]
    assert len(collector.spans) == 2
    await tracing.close()


async def test_what_a_slow_collector_does_not_take_is_lost(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    tracing = tracing_to(collector)
    collector.is_answering.clear()

    for _ in range(100):
        do(tracing)

    collector.is_answering.set()
    await tracing.close()
    # Those that it was sending when it hung, and a full queue.
    assert 4 <= len(collector.spans) <= 2 + 4


async def test_a_node_that_stops_does_not_wait_for_a_collector_that_hangs(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    tracing = tracing_to(collector)
    collector.is_answering.clear()
    do(tracing)

    await tracing.flush(0.05)
    await tracing.close()

    assert collector.is_asked.wait(PATIENCE_S)
    assert collector.spans == []
    lost = [it for it in caplog.records if "took longer" in it.getMessage()]
    assert len(lost) == 2


async def test_a_span_names_the_node_and_the_service(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("", "game-push"):
        monkeypatch.setenv("OTEL_SERVICE_NAME", name)
        tracing = tracing_to(collector)
        do(tracing)
        await tracing.close()

    first, second = (dict(it.resource.attributes) for it in collector.spans)
    assert first["service.name"] == "streamer"
    assert second["service.name"] == "game-push"
    assert first["service.instance.id"] == "n1"


async def test_the_sampler_is_that_of_the_environment(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracing = tracing_to(collector)

    assert do(tracing) is None

    tracing.done("work", Kind.CONSUMER, {}, parent=PARENT, began_ns=1)
    await tracing.close()
    assert collector.spans == []


@pytest.mark.parametrize(
    ("sampler", "flags", "is_sampled"),
    [
        ("parentbased_always_off", "01", True),
        ("parentbased_always_off", "00", False),
        ("parentbased_always_on", "00", False),
        ("always_off", "01", False),
    ],
)
async def test_what_has_a_link_is_sampled_as_what_it_leads_to(
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    flags: str,
    is_sampled: bool,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    tracing = tracing_to(collector)
    link = PARENT._replace(parent=PARENT.parent[:-2] + flags)

    with tracing.doing("work", Kind.PRODUCER, {}, links=[link]) as span:
        context = span.context

    assert (context is not None) is is_sampled
    if context is not None:
        assert context.state == ""
        assert context.parent[:36] != PARENT.parent[:36]
    await tracing.close()
    assert len(collector.spans) == is_sampled


async def test_a_part_of_a_trace_keeps_its_state(collector: Collector) -> None:
    tracing = tracing_to(collector)

    tracing.done("work", Kind.CONSUMER, {}, parent=PARENT, began_ns=1)

    await tracing.close()
    (span,) = collector.spans
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" in PARENT.parent
    assert f"{span.parent.span_id:016x}" in PARENT.parent
    assert span.context.trace_state.to_header() == PARENT.state
    assert span.start_time == 1


# With commas between them 512 characters.
AT_THE_LIMIT = [f"k{i}={'x' * size}" for i, size in enumerate((125, 125, 125, 122))]


@pytest.mark.parametrize(
    ("members", "kept"),
    [
        (AT_THE_LIMIT, 4),
        ([*AT_THE_LIMIT, "k4=v"], 4),
        (["k" * 256 + "=" + "v" * 256], 0),
    ],
    ids=["all", "but the last", "none"],
)
async def test_of_a_long_state_the_first_members_are_passed_on(
    collector: Collector, members: list[str], kept: int
) -> None:
    tracing = tracing_to(collector)
    headers = [
        (b"traceparent", PARENT.parent.encode()),
        (b"tracestate", ",".join(members).encode()),
    ]

    context = tracing.request("GET", headers, {}).context

    assert context is not None
    assert context.state == ",".join(members[:kept])
    await tracing.close()


async def test_nothing_is_exported_of_what_is_discarded(collector: Collector) -> None:
    tracing = tracing_to(collector)

    with tracing.doing("work", Kind.PRODUCER, {}) as span:
        span.discard()

    await tracing.close()
    assert collector.spans == []


async def test_requests_that_overlap_have_parts_of_their_own(
    collector: Collector,
) -> None:
    tracing = tracing_to(collector)

    async def request(name: str) -> None:
        span = tracing.request(name, [], {})
        await asyncio.sleep(0)
        do(tracing, f"part of {name}")
        tracing.end_request(span, name)

    await asyncio.gather(*(asyncio.create_task(request(it)) for it in "abc"))

    await tracing.close()
    ids = {it.name: it.context for it in collector.spans}
    for span in collector.spans:
        if span.name.startswith("part of "):
            assert span.parent == ids[span.name[-1]]
    assert len(ids) == 6
    assert tracing.current() is None


@pytest.mark.parametrize("state", ["", "no=equals=sign,", "x" * 600])
async def test_headers_that_are_malformed_refuse_nothing(
    collector: Collector, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    tracing = tracing_to(collector)
    headers = [
        (b"traceparent", PARENT.parent.encode()),
        (b"tracestate", state.encode()),
        (b"traceparent", b"\xff"),
        (b"baggage", b"\xff=;,"),
    ]

    tracing.end_request(tracing.request("GET", headers, {}), "GET /")

    await tracing.close()
    (span,) = collector.spans
    assert span.parent is not None
