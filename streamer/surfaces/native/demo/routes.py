"""
The page ``/demo``: two players side by side, on this server.

Decides only which service an operation calls, and what a browser may load for the page.
The page needs no credential; `service.access.demo_sessions` says why that is safe.
Knows Starlette.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from ....contract.binding import Endpoints, bind
from ....contract.client_files import ClientFiles
from ....contract.responses import json_response
from ....contract.static_file import StaticFile
from ....model import Notification, iso_time
from ....service.access.demo_sessions import DemoSessions
from ..common import problems
from . import contract

__all__ = ["Demo"]

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SECRET: Final = {"Cache-Control": "no-store"}
_CLIENT: Final = b"../client/"

_encode: Final = msgspec.json.Encoder().encode


class Demo:
    """
    The page and its operations, with their routes.

    Args:
        sessions: The sessions of the demo.
        client: The modules of the web client, of which the page loads this version.

    """

    def __init__(self, sessions: DemoSessions, client: ClientFiles) -> None:
        self._sessions = sessions
        self._client = client

    def routes(self) -> list[BaseRoute]:
        return [
            *bind(
                [
                    (contract.PAGE, _file("page.html", "text/html")),
                    (
                        contract.SCRIPT,
                        StaticFile("text/javascript", self._script, _HEADERS),
                    ),
                    (contract.LINE, _file("line.js", "text/javascript")),
                    (contract.STYLE, _file("page.css", "text/css")),
                ]
            ),
            *Endpoints(_anybody, lambda error, _: problems.problem(error)).bind(
                (contract.OPEN, self.open),
                (contract.PUBLISH, self.publish),
            ),
        ]

    async def open(self, request: Request, _: None) -> Response:
        body = await contract.SESSION_BODY.read(request)
        opened = await self._sessions.open(body.session)
        response = contract.SessionResponse(
            opened.session,
            opened.topic,
            [contract.PlayerResponse(*player) for player in opened.players],
            iso_time(opened.expires_at_s * 1_000),
        )
        return json_response(_encode(response), headers=_SECRET)

    async def publish(self, request: Request, _: None) -> Response:
        body = await contract.PUBLISH_BODY.read(request)
        notification = Notification(
            type="demo",
            title=body.title,
            body=body.body or None,
            priority=body.priority,
            source="native",
        )
        stored = await self._sessions.publish(body.session, body.to, notification)
        response = contract.PublishedResponse(stored or msgspec.UNSET)
        return json_response(_encode(response), headers=_SECRET)

    def _script(self) -> bytes:
        version = f"{self._client.version}/".encode()
        return _read("page.js").replace(_CLIENT, _CLIENT + version)


async def _anybody(request: Request) -> None:
    """Return the caller of an operation that needs no credential."""


def _file(name: str, media: str) -> StaticFile:
    return StaticFile(media, lambda: _read(name), _HEADERS)


def _read(name: str) -> bytes:
    return (files(__package__) / name).read_bytes()
