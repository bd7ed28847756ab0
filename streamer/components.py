"""
The components of a server, built from the settings.

Knows which component needs which. Knows nothing of surfaces: `app` adds them. Nothing
here does any I/O: connections are opened on first use, and `app.App` runs the
background tasks.
"""

from __future__ import annotations

from pathlib import Path

from .config import Config
from .core.counters import Counters
from .core.quotas import QuotaLimits
from .core.streams.session import SessionLimits
from .origins import AllowedOrigins
from .service.access.authenticator import Authenticator
from .service.access.failures import FailedAuthentications
from .service.access.key_sets import KeySets
from .service.access.key_uses import KeyUses
from .service.access.oidc_issuer import OidcIssuer
from .service.access.revocation import RevocationCheck
from .service.access.tickets import Tickets
from .service.inboxes.audiences import PlayerAudiences
from .service.inboxes.inbox import InboxOperations
from .service.inboxes.merge import MergedInbox
from .service.inboxes.numbered import NumberedInbox
from .service.inboxes.receipts import ReceiptOperations
from .service.inspection.history import History
from .service.inspection.local_node import LocalNode
from .service.inspection.nodes import Nodes
from .service.inspection.operations import Administration
from .service.node.in_flight import InFlight
from .service.node.load_history import LoadHistory
from .service.node.loop_lag import LoopLag
from .service.node.player_names import PlayerNames
from .service.node.quotas import Quotas
from .service.node.store_watch import OtherConnection, StoreWatch
from .service.privacy.audit import Audit
from .service.privacy.erasure import Erasing
from .service.privacy.export import Exporting
from .service.privacy.purging import Purging
from .service.publishing.publisher import Publisher
from .service.scheduling.scheduler import Scheduler
from .service.scheduling.schedules import Schedules
from .service.streams.admission import Admission
from .service.streams.catch_up import CatchUp
from .service.streams.probe import Probe
from .service.tracing.deliveries import DeliveryTraces
from .service.tracing.publishing import TracedInbox, TracedPublisher
from .service.tracing.scheduling import TracedTimetable
from .service.tracing.spans import StartTracing
from .store.access.apps import Apps
from .store.access.quotas import QuotaUsage
from .store.access.tickets import TicketStore
from .store.client.address import StoreAddress
from .store.client.cluster import redis_at
from .store.client.connection import TIMEOUT_S
from .store.client.faults import StoreFaults
from .store.client.replicated import Replicated
from .store.client.sentinel import address_at
from .store.client.terms import Terms
from .store.logs.inbox import Inbox
from .store.logs.mutes import Mutes
from .store.logs.numbered import NumberedLists
from .store.logs.page_reads import PageReads
from .store.logs.receipts import ReceiptStore
from .store.logs.settings import DAY_MS, LogSettings
from .store.logs.views import Views
from .store.presence.devices import Devices
from .store.presence.leases import Leases
from .store.presence.node_channel import NodeChannel
from .store.presence.sightings import Sightings
from .store.privacy.traces import Traces
from .store.scheduling.notices import Notices
from .store.scheduling.timetable import Timetable
from .transports.streams.opening import StreamComponents

__all__ = ["Components"]


