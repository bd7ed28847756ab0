"""
What both stream transports share: parts, how a stream is asked for, how it ends.

Decides what the query and headers of ``GET /v1/stream`` mean, where its credential may
be, which close code tells what an error would have said, and when to come back then.
"""

from __future__ import annotations

import http
import random
import re
from collections.abc import Awaitable, Callable, Mapping
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
from ..web.requests import header_of

__all__ = [
    "FINAL_RETRY_MS",
    "UNSUPPORTED_SERVER",
    "Opening",
    "StreamComponents",
    "disconnect_for",
    "reconnect_delay_ms",
    "refuses_in_stream",
    "unsupported_server",
]

FINAL_RETRY_MS: Final = (300_000, 600_000)
"""
When a page comes back that was refused for good and does not close its EventSource.

It cannot be told to stay away, only to take its time.
"""

UNSUPPORTED_SERVER: Final = "streams need the server that `streamer serve` starts"
"""Why there are none under an ASGI server without the extension of `server.handle`."""

_INSTANCE: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)

_DISCONNECTS: Final = {
    Limit.LISTENERS_PER_PLAYER: errors.TOO_MANY_LISTENERS,
    Limit.CONNECTIONS_PER_NODE: errors.NODE_FULL,
    Limit.CONNECTS_PER_SECOND: errors.AHEAD_OF_RATE,
}


class StreamComponents(msgspec.Struct, frozen=True):
    """What a stream is made of."""

    authenticator: Authenticator
    admission: Admission
    inboxes: InboxOperations
    tickets: Tickets
    receipts: ReceiptOperations
    limits: SessionLimits
    allowed_origins: frozenset[str]
    auth_timeout_s: float

    async def redeem_ticket(
        self, opening: Opening, headers: Headers, connection: Connection
    ) -> Caller:
        """
        Use the ticket of a stream that brings one, until `connection` leaves.

        Raises:
            Unauthenticated: It does not hold, or there is another credential as well.
            Unavailable: The store is away.

        """
        if _has_credentials(headers):
            raise Unauthenticated(Defect.AMBIGUOUS)
        ticket = await self.tickets.open(opening.ticket, resuming=opening.resuming)
        close = self.tickets.close_soon
        connection.on_leave = lambda opened: close(ticket, opened=opened)
        return ticket.caller

    async def join_queued(
        self, handle: Handle, join: Callable[[], Awaitable[None]]
    ) -> bool:
        """
        Let a connection join when it is its turn; return whether it has.

        One whose client has left while it waited is cut off instead: it takes nothing,
        and nobody is there to be answered.

        Raises:
            LimitReached: Its turn has not come in time; and what `join` raises.
        """
        turns = self.admission.turns
        async with turns as has_waited:
            if has_waited and handle.abort_if_gone():
                turns.discard_sample()
                return False
            await join()
            return True

    def session(
        self, caller: Caller, opening: Opening, *, codec: Codec, sink: Sink
    ) -> tuple[Log, Session]:
        """
        Return a session for the caller's own log.

        Raises:
            Forbidden: The caller is no player, or may not read.

        """
        player = caller.require_player()
        caller.require_listen(player)
        # Connections that came together shall not be pinged together.
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
    What a client asks for when it opens a stream.

    `resuming` is whether it says what the stream brought last, as EventSource does by
    itself when it comes back.
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
        Read the query, and the header that EventSource sends when it comes back.

        ``Last-Event-ID`` wins over ``cursor``: EventSource repeats its first URL.

        Raises:
            Invalid: A parameter is not what it should be.

        """
        last_event_id = header_of(connection, b"last-event-id", "")
        if not connection.scope["query_string"] and not last_event_id:
            return cls(Start.LATEST, "")  # As most come for the first time.
        # The last one of a name counts.
        query = dict(connection.query_params.multi_items())
        if query.get("refusals", "stream") != "stream":
            raise Invalid(FieldError(("query", "refusals"), "must be 'stream'"))
        ticket = query.get("ticket", "")
        instance = _label(query, "instance")
        device = _label(query, "device")
        if ticket and not instance:
            instance = instance_of(ticket)
        cursor = query.get("cursor", "")
        read_from: Cursor | Start
        if last_event_id:
            read_from = parse_cursor(last_event_id, "header", "Last-Event-ID")
        elif cursor in ("", "earliest"):
            read_from = Start.EARLIEST if cursor else Start.LATEST
        else:
            read_from = parse_cursor(cursor, "query", "cursor")
        return cls(
            read_from,
            instance,
            ticket,
            resuming=bool(last_event_id),
            device=device,
            topics=_topics(connection.query_params),
        )


def _label(query: Mapping[str, str], parameter: str) -> str:
    """Return a name that a client has given to something. Raises Invalid."""
    name = query.get(parameter, "")
    if _INSTANCE.fullmatch(name):
        return name
    problem = "must be up to 64 letters, digits, '.', '_' or '-'"
    raise Invalid(FieldError(("query", parameter), problem))


def _topics(query: QueryParams) -> tuple[Topic, ...]:
    """Return the topics that a stream asks for. Raises Invalid."""
    named = [name for text in query.getlist("topics") for name in text.split(",")]
    topics = dict.fromkeys(topic for name in named if (topic := parse_topic(name)))
    if len(topics) < len(set(named)) or len(topics) > TOPICS_MAX:
        problem = f"must be up to {TOPICS_MAX} topics with commas between"
        raise Invalid(FieldError(("query", "topics"), problem))
    return tuple(topics)


def refuses_in_stream(query: QueryParams, error: Error) -> bool:
    """
    Whether `error` is told by an open stream, since a browser would hide its status.

    A foreign page is not told anything: there must be no stream for it.
    """
    return query.get("refusals") == "stream" and not isinstance(error, ForeignOrigin)


def reconnect_delay_ms(error: Error) -> int:
    """
    Return after how long a client that is refused should come back, at random.

    0 where it should not, with what it has.
    """
    if not disconnect_for(error).reconnect:
        return 0
    least_ms = 1_000 * max(1, getattr(error, "retry_after_s", 1))
    return random.randint(least_ms, 2 * least_ms + 1_000)


def disconnect_for(error: Error) -> Disconnect:
    """Return how a stream ends that `error` would have refused."""
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
            return errors.ISSUER_AWAY
        case errors.Unavailable():
            return errors.STORE_AWAY
    return errors.PROTOCOL


def unsupported_server() -> Response:
    """Return the problem document that says `UNSUPPORTED_SERVER`, with status 501."""
    status = http.HTTPStatus.NOT_IMPLEMENTED
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status,
        "detail": UNSUPPORTED_SERVER,
    }
    return JSONResponse(problem, status, media_type="application/problem+json")


def _has_credentials(headers: Headers) -> bool:
    try:
        Credentials.from_headers(headers.raw)
    except Unauthenticated as error:
        return error.defect is not Defect.MISSING
    return True
