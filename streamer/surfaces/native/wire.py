"""
The native REST surface as bytes: requests, answers, problems.

Decides shapes, limits of fields and status codes. Pure: no I/O, no services.

Errors are problem documents (RFC 9457). `type` is a word of ours behind ``about:`` that
never changes its meaning; `detail` is for people; `errors` lists every field that is
wrong, each with a JSON pointer (RFC 6901) into the body, or the name of a header,
parameter or path segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.responses import Response

from ... import errors
from ...core.schedule import Schedule
from ...core.values import problem_with
from ...errors import Error, FieldError, Invalid
from ...model import (
    Notification,
    Player,
    Position,
    Priority,
    Property,
    Resource,
    encode_cursor,
    encode_id,
    iso_time,
    parse_player,
)
from ...service.publisher import Published
from ...service.schedules import RECIPIENTS_MAX, SPREAD_MAX_MS
from ...store.inbox import Page, PageEntry

__all__ = [
    "MARK_BYTES_MAX",
    "PUBLISH_BYTES_MAX",
    "MarkBody",
    "MoveBody",
    "PublishBody",
    "encode_entry",
    "encode_page",
    "encode_published",
    "encode_schedule",
    "encode_schedules",
    "parse_after",
    "problem",
]

PUBLISH_BYTES_MAX: Final = 2 * 1024 * 1024
MARK_BYTES_MAX: Final = 256 * 1024
DATA_BYTES_MAX: Final = 64 * 1024

SOURCE: Final = "native"

_encode: Final = msgspec.json.Encoder().encode
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_Url = Annotated[str, Meta(min_length=1, max_length=4096)]


class ResourceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: _Url
    etag: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None


class PropertyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(max_length=256)]
    value: Annotated[str, Meta(max_length=4096)]


class Recipients(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom a message is for."""

    players: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=128)]],
        Meta(min_length=1, max_length=RECIPIENTS_MAX),
    ]


class PublishBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """``POST /v1/notifications``: one message to players."""

    to: Recipients
    type: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    title: Annotated[str, Meta(max_length=1_000)] | None = None
    body: Annotated[str, Meta(max_length=4_096)] | None = None
    data: Any | UnsetType = UNSET  # any JSON value
    properties: Annotated[list[PropertyBody], Meta(max_length=64)] = []
    priority: Priority = "medium"
    resource: ResourceBody | None = None
    send_at: datetime | None = None
    """When to send it, with a time zone; absent or past means at once."""
    spread_s: Annotated[int, Meta(ge=0, le=SPREAD_MAX_MS // 1000)] = 0
    """Seconds over which a large audience is served."""

    def due_ms(self) -> int | None:
        """
        Return when it is to be sent, None for at once.

        Raises:
            Invalid: The time has no zone.

        """
        if self.send_at is None:
            return None
        return to_ms(self.send_at, "send_at")

    def players(self) -> list[Player]:
        """
        Return the recipients, normalised.

        Raises:
            Invalid: Some are no player names; all of them are listed.

        """
        players, wrong = [], []
        for i, text in enumerate(self.to.players):
            player = parse_player(text)
            if player is None:
                where = ("body", "to", "players", i)
                wrong.append(FieldError(where, "is not a player name"))
            else:
                players.append(player)
        if wrong:
            raise Invalid(*wrong)
        return players

    def notification(self) -> Notification:
        """
        Return what is to be published.

        Raises:
            Invalid: It says nothing, or `data` is not acceptable.

        """
        if self.data is not UNSET:
            _check_data(self.data)
        elif self.type is None and self.title is None and self.body is None:
            problem = "needs at least one of type, title, body and data"
            raise Invalid(FieldError(("body",), problem))
        resource = self.resource
        return Notification(
            type=self.type,
            title=self.title,
            body=self.body,
            data=self.data,
            properties=tuple(Property(p.key, p.value) for p in self.properties),
            priority=self.priority,
            resource=Resource(resource.url, resource.etag) if resource else None,
            source=SOURCE,
        )


class MoveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PATCH /v1/schedules/{id}``."""

    send_at: datetime

    def due_ms(self) -> int:
        """Return the new time. Raises Invalid if it has no zone."""
        return to_ms(self.send_at, "send_at")


class MarkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/read``: exactly one of the three."""

    ids: Annotated[list[str], Meta(max_length=1_000)] | UnsetType = UNSET
    up_to: str | UnsetType = UNSET
    all: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        given = [
            field for field in (self.ids, self.up_to, self.all) if field is not UNSET
        ]
        if len(given) != 1 or self.all is False:
            raise ValueError(
                "needs exactly one of ids, up_to and all, which must be true"
            )


def _check_data(data: Any) -> None:
    problem = problem_with(data)
    if problem is None:
        size = len(_encode(data))
        if size <= DATA_BYTES_MAX:
            return
        problem = f"has {size} bytes of JSON, allowed {DATA_BYTES_MAX}"
    raise Invalid(FieldError(("body", "data"), problem))


def encode_published(published: Published) -> bytes:
    """Return the answer to a publish: an id per recipient, in the request's order."""
    return _encode(
        {
            "results": [
                {"to": player, "id": _id(positions[0])}
                for player, positions in published.positions
            ]
        }
    )


def encode_schedule(schedule: Schedule) -> bytes:
    """Return a schedule as the native surface shows it."""
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
    if schedule.settled_ms:
        document["settled_at"] = iso_time(schedule.settled_ms)
    if schedule.spread_ms:
        document["spread_s"] = schedule.spread_ms // 1000
    if schedule.player is not None:
        document["to"] = schedule.player
    if schedule.campaign:
        document["campaign"] = schedule.campaign
    return _encode(document)


def encode_schedules(schedules: Sequence[Schedule], *, more: bool) -> bytes:
    """Return a page of schedules; with `more`, others follow the last of them."""
    last = schedules[-1] if more else None
    return b'{"schedules":[%b],"next":%b}' % (
        b",".join(map(encode_schedule, schedules)),
        _encode(f"{last.created_ms}.{last.id}" if last else None),
    )


def parse_after(text: str) -> tuple[int, str]:
    """Return the place that ``next`` named. Raises Invalid."""
    created, _, schedule_id = text.partition(".")
    if created.isascii() and created.isdecimal() and len(text) <= 64:
        return int(created), schedule_id
    raise Invalid(FieldError(("query", "after"), "is not a place in the schedules"))


def to_ms(when: datetime, field: str) -> int:
    """Return a time as ms of Unix time. Raises Invalid if it has no zone."""
    if when.tzinfo is None:
        problem = "needs a time zone, as in 2026-11-20T18:00:00Z"
        raise Invalid(FieldError(("body", field), problem))
    # Arithmetic rather than timestamp(): exact, and the same beyond 2038 everywhere.
    return (when - _EPOCH) // timedelta(milliseconds=1)


def encode_entry(found: PageEntry) -> bytes:
    """Return a notification as pages show it: with the time of its read mark."""
    text = found.entry.json
    if not found.read_at_ms:
        return text
    return b'%b,"read_at":"%b"}' % (text[:-1], iso_time(found.read_at_ms).encode())


def encode_page(page: Page) -> bytes:
    """Return a page; `next` is where the next older one begins, if there is one."""
    entries = page.entries or []
    next_ = encode_cursor(entries[-1].entry.position) if page.following else None
    return b'{"notifications":[%b],"next":%b,"unread":%d,"cursor":"%b"}' % (
        b",".join(map(encode_entry, entries)),
        _encode(next_),
        page.unread,
        encode_cursor(page.head).encode(),
    )


def _id(position: Position) -> str:
    return encode_id(position.at_ms, position.offset, position.tag)


_LIMIT_STATUS: Final = {
    errors.Limit.LISTENERS_PER_PLAYER: 409,
    errors.Limit.REQUESTS_PER_PLAYER: 409,
}


def problem(error: Error) -> Response:
    """Return the problem document that tells of an error."""
    headers: dict[str, str] = {}
    members: dict[str, Any] = {}
    match error:
        case errors.Malformed():
            status, kind = 400, "malformed"
        case errors.Unsupported():
            status, kind = 415, "unsupported-media"
        case Invalid(errors=fields):
            status = 422 if fields[0].where[0] == "body" else 400
            kind = "invalid"
            members["errors"] = [_field(field) for field in fields]
        case errors.Unauthenticated(defect=defect):
            status, kind = 401, "unauthenticated"
            headers["WWW-Authenticate"] = "Bearer"
            members["defect"] = defect.name.lower()
        case errors.Forbidden():
            status, kind = 403, "forbidden"
        case errors.NotFound():
            status, kind = 404, "not-found"
        case errors.Conflict():
            status, kind = 422, "idempotency-key-reuse"
        case errors.TooLate():
            status, kind = 409, "too-late"
        case errors.TooLarge():
            status, kind = 413, "too-large"
        case errors.Refused(limit=limit, retry_after_s=retry_after_s):
            status, kind = _LIMIT_STATUS.get(limit, 503), "limit-reached"
            members["limit"] = limit.name.lower()
            headers["Retry-After"] = str(retry_after_s)
        case errors.Unavailable(retry_after_s=retry_after_s):
            status, kind = 503, _UNAVAILABLE[type(error)]
            headers["Retry-After"] = str(retry_after_s)
        case _:
            raise AssertionError(f"{error!r} has no place in the table of problems")
    return problem_response(status, kind, str(error), headers=headers, **members)


_UNAVAILABLE: Final[dict[type[Error], str]] = {
    errors.StoreAway: "store-away",
    errors.IssuerAway: "issuer-away",
    errors.OutcomeUnknown: "outcome-unknown",
    errors.Draining: "draining",
}


def problem_response(
    status: int,
    kind: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> Response:
    """Return a problem document with further members."""
    document = {
        "type": f"about:{kind}",
        "title": kind.replace("-", " "),
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(
        _encode(document),
        status,
        headers=headers,
        media_type="application/problem+json",
    )


def _field(error: FieldError) -> dict[str, str]:
    root, *path = error.where
    if root == "body":
        # RFC 6901, section 3: "~" and "/" are escaped.
        steps = (str(s).replace("~", "~0").replace("/", "~1") for s in path)
        return {"pointer": "".join(f"/{s}" for s in steps), "problem": error.problem}
    return {str(root): ".".join(map(str, path)), "problem": error.problem}