class Components:
    """
    The components of one node.

    Args:
        config: The settings.
        store_url: The URL of the store, embedded or not.
        faults: What the store refuses, if that is known already.
        start_tracing: Returns what makes traces, for the name of this node.

    """

    def __init__(
        self,
        config: Config,
        store_url: str,
        faults: StoreFaults | None = None,
        start_tracing: StartTracing | None = None,
    ) -> None:
        self.config = config
        self.log_settings = settings = LogSettings(
            retention_ms=config.retention_days * DAY_MS, entries_max=config.entries_max
        )
        self.origins = AllowedOrigins(config.allowed_origins)

        self.player_names = PlayerNames(config.log_players, config.log_key)
        self.counters = Counters()
        self.failures = FailedAuthentications()
        self.history = History()
        address = address_at(store_url)
        faults = faults or StoreFaults(address.where)
        self.redis = redis_at(address, namespace=config.namespace, faults=faults)
        self.confirmed = _confirmed(config, address, faults, self.redis.terms)
        self.apps = Apps(self.redis)
        self.audit = Audit(
            self.redis, self.apps, names_players=config.log_players == "name"
        )
        leases = Leases(
            self.redis, leases_max=config.listeners_per_player_max, faults=faults
        )
        self.tracing = start_tracing(leases.node) if start_tracing else None
        inbox = Inbox(self.redis, settings, confirmed=self.confirmed)
        self.timetable = self._timetable()

        views = Views(self.redis, settings)
        audiences = PlayerAudiences(views, inbox)

        # Access.
        key_sets = KeySets()
        self.fetchers: list[KeySets | OidcIssuer] = [key_sets]
        self.key_uses = KeyUses(self.apps, faults=faults)
        self.authenticator = Authenticator(
            self.apps, key_sets=key_sets, key_uses=self.key_uses
        )
        self.revocation_check = RevocationCheck(self.apps, key_sets, faults=faults)
        self.tickets = Tickets(
            TicketStore(self.redis), self.revocation_check, faults=faults
        )

        # Streams.
        catch_up = CatchUp(
            address,
            inbox,
            audiences,
            replay_max=config.replay_max,
            check_s=config.position_check_s,
            namespace=config.namespace,
            counters=self.counters,
            history=self.history,
            faults=faults,
            traces=DeliveryTraces(self.tracing, self.player_names)
            if self.tracing is not None
            else None,
        )
        self.catch_up = catch_up
        devices = Devices(self.redis, leases.node)
        self.admission = Admission(
            catch_up,
            leases,
            config,
            self.revocation_check,
            devices,
            self.counters,
            self.failures,
            self.history,
        )
        self.probe = Probe(
            self.redis,
            catch_up,
            leases.node,
            confirmed=self.confirmed,
            took_s=self.counters.probe_s,
            faults=faults,
        )

        # Publishing, scheduling and inboxes.
        self.quota_usage = QuotaUsage(self.redis, settings)
        self.quotas = Quotas(
            self.authenticator.app_record,
            self.quota_usage,
            QuotaLimits(
                publishes_per_s=config.publishes_per_s_max,
                bytes_per_day=config.bytes_per_day_max,
                players=config.players_max,
                pending_schedules=config.pending_schedules_max,
            ),
            refusals=self.counters.refusals,
        )
        purging = Purging(inbox, self.timetable)
        self.publisher = self._publisher(inbox, purging)
        self.schedules = Schedules(
            self.redis, self.timetable, self.quotas, audit=self.audit
        )
        merged = MergedInbox(inbox, PageReads(self.redis, inbox, views), audiences)
        self.audiences = audiences
        receipts = ReceiptStore(self.redis, settings)
        self.receipts = ReceiptOperations(receipts, audiences, self.history)
        self.inboxes = InboxOperations(
            inbox, merged, audiences, purging=purging, audit=self.audit
        )
        lists = NumberedLists(self.redis, settings)
        self.numbered_inbox = NumberedInbox(lists, merged, audiences)
        self.erasing = Erasing(
            self.redis,
            self.apps,
            audiences,
            self.audit,
            data_dir=Path(config.data_dir)
            if config.data_dir and not config.redis
            else None,
            faults=faults,
        )
        self.exporting = Exporting(
            self.apps,
            inbox,
            receipts,
            audiences,
            Mutes(self.redis),
            self.timetable,
            Traces(self.redis, settings),
            self.audit,
        )
        self.in_flight = InFlight(config, self.counters)
        self.streams = self._streams()

        # Administration.
        channel = NodeChannel(
            address,
            self.redis,
            leases.node,
            namespace=config.namespace,
            faults=faults,
        )

        # Background tasks.
        self.loop_lag = LoopLag(self.counters.loop_lag_s, logged_ms=config.loop_lag_ms)
        notices = Notices(address, namespace=config.namespace, faults=faults)
        self.scheduler = Scheduler(
            self.timetable,
            notices=notices,
            lag_s=self.counters.schedule_lag_s,
            faults=faults,
        )
        others: list[OtherConnection] = [catch_up, notices, channel]
        self.store_watch = StoreWatch(
            self.redis,
            config,
            faults=faults,
            others=others,
            confirmed=None if self.confirmed is None else self.confirmed.redis,
        )
        self.load_history = LoadHistory(self.counters, self.store_watch)

        # What nodes tell each other.
        local = LocalNode(
            catch_up.hub,
            self.admission.connection_log,
            self.history,
            self.load_history,
            draining=lambda: self.admission.draining,
        )
        self.nodes = Nodes(self.redis, channel, local.answer)
        self.administration = Administration(
            self.nodes,
            Sightings(self.redis),
            inbox,
            self.inboxes,
            audiences,
            self.receipts,
            self.player_names,
            self.audit,
        )

    def _timetable(self) -> Timetable:
        if self.tracing is None:
            return Timetable(self.redis, self.log_settings, confirmed=self.confirmed)
        return TracedTimetable(
            self.tracing,
            self.player_names,
            self.redis,
            self.log_settings,
            confirmed=self.confirmed,
        )

    def _publisher(self, inbox: Inbox, purging: Purging) -> Publisher:
        more = self.counters, self.quotas, self.audit, purging
        if self.tracing is None:
            return Publisher(self.redis, inbox, *more)
        traced = TracedInbox(
            self.tracing, self.redis, self.log_settings, confirmed=self.confirmed
        )
        return TracedPublisher(
            self.tracing, self.player_names, self.redis, traced, *more
        )

    def _streams(self) -> StreamComponents:
        config = self.config
        return StreamComponents(
            authenticator=self.authenticator,
            admission=self.admission,
            inboxes=self.inboxes,
            tickets=self.tickets,
            receipts=self.receipts,
            limits=SessionLimits(
                heartbeat_s=config.heartbeat_s,
                send_buffer_bytes=config.send_buffer_bytes,
                send_age_s=config.send_age_s,
            ),
            allowed_origins=self.origins,
            auth_timeout_s=config.auth_timeout_s,
        )


def _confirmed(
    config: Config, address: StoreAddress, faults: StoreFaults, terms: Terms
) -> Replicated | None:
    if config.durability != "replicated":
        return None
    timeout_ms = config.replication_timeout_ms
    redis = redis_at(
        address,
        namespace=config.namespace,
        name="streamer-publish",
        timeout_s=TIMEOUT_S + timeout_ms / 1000,
        faults=faults,
        terms=terms,
    )
    return Replicated(redis, replicas_min=config.replicas_min, timeout_ms=timeout_ms)
