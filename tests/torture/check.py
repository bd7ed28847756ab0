"""
The judgement of a history: every acknowledged effect is delivered, or told by a gap.

Pure: a history is a value. What may be true or false, because a request was on its way
when something else happened, is not judged.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from .history import (
    EVERYONE,
    History,
    Inbox,
    Mark,
    Publication,
    Reading,
    Received,
    Trouble,
    own,
    topic_log,
)

KINDS = {
    "lost": "an acknowledged notification is not in a page",
    "doubled": "one key has two effects, or one notification came twice",
    "silent": "a reader missed a notification or a withdrawal, and no gap told it",
    "gap": "a gap, though nothing was lost",
    "disorder": "not in the order in which a log stored it",
    "stale": "a page or a screen shows what has ended",
    "count": "an unread count is not that of a recount",
    "badge": "a reader's unread count is not that of the page after quiet",
    "mark": "a read mark is missing, or is where none was made",
    "receipt": "a receipt does not say what happened",
    "schedule": "a schedule fired twice, early, not at all, or although cancelled",
    "lease": "a slot is taken, and nobody has it",
    "stuck": "a request or a node does not recover",
    "ended": "a process ended by itself",
    "500": "a response has the status 500",
    "unexpected": "a response that the protocol does not allow here",
}

EXPIRY_MARGIN_S = 1.0
"""Around its expiry a notification may be shown or not."""

FALSE_GAPS = ("epoch", "ahead", "diverged", "trimmed")


class Findings(NamedTuple):
    """The result of a check. `owed` counts deliveries: a notification to a reader."""

    troubles: tuple[Trouble, ...]
    acknowledged: int
    owed: int
    delivered: int
    told: int
    faults: int
    badges_late_s: float

    @property
    def clean(self) -> bool:
        return not self.troubles

    def count(self, *kinds: str) -> int:
        return sum(trouble.kind in kinds for trouble in self.troubles)

    @property
    def figure(self) -> str:
        """The numbers that the battery shows."""
        return (
            f"{self.faults} faults, {self.acknowledged} acknowledged, {self.owed} "
            f"deliveries owed, {self.count('lost')} lost, {self.count('doubled')} "
            f"doubled, {self.count('silent')} silent"
        )

    def __str__(self) -> str:
        known = ("lost", "doubled", "silent")
        others = Counter(t.kind for t in self.troubles if t.kind not in known)
        rest = "".join(f", {count} {kind}" for kind, count in sorted(others.items()))
        return (
            f"{self.figure}, {self.told} told by a gap{rest}; badges right "
            f"{self.badges_late_s:.1f} s after the last delivery"
        )


class Known(NamedTuple):
    """The history, by what the checks look for."""

    history: History
    by_id: dict[str, Publication]
    withdrawn: dict[str, float]
    """When an acknowledged withdrawal of a whole log was certain, by id."""
    touched: set[str]
    """Ids that a withdrawal was sent for, whatever its outcome."""
    deleted: dict[tuple[str, str], float]
    """The same for (player, id)."""
    touched_by: set[tuple[str, str]]
    last_of_key: dict[tuple[str, str], str]
    """The newest id of each log and collapse key."""
    memberships: dict[tuple[str, str], list[object]]

    @classmethod
    def of(cls, history: History) -> Known:
        last: dict[tuple[str, str], str] = {}
        for one in history.publications:
            if one.collapse_key and one.acked:
                place = one.log, one.collapse_key
                last[place] = max(last.get(place, ""), one.id)
        memberships: dict[tuple[str, str], list[object]] = defaultdict(list)
        for member in history.memberships:
            memberships[member.player, topic_log(member.topic)].append(member)
        whole = [one for one in history.withdrawals if not one.player]
        single = [one for one in history.withdrawals if one.player]
        return cls(
            history,
            history.ids(),
            {one.id: one.acked_at for one in whole if one.status == 204},
            {one.id for one in whole},
            {(o.player, o.id): o.acked_at for o in single if o.status == 204},
            {(o.player, o.id) for o in single},
            last,
            memberships,
        )

    def is_member(self, player: str, one: Publication) -> bool | None:
        """Whether the publication is in a player's inbox; None if it may be."""
        if one.log[0] == "@":
            return one.log == own(player)
        if one.log == EVERYONE:
            return True
        members = self.memberships.get((player, one.log), [])
        # What an earlier membership had is gone; the last one decides.
        if not members:
            return False
        verdict = members[-1].has(one)  # type: ignore[attr-defined]
        if members[-1].leave_acked_at < math.inf:  # type: ignore[attr-defined]
            return False
        return bool(verdict) if verdict is not None else None

    def is_shown(self, player: str, one: Publication, at: float) -> bool | None:
        """Whether the player's pages show the publication; None if they may."""
        member = self.is_member(player, one)
        if not member or not one.acked:
            return False if member is False else None
        if one.id in self.withdrawn or (player, one.id) in self.deleted:
            return False
        if one.ttl_s:
            if at > one.acked_at + one.ttl_s + EXPIRY_MARGIN_S:
                return False
            if at > one.sent_at + one.ttl_s - EXPIRY_MARGIN_S:
                return None
        if one.collapse_key and self.last_of_key[one.log, one.collapse_key] != one.id:
            return False
        if one.id in self.touched or (player, one.id) in self.touched_by:
            # A 404: it had ended already, or was not there yet for this player.
            return None
        return True

    def may_have_ended(self, player: str, one: Publication) -> bool:
        """Whether it may have ended before a reader could receive it."""
        return bool(
            one.ttl_s
            or one.id in self.touched
            or (player, one.id) in self.touched_by
            or (
                one.collapse_key
                and self.last_of_key[one.log, one.collapse_key] != one.id
            )
        )


