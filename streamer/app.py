"""
The composition root: puts the surfaces on the parts, and opens nothing.

`build` makes the whole object graph from the settings, without I/O. What has to run
runs in `App.run`, which the process owns: a part that dies takes the process with it,
because a server that goes on answering while it delivers nothing is worse than none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.convertors import register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from .components import Parts
from .config import Config
from .contract.pages import Pages
from .metrics.registry import Metrics
from .openapi import document
from .service.access.minting import Minting
from .service.inboxes.search import Searching
from .service.inboxes.topics import Memberships
from .service.node.request_context import request_id
from .service.scheduling.campaigns import CampaignSends, CampaignsOfApp
from .store.access.rates import Rates
from .store.logs.mutes import Mutes
from .store.scheduling.campaigns import Campaigns
from .store.scheduling.registered_texts import Messages
from .surfaces.gateway.routes import Gateway
from .surfaces.lootlocker.routes import LootLocker
from .surfaces.lootlocker.server_sessions import ServerSessions
from .surfaces.native.campaigns.routes import NativeCampaigns
from .surfaces.native.common import wire as native_wire
from .surfaces.native.inboxes.routes import NativeInboxes
from .surfaces.native.publishing.routes import NativePublishing
from .surfaces.native.routes import Native
from .surfaces.native.topics.routes import NativeTopics
from .surfaces.operations.routes import Operations
from .surfaces.rallyhere.routes import RallyHere
from .surfaces.teak.deliveries import Deliveries
from .surfaces.teak.routes import Teak
from .surfaces.walletwerk.routes import WalletWerk
from .transports.web.access_log import AccessLog
from .transports.web.requests import AnyText
from .transports.web.routing import Application

__all__ = ["App", "build"]

READY_POLL_S: Final = 0.005


class App:
    """
    A built server.

    `asgi` answers requests; `run` has to run beside it; `drain` sends readers away.
    `metrics` are those of this process.
    """

    asgi: ASGIApp
    metrics: Metrics

    def __init__(self, parts: Parts) -> None:
        self.listening = parts.listening
        self._parts = parts
        self.metrics = _metrics(self, parts)
        self.asgi = AccessLog(
            _asgi(self, parts), parts.figures, lines=parts.config.access_log
        )

    async def run(self) -> None:
        """Run what a node needs until cancelled; raise when a part is broken."""
        parts = self._parts
        async with self._connected(), asyncio.TaskGroup() as tasks:
            tasks.create_task(parts.listening.run(), name="listening")
            tasks.create_task(parts.probe.run(), name="probe")
            tasks.create_task(parts.sweep.run(), name="sweep")
            tasks.create_task(parts.tickets.run(), name="tickets")
            if parts.config.background:
                self._start_background(tasks)
            else:
                # What the store is worth has to be known before the node is ready.
                tasks.create_task(parts.store_watch.run_once(), name="store watch")

    async def run_background(self) -> None:
        """Run what `streamer scheduler` does, alone, until cancelled."""
        async with self._connected(), asyncio.TaskGroup() as tasks:
            self._start_background(tasks)

    def _start_background(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self._parts.store_watch.run(), name="store watch")
        tasks.create_task(self._parts.scheduler.run(), name="scheduler")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._parts.link.close()
            if self._parts.confirmed is not None:
                await self._parts.confirmed.close()

    async def ready(self) -> None:
        """Return as soon as a publish would be stored and delivered."""
        # The store has no event for being there.
        while self.unready():  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)

    def unready(self) -> str | None:
        """Say why a publish would not be stored and delivered, None if it would be."""
        if self.listening.draining:
            return "draining"
        if reason := self._parts.store_watch.unready():
            return reason
        if not self._parts.probe.heard:
            return "the store is away, or this node does not hear its announcements"
        return None

    def facts(self) -> dict[str, str | int]:
        """Tell this process from others, and what a publish survives with it."""
        return {
            "node": self.listening.node,
            "pid": os.getpid(),
            "durability": self._parts.store_watch.durability,
        }

    async def drain(self) -> None:
        """Say goodbye to every reader within the drain window; take no new ones."""
        await self.listening.drain()


def build(config: Config, store_url: str) -> App:
    """
    Build a server on the store at `store_url`.

    Opens nothing: connections come with `App.run` and the first requests.
    """
    return App(Parts(config, store_url))


def _metrics(app: App, parts: Parts) -> Metrics:
    links = {"commands": parts.link}
    if parts.confirmed is not None:
        links["publishes"] = parts.confirmed.link
    return Metrics(
        parts.figures,
        feeds=parts.feeds,
        links=links,
        scheduler=parts.scheduler,
        ready=lambda: app.unready() is None,
    )


def _asgi(app: App, parts: Parts) -> Starlette:
    operations = Operations(
        app.unready,
        app.facts,
        app.metrics.collect,
        metrics_token=parts.config.metrics_token,
    )
    # In front of the first route, which compiles it.
    register_url_convertor("path", AnyText())
    return Application(
        [
            *_native(parts),
            *operations.routes(),
            *Pages(document).routes(),
            *_vendors(parts),
        ],
        middleware=_middleware(parts.config),
        refuse=_no_route,
        fail=_broken,
    )


def _native(parts: Parts) -> list[BaseRoute]:
    native = Native(
        authenticator=parts.authenticator,
        minting=Minting(parts.apps),
        tickets=parts.tickets,
        streams=parts.streams,
        allowed_origins=parts.origins,
    )
    publishing = NativePublishing(
        authenticator=parts.authenticator,
        publisher=parts.publisher,
        schedules=parts.schedules,
        receipts=parts.receipts,
        requests=parts.requests,
        allowed_origins=parts.origins,
    )
    inboxes = NativeInboxes(
        authenticator=parts.authenticator,
        inboxes=parts.inboxes,
        searching=Searching(parts.inboxes, parts.audiences),
        receipts=parts.receipts,
        requests=parts.requests,
        allowed_origins=parts.origins,
    )
    topics = NativeTopics(
        authenticator=parts.authenticator,
        memberships=Memberships(parts.audiences, Mutes(parts.link)),
        requests=parts.requests,
        allowed_origins=parts.origins,
    )
    campaigns = NativeCampaigns(
        authenticator=parts.authenticator,
        campaigns=CampaignsOfApp(Campaigns(parts.link), parts.timetable),
        allowed_origins=parts.origins,
    )
    rooms = (publishing, native, inboxes, topics, campaigns)
    return [route for room in rooms for route in room.routes()]


def _vendors(parts: Parts) -> list[BaseRoute]:
    link = parts.link
    rallyhere = RallyHere(
        authenticator=parts.authenticator,
        publisher=parts.publisher,
        inboxes=parts.inboxes,
        requests=parts.requests,
        listening=parts.listening,
        allowed_origins=parts.origins,
    )
    lootlocker = LootLocker(
        authenticator=parts.authenticator,
        sessions=ServerSessions(link, parts.apps),
        publisher=parts.publisher,
        inboxes=parts.inboxes,
        listing=parts.listing,
        requests=parts.requests,
        retention_ms=parts.retention_ms,
    )
    gateway = Gateway(
        authenticator=parts.authenticator,
        inboxes=parts.inboxes,
        listing=parts.listing,
        requests=parts.requests,
        streams=parts.streams,
    )
    teak = Teak(
        authenticator=parts.authenticator,
        deliveries=Deliveries(
            parts.schedules, Messages(link), Rates(link), parts.figures.refusals
        ),
    )
    walletwerk = WalletWerk(
        authenticator=parts.authenticator,
        sends=CampaignSends(link, Campaigns(link), parts.timetable, parts.quotas),
        allowed_origins=parts.origins,
    )
    surfaces = (rallyhere, lootlocker, gateway, teak, walletwerk)
    return [route for surface in surfaces for route in surface.routes()]


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
            "X-Session-Token",
            # What LootLocker's SDK adds to each request of a game in a browser.
            "LL-Request-Id",
            "LL-Version",
            "SDK-Version",
            "User-Instance-Identifier",
            "X-Request-Id",
        ],
        expose_headers=["ETag", "Retry-After", "Idempotent-Replayed", "X-Request-Id"],
        max_age=3600,
    )
    return [cors]


def _no_route(error: HTTPException) -> Response:
    """Answer a path or method that no surface has."""
    return native_wire.problem_response(
        error.status_code,
        "not-found" if error.status_code == 404 else "not-allowed",
        error.detail,
        headers=dict(error.headers or {}),
    )


def _broken() -> Response:
    """Answer what is a fault of ours; the log has it, with its traceback."""
    return native_wire.problem_response(
        500, "internal", "this is a fault of ours", request_id=request_id()
    )
