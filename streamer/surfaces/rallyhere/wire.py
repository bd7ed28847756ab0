"""
The RallyHere notification API as bytes: parameters, bodies, answers.

Decides shapes, limits of fields, and how one notification is written in RallyHere's
words; `refusals` has the errors. Pure: no I/O, no services. The contract is the page
player_get_notifications_page of rallyhere.gg and its OpenAPI document (read 2026-11).
Where both are silent, this is what holds:

Checks come in the order credential, player, right, parameters. Who is nobody learns
nothing, a client with a wrong id is told of that and not of rights, and who may not
read an inbox cannot find out what its cursors look like.

Cursors and notification ids are accepted alike and mean the place of an entry; empty is
absent. The page's ``cursor`` feeds ``start_at``: it names the next older entry not yet
returned, and past the oldest, or past the end of the window that ``exclude_before``
cuts, the place in front of every entry. A page from there is empty for ever and has
the same cursor; a long poll from there begins with the oldest. A page finds its place
by time alone, so a cursor whose entry is gone still divides newer from older. A long
poll resets by its strategy when entries behind its cursor are gone for good, or the
cursor is another log's. Text that is no cursor at all is a 422 in both.

The ETag of a page covers the inbox and the query: the same entries under other
parameters are another page. A tag without quotes is understood too, since the page
calls it a plain string.

A long poll ends with its credential, if that is before the deadline, and when the
server goes away: with 200, no entries, and a cursor that goes on. The server that is
going away refuses the next one with 503.

Creating is atomic for the batch. Members that the page does not have are ignored, as
its server does (it is a FastAPI application); null is absence where a field is
optional. The keys and values of ``custom_data`` have 256 KiB at most in all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, NamedTuple

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
from ...service.inboxes.inbox import MergedPage, parse_cursor

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
"""A hundred messages of 4,096 characters of four bytes each, and data with them."""

NOTIFICATIONS_MAX: Final = 100
TEXT_CHARS_MAX: Final = 4_096
CUSTOM_DATA_BYTES_MAX: Final = 256 * 1024

PAGE_SIZE: Final = integer("page_size", "How many.", default=10, least=1, most=100)
MAX_PAGE_SIZE: Final = integer(
    "max_page_size", "How many.", default=10, least=1, most=100
)
DEADLINE: Final = integer("deadline", "Seconds.", default=30, least=0, most=900)

SOURCE: Final = "rallyhere"

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_encode: Final = msgspec.json.Encoder().encode


def parse_player_id(text: str) -> Player:
    """
    Return the player of a path.

    Raises:
        Invalid: It is neither a UUID nor a ULID, which is ``bad_id``.

    """
    player = parse_player(text)
    # A ULID comes out of it as the UUID it is; any other name as itself.
    if player is None or not _UUID.fullmatch(player):
        raise Invalid(FieldError(("path", "player_uuid"), "is no UUID and no ULID"))
    return player


class PageQuery(NamedTuple):
    """The parameters of a page, understood."""

    page_size: int
    start_at: Cursor | None
    exclude_before: Cursor | None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> PageQuery:
        """Raise Invalid with all that is wrong in `query`."""
        fields = _PollFields(query)
        parsed = cls(
            page_size=fields.int(PAGE_SIZE),
            start_at=fields.cursor("start_at"),
            exclude_before=fields.cursor("exclude_before"),
        )
        fields.done()
        return parsed

    @property
    def digest(self) -> str:
        """A name for these parameters, to be part of an ETag."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def etag(self, version: str) -> str:
        """Return the ETag of this page of an inbox at `version`."""
        return f'"{version}-{self.digest}"'

    def known_version(self, if_none_match: str) -> str:
        """
        Return the version of the inbox that the caller's page shows, if it is a page
        of these parameters, else "".
        """
        # One tag is what clients send; of a list nothing is known before it is read.
        tag = if_none_match.strip().removeprefix("W/").strip('"')
        version, _, digest = tag.rpartition("-")
        return version if digest == self.digest else ""


