"""
Inboxes as bytes: pages, marks and receipts.

Decides the types and limits of fields, and the filters of pages. Pure: no I/O, no
services.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.datastructures import QueryParams

from ....compiled.entries import join_entries
from ....core.streams.client_messages import MARK_IDS_MAX
from ....errors import FieldError, Invalid
from ....model import (
    CURSOR_CHARS_MAX,
    Log,
    Player,
    Priority,
    Topic,
    iso_time,
    parse_topic,
)
from ....service.inboxes.receipts import AudienceReceipt, Receipt
from ....service.inboxes.search import SearchPage
from ....store.logs.inbox import PageEntry
from ..common.body_types import refuse
from ..common.names import TYPE_CHARS_MAX, PlayerText, players_named

__all__ = [
    "FILTER_MAX",
    "PLAYERS_COUNTED_MAX",
    "AckBody",
    "Filter",
    "MarkBody",
    "MarkUnreadBody",
    "UnreadBody",
    "encode_audience_receipt",
    "encode_entry",
    "encode_page",
    "encode_receipt",
    "encode_unread",
    "read_filter",
    "read_order",
]

PLAYERS_COUNTED_MAX: Final = 1_000

FILTER_MAX: Final = 32
"""Maximum number of values of one filter."""

PRIORITIES: Final[frozenset[str]] = frozenset(get_args(Priority))

# A separator, or an escaped character.
_MARK: Final = re.compile(r"\\([\\,])|,")

_encode: Final = msgspec.json.Encoder().encode

_Ids = Annotated[list[str], Meta(max_length=MARK_IDS_MAX)]


class MarkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/read``: exactly one of the fields."""

    ids: _Ids | UnsetType = UNSET
    up_to: str | UnsetType = UNSET
    all: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        fields = self.ids, self.up_to, self.all
        count = sum(field is not UNSET for field in fields)
        if count != 1 or self.all is False:
            raise ValueError("requires exactly one of ids, up_to and all=true")


class MarkUnreadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/unread``."""

    ids: _Ids


class AckBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/ack``: the cursor up to which everything has arrived."""

    cursor: Annotated[str, Meta(max_length=CURSOR_CHARS_MAX)]


class UnreadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/unread``."""

    players: Annotated[
        list[PlayerText], Meta(min_length=1, max_length=PLAYERS_COUNTED_MAX)
    ]

    def named(self) -> list[Player]:
        """Return the players, normalised. Raises Invalid."""
        problems: list[FieldError] = []
        players = players_named(self.players, ("body", "players"), problems)
        refuse(problems)
        return players


class _FilterFields(msgspec.Struct, frozen=True):
    """The fields that filters compare."""

    type: str | None = None
    priority: str = "medium"
    topic: str | None = None


_decode_filter_fields: Final = msgspec.json.Decoder(_FilterFields).decode


class Filter(msgspec.Struct, frozen=True):
    """
    The filter of a page. Empty fields match every notification.

    A notification matches if it has one of `types` and one of `priorities`.
    """

    types: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()
    topic: Topic | None = None
    unread: bool = False

    def matches(self, page_entry: PageEntry) -> bool:
        if self.unread and page_entry.read_at_ms:
            return False
        if not (self.types or self.priorities or self.topic):
            return True
        fields = _decode_filter_fields(b"{" + page_entry.entry.fragment)
        return (
            (not self.types or fields.type in self.types)
            and (not self.priorities or fields.priority in self.priorities)
            and (self.topic is None or fields.topic == self.topic)
        )

    @property
    def matches_all(self) -> bool:
        return self == Filter()

    def etag_suffix(self, *, oldest_first: bool) -> str:
        """Return a suffix for ETags of pages of this filter, "" for plain pages."""
        if self.matches_all and not oldest_first:
            return ""
        return f"-{zlib.crc32(_encode([self, oldest_first])):x}"


def read_filter(query: QueryParams) -> Filter:
    """Return the filter of a page. Raises Invalid."""
    topic_text = query.get("topic")
    unread = query.get("unread")
    if unread not in (None, "true"):
        raise Invalid(FieldError(("query", "unread"), "must be true or absent"))
    priorities = _listed(query, "priority")
    if not PRIORITIES.issuperset(priorities):
        problem = f"must be one of {', '.join(get_args(Priority))}"
        raise Invalid(FieldError(("query", "priority"), problem))
    topic = None if topic_text is None else parse_topic(topic_text)
    if topic_text is not None and topic is None:
        raise Invalid(FieldError(("query", "topic"), "is not a topic"))
    return Filter(_listed(query, "type"), priorities, topic, unread is not None)


def read_order(query: QueryParams) -> bool:
    """Return whether the oldest come first on a page. Raises Invalid."""
    order = query.get("order", "newest")
    if order in ("newest", "oldest"):
        return order == "oldest"
    raise Invalid(FieldError(("query", "order"), "must be newest or oldest"))


def _split(text: str) -> list[str]:
    items, begin = [""], 0
    for mark in _MARK.finditer(text):
        items[-1] += text[begin : mark.start()] + (mark[1] or "")
        if mark[1] is None:
            items.append("")
        begin = mark.end()
    items[-1] += text[begin:]
    return items


def _listed(query: QueryParams, name: str) -> tuple[str, ...]:
    """
    Return the values of a parameter that is repeated or separated by commas.

    A comma within a value is written ``\\,``, and a backslash before one ``\\\\``.
    """
    items = [item for value in query.getlist(name) for item in _split(value)]
    if len(items) > FILTER_MAX:
        problem = f"has {len(items)} values, the limit is {FILTER_MAX}"
    elif not all(1 <= len(item) <= TYPE_CHARS_MAX for item in items):
        problem = f"must have 1 to {TYPE_CHARS_MAX} characters"
    else:
        return tuple(items)
    raise Invalid(FieldError(("query", name), problem))


def encode_entry(page_entry: PageEntry) -> bytes:
    """Return a notification as on pages, with the time of its read mark."""
    return join_entries([page_entry.row])


def encode_page(page: SearchPage) -> bytes:
    """Return a page."""
    gap = b""
    if page.gap is not None:
        gap = b',"gap":"%b"' % page.gap.value.encode()
    unreadable = b""
    if page.state.unreadable:
        names = [_address_of(log) for log in page.state.unreadable]
        unreadable = b',"unreadable":%b' % _encode(names)
    return b'{"notifications":[%b],"next":%b,"unread":%d,"cursor":"%b"%b%b}' % (
        join_entries([page_entry.row for page_entry in page.entries or ()]),
        _encode(page.next.text if page.next else None),
        page.state.unread,
        page.state.cursor.text.encode(),
        gap,
        unreadable,
    )


def _address_of(audience: Log) -> dict[str, Any]:
    """Return an audience as it is addressed in requests."""
    topic = audience.topic
    return {"everyone": True} if topic is None else {"topic": topic}


def encode_unread(players: Sequence[str], counts: Sequence[int]) -> bytes:
    """Return the unread count of each player, spelled as in the request."""
    counted = zip(players, counts, strict=True)
    return _encode({"unread": [{"player": p, "unread": n} for p, n in counted]})


def encode_receipt(notification_id: str, receipt: Receipt) -> bytes:
    """Return the receipt of a notification for one player."""
    state: str = receipt.ended or "stored"
    if not receipt.ended and receipt.read_at_ms:
        state = "read"
    elif not receipt.ended and receipt.acknowledged:
        state = "acknowledged"
    document = _receipt(notification_id, state, receipt)
    document["acknowledged"] = receipt.acknowledged
    if receipt.read_at_ms:
        document["read_at"] = iso_time(receipt.read_at_ms)
    return _encode(document)


def encode_audience_receipt(
    notification_id: str, of_audience: AudienceReceipt
) -> bytes:
    """Return the receipt of a notification to an audience."""
    receipt = of_audience.receipt
    document = _receipt(notification_id, receipt.ended or "stored", receipt)
    document["acknowledged"] = of_audience.acknowledged
    document["read"] = of_audience.read
    return _encode(document)


def _receipt(notification_id: str, state: str, receipt: Receipt) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": notification_id.lower(),
        "state": state,
        "stored_at": iso_time(receipt.stored_ms),
    }
    if receipt.expires_ms:
        document["expires_at"] = iso_time(receipt.expires_ms)
    return document
