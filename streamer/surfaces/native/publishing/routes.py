"""
The native surface's publishing: now, later, to whom listens, and taking it back.

Decides nothing but which service a path asks. Knows Starlette, the services, and the
wires.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....core.access.rights import Caller
from ....core.schedule import State
from ....errors import Invalid, TooLate
from ....model import Log, everyone_log, topic_log
from ....service.access.authenticator import Authenticator
from ....service.inboxes.receipts import Receipts
from ....service.node.in_flight import InFlight
from ....service.publishing.publisher import Publisher
from ....service.scheduling.schedules import Schedules
from ....transports.web.callers import Callers
from ....transports.web.requests import header_of, read_body
from ..common import names
from ..common.body_types import Shape
from ..common.endpoints import NO_CONTENT, body_of, json, limit_of, routing
from ..common.message_wire import Asked
from ..inboxes import wire as inbox_wire
from . import schedule_wire, wire

__all__ = ["NativePublishing"]

_MOVE: Final = Shape[schedule_wire.MoveBody](schedule_wire.MoveBody)


class NativePublishing:
    """Publishing on the native surface, and its routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        publisher: Publisher,
        schedules: Schedules,
        receipts: Receipts,
        in_flight: InFlight,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._publisher = publisher
        self._schedules = schedules
        self._receipts = receipts
        self._in_flight = in_flight

    def routes(self) -> list[BaseRoute]:
        route = routing(self._callers)
        to_topic = "/v1/topics/{topic:path}/notifications/{id}"
        to_everyone = "/v1/everyone/notifications/{id}"
        return [
            route("/v1/notifications", self.publish, "POST"),
            route(f"{to_topic}/receipt", self.receipt, "GET"),
            route(f"{to_everyone}/receipt", self.receipt, "GET"),
            route(to_topic, self.withdraw, "DELETE"),
            route(to_everyone, self.withdraw, "DELETE"),
            route("/v1/schedules", self.schedules, "GET"),
            route(
                "/v1/schedules/{id}",
                self.schedule,
                "GET",
                "PATCH",
                "DELETE",
            ),
        ]

    async def publish(self, request: Request, caller: Caller) -> Response:
        body = await read_body(request, wire.PUBLISH_BYTES_MAX)
        asked, many = wire.decode_publish(caller.app, body)
        key = header_of(request, b"idempotency-key", None)
        with self._in_flight.hold_for(caller.app):
            try:
                if many:
                    return await self._send(caller, asked, key, many=True)
                return await self._publish_one(caller, asked[0], key)
            except Invalid as error:
                raise error if many else wire.placed(error) from None

    async def withdraw(self, request: Request, caller: Caller) -> Response:
        audience = _audience(request, caller)
        await self._publisher.withdraw(caller, audience, request.path_params["id"])
        return Response(status_code=NO_CONTENT)

    async def receipt(self, request: Request, caller: Caller) -> Response:
        audience = _audience(request, caller)
        notification_id = request.path_params["id"]
        with self._in_flight.hold_for(caller.app):
            receipt = await self._receipts.of_audience(
                caller, audience, notification_id
            )
        return json(inbox_wire.encode_audience_receipt(notification_id, receipt))

    async def schedules(self, request: Request, caller: Caller) -> Response:
        limit = limit_of(request)
        after = schedule_wire.parse_after(request.query_params.get("after") or "0.")
        found = await self._schedules.page(caller, after=after, limit=limit + 1)
        shown, more = found[:limit], len(found) > limit
        return json(schedule_wire.encode_schedules(shown, more=more))

    async def schedule(self, request: Request, caller: Caller) -> Response:
        schedule_id = request.path_params["id"]
        if request.method == "DELETE":
            changed = await self._schedules.cancel(caller, schedule_id)
            # A second cancellation has nothing left to do, and is not refused for it.
            if changed.state is not State.CANCELLED:
                raise TooLate(changed.state.value)
        elif request.method == "PATCH":
            body = await body_of(request, _MOVE)
            changed = await self._schedules.move(caller, schedule_id, body.due_ms())
            if not changed.done:
                raise TooLate(changed.state.value)
        schedule = await self._schedules.get(caller, schedule_id)
        return json(schedule_wire.encode_schedule(schedule))

    async def _publish_one(
        self, caller: Caller, asked: Asked, key: str | None
    ) -> Response:
        if not asked.persist:
            sent_id = await self._publisher.flash(caller, asked.message)
            sent = [[(log, sent_id) for log in asked.message.logs]]
            return json(wire.encode_results(sent, many=False))
        if asked.is_for_later:
            return await self._schedule(caller, asked, key)
        return await self._send(caller, [asked], key, many=False)

    async def _send(
        self,
        caller: Caller,
        asked: Sequence[Asked],
        key: str | None,
        *,
        many: bool,
    ) -> Response:
        messages = [one.message for one in asked]
        sent = await self._publisher.send(caller, messages, idempotency_key=key)
        body = wire.encode_results(sent.places, many=many)
        return json(body, headers=_replayed(sent.replayed))

    async def _schedule(
        self, caller: Caller, asked: Asked, key: str | None
    ) -> Response:
        message = asked.message
        schedule, replayed = await self._schedules.schedule(
            caller,
            [log.name for log in message.logs],
            message.notification,
            due_ms=asked.due_ms or 0,
            ttl_ms=message.ttl_ms,
            spread_ms=asked.spread_ms,
            to_latest=message.device == "latest",
            idempotency_key=key,
        )
        body = b'{"schedule":%b}' % schedule_wire.encode_schedule(schedule)
        return json(body, status=202, headers=_replayed(replayed))


def _replayed(replayed: bool) -> dict[str, str] | None:
    return {"Idempotent-Replayed": "true"} if replayed else None


def _audience(request: Request, caller: Caller) -> Log:
    topic = request.path_params.get("topic")
    if topic is None:
        return everyone_log(caller.app)
    return topic_log(caller.app, names.topic_in_path(topic))
