"""
What the page of the console gets, as JSON. Pure: no I/O, no services.

Texts of players and backends are JSON strings here and text nodes on the page; nothing
in between makes markup of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ....core.access.roles import role_of
from ....core.quotas import QuotaLimits
from ....model import Entry, iso_time
from ....service.access.console_sessions import ConsoleSession
from ....service.inboxes.topics import JoinedTopic
from ....service.inspection.nodes import Answers
from ....service.inspection.questions import LoadSamplesAnswer
from ....service.node.console_facts import AppFacts, StoreState
from ....store.logs.receipts import Receipt
from ....store.scheduling.inspection import DueCounts

__all__ = [
    "encode_app",
    "encode_entries",
    "encode_overview",
    "encode_session",
    "encode_summary",
    "encode_ways",
]

_encode: Final = msgspec.json.Encoder().encode


def encode_ways(*, keys: bool, issuer: str | None) -> bytes:
    """Return how people can log in: with keys, and with an issuer by its host."""
    return _encode({"keys": keys, "issuer": issuer})


def encode_session(session: ConsoleSession, apps: Sequence[str], version: str) -> bytes:
    """Return who is logged in, and which apps the session may see."""
    return _encode(
        {
            "app": session.app,
            "apps": apps,
            "role": session.role,
            "key": None if session.is_person else session.id,
            "subject": session.id if session.is_person else None,
            "name": session.name,
            "expires_at": iso_time(session.expires_at_ms),
            "version": version,
        }
    )


def encode_overview(
    *,
    now_ms: int,
    answers: Answers[LoadSamplesAnswer],
    bounds: Mapping[str, Sequence[float]],
    store: StoreState | None,
    due: DueCounts,
) -> bytes:
    """
    Return samples by process, the store, and the app's schedules.
    """
    return _encode(
        {
            "now_ms": now_ms,
            "silent": answers.silent,
            "places": {name: f"{it.host}:{it.pid}" for name, it in answers.of.items()},
            "samples": {name: it.samples for name, it in answers.of.items()},
            "bounds": bounds,
            "store": store and store._asdict(),
            "schedules": due._asdict(),
        }
    )


def encode_app(facts: AppFacts, *, now_ms: int) -> bytes:
    """Return an app with its keys and limits, without any secret."""
    record = facts.record
    return _encode(
        {
            "name": record.name,
            "created_at": iso_time(record.created_at_ms),
            "issuer": record.issuer,
            "audiences": record.expected_audiences,
            "algorithm": record.algorithm,
            "players": facts.players,
            "limits": _limits(facts.limits),
            "keys": [
                {
                    "id": key.id,
                    "name": key.name,
                    "role": role_of(key.scopes),
                    "scopes": sorted(
                        it for it in key.scopes if not it.startswith("console:")
                    ),
                    "created_at": iso_time(key.created_at_ms),
                    "expires_at": _time(key.expires_at_ms),
                    "expired": key.is_expired(now_ms),
                    "last_used_at": _time(used_ms),
                }
                for key, used_ms in facts.keys
            ],
        }
    )


def encode_summary(
    player: str, unread: int, topics: Sequence[JoinedTopic], muted: Sequence[str]
) -> bytes:
    """Return what belongs to a player beside notifications."""
    return _encode(
        {
            "player": player,
            "unread": unread,
            "topics": [{"topic": it.topic, "muted": it.muted} for it in topics],
            "muted_types": muted,
        }
    )


def encode_entries(entries: Sequence[tuple[Entry, Receipt]]) -> bytes:
    """
    Return the entries of a log, newest first, each with its state.

    `notification` is null where the text was purged.
    """
    return _encode({"entries": [_entry(*pair) for pair in entries]})


def _entry(entry: Entry, receipt: Receipt) -> dict[str, Any]:
    state = receipt.ended or ("read" if receipt.read_at_ms else "")
    return {
        "id": entry.id,
        "state": state or ("acknowledged" if receipt.acknowledged else "stored"),
        "stored_at": iso_time(receipt.stored_ms),
        "read_at": _time(receipt.read_at_ms),
        "expires_at": _time(receipt.expires_ms),
        "device": entry.device,
        "replaces": entry.replaces,
        # A purged entry has no text.
        "notification": msgspec.Raw(b"{" + entry.fragment) if entry.fragment else None,
    }


def _limits(limits: QuotaLimits) -> dict[str, int]:
    return dict(limits._asdict())


def _time(at_ms: int | None) -> str | None:
    return iso_time(at_ms) if at_ms else None
