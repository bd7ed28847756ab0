"""
What both stream transports share: their services, the request, and refusals.

Decides what the query and headers of ``GET /v1/stream`` mean, which close code stands
for an error, and when a refused client should reconnect.
"""

from __future__ import annotations

import http
import random
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import monotonic
from typing import Final, NamedTuple

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from ... import errors
from ...core.access.rights import Caller
from ...core.streams.client_messages import TOPICS_MAX
from ...core.streams.codec import Codec, WebSocketCodec
from ...core.streams.cursor import Cursor
from ...core.streams.session import Session, SessionLimits, Sink
from ...core.streams.subscription import Start
from ...errors import (
    Defect,
    Disconnect,
    Error,
    FieldError,
    ForeignOrigin,
    Invalid,
    Limit,
    Unauthenticated,
)
from ...model import Log, Topic, parse_topic
from ...service.access.authenticator import Authenticator, Credentials
from ...service.access.tickets import Tickets, instance_of
from ...service.inboxes.inbox import InboxOperations, parse_cursor
from ...service.inboxes.receipts import ReceiptOperations
from ...service.streams.admission import Admission, Connection
from ..server.handle import Handle
from ..server.refusal import WEBSOCKET_REQUIRED
from ..web.requests import refuse_misspelled, single_header_of

__all__ = [
    "FINAL_RETRY_MS",
    "UNSUPPORTED_SERVER",
    "Opening",
    "StreamComponents",
    "disconnect_for",
    "has_lost_upgrade",
    "reconnect_delay_ms",
    "refuses_in_stream",
    "unsupported_server",
    "upgrade_required",
]

FINAL_RETRY_MS: Final = (300_000, 600_000)
"""
After how long a page reconnects that was refused for good, but keeps its EventSource.

The server cannot make an EventSource stop, only delay it.
"""

UNSUPPORTED_SERVER: Final = "streams need the server that `streamer serve` starts"
"""The refusal of an ASGI server without the extension of `server.handle`."""

LOST_UPGRADE: Final = (
    "this is the handshake of a WebSocket without its upgrade, which a proxy has "
    "removed: let it pass on the headers Upgrade and Connection, over HTTP/1.1"
)

_INSTANCE: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)

PARAMETERS: Final = frozenset(
    {"cursor", "device", "instance", "lastEventId", "refusals", "ticket", "topics"}
)
"""The parameters of a stream, each in the spelling that the protocol prefers."""

_LAST_EVENT_ID: Final = {"lasteventid", "evslasteventid"}
"""
Names under which polyfills of EventSource send what they cannot put into a header.

In lower case, without dashes and underscores: ``lastEventId``, ``last_event_id``,
``Last-Event-ID``, ``evs_last_event_id``.
"""

_DISCONNECTS: Final = {
    Limit.LISTENERS_PER_PLAYER: errors.TOO_MANY_LISTENERS,
    Limit.CONNECTIONS_PER_NODE: errors.NODE_FULL,
    Limit.CONNECTS_PER_SECOND: errors.RATE_EXCEEDED,
}


