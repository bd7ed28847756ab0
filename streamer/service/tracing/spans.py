"""
What the parts of a node need to be traced, without a library.

Decides the names of spans and their attributes, by the semantic conventions of
OpenTelemetry for messaging, HTTP and databases. `otel` has the implementation.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from ...core.trace_context import TraceContext
from ...model import Log
from ..node.player_names import PlayerNames

__all__ = [
    "Attributes",
    "Kind",
    "Span",
    "StartTracing",
    "Tracing",
    "destination",
    "error_type",
    "fail_with",
    "kind_of",
    "operation",
]

Attributes = Mapping[str, str | int | bool]


class Kind(enum.Enum):
    """The kinds of spans."""

    SERVER = "server"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    CLIENT = "client"


class Span(Protocol):
    """Something that is being done, as a part of a trace that may not be sampled."""

    @property
    def context(self) -> TraceContext | None:
        """What continues the trace elsewhere; None if it is not sampled."""

    @property
    def trace_id(self) -> str:
        """The id of the trace as 32 hex digits, "" if it is not sampled."""

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""

    def fail(self, error_type: str) -> None:
        """Note that it failed, and with which class of error."""

    def discard(self) -> None:
        """Export nothing of it: nothing was done."""


class Tracing(Protocol):
    """Makes spans. No method raises, and none waits for the exporter."""

    def request(
        self, name: str, headers: Iterable[tuple[bytes, bytes]], attributes: Attributes
    ) -> Span:
        """
        Begin a request. It goes on in the trace of its headers, if they have one.

        It is the parent of the spans that begin in the same context from now on, until
        `end_request`.
        """

    def end_request(self, span: Span, name: str) -> None:
        """End a request, under another name."""

    def doing(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        links: Sequence[TraceContext] = (),
        is_parent: bool = True,
    ) -> AbstractContextManager[Span]:
        """
        Return a block that is a part of what this context does, or begins a trace.

        With `is_parent` what begins in the block is a part of it. An exception in it is
        noted by its class, and goes on.
        """

    def done(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        *,
        parent: TraceContext,
        began_ns: int,
    ) -> None:
        """Add what was begun at that Unix time, in ns, and ends now."""

    def current(self) -> TraceContext | None:
        """Return what continues the trace of this context; None if none is sampled."""

    async def flush(self, within_s: float) -> None:
        """Send what has ended to the collector; give up after that time."""

    async def close(self) -> None:
        """Send what has ended, and nothing from now on; give up after two seconds."""


StartTracing = Callable[[str], Tracing | None]
"""Begins to send traces of a node, by its name; returns None if there are none."""

SYSTEM: Final = "streamer"


def operation(name: str, kind: str) -> Attributes:
    """Return the attributes of an operation of messaging, and of which type it is."""
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
    }


def kind_of(log: Log) -> str:
    """Return which kind of recipient a log has: ``player``, ``topic``, ``everyone``."""
    if not log.is_audience:
        return "player"
    return "everyone" if log.topic is None else "topic"


def destination(logs: Sequence[Log], players: PlayerNames) -> tuple[str, Attributes]:
    """
    Return the kind of recipients, "" if they are of several, and what names them.

    A single player is named as in the log lines. `logs` are of one app, at least one.
    """
    kinds = {kind_of(log) for log in logs}
    attributes: dict[str, str | int | bool] = {"streamer.app": logs[0].app}
    if len(kinds) > 1:
        return "", attributes
    (kind,) = kinds
    attributes["messaging.destination.template"] = kind
    if len(set(logs)) > 1:
        return kind, attributes
    log = logs[0]
    if kind == "topic":
        attributes["messaging.destination.name"] = log.topic or ""
    elif kind == "everyone":
        attributes["messaging.destination.name"] = kind
    elif name := players.of(log.app, log.player):
        attributes["streamer.player"] = name
    return kind, attributes


def fail_with(span: Span, results: Iterable[object]) -> None:
    """Note the first exception among the results of what a span did, if any."""
    error = next((it for it in results if isinstance(it, Exception)), None)
    if error is not None:
        span.fail(error_type(error))


def error_type(error: BaseException) -> str:
    """Return the class of an error, whose text may contain what nobody is to see."""
    return type(error).__name__
