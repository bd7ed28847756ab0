"""
One message of a publish request: its fields and its recipients.

Decides the types and limits of fields, which of them exclude each other, and how the
services receive the message. A message that is not stored cannot have fields about
storing. Pure: no I/O, no services.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ....contract.operation import TIME
from ....core.json_limits import problem_with
from ....core.schedule import to_ms
from ....errors import FieldError
from ....model import (
    App,
    Log,
    Notification,
    Priority,
    Property,
    Resource,
    everyone_log,
    iso_time,
    topic_log,
)
from ....service.publishing.drafts import Device, Message
from ....service.publishing.publisher import PLAYERS_MAX
from ....service.scheduling.schedules import RECIPIENTS_MAX, SPREAD_MAX_MS
from ..common.body_types import Where
from ..common.names import (
    TYPE_CHARS_MAX,
    PlayerText,
    TopicText,
    players_named,
    topic_named,
)

__all__ = ["PublishBody", "PublishRequest", "RecipientsBody", "recipient_of"]

DATA_BYTES_MAX: Final = 64 * 1024
TTL_MAX_S: Final = 365 * 86_400
TIME_MAX_MS: Final = 253_402_300_799_999
"""The end of the year 9999 in UTC, the last year of RFC 3339."""

SOURCE: Final = "native"

_encode: Final = msgspec.json.Encoder().encode

_Url = Annotated[str, Meta(min_length=1, max_length=4096)]
_Time = Annotated[datetime, TIME]

_STORED_ONLY: Final = (
    "ttl_s",
    "expires_at",
    "collapse_key",
    "device",
    "send_at",
    "spread_s",
)


Recipient = str | dict[str, Any]
"""A recipient in requests and responses: a player, or an audience as an object."""


class ResourceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: _Url
    etag: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None


class PropertyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(max_length=256)]
    value: Annotated[str, Meta(max_length=4096)]


class RecipientsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The recipients of a message: exactly one of the fields."""

    players: (
        Annotated[list[PlayerText], Meta(min_length=1, max_length=RECIPIENTS_MAX)]
        | UnsetType
    ) = UNSET
    topic: TopicText | UnsetType = UNSET
    everyone: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        count = (
            (self.players is not UNSET)
            + (self.topic is not UNSET)
            + (self.everyone is not UNSET)
        )
        if count != 1 or self.everyone is False:
            raise ValueError("requires exactly one of players, topic and everyone=true")


class PublishRequest(NamedTuple):
    """
    A message in the form that the services take.

    `to` has the recipients as responses repeat them, in the order of the message's logs
    and spelled as in the request. `due_ms` is the time to send it, None to send it at
    once. Without `persist` it reaches only streams that are open now.
    """

    message: Message
    to: Sequence[Recipient]
    due_ms: int | None
    spread_ms: int
    persist: bool

    @property
    def is_for_later(self) -> bool:
        """Whether the message becomes a schedule."""
        many = len(self.message.logs) > PLAYERS_MAX
        return many or self.due_ms is not None or self.spread_ms > 0


