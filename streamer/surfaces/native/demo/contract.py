"""
The contract of the demo: a page, its files, and its two operations.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ....contract.operation import (
    CACHED,
    NO_STORE,
    TIME,
    Header,
    Operation,
    ResponseSpec,
    Surface,
    header,
    matching,
)
from ....contract.refusals import BODY, QUOTA, RATE_LIMITED, WRITE, unknown
from ....errors import (
    Conflict,
    Draining,
    Forbidden,
    ForeignOrigin,
    IssuerUnavailable,
    LimitReached,
    TooLate,
    Unauthenticated,
    UsedUp,
)
from ....model import Priority
from ....service.access.demo_sessions import SESSION_CHARS, Recipient
from ..common import problems
from ..common.body_types import CheckedBody
from ..common.parameters import Id
from ..common.responses import Problem

__all__ = ["DEMO"]

TITLE_CHARS_MAX: Final = 200
BODY_CHARS_MAX: Final = 500
BYTES_MAX: Final = 8_192

Session = Annotated[str, Meta(pattern=rf"\A[0-9a-f]{{{SESSION_CHARS}}}\Z")]


class SessionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /demo/session``. Without a session it opens one."""

    session: Session | None = None


class PublishBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /demo/publish``."""

    session: Session
    to: Recipient
    title: Annotated[str, Meta(min_length=1, max_length=TITLE_CHARS_MAX)]
    body: Annotated[str, Meta(max_length=BODY_CHARS_MAX)] | None = None
    priority: Priority = "medium"


class PlayerResponse(msgspec.Struct, frozen=True):
    """A player of a session: `name` on the page, `player` in the store."""

    name: str
    player: str
    token: str


class SessionResponse(msgspec.Struct, frozen=True):
    """What the page needs until `expires_at`."""

    session: Annotated[str, matching(rf"^[0-9a-f]{{{SESSION_CHARS}}}$")]
    topic: str
    players: list[PlayerResponse]
    expires_at: Annotated[str, TIME]


class PublishedResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The id of the notification; without it the player has muted it."""

    id: Id | UnsetType = UNSET


SESSION_BODY: Final = CheckedBody[SessionBody](SessionBody, BYTES_MAX, required=False)
PUBLISH_BODY: Final = CheckedBody[PublishBody](PublishBody, BYTES_MAX)

_FILE: Final = (
    *CACHED,
    Header("Content-Security-Policy", "Allows content of this server only."),
)
_ABSENT: Final = unknown("the app demo")


def _file(path: str, name: str, summary: str, media: str) -> Operation:
    return Operation(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        parameters=(header("If-None-Match", str, "ETag of the cached response."),),
        responses=(
            ResponseSpec(200, "The file.", str, _FILE, media=media),
            ResponseSpec(304, "Not modified.", headers=_FILE),
        ),
        # Where the demo is off, its paths do not exist.
        refusals=_ABSENT,
    )


PAGE: Final = _file("/demo", "page", "View the demo", "text/html")
SCRIPT: Final = _file(
    "/demo/page.js", "script", "Retrieve the page's script", "text/javascript"
)
LINE: Final = _file(
    "/demo/line.js", "line", "Retrieve the page's breakable line", "text/javascript"
)
STYLE: Final = _file(
    "/demo/page.css", "style", "Retrieve the page's style sheet", "text/css"
)

OPEN: Final = Operation(
    method="POST",
    path="/demo/session",
    name="openSession",
    summary="Get the credentials of the demo",
    description=(
        "Opens a session with two players of its own, or returns fresh tokens for a "
        "session that was opened within the last hour. The name of the session is its "
        "secret. The tokens read and mark the "
        "inboxes of these players and join the topic; they cannot publish."
    ),
    body=SESSION_BODY,
    responses=(ResponseSpec(200, "The session.", SessionResponse, (NO_STORE,)),),
    refusals=(*BODY, *_ABSENT, *RATE_LIMITED, *WRITE),
)
PUBLISH: Final = Operation(
    method="POST",
    path="/demo/publish",
    name="publish",
    summary="Publish to a player or the topic of a session",
    description="What is published expires within an hour.",
    body=PUBLISH_BODY,
    responses=(ResponseSpec(200, "It is stored.", PublishedResponse, (NO_STORE,)),),
    refusals=(
        *BODY,
        *unknown("the app demo", "the session"),
        *RATE_LIMITED,
        *QUOTA,
        *WRITE,
    ),
)

DEMO: Final = Surface(
    name="demo",
    title="Demo",
    description="The page `/demo`, where the setting `demo_page` allows it.",
    refuse=problems.problem,
    error_type=Problem,
    # Nobody is asked for a credential, and nothing is kept open or sent later.
    never_raised=(
        Conflict,
        Draining,
        Forbidden,
        ForeignOrigin,
        IssuerUnavailable,
        LimitReached,
        TooLate,
        Unauthenticated,
        UsedUp,
    ),
    operations=(PAGE, SCRIPT, LINE, STYLE, OPEN, PUBLISH),
)
