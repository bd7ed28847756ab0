"""
The contract, served: ``/openapi.json`` for programs, ``/docs`` for people.

Decides what a browser may do there: run the viewer that comes with this server, and
talk to this server. Nothing is fetched from anywhere else. The viewer is Swagger UI, as
the package `offapi` carries it (Apache-2.0); its files are read, and it is not run.
Knows Starlette.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final

from msgspec.json import encode
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..transports.web.requests import etag_matches
from .operation import CACHED, Answer, Header, Operation, Surface, header
from .schemas import Schema

__all__ = ["PAGES", "Pages"]

# Swagger UI has its icons as data.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_VIEWER: Final = {
    "/docs/viewer.js": ("swagger_bundle.js", "text/javascript"),
    "/docs/viewer.css": ("swagger_style.css", "text/css"),
}
_START: Final = b"""\
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#contract",
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: 0,
    // Answers are checked by nobody else.
    validatorUrl: null,
  });
});
"""
_PAGE: Final = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamer</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/viewer.css">
<div id="contract"></div>
<script src="/docs/viewer.js"></script>
<script src="/docs/start.js"></script>
</html>
"""
_HEADERS: Final = {
    # Named without a version, so asked again; an unchanged one is a 304.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

GUARDED: Final = (
    *CACHED,
    Header("Content-Security-Policy", "Everything comes from here."),
)
KNOWN: Final = header("If-None-Match", str, "The ETag of what is had.")

UNCHANGED: Final = Answer(304, "It has not changed.", headers=GUARDED)


def _page(path: str, name: str, summary: str, media: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        parameters=(KNOWN,),
        answers=(Answer(200, "A text.", str, GUARDED, media=media), UNCHANGED),
    )


PAGES: Final = Surface(
    name="contract",
    title="This contract",
    about="What you are reading.",
    operations=(
        Operation(
            method="GET",
            path="/openapi.json",
            name="document",
            summary="Read the contract as an OpenAPI document",
            parameters=(KNOWN,),
            answers=(Answer(200, "OpenAPI 3.1.", dict, GUARDED), UNCHANGED),
        ),
        _page("/docs", "page", "Read the contract in a browser", "text/html"),
        _page("/docs/start.js", "start", "What starts its viewer", "text/javascript"),
        _page("/docs/viewer.js", "viewer", "The viewer", "text/javascript"),
        _page("/docs/viewer.css", "style", "The viewer's style", "text/css"),
    ),
)


class Pages:
    """
    The routes of the contract.

    Args:
        write: Gives the document. It is asked once, when somebody wants to see it.

    """

    def __init__(self, write: Callable[[], Schema]) -> None:
        texts = [
            _Text("/openapi.json", "application/json", lambda: encode(write())),
            _Text("/docs", "text/html", lambda: _PAGE),
            _Text("/docs/start.js", "text/javascript", lambda: _START),
        ]
        texts += [
            _Text(path, media, (_viewer() / name).read_bytes)
            for path, (name, media) in _VIEWER.items()
        ]
        self._texts = texts

    def routes(self) -> list[BaseRoute]:
        return [Route(it.path, it.answer, methods=["GET"]) for it in self._texts]


class _Text:
    """What is the same for everybody. `read` is called once, when it is asked for."""

    def __init__(self, path: str, media: str, read: Callable[[], bytes]) -> None:
        self.path = path
        self._media = media
        self._read = read

    async def answer(self, request: Request) -> Response:
        headers = {**_HEADERS, "ETag": self._etag}
        if etag_matches(request, self._etag):
            return Response(status_code=304, headers=headers)
        return Response(self._body, headers=headers, media_type=self._media)

    @cached_property
    def _body(self) -> bytes:
        return self._read()

    @cached_property
    def _etag(self) -> str:
        return f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'


def _viewer() -> Path:
    # Importing the package would read all the viewers it has, which is megabytes.
    spec = importlib.util.find_spec("offapi")
    assert spec is not None and spec.origin is not None, "offapi is a dependency"
    return Path(spec.origin).parent
