"""
A file that a browser loads: its headers, its version for caches, its compressed form.

Decides when a client has the file already, and in which form it is sent. Knows
Starlette's requests and responses. Knows nothing of what the files are for.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..transports.web.requests import etag_matches, list_header_of

__all__ = ["StaticFile"]


class StaticFile:
    """
    A file as an ASGI application.

    Args:
        media: Its media type.
        read: Returns the file. Called once, at the first request.
        headers: The headers of the file, also of the response that it is unchanged.

    """

    def __init__(
        self, media: str, read: Callable[[], bytes], headers: Mapping[str, str]
    ) -> None:
        self._media = media
        self._read = read
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.respond(Request(scope))(scope, receive, send)

    def respond(
        self, request: Request, headers: Mapping[str, str] | None = None
    ) -> Response:
        """
        Return the response to a GET of the file.

        Args:
            request: The request.
            headers: Headers besides those of the file, which they override.

        """
        compressed = "gzip" in _encodings(request)
        etag = f'"{self.digest}-gz"' if compressed else f'"{self.digest}"'
        sent = {**self._headers, **(headers or {}), "ETag": etag}
        sent["Vary"] = "Accept-Encoding"
        if etag_matches(request, etag):
            return Response(status_code=304, headers=sent)
        if not compressed:
            return Response(self.body, headers=sent, media_type=self._media)
        sent["Content-Encoding"] = "gzip"
        return Response(self._compressed, headers=sent, media_type=self._media)

    @cached_property
    def body(self) -> bytes:
        """The file."""
        return self._read()

    @cached_property
    def digest(self) -> str:
        """What identifies the content of the file: 32 hexadecimal digits."""
        return hashlib.sha256(self.body).hexdigest()[:32]

    @cached_property
    def _compressed(self) -> bytes:
        # Without a time, so that every node sends the same bytes.
        return gzip.compress(self.body, 6, mtime=0)


def _encodings(request: Request) -> set[str]:
    """Return the content codings that the client accepts and does not weigh as 0."""
    accepted = set()
    for item in (list_header_of(request, b"accept-encoding") or "").split(","):
        name, _, weight = item.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            accepted.add(name.strip().lower())
    return accepted