class Deliveries(NamedTuple):
    """What the readers were owed, and what is wrong with what they received."""

    owed: int
    delivered: int
    told: int
    troubles: list[Trouble]


def check_readings(history: History, *, loses: bool = False) -> Deliveries:
    """Compare what each reader received with what it had to receive."""
    known = Known.of(history)
    owed = delivered = told = 0
    troubles: list[Trouble] = []
    for reading in history.readings:
        result = _check_reading(known, reading, loses)
        owed += result.owed
        delivered += result.delivered
        told += result.told
        troubles += result.troubles
    return Deliveries(owed, delivered, told, troubles)


def _check_reading(known: Known, reading: Reading, loses: bool) -> Deliveries:
    troubles: list[Trouble] = []
    name = f"{reading.name} ({reading.transport} of {reading.player})"
    received = [e for e in reading.events if e.kind == "notification"]
    gaps = [event for event in reading.events if event.kind == "gap"]
    logs = {one.id: one.log for one in known.by_id.values()}
    troubles += _repeats(name, reading, received, logs)
    troubles += _disorder(name, reading, received, logs)
    if not loses:
        troubles += [
            Trouble("gap", f"{name}: {gap.other} in {gap.log or 'its own log'}")
            for gap in gaps
            if gap.other in FALSE_GAPS
        ]
    by_log: dict[str, list[Received]] = defaultdict(list)
    for event in received:
        by_log[logs.get(event.id, event.log)].append(event)
    seen = {event.id for event in received}
    owed = told = 0
    for one in known.by_id.values():
        if not _is_owed(known, reading, one):
            continue
        owed += 1
        if one.id in seen:
            continue
        if _is_told(one, by_log[one.log], gaps):
            told += 1
        else:
            troubles.append(
                Trouble("silent", f"{name} missed {one.key} {one.id} in {one.log}")
            )
    troubles += _stale_screen(known, reading, name, gaps, logs)
    return Deliveries(owed, owed - told, told, troubles)


