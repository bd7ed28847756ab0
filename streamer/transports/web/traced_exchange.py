"""
Requests in a trace.

Decides what a span has of a request: what the access log has of it. A request has one
on both ways to its endpoint, through ASGI and beneath it; a stream's ends when the
stream has opened. Without traces an `Exchange` is made instead, which knows nothing of
this.
"""

from __future__ import annotations

from starlette.types import Scope, Send

from ...service.tracing.spans import Span, Tracing
from .access_log import NO_ROUTE, PROBES, AccessLog, Exchange

__all__ = ["TracedExchange"]


class TracedExchange(Exchange):
    """
    A request and its response, with a span.

    Args:
        tracing: Makes spans.
        log: As for `Exchange`.
        scope: As for `Exchange`.
        send: As for `Exchange`.

    """

    __slots__ = ("_span", "_tracing")

    def __init__(
        self, tracing: Tracing, log: AccessLog, scope: Scope, send: Send | None = None
    ) -> None:
        super().__init__(log, scope, send)
        self._tracing = tracing
        self._span: Span | None = None
        if scope["path"] in PROBES:
            return  # Programs request them every few seconds.
        method = scope.get("method", "GET")
        self._span = tracing.request(
            method,
            scope["headers"],
            {"http.request.method": method, "url.scheme": scope.get("scheme", "http")},
        )
        self.serving.trace_id = self._span.trace_id

    def record(self) -> None:
        super().record()
        span, self._span = self._span, None
        if span is None:
            return
        serving, status = self.serving, self._status
        route = getattr(self._scope.get("route"), "path_format", NO_ROUTE)
        attributes: dict[str, str | int | bool] = {
            "http.route": route,
            "http.response.status_code": status,
            "streamer.request_id": serving.id,
        }
        if serving.client:
            attributes["client.address"] = serving.client
        if serving.app:
            attributes["streamer.app"] = serving.app
        if serving.refusal:
            attributes["streamer.refusal"] = serving.refusal
        span.note(attributes)
        if status >= 500:
            span.fail(str(status))
        self._tracing.end_request(span, f"{self._scope.get('method', 'GET')} {route}")
