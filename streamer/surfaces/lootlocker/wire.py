"""
LootLocker's notification API as bytes: requests, lists, the response to a send.

Decides the types and limits of fields, and the form of a notification in LootLocker's
terms; `refusals` has the errors. Pure: no I/O, no services. The specification is the
page "Send Notification to Player" of the Server API (ref.lootlocker.com, read 2026-11)
and, for the game's side, LootLocker's own SDKs. Where both specify nothing, these rules
apply:

Sending. The path works with and without its last slash. `content` is required and may
be null, which is a value. `properties` is required and may be empty; a missing member
of an item is an empty string. `emergency` is refused, as on the page. The type has no
digits, as on the page, although an SDK allows them. Unknown members are ignored. Only
the body's 256 KiB limit the size of the content and the number of properties. Content
has at most 64 levels, integers of up to 4,300 digits, and other numbers in the range of
a double; its integers are kept digit for digit. Every ULID names a player; a new player
has an inbox from the first notification on. An ``Idempotency-Key`` is optional.

The context of a notification has one entry per key, with the value of the last property
of that key: LootLocker's Unity SDK puts the entries into a dictionary that accepts no
key twice, and a second one would fail the whole list. An absent key is "".

Lists are newest first, and have read and unread notifications unless `read` is set.
`player_id` is a ULID if the player's name is a UUID or ULID, otherwise the name. The
`id` of a notification is the ULID of the 128 bits that other surfaces show as a UUID;
marking accepts both forms. An unread notification has no `read_at`: LootLocker's Unity
SDK stores it as a time that cannot be null. `expiration_date` is when the notification
expires, or when the entry leaves the inbox because of its age, whichever is earlier.
`custom` is true and `source` is ``lootlocker.server_api`` for every notification,
whichever surface it was sent on, since the game's own backend sends all of them, and
LootLocker none. So another `source`, or ``custom=false``, matches nothing. An invalid
`priority`, `read` or `custom` is a 400.

Pages are numbered from 1. A page has 20 notifications by default and at most 100. An
invalid `page` or `per_page` is reported in `pagination.errors` of a successful
response, and replaced by the nearest valid value. A page after the last one is empty;
its `prev_page` is the last one.

Marking ignores unknown ids, and an empty list marks nothing; both are a 204.

A server session lives for 24 hours after it was created or last pinged, and ends at
once with its key. A backend key may be used instead of a session. The body of ``POST
/server/session`` is ignored. A header accepts only its own kind of credential: a
player's token is not a server session, and a key is not a player's session.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ...contract.operation import TIME
from ...contract.query_fields import QueryFields
from ...core.json_limits import problem_with
from ...core.schedule import parse_time
from ...errors import FieldError, Invalid
from ...model import (
    Notification,
    Player,
    Priority,
    Property,
    decode_fragment,
    iso_time,
    parse_player,
)
from ...service.inboxes.numbered import FragmentFilter, NumberedPage
from ...store.logs.inbox import PageEntry

__all__ = [
    "BODY_BYTES_MAX",
    "IDS_MAX",
    "LootLockerListQuery",
    "LootLockerListResponse",
    "LootLockerMarkBody",
    "LootLockerSendBody",
    "encode_list",
    "encode_pong",
    "encode_session",
    "encode_ulid",
]

BODY_BYTES_MAX: Final = 256 * 1024
IDS_MAX: Final = 10_000
"""Ids per request. The limit on the body is reached earlier."""

PER_PAGE: Final = 20
PER_PAGE_MAX: Final = 100
PAGE_DIGITS_MAX: Final = 9

SOURCE: Final = "lootlocker"
SHOWN_SOURCE: Final = "lootlocker.server_api"
UNTYPED: Final = "custom.notification.received"
PRIORITIES: Final = ("low", "medium", "high", "emergency")
SENDABLE: Final = PRIORITIES[:3]

TYPE_PATTERN: Final = r"\A[a-z_-]+\.[a-z_-]+\.[a-z_-]+\Z"
ULID_PATTERN: Final = r"\A[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}\Z"

_TYPE: Final = re.compile(TYPE_PATTERN)
_ULID: Final = re.compile(ULID_PATTERN)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_encode: Final = msgspec.json.Encoder().encode


def encode_ulid(text: str) -> str:
    """Return a UUID as the ULID of the same 128 bits, any other text unchanged."""
    if not _UUID.fullmatch(text):
        return text
    number = uuid.UUID(text).int
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


class LootLockerProperty(msgspec.Struct, frozen=True):
    key: str = ""
    value: str = ""


def _documented(**schema: Any) -> Meta:
    """Return the schema of a field that `LootLockerSendBody.checked` checks."""
    return Meta(extra_json_schema=schema)


class LootLockerSendBody(msgspec.Struct, frozen=True):
    """``POST /server/notifications/v1``."""

    notification_type: Annotated[str, _documented(pattern=TYPE_PATTERN)]
    priority: Annotated[str, _documented(enum=SENDABLE)]
    recipient: Annotated[str, _documented(pattern=ULID_PATTERN)]
    content: Any  # any JSON value, null among them
    properties: list[LootLockerProperty]

    def checked(self) -> tuple[Player, Notification]:
        """
        Return the recipient and the notification to publish.

        Raises:
            Invalid: Some fields are invalid. Lists all of them.

        """
        problems = []
        if not _TYPE.fullmatch(self.notification_type):
            problem = "must be three groups of a-z, '_' and '-', separated by dots"
            problems.append(FieldError(("body", "notification_type"), problem))
        if self.priority not in SENDABLE:
            problem = f"must be one of {', '.join(SENDABLE)}"
            problems.append(FieldError(("body", "priority"), problem))
        player = parse_player(self.recipient)
        if player is None or not _ULID.fullmatch(self.recipient):
            problems.append(FieldError(("body", "recipient"), "must be a ULID"))
        if unfit := problem_with(self.content, any_integer=True):
            problems.append(FieldError(("body", "content"), unfit))
        if problems or player is None:
            raise Invalid(*problems)
        return player, self._notification()

    def _notification(self) -> Notification:
        return Notification(
            type=self.notification_type,
            data=self.content,
            properties=tuple(
                Property(item.key, item.value) for item in self.properties
            ),
            priority=msgspec.convert(self.priority, Priority),
            source=SOURCE,
        )


class LootLockerMarkBody(msgspec.Struct, frozen=True):
    """``PUT /game/notifications/v1/read``."""

    notifications: list[str]

    def ids(self) -> list[str]:
        """Return ids as on other surfaces. A text that is not an id is unchanged."""
        return [_uuid_of(text) for text in dict.fromkeys(self.notifications)]


def _uuid_of(text: str) -> str:
    return parse_player(text) or text if _ULID.fullmatch(text) else text


class PageError(msgspec.Struct, frozen=True):
    """The problem of an invalid paging parameter."""

    field: str
    message: str


class LootLockerListQuery(NamedTuple):
    """The parsed parameters of a list."""

    page: int
    per_page: int
    errors: list[PageError]
    read: bool | None
    type: str | None
    priority: str | None
    source: str | None
    custom: bool | None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> LootLockerListQuery:
        """Parse a query. Raises Invalid with every problem but those of paging."""
        fields = _ListFields(query)
        parsed = cls(
            page=fields.number("page", 1, 10**PAGE_DIGITS_MAX - 1),
            per_page=fields.number("per_page", PER_PAGE, PER_PAGE_MAX),
            errors=fields.errors,
            read=fields.flag("read"),
            type=query.get("notification_type") or None,
            priority=fields.priority("priority"),
            source=query.get("source") or None,
            custom=fields.flag("custom"),
        )
        fields.done()
        return parsed

    @property
    def offset(self) -> int:
        """The number of entries on the pages before this one."""
        return (self.page - 1) * self.per_page

    @property
    def is_empty(self) -> bool:
        """Whether no notification can match."""
        return self.custom is False or self.source not in (None, SHOWN_SOURCE)

    def matches(self) -> FragmentFilter | None:
        """Return the filter by type and priority, None without one."""
        if self.type is None and self.priority is None:
            return None

        def matches(fragment: bytes) -> bool:
            kind = _decode_kind(b"{" + fragment)
            return self.type in (None, kind.type or UNTYPED) and self.priority in (
                None,
                kind.priority,
            )

        return matches


class _ListFields(QueryFields):
    """
    The fields of a list's query.

    `errors` has the problems of paging parameters, which the response reports.
    """

    def __init__(self, query: Mapping[str, str]) -> None:
        super().__init__(query)
        self.errors: list[PageError] = []

    def number(self, name: str, default: int, most: int) -> int:
        text = self.query.get(name)
        if not text:
            return default
        # `isdecimal` also accepts digits of other scripts, which int() would read.
        if not (text.isascii() and text.isdecimal()):
            self.errors.append(PageError(name, "must be a number"))
            return default
        number = int(text[:20])
        if not 1 <= number <= most:
            self.errors.append(PageError(name, f"must be from 1 to {most}"))
        return max(1, min(number, most))

    def flag(self, name: str) -> bool | None:
        text = self.query.get(name, "").lower()
        if text not in ("", "true", "false"):
            self.note(name, "must be true or false")
        return {"true": True, "false": False}.get(text)

    def priority(self, name: str) -> str | None:
        text = self.query.get(name) or None
        if text not in (None, *PRIORITIES):
            self.note(name, f"must be one of {', '.join(PRIORITIES)}")
        return text


class _Kind(msgspec.Struct, frozen=True):
    """The fields that filters compare. The rest of a fragment is not decoded."""

    type: str | None = None
    priority: str = "medium"


_decode_kind: Final = msgspec.json.Decoder(_Kind).decode


class Content(msgspec.Struct, frozen=True):
    context: tuple[Property, ...]
    body: Any  # any JSON value


class LootLockerNotification(msgspec.Struct, frozen=True):
    """A notification as LootLocker's SDKs parse it."""

    id: str
    player_id: str
    notification_type: str
    priority: str
    source: str
    content: Content
    custom: bool
    read: bool
    created_at: Annotated[str, TIME]
    expiration_date: Annotated[str, TIME]
    read_at: Annotated[str, TIME] | UnsetType = UNSET


