"""
The history of a run: what was asked for, what was acknowledged, what readers received.

`check` judges it. It consists of values, so a test can change one and see the check
fail. A log has a short name here: ``@ann`` is the player's own, ``#news`` a topic's,
``*`` that of everyone. Times are Unix time in seconds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

EVERYONE = "*"


def own(player: str) -> str:
    """Return the name of a player's own log."""
    return f"@{player}"


def topic_log(topic: str) -> str:
    """Return the name of a topic's log."""
    return f"#{topic}"


def log_of(player: str, notification: dict[str, Any]) -> str:
    """Return the log of a notification that a player received."""
    if notification.get("everyone"):
        return EVERYONE
    topic = notification.get("topic")
    return topic_log(topic) if topic else own(player)


@dataclass
class Publication:
    """One notification to one log. `key` is its idempotency key and its title."""

    key: str
    log: str
    sent_at: float
    ttl_s: int = 0
    collapse_key: str = ""
    id: str = ""
    acked_at: float = math.inf
    """When it was acknowledged; infinity if it never was."""
    scheduled: bool = False
    """Whether a schedule sent it; it counts as acknowledged once a page had it."""

    @property
    def acked(self) -> bool:
        return self.acked_at < math.inf


@dataclass
class Withdrawal:
    """A withdrawal from a log, or a deletion from the inbox of `player`."""

    id: str
    log: str
    player: str
    sent_at: float
    acked_at: float = math.inf
    status: int = 0


@dataclass
class Mark:
    """
    One request that changes read marks.

    `how` is ``ids``, ``unread``, ``up_to`` or ``all``. For the last two, `ids` has the
    notifications that are certainly included; what was sent after `limit_at` certainly
    is not.
    """

    player: str
    how: str
    ids: tuple[str, ...]
    sent_at: float
    limit_at: float = math.inf
    acked_at: float = math.inf


@dataclass
class Acknowledgement:
    """An ``ack`` with the cursor of a page that had these notifications."""

    player: str
    ids: tuple[str, ...]
    sent_at: float
    acked_at: float = math.inf


@dataclass
class Membership:
    """From a join to the leave, if there was one."""

    player: str
    topic: str
    join_sent_at: float
    join_acked_at: float = math.inf
    leave_sent_at: float = math.inf
    leave_acked_at: float = math.inf

    def has(self, publication: Publication) -> bool | None:
        """Whether it includes the publication; None if that cannot be known."""
        if publication.acked_at < self.join_sent_at:
            return False
        if publication.sent_at > self.leave_acked_at:
            return False
        within = publication.sent_at > self.join_acked_at
        return True if within and publication.acked_at < self.leave_sent_at else None


@dataclass
class Scheduled:
    """A schedule, and what became of its cancellation if there was one."""

    key: str
    players: tuple[str, ...]
    due_at: float
    sent_at: float
    id: str = ""
    acked_at: float = math.inf
    cancel_sent_at: float = math.inf
    cancelled: bool | None = False
    """None: a cancellation was sent, and has no answer yet."""


class Received(NamedTuple):
    """One event of a reader. `connection` counts the connections of the reader."""

    at: float
    connection: int
    kind: str
    id: str = ""
    log: str = ""
    unread: int | None = None
    other: str = ""
    """Reason of a gap, id of the replacement, collapse key, status of a refusal."""


@dataclass
class Reading:
    """A reader, over all of its connections."""

    name: str
    player: str
    transport: str
    """``websocket``, ``sse``, ``poll`` or ``client``, the Python client."""
    from_earliest: bool
    events: list[Received] = field(default_factory=list)
    unread: int | None = None
    """The badge: what a client shows that counts as the protocol says."""

    @property
    def begins_at(self) -> float:
        """When the stream certainly had begun; infinity if it never did."""
        begun = (event.at for event in self.events if event.kind in ("hello", "begun"))
        return next(begun, math.inf)


@dataclass
class Inbox:
    """What the pages of a player say at one moment."""

    player: str
    read_at: float
    newest: list[dict[str, Any]]
    oldest: list[dict[str, Any]]
    filtered: list[str]
    """Ids of the pages with ``unread=true``."""
    unread: int
    counted: int
    """The number from ``POST /v1/unread``."""


class Trouble(NamedTuple):
    """One violation. `kind` is a word of `check.KINDS`."""

    kind: str
    what: str


class Note(NamedTuple):
    """One line of the event log."""

    at: float
    what: str
    about: dict[str, Any]

    def __str__(self) -> str:
        about = " ".join(f"{name}={value}" for name, value in self.about.items())
        return f"{self.at:14.3f} {self.what} {about}".rstrip()


class History:
    """Everything that happened in a run."""

    def __init__(self) -> None:
        self.begun_at = time.time()
        self.publications: list[Publication] = []
        self.withdrawals: list[Withdrawal] = []
        self.marks: list[Mark] = []
        self.acknowledgements: list[Acknowledgement] = []
        self.memberships: list[Membership] = []
        self.schedules: list[Scheduled] = []
        self.readings: list[Reading] = []
        self.inboxes: dict[str, Inbox] = {}
        self.troubles: list[Trouble] = []
        """Violations that were seen while they happened."""
        self.notes: list[Note] = []
        self.faults_injected = 0
        self.badges_late_s = 0.0
        """The longest time that a badge was wrong after everything had arrived."""

    def note(self, what: str, /, **about: Any) -> None:
        """Add a line to the event log."""
        self.notes.append(Note(time.time(), what, about))

    def trouble(self, kind: str, what: str) -> None:
        self.note("TROUBLE", kind=kind, what=what)
        self.troubles.append(Trouble(kind, what))

    def of_log(self, log: str) -> list[Publication]:
        return [one for one in self.publications if one.log == log]

    def ids(self) -> dict[str, Publication]:
        """Return the acknowledged publications by id."""
        return {one.id: one for one in self.publications if one.acked}

    def lines(self) -> Iterator[str]:
        """Return the whole history in the order of time, one JSON object a line."""
        rows: list[tuple[float, dict[str, Any]]] = [
            (note.at, {"note": note.what, **note.about}) for note in self.notes
        ]
        for records in (
            self.publications,
            self.withdrawals,
            self.marks,
            self.acknowledgements,
            self.schedules,
        ):
            for one in records:
                row = asdict(one)
                rows.append((row["sent_at"], {"request": type(one).__name__, **row}))
        rows += [
            (member.join_sent_at, {"request": "Membership", **asdict(member)})
            for member in self.memberships
        ]
        for reading in self.readings:
            rows += [
                (event.at, {"reader": reading.name, **event._asdict()})
                for event in reading.events
            ]
        for at, row in sorted(rows, key=lambda pair: pair[0]):
            after_s = round(at - self.begun_at, 3)
            yield json.dumps({"after_s": after_s, **row}, default=str)

    def write(self, path: Path) -> Path:
        path.write_text("\n".join(self.lines()) + "\n")
        return path