class StreamComponents(msgspec.Struct, frozen=True):
    """The services and settings that streams use."""

    authenticator: Authenticator
    admission: Admission
    inboxes: InboxOperations
    tickets: Tickets
    receipts: ReceiptOperations
    limits: SessionLimits
    allowed_origins: Collection[str]
    auth_timeout_s: float

    async def redeem_ticket(
        self, opening: Opening, headers: Headers, connection: Connection
    ) -> Caller:
        """
        Open the ticket of a stream, until `connection` leaves; return its caller.

        Raises:
            Unauthenticated: The ticket is invalid, or there is a second credential.
            Unavailable: The store is unavailable.

        """
        if _has_credentials(headers):
            raise Unauthenticated(Defect.AMBIGUOUS)
        if opening.ticket.startswith(("sk_", "eyJ")):
            raise Unauthenticated(
                Defect.TICKET,
                "this is a credential; get a ticket from POST /v1/tickets",
            )
        ticket = await self.tickets.open(opening.ticket, resuming=opening.resuming)
        close = self.tickets.close_soon
        connection.on_leave = lambda opened: close(ticket, opened=opened)
        return ticket.caller

    async def join_queued(
        self, handle: Handle, join: Callable[[], Awaitable[None]]
    ) -> bool:
        """
        Wait in the admission queue, then call `join`; return whether it was called.

        If the client has disconnected while it waited, its connection is aborted
        instead, so that it takes no lease.

        Raises:
            LimitReached: The wait was too long. Besides, what `join` raises.

        """
        queue = self.admission.queue
        async with queue as has_waited:
            if has_waited and handle.abort_if_gone():
                queue.discard_sample()
                return False
            await join()
            return True

    def session(
        self, caller: Caller, opening: Opening, *, codec: Codec, sink: Sink
    ) -> tuple[Log, Session]:
        """
        Return the caller's own log, and a session for it that has not joined yet.

        Raises:
            Forbidden: The caller is not a player, or may not read its log or a topic.

        """
        player = caller.require_player()
        caller.require_listen(player)
        # Connections that opened together are not to be pinged together.
        offset_s = self.limits.heartbeat_s * random.random() / 2
        counters = self.admission.counters
        is_websocket = isinstance(codec, WebSocketCodec)
        for topic in opening.topics:
            caller.require_topic(topic)
        read_from = opening.read_from
        session = Session(
            read_from.own if isinstance(read_from, Cursor) else read_from,
            codec=codec,
            sink=sink,
            limits=self.limits,
            pinged_at_s=monotonic() - offset_s,
            expires_at_s=caller.expires_at_s,
            connection=self.admission.new_connection(),
            device=opening.device,
            transport=counters.websocket if is_websocket else counters.sse,
            cursor=read_from if isinstance(read_from, Cursor) else None,
            topics=opening.topics,
        )
        return Log(caller.app, player), session


class Opening(NamedTuple):
    """
    The parameters of a request for a stream.

    `resuming` is whether the request has the header ``Last-Event-ID``, which an
    EventSource sends when it reconnects, or the parameter of its polyfills.
    """

    read_from: Cursor | Start
    instance: str
    ticket: str = ""
    resuming: bool = False
    device: str = ""
    topics: tuple[Topic, ...] = ()

    def __repr__(self) -> str:
        return f"Opening(read_from={self.read_from}, instance={self.instance!r})"

    @classmethod
    def parse(cls, connection: HTTPConnection) -> Opening:
        """
        Parse the query, and the header that EventSource sends when it reconnects.

        ``Last-Event-ID`` takes precedence over ``lastEventId``, and that over
        ``cursor``, since EventSource and its polyfills repeat their first URL.

        Raises:
            Invalid: A parameter is invalid, or misspelled.

        """
        last_event_id = single_header_of(connection, b"last-event-id") or ""
        if not connection.scope["query_string"] and not last_event_id:
            return cls(Start.LATEST, "")  # Most first requests have neither.
        # The last value of a name counts.
        query = {
            _canonical(name): value
            for name, value in connection.query_params.multi_items()
        }
        refuse_misspelled(query, PARAMETERS)
        if query.get("refusals", "stream") != "stream":
            raise Invalid(FieldError(("query", "refusals"), "must be 'stream'"))
        ticket = query.get("ticket", "")
        instance = _label(query, "instance")
        device = _label(query, "device")
        if ticket and not instance:
            instance = instance_of(ticket)
        read_from: Cursor | Start
        if last_event_id:
            read_from = parse_cursor(last_event_id, "header", "Last-Event-ID")
        else:
            read_from = _read_from(query)
        return cls(
            read_from,
            instance,
            ticket,
            resuming=bool(last_event_id or query.get("lastEventId")),
            device=device,
            topics=_topics(connection.query_params),
        )


def _canonical(name: str) -> str:
    plain = name.lower().replace("-", "").replace("_", "")
    return "lastEventId" if plain in _LAST_EVENT_ID else name


