"""
The parts of a server, built from the settings and not opened.

Knows which part needs which, and nothing of surfaces: `app` puts those on top. Nothing
here does any I/O; connections come with the first use, and what has to run is run by
`app.App`.
"""

from __future__ import annotations

from typing import Final

from .config import Config
from .core.counters import Figures
from .core.quotas import Limits
from .core.streams.session import SessionLimits
from .service.access.authenticator import Authenticator
from .service.access.key_sets import KeySets
from .service.access.revocation import Sweep
from .service.access.tickets import Tickets
from .service.inboxes.audiences import Audiences
from .service.inboxes.inbox import Inboxes
from .service.inboxes.merge import Merged
from .service.inboxes.numbered import Listing
from .service.inboxes.receipts import Receipts
from .service.node.in_flight import Requests
from .service.node.quotas import Quotas
from .service.node.store_watch import StoreWatch
from .service.publishing.publisher import Publisher
from .service.scheduling.scheduler import Scheduler
from .service.scheduling.schedules import Schedules
from .service.streams.admission import Listening
from .service.streams.catch_up import Feeds
from .service.streams.probe import Probe
from .store.access.apps import Apps
from .store.access.quotas import UsedQuotas
from .store.access.tickets import Tickets as KeptTickets
from .store.client.connection import Link
from .store.client.replicated import Replicated
from .store.logs.entries import Retention
from .store.logs.inbox import DAY_MS, Inbox
from .store.logs.numbered import Lists
from .store.logs.page_reads import Overviews
from .store.logs.receipts import Receipts as KeptReceipts
from .store.logs.views import Views
from .store.presence.devices import Devices
from .store.presence.leases import Leases
from .store.scheduling.timetable import Timetable
from .transports.streams.opening import StreamParts

__all__ = ["Parts"]

STORE_TIMEOUT_S: Final = 5.0


class Parts:
    """
    One node's parts.

    Args:
        config: The settings.
        store_url: Where the store is, whether embedded or not.

    """

    def __init__(self, config: Config, store_url: str) -> None:
        self.config = config
        self.retention_ms = config.retention_days * DAY_MS
        retention = Retention(self.retention_ms)
        self.origins = frozenset(config.allowed_origins)

        self.figures = Figures()
        self.link = Link(store_url)
        self.confirmed = _confirmed(config, store_url)
        self.apps = Apps(self.link)
        inbox = Inbox(
            self.link,
            confirmed=self.confirmed,
            retention_ms=self.retention_ms,
            entries_max=config.entries_max,
        )
        self.timetable = Timetable(
            self.link,
            confirmed=self.confirmed,
            retention_ms=self.retention_ms,
            entries_max=config.entries_max,
        )

        views = Views(self.link, retention)
        audiences = Audiences(views, inbox)

        # Who may do what.
        key_sets = KeySets()
        self.authenticator = Authenticator(self.apps, key_sets=key_sets)
        self.sweep = Sweep(self.apps, key_sets)
        self.tickets = Tickets(KeptTickets(self.link), self.sweep)

        # Who is listening.
        feeds = Feeds(
            store_url,
            inbox,
            audiences,
            replay_max=config.replay_max,
            check_s=config.position_check_s,
            figures=self.figures,
        )
        self.feeds = feeds
        leases = Leases(self.link, most=config.listeners_per_player_max)
        devices = Devices(self.link, leases.node)
        self.listening = Listening(
            feeds, leases, config, self.sweep, devices, self.figures
        )
        self.probe = Probe(
            self.link,
            feeds,
            leases.node,
            confirmed=self.confirmed,
            took_s=self.figures.probe_s,
        )

        # What can be asked for.
        self.quotas = Quotas(
            self.authenticator.app_record,
            UsedQuotas(self.link, retention_ms=self.retention_ms),
            Limits(
                publishes_per_s=config.publishes_per_s_max,
                bytes_per_day=config.bytes_per_day_max,
                players=config.players_max,
                pending_schedules=config.pending_schedules_max,
            ),
            refusals=self.figures.refusals,
        )
        self.publisher = Publisher(self.link, inbox, self.figures, self.quotas)
        self.schedules = Schedules(self.link, self.timetable, self.quotas)
        merged = Merged(inbox, Overviews(self.link, inbox, views), audiences)
        self.audiences = audiences
        kept = KeptReceipts(self.link, retention)
        self.receipts = Receipts(kept, audiences)
        self.inboxes = Inboxes(inbox, merged, audiences)
        lists = Lists(self.link, retention)
        self.listing = Listing(lists, merged, audiences)
        self.requests = Requests(config, self.figures)
        self.streams = self._streams()

        # What runs wherever the background does.
        self.scheduler = Scheduler(self.timetable, lag_s=self.figures.schedule_lag_s)
        self.store_watch = StoreWatch(self.link, config)

    def _streams(self) -> StreamParts:
        config = self.config
        return StreamParts(
            authenticator=self.authenticator,
            listening=self.listening,
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