class PublishBody(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """One message of ``POST /v1/notifications``."""

    to: RecipientsBody
    type: Annotated[str, Meta(min_length=1, max_length=TYPE_CHARS_MAX)] | None = None
    title: Annotated[str, Meta(max_length=1_000)] | None = None
    body: Annotated[str, Meta(max_length=4_096)] | None = None
    data: Any | UnsetType = UNSET  # any JSON value
    properties: Annotated[list[PropertyBody], Meta(max_length=64)] = []
    priority: Priority = "medium"
    resource: ResourceBody | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=TTL_MAX_S)] | None = None
    """Lifetime in seconds from the time of sending; excludes ``expires_at``."""
    expires_at: _Time | None = None
    """Time at which it expires, with a time zone."""
    collapse_key: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """It replaces the previous notification with the same key."""
    device: Device = "all"
    """Whether it is pushed only to the device that the player used last."""
    persist: bool = True
    """Whether it is stored; if not, it reaches only streams that are open now."""
    send_at: _Time | None = None
    """Time to send it, with a time zone; absent or past sends it at once."""
    spread_s: Annotated[int, Meta(ge=0, le=SPREAD_MAX_MS // 1000)] = 0
    """Seconds over which to spread the deliveries."""

    def read(
        self, app: App, where: Where, problems: list[FieldError]
    ) -> PublishRequest:
        """
        Return the message; add its problems to `problems`.

        With problems, the result must not be used.
        """
        if self._may_contradict_itself:
            problems += self._contradictions(where)
        due_ms = expires_ms = None
        if self.send_at is not None:
            due_ms = _time(self.send_at, (*where, "send_at"), problems)
        if self.expires_at is not None:
            expires_ms = _time(self.expires_at, (*where, "expires_at"), problems)
        if self.data is not UNSET and (problem := _problem_with_data(self.data)):
            problems.append(FieldError((*where, "data"), problem))
        resource = self.resource
        notification = Notification(
            type=self.type,
            title=self.title,
            body=self.body,
            data=self.data,
            properties=tuple([Property(p.key, p.value) for p in self.properties]),
            priority=self.priority,
            resource=Resource(resource.url, resource.etag) if resource else None,
            source=SOURCE,
            expires_at=None if expires_ms is None else iso_time(expires_ms),
            collapse_key=self.collapse_key,
        )
        ttl_ms = 1000 * (self.ttl_s or 0)
        logs, to = self._recipients(app, where, problems)
        message = Message(logs, notification, ttl_ms, self.device)
        return PublishRequest(message, to, due_ms, 1000 * self.spread_s, self.persist)

    def changed_fields(self, names: Sequence[str]) -> list[str]:
        """Return those of the fields `names` that do not have their default."""
        # None of these fields has null as a value.
        defaults = {"device": "all", "spread_s": 0}
        return [name for name in names if getattr(self, name) != defaults.get(name)]

    def _recipients(
        self, app: App, where: Where, problems: list[FieldError]
    ) -> tuple[list[Log], Sequence[Recipient]]:
        """Return the logs of the recipients, and how responses name them."""
        texts = self.to.players
        if texts is not UNSET:
            players = players_named(texts, (*where, "to", "players"), problems)
            return [Log(app, player) for player in players], texts
        log = everyone_log(app)
        if self.to.topic is not UNSET:
            log = topic_log(app, topic_named(self.to.topic))
        return [log], [recipient_of(log)]

    @property
    def _may_contradict_itself(self) -> bool:
        # In a list of hundreds, nearly all messages are plain.
        is_plain = self.persist and self.ttl_s is None and self.device == "all"
        return not is_plain or (self.title is None and self.body is None)

    def _contradictions(self, where: Where) -> Iterator[FieldError]:
        texts = self.type, self.title, self.body
        if self.data is UNSET and all(text is None for text in texts):
            problem = "requires at least one of type, title, body and data"
            yield FieldError(where, problem)
        if self.ttl_s is not None and self.expires_at is not None:
            yield FieldError((*where, "ttl_s"), "cannot be combined with expires_at")
        to_players = self.to.players is not UNSET
        if self.device == "latest" and not to_players:
            yield FieldError(
                (*where, "device"), "latest requires recipients in players"
            )
        if self.persist:
            return
        for name in self.changed_fields(_STORED_ONLY):
            yield FieldError((*where, name), "cannot be combined with persist=false")
        if to_players and len(self.to.players or ()) > PLAYERS_MAX:
            problem = f"must be at most {PLAYERS_MAX} with persist=false"
            yield FieldError((*where, "to", "players"), problem)


def recipient_of(log: Log) -> Recipient:
    """Return a recipient as in responses: a player, or an audience as in ``to``."""
    if not log.is_audience:
        return log.player
    return {"everyone": True} if log.topic is None else {"topic": log.topic}


def _time(when: datetime, where: Where, problems: list[FieldError]) -> int | None:
    """Return a time as Unix time in ms, None if it is invalid."""
    if when.tzinfo is None:
        problem = "requires a time zone, as in 2026-11-20T18:00:00Z"
        problems.append(FieldError(where, problem))
        return None
    at_ms = to_ms(when)
    if at_ms > TIME_MAX_MS:
        problems.append(FieldError(where, "must be before the year 10000"))
        return None
    return max(at_ms, 0)


def _problem_with_data(data: Any) -> str | None:  # any JSON value
    if problem := problem_with(data):
        return problem
    size = len(_encode(data))
    if size <= DATA_BYTES_MAX:
        return None
    return f"has {size} bytes of JSON, the limit is {DATA_BYTES_MAX}"
