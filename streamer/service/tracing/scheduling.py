"""
Schedules in a trace.

Decides how the sending of a schedule belongs to the request that created it: by a link.
Between the two lie minutes or weeks, and a schedule for an audience is sent in
portions, so that each sending is a trace of its own. A schedule whose creation was not
sampled is sent without a trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ...core.schedule import Schedule
from ...core.trace_context import TraceContext
from ...model import Log, Player
from ...store.client.connection import RedisConnection
from ...store.client.replicated import Replicated
from ...store.logs.settings import LogSettings
from ...store.scheduling.firing import Firing
from ...store.scheduling.recipients import Recipients
from ...store.scheduling.timetable import AddResult, Timetable
from ..node.player_names import PlayerNames
from .spans import Attributes, Kind, Span, Tracing, destination, fail_with, operation

__all__ = ["TracedTimetable"]


class TracedTimetable(Timetable):
    """
    A timetable with a span per request that adds to it, and per sending.

    Args:
        tracing: Makes spans.
        players: Names players.
        redis: As for `Timetable`.
        settings: As for `Timetable`.
        confirmed: As for `Timetable`.

    """

    def __init__(
        self,
        tracing: Tracing,
        players: PlayerNames,
        redis: RedisConnection,
        settings: LogSettings,
        *,
        confirmed: Replicated | None = None,
    ) -> None:
        super().__init__(redis, settings, confirmed=confirmed)
        self._tracing = tracing
        self._players = players
        sending = _Sending(tracing, players)
        self.firing = _TracedFiring(sending, redis, settings)
        self.recipients = _TracedRecipients(sending, redis, settings)

    async def add_many(
        self, schedules: Sequence[Schedule], *, slots_max: int = 0
    ) -> list[AddResult | Exception]:
        kind, attributes = _recipient(schedules[0], self._players)
        attributes = {**operation("schedule", "create"), **attributes}
        if len(schedules) > 1:
            attributes.pop("streamer.player", None)
            attributes["messaging.batch.message_count"] = len(schedules)
        else:
            attributes["streamer.schedule"] = schedules[0].id
        name = f"schedule {kind}"
        with self._tracing.doing(name, Kind.PRODUCER, attributes) as span:
            if (trace := span.context) is not None:
                schedules = [it._replace(trace=trace) for it in schedules]
            added = await super().add_many(schedules, slots_max=slots_max)
            fail_with(span, added)
        return added


class _Sending:
    """Makes the spans of sending, for schedules whose creation was sampled."""

    def __init__(self, tracing: Tracing, players: PlayerNames) -> None:
        self._tracing = tracing
        self._players = players

    @contextmanager
    def of(self, schedule: Schedule, more: Attributes) -> Iterator[Span | None]:
        """Yield the span of a sending, None if it has none."""
        # One that is due at once is sent by the request that creates it.
        if schedule.trace is None and self._tracing.current() is None:
            yield None
            return
        kind, attributes = _recipient(schedule, self._players)
        attributes = {**operation("publish", "send"), **attributes, **more}
        attributes["streamer.schedule"] = schedule.id
        links = [] if schedule.trace is None else [schedule.trace]
        with self._tracing.doing(
            f"publish {kind}", Kind.PRODUCER, attributes, links=links, is_parent=False
        ) as span:
            yield span


class _TracedFiring(Firing):
    def __init__(
        self, sending: _Sending, redis: RedisConnection, settings: LogSettings
    ) -> None:
        super().__init__(redis, settings)
        self._sending = sending

    async def fire_each(
        self,
        schedules: Sequence[Schedule],
        *,
        traces: Mapping[str, TraceContext] | None = None,
    ) -> list[bool]:
        with ExitStack() as stack:
            spans = [stack.enter_context(self._sending.of(it, {})) for it in schedules]
            own = {
                schedule.id: span.context
                for schedule, span in zip(schedules, spans, strict=True)
                if span is not None and span.context is not None
            }
            fired = await super().fire_each(schedules, traces={**own, **(traces or {})})
            for span, was_first in zip(spans, fired, strict=True):
                if span is not None and not was_first:
                    span.discard()
        return fired


class _TracedRecipients(Recipients):
    def __init__(
        self, sending: _Sending, redis: RedisConnection, settings: LogSettings
    ) -> None:
        super().__init__(redis, settings)
        self._sending = sending

    async def deliver(
        self,
        schedule: Schedule,
        bucket: int,
        players: Sequence[Player],
        *,
        trace: TraceContext | None = None,
    ) -> int:
        count = {"messaging.batch.message_count": len(players)}
        with self._sending.of(schedule, count) as span:
            if span is not None:
                trace = trace or span.context
            served = await super().deliver(schedule, bucket, players, trace=trace)
            if span is not None and not served:
                span.discard()
        return served


def _recipient(schedule: Schedule, players: PlayerNames) -> tuple[str, dict[str, Any]]:
    """Return the kind of a schedule's recipients, and what names a single one."""
    if schedule.player is not None:
        log = Log(schedule.app, schedule.player)
        kind, attributes = destination([log], players)
        return kind, dict(attributes)
    kind = "campaign" if schedule.campaign else "players"
    return kind, {
        "streamer.app": schedule.app,
        "messaging.destination.template": kind,
    }
