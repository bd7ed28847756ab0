"""
The API description: ``/openapi.json`` and ``/asyncapi.json`` for programs, ``/docs``
for people, and ``/``, which leads to them.

Decides what a browser may do there: run the viewer that ships with this server, and
send requests to this server. Nothing is loaded from elsewhere. The viewer is Swagger UI
from the package `offapi` (Apache-2.0), whose files are read without importing it. Knows
Starlette.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from msgspec.json import encode
from starlette.routing import BaseRoute

from .binding import bind
from .operation import CACHED, Header, Operation, ResponseSpec, Surface, header
from .schemas import Schema
from .static_file import StaticFile

__all__ = ["PAGES", "Pages"]

# Swagger UI embeds its icons as data URLs.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# All addresses are relative, so that the pages work below any prefix of a proxy.
_START: Final = b"""\
window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#contract",
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: 0,
    // Keeps the document from being sent to a public validator.
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
<link rel="stylesheet" href="docs/viewer.css">
<div id="contract"></div>
<script src="docs/viewer.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_LANDING: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamer</title>
<link rel="icon" href="data:,">
<h1>streamer {version}</h1>
<p>A push server for notifications.</p>
<p>APIs: {apis}.</p>
<ul>{demo}{docs}
<li><a href="healthz">healthz</a>: the process answers
<li><a href="readyz">readyz</a>: a publish would be stored and delivered
</ul>
</html>
"""
_LANDING_DOCS: Final = """
<li><a href="docs">docs</a>: all operations, as a <a href="openapi.json">document</a>
<li><a href="asyncapi.json">asyncapi.json</a>: the messages of a stream"""
_DEMO: Final = """
<li><a href="demo">demo</a>: two players, live, in your browser"""
_HEADERS: Final = {
    # The names have no version, so caches revalidate; an unchanged file is a 304.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

GUARDED: Final = (
    *CACHED,
    Header("Content-Security-Policy", "Allows content of this server only."),
)
IF_NONE_MATCH: Final = header("If-None-Match", str, "ETag of the cached response.")

UNCHANGED: Final = ResponseSpec(304, "Not modified.", headers=GUARDED)


JSON: Final = "application/json"
HTML: Final = "text/html"
SCRIPT: Final = "text/javascript"
STYLESHEET: Final = "text/css"


def _page(path: str, name: str, summary: str, media: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        parameters=(IF_NONE_MATCH,),
        responses=(
            ResponseSpec(200, "The file.", str, GUARDED, media=media),
            UNCHANGED,
        ),
    )


DOCUMENT: Final = Operation(
    method="GET",
    path="/openapi.json",
    name="document",
    summary="Retrieve the OpenAPI document",
    parameters=(IF_NONE_MATCH,),
    responses=(
        ResponseSpec(200, "The OpenAPI 3.1 document.", dict, GUARDED),
        UNCHANGED,
    ),
)
STREAM_DOCUMENT: Final = Operation(
    method="GET",
    path="/asyncapi.json",
    name="streamDocument",
    summary="Retrieve the AsyncAPI document",
    parameters=(IF_NONE_MATCH,),
    responses=(
        ResponseSpec(200, "The AsyncAPI 3 document.", dict, GUARDED),
        UNCHANGED,
    ),
)
LANDING: Final = _page("/", "landing", "Find the documentation and the state", HTML)
PAGE: Final = _page("/docs", "page", "View this page", HTML)
START: Final = _page(
    "/docs/start.js", "start", "Retrieve the script that starts the viewer", SCRIPT
)
VIEWER: Final = _page("/docs/viewer.js", "viewer", "Retrieve the viewer", SCRIPT)
STYLE: Final = _page(
    "/docs/viewer.css", "style", "Retrieve the viewer's style sheet", STYLESHEET
)


PAGES: Final = Surface(
    name="contract",
    title="API description",
    description="The OpenAPI and AsyncAPI documents, and this page.",
    operations=(LANDING, DOCUMENT, STREAM_DOCUMENT, PAGE, START, VIEWER, STYLE),
)


class Pages:
    """
    The routes of the API description.

    Args:
        write: Returns the OpenAPI document. Called once, at the first request for it.
        write_stream: The same for the AsyncAPI document.
        apis: The names of the APIs that answer, for the landing page.
        docs: Whether the documents and their page are served, too.
        demo: Whether the page ``/demo`` exists.

    """

    def __init__(
        self,
        write: Callable[[], Schema],
        write_stream: Callable[[], Schema],
        apis: Iterable[str] = (),
        *,
        docs: bool = True,
        demo: bool = False,
    ) -> None:
        self._write = write
        self._write_stream = write_stream
        self._apis = ", ".join(apis)
        self._docs = docs
        self._demo = demo

    def routes(self) -> list[BaseRoute]:
        landing = (LANDING, _file(HTML, self._landing))
        if not self._docs:
            return bind([landing])
        viewer = _viewer()
        script, style = viewer / "swagger_bundle.js", viewer / "swagger_style.css"
        return bind(
            [
                landing,
                (DOCUMENT, _file(JSON, lambda: encode(self._write()))),
                (
                    STREAM_DOCUMENT,
                    _file(JSON, lambda: encode(self._write_stream())),
                ),
                (PAGE, _file(HTML, lambda: _PAGE)),
                (START, _file(SCRIPT, lambda: _START)),
                (VIEWER, _file(SCRIPT, script.read_bytes)),
                (STYLE, _file(STYLESHEET, style.read_bytes)),
            ]
        )

    def _landing(self) -> bytes:
        return _LANDING.format(
            version=importlib.metadata.version("streamer-server"),
            apis=self._apis,
            demo=_DEMO if self._demo else "",
            docs=_LANDING_DOCS if self._docs else "",
        ).encode()


def _file(media: str, read: Callable[[], bytes]) -> StaticFile:
    return StaticFile(media, read, _HEADERS)


def _viewer() -> Path:
    # Importing the package would read all of its viewers, which are megabytes.
    spec = importlib.util.find_spec("offapi")
    assert spec is not None and spec.origin is not None, "offapi is a dependency"
    return Path(spec.origin).parent
