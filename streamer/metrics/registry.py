"""
Every metric of a process: its name, labels and help text.

Decides names and texts. Knows the counters, and the components that count for
themselves. Knows nothing of scrapers. No label has more than a few dozen values: never
the name of a player, an id, or an app.

=============================================  =========================================
streamer_connections{transport}                open now: websocket, sse, longpoll
streamer_connections_opened_total{transport}   opened
streamer_closes_total{transport,reason}        closed, by reason; ``left``: by client
streamer_slow_closes_total{transport}          of these, closed for a slow reader
streamer_deliveries_total{transport}           entries sent, per stream
streamer_publish_to_write_seconds              from storing to writing, live entries
streamer_gaps_total{transport,reason}          gaps reported to streams
streamer_publishes_total{outcome}              acknowledged: ``stored``, ``replayed``
streamer_stored_total                          entries that publishes stored in inboxes
streamer_refusals_total{limit}                 refusals, by limit
streamer_authentication_failures_total{reason} credentials refused, by defect
streamer_authentication_failing_addresses      clients they came from, last minute
streamer_requests_total{method,route,status}   requests answered, streams opened
streamer_store_errors_total{connection,kind}   failed commands
streamer_store_connects_total{connection}      connections made to the store
streamer_store_unannounced_total{connection}   scripts whose announcement was refused
streamer_store_damaged_total{part}             damaged keys that were passed over
streamer_store_interruptions_total             losses of the Pub/Sub connection
streamer_store_roundtrip_seconds               from storing a probe to its announcement
streamer_store_full                            1 while its memory or its disk is full
streamer_store_memory_bytes{shard}             used of the store's memory limit
streamer_store_memory_max_bytes{shard}         the store's memory limit; 0: none
streamer_schedule_lag_seconds                  delay of schedules fired by this process
streamer_schedule_paused                       1 while the clocks disagree
streamer_event_loop_lag_seconds                how late the event loop was
streamer_ready                                 1 while ``/readyz`` returns 200
streamer_build_info{version}                   always 1
process_…                                      as in Prometheus' client libraries
=============================================  =========================================
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from ..core.counters import Counters
from ..errors import SLOW, Defect, Limit, Quota
from ..model import Gap
from ..service.access.failures import FailedAuthentications
from ..service.node.store_watch import StoreWatch
from ..service.scheduling.scheduler import Scheduler
from ..service.streams.catch_up import CatchUp
from ..store.client.connection import RedisConnection
from .exposition import Family, Labels, counter, gauge, histogram

__all__ = ["Metrics"]

ERRORS: Final = ("away", "full", "unknown", "refused")
OUTCOMES: Final = ("stored", "replayed")

_PROC: Final = Path("/proc/self")


class Metrics:
    """
    The metrics of this process.

    Args:
        counters: The counters of this process.
        failures: The failed authentications of this process.
        catch_up: Counts losses of the Pub/Sub connection.
        redis: The connections to the store, by purpose.
        scheduler: Knows whether firing is paused.
        store_watch: Knows how full the store is.
        ready: Returns whether a publish would be stored and delivered.

    """

    def __init__(
        self,
        counters: Counters,
        *,
        failures: FailedAuthentications,
        catch_up: CatchUp,
        redis: Mapping[str, RedisConnection],
        scheduler: Scheduler,
        store_watch: StoreWatch,
        ready: Callable[[], bool],
    ) -> None:
        self._counters = counters
        self._failures = failures
        self._catch_up = catch_up
        self._redis = redis
        self._scheduler = scheduler
        self._store_watch = store_watch
        self._ready = ready
        self._started_s = time.time()
        self._version = metadata.version("streamer-server")

    def collect(self) -> list[Family]:
        """Return the current values of all metrics."""
        return [
            *self._connections(),
            *self._deliveries(),
            *self._requests(),
            *self._store(),
            *self._state(),
            *self._process(),
        ]

    def _connections(self) -> Iterator[Family]:
        transports = self._counters.transports
        yield gauge(
            "streamer_connections",
            "Open streams and long polls.",
            *((one.open, {"transport": one.name}) for one in transports),
        )
        yield counter(
            "streamer_connections_opened_total",
            "Streams and long polls opened.",
            *((one.opened, {"transport": one.name}) for one in transports),
        )
        yield counter(
            "streamer_closes_total",
            "Streams and long polls closed, by reason. 'left': the client closed it.",
            *(
                (count, {"transport": one.name, "reason": reason})
                for one in transports
                for reason, count in one.closes.items()
            ),
        )
        yield counter(
            "streamer_slow_closes_total",
            "Streams closed because their reader was too slow.",
            *((one.closes[SLOW.reason], {"transport": one.name}) for one in transports),
        )

    def _deliveries(self) -> Iterator[Family]:
        counters = self._counters
        streams = (counters.websocket, counters.sse)
        yield counter(
            "streamer_deliveries_total",
            "Notifications sent to streams, counted once per stream.",
            *((one.deliveries, {"transport": one.name}) for one in streams),
        )
        yield histogram(
            "streamer_publish_to_write_seconds",
            "Time from storing a live notification to writing it to all streams of "
            "this process. Includes the difference between the clocks of the store's "
            "machine and of this one.",
            counters.publish_to_write_s,
        )
        yield counter(
            "streamer_gaps_total",
            "Gaps reported to streams: notifications that cannot be delivered.",
            *(
                (one.gaps[gap], {"transport": one.name, "reason": gap.value})
                for one in streams
                for gap in Gap
            ),
        )
        yield counter(
            "streamer_publishes_total",
            "Publishes acknowledged. 'replayed': repeated with the same key.",
            *((counters.publishes[each], {"outcome": each}) for each in OUTCOMES),
        )
        yield counter(
            "streamer_stored_total",
            "Notifications that publishes stored in inboxes.",
            (counters.entries_stored, {}),
        )

    def _requests(self) -> Iterator[Family]:
        refusals = self._counters.refusals
        names = (each.name.lower() for each in (*Limit, *Quota))
        limits = dict.fromkeys([*names, *refusals])
        yield counter(
            "streamer_refusals_total",
            "Requests and connections refused, by limit.",
            *((refusals[limit], {"limit": limit}) for limit in limits),
        )
        yield counter(
            "streamer_authentication_failures_total",
            "Authentications that failed, by what was wrong with the credential.",
            *(
                (self._failures.reasons[defect], {"reason": defect.name.lower()})
                for defect in Defect
            ),
        )
        yield gauge(
            "streamer_authentication_failing_addresses",
            "Client addresses whose credentials were refused in the last minute, at "
            "most 10,000.",
            (self._failures.addresses, {}),
        )
        yield counter(
            "streamer_requests_total",
            "Requests answered and streams opened, by route template. Status 499: the "
            "client left before the response.",
            *(
                (count, {"method": method, "route": route, "status": str(status)})
                for (method, route, status), count in self._counters.requests.items()
            ),
        )

    def _store(self) -> Iterator[Family]:
        connections = self._redis.items()
        damaged = sum((it.damage.counts for it in self._redis.values()), Counter[str]())
        yield counter(
            "streamer_store_errors_total",
            "Failed commands. 'away': not executed, the store was unavailable; "
            "'full': not executed, its memory was full; 'unknown': no response "
            "arrived; 'refused': the store returned an error.",
            *(
                (redis.errors[kind], {"connection": name, "kind": kind})
                for name, redis in connections
                for kind in ERRORS
            ),
        )
        yield counter(
            "streamer_store_connects_total",
            "Connections made to the store.",
            *((redis.connects, {"connection": name}) for name, redis in connections),
        )
        yield counter(
            "streamer_store_unannounced_total",
            "Scripts whose announcement the store refused. Streams get the entries "
            "late, by the position check.",
            *(
                (redis.unannounced.count, {"connection": name})
                for name, redis in connections
            ),
        )
        yield counter(
            "streamer_store_damaged_total",
            "Times that a part passed over a key that does not hold what this server "
            "has written. The log names the keys.",
            *((count, {"part": part}) for part, count in damaged.items()),
        )
        yield counter(
            "streamer_store_interruptions_total",
            "Losses of the Pub/Sub connection to the store.",
            (self._catch_up.interruptions, {}),
        )
        yield histogram(
            "streamer_store_roundtrip_seconds",
            "Time from storing a probe to its announcement, every 5 seconds.",
            self._counters.probe_s,
        )

    def _state(self) -> Iterator[Family]:
        watch = self._store_watch
        yield gauge(
            "streamer_store_full",
            "1 while the store's memory or its disk is full: publishes, schedules and "
            "joins are refused.",
            (int(watch.memory == "full"), {}),
        )
        # Of a single server the label is left out, which is the same as empty.
        shards = [
            (used, limit, {"shard": place} if place else {})
            for place, (used, limit) in watch.memory_by_shard.items()
        ]
        yield gauge(
            "streamer_store_memory_bytes",
            "Memory of the store that counts against its limit, as of the last check. "
            "'shard' is the address of a cluster's primary.",
            *((used, labels) for used, _, labels in shards),
        )
        yield gauge(
            "streamer_store_memory_max_bytes",
            "Memory limit of the store; 0 if it has none or does not report it.",
            *((limit, labels) for _, limit, labels in shards),
        )
        yield histogram(
            "streamer_schedule_lag_seconds",
            "Delay of schedules that this process fired.",
            self._counters.schedule_lag_s,
        )
        yield gauge(
            "streamer_schedule_paused",
            "1 while no schedule is fired because the clocks of this node and of the "
            "store disagree.",
            (int(self._scheduler.paused), {}),
        )
        yield gauge(
            "streamer_ready",
            "1 while publishes are stored and delivered to this process.",
            (int(self._ready()), {}),
        )
        version: Labels = {"version": self._version}
        yield gauge("streamer_build_info", "Always 1.", (1, version))

    def _process(self) -> Iterator[Family]:
        yield histogram(
            "streamer_event_loop_lag_seconds",
            "How late the event loop of this process was, measured ten times a second: "
            "how long a request that arrived then had to wait.",
            self._counters.loop_lag_s,
        )
        yield counter(
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            (time.process_time(), {}),
        )
        yield gauge(
            "process_start_time_seconds",
            "Start time of the process since the Unix epoch in seconds.",
            (self._started_s, {}),
        )
        yield gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            (resource.getrlimit(resource.RLIMIT_NOFILE)[0], {}),
        )
        if not _PROC.exists():
            return  # macOS has only peaks of memory, and no number of files.
        yield gauge(
            "process_open_fds",
            "Number of open file descriptors.",
            (len(os.listdir(_PROC / "fd")), {}),
        )
        pages = int((_PROC / "statm").read_text().split()[1])
        yield gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            (pages * resource.getpagesize(), {}),
        )
