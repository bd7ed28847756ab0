"""
Messages, and the drafts of entries that they become.

Decides which members of a notification the store gets besides its JSON, and which
notifications are too large. Knows how entries are encoded. Knows nothing of callers or
requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from ...core.schedule import parse_time
from ...errors import FieldError, Invalid
from ...model import Log, Notification, encode_fragment, iso_time
from ...store.logs.inbox import Draft

__all__ = [
    "FRAGMENT_BYTES_MAX",
    "Device",
    "Message",
    "addressed_to",
    "draft_of",
    "drafts_of",
    "encode",
    "indexes_by_log",
    "with_expiry",
]

FRAGMENT_BYTES_MAX: Final = 524_288
"""A RallyHere notification may have 256 KiB of custom data; escaping can double it."""

Device = Literal["all", "latest"]


class Message(NamedTuple):
    """
    A notification and its recipients: the logs of players, or the log of one audience.

    It expires `ttl_ms` after the store's time at publishing; with 0, at its own
    `expires_at`. With `device` ``latest`` it is delivered live only to the device that
    a player used last.
    """

    logs: Sequence[Log]
    notification: Notification
    ttl_ms: int = 0
    device: Device = "all"


def addressed_to(log: Log, notification: Notification) -> Notification:
    """Return the notification with its audience set, if `log` is an audience's."""
    if not log.is_audience:
        return notification
    if log.topic is not None:
        return msgspec.structs.replace(notification, topic=log.topic)
    return msgspec.structs.replace(notification, everyone=True)


def with_expiry(
    notifications: Sequence[Notification], ttls_ms: Sequence[int], now_ms: int
) -> list[Notification]:
    """Return notifications with `expires_at` set where their TTL is not 0."""
    return [
        msgspec.structs.replace(notification, expires_at=iso_time(now_ms + ttl_ms))
        if ttl_ms
        else notification
        for notification, ttl_ms in zip(notifications, ttls_ms, strict=True)
    ]


def encode(notifications: Sequence[Notification]) -> list[bytes]:
    """Return notifications as fragments of JSON, as logs store them. Raises Invalid."""
    return [_encode(i, notification) for i, notification in enumerate(notifications)]


def _encode(i: int, notification: Notification) -> bytes:
    try:
        fragment = encode_fragment(notification)
    except (ValueError, TypeError, RecursionError, UnicodeError) as error:
        raise Invalid(FieldError(("body", i), f"cannot be encoded: {error}")) from error
    if len(fragment) > FRAGMENT_BYTES_MAX:
        problem = (
            f"must have at most {FRAGMENT_BYTES_MAX} bytes when encoded, "
            f"has {len(fragment)}"
        )
        raise Invalid(FieldError(("body", i), problem))
    return fragment


def draft_of(
    i: int, notification: Notification, fragment: bytes, device: Device = "all"
) -> Draft:
    """Return the draft of the `i`-th notification of a request. Raises Invalid."""
    expires_ms: int | None = 0
    if notification.expires_at is not None:
        expires_ms = parse_time(notification.expires_at)
    if expires_ms is None:
        raise Invalid(
            FieldError(("body", i, "expires_at"), "must be an ISO 8601 date and time")
        )
    return Draft(
        fragment,
        type=notification.type or "",
        expires_ms=expires_ms,
        collapse_key=notification.collapse_key or "",
        device=device,
    )


def indexes_by_log(messages: Sequence[Message]) -> dict[Log, Sequence[int]]:
    """Return, for each log, the indexes of its messages, ascending and distinct."""
    if len(messages) == 1:
        return dict.fromkeys(messages[0].logs, (0,))
    indexes: dict[Log, list[int]] = {}
    for i, message in enumerate(messages):
        for log in message.logs:
            of_log = indexes.setdefault(log, [])
            if not of_log or of_log[-1] != i:  # A message may name a log twice.
                of_log.append(i)
    return {**indexes}


def drafts_of(messages: Sequence[Message], *, now_ms: int | None = None) -> list[Draft]:
    """
    Return the drafts of messages.

    Without `now_ms`, messages with a TTL have no time of expiry yet.

    Raises:
        Invalid: A message cannot be encoded or is too large.

    """
    drafts = []
    for i, message in enumerate(messages):
        log, notification = message.logs[0], message.notification
        if log.is_audience:
            notification = addressed_to(log, notification)
        if message.ttl_ms and now_ms is not None:
            (notification,) = with_expiry([notification], [message.ttl_ms], now_ms)
        fragment = _encode(i, notification)
        drafts.append(draft_of(i, notification, fragment, message.device))
    return drafts
