"""
Operations of a game's backend: publish, schedule, withdraw, ask for receipts.

Knows the paths and bodies. A publish has an idempotency key from its first attempt on,
so it is safe to repeat.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from .http import Http, decode, quote
from .model import (
    Audience,
    AudienceReceipt,
    Message,
    Property,
    Resource,
    Schedule,
    SchedulePage,
    Sent,
    To,
)

__all__ = ["Publishing"]


class _PublishResponse(msgspec.Struct, frozen=True):
    results: tuple[Sent, ...]


class _ScheduleResponse(msgspec.Struct, frozen=True):
    schedule: Schedule


class _ScheduledMessage(Message, frozen=True, omit_defaults=True, kw_only=True):
    send_at: datetime
    spread_s: int = 0


class _Move(msgspec.Struct, frozen=True):
    send_at: datetime


class _Players(msgspec.Struct, frozen=True):
    players: tuple[str, ...]


class Publishing:
    """
    Publishing and what belongs to it; needs a backend key.

    Every method raises `Rejected` if the server refuses the request, and `Unavailable`
    if there was no usable response.
    """

    _http: Http

    async def publish(
        self,
        to: To,
        *,
        type: str | None = None,
        title: str | None = None,
        body: str | None = None,
        data: Any = msgspec.UNSET,  # any JSON value; None is JSON's null
        properties: Mapping[str, str] | Sequence[Property] = (),
        priority: str | None = None,
        resource: Resource | None = None,
        ttl_s: int | None = None,
        expires_at: datetime | None = None,
        collapse_key: str | None = None,
        device: str = "all",
        persist: bool = True,
        idempotency_key: str | None = None,
    ) -> tuple[Sent, ...]:
        """
        Publish one notification to up to 1,000 players or to an audience.

        The fields are those of `Message`. Returns a result for each recipient, in the
        order of `to`. All attempts of this call use the same idempotency key, so it has
        one effect. If your process may end in between, pass a key of your own (1 to 255
        ASCII characters) and repeat the call with it within 24 hours. A notification
        that is not to `persist` has one attempt.

        The publish is atomic per player.

        Raises:
            Rejected: The request is not allowed or is wrong; nothing was stored.
            Unavailable: The outcome is unknown. Repeat with its `idempotency_key`.
        """
        message = Message(
            to=to,
            type=type,
            title=title,
            body=body,
            data=data,
            properties=properties,
            priority=priority or "medium",
            resource=resource,
            ttl_s=ttl_s,
            expires_at=expires_at,
            collapse_key=collapse_key,
            device=device,
            persist=persist,
        )
        response = await self._http.request(
            "POST",
            "notifications",
            content=_to_wire(message),
            idempotency_key=_key(idempotency_key) if persist else None,
            repeatable=persist,
        )
        return decode(response, _PublishResponse).results

    async def publish_many(
        self, messages: Sequence[Message], *, idempotency_key: str | None = None
    ) -> tuple[tuple[Sent, ...], ...]:
        """
        Publish up to 1,000 messages, with up to 1,000 recipients together, in order.

        Returns for each message what `publish` returns, and raises as `publish` does.
        """
        response = await self._http.request(
            "POST",
            "notifications",
            content=[_to_wire(message) for message in messages],
            idempotency_key=_key(idempotency_key),
        )
        responses = decode(response, tuple[_PublishResponse, ...])
        return tuple(one.results for one in responses)

    async def schedule(
        self,
        message: Message,
        send_at: datetime,
        *,
        spread_s: int = 0,
        idempotency_key: str | None = None,
    ) -> Schedule:
        """
        Schedule `message` for `send_at`, to up to 100,000 players or to an audience.

        `send_at` has a time zone and is up to 30 days ahead; a past time means now.
        `spread_s` (0 to 14,400) is the number of seconds over which a large audience is
        served. Raises as `publish` does.
        """
        fields = {name: getattr(message, name) for name in message.__struct_fields__}
        scheduled = _ScheduledMessage(**fields, send_at=send_at, spread_s=spread_s)
        response = await self._http.request(
            "POST",
            "notifications",
            content=_to_wire(scheduled),
            idempotency_key=_key(idempotency_key),
        )
        return decode(response, _ScheduleResponse).schedule

    async def schedules(
        self, *, limit: int | None = None, after: str | None = None
    ) -> SchedulePage:
        """Return a page of schedules, oldest first; `limit` is 1 to 100."""
        params = {"limit": limit, "after": after}
        response = await self._http.request("GET", "schedules", params=params)
        return decode(response, SchedulePage)

    async def get_schedule(self, id: str) -> Schedule:
        """Return a schedule. Raises `Rejected` with status 404 if it is unknown."""
        return decode(
            await self._http.request("GET", f"schedules/{quote(id)}"), Schedule
        )

    async def move_schedule(self, id: str, send_at: datetime) -> Schedule:
        """
        Move a schedule to another time.

        Raises:
            Rejected: With status 409 if it has begun.
        """
        response = await self._http.request(
            "PATCH", f"schedules/{quote(id)}", content=_Move(send_at)
        )
        return decode(response, Schedule)

    async def cancel_schedule(self, id: str) -> Schedule:
        """
        Cancel a schedule. Idempotent.

        Raises:
            Rejected: With status 409 if it has begun.
        """
        response = await self._http.request("DELETE", f"schedules/{quote(id)}")
        return decode(response, Schedule)

    async def withdraw(self, id: str, audience: Audience) -> None:
        """
        Withdraw a notification from an audience, for all players. Idempotent.

        `Client.delete` deletes a notification to one player.

        Raises:
            Rejected: With status 404 if the audience never had it.
        """
        await self._http.request("DELETE", f"{_audience_path(audience)}/{quote(id)}")

    async def audience_receipt(self, id: str, audience: Audience) -> AudienceReceipt:
        """
        Return the state of a notification to an audience, for all players together.

        Raises:
            Rejected: With status 404 if the audience does not have it, or no longer.
        """
        path = f"{_audience_path(audience)}/{quote(id)}/receipt"
        return decode(await self._http.request("GET", path), AudienceReceipt)


def _audience_path(audience: Audience) -> str:
    if audience.topic is None:
        return "everyone/notifications"
    return f"topics/{quote(audience.topic, slashes=True)}/notifications"


def _key(idempotency_key: str | None) -> str:
    return idempotency_key if idempotency_key is not None else str(uuid.uuid4())


def _to_wire(message: Message) -> Message:
    """Return `message` in the form of the protocol, without shorthands."""
    to, properties = message.to, message.properties
    if isinstance(properties, Mapping):
        properties = [Property(key, value) for key, value in properties.items()]
    return msgspec.structs.replace(
        message,
        to=to if isinstance(to, Audience) else _players(to),
        properties=tuple(properties),
    )


def _players(to: str | Sequence[str]) -> _Players:
    return _Players((to,) if isinstance(to, str) else tuple(to))
