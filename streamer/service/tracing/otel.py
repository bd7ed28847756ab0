"""
Spans by OpenTelemetry.

The only module that imports it: it is an extra, and `starting` imports this module if
it is wanted. Decides that no failure of the collector is noticed by anything but the
log, which tells of it once; and how long a node that stops waits for it. The SDK has
the queue of spans that have ended, which is bounded, and the thread that sends them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AnyValue

from ...core.trace_context import STATE_CHARS_MAX, TraceContext
from .spans import Attributes, Kind, Span, error_type

__all__ = ["OpenTelemetry", "provider_of"]

CLOSE_S: Final = 2.0
"""How long a process that ends waits for the collector, after its drain."""

ABANDON_S: Final = 0.05
"""How long it waits for one that has not answered within the drain."""

_KINDS: Final = {
    Kind.SERVER: SpanKind.SERVER,
    Kind.PRODUCER: SpanKind.PRODUCER,
    Kind.CONSUMER: SpanKind.CONSUMER,
    Kind.CLIENT: SpanKind.CLIENT,
}
_W3C: Final = TraceContextTextMapPropagator()

_logger = logging.getLogger(__name__)


def provider_of(
    exporter: SpanExporter, *, node: str, version: str, collector: str
) -> TracerProvider:
    """
    Return a provider that sends spans in batches, configured by the environment.

    Args:
        exporter: Sends spans.
        node: The name of this node, which every span has.
        version: The version of streamer.
        collector: Where they go, for the log.

    """
    own = {
        "service.name": "streamer",
        "service.version": version,
        "service.instance.id": node,
    }
    # What the environment says of the process wins.
    chosen = OTELResourceDetector().detect()
    resource = Resource.create().merge(Resource(own)).merge(chosen)
    # Not at exit: a process that ends does not wait for a collector; `close` has.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Told(exporter, collector)))
    return provider


class OpenTelemetry:
    """
    Makes spans of OpenTelemetry; see `spans.Tracing`.

    Args:
        provider: Where spans go.

    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        provider.sampler = _FollowsLinks(provider.sampler)
        self._tracer = provider.get_tracer("streamer")
        self._propagator = propagate.get_global_textmap()
        self._is_answering = True

    def request(
        self, name: str, headers: Iterable[tuple[bytes, bytes]], attributes: Attributes
    ) -> Span:
        parent = self._propagator.extract(headers, Context(), _HEADERS)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, dict(attributes))
        # Not reset: the call has a context of its own.
        contexts.attach(trace.set_span_in_context(span, Context()))
        return _Span(span)

    def end_request(self, span: Span, name: str) -> None:
        assert isinstance(span, _Span)
        span.span.update_name(name)
        span.span.end()

    @contextmanager
    def doing(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        links: Sequence[TraceContext] = (),
        is_parent: bool = True,
    ) -> Iterator[Span]:
        otel_span = self._tracer.start_span(
            name,
            None,
            _KINDS[kind],
            dict(attributes),
            [trace.Link(_span_context(link)) for link in links],
        )
        span = _Span(otel_span)
        token = None
        if is_parent:
            token = contexts.attach(trace.set_span_in_context(otel_span))
        try:
            yield span
        except BaseException as error:
            span.fail(error_type(error))
            raise
        finally:
            if token is not None:
                contexts.detach(token)
            if not span.is_discarded:
                otel_span.end()

    def done(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: TraceContext,
        began_ns: int,
    ) -> None:
        self._tracer.start_span(
            name,
            _context(parent),
            _KINDS[kind],
            dict(attributes),
            start_time=began_ns,
        ).end()

    def current(self) -> TraceContext | None:
        return _Span(trace.get_current_span()).context

    async def flush(self, within_s: float) -> None:
        self._is_answering = await _within(within_s, self._provider.force_flush)

    async def close(self) -> None:
        seconds = CLOSE_S if self._is_answering else ABANDON_S
        await _within(seconds, self._provider.shutdown)