class LootLockerPagination(msgspec.Struct, frozen=True):
    total: int
    offset: int
    per_page: int
    last_page: int
    current_page: int
    next_page: int | None
    prev_page: int | None
    errors: list[PageError]


class LootLockerListResponse(msgspec.Struct, frozen=True):
    notifications: list[LootLockerNotification]
    pagination: LootLockerPagination


def encode_list(
    listed: NumberedPage,
    player: Player,
    query: LootLockerListQuery,
    *,
    retention_ms: int,
) -> bytes:
    """Return a page. Entries leave the inbox at the age `retention_ms`."""
    notifications = [
        _notification_of(page_entry, player, retention_ms)
        for page_entry in listed.entries
    ]
    return _encode(
        LootLockerListResponse(notifications, _pagination(listed.total, query))
    )


def encode_session(token: str) -> bytes:
    """Return the response to a new session."""
    return _encode({"token": token})


def encode_pong(at_ms: int) -> bytes:
    """Return the response to a ping: the time of the server."""
    return _encode({"pong": iso_time(at_ms)})


def _pagination(total: int, query: LootLockerListQuery) -> LootLockerPagination:
    last = max(1, -(-total // query.per_page))
    return LootLockerPagination(
        total=total,
        offset=query.offset,
        per_page=query.per_page,
        last_page=last,
        current_page=query.page,
        next_page=query.page + 1 if query.page < last else None,
        prev_page=min(query.page - 1, last) if query.page > 1 else None,
        errors=query.errors,
    )


def _notification_of(
    page_entry: PageEntry, player: Player, retention_ms: int
) -> LootLockerNotification:
    entry = page_entry.entry
    notification = decode_fragment(entry.fragment)
    return LootLockerNotification(
        id=encode_ulid(entry.id),
        player_id=encode_ulid(player),
        notification_type=notification.type or UNTYPED,
        priority=notification.priority,
        source=SHOWN_SOURCE,
        content=Content(_context(notification), _body(notification)),
        custom=True,
        read=page_entry.read_at_ms > 0,
        read_at=iso_time(page_entry.read_at_ms) if page_entry.read_at_ms else UNSET,
        created_at=iso_time(entry.at_ms),
        expiration_date=_expiration(notification, entry.at_ms + retention_ms),
    )


def _expiration(notification: Notification, leaves_ms: int) -> str:
    expires_ms = (
        parse_time(notification.expires_at) if notification.expires_at else None
    )
    return iso_time(leaves_ms if expires_ms is None else min(expires_ms, leaves_ms))


def _context(notification: Notification) -> tuple[Property, ...]:
    # See above: the SDK reads no list in which a key is repeated.
    return tuple({item.key: item for item in notification.properties}.values())


def _body(notification: Notification) -> Any:
    if notification.data is not msgspec.UNSET:
        return notification.data
    texts = {"title": notification.title, "body": notification.body}
    return {name: text for name, text in texts.items() if text is not None}