def _is_owed(known: Known, reading: Reading, one: Publication) -> bool:
    begun = reading.begins_at
    if begun == math.inf:
        return False
    if not reading.from_earliest and one.sent_at <= begun:
        return False
    if known.is_member(reading.player, one) is not True:
        return False
    return not known.may_have_ended(reading.player, one)


def _is_told(
    one: Publication, received: Sequence[Received], gaps: Iterable[Received]
) -> bool:
    """Whether a gap is where the notification is missing."""
    for gap in gaps:
        if gap.log and gap.log != one.log:
            continue
        before = max((e.id for e in received if e.at <= gap.at), default="")
        after = min((e.id for e in received if e.at > gap.at), default="~")
        if before < one.id < after and one.sent_at <= gap.at:
            return True
    return False


def _repeats(
    name: str,
    reading: Reading,
    received: Sequence[Received],
    logs: dict[str, str],
) -> Iterator[Trouble]:
    """
    Yield what came twice.

    Only what audiences are sent may come again on another connection, and not if the
    reader has received a cursor since. The Python client drops even that.
    """
    last: dict[str, Received] = {}
    for event in received:
        earlier = last.get(event.id)
        last[event.id] = event
        if earlier is None:
            continue
        is_own = logs.get(event.id, event.log).startswith("@")
        # The cursor of a poll has all logs.
        strict = is_own or reading.transport in ("client", "poll")
        if strict or earlier.connection == event.connection:
            yield Trouble(
                "doubled",
                f"{name} received {event.id} on connection {earlier.connection} and "
                f"on connection {event.connection}",
            )


def _disorder(
    name: str,
    reading: Reading,
    received: Sequence[Received],
    logs: dict[str, str],
) -> Iterator[Trouble]:
    last: dict[tuple[str, int], str] = {}
    for event in received:
        log = logs.get(event.id, event.log)
        place = log, 0 if log.startswith("@") else event.connection
        if event.id < last.get(place, ""):
            yield Trouble(
                "disorder", f"{name} received {event.id} after {last[place]} of {log}"
            )
        last[place] = event.id


def _stale_screen(
    known: Known,
    reading: Reading,
    name: str,
    gaps: Sequence[Received],
    logs: dict[str, str],
) -> Iterator[Trouble]:
    """Yield what a client still shows of what was withdrawn or replaced."""
    if reading.transport == "poll":
        return
    screen: dict[str, tuple[str, str]] = {}
    for event in reading.events:
        if event.kind == "notification":
            log = logs.get(event.id, event.log)
            if event.other:
                # The next one with the same key replaces it.
                for id in [
                    i for i, place in screen.items() if place == (log, event.other)
                ]:
                    del screen[id]
            screen[event.id] = log, event.other
        elif event.kind in ("withdrawn", "replaced"):
            screen.pop(event.id, None)
    for id, (log, key) in screen.items():
        if any(gap.log in ("", log) for gap in gaps):
            continue
        one = known.by_id.get(id)
        if one is None or one.ttl_s or not known.is_member(reading.player, one):
            continue
        if id in known.withdrawn or (reading.player, id) in known.deleted:
            yield Trouble("silent", f"{name} was not told of the withdrawal of {id}")
        elif key and known.last_of_key[log, key] != id:
            newer = known.by_id[known.last_of_key[log, key]]
            if not known.may_have_ended(reading.player, newer):
                yield Trouble("silent", f"{name} was not told that {id} is replaced")


# Pages.


