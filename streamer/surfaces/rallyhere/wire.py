"""
The RallyHere notification API as bytes: parameters, bodies, responses.

Decides the types and limits of fields, and the form of a notification in RallyHere's
terms; `refusals` has the errors. Pure: no I/O, no services. The specification is the
page player_get_notifications_page of rallyhere.gg and its OpenAPI document (read
2026-11). Where both specify nothing, these rules apply:

Checks come in the order credential, player, right, parameters. So an unauthenticated
caller learns nothing, a client with an invalid id learns of that before rights, and a
caller that may not read an inbox learns nothing about its cursors.

Cursors and notification ids are interchangeable and name the position of an entry. An
empty one is absent. The ``cursor`` of a page is for ``start_at``: it names the next
older entry that was not returned. After the oldest entry, or after the end of the
window that ``exclude_before`` bounds, it is the position before every entry. A page
from there is always empty and has the same cursor; a long poll from there begins with
the oldest entry. A page compares times only, so a cursor whose entry no longer exists
still separates newer from older entries. A long poll resets by its strategy if entries
after its cursor are lost, or if the cursor belongs to another log.

A text that is not one of our cursors is an id that the log does not have, since the
vendor admits every string: a game that moves here still has the vendor's ids, and its
SDK repeats the last one until a poll succeeds. A long poll resets by its strategy, a
page reads as without the parameter.

The ETag of a page is a digest of its bytes and of the query, so that what the page does
not show, such as a read mark, leaves it unchanged. A tag without quotes is accepted.

A long poll ends when its credential expires, if that is before the deadline, and when
the node drains: with 200, no entries, and a cursor to continue from. The draining node
refuses the next poll with 503.

A batch is created atomically. Unknown members are ignored, as on RallyHere's server (a
FastAPI application). Null means absent for optional fields. The keys and values of
``custom_data`` have at most 256 KiB in total.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...contract.operation import TIME, integer
from ...contract.query_fields import QueryFields
from ...core.streams.cursor import Cursor
from ...core.streams.subscription import Start
from ...errors import FieldError, Invalid
from ...model import (
    ZERO,
    Entry,
    Notification,
    Player,
    Position,
    Property,
    Resource,
    decode_fragment,
    iso_time,
    parse_player,
)
from ...service.inboxes.inbox import MergedPage

__all__ = [
    "BODY_BYTES_MAX",
    "DEADLINE",
    "MAX_PAGE_SIZE",
    "PAGE_SIZE",
    "CreatedResponse",
    "NotificationCreates",
    "PageQuery",
    "PollQuery",
    "RallyHereNotification",
    "RallyHerePage",
    "encode_created",
    "encode_notification",
    "encode_page",
    "encode_poll",
    "parse_player_id",
]

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""A hundred messages of 4,096 characters of four bytes each, with their data."""

NOTIFICATIONS_MAX: Final = 100
TEXT_CHARS_MAX: Final = 4_096
CUSTOM_DATA_BYTES_MAX: Final = 256 * 1024

PAGE_SIZE: Final = integer(
    "page_size", "Maximum number of notifications.", default=10, least=1, most=100
)
MAX_PAGE_SIZE: Final = integer(
    "max_page_size", "Maximum number of notifications.", default=10, least=1, most=100
)
DEADLINE: Final = integer(
    "deadline", "Seconds to wait at most.", default=30, least=0, most=900
)

SOURCE: Final = "rallyhere"

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_encode: Final = msgspec.json.Encoder().encode


def parse_player_id(text: str) -> Player:
    """
    Return the player of a path.

    Raises:
        Invalid: It is neither a UUID nor a ULID. The code is ``bad_id``.

    """
    player = parse_player(text)
    # `parse_player` returns a ULID as a UUID, and any other name unchanged.
    if player is None or not _UUID.fullmatch(player):
        raise Invalid(FieldError(("path", "player_uuid"), "must be a UUID or a ULID"))
    return player


class PageQuery(NamedTuple):
    """The parsed parameters of a page."""

    page_size: int
    start_at: Cursor | None
    exclude_before: Cursor | None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> PageQuery:
        """Parse a query. Raises Invalid with every problem."""
        fields = _PollFields(query)
        parsed = cls(
            page_size=fields.int(PAGE_SIZE),
            start_at=fields.cursor("start_at"),
            exclude_before=fields.cursor("exclude_before"),
        )
        fields.done()
        return parsed

    def etag(self, body: bytes) -> str:
        """Return the ETag of this page with the response `body`."""
        digest = hashlib.sha256(repr(self).encode())
        digest.update(body)
        return f'"{digest.hexdigest()[:32]}"'


class PollQuery(NamedTuple):
    """The parsed parameters of a long poll."""

    max_page_size: int
    exclude_before: Cursor | None
    reset_to: Start
    deadline_s: int

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> PollQuery:
        """Parse a query. Raises Invalid with every problem."""
        fields = _PollFields(query)
        parsed = cls(
            max_page_size=fields.int(MAX_PAGE_SIZE),
            exclude_before=fields.cursor("exclude_before"),
            reset_to=fields.start("offset_reset_strategy"),
            deadline_s=fields.int(DEADLINE),
        )
        fields.done()
        return parsed

    @property
    def start(self) -> Cursor | Start:
        """The position after which the poll starts."""
        return self.exclude_before or self.reset_to


