"""
Whether this process makes traces.

Decides it by the standard variables of OpenTelemetry alone: there are traces if an
endpoint is set and the extra is installed. Whatever is wrong with them is logged, and
nothing else happens: no server stays down for its traces.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import metadata
from typing import Final
from urllib.parse import urlsplit

from .spans import Tracing

__all__ = ["start"]

EXTRA: Final = "pip install 'streamer-server[otel]'"

TELL_OF_HEADERS: Final = ("opentelemetry.baggage", "opentelemetry.trace")
"""Loggers that warn of headers, and quote them: every client could fill the log."""

_logger = logging.getLogger(__name__)


def start(environ: Mapping[str, str], node: str) -> Tracing | None:
    """
    Begin to send traces; return None if there are none.

    The SDK reads its settings from the environment of the process itself.

    Args:
        environ: That environment.
        node: The name of this node.

    """
    collector = _collector(environ)
    if not collector:
        return None
    if problem := _problem(environ):
        _logger.warning("no traces are sent to %s: %s", collector, problem)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter,
        )

        from .otel import OpenTelemetry, provider_of
    except ImportError as error:
        _logger.warning(
            "no traces are sent to %s: %s is not installed; %s",
            collector,
            error.name or error,
            EXTRA,
        )
        return None
    try:
        # It logs each attempt that fails. `otel` tells once.
        logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.CRITICAL)
        for name in TELL_OF_HEADERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        provider = provider_of(
            OTLPSpanExporter(),
            node=node,
            version=metadata.version("streamer-server"),
            collector=collector,
        )
        return OpenTelemetry(provider)
    except Exception as error:
        # Such as a sampler, or a propagator, that is not installed.
        _logger.warning("no traces are sent to %s: %s", collector, error)
        return None


def _collector(environ: Mapping[str, str]) -> str:
    """Return where traces go, without credentials; "" if nowhere."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return ""
    endpoint = (
        environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip()
        or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    )
    return urlsplit(endpoint).netloc.rpartition("@")[2] or endpoint


def _problem(environ: Mapping[str, str]) -> str:
    """Return what was asked for and cannot be done, "" if nothing."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    if exporter != "otlp":
        return f"OTEL_TRACES_EXPORTER is {exporter}; use otlp"
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(name, "").strip():
            if protocol != "http/protobuf":
                return f"{name} is {protocol}; use http/protobuf, at port 4318"
            break
    return ""