def check_inbox(history: History, inbox: Inbox) -> list[Trouble]:
    """Compare the pages of a player with what was acknowledged."""
    known = Known.of(history)
    player = inbox.player
    troubles: list[Trouble] = []
    ids = [one["id"] for one in inbox.newest]
    if sorted(ids) != sorted(one["id"] for one in inbox.oldest):
        troubles.append(Trouble("disorder", f"{player}: the two orders differ"))
    elif ids != [one["id"] for one in reversed(inbox.oldest)]:
        troubles.append(Trouble("disorder", f"{player}: one order is not the other"))
    doubled = [id for id, count in Counter(ids).items() if count > 1]
    troubles += [
        Trouble("doubled", f"{player}: {id} is twice in a walk") for id in doubled
    ]
    titles = Counter(one["title"] for one in inbox.newest)
    troubles += [
        Trouble("doubled", f"{player}: {title} is stored {count} times")
        for title, count in titles.items()
        if count > 1
    ]
    shown = set(ids)
    scheduled = {one.key for one in history.schedules}
    for one in history.publications:
        expected = known.is_shown(player, one, inbox.read_at)
        if expected is True and one.id not in shown:
            troubles.append(
                Trouble("lost", f"{player}: {one.key} {one.id} of {one.log}")
            )
        elif expected is False and one.id in shown:
            troubles.append(
                Trouble("stale", f"{player}: {one.key} {one.id} of {one.log} is shown")
            )
    for one_shown in inbox.newest:
        if one_shown["id"] not in known.by_id and one_shown["title"] not in scheduled:
            troubles.append(
                Trouble("doubled", f"{player}: {one_shown['title']} has another id")
            )
    troubles += _page_order(known, inbox)
    unread = sum("read_at" not in one for one in inbox.newest)
    if not unread == inbox.unread == inbox.counted:
        troubles.append(
            Trouble(
                "count",
                f"{player}: {unread} are unread, the page says {inbox.unread}, the "
                f"count {inbox.counted}",
            )
        )
    if inbox.filtered != [one["id"] for one in inbox.newest if "read_at" not in one]:
        troubles.append(
            Trouble("count", f"{player}: the filter unread=true shows others")
        )
    troubles += _check_marks(known, inbox)
    return troubles


def _page_order(known: Known, inbox: Inbox) -> Iterator[Trouble]:
    """Yield what a page has newer than what was sent after its acknowledgement."""
    earliest = math.inf
    newer: Publication | None = None
    for shown in inbox.newest:
        one = known.by_id.get(shown["id"])
        if one is None:
            continue
        if newer is not None and one.sent_at > earliest:
            yield Trouble(
                "disorder", f"{inbox.player}: {newer.key} is newer than {one.key}"
            )
        if one.acked_at < earliest:
            earliest, newer = one.acked_at, one


def _check_marks(known: Known, inbox: Inbox) -> Iterator[Trouble]:
    marks = [one for one in known.history.marks if one.player == inbox.player]
    for shown in inbox.newest:
        one = known.by_id.get(shown["id"])
        if one is None:
            continue
        expected = _is_read(one, marks)
        if expected is not None and expected != ("read_at" in shown):
            yield Trouble(
                "mark",
                f"{inbox.player}: {one.key} {one.id} is "
                f"{'unread' if expected else 'read'}, which no request made it",
            )


def _is_read(one: Publication, marks: Iterable[Mark]) -> bool | None:
    """Whether it is read after all of these; None if it may be."""
    read: bool | None = False
    for mark in marks:
        if mark.acked_at == math.inf:
            return None
        if one.id in mark.ids:
            read = mark.how != "unread"
        elif mark.how in ("up_to", "all") and one.sent_at < mark.limit_at:
            read = True if read else None
    return read


def check_badges(history: History, unread: dict[str, int]) -> list[Trouble]:
    """Compare each reader's unread count with that of its player's page."""
    return [
        Trouble(
            "badge",
            f"{one.name} ({one.transport} of {one.player}) shows {one.unread}, the "
            f"page says {unread[one.player]}",
        )
        for one in history.readings
        if one.unread is not None and one.unread != unread[one.player]
    ]


