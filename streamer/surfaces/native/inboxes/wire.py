"""
Inboxes as bytes: pages, marks and receipts.

Decides shapes and limits of fields, and by what a page can be filtered. Pure: no I/O,
no services.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.datastructures import QueryParams

from ....compiled.entries import join_entries
from ....core.streams.client_messages import MARK_IDS_MAX
from ....errors import FieldError, Invalid
from ....model import CURSOR_CHARS_MAX, Player, Priority, Topic, iso_time, parse_topic
from ....service.inboxes.receipts import AudienceReceipt, Receipt
from ....service.inboxes.search import SearchPage
from ....store.logs.inbox import PageEntry
from ..common.names import TYPE_CHARS_MAX, PlayerText

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
"""Values of one parameter that a page can be filtered by."""

PRIORITIES: Final[frozenset[str]] = frozenset(get_args(Priority))

_encode: Final = msgspec.json.Encoder().encode

_Ids = Annotated[list[str], Meta(max_length=MARK_IDS_MAX)]


class MarkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/read``: exactly one of the three."""

    ids: _Ids | UnsetType = UNSET
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


class MarkUnreadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/unread``."""

    ids: _Ids


class AckBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST …/ack``: everything up to there has arrived."""

    cursor: Annotated[str, Meta(max_length=CURSOR_CHARS_MAX)]


class UnreadBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/unread``."""

    players: Annotated[
        list[PlayerText], Meta(min_length=1, max_length=PLAYERS_COUNTED_MAX)
    ]


class _Facts(msgspec.Struct, frozen=True):
    """What a filter goes by."""

    type: str | None = None
    priority: str = "medium"
    topic: str | None = None


_decode_facts: Final = msgspec.json.Decoder(_Facts).decode


class Filter(msgspec.Struct, frozen=True):
    """
    What the notifications of a page have to be; what is empty is not looked at.

    Of `types` and `priorities` they have to have one each.
    """

    types: tuple[str, ...] = ()
    priorities: tuple[str, ...] = ()
    topic: Topic | None = None
    unread: bool = False

    def matches(self, found: PageEntry) -> bool:
        if self.unread and found.read_at_ms:
            return False
        if not (self.types or self.priorities or self.topic):
            return True
        facts = _decode_facts(b"{" + found.entry.fragment)
        return (
            (not self.types or facts.type in self.types)
            and (not self.priorities or facts.priority in self.priorities)
            and (self.topic is None or facts.topic == self.topic)
        )

    @property
    def lets_all_pass(self) -> bool:
        return self == Filter()

    def mark(self, *, oldest_first: bool) -> str:
        """Return what tells pages of this filter from others, "" for plain ones."""
        if self.lets_all_pass and not oldest_first:
            return ""
        return f"-{zlib.crc32(_encode([self, oldest_first])):x}"


def read_filter(query: QueryParams) -> Filter:
    """Return what a page is filtered by. Raises Invalid."""
    topic = query.get("topic")
    unread = query.get("unread")
    if unread not in (None, "true"):
        raise Invalid(FieldError(("query", "unread"), "must be true, or left out"))
    priorities = _listed(query, "priority")
    if not PRIORITIES.issuperset(priorities):
        problem = f"must be of {', '.join(get_args(Priority))}"
        raise Invalid(FieldError(("query", "priority"), problem))
    named = None if topic is None else parse_topic(topic)
    if topic is not None and named is None:
        raise Invalid(FieldError(("query", "topic"), "is not a topic"))
    return Filter(_listed(query, "type"), priorities, named, unread is not None)


def read_order(query: QueryParams) -> bool:
    """Return whether a page is to be oldest first. Raises Invalid."""
    order = query.get("order", "newest")
    if order in ("newest", "oldest"):
        return order == "oldest"
    raise Invalid(FieldError(("query", "order"), "must be newest or oldest"))


def _listed(query: QueryParams, name: str) -> tuple[str, ...]:
    """Return the items of a parameter that comes often, or is a list with commas."""
    items = [item for value in query.getlist(name) for item in value.split(",")]
    if len(items) > FILTER_MAX:
        problem = f"has {len(items)} items, allowed {FILTER_MAX}"
    elif not all(1 <= len(item) <= TYPE_CHARS_MAX for item in items):
        problem = f"must have 1 to {TYPE_CHARS_MAX} characters"
    else:
        return tuple(items)
    raise Invalid(FieldError(("query", name), problem))


def encode_entry(found: PageEntry) -> bytes:
    """Return a notification as pages show it: with the time of its read mark."""
    return join_entries([found.row])


def encode_page(page: SearchPage) -> bytes:
    """Return a page; `next` is where the next one goes on, if there is one."""
    gap = b""
    if page.gap is not None:
        gap = b',"gap":"%b"' % page.gap.value.encode()
    return b'{"notifications":[%b],"next":%b,"unread":%d,"cursor":"%b"%b}' % (
        join_entries([found.row for found in page.entries or ()]),
        _encode(page.next.text if page.next else None),
        page.state.unread,
        page.state.cursor.text.encode(),
        gap,
    )


def encode_unread(players: Sequence[Player], counts: Sequence[int]) -> bytes:
    """Return how many notifications each player has not read."""
    counted = zip(players, counts, strict=True)
    return _encode({"unread": [{"player": p, "unread": n} for p, n in counted]})


def encode_receipt(notification_id: str, receipt: Receipt) -> bytes:
    """Return what became of a notification for one player."""
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


def encode_audience_receipt(notification_id: str, found: AudienceReceipt) -> bytes:
    """Return what became of a notification for an audience: for how many players."""
    receipt = found.receipt
    document = _receipt(notification_id, receipt.ended or "stored", receipt)
    document["acknowledged"] = found.acknowledged
    document["read"] = found.read
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
