"""
The contract of the audit log and of the erasure of players, with the types of
responses.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ....contract.operation import (
    BEARER,
    COOKIE,
    NO_STORE,
    TIME,
    Operation,
    ResponseSpec,
    matching,
    query,
)
from ....contract.refusals import BAD_PATH, BAD_QUERY, BODY, STORE, WRITE, unknown
from ....service.privacy.audit import Action
from ..common.body_types import CheckedBody
from ..common.names import PlayerText
from ..common.parameters import CALLER_ERRORS, LIMIT, PLAYER, REASON, REASON_CHARS_MAX

__all__ = ["PRIVACY_OPERATIONS"]

Time = Annotated[str, TIME]
AuditId = Annotated[str, matching(r"^\d{1,15}-\d{1,10}$")]


class AuditEntryResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    One operation. `player` is the keyed hash of a player; absent fields are not null.

    `by` is who did it: `key` and the id of a backend key, `oidc` and the subject of a
    person in the console, `token` and the hash of its player, or `cli` and a user of
    the machine. `outcome` is `done`, or the error.
    """

    id: AuditId
    at: Time
    action: str
    by: str
    outcome: str
    by_name: str | UnsetType = UNSET
    target: str | UnsetType = UNSET
    player: str | UnsetType = UNSET
    player_name: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET


class AuditResponse(msgspec.Struct, frozen=True):
    """A page, newest first. Pass `next` as `before` for the next page."""

    entries: list[AuditEntryResponse]
    next: AuditId | None


class EraseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/players/{player}/erasure``."""

    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] = ""


class ErasedResponse(msgspec.Struct, frozen=True):
    """
    What was removed, by kind. `files` is `pending` until a node has rewritten the files
    of the embedded store; those of an `external` store are the operator's.
    """

    removed: dict[str, Annotated[int, Meta(ge=0)]]
    files: Literal["pending", "external"]


ERASE_BODY: Final = CheckedBody[EraseBody](EraseBody, required=False)

BEFORE: Final = query("before", AuditId, "The `next` of the previous page.")
ACTION: Final = query(
    "action",
    str,
    f"Only this action: {', '.join(f'`{name}`' for name in get_args(Action))}.",
)
OF_PLAYER: Final = query("player", PlayerText, "Only what was done to this player.")

AUDIT: Final = Operation(
    method="GET",
    path="/v1/audit",
    name="audit",
    summary="Retrieve the audit log",
    description=(
        "Administrative operations on the app and its players, newest first. The last "
        "10,000 are kept. Requires the scope `admin:read`."
    ),
    parameters=(LIMIT, BEFORE, OF_PLAYER, ACTION),
    responses=(ResponseSpec(200, "A page of the audit log.", AuditResponse),),
    refusals=(*CALLER_ERRORS, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
)

ERASE: Final = Operation(
    method="POST",
    path="/v1/players/{player}/erasure",
    name="erasePlayer",
    summary="Erase a player",
    description=(
        "Removes everything that the store has of the player: inbox, marks, topics, "
        "mutes, schedules, cards, devices, tickets. Revokes the player's tokens, and "
        "closes open streams with 4205. What is published to the player before the "
        "response may be erased, too. Messages to audiences stay. Requires "
        "the scope `admin:write`. This operation is idempotent."
    ),
    parameters=(PLAYER,),
    body=ERASE_BODY,
    responses=(ResponseSpec(200, "Erased.", ErasedResponse),),
    refusals=(
        *CALLER_ERRORS,
        *BAD_PATH,
        *BODY,
        *unknown("the app"),
        *WRITE,
    ),
    security=(BEARER, COOKIE),
)

EXPORT_MEDIA: Final = "application/jsonl"

EXPORT: Final = Operation(
    method="GET",
    path="/v1/players/{player}/export",
    name="exportPlayer",
    summary="Export a player",
    description=(
        "Everything that the store has of the player, one JSON object per line, each "
        "with a `kind`. The last line has the kind `end`; an export without it is not "
        "complete. Requires the scope `admin:read`."
    ),
    parameters=(PLAYER, REASON),
    responses=(ResponseSpec(200, "The export.", str, (NO_STORE,), media=EXPORT_MEDIA),),
    refusals=(*CALLER_ERRORS, *BAD_PATH, *BAD_QUERY, *STORE),
    security=(BEARER, COOKIE),
)

PRIVACY_OPERATIONS: Final = (AUDIT, EXPORT, ERASE)