class _Span:
    """A span, and whether it is to be forgotten; see `spans.Span`."""

    __slots__ = ("is_discarded", "span")

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self.is_discarded = False

    @property
    def context(self) -> TraceContext | None:
        it = self.span.get_span_context()
        if not it.is_valid or not it.trace_flags.sampled:
            return None
        parent = f"00-{it.trace_id:032x}-{it.span_id:016x}-{it.trace_flags:02x}"
        return TraceContext(parent, _passed_on(it.trace_state.to_header()))

    @property
    def trace_id(self) -> str:
        it = self.span.get_span_context()
        return f"{it.trace_id:032x}" if it.trace_flags.sampled else ""

    def note(self, attributes: Attributes) -> None:
        self.span.set_attributes(dict(attributes))

    def fail(self, error_type: str) -> None:
        self.span.set_attribute("error.type", error_type)
        self.span.set_status(trace.StatusCode.ERROR)

    def discard(self) -> None:
        # A span that does not end is exported by nobody.
        self.is_discarded = True


class _FollowsLinks(Sampler):
    """
    A sampler that decides about what has a link, and no parent, as if it had a parent.

    So a schedule is sent with a trace where its creation had one and the sampler obeys
    parents, although each sending is a trace of its own.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Mapping[str, AnyValue] | None = None,
        links: Sequence[trace.Link] | None = None,
        trace_state: trace.TraceState | None = None,
    ) -> SamplingResult:
        is_root = not trace.get_current_span(parent_context).get_span_context().is_valid
        if not is_root or not links:
            return self._sampler.should_sample(
                parent_context, trace_id, name, kind, attributes, links, trace_state
            )
        created = trace.NonRecordingSpan(links[0].context)
        result = self._sampler.should_sample(
            trace.set_span_in_context(created, Context()),
            *(trace_id, name, kind, attributes, links),
        )
        # The state is that of the other trace.
        return SamplingResult(result.decision, result.attributes, trace_state)

    def get_description(self) -> str:
        return f"FollowsLinks{{{self._sampler.get_description()}}}"


class _Headers(Getter[Iterable[tuple[bytes, bytes]]]):
    def get(self, carrier: Iterable[tuple[bytes, bytes]], key: str) -> list[str] | None:
        name = key.encode()
        return [value.decode("latin-1") for it, value in carrier if it == name] or None

    def keys(self, carrier: Iterable[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_HEADERS: Final = _Headers()


class _Told(SpanExporter):
    """
    An exporter that tells of failures once, and when they have ended.

    It runs in the thread of the processor. What it could not send is gone.
    """

    def __init__(self, exporter: SpanExporter, collector: str) -> None:
        self._exporter = exporter
        self._collector = collector
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing and not self._is_failing:
            _logger.warning(
                "traces are lost: %s does not take them; its address is in "
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                self._collector,
            )
        elif self._is_failing and not is_failing:
            _logger.warning("traces are sent again: %s takes them", self._collector)
        self._is_failing = is_failing
        return result

    def _export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            return self._exporter.export(spans)
        except Exception:
            _logger.debug("could not export spans", exc_info=True)
            return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _passed_on(state: str) -> str:
    """Return the first members of a ``tracestate``, without those beyond its limit."""
    if len(state) <= STATE_CHARS_MAX:
        return state
    # It comes from a client, and goes to every node, and into records of schedules.
    return state[: STATE_CHARS_MAX + 1].rpartition(",")[0]


def _context(of: TraceContext) -> Context:
    headers: Mapping[str, str] = {"traceparent": of.parent, "tracestate": of.state}
    return _W3C.extract(headers, Context())


def _span_context(of: TraceContext) -> trace.SpanContext:
    return trace.get_current_span(_context(of)).get_span_context()


async def _within(seconds: float, work: Callable[[], object]) -> bool:
    """
    Do blocking work in a thread; wait for it so long at most. Return if it is done.

    Not in the executor of the event loop, for whose threads a process that ends waits.
    """
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            work()
        except Exception:
            _logger.debug("could not send spans", exc_info=True)
        finally:
            try:
                loop.call_soon_threadsafe(finish)
            except RuntimeError:
                pass  # The loop has ended meanwhile.

    threading.Thread(target=run, name="traces", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        _logger.warning("traces are lost: the collector took longer than %s s", seconds)
        return False
    return True
