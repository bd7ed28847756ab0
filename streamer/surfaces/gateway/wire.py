"""
The casino gateway's notification API as bytes: lists, marks, frames of the stream.

Decides types, limits, and the form of a notification in the gateway's terms; `refusals`
has the errors. Pure: no I/O, no services, no clock. The specification is the gateway's
pages "Get Notifications", "Mark Notifications as Read" and those of its event stream
(cgdocs.pages.dev, read 2026-11). Where they specify nothing, these rules apply:

`brand_id` is the app, and the subject of the token is the player. Both are integers if
they are decimal, have no leading zero and fit 64 bits, otherwise strings. Any `version`
is accepted. Paths exist with and without the prefix ``/gateway``, and with and without
the player's id.

Only ``x-auth-token`` counts as a credential. The gateway has no permissions; here a
token that may read its player's inbox may mark it, too.

A list is newest first and has at most 1,000 notifications; older ones are omitted.
`total_count` is the number of listed notifications. `only_unread` is a boolean in Go's
syntax; empty is false, anything else a 400. `time` is UTC. `event` is ``notification``
if there is no type. `event_details` is the data if that is an object, otherwise an
object with `title`, `body` and `data`, as far as they are present.

`message_ids` is a list of strings and not empty. A string that is not an id, or the id
of another player, is unknown and ignored. One step marks any number of ids that fit the
body's 256 KiB. A repeated id is marked once.

The stream begins at the end of the log: earlier notifications are in the list.
``connected`` is sent after the subscription exists, so nothing falls in between. Frames
are ``data:`` lines only, with a comment before each keepalive. There is no ``id:``,
since the gateway does not resume. A read mark has no frame, as on the gateway. If
events are lost because the store lost its tail, an error frame tells the client to read
the list. When the token expires, an error frame precedes the end of the stream. Streams
that end for other reasons have no such frame, since clients reconnect by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ...errors import FieldError, Invalid
from ...model import App, Entry, Log, decode_fragment, iso_time
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
"""A deliberate difference: the gateway's list has no limit except 90 days."""
IDS_MAX: Final = 10_000
"""Ids per request. The limit on the body is reached earlier."""

UNTYPED: Final = "notification"
SUCCESS: Final = "Success"
INT_MAX: Final = 2**63 - 1

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
# The syntax of Go's strconv.ParseBool; the gateway is written in Go.
_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("", "0", "f", "F", "FALSE", "false", "False"), False),
}
_encode: Final = msgspec.json.Encoder().encode

Boolean = Annotated[str, Meta(extra_json_schema={"enum": sorted(_BOOLEANS)})]

Id = int | str


class GatewayMarkBody(msgspec.Struct, frozen=True):
    """``PATCH …``: the notifications to mark as read."""

    message_ids: Annotated[list[str], Meta(min_length=1)]

    def ids(self) -> list[str]:
        return list(dict.fromkeys(self.message_ids))


def parse_only_unread(query: Mapping[str, str]) -> bool:
    """Return the value of the query parameter. Raises Invalid."""
    only_unread = _BOOLEANS.get(query.get("only_unread", ""))
    if only_unread is None:
        raise Invalid(FieldError(("query", "only_unread"), "must be true or false"))
    return only_unread


class GatewayNotification(msgspec.Struct, frozen=True):
    """A notification as in lists."""

    message_id: str
    brand_id: Id
    player_id: Id
    event: str
    event_details: Any  # any JSON object
    is_read: bool
    time: str


class _EventData(msgspec.Struct, frozen=True):
    """A notification as in the stream, where the envelope has brand and player."""

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
    """A frame about the stream itself."""

    type: str
    timestamp: str


class _ErrorFrame(msgspec.Struct, frozen=True):
    type: str
    message: str


MARKED: Final = _encode(
    _Success(SUCCESS, GatewayMessage("notification was successfully updated"))
)
"""The response to every successful mark."""


def encode_list(brand: App, player: str, entries: Sequence[PageEntry]) -> bytes:
    """Return a list of `entries` of the inbox of `player`, as the caller spells it."""
    brand_id, player_id = _id(brand), _id(player)
    notifications = []
    for page_entry in entries:
        event, details = _event(page_entry.entry)
        notifications.append(
            GatewayNotification(
                message_id=page_entry.entry.id,
                brand_id=brand_id,
                player_id=player_id,
                event=event,
                event_details=details,
                is_read=page_entry.read_at_ms > 0,
                time=_time(page_entry.entry.at_ms),
            )
        )
    return _encode(_Success(SUCCESS, GatewayList(notifications, len(notifications))))


def encode_event(log: Log, entry: Entry) -> bytes:
    """Return the frame of a notification to the player of `log`."""
    event, details = _event(entry)
    data = _EventData(entry.id, event, details, False, _time(entry.at_ms))
    return _data(_Envelope(_id(log.app), _id(log.player), "notification", data))


def encode_connected(at_ms: int) -> bytes:
    """Return the first frame of a stream."""
    return _data(_SignalFrame("connected", iso_time(at_ms)))


def encode_keepalive(at_ms: int) -> bytes:
    """Return a comment, for proxies, and a frame, for the client."""
    time = _time(at_ms)
    return b": keepalive %b\n%b" % (
        time.encode(),
        _data(_SignalFrame("keepalive", time)),
    )


def encode_error(message: str) -> bytes:
    """Return an error frame."""
    return _data(_ErrorFrame("error", message))


def _data(frame: msgspec.Struct) -> bytes:
    # A single line, since JSON escapes every control character.
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
