"""
The native surface's publishing: messages, withdrawals, receipts, schedules.

Decides only which service an operation calls. Knows Starlette, the services, and the
wires.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.responses import json_response, no_content
from ....core.access.rights import Caller
from ....core.schedule import ScheduleState
from ....errors import Invalid, TooLate
from ....model import Log, everyone_log, topic_log
from ....service.access.authenticator import Authenticator
from ....service.inboxes.receipts import ReceiptOperations
from ....service.node.in_flight import InFlight
from ....service.publishing.publisher import Publisher
from ....service.scheduling.schedules import Schedules
from ....transports.web.callers import Callers
from ....transports.web.requests import read_body, single_header_of
from ..common import names
from ..common.endpoints import endpoints
from ..common.parameters import LIMIT, read_purge, read_reason
from ..inboxes.wire import encode_audience_receipt
from . import contract, schedule_wire, wire
from .message_body import PublishRequest

__all__ = ["NativePublishing"]


class NativePublishing:
    """Publishing on the native surface, with its routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        publisher: Publisher,
        schedules: Schedules,
        receipts: ReceiptOperations,
        in_flight: InFlight,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._publisher = publisher
        self._schedules = schedules
        self._receipts = receipts
        self._in_flight = in_flight

    def routes(self) -> list[BaseRoute]:
        return endpoints(self._callers).bind(
            (contract.PUBLISH, self.publish),
            (contract.TOPIC_RECEIPT, self.receipt),
            (contract.EVERYONE_RECEIPT, self.receipt),
            (contract.WITHDRAW_FROM_TOPIC, self.withdraw),
            (contract.WITHDRAW_FROM_EVERYONE, self.withdraw),
            (contract.SCHEDULES, self.schedules),
            (contract.SCHEDULE, self.schedule),
            (contract.MOVE_SCHEDULE, self.move_schedule),
            (contract.CANCEL_SCHEDULE, self.cancel_schedule),
            (contract.PAUSE_SCHEDULE, self.pause_schedule),
            (contract.RESUME_SCHEDULE, self.resume_schedule),
        )

    async def publish(self, request: Request, caller: Caller) -> Response:
        body = await read_body(request, wire.PUBLISH_BYTES_MAX)
        requests, many = wire.decode_publish(caller.app, body)
        key = single_header_of(request, b"idempotency-key")
        with self._in_flight.track_app(caller.app):
            try:
                if many:
                    return await self._send(caller, requests, key, many=True)
                return await self.publish_one(caller, requests[0], key)
            except Invalid as error:
                raise error if many else wire.of_single_message(error) from None

    async def withdraw(self, request: Request, caller: Caller) -> Response:
        audience = _audience(request, caller)
        await self._publisher.withdraw(
            caller,
            audience,
            request.path_params["id"],
            purge=read_purge(request.query_params),
            reason=read_reason(request.query_params),
        )
        return no_content()

    async def receipt(self, request: Request, caller: Caller) -> Response:
        audience = _audience(request, caller)
        notification_id = request.path_params["id"]
        with self._in_flight.track_app(caller.app):
            receipt = await self._receipts.of_audience(
                caller, audience, notification_id
            )
        return json_response(encode_audience_receipt(notification_id, receipt))

    async def schedules(self, request: Request, caller: Caller) -> Response:
        limit = LIMIT.read(request.query_params)
        after = schedule_wire.parse_after(request.query_params.get("after") or "0.")
        schedules = await self._schedules.page(caller, after=after, limit=limit + 1)
        more = len(schedules) > limit
        return json_response(
            schedule_wire.encode_schedules(schedules[:limit], more=more)
        )

    async def schedule(self, request: Request, caller: Caller) -> Response:
        schedule = await self._schedules.get(caller, request.path_params["id"])
        return json_response(schedule_wire.encode_schedule(schedule))

    async def move_schedule(self, request: Request, caller: Caller) -> Response:
        body = await contract.MOVE_BODY.read(request)
        schedule_id = request.path_params["id"]
        changed = await self._schedules.move(caller, schedule_id, body.due_ms())
        if not changed.done:
            # A paused one is moved, unless it had begun.
            paused = changed.state is ScheduleState.PAUSED
            raise TooLate("sending" if paused else changed.state.value)
        return await self.schedule(request, caller)

    async def cancel_schedule(self, request: Request, caller: Caller) -> Response:
        purge = read_purge(request.query_params)
        changed = await self._schedules.cancel(
            caller,
            request.path_params["id"],
            purge=purge,
            reason=read_reason(request.query_params),
        )
        # A second cancellation has nothing to do, and succeeds. The text of what was
        # sent can still be removed.
        purged = purge and changed.state is ScheduleState.SENT
        if changed.state is not ScheduleState.CANCELLED and not purged:
            sending = changed.state is ScheduleState.SENDING
            raise TooLate(changed.state.value, "pause it first" if sending else "")
        return await self.schedule(request, caller)

    async def pause_schedule(self, request: Request, caller: Caller) -> Response:
        schedule_id = request.path_params["id"]
        reason = read_reason(request.query_params)
        changed = await self._schedules.pause(caller, schedule_id, reason=reason)
        if changed.state is not ScheduleState.PAUSED:
            raise TooLate(changed.state.value)
        return await self.schedule(request, caller)

    async def resume_schedule(self, request: Request, caller: Caller) -> Response:
        schedule_id = request.path_params["id"]
        reason = read_reason(request.query_params)
        changed = await self._schedules.resume(caller, schedule_id, reason=reason)
        # A schedule that is being sent, or has been sent, is not paused, so there is
        # nothing to resume. The same holds for a second call.
        if changed.state is ScheduleState.CANCELLED:
            raise TooLate(changed.state.value)
        return await self.schedule(request, caller)

    def publish_one(
        self, caller: Caller, publish: PublishRequest, key: str | None
    ) -> Awaitable[Response]:
        """Publish the only message of a request; return the response."""
        if not publish.persist:
            return self._send_ephemeral(caller, publish)
        if publish.is_for_later:
            return self._schedule(caller, publish, key)
        return self._send(caller, [publish], key, many=False)

    async def _send_ephemeral(
        self, caller: Caller, publish: PublishRequest
    ) -> Response:
        sent_id = await self._publisher.send_ephemeral(caller, publish.message)
        sent = [[sent_id] * len(publish.to)]
        return json_response(wire.encode_results([publish], sent, many=False))

    async def _send(
        self,
        caller: Caller,
        requests: Sequence[PublishRequest],
        key: str | None,
        *,
        many: bool,
    ) -> Response:
        messages = [publish.message for publish in requests]
        sent = await self._publisher.send(caller, messages, idempotency_key=key)
        body = wire.encode_results(requests, sent.positions, many=many)
        return json_response(body, replayed=sent.replayed)

    async def _schedule(
        self, caller: Caller, publish: PublishRequest, key: str | None
    ) -> Response:
        message, spelling = publish.message, _only_player(publish)
        schedule, replayed = await self._schedules.schedule(
            caller,
            [log.name for log in message.logs],
            message.notification,
            due_ms=publish.due_ms or 0,
            ttl_ms=message.ttl_ms,
            spread_ms=publish.spread_ms,
            to_latest=message.device == "latest",
            idempotency_key=key,
            spelling=spelling,
        )
        # A repetition may spell the player in another way.
        schedule = schedule._replace(spelling=spelling)
        body = b'{"schedule":%b}' % schedule_wire.encode_schedule(schedule)
        return json_response(body, status=202, replayed=replayed)


def _only_player(publish: PublishRequest) -> str:
    """Return the only player of a message as it is spelled, "" for anyone else."""
    first = publish.to[0]
    return first if isinstance(first, str) and len(publish.to) == 1 else ""


def _audience(request: Request, caller: Caller) -> Log:
    topic = request.path_params.get("topic")
    if topic is None:
        return everyone_log(caller.app)
    return topic_log(caller.app, names.topic_in_path(topic))
