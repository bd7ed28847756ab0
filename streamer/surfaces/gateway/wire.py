"""
The casino gateway's notification API as bytes: lists, marks, the frames of its stream.

Decides shapes, limits, statuses, and how one notification is written in the gateway's
words. Pure: no I/O, no services, no clock. The contract is the gateway's pages "Get
Notifications", "Mark Notifications as Read" and those of its event stream
(cgdocs.pages.dev, read 2026-11). Where they are silent, this is what holds:

`brand_id` is the app and the token's subject is the player. Both are integers where
they are decimal, without a leading zero and within 64 bits, and strings otherwise. Any
`version` is understood. Both prefixes, with and without ``/gateway``, take paths with
and without the player's id.

Only ``x-auth-token`` counts as a credential.

A list is newest first and has at most 1,000 notifications; older ones are not told of.
`total_count` is their number. `only_unread` is a boolean as Go reads it, empty is
false, anything else a 400. `time` is UTC. `event` is ``notification`` where there is no
type, and `event_details` is the data where that is an object, else an object with
`title`, `body` and `data`, as far as there are any.

`message_ids` is a list of strings and not empty. A string that is no id, or another
player's, is an unknown id and ignored; any number of ids is marked in one step, as far
as they fit the body's 256 KiB. An id that comes twice is marked once.

The stream begins where the log ends at that moment: what was missed is in the list.
``connected`` comes after the subscription exists, so nothing falls between. Frames are
``data:`` lines alone, and a comment with each keepalive; there is no ``id:``, since the
gateway does not resume. A read mark is no frame, as with the gateway. Where events were
lost, because the store has lost its tail, there is an error frame: whoever gets it
reads the list. So there is at the end of the token, before the stream ends; all other
ends are without a word, since clients come back by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ...errors import FieldError, Invalid
from ...model import Entry, Log, decode_fragment, iso_time
from ...store.logs.inbox import PageEntry

__all__ = [
    "BODY_BYTES_MAX",
    "IDS_MAX",
    "LIST_MAX",
    "MARKED",
    "Boolean",
    "GatewayList",
    "GatewayMarkBody",
    "GatewayMessage",
    "encode_connected",
    "encode_error",
    "encode_event",
    "encode_keepalive",
    "encode_list",
    "parse_only_unread",
]

BODY_BYTES_MAX: Final = 256 * 1024
LIST_MAX: Final = 1_000
"""A deliberate difference: the gateway's list has no limit but 90 days."""
IDS_MAX: Final = 10_000
"""Ids of one request; the body's limit comes first."""

UNTYPED: Final = "notification"
SUCCESS: Final = "Success"
INT_MAX: Final = 2**63 - 1

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
# Go's strconv.ParseBool; the gateway is written in it.
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("", "0", "f", "F", "FALSE", "false", "False"), False),
}
_encode: Final = msgspec.json.Encoder().encode

Boolean = Annotated[str, Meta(extra_json_schema={"enum": sorted(_BOOLEANS)})]

Id = int | str


class GatewayMarkBody(msgspec.Struct, frozen=True):
    """``PATCH …``: what was read."""

    message_ids: Annotated[list[str], Meta(min_length=1)]

    def ids(self) -> list[str]:
        return list(dict.fromkeys(self.message_ids))


def parse_only_unread(query: Mapping[str, str]) -> bool:
    """Return what the query says. Raises Invalid."""
    only_unread = _BOOLEANS.get(query.get("only_unread", ""))
    if only_unread is None:
        raise Invalid(FieldError(("query", "only_unread"), "must be true or false"))
    return only_unread


class GatewayNotification(msgspec.Struct, frozen=True):
    """A notification as a list has it."""

    message_id: str
    brand_id: Id
    player_id: Id
    event: str
    event_details: Any  # any JSON object
    is_read: bool
    time: str


class _EventData(msgspec.Struct, frozen=True):
    """The same as the stream has it, where its receivers are in the envelope."""

    message_id: str
    event: str
    event_details: Any  # any JSON object
    is_read: bool
    time: str


class _Envelope(msgspec.Struct, frozen=True):
    brand_id: Id
    player_id: Id
    event_type: str
    event_data: _EventData


class GatewayList(msgspec.Struct, frozen=True):
    notifications: list[GatewayNotification]
    total_count: int


class GatewayMessage(msgspec.Struct, frozen=True):
    message: str


class _Success(msgspec.Struct, frozen=True):
    status: str
    data: GatewayList | GatewayMessage


class _SignalFrame(msgspec.Struct, frozen=True):
    """A frame of the stream's own."""

    type: str
    timestamp: str


class _ErrorFrame(msgspec.Struct, frozen=True):
    type: str
    message: str


MARKED: Final = _encode(
    _Success(SUCCESS, GatewayMessage("notification was successfully updated"))
)
"""The answer to every mark that was made."""


def encode_list(log: Log, entries: Sequence[PageEntry]) -> bytes:
    """Return the answer to a list: `entries` of the inbox `log`."""
    brand_id, player_id = _id(log.app), _id(log.player)
    shown = []
    for found in entries:
        event, details = _event(found.entry)
        shown.append(
            GatewayNotification(
                message_id=found.entry.id,
                brand_id=brand_id,
                player_id=player_id,
                event=event,
                event_details=details,
                is_read=found.read_at_ms > 0,
                time=_time(found.entry.at_ms),
            )
        )
    return _encode(_Success(SUCCESS, GatewayList(shown, len(shown))))


def encode_event(log: Log, entry: Entry) -> bytes:
    """Return the frame of a notification for the player of `log`."""
    event, details = _event(entry)
    data = _EventData(entry.id, event, details, False, _time(entry.at_ms))
    return _data(_Envelope(_id(log.app), _id(log.player), "notification", data))


def encode_connected(at_ms: int) -> bytes:
    """Return the first frame."""
    return _data(_SignalFrame("connected", iso_time(at_ms)))


def encode_keepalive(at_ms: int) -> bytes:
    """Return a comment, for what is between, and a frame, for the client."""
    time = _time(at_ms)
    return b": keepalive %b\n%b" % (
        time.encode(),
        _data(_SignalFrame("keepalive", time)),
    )


def encode_error(message: str) -> bytes:
    """Return the frame that tells of trouble."""
    return _data(_ErrorFrame("error", message))


def _data(frame: msgspec.Struct) -> bytes:
    # One line: JSON escapes every control character.
    return b"data: %b\n\n" % _encode(frame)


def _event(entry: Entry) -> tuple[str, dict[str, Any]]:
    notification = decode_fragment(entry.fragment)
    event = notification.type or UNTYPED
    if isinstance(notification.data, dict):
        return event, notification.data
    details: dict[str, Any] = {}
    if notification.title is not None:
        details["title"] = notification.title
    if notification.body is not None:
        details["body"] = notification.body
    if notification.data is not msgspec.UNSET:
        details["data"] = notification.data
    return event, details


def _id(text: str) -> Id:
    if _DECIMAL.fullmatch(text) and int(text) <= INT_MAX:
        return int(text)
    return text


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d %H:%M:%S}"
