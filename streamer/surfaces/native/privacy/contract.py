"""
The contract of the audit log, with the types of its responses.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import UNSET, UnsetType

from ....contract.operation import (
    BEARER,
    COOKIE,
    TIME,
    Operation,
    ResponseSpec,
    matching,
    query,
)
from ....contract.refusals import BAD_QUERY, STORE
from ....service.privacy.audit import Action
from ..common.names import PlayerText
from ..common.parameters import CALLER_ERRORS, LIMIT

__all__ = ["PRIVACY_OPERATIONS"]

Time = Annotated[str, TIME]
AuditId = Annotated[str, matching(r"^\d{1,15}-\d{1,10}$")]


class AuditEntryResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    One operation. `player` is the keyed hash of a player; absent fields are not null.

    `by` is who did it: `key` and the id of a backend key, `token` and the hash of its
    player, or `cli` and a user of the machine. `outcome` is `done`, or the error.
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

PRIVACY_OPERATIONS: Final = (AUDIT,)
