"""
The composition root: builds every part and opens nothing.

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
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from .config import Config
from .core.session import SessionLimits
from .service.authenticator import Authenticator
from .service.campaigns import CampaignSends, CampaignsOfApp
from .service.deliveries import Deliveries
from .service.feeds import Feeds
from .service.inboxes import Inboxes
from .service.key_sets import KeySets
from .service.listening import Listening
from .service.listing import Listing
from .service.minting import Minting
from .service.probe import Probe
from .service.publisher import Publisher
from .service.requests import Requests
from .service.scheduler import Scheduler
from .service.schedules import Schedules
from .service.server_sessions import ServerSessions
from .service.store_watch import StoreWatch
from .service.sweep import Sweep
from .service.tickets import Tickets
from .store.apps import Apps
from .store.campaigns import Campaigns
from .store.devices import Devices
from .store.inbox import DAY_MS, Inbox
from .store.leases import Leases
from .store.link import Link
from .store.lists import Lists
from .store.messages import Messages
from .store.rates import Rates
from .store.replicated import Replicated
from .store.tickets import Tickets as KeptTickets
from .store.timetable import Timetable
from .surfaces.gateway.routes import Gateway
from .surfaces.lootlocker.routes import LootLocker
from .surfaces.native import wire as native_wire
from .surfaces.native.campaign_routes import NativeCampaigns
from .surfaces.native.routes import Native
from .surfaces.operations.routes import Operations
from .surfaces.rallyhere.routes import RallyHere
from .surfaces.teak.routes import Teak
from .surfaces.walletwerk.routes import WalletWerk
from .transports.streams import StreamParts

__all__ = ["App", "build"]

READY_POLL_S: Final = 0.005
STORE_TIMEOUT_S: Final = 5.0


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
        sweep: Sweep,
        tickets: Tickets,
        store_watch: StoreWatch,
        scheduler: Scheduler,
        *,
        confirmed: Replicated | None,
        background: bool,
    ) -> None:
        self.asgi = asgi
        self.listening = listening
        self._link = link
        self._probe = probe
        self._sweep = sweep
        self._tickets = tickets
        self._store_watch = store_watch
        self._scheduler = scheduler
        self._confirmed = confirmed
        self._background = background

    async def run(self) -> None:
        """Run what a node needs until cancelled; raise when a part is broken."""
        async with self._connected(), asyncio.TaskGroup() as tasks:
            tasks.create_task(self.listening.run(), name="listening")
            tasks.create_task(self._probe.run(), name="probe")
            tasks.create_task(self._sweep.run(), name="sweep")
            tasks.create_task(self._tickets.run(), name="tickets")
            if self._background:
                self._start_background(tasks)
            else:
                # What the store is worth has to be known before the node is ready.
                tasks.create_task(self._store_watch.run_once(), name="store watch")

    async def run_background(self) -> None:
        """Run what `streamer scheduler` does, alone, until cancelled."""
        async with self._connected(), asyncio.TaskGroup() as tasks:
            self._start_background(tasks)

    def _start_background(self, tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(self._store_watch.run(), name="store watch")
        tasks.create_task(self._scheduler.run(), name="scheduler")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._link.close()
            if self._confirmed is not None:
                await self._confirmed.close()

    async def ready(self) -> None:
        """Return as soon as a publish would be stored and delivered."""
        # The store has no event for being there.
        while self.unready():  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)

    def unready(self) -> str | None:
        """Say why a publish would not be stored and delivered, None if it would be."""
        if self.listening.draining:
            return "draining"
        if reason := self._store_watch.unready():
            return reason
        if not self._probe.heard:
            return "the store is away, or this node does not hear its announcements"
        return None

    def facts(self) -> dict[str, str | int]:
        """Tell this process from others, and what a publish survives with it."""
        return {
            "node": self.listening.node,
            "pid": os.getpid(),
            "durability": self._store_watch.durability,
        }

    async def drain(self) -> None:
        """Say goodbye to every reader within the drain window; take no new ones."""
        await self.listening.drain()


def build(config: Config, store_url: str) -> App:
    """
    Build a server on the store at `store_url`.

    Opens nothing: connections come with `App.run` and the first requests.
    """
    link = Link(store_url)
    confirmed = _confirmed(config, store_url)
    inbox = Inbox(
        link,
        confirmed=confirmed,
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
    apps, key_sets = Apps(link), KeySets()
    sweep = Sweep(apps, key_sets)
    tickets = Tickets(KeptTickets(link), sweep)
    listening = Listening(feeds, leases, config, sweep, Devices(link, leases.node))
    probe = Probe(link, feeds, leases.node, confirmed=confirmed)
    authenticator = Authenticator(apps, key_sets=key_sets)
    inboxes = Inboxes(inbox)
    publisher = Publisher(link, inbox)
    timetable = Timetable(
        link,
        retention_ms=config.retention_days * DAY_MS,
        entries_max=config.entries_max,
    )
    schedules = Schedules(link, timetable)
    requests = Requests(config)
    origins = frozenset(config.allowed_origins)
    streams = StreamParts(
        authenticator=authenticator,
        listening=listening,
        inboxes=inboxes,
        tickets=tickets,
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
        minting=Minting(apps),
        tickets=tickets,
        streams=streams,
        allowed_origins=origins,
    )
    campaigns = Campaigns(link)
    native_campaigns = NativeCampaigns(
        authenticator=authenticator,
        campaigns=CampaignsOfApp(campaigns, timetable),
        allowed_origins=origins,
    )
    teak = Teak(
        authenticator=authenticator,
        deliveries=Deliveries(schedules, Messages(link), Rates(link)),
    )
    walletwerk = WalletWerk(
        authenticator=authenticator,
        sends=CampaignSends(link, campaigns, timetable),
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
    listing = Listing(Lists(link, retention_ms=config.retention_days * DAY_MS))
    lootlocker = LootLocker(
        authenticator=authenticator,
        sessions=ServerSessions(link, apps),
        publisher=publisher,
        inboxes=inboxes,
        listing=listing,
        requests=requests,
        retention_ms=config.retention_days * DAY_MS,
    )
    gateway = Gateway(
        authenticator=authenticator,
        inboxes=inboxes,
        listing=listing,
        requests=requests,
        streams=streams,
    )
    operations = Operations(lambda: app.unready(), lambda: app.facts())
    asgi = Starlette(
        routes=[
            *operations.routes(),
            *native.routes(),
            *native_campaigns.routes(),
            *rallyhere.routes(),
            *teak.routes(),
            *walletwerk.routes(),
            *lootlocker.routes(),
            *gateway.routes(),
        ],
        middleware=_middleware(config),
        exception_handlers={HTTPException: _no_route, Exception: _broken},
    )
    # A redirect to another spelling would be built from the caller's Host.
    asgi.router.redirect_slashes = False
    app = App(
        asgi,
        link,
        listening,
        probe,
        sweep,
        tickets,
        StoreWatch(link, config),
        Scheduler(timetable),
        confirmed=confirmed,
        background=config.background,
    )
    return app


def _confirmed(config: Config, store_url: str) -> Replicated | None:
    if config.durability != "replicated":
        return None
    timeout_ms = config.replication_timeout_ms
    link = Link(
        store_url,
        name="streamer-publish",
        timeout_s=STORE_TIMEOUT_S + timeout_ms / 1000,
    )
    return Replicated(link, replicas_min=config.replicas_min, timeout_ms=timeout_ms)


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
