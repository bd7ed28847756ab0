"""
The web client's modules under ``/client``, so that a page needs no package manager.

Decides which files are served, and for how long a browser may keep them. Knows where
the files are: inside the package in a wheel, in ``clients/web`` beside a clone.

``/client/index.js`` is for pages: browsers revalidate it, so an upgrade of the server
is an upgrade of its pages. ``/client/<version>/index.js`` never changes, where the
version is that of the content of all files together; a module's relative imports stay
below it, so a page never mixes two versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from .binding import bind
from .operation import CACHED, Header, Operation, ResponseSpec, Surface, header, path
from .static_file import StaticFile

__all__ = ["CLIENT", "ClientFiles", "client_folder"]

_PACKAGE: Final = Path(__file__).parents[1]
_MEDIA: Final = "text/javascript"
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    # The files are public: pages of any origin may load them as modules, also those
    # that isolate themselves.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}
_IMMUTABLE: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_SHARED: Final = (
    *CACHED,
    Header("Access-Control-Allow-Origin", "Pages of any origin may load the file."),
)


class Absent(msgspec.Struct, frozen=True):
    """A problem document."""

    type: Literal["about:not-found"]
    title: str
    status: Literal[404]
    detail: str


MODULE: Final = Operation(
    method="GET",
    path="/client/{file}",
    name="module",
    summary="Retrieve a module of the web client",
    description=(
        "ES modules for browsers: `index.js` is the client. Below "
        "`/client/<version>/` are the same files with `Cache-Control: immutable`; the "
        "page `/demo` names the version of this server."
    ),
    parameters=(
        path("file", str, "Such as `index.js`.", has_slashes=True),
        header("If-None-Match", str, "ETag of the cached response."),
    ),
    responses=(
        ResponseSpec(200, "The module.", str, _SHARED, media=_MEDIA),
        ResponseSpec(304, "Not modified.", headers=_SHARED),
        ResponseSpec(
            404, "There is no such file.", Absent, media="application/problem+json"
        ),
    ),
)

CLIENT: Final = Surface(
    name="client",
    title="Web client",
    description="The files of the web client.",
    operations=(MODULE,),
)


def client_folder() -> Path:
    """
    Return the folder of the web client's modules.

    Raises:
        FileNotFoundError: It is neither in the package nor beside it.

    """
    folders = [_PACKAGE / "web_client", _PACKAGE.parent / "clients" / "web" / "src"]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"the web client is in none of {', '.join(map(str, folders))}: "
        "install streamer from a wheel, or with `pip install -e` from a clone"
    )


class ClientFiles:
    """
    The files of the web client, with their route.

    Args:
        folder: Where the files are. They are read at the first request for them.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def routes(self) -> list[BaseRoute]:
        return bind([(MODULE, self)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        name: str = scope["path_params"]["file"]
        headers: Mapping[str, str] = {}
        version, _, rest = name.partition("/")
        if version == self.version:
            name, headers = rest, _IMMUTABLE
        # Only names that were found are looked up: no name leads out of the folder.
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        await file.respond(request, headers)(scope, receive, send)

    @cached_property
    def version(self) -> str:
        """What identifies the content of all files: 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, file in self._files.items():
            digest.update(f"{name}\0{file.digest}\n".encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _files(self) -> dict[str, StaticFile]:
        return {
            str(found.relative_to(self._folder)): StaticFile(
                _MEDIA, found.read_bytes, _HEADERS
            )
            for found in sorted(self._folder.rglob("*.js"))
        }
