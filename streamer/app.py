"""
The composition root: builds every part and opens nothing.

`build` makes the whole object graph from the settings, without I/O. What has to run
runs in `App.run`, which the process owns: a part that dies takes the process with it,
because a server that goes on answering while it delivers nothing is worse than none.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from .config import Config
from .core.session import SessionLimits
from .service.authenticator import Authenticator
from .service.feeds import Feeds
from .service.inboxes import Inboxes
from .service.listening import Listening
from .service.probe import Probe
from .service.publisher import Publisher
from .service.requests import Requests
from .service.scheduler import Scheduler
from .service.schedules import Schedules
from .store.apps import Apps
from .store.inbox import DAY_MS, Inbox
from .store.leases import Leases
from .store.link import Link
from .store.timetable import Timetable
from .surfaces.native import wire as native_wire
from .surfaces.native.routes import Native
from .surfaces.operations.routes import Operations
from .surfaces.rallyhere.routes import RallyHere
from .transports.streams import StreamParts

__all__ = ["App", "build"]

READY_POLL_S: Final = 0.005


class App:
    """
    A built server.

    `asgi` answers requests; `run` has to run beside it; `drain` sends readers away.
    """

    def __init__(
        self,
        asgi: ASGIApp,
        link: Link,
        listening: Listening,
        probe: Probe,
        scheduler: Scheduler | None,
    ) -> None:
        self.asgi = asgi
        self.listening = listening
        self._link = link
        self._probe = probe
        self._scheduler = scheduler

    async def run(self) -> None:
        """Run the background parts until cancelled; raise when one is broken."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.listening.run(), name="listening")
                tasks.create_task(self._probe.run(), name="probe")
                if self._scheduler is not None:
                    tasks.create_task(self._scheduler.run(), name="scheduler")
        finally:
            await self._link.close()

    async def ready(self) -> None:
        """Return as soon as a publish would be stored and delivered."""
        # The store has no event for being there.
        while self.unready():  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)

    def unready(self) -> str | None:
        """Say why a publish would not be stored and delivered, None if it would be."""
        if self.listening.draining:
            return "draining"
        if not self._probe.heard:
            return "the store is away, or this node does not hear its announcements"
        return None

    async def drain(self) -> None:
        """Say goodbye to every reader within the drain window; take no new ones."""
        await self.listening.drain()


def build(config: Config, store_url: str) -> App:
    """
    Build a server on the store at `store_url`.

    Opens nothing: connections come with `App.run` and the first requests.
    """
    link = Link(store_url)
    inbox = Inbox(
        link,
        retention_ms=config.retention_days * DAY_MS,
        entries_max=config.entries_max,
    )
    feeds = Feeds(
        store_url,
        inbox,
        replay_max=config.replay_max,
        check_s=config.position_check_s,
    )
    leases = Leases(link, most=config.listeners_per_player_max)
    listening = Listening(feeds, leases, config)
    probe = Probe(link, feeds, leases.node)
    authenticator = Authenticator(Apps(link))
    inboxes = Inboxes(inbox)
    publisher = Publisher(link, inbox)
    timetable = Timetable(
        link,
        retention_ms=config.retention_days * DAY_MS,
        entries_max=config.entries_max,
    )
    schedules = Schedules(link, timetable, clock_s=time.time)
    requests = Requests(config)
    origins = frozenset(config.allowed_origins)
    streams = StreamParts(
        authenticator=authenticator,
        listening=listening,
        inboxes=inboxes,
        limits=SessionLimits(
            heartbeat_s=config.heartbeat_s,
            send_buffer_bytes=config.send_buffer_bytes,
            send_age_s=config.send_age_s,
        ),
        allowed_origins=origins,
        auth_timeout_s=config.auth_timeout_s,
    )
    native = Native(
        authenticator=authenticator,
        publisher=publisher,
        schedules=schedules,
        inboxes=inboxes,
        requests=requests,
        streams=streams,
        allowed_origins=origins,
    )
    rallyhere = RallyHere(
        authenticator=authenticator,
        publisher=publisher,
        inboxes=inboxes,
        requests=requests,
        listening=listening,
        allowed_origins=origins,
    )
    operations = Operations(lambda: app.unready())
    asgi = Starlette(
        routes=[*operations.routes(), *native.routes(), *rallyhere.routes()],
        middleware=_middleware(config),
        exception_handlers={HTTPException: _no_route, Exception: _broken},
    )
    scheduler = Scheduler(timetable) if config.background else None
    app = App(asgi, link, listening, probe, scheduler)
    return app


def _middleware(config: Config) -> list[Middleware]:
    if not config.allowed_origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=config.allowed_origins,
        allow_credentials=True,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "If-None-Match",
            "Last-Event-ID",
            "X-Auth-Token",
        ],
        expose_headers=["ETag", "Retry-After", "Idempotent-Replayed"],
        max_age=3600,
    )
    return [cors]


async def _no_route(request: Request, error: Exception) -> Response:
    """Answer a path or method that no surface has."""
    assert isinstance(error, HTTPException)
    return native_wire.problem_response(
        error.status_code,
        "not-found" if error.status_code == 404 else "not-allowed",
        error.detail,
        headers=dict(error.headers or {}),
    )


async def _broken(request: Request, error: Exception) -> Response:
    """Answer what is a fault of ours; Starlette logs it with its traceback."""
    return native_wire.problem_response(500, "internal", "this is a fault of ours")
