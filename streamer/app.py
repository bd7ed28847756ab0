"""
The composition root: builds the surfaces on the components, and opens nothing.

`build` makes the whole object graph from the settings, without I/O. All background
tasks run in `App.run`, which the process owns. A task that fails ends the process: a
server that answers and delivers nothing is worse than one that restarts.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, cast

from starlette.convertors import register_url_convertor
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from .asyncapi import stream_document
from .components import Components
from .config import VENDORS, Config, parse_grant
from .contract.client_files import ClientFiles, client_folder
from .contract.direct import DirectOperations
from .contract.fallbacks import Fallbacks
from .contract.pages import Pages
from .core.access.roles import Grant, Role
from .metrics.registry import Metrics
from .model import App as AppName
from .openapi import document, surfaces_of
from .service.access.console_logins import ConsoleLogins
from .service.access.console_sessions import ConsoleSessions, People
from .service.access.demo_sessions import DEMO_APP, DemoSessions, demo_logs
from .service.access.minting import TokenMint
from .service.access.oidc_issuer import Client, OidcIssuer
from .service.inboxes.search import InboxSearch
from .service.inboxes.topics import TopicOperations
from .service.node.console_facts import ConsoleFacts
from .service.node.request_context import request_id
from .service.scheduling.campaigns import CampaignOperations
from .service.tracing.spans import StartTracing
from .store.access.rates import Rates
from .store.access.sandboxes import Sandboxes
from .store.client.faults import StoreFaults
from .store.logs.mutes import Mutes
from .store.logs.receipts import ReceiptStore
from .store.scheduling.campaigns import Campaigns
from .store.scheduling.registered_texts import RegisteredTexts
from .surfaces.gateway.routes import Gateway
from .surfaces.lootlocker.routes import LootLocker
from .surfaces.lootlocker.server_sessions import ServerSessions
from .surfaces.native.admin.routes import NativeAdmin
from .surfaces.native.campaigns.routes import NativeCampaigns
from .surfaces.native.common import problems
from .surfaces.native.console.routes import Console, ConsoleParts
from .surfaces.native.contract import NATIVE
from .surfaces.native.demo.routes import Demo
from .surfaces.native.inboxes.routes import NativeInboxes
from .surfaces.native.privacy.routes import NativePrivacy
from .surfaces.native.publishing.routes import NativePublishing
from .surfaces.native.routes import Native
from .surfaces.native.topics.routes import NativeTopics
from .surfaces.operations.routes import Operations
from .surfaces.rallyhere.routes import RallyHere
from .surfaces.teak.deliveries import Deliveries
from .surfaces.teak.routes import Teak
from .surfaces.walletwerk.campaign_sends import CampaignSends
from .surfaces.walletwerk.routes import WalletWerk
from .transports.web.access_log import AccessLog
from .transports.web.base_path import BasePath
from .transports.web.forwarded import TrustedProxies
from .transports.web.requests import AnyText
from .transports.web.routing import Application
from .transports.web.traced_exchange import TracedExchange

__all__ = ["App", "build"]

READY_POLL_S: Final = 0.005

FLUSH_S: Final = 1.0
"""How long a drain waits for the collector of traces, if its window is shorter."""

_FALLBACKS: Final = {
    "rallyhere": RallyHere.fallback,
    "lootlocker": LootLocker.fallback,
    "gateway": Gateway.fallback,
    "teak": Teak.fallback,
    "walletwerk": WalletWerk.fallback,
}
"""By the names of `VENDORS`."""


class App:
    """
    A built server.

    `asgi` answers requests while `run` runs, and `direct` some of them beneath ASGI.
    `drain` disconnects the readers. `metrics` are those of this process.
    """

    asgi: ASGIApp
    direct: DirectOperations
    metrics: Metrics

    def __init__(self, components: Components) -> None:
        self.admission = components.admission
        self._components = components
        self.metrics = _metrics(self, components)
        application = _asgi(self, components)
        log = AccessLog(
            application,
            components.counters,
            lines=components.config.access_log,
            probes=components.config.access_log_probes,
            players=components.player_names,
            failures=components.failures,
            history=components.history,
            exchange=partial(TracedExchange, components.tracing)
            if components.tracing is not None
            else None,
        )
        self.asgi = log
        proxies = None
        if components.config.base_path:
            self.asgi = BasePath(self.asgi, components.config.base_path)
        if components.config.trusted_proxies:
            proxies = TrustedProxies(self.asgi, components.config.trusted_proxies)
            self.asgi = proxies
        self.direct = DirectOperations(
            application.routes,
            log,
            fail=application.failed,
            proxies=proxies,
            prefix=components.config.base_path,
            allows_origins=bool(components.origins),
        )

    async def run(self) -> None:
        """Run the tasks of a node until cancelled. Raises if one of them fails."""
        components = self._components
        async with self._connected(), asyncio.TaskGroup() as tasks:
            tasks.create_task(components.admission.run(), name="admission")
            tasks.create_task(components.probe.run(), name="probe")
            tasks.create_task(
                components.revocation_check.run(), name="revocation check"
            )
            tasks.create_task(components.tickets.run(), name="tickets")
            tasks.create_task(components.key_uses.run(), name="key uses")
            tasks.create_task(components.store_watch.run(), name="store watch")
            tasks.create_task(components.load_history.run(), name="history")
            tasks.create_task(components.nodes.run(), name="nodes")
            tasks.create_task(components.erasing.run(), name="erasures")
            tasks.create_task(components.loop_lag.run(), name="loop lag")
            if components.config.background:
                tasks.create_task(components.scheduler.run(), name="scheduler")

    async def run_background(self) -> None:
        """Run the tasks of `streamer scheduler` until cancelled."""
        components = self._components
        async with self._connected(), asyncio.TaskGroup() as tasks:
            tasks.create_task(components.store_watch.run(), name="store watch")
            tasks.create_task(components.loop_lag.run(), name="loop lag")
            tasks.create_task(components.scheduler.run(), name="scheduler")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for fetcher in self._components.fetchers:
                await fetcher.close()
            if self._components.tracing is not None:
                await self._components.tracing.close()
            await self._components.redis.close()
            if self._components.confirmed is not None:
                await self._components.confirmed.close()

    async def ready(self) -> None:
        """Return as soon as a publish would be stored and delivered."""
        # The store has no event for becoming available.
        while self.unready():  # noqa: ASYNC110
            await asyncio.sleep(READY_POLL_S)

    def unready(self) -> str | None:
        """Return why a publish would not be stored and delivered, None if it would."""
        if self.admission.draining:
            return "draining"
        if reason := self._components.store_watch.unready_reason():
            return reason
        if not self._components.probe.is_delivering:
            return "the store is unavailable, or its announcements do not arrive"
        return None

    def facts(self) -> dict[str, str | int]:
        """Return what identifies this process, and the durability of its store."""
        return {
            "node": self.admission.node,
            "pid": os.getpid(),
            "durability": self._components.store_watch.durability,
            "memory": self._components.store_watch.memory,
        }

    async def drain(self) -> None:
        """Disconnect every reader within the drain window; admit no new ones."""
        tracing = self._components.tracing
        if tracing is None:
            await self.admission.drain()
        else:
            # Beside it: a collector that does not answer delays nothing else.
            within_s = max(FLUSH_S, self._components.config.drain_s)
            await asyncio.gather(self.admission.drain(), tracing.flush(within_s))


def build(
    config: Config,
    store_url: str,
    *,
    faults: StoreFaults | None = None,
    start_tracing: StartTracing | None = None,
) -> App:
    """
    Build a server on the store at `store_url`.

    Opens nothing: connections come with `App.run` and the first requests.

    Args:
        config: The settings.
        store_url: The URL of the store, embedded or not.
        faults: What the store refuses, if that is known already.
        start_tracing: Returns what makes traces, for the name of this node. Without,
            there are none.

    """
    return App(Components(config, store_url, faults, start_tracing))


def _metrics(app: App, components: Components) -> Metrics:
    connections = {"commands": components.redis}
    if components.confirmed is not None:
        connections["publishes"] = components.confirmed.redis
    return Metrics(
        components.counters,
        failures=components.failures,
        catch_up=components.catch_up,
        redis=connections,
        scheduler=components.scheduler,
        store_watch=components.store_watch,
        ready=lambda: app.unready() is None,
    )


def _asgi(app: App, components: Components) -> Application:
    operations = Operations(
        app.unready,
        app.facts,
        app.metrics.collect,
        metrics_token=components.config.metrics_token,
    )
    vendors = components.config.surfaces
    fallbacks = Fallbacks(
        _no_route,
        _failed,
        *(_FALLBACKS[vendor] for vendor in VENDORS if vendor in vendors),
    )
    apis = [
        it.title for it in surfaces_of(vendors) if it.name in (NATIVE.name, *VENDORS)
    ]
    pages = Pages(
        lambda: document(vendors),
        stream_document,
        apis,
        docs=components.config.docs,
        demo=components.config.demo_page,
    )
    # Before the first route, which compiles the convertor.
    register_url_convertor("path", AnyText())
    client = ClientFiles(client_folder())
    return Application(
        [
            *_native(components, client),
            *operations.routes(),
            *pages.routes(),
            *client.routes(),
            *_demo(components, client),
            *_vendors(components),
        ],
        middleware=_middleware(components),
        refuse=fallbacks.no_route,
        fail=fallbacks.failed,
    )


def _native(components: Components, client: ClientFiles) -> list[BaseRoute]:
    native = Native(
        authenticator=components.authenticator,
        minting=TokenMint(components.apps),
        tickets=components.tickets,
        streams=components.streams,
        allowed_origins=components.origins,
    )
    publishing = NativePublishing(
        authenticator=components.authenticator,
        publisher=components.publisher,
        schedules=components.schedules,
        receipts=components.receipts,
        in_flight=components.in_flight,
        allowed_origins=components.origins,
    )
    inboxes = NativeInboxes(
        authenticator=components.authenticator,
        inboxes=components.inboxes,
        searching=InboxSearch(components.inboxes),
        receipts=components.receipts,
        in_flight=components.in_flight,
        admission=components.admission,
        allowed_origins=components.origins,
    )
    memberships = TopicOperations(
        components.audiences, Mutes(components.redis), components.audit
    )
    topics = NativeTopics(
        authenticator=components.authenticator,
        memberships=memberships,
        in_flight=components.in_flight,
        allowed_origins=components.origins,
    )
    campaigns = NativeCampaigns(
        authenticator=components.authenticator,
        campaigns=CampaignOperations(Campaigns(components.redis), components.timetable),
        allowed_origins=components.origins,
    )
    admin = NativeAdmin(
        authenticator=components.authenticator,
        administration=components.administration,
        in_flight=components.in_flight,
        allowed_origins=components.origins,
    )
    privacy = NativePrivacy(
        authenticator=components.authenticator,
        audit=components.audit,
        erasing=components.erasing,
        exporting=components.exporting,
        allowed_origins=components.origins,
    )
    surfaces = (publishing, native, inboxes, topics, campaigns, admin, privacy)
    routes = [route for part in surfaces for route in part.routes()]
    if not components.config.console:
        return routes
    console = Console(
        _console_parts(components, memberships),
        client,
        publishing=publishing,
        inboxes=inboxes,
        topics=topics,
        campaigns=campaigns,
        admin=admin,
        privacy=privacy,
    )
    return [*routes, *console.routes()]


def _console_parts(components: Components, topics: TopicOperations) -> ConsoleParts:
    redis = components.redis
    facts = ConsoleFacts(
        redis,
        components.apps,
        components.quota_usage,
        components.quotas.limits,
        ReceiptStore(redis, components.log_settings),
        components.timetable,
        components.nodes,
        components.store_watch,
    )
    sessions, logins = _console_access(components)
    return ConsoleParts(
        sessions,
        logins,
        components.config.console_url,
        facts,
        components.load_history,
        components.apps,
        components.inboxes,
        topics,
        components.audit,
    )


def _console_access(
    components: Components,
) -> tuple[ConsoleSessions, ConsoleLogins | None]:
    config, redis = components.config, components.redis
    people, issuer = None, config.console_oidc_issuer
    if issuer:
        parts = map(parse_grant, config.console_oidc_roles)
        grants = tuple(
            Grant(value, cast(Role, role), AppName(app) if app else None)
            for value, role, app in parts
        )
        client_id, claim = config.console_oidc_client_id, config.console_oidc_claim
        people = People(issuer, client_id, claim, grants)
    sessions = ConsoleSessions(
        *(redis, components.apps, components.key_uses),
        people=people,
        session_ms=config.console_session_s * 1_000,
    )
    if people is None:
        return sessions, None
    client = Client(
        *(issuer, people.client_id, config.console_oidc_client_secret),
        f"{config.console_url}/api/callback",
        config.console_oidc_scope,
    )
    key = components.audit.pseudonyms.key
    oidc_issuer = OidcIssuer(client)
    components.fetchers.append(oidc_issuer)
    logins = ConsoleLogins(*(oidc_issuer, redis, key, sessions), claim=people.claim)
    return sessions, logins


def _demo(components: Components, client: ClientFiles) -> list[BaseRoute]:
    if not components.config.demo_page:
        return []
    redis = components.redis
    sessions = DemoSessions(
        components.apps,
        components.publisher,
        Rates(redis),
        Sandboxes(redis, DEMO_APP, demo_logs),
    )
    return Demo(sessions, client).routes()


def _vendors(components: Components) -> list[BaseRoute]:
    redis = components.redis
    rallyhere = RallyHere(
        authenticator=components.authenticator,
        publisher=components.publisher,
        inboxes=components.inboxes,
        in_flight=components.in_flight,
        admission=components.admission,
        allowed_origins=components.origins,
    )
    lootlocker = LootLocker(
        authenticator=components.authenticator,
        sessions=ServerSessions(redis, components.apps, components.key_uses),
        publisher=components.publisher,
        inboxes=components.inboxes,
        listing=components.numbered_inbox,
        in_flight=components.in_flight,
        retention_ms=components.log_settings.retention_ms,
    )
    gateway = Gateway(
        authenticator=components.authenticator,
        inboxes=components.inboxes,
        listing=components.numbered_inbox,
        in_flight=components.in_flight,
        streams=components.streams,
    )
    teak = Teak(
        authenticator=components.authenticator,
        deliveries=Deliveries(
            components.schedules,
            RegisteredTexts(redis),
            Rates(redis),
            components.counters.refusals,
        ),
    )
    walletwerk = WalletWerk(
        authenticator=components.authenticator,
        sends=CampaignSends(
            redis,
            Campaigns(redis),
            components.timetable,
            components.quotas,
            components.audit,
        ),
        allowed_origins=components.origins,
    )
    routes = {
        "rallyhere": rallyhere.routes(),
        "lootlocker": lootlocker.routes(),
        "gateway": gateway.routes(),
        "teak": teak.routes(),
        "walletwerk": walletwerk.routes(),
    }
    chosen = [it for it in VENDORS if it in components.config.surfaces]
    return [route for vendor in chosen for route in routes[vendor]]


def _middleware(components: Components) -> list[Middleware]:
    if not components.origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=components.origins,
        allow_credentials=True,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
        # Whatever a page of an allowed origin sends: its libraries add headers of their
        # own, such as those of tracing.
        allow_headers=["*"],
        allow_private_network=True,
        expose_headers=["ETag", "Retry-After", "Idempotent-Replayed", "X-Request-Id"],
        max_age=3600,
    )
    return [cors]


def _no_route(error: HTTPException, headers: Headers) -> Response:
    """Return the response to a path or method of no surface, or that is not UTF-8."""
    return problems.problem_response(
        error.status_code,
        {400: "invalid", 404: "not-found"}.get(error.status_code, "not-allowed"),
        error.detail,
        headers=dict(error.headers or {}),
    )


def _failed(headers: Headers) -> Response:
    """Return the response to a request that failed. The log has the traceback."""
    return problems.problem_response(
        500, "internal", "internal server error", request_id=request_id()
    )