def _read_from(query: Mapping[str, str]) -> Cursor | Start:
    """Return where the query says that the stream begins. Raises Invalid."""
    name = "lastEventId" if query.get("lastEventId") else "cursor"
    cursor = query.get(name, "")
    if cursor in ("", "earliest"):
        return Start.EARLIEST if cursor else Start.LATEST
    return parse_cursor(cursor, "query", name)


def _label(query: Mapping[str, str], parameter: str) -> str:
    """Return a label that the client chose, "" without one. Raises Invalid."""
    name = query.get(parameter, "")
    if _INSTANCE.fullmatch(name):
        return name
    problem = "must be up to 64 letters, digits, '.', '_' or '-'"
    raise Invalid(FieldError(("query", parameter), problem))


def _topics(query: QueryParams) -> tuple[Topic, ...]:
    """Return the topics of a request. Raises Invalid."""
    named = [name for text in query.getlist("topics") for name in text.split(",")]
    topics = dict.fromkeys(topic for name in named if (topic := parse_topic(name)))
    if len(topics) < len(set(named)) or len(topics) > TOPICS_MAX:
        problem = f"must be up to {TOPICS_MAX} comma-separated topics"
        raise Invalid(FieldError(("query", "topics"), problem))
    return tuple(topics)


def refuses_in_stream(query: QueryParams, error: Error) -> bool:
    """
    Whether `error` is sent within a stream, since browsers hide the status of one.

    A foreign origin gets no stream, and so always gets a status.
    """
    return query.get("refusals") == "stream" and not isinstance(error, ForeignOrigin)


def reconnect_delay_ms(error: Error) -> int:
    """
    Return after how many milliseconds a refused client should reconnect, at random.

    0 if it should not reconnect with the same request.
    """
    if not disconnect_for(error).reconnect:
        return 0
    least_ms = 1_000 * max(1, getattr(error, "retry_after_s", 1))
    return random.randint(least_ms, 2 * least_ms + 1_000)


def disconnect_for(error: Error) -> Disconnect:
    """Return how a stream ends that is refused with `error`."""
    match error:
        case errors.Unauthenticated():
            return errors.TOKEN_INVALID
        case errors.Forbidden():
            return errors.FORBIDDEN
        case errors.LimitReached(limit=limit):
            return _DISCONNECTS[limit]
        case errors.Draining():
            return errors.DRAINING
        case errors.IssuerUnavailable():
            return errors.ISSUER_UNAVAILABLE
        case errors.Unavailable():
            return errors.STORE_UNAVAILABLE
    return errors.PROTOCOL


def unsupported_server() -> Response:
    """Return a problem document with status 501 and detail `UNSUPPORTED_SERVER`."""
    return _problem(http.HTTPStatus.NOT_IMPLEMENTED, UNSUPPORTED_SERVER)


def has_lost_upgrade(connection: HTTPConnection) -> bool:
    """
    Whether a plain request was a WebSocket's handshake until a proxy changed it.

    The client would get events in a format that it cannot read, and hold a slot.
    """
    for name, value in connection.scope["headers"]:
        if name.startswith(b"sec-websocket-"):
            return True
        if name == b"upgrade" and b"websocket" in value.lower():
            return True
    return False


def upgrade_required() -> Response:
    """Return a problem document with status 426 and detail `LOST_UPGRADE`."""
    response = _problem(http.HTTPStatus.UPGRADE_REQUIRED, LOST_UPGRADE)
    response.raw_headers += [(b"connection", b"upgrade"), *WEBSOCKET_REQUIRED]
    return response


def _problem(status: http.HTTPStatus, detail: str) -> Response:
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": detail,
    }
    return JSONResponse(problem, status, media_type="application/problem+json")


def _has_credentials(headers: Headers) -> bool:
    """Whether there is a credential that the browser has not added by itself."""
    sent = [it for it in headers.raw if it[0] != b"cookie"]
    try:
        Credentials.from_headers(sent)
    except Unauthenticated as error:
        return error.defect is not Defect.MISSING
    return True
