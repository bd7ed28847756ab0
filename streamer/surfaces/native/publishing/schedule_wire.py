"""
Schedules as bytes: requests, responses, and positions in their list.

Decides the types of fields, and the format of a position in the list. Pure: no I/O, no
services.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from ....contract.operation import TIME
from ....core.schedule import Schedule, ScheduleState, to_ms
from ....errors import FieldError, Invalid
from ....model import Log, iso_time
from .message_body import recipient_of

__all__ = ["MoveBody", "encode_schedule", "encode_schedules", "parse_after"]

_encode: Final = msgspec.json.Encoder().encode


class MoveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PATCH /v1/schedules/{id}``."""

    send_at: Annotated[datetime, TIME]

    def due_ms(self) -> int:
        """Return the new time. Raises Invalid if it has no time zone."""
        if self.send_at.tzinfo is not None:
            return to_ms(self.send_at)
        problem = "requires a time zone, as in 2026-11-20T18:00:00Z"
        raise Invalid(FieldError(("body", "send_at"), problem))


def encode_schedule(schedule: Schedule) -> bytes:
    """Return a schedule as in responses."""
    document: dict[str, Any] = {
        "id": schedule.id,
        "state": schedule.state.value,
        "send_at": iso_time(schedule.due_ms),
        "created_at": iso_time(schedule.created_ms),
        "total": schedule.total,
        "delivered": schedule.delivered,
        "late": schedule.is_late,
        "notification": msgspec.Raw(b"{" + schedule.fragment),
    }
    if schedule.state is ScheduleState.PAUSED:
        document["paused_at"] = iso_time(schedule.paused_ms)
    if schedule.settled_ms:
        document["settled_at"] = iso_time(schedule.settled_ms)
    if schedule.spread_ms:
        document["spread_s"] = schedule.spread_ms // 1000
    if schedule.player is not None:
        log = Log(schedule.app, schedule.player)
        document["to"] = schedule.spelling or recipient_of(log)
    if schedule.campaign:
        document["campaign"] = schedule.campaign
    return _encode(document)


def encode_schedules(schedules: Sequence[Schedule], *, more: bool) -> bytes:
    """Return a page of schedules. With `more`, further schedules follow it."""
    last = schedules[-1] if more else None
    return b'{"schedules":[%b],"next":%b}' % (
        b",".join(map(encode_schedule, schedules)),
        _encode(f"{last.created_ms}.{last.id}" if last else None),
    )


def parse_after(text: str) -> tuple[int, str]:
    """Return the position of a ``next``. Raises Invalid."""
    created, _, schedule_id = text.partition(".")
    if created.isascii() and created.isdecimal() and len(text) <= 64:
        return int(created), schedule_id
    raise Invalid(
        FieldError(("query", "after"), "is not the next of a page of schedules")
    )
