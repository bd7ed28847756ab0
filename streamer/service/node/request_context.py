"""
The request that is being served: its id, and whose it is.

Decides how an id looks. It is a context variable because a line of the log can be
written anywhere below a request, by code that knows nothing of requests; no decision
is made by it.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Final

from ...model import App, new_name

__all__ = ["RequestContext", "current_request", "note_app", "request_id"]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""Fits UUIDs, ULIDs and the hex ids of proxies, and no token: that has dots."""


class RequestContext:
    """
    One request.

    Args:
        received_id: The id that it came with; one that is not well-formed gets a new
            one.

    """

    __slots__ = ("app", "id")

    def __init__(self, received_id: str = "") -> None:
        if not _REQUEST_ID.fullmatch(received_id):
            received_id = new_name()
        self.id = received_id
        self.app = ""
        """The app of its caller, once that is known."""


current_request: Final[ContextVar[RequestContext | None]] = ContextVar(
    "serving", default=None
)


def request_id() -> str:
    """Return the id of the request that is being served, "" outside of one."""
    context = current_request.get()
    return "" if context is None else context.id


def note_app(app: App) -> None:
    """Note whose request is being served."""
    context = current_request.get()
    if context is not None:
        context.app = app
