"""
The native surface: publish, pages, read marks, the stream, tokens and tickets.

Decides nothing but which service a path asks. Knows Starlette, the services, and
`wire`. ``me`` in a path is the player of the caller's token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from ...core.access import Caller
from ...core.schedule import State
from ...errors import Error, FieldError, Invalid, TooLate
from ...model import Log, Player, Position, parse_player
from ...service.authenticator import Authenticator
from ...service.inboxes import Inboxes, parse_cursor
from ...service.minting import Minting
from ...service.publisher import PLAYERS_MAX, Publisher
from ...service.requests import Requests
from ...service.schedules import Schedules
from ...service.tickets import Tickets
from ...transports.callers import Callers
from ...transports.http import (
    decode_body,
    etag_matches,
    query_int,
    read_body,
)
from ...transports.sse import SseStream
from ...transports.streams import StreamParts
from ...transports.websocket import WebSocketStream
from . import credentials, wire

__all__ = ["Native"]

PAGE_LIMIT: Final = 20
PAGE_LIMIT_MAX: Final = 100

_decode_publish: Final = msgspec.json.Decoder(wire.PublishBody)
_decode_mark: Final = msgspec.json.Decoder(wire.MarkBody)
_decode_token: Final = msgspec.json.Decoder(credentials.TokenBody)
_decode_ticket: Final = msgspec.json.Decoder(credentials.TicketBody)
_decode_move: Final = msgspec.json.Decoder(wire.MoveBody)

_SECRET: Final = {"Cache-Control": "no-store"}

Handler = Callable[[Request], Awaitable[Response]]


class Native:
    """The surface and its routes."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        publisher: Publisher,
        schedules: Schedules,
        inboxes: Inboxes,
        requests: Requests,
        minting: Minting,
        tickets: Tickets,
        streams: StreamParts,
        allowed_origins: Collection[str],
    ) -> None:
        self._callers = Callers(authenticator, allowed_origins)
        self._publisher = publisher
        self._schedules = schedules
        self._inboxes = inboxes
        self._requests = requests
        self._minting = minting
        self._tickets = tickets
        self._sse = SseStream(streams, refuse=wire.problem)
        self._websocket = WebSocketStream(streams, refuse=wire.problem)

    def routes(self) -> list[BaseRoute]:
        inbox = "/v1/players/{player:path}/notifications"
        return [
            WebSocketRoute("/v1/stream", self._websocket),
            Route("/v1/stream", self._sse),
            Route("/v1/tokens", _answers(self.mint), methods=["POST"]),
            Route("/v1/tickets", _answers(self.ticket), methods=["POST"]),
            Route("/v1/notifications", _answers(self.publish), methods=["POST"]),
            Route("/v1/schedules", _answers(self.schedules), methods=["GET"]),
            Route(
                "/v1/schedules/{id}",
                _answers(self.schedule),
                methods=["GET", "PATCH", "DELETE"],
            ),
            Route(f"{inbox}/read", _answers(self.mark_read), methods=["POST"]),
            Route(inbox, _answers(self.page), methods=["GET"]),
            Route(f"{inbox}/{{id}}", _answers(self.one), methods=["GET"]),
        ]

    async def publish(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        body = decode_body(
            _decode_publish, await read_body(request, wire.PUBLISH_BYTES_MAX)
        )
        players, notification = body.players(), body.notification()
        idempotency_key = request.headers.get("idempotency-key")
        due_ms = body.due_ms()
        if due_ms is not None or len(players) > PLAYERS_MAX or body.spread_s:
            schedule, replayed = await self._schedules.schedule(
                caller,
                players,
                notification,
                due_ms=due_ms or 0,
                spread_ms=body.spread_s * 1000,
                idempotency_key=idempotency_key,
            )
            return _json(
                b'{"schedule":%b}' % wire.encode_schedule(schedule),
                status=202,
                headers={"Idempotent-Replayed": "true"} if replayed else None,
            )
        published = await self._publisher.publish(
            caller, players, [notification], idempotency_key=idempotency_key
        )
        headers = {"Idempotent-Replayed": "true"} if published.replayed else None
        return _json(wire.encode_published(published), headers=headers)

    async def page(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        player = _player(request, caller)
        limit = query_int(request, "limit", PAGE_LIMIT, least=1, most=PAGE_LIMIT_MAX)
        known = _known_version(request)
        with self._requests.hold(Log(caller.app, player)):
            page = await self._inboxes.page(
                caller,
                player,
                newest=_cursor(request, "before"),
                newest_included=False,
                oldest=_cursor(request, "after"),
                count=limit,
                version=known,
            )
        headers = {"ETag": f'"{page.version}"', "Cache-Control": "private, no-cache"}
        if page.entries is None or etag_matches(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return _json(wire.encode_page(page), headers=headers)

    async def one(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        player = _player(request, caller)
        with self._requests.hold(Log(caller.app, player)):
            found = await self._inboxes.one(caller, player, request.path_params["id"])
        return _json(wire.encode_entry(found))

    async def mark_read(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        player = _player(request, caller)
        body = decode_body(_decode_mark, await read_body(request, wire.MARK_BYTES_MAX))
        if isinstance(body.ids, list):
            marked = await self._inboxes.mark_ids(caller, player, body.ids)
        elif isinstance(body.up_to, str):
            position = parse_cursor(body.up_to, "body", "up_to")
            marked = await self._inboxes.mark_up_to(caller, player, position)
        else:
            marked = await self._inboxes.mark_all(caller, player)
        return _json(b'{"unread":%d}' % marked.unread)

    async def schedules(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        limit = query_int(request, "limit", PAGE_LIMIT, least=1, most=PAGE_LIMIT_MAX)
        after = wire.parse_after(request.query_params.get("after") or "0.")
        found = await self._schedules.page(caller, after=after, limit=limit + 1)
        shown, more = found[:limit], len(found) > limit
        return _json(wire.encode_schedules(shown, more=more))

    async def schedule(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        schedule_id = request.path_params["id"]
        if request.method == "DELETE":
            changed = await self._schedules.cancel(caller, schedule_id)
            # A second cancellation has nothing left to do, and is not refused for it.
            if changed.state is not State.CANCELLED:
                raise TooLate(changed.state.value)
        elif request.method == "PATCH":
            body = decode_body(
                _decode_move, await read_body(request, wire.MARK_BYTES_MAX)
            )
            changed = await self._schedules.move(caller, schedule_id, body.due_ms())
            if not changed.done:
                raise TooLate(changed.state.value)
        schedule = await self._schedules.get(caller, schedule_id)
        return _json(wire.encode_schedule(schedule))

    async def mint(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        body = decode_body(_decode_token, await read_body(request, wire.MARK_BYTES_MAX))
        minted = await self._minting.mint(
            caller,
            body.recipient(),
            permissions=body.permissions or (),
            topics=body.topics,
            ttl_s=body.ttl_s,
        )
        return _json(credentials.encode_token(minted), headers=_SECRET)

    async def ticket(self, request: Request) -> Response:
        caller = await self._callers.of(request)
        body = await read_body(request, wire.MARK_BYTES_MAX)
        if body:
            decode_body(_decode_ticket, body)
        ticket = await self._tickets.issue(caller)
        return _json(credentials.encode_ticket(ticket), headers=_SECRET)


def _answers(handler: Handler) -> Handler:
    """Let `handler` raise what is wrong; answer it as a problem document."""

    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except Error as error:
            return wire.problem(error)

    return answering


def _player(request: Request, caller: Caller) -> Player:
    text = request.path_params["player"]
    if text == "me":
        return caller.require_me()
    player = parse_player(text)
    if player is None:
        raise Invalid(FieldError(("path", "player"), "is not a player name"))
    return player


def _cursor(request: Request, name: str) -> Position | None:
    text = request.query_params.get(name)
    return parse_cursor(text, "query", name) if text else None


def _known_version(request: Request) -> str:
    # One tag, as every client sends that was given one by us, saves reading the
    # entries; a list is compared afterwards.
    tag = request.headers.get("if-none-match", "").strip().removeprefix("W/")
    return tag.strip('"') if tag.isascii() and len(tag) <= 100 else ""


def _json(
    body: bytes, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(body, status, headers=headers, media_type="application/json")
