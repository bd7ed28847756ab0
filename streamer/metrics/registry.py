"""
What Prometheus is told of a process: every metric, its name, labels and help.

Decides names and words. Knows the figures and the parts that have some of their own.
Knows nothing of who asks. No label has more than a few dozen values: never a player's
name, an id, or an app.

=============================================  =========================================
streamer_connections{transport}                open now: websocket, sse, longpoll
streamer_connections_opened_total{transport}
streamer_closes_total{transport,reason}        ended, by reason; ``left``: by the client
streamer_slow_closes_total{transport}          of these, who did not take what was sent
streamer_deliveries_total{transport}           entries given to streams, once for each
streamer_publish_to_write_seconds              from storing to writing, live entries
streamer_gaps_total{transport,reason}          streams that were told of a gap
streamer_publishes_total{outcome}              acknowledged: ``stored``, ``replayed``
streamer_stored_total                          entries that publishes put into inboxes
streamer_refusals_total{limit}                 what a limit has refused
streamer_requests_total{method,route,status}   requests answered, streams opened
streamer_store_errors_total{connection,kind}   commands that failed
streamer_store_connects_total{connection}      connections made to the store
streamer_store_interruptions_total             losses of the connection of announcements
streamer_store_roundtrip_seconds               from storing a probe to hearing it
streamer_schedule_lag_seconds                  how late schedules were fired here
streamer_schedule_paused                       1 while the clocks do not agree
streamer_ready                                 1 while ``/readyz`` would say 200
streamer_build_info{version}                   always 1
process_…                                      as every Prometheus client names them
=============================================  =========================================
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from ..core.counters import Counters
from ..errors import SLOW, Limit, Quota
from ..model import Gap
from ..service.scheduling.scheduler import Scheduler
from ..service.streams.catch_up import CatchUp
from ..store.client.connection import RedisConnection
from .exposition import Family, Labels, counter, gauge, histogram

__all__ = ["Metrics"]

ERRORS: Final = ("away", "unknown", "refused")
OUTCOMES: Final = ("stored", "replayed")

_PROC: Final = Path("/proc/self")


class Metrics:
    """
    The metrics of this process.

    Args:
        figures: What was counted.
        catch_up: Who hears announcements.
        links: The connections to the store, by what they are for.
        scheduler: Who fires what is due.
        ready: Whether this process would store and deliver.

    """

    def __init__(
        self,
        counters: Counters,
        *,
        catch_up: CatchUp,
        redis: Mapping[str, RedisConnection],
        scheduler: Scheduler,
        ready: Callable[[], bool],
    ) -> None:
        self._counters = counters
        self._catch_up = catch_up
        self._redis = redis
        self._scheduler = scheduler
        self._ready = ready
        self._started_s = time.time()
        self._version = metadata.version("streamer-server")

    def collect(self) -> list[Family]:
        """Return all of them as they are at this moment."""
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
            "Streams and held polls that are open.",
            *((one.open, {"transport": one.name}) for one in transports),
        )
        yield counter(
            "streamer_connections_opened_total",
            "Streams and held polls that were opened.",
            *((one.opened, {"transport": one.name}) for one in transports),
        )
        yield counter(
            "streamer_closes_total",
            "Streams and held polls that have ended; 'left' are those that nobody here "
            "has ended.",
            *(
                (count, {"transport": one.name, "reason": reason})
                for one in transports
                for reason, count in one.closes.items()
            ),
        )
        yield counter(
            "streamer_slow_closes_total",
            "Streams cut because their reader did not take what was sent.",
            *((one.closes[SLOW.reason], {"transport": one.name}) for one in transports),
        )

    def _deliveries(self) -> Iterator[Family]:
        counters = self._counters
        streams = (counters.websocket, counters.sse)
        yield counter(
            "streamer_deliveries_total",
            "Notifications given to streams, each counted once for each stream.",
            *((one.deliveries, {"transport": one.name}) for one in streams),
        )
        yield histogram(
            "streamer_publish_to_write_seconds",
            "From the time the store gave a notification to its being written to all "
            "who listen here, once per notification that came live. The two clocks are "
            "those of the store's machine and of this one: their difference is in it.",
            counters.publish_to_write_s,
        )
        yield counter(
            "streamer_gaps_total",
            "Streams that were told of notifications they cannot have.",
            *(
                (one.gaps[gap], {"transport": one.name, "reason": gap.value})
                for one in streams
                for gap in Gap
            ),
        )
        yield counter(
            "streamer_publishes_total",
            "Publishes acknowledged; 'replayed' had been stored before, by their key.",
            *((counters.publishes[each], {"outcome": each}) for each in OUTCOMES),
        )
        yield counter(
            "streamer_stored_total",
            "Notifications that publishes have put into inboxes.",
            (counters.entries_stored, {}),
        )

    def _requests(self) -> Iterator[Family]:
        refusals = self._counters.refusals
        known = (each.name.lower() for each in (*Limit, *Quota))
        limits = dict.fromkeys([*known, *refusals])
        yield counter(
            "streamer_refusals_total",
            "What was refused, by the limit that was reached.",
            *((refusals[limit], {"limit": limit}) for limit in limits),
        )
        yield counter(
            "streamer_requests_total",
            "Requests answered and streams opened, by the template of their route. "
            "Status 499: the client left before.",
            *(
                (count, {"method": method, "route": route, "status": str(status)})
                for (method, route, status), count in self._counters.requests.items()
            ),
        )

    def _store(self) -> Iterator[Family]:
        connections = self._redis.items()
        yield counter(
            "streamer_store_errors_total",
            "Commands that failed: 'away' ones were not done, of 'unknown' ones nobody "
            "knows, 'refused' ones the store has answered with an error.",
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
            "streamer_store_interruptions_total",
            "Losses of the connection that announcements come by.",
            (self._catch_up.interruptions, {}),
        )
        yield histogram(
            "streamer_store_roundtrip_seconds",
            "From storing a probe to hearing it announced, every 5 seconds.",
            self._counters.probe_s,
        )

    def _state(self) -> Iterator[Family]:
        yield histogram(
            "streamer_schedule_lag_seconds",
            "From when schedules were due to the look that has fired them, here.",
            self._counters.schedule_lag_s,
        )
        yield gauge(
            "streamer_schedule_paused",
            "1 while nothing is fired, because the clocks of this node and of the "
            "store disagree.",
            (int(self._scheduler.paused), {}),
        )
        yield gauge(
            "streamer_ready",
            "1 while what is published is stored, and comes back to this process.",
            (int(self._ready()), {}),
        )
        version: Labels = {"version": self._version}
        yield gauge("streamer_build_info", "Always 1.", (1, version))

    def _process(self) -> Iterator[Family]:
        yield counter(
            "process_cpu_seconds_total",
            "Processor time, user's and system's.",
            (time.process_time(), {}),
        )
        yield gauge(
            "process_start_time_seconds",
            "When this process was built, in Unix time.",
            (self._started_s, {}),
        )
        yield gauge(
            "process_max_fds",
            "Files that may be open.",
            (resource.getrlimit(resource.RLIMIT_NOFILE)[0], {}),
        )
        if not _PROC.exists():
            return  # macOS: what it has instead are peaks, and no numbers of files.
        yield gauge(
            "process_open_fds",
            "Files that are open.",
            (len(os.listdir(_PROC / "fd")), {}),
        )
        pages = int((_PROC / "statm").read_text().split()[1])
        yield gauge(
            "process_resident_memory_bytes",
            "Memory that is resident.",
            (pages * resource.getpagesize(), {}),
        )