def check_schedules(history: History) -> list[Trouble]:
    """Compare what was sent with the schedules; each is due and has had its time."""
    sent: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for one in history.publications:
        if one.scheduled:
            sent[one.key, one.log[1:]][one.id] = one.sent_at
    for inbox in history.inboxes.values():
        for shown in inbox.newest:
            at = datetime.fromisoformat(shown["created_at"]).timestamp()
            sent[shown["title"], inbox.player][shown["id"]] = at
    # Who deletes what a schedule has sent may do so before anybody sees it.
    deleting = {one.player for one in history.withdrawals if not one.log}
    troubles = []
    for schedule in history.schedules:
        if schedule.acked_at == math.inf:
            continue
        for player in schedule.players:
            times = [*sent[schedule.key, player].values()]
            if len(times) > 1:
                problem = f"fired {len(times)} times"
            elif times and schedule.cancelled:
                problem = "fired although it was cancelled"
            elif not times and schedule.cancelled is False and player not in deleting:
                problem = "did not fire"
            elif times and times[0] < schedule.due_at - 0.002:
                problem = f"fired {schedule.due_at - times[0]} s before its time"
            else:
                continue
            what = f"{schedule.key} for {player} {problem}"
            troubles.append(Trouble("schedule", what))
    return troubles


def check_receipts(
    history: History, receipts: dict[str, dict[str, object]], at: float
) -> list[Trouble]:
    """Compare receipts of notifications to players, by id, with what happened."""
    known = Known.of(history)
    troubles = []
    for id, receipt in receipts.items():
        one = known.by_id[id]
        player = one.log[1:]
        state = receipt["state"]
        gone = (player, id) in known.deleted or id in known.withdrawn
        late = at > one.acked_at + one.ttl_s + EXPIRY_MARGIN_S
        if one.collapse_key and known.last_of_key[one.log, one.collapse_key] != id:
            # It was withdrawn before it was replaced, or when it had been.
            expected = {"replaced", "withdrawn"} if gone else {"replaced"}
        elif one.ttl_s and not late:
            continue
        elif one.ttl_s:
            expected = {"expired", "withdrawn"} if gone else {"expired"}
        elif gone:
            expected = {"withdrawn"}
        elif (player, id) in known.touched_by:
            continue
        else:
            marks = [mark for mark in history.marks if mark.player == player]
            read = _is_read(one, marks)
            if read is None:
                continue
            expected = {"read"} if read else {"stored", "acknowledged"}
            acks = [a for a in history.acknowledgements if a.player == player]
            if not read and any(id in a.ids and a.acked_at < math.inf for a in acks):
                expected = {"acknowledged"}
        if state not in expected:
            troubles.append(
                Trouble("receipt", f"{one.key} {id} is {state}, expected {expected}")
            )
    return troubles


def findings(
    history: History,
    *,
    loses: bool = False,
    further: Sequence[Trouble] = (),
    complete: bool = True,
) -> Findings:
    """
    Judge a history whose `inboxes` were read after quiet.

    One that is not `complete` ends where the deployment did not recover. Only what was
    seen before counts then: nobody knows what would have arrived.
    """
    readings = check_readings(history, loses=loses)
    if not complete:
        return Findings(
            tuple(dict.fromkeys([*history.troubles, *further])),
            sum(one.acked for one in history.publications),
            readings.owed,
            readings.delivered,
            readings.told,
            history.faults_injected,
            history.badges_late_s,
        )
    troubles = [*history.troubles, *further, *readings.troubles]
    for inbox in history.inboxes.values():
        troubles += check_inbox(history, inbox)
    troubles += check_schedules(history)
    unanswered = [one for one in history.publications if not one.acked]
    troubles += [
        Trouble("stuck", f"{one.key} to {one.log} was never acknowledged")
        for one in unanswered
    ]
    return Findings(
        tuple(dict.fromkeys(troubles)),
        sum(one.acked for one in history.publications),
        readings.owed,
        readings.delivered,
        readings.told,
        history.faults_injected,
        history.badges_late_s,
    )
