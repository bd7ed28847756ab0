"""
The request that is being served: its id and its app.

Decides the format of ids. It is a context variable because code that knows nothing of
requests may write log lines while it serves one. It influences nothing else.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from ...model import App, new_name

__all__ = ["RequestContext", "current_request", "note_app", "request_id"]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Matches UUIDs, ULIDs and the hex ids of proxies, but no token: those have dots."""


class RequestContext:
    """
    One request.

    Args:
        received_id: The id that the client sent; replaced by a new one if it is not
            well-formed.

    """

    __slots__ = ("app", "id")

    def __init__(self, received_id: str = "") -> None:
        if not _REQUEST_ID.fullmatch(received_id):
            received_id = new_name()
        self.id = received_id
        self.app = ""
        """The app of the caller, "" before authentication."""


current_request: Final[ContextVar[RequestContext | None]] = ContextVar(
    "serving", default=None
)


def request_id() -> str:
    """Return the id of the request that is being served, "" outside a request."""
    context = current_request.get()
    return "" if context is None else context.id


def note_app(app: App) -> None:
    """Set the app of the request that is being served."""
    context = current_request.get()
    if context is not None:
        context.app = app
