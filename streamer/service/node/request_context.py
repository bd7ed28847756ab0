"""
The request that is being served: its id, its caller, and why it was refused.

Decides the format of ids. It is a context variable because code that knows nothing of
requests may write log lines while it serves one. It influences nothing but them and
the counts.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from ...errors import (
    Defect,
    Error,
    FieldError,
    Forbidden,
    Invalid,
    LimitReached,
    OverQuota,
    Unauthenticated,
)
from ...model import App, Log, Player, new_name
from ..access.failures import FailedAuthentications
from ..inspection.history import History

__all__ = [
    "RequestContext",
    "current_request",
    "name_request",
    "note_app",
    "note_caller",
    "note_code",
    "note_failed_authentication",
    "note_player",
    "note_refusal",
    "request_id",
]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Matches UUIDs, ULIDs and the hex ids of proxies, but no token: those have dots."""


_RIGHT: Final = re.compile(r"the ((?:permission|scope) [a-z:*]+)")
_PARTS: Final = frozenset({"body", "query", "path", "header"})
"""Parts of a request that can be wrong. What follows them may be a name."""

_WORD_START: Final = re.compile(r"(?<=.)(?=[A-Z])")


class RequestContext:
    """
    One request.

    Args:
        received_id: The id that the client sent; replaced by a new one if it is not
            well-formed.
        client: The address of the client, "" without one.
        failures: Counts authentications that fail.
        history: Remembers refusals of players.

    """

    __slots__ = (
        *("app", "client", "code", "failures", "history", "id", "is_named"),
        *("player", "reason", "refusal", "trace_id"),
    )

    def __init__(
        self,
        received_id: str = "",
        client: str = "",
        failures: FailedAuthentications | None = None,
        history: History | None = None,
    ) -> None:
        self.id = ""
        self.is_named = False
        """Whether the client has chosen the id."""
        if received_id:
            self.name(received_id)
        if not self.is_named:
            self.id = new_name()
        self.app = ""
        """The app of the caller, "" before authentication."""
        self.player: Player | None = None
        """The player that the caller is, None for a backend."""
        self.client = client
        self.failures = failures
        self.history = history
        self.trace_id = ""
        """The id of its trace, "" if it has none or is not sampled."""
        self.code = 0
        """The close code of a stream that is refused within the stream, otherwise 0."""
        self.refusal = ""
        """The class of the error with which it was refused: ``limit_reached``."""
        self.reason = ""
        """
        The defect, limit, quota, missing right or wrong part of the request:
        ``expired``, ``claim aud``, ``scope tokens:mint``, ``body``.
        """

    def name(self, received_id: str) -> None:
        """Take an id from the client, the first that is well-formed."""
        if not self.is_named and _REQUEST_ID.fullmatch(received_id):
            self.id, self.is_named = received_id, True


current_request: Final[ContextVar[RequestContext | None]] = ContextVar(
    "serving", default=None
)


def request_id() -> str:
    """Return the id of the request that is being served, "" outside a request."""
    context = current_request.get()
    return "" if context is None else context.id


def name_request(received_id: str) -> None:
    """
    Set the id of the request that is being served to one that its client sent.

    Nothing changes if the client has chosen its id already, in ``X-Request-Id``, or if
    `received_id` is not well-formed.
    """
    context = current_request.get()
    if context is not None:
        context.name(received_id)


def note_app(app: App) -> None:
    """Set the app of the request that is being served."""
    context = current_request.get()
    if context is not None:
        context.app = app


def note_caller(app: App, player: Player | None) -> None:
    """Set the app and the player of the request that is being served."""
    context = current_request.get()
    if context is not None:
        context.app = app
        context.player = player


def note_player(player: Player | None) -> None:
    """Set the player of the request that is being served."""
    context = current_request.get()
    if context is not None:
        context.player = player


def note_code(code: int) -> None:
    """Set the close code with which the stream that is being opened is refused."""
    context = current_request.get()
    if context is not None:
        context.code = code


def note_failed_authentication(error: Unauthenticated) -> None:
    """Count a credential that is refused as something else, not by `note_refusal`."""
    context = current_request.get()
    if context is not None and context.failures is not None:
        context.failures.note(context.client, error)


def note_refusal(error: Error, transport: str = "http") -> None:
    """
    Set why the request that is being served is refused; nothing that it contains.

    A failed authentication is counted, and the refusal of a player is remembered. Call
    this once for each refusal. `transport` names that of a stream.
    """
    context = current_request.get()
    if context is not None:
        if isinstance(error, Unauthenticated):
            note_failed_authentication(error)
        name = type(error).__name__
        context.refusal = _WORD_START.sub("_", name).lower()
        context.reason = _reason(error)
        if context.history is not None and context.player is not None:
            context.history.refused(
                Log(App(context.app), context.player),
                transport=transport,
                refusal=context.refusal,
                reason=context.reason,
                client=context.client,
            )


def _reason(error: Error) -> str:
    match error:
        case Unauthenticated(defect=Defect.CLAIM, detail=claim):
            return f"claim {claim}"
        case Unauthenticated(defect=defect):
            return defect.name.lower()
        case LimitReached(limit=limit):
            return limit.name.lower()
        case OverQuota(quota=quota):
            return quota.name.lower()
        case Forbidden(needed=needed):
            return _missing_right(needed)
        case Invalid(errors=[FieldError(where=(str(part), *_)), *_]):
            return part if part in _PARTS else ""
    return ""


def _missing_right(needed: str) -> str:
    """Return the permission or scope that is missing; what else is, may be a name."""
    match = _RIGHT.fullmatch(needed)
    return match[1] if match else ""
