"""
What both stream transports share: parts, how a stream is asked for, how it ends.

Decides what the query and headers of ``GET /v1/stream`` mean, and which close code
tells what an error would have said.
"""

from __future__ import annotations

import random
import re
from time import monotonic
from typing import Final, NamedTuple

import msgspec
from starlette.datastructures import Headers, QueryParams

from .. import errors
from ..core.access import Caller
from ..core.codec import Codec
from ..core.session import Session, SessionLimits, Sink
from ..core.subscription import Place, Start
from ..errors import Disconnect, Error, FieldError, Invalid, Limit
from ..model import Log
from ..service.authenticator import Authenticator
from ..service.inboxes import Inboxes, parse_cursor
from ..service.listening import Listening

__all__ = ["Opening", "StreamParts", "disconnect_for"]

_INSTANCE: Final = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)

_DISCONNECTS: Final = {
    Limit.LISTENERS_PER_PLAYER: errors.TOO_MANY_LISTENERS,
    Limit.CONNECTIONS_PER_NODE: errors.NODE_FULL,
    Limit.CONNECTS_PER_SECOND: errors.AHEAD_OF_RATE,
}


class StreamParts(msgspec.Struct, frozen=True):
    """What a stream is made of."""

    authenticator: Authenticator
    listening: Listening
    inboxes: Inboxes
    limits: SessionLimits
    allowed_origins: frozenset[str]
    auth_timeout_s: float

    def session(
        self, caller: Caller, opening: Opening, *, codec: Codec, sink: Sink
    ) -> tuple[Log, Session]:
        """
        Return a session for the caller's own log.

        Raises:
            Forbidden: The caller is no player, or may not read.

        """
        player = caller.require_me()
        caller.require_listen(player)
        # Connections that came together shall not be pinged together.
        ahead_s = self.limits.heartbeat_s * random.random() / 2
        session = Session(
            opening.place,
            codec=codec,
            sink=sink,
            limits=self.limits,
            pinged_at_s=monotonic() - ahead_s,
            expires_at_s=caller.expires_at_s,
            connection=self.listening.new_connection(),
        )
        return Log(caller.app, player), session


class Opening(NamedTuple):
    """What a client asks for when it opens a stream."""

    place: Place
    instance: str

    @classmethod
    def parse(cls, query: QueryParams, headers: Headers) -> Opening:
        """
        Read the query, and the header that EventSource sends when it comes back.

        ``Last-Event-ID`` wins over ``cursor``: EventSource repeats its first URL.

        Raises:
            Invalid: A cursor or instance is none.

        """
        instance = query.get("instance", "")
        if not _INSTANCE.fullmatch(instance):
            problem = "must be up to 64 letters, digits, '.', '_' or '-'"
            raise Invalid(FieldError(("query", "instance"), problem))
        if last := headers.get("last-event-id"):
            return cls(parse_cursor(last, "header", "Last-Event-ID"), instance)
        cursor = query.get("cursor", "")
        if cursor in ("", "earliest"):
            return cls(Start.EARLIEST if cursor else Start.LATEST, instance)
        return cls(parse_cursor(cursor, "query", "cursor"), instance)


def disconnect_for(error: Error) -> Disconnect:
    """Return how a stream ends that `error` would have refused."""
    match error:
        case errors.Unauthenticated():
            return errors.TOKEN_INVALID
        case errors.Forbidden():
            return errors.FORBIDDEN
        case errors.Refused(limit=limit):
            return _DISCONNECTS[limit]
        case errors.Draining():
            return errors.DRAINING
        case errors.Unavailable():
            return errors.STORE_AWAY
    return errors.PROTOCOL
