"""
A prefix of all paths, for proxies that pass it on.

Decides that requests with and without the prefix are the same: some proxies remove it.
Knows ASGI.
"""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["BasePath"]


class BasePath:
    """
    An ASGI application around another, which gets paths without the prefix.

    Args:
        app: The application that responds.
        prefix: Begins with a slash and ends without one.

    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix
        self._raw_prefix = prefix.encode()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path: str = scope["path"]
        if path == self._prefix and scope["type"] == "http":
            # Relative addresses in the page at the root need the slash.
            response = RedirectResponse(f"{self._prefix}/", 308)
            return response(scope, receive, send)
        if path.startswith(f"{self._prefix}/"):
            raw_path: bytes = scope["raw_path"]
            scope["path"] = path.removeprefix(self._prefix)
            scope["raw_path"] = raw_path.removeprefix(self._raw_prefix)
        return self._app(scope, receive, send)