class _PollFields(QueryFields):
    def cursor(self, name: str) -> Cursor | None:
        """Return a cursor, None if it is absent or not one of ours."""
        return Cursor.parse(self.query.get(name, ""))

    def start(self, name: str) -> Start:
        text = self.query.get(name, Start.LATEST.value)
        try:
            return Start(text)
        except ValueError:
            self.note(name, "must be latest or earliest")
            return Start.LATEST


_Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]


# Its values are checked one by one, since msgspec does not name the key of a wrong one.
_CustomData = Annotated[
    dict[str, Any],
    Meta(extra_json_schema={"additionalProperties": msgspec.json.schema(_Text)}),
]


# Unknown members are ignored, see above.
class NotificationCreate(msgspec.Struct, frozen=True):
    """A notification as in requests."""

    message: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
    rh_url: _Text | None = None
    custom_data: _CustomData | None = None
    etag: Annotated[str, Meta(min_length=1)] | None = None

    def notification(self) -> Notification:
        resource = None
        if self.rh_url is not None or self.etag is not None:
            resource = Resource(self.rh_url or "", self.etag)
        properties = (self.custom_data or {}).items()
        return Notification(
            body=self.message,
            properties=tuple(Property(key, value) for key, value in properties),
            resource=resource,
            source=SOURCE,
        )

    def problems(self, i: int) -> Iterator[FieldError]:
        """Yield what is wrong with the custom data of the `i`-th notification."""
        place = ("body", "notifications", i, "custom_data")
        size = 0
        for key, value in (self.custom_data or {}).items():
            try:
                text = msgspec.convert(value, _Text)
            except msgspec.ValidationError as error:
                yield FieldError((*place, key), str(error))
            else:
                size += len(key.encode()) + len(text.encode())
        if size > CUSTOM_DATA_BYTES_MAX:
            yield FieldError(
                place, f"has {size} bytes, the limit is {CUSTOM_DATA_BYTES_MAX}"
            )


class NotificationCreates(msgspec.Struct, frozen=True):
    """A batch of notifications to create."""

    items: Annotated[
        list[NotificationCreate], Meta(min_length=1, max_length=NOTIFICATIONS_MAX)
    ] = msgspec.field(name="notifications")

    def notifications(self) -> list[Notification]:
        """
        Return the notifications to publish, in order.

        Raises:
            Invalid: Some have invalid custom data, or too much. Lists all of them.

        """
        problems = [p for i, item in enumerate(self.items) for p in item.problems(i)]
        if problems:
            raise Invalid(*problems)
        return [item.notification() for item in self.items]


class RallyHereNotification(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True
):
    """A notification as in responses, with the page's order of fields."""

    message: str
    rh_url: str | UnsetType = UNSET
    custom_data: dict[str, str]
    etag: str | UnsetType = UNSET
    notification_id: str
    created: Annotated[str, TIME]


class CreatedResponse(msgspec.Struct, frozen=True):
    """The id of the last notification of a created batch."""

    notification_id: str


class RallyHerePage(msgspec.Struct, frozen=True):
    """A page, or the result of a long poll."""

    notifications: list[RallyHereNotification]
    cursor: str


def encode_notification(entry: Entry) -> bytes:
    """Return one notification."""
    return _encode(_shown(entry))


def encode_page(page: MergedPage) -> bytes:
    """Return a page. Its cursor names the next older entry."""
    # The position before every entry, present and future: nothing is older.
    cursor = Cursor(page.following or ZERO)
    return _encode_many([page_entry.entry for page_entry in page.entries or ()], cursor)


def encode_poll(entries: Sequence[Entry], cursor: Cursor) -> bytes:
    """Return the result of a long poll. The next poll starts after `cursor`."""
    return _encode_many(entries, cursor)


def encode_created(positions: Sequence[Position | None]) -> bytes:
    """Return the response to a batch whose notifications are at `positions`."""
    stored = [position.id for position in positions if position is not None]
    # RallyHere has no mutes, and its response always has an id.
    return _encode(CreatedResponse(stored[-1] if stored else _NO_ID))


def _encode_many(entries: Sequence[Entry], cursor: Cursor) -> bytes:
    page = RallyHerePage([_shown(entry) for entry in entries], cursor.text)
    return _encode(page)


def _shown(entry: Entry) -> RallyHereNotification:
    notification = decode_fragment(entry.fragment)
    resource = notification.resource
    return RallyHereNotification(
        message=_cut(_message(notification)),
        rh_url=_cut(resource.url) if resource and resource.url else UNSET,
        custom_data=_custom_data(notification),
        etag=resource.etag if resource and resource.etag else UNSET,
        notification_id=entry.id,
        created=iso_time(entry.at_ms),
    )


def _message(notification: Notification) -> str:
    if notification.body is not None:
        return notification.body
    return notification.title or notification.type or ""


def _custom_data(notification: Notification) -> dict[str, str]:
    # A property with the same name takes precedence: the sender wrote it for this map.
    pairs = {
        "type": notification.type,
        "title": notification.title,
        **{item.key: item.value for item in notification.properties},
    }
    return {key: _cut(value) for key, value in pairs.items() if value}


def _cut(text: str) -> str:
    if len(text) <= TEXT_CHARS_MAX:
        return text
    return f"{text[: TEXT_CHARS_MAX - 1]}…"
