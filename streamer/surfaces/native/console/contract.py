"""
The contract of the console: its files, and the operations of its page.

These operations are no API: they belong to the page of the same version and change with
it. So they are not in the document of the contract. Programs use the native operations.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ....contract.operation import (
    NO_STORE,
    Body,
    Method,
    Operation,
    ResponseSpec,
    Surface,
    path,
)
from ....contract.refusals import (
    BAD_PATH,
    BAD_QUERY,
    BODY,
    CREDENTIAL,
    FOREIGN_ORIGIN,
    IN_FLIGHT,
    RATE_LIMITED,
    RIGHT,
    STORE,
    WRITE,
)
from ....core.access.roles import Role
from ....service.access.console_logins import TARGET_CHARS_MAX
from ....service.scheduling.schedules import SPREAD_MAX_MS
from ..common import problems
from ..common.body_types import CheckedBody
from ..common.parameters import ID, PLAYER, TOPIC, Count
from ..common.responses import Problem
from ..publishing.message_body import RecipientsBody
from ..publishing.wire import PUBLISH_BYTES_MAX

__all__ = ["CONSOLE", "FILES"]

REASON_CHARS_MAX: Final = 500
LOGIN_BYTES_MAX: Final = 1_024

API: Final = "/console/api"

Reason = Annotated[str, Meta(min_length=1, max_length=REASON_CHARS_MAX)]


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /console/api/session``."""

    key: Annotated[str, Meta(min_length=1, max_length=256)]


class BeginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    ``POST /console/api/login``: what to show after a login with the issuer.

    `target` is the fragment of the page, such as ``#/player/ann``.
    """

    app: Annotated[str, Meta(max_length=64)] = ""
    target: Annotated[str, Meta(max_length=TARGET_CHARS_MAX)] = ""


class PublishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    ``POST /console/api/messages``: a message as in ``POST /v1/notifications``.

    `reason` says why it is sent; it is required for support and goes into the audit
    log.
    """

    message: msgspec.Raw
    reason: Reason | UnsetType = UNSET


class AudienceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /console/api/audience``: whom a message would reach, without sending."""

    to: RecipientsBody
    spread_s: Annotated[int, Meta(ge=0, le=SPREAD_MAX_MS // 1_000)] = 0


class SessionResponse(msgspec.Struct, frozen=True):
    """Who is logged in, until when, and as what."""

    app: str
    apps: list[str]
    role: Role
    key: str | None
    subject: str | None
    name: str
    expires_at: str
    version: str


class AudienceResponse(msgspec.Struct, frozen=True):
    """
    How many players a message would reach.

    `players` is None where nothing counts them. `online` are the streams that are open
    on the nodes but the `silent` ones; None where too many players are named.
    """

    players: Count | None
    online: Count | None
    silent: list[str]
    spread_s: Count
    per_s: float | None


BEGIN_BODY: Final = CheckedBody[BeginBody](BeginBody, LOGIN_BYTES_MAX)
LOGIN_BODY: Final = CheckedBody[LoginBody](LoginBody, LOGIN_BYTES_MAX)
PUBLISH_BODY: Final = Body[PublishBody](PublishBody, PUBLISH_BYTES_MAX)
AUDIENCE_BODY: Final = CheckedBody[AudienceBody](AudienceBody, PUBLISH_BYTES_MAX)

_HTML: Final = "text/html"
_SCRIPT: Final = "text/javascript"
_STYLE: Final = "text/css"


def _file(path: str, name: str, media: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=name,
        summary=f"Retrieve {path.rpartition('/')[2]}",
        responses=(ResponseSpec(200, "The file.", str, media=media),),
    )


FILES: Final = {
    "page.html": _file("/console", "page", _HTML),
    **{
        name: _file(
            f"/console/{name}",
            name.replace(".", "-"),
            _SCRIPT if name.endswith(".js") else _STYLE,
        )
        for name in (
            *("main.js", "api.js", "dom.js", "text.js", "charts.js", "series.js"),
            *("overview.js", "player.js", "publish.js", "schedules.js", "app.js"),
            "audit.js",
            *("message.js", "page.css"),
        )
    },
}
"""The files by their names in the package."""


_PARAMETERS: Final = {"player": PLAYER, "topic": TOPIC}


def _read(place: str, name: str) -> Operation:
    return _write("GET", place, name)


def _write(method: Method, place: str, name: str) -> Operation:
    words = [it[1:-1] for it in place.split("/") if it.startswith("{")]
    reads = method == "GET"
    return Operation(
        method=method,
        path=API + place,
        name=name,
        summary=name,
        parameters=tuple(
            _PARAMETERS.get(it) or (ID if it == "id" else path(it, str, it))
            for it in words
        ),
        responses=(ResponseSpec(200, "Done.", dict, (NO_STORE,)),),
        refusals=(
            *CREDENTIAL,
            *RIGHT,
            *FOREIGN_ORIGIN,
            *BAD_PATH,
            *BAD_QUERY,
            *BODY,
            *RATE_LIMITED,
            *IN_FLIGHT,
            *(STORE if reads else WRITE),
        ),
    )


WAYS: Final = _read("/login", "waysToLogIn")
BEGIN: Final = _write("POST", "/login", "beginLogin")
# A page that the issuer sends the browser to, so it responds with text, not with JSON.
CALLBACK: Final = _read("/callback", "endLogin")
LOGIN: Final = _write("POST", "/session", "logIn")
SESSION: Final = _read("/session", "session")
LOGOUT: Final = _write("DELETE", "/session", "logOut")

_INBOX: Final = "/players/{player}/notifications"
PAGE: Final = _read(_INBOX, "inbox")
RECEIPT: Final = _read(f"{_INBOX}/{{id}}/receipt", "receipt")
MARK_READ: Final = _write("POST", f"{_INBOX}/read", "markRead")
MARK_UNREAD: Final = _write("POST", f"{_INBOX}/unread", "markUnread")
WITHDRAW: Final = _write("DELETE", f"{_INBOX}/{{id}}", "withdraw")
ENTRIES: Final = _read("/players/{player}/entries", "entries")
PLAYER_SUMMARY: Final = _read("/players/{player}/summary", "player")
INSPECTION: Final = _read("/players/{player}/inspection", "inspection")
TRACE: Final = _read(f"{_INBOX}/{{id}}/trace", "trace")
DISCONNECT: Final = _write("POST", "/players/{player}/disconnect", "disconnect")
REVOKE_TOKENS: Final = _write("DELETE", "/players/{player}/tokens", "revokeTokens")
JOIN: Final = _write("PUT", "/players/{player}/topics/{topic}", "joinTopic")
LEAVE: Final = _write("DELETE", "/players/{player}/topics/{topic}", "leaveTopic")

PUBLISH: Final = _write("POST", "/messages", "publish")
AUDIENCE: Final = _write("POST", "/audience", "audience")
SCHEDULES: Final = _read("/schedules", "schedules")
SCHEDULE: Final = _read("/schedules/{id}", "schedule")
DUE: Final = _read("/due", "due")
MOVE_SCHEDULE: Final = _write("PATCH", "/schedules/{id}", "moveSchedule")
CANCEL_SCHEDULE: Final = _write("DELETE", "/schedules/{id}", "cancelSchedule")
PAUSE_SCHEDULE: Final = _write("POST", "/schedules/{id}/pause", "pauseSchedule")
RESUME_SCHEDULE: Final = _write("POST", "/schedules/{id}/resume", "resumeSchedule")
CAMPAIGNS: Final = _read("/campaigns", "campaigns")
CAMPAIGN: Final = _read("/campaigns/{id}", "campaign")

OVERVIEW: Final = _read("/overview", "overview")
APP: Final = _read("/app", "app")
AUDIT: Final = _read("/audit", "audit")

CONSOLE: Final = Surface(
    name="console",
    title="Console",
    description="The page `/console`, and what it asks the server for.",
    refuse=problems.problem,
    error_type=Problem,
    operations=(
        *FILES.values(),
        *(WAYS, BEGIN, CALLBACK),
        *(LOGIN, SESSION, LOGOUT, OVERVIEW, APP, AUDIT),
        *(PAGE, RECEIPT, MARK_READ, MARK_UNREAD, WITHDRAW, ENTRIES, PLAYER_SUMMARY),
        *(INSPECTION, TRACE, DISCONNECT, REVOKE_TOKENS, JOIN, LEAVE, PUBLISH, AUDIENCE),
        *(SCHEDULES, SCHEDULE, DUE, MOVE_SCHEDULE, CANCEL_SCHEDULE),
        *(PAUSE_SCHEDULE, RESUME_SCHEDULE),
        *(CAMPAIGNS, CAMPAIGN),
    ),
)
