"""
Publishes and appends in a trace.

Decides what is a span of a publish. Each class does what the class does that it
extends, and has a span around it; without traces a node has the other one, which costs
it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.access.rights import Caller
from ...core.trace_context import TraceContext
from ...model import Log
from ...store.logs.inbox import AppendResult, Draft, Inbox, Once
from ..node.player_names import PlayerNames
from ..publishing.drafts import Message
from ..publishing.publisher import Publisher, SendResult
from .spans import Kind, Tracing, destination, fail_with, operation

__all__ = ["TracedInbox", "TracedPublisher"]


class TracedPublisher(Publisher):
    """
    A publisher with a span per publish.

    Args:
        tracing: Makes spans.
        players: Names players.
        args: As for `Publisher`.
        kwargs: As for `Publisher`.

    """

    def __init__(
        self, tracing: Tracing, players: PlayerNames, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tracing = tracing
        self._players = players

    async def send(
        self,
        caller: Caller,
        messages: Sequence[Message],
        *,
        idempotency_key: str | None = None,
    ) -> SendResult:
        name, attributes = self._publish([log for it in messages for log in it.logs])
        with self._tracing.doing(name, Kind.PRODUCER, attributes) as span:
            sent = await super().send(caller, messages, idempotency_key=idempotency_key)
            positions = [it for of_message in sent.positions for it in of_message]
            if len(positions) == 1 and (only := positions[0]) is not None:
                span.note({"messaging.message.id": only.id})
            elif len(positions) > 1:
                span.note({"messaging.batch.message_count": len(positions)})
            if sent.replayed:
                span.note({"streamer.replayed": True})
        return sent

    async def send_ephemeral(self, caller: Caller, message: Message) -> str:
        name, attributes = self._publish(message.logs)
        with self._tracing.doing(name, Kind.PRODUCER, attributes) as span:
            notification_id = await super().send_ephemeral(caller, message)
            span.note({"messaging.message.id": notification_id})
        return notification_id

    def _publish(self, logs: Sequence[Log]) -> tuple[str, dict[str, str | int | bool]]:
        kind, named = destination(logs, self._players)
        return f"publish {kind}".rstrip(), {**operation("publish", "send"), **named}


class TracedInbox(Inbox):
    """
    Logs with a span per packet of appends, which are announced with their trace.

    Args:
        tracing: Makes spans.
        args: As for `Inbox`.
        kwargs: As for `Inbox`.

    """

    def __init__(self, tracing: Tracing, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tracing = tracing

    async def append_many(
        self,
        batches: Sequence[tuple[Log, Sequence[Draft | bytes]]],
        *,
        once: Once | None = None,
        trace: TraceContext | None = None,
    ) -> list[AppendResult | Exception]:
        # The announcement continues the trace of the publish, not that of the append.
        trace = trace or self._tracing.current()
        attributes: dict[str, str | int | bool] = {
            "db.system.name": "redis",
            "db.operation.name": "append",
        }
        if len(batches) > 1:
            attributes["db.operation.batch.size"] = len(batches)
        with self._tracing.doing("append", Kind.CLIENT, attributes) as span:
            replies = await super().append_many(batches, once=once, trace=trace)
            fail_with(span, replies)
        return replies

    async def announce_ephemeral(
        self,
        logs: Sequence[Log],
        notification: bytes,
        *,
        trace: TraceContext | None = None,
    ) -> None:
        trace = trace or self._tracing.current()
        await super().announce_ephemeral(logs, notification, trace=trace)