class PollQuery(NamedTuple):
    """The parameters of a long poll, understood."""

    max_page_size: int
    exclude_before: Cursor | None
    reset_to: Start
    deadline_s: int

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> PollQuery:
        """Raise Invalid with all that is wrong in `query`."""
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
    def place(self) -> Cursor | Start:
        """Where the caller is."""
        return self.exclude_before or self.reset_to


class _PollFields(QueryFields):
    def cursor(self, name: str) -> Cursor | None:
        text = self.query.get(name)
        if not text:
            return None
        try:
            return parse_cursor(text, "query", name)
        except Invalid as error:
            self.problems += error.errors
            return None

    def start(self, name: str) -> Start:
        text = self.query.get(name, Start.LATEST.value)
        try:
            return Start(text)
        except ValueError:
            self.note(name, "must be latest or earliest")
            return Start.LATEST


_Text = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]


# Unknown members are ignored here, see above.
class NotificationCreate(msgspec.Struct, frozen=True):
    """A notification as its sender writes it."""

    message: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)]
    rh_url: _Text | None = None
    custom_data: dict[str, _Text] | None = None
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

    @property
    def custom_data_bytes(self) -> int:
        pairs = (self.custom_data or {}).items()
        return sum(len(key.encode()) + len(value.encode()) for key, value in pairs)


class NotificationCreates(msgspec.Struct, frozen=True):
    """A batch of them."""

    items: Annotated[
        list[NotificationCreate], Meta(min_length=1, max_length=NOTIFICATIONS_MAX)
    ] = msgspec.field(name="notifications")

    def notifications(self) -> list[Notification]:
        """
        Return what is to be published, in order.

        Raises:
            Invalid: The custom data of some is too large; all of them are listed.

        """
        wrong = [
            FieldError(
                ("body", "notifications", i, "custom_data"),
                f"has {size} bytes, allowed {CUSTOM_DATA_BYTES_MAX}",
            )
            for i, item in enumerate(self.items)
            if (size := item.custom_data_bytes) > CUSTOM_DATA_BYTES_MAX
        ]
        if wrong:
            raise Invalid(*wrong)
        return [item.notification() for item in self.items]


class RallyHereNotification(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True
):
    """A notification as RallyHere's clients read it, in the page's order of fields."""

    message: str
    rh_url: str | UnsetType = UNSET
    custom_data: dict[str, str]
    etag: str | UnsetType = UNSET
    notification_id: str
    created: Annotated[str, TIME]


class CreatedResponse(msgspec.Struct, frozen=True):
    """The last of a batch that was created."""

    notification_id: str


class RallyHerePage(msgspec.Struct, frozen=True):
    """A page, or what a long poll found."""

    notifications: list[RallyHereNotification]
    cursor: str


def encode_notification(entry: Entry) -> bytes:
    """Return one notification."""
    return _encode(_shown(entry))


def encode_page(page: MergedPage) -> bytes:
    """Return a page; its cursor names the next older entry."""
    # In front of every entry that there is or will be: nothing is older than that.
    cursor = Cursor(page.following or ZERO)
    return _encode_many([found.entry for found in page.entries or ()], cursor)


def encode_poll(entries: Sequence[Entry], cursor: Cursor) -> bytes:
    """Return what a long poll found; its caller is at `cursor` after it."""
    return _encode_many(entries, cursor)


def encode_created(positions: Sequence[Position | None]) -> bytes:
    """Return the answer to a batch whose notifications stand at `positions`."""
    stored = [place.id for place in positions if place is not None]
    # RallyHere knows no player that has muted something; the answer has to have an id.
    return _encode(CreatedResponse(stored[-1] if stored else _NO_ID))


def _encode_many(entries: Sequence[Entry], cursor: Cursor) -> bytes:
    shown = RallyHerePage([_shown(entry) for entry in entries], cursor.text)
    return _encode(shown)


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
    # A property of the sender's that is called so wins: it is what the sender wrote
    # into this map, or would have.
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
