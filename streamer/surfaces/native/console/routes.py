"""
The console: its page, its sessions, and what the page asks the server for.

Decides the role that each operation requires, the rights with which the service is
called, and what is recorded of an action. A session is a cookie that scripts cannot
read and that browsers send with requests of this site only; a request that changes
something has to come from a page of this origin, too. What concerns inboxes, messages,
schedules and campaigns is done by the handlers of the native operations, with a caller
that has the rights of the one operation. Knows Starlette.

A login with an issuer leaves the page and comes back to `callback`, which answers with
text, since no page of ours is there. Where the page goes afterwards is the configured
URL of the console and a fragment, so no request can choose another place.

Without a console key and without an issuer the paths do not exist.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request, cookie_parser
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from ....contract.binding import Endpoints, Handler, bind
from ....contract.client_files import ClientFiles
from ....contract.operation import Operation
from ....contract.responses import json_response, no_content, retry_after_of
from ....contract.static_file import StaticFile
from ....core.access.rights import Caller
from ....core.access.rights import Scope as Right
from ....core.access.roles import Role
from ....errors import (
    Error,
    FieldError,
    Invalid,
    RateLimited,
    Rejected,
    Unavailable,
)
from ....model import App, Log, Player, parse_player
from ....origins import AllowedOrigins
from ....service.access.console_logins import LOGIN_MS, ConsoleLogins
from ....service.access.console_sessions import (
    ConsoleSession,
    ConsoleSessions,
    NoRole,
)
from ....service.inboxes.inbox import InboxOperations
from ....service.inboxes.topics import TopicOperations
from ....service.node.console_facts import ConsoleFacts
from ....service.node.load_history import LoadHistory
from ....service.node.request_context import note_player, request_id
from ....service.privacy.audit import Action, Audit, target_of
from ....store.access.apps import Apps
from ....transports.web.requests import (
    header_of,
    list_header_of,
    require_origin,
    single_header_of,
)
from ..admin.routes import NativeAdmin
from ..campaigns.routes import NativeCampaigns
from ..common import names, problems
from ..inboxes.routes import NativeInboxes
from ..privacy.routes import NativePrivacy
from ..publishing import wire as publish_wire
from ..publishing.message_body import PublishRequest
from ..publishing.routes import NativePublishing
from ..publishing.schedule_wire import encode_schedules
from ..topics.routes import NativeTopics
from . import contract, wire

__all__ = ["Console", "ConsoleParts"]

COOKIE: Final = "streamer_console"
LOGIN_COOKIE: Final = "streamer_console_login"
APP_HEADER: Final = b"streamer-app"

RECORDED_MAX: Final = 50
"""Apps in whose audit logs a login is, of those that a person may see."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_SECRET: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_TEXT: Final = {
    **_SECRET,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_CLIENT: Final = b"../client/"

_READ: Final[tuple[Right, ...]] = ("notifications:read",)
_ADMIN_READ: Final[tuple[Right, ...]] = ("admin:read",)
_SEND: Final[tuple[Right, ...]] = ("notifications:send",)
_BOTH: Final[tuple[Right, ...]] = (*_READ, *_SEND)
_SCHEDULES: Final[tuple[Right, ...]] = ("schedules:write",)
_CAMPAIGNS: Final[tuple[Right, ...]] = ("campaigns:read",)

_encode: Final = msgspec.json.Encoder().encode


class ConsoleParts(NamedTuple):
    """
    What the console is built on.

    `logins` is None without an issuer. `url` is that of the page in browsers, "" if
    that is where requests come to.
    """

    sessions: ConsoleSessions
    logins: ConsoleLogins | None
    url: str
    facts: ConsoleFacts
    load_history: LoadHistory
    apps: Apps
    inboxes: InboxOperations
    topics: TopicOperations
    audit: Audit


class Console:
    """
    The console with its routes.

    Args:
        parts: Its services.
        client: The modules of the web client, of which the page loads this version.
        publishing: The native operations on messages and schedules.
        inboxes: The native operations on inboxes.
        topics: The native operations on topics.
        campaigns: The native operations on campaigns.
        admin: The native operations on connections.
        privacy: The native operations on the audit log.

    """

    def __init__(
        self,
        parts: ConsoleParts,
        client: ClientFiles,
        *,
        publishing: NativePublishing,
        inboxes: NativeInboxes,
        topics: NativeTopics,
        campaigns: NativeCampaigns,
        admin: NativeAdmin,
        privacy: NativePrivacy,
    ) -> None:
        self._parts = parts
        self._client = client
        self._publishing = publishing
        self._inboxes = inboxes
        self._topics = topics
        self._campaigns = campaigns
        self._admin = admin
        self._privacy = privacy
        url = urlsplit(parts.url)
        # Behind a proxy that passes on another host, this is the page's own.
        own = [f"{url.scheme}://{url.netloc}"] if parts.url else []
        self._own_origins = AllowedOrigins(own)
        self._version = importlib.metadata.version("streamer-server")

    def routes(self) -> list[BaseRoute]:
        return [
            *bind(
                (operation, self._gated(self._file(operation, name)))
                for name, operation in contract.FILES.items()
            ),
            *Endpoints(self._anybody, _refuse).bind(
                (contract.LOGIN, self.log_in),
                (contract.WAYS, self.ways),
                (contract.BEGIN, self.begin),
                (contract.CALLBACK, self.callback),
            ),
            *Endpoints(self._identify, _refuse).bind(*self._handlers()),
        ]

    def _handlers(self) -> list[tuple[Operation, Handler[ConsoleSession]]]:
        publishing, inboxes = self._publishing, self._inboxes
        topics, campaigns = self._topics, self._campaigns
        return [
            (contract.SESSION, self.session),
            (contract.LOGOUT, self.log_out),
            (contract.OVERVIEW, self.overview),
            (contract.APP, self.app),
            (contract.PAGE, _read(_READ, inboxes.page)),
            (contract.RECEIPT, _read(_READ, inboxes.receipt)),
            (contract.ENTRIES, self.entries),
            (contract.PLAYER_SUMMARY, self.player),
            (contract.INSPECTION, _read(_ADMIN_READ, self._admin.inspect)),
            (contract.TRACE, _read(_ADMIN_READ, self._admin.trace)),
            (contract.AUDIT, self.audit),
            (
                contract.DISCONNECT,
                # The service records it.
                self._act("support", None, ("admin:write",), self._admin.disconnect),
            ),
            (
                contract.MARK_READ,
                self._act("support", "player.mark", _SEND, inboxes.mark_read),
            ),
            (
                contract.MARK_UNREAD,
                self._act("support", "player.mark", _SEND, inboxes.mark_unread),
            ),
            (
                contract.WITHDRAW,
                self._act("support", "withdraw", _BOTH, inboxes.delete),
            ),
            (
                contract.REVOKE_TOKENS,
                self._act("support", "tokens.revoke", (), self._revoke_tokens),
            ),
            (
                contract.JOIN,
                self._act("support", "player.subscribe", _SEND, topics.join_topic),
            ),
            (
                contract.LEAVE,
                self._act("support", "player.unsubscribe", _SEND, topics.leave_topic),
            ),
            (contract.PUBLISH, self.publish),
            (contract.AUDIENCE, self.audience),
            (contract.SCHEDULES, _read(_SCHEDULES, publishing.schedules)),
            (contract.DUE, self.due),
            (contract.SCHEDULE, _read(_SCHEDULES, publishing.schedule)),
            (
                contract.MOVE_SCHEDULE,
                self._act(
                    *("operator", "schedule.move"),
                    # That of a campaign's send, too, as below.
                    *((*_SCHEDULES, "campaigns:write"), publishing.move_schedule),
                ),
            ),
            (
                contract.CANCEL_SCHEDULE,
                self._act(
                    # The service records it.
                    *("operator", None),
                    *((*_SCHEDULES, "campaigns:write"), publishing.cancel_schedule),
                ),
            ),
            (
                contract.PAUSE_SCHEDULE,
                self._act(
                    *("operator", None),
                    *((*_SCHEDULES, "campaigns:write"), publishing.pause_schedule),
                ),
            ),
            (
                contract.RESUME_SCHEDULE,
                self._act(
                    *("operator", None),
                    *((*_SCHEDULES, "campaigns:write"), publishing.resume_schedule),
                ),
            ),
            (contract.CAMPAIGNS, _read(_CAMPAIGNS, campaigns.campaigns)),
            (contract.CAMPAIGN, _read(_CAMPAIGNS, campaigns.campaign)),
        ]

    # Sessions.

    async def ways(self, request: Request, _: None) -> Response:
        logins = self._parts.logins
        return _json(
            wire.encode_ways(
                keys=await self._parts.sessions.has_keys(),
                issuer=logins.issuer.host if logins is not None else None,
            )
        )

    async def log_in(self, request: Request, _: None) -> Response:
        # A foreign page must not log its visitor in with a key of its own.
        self._require_own_page(request)
        body = await contract.LOGIN_BODY.read(request)
        secret, session = await self._parts.sessions.open(
            body.key.strip(), client=_client_of(request)
        )
        async with self._recorded(session, "console.login"):
            pass
        response = self._session_response(session, [session.app])
        self._set(request, response, COOKIE, secret)
        return response

    async def begin(self, request: Request, _: None) -> Response:
        # A foreign page must not begin a login that its visitor does not want.
        self._require_own_page(request)
        body = await contract.BEGIN_BODY.read(request)
        begun = await self._require_logins().begin(
            client=_client_of(request), app=body.app, target=body.target
        )
        response = _json(_encode({"url": begun.url}))
        # Lax: it has to come back with a request that the issuer's page makes.
        self._set(request, response, LOGIN_COOKIE, begun.cookie, LOGIN_MS // 1_000)
        return response

    async def callback(self, request: Request, _: None) -> Response:
        logins = self._require_logins()
        try:
            response = await self._finished(request, logins)
        except RateLimited as error:
            response = self._told(429, error)
        except NoRole as error:
            response = self._told(403, error)
        except Rejected as error:
            response = self._told(400, error)
        except Unavailable as error:
            response = self._told(503, error)
        self._set(request, response, LOGIN_COOKIE, "", 0)
        return response

    async def _finished(self, request: Request, logins: ConsoleLogins) -> Response:
        query = request.query_params
        secret, session, target = await logins.finish(
            client=_client_of(request),
            cookie=_cookie_of(request, LOGIN_COOKIE),
            state=query.get("state", ""),
            code=query.get("code", ""),
            error=query.get("error", ""),
            sender=query.get("iss"),
        )
        await self._record_in_all(
            session, await self._parts.sessions.apps_of(secret), "console.login"
        )
        place = f"{self._parts.url}?app={session.app}{target}"
        response = Response(status_code=303, headers={**_TEXT, "Location": place})
        self._set(request, response, COOKIE, secret)
        return response

    async def session(self, request: Request, session: ConsoleSession) -> Response:
        apps = await self._parts.sessions.apps_of(_cookie_of(request, COOKIE))
        return self._session_response(session, apps)

    async def log_out(self, request: Request, session: ConsoleSession) -> Response:
        secret = _cookie_of(request, COOKIE)
        apps = await self._parts.sessions.apps_of(secret)
        await self._parts.sessions.close(secret)
        await self._record_in_all(session, apps, "console.logout")
        response, logins = no_content(), self._parts.logins
        if session.is_person and logins is not None:
            url = await logins.issuer.logout_url(session.id_token, self._parts.url)
            response = _json(_encode({"url": url}))
        self._set(request, response, COOKIE, "", 0)
        return response

    def _set(
        self,
        request: Request,
        response: Response,
        name: str,
        value: str,
        lifetime_s: int | None = None,
    ) -> None:
        """Add a cookie to a response; with a lifetime of 0 it is removed."""
        page = list_header_of(request, b"origin") or self._parts.url
        # Without a Path, so that it is sent to /console/api below any prefix only.
        site = "Lax" if name == LOGIN_COOKIE else "Strict"
        cookie = f"{name}={value}; HttpOnly; SameSite={site}"
        if lifetime_s is not None:
            cookie += f"; Max-Age={lifetime_s}"
        if page.startswith("https:"):
            cookie += "; Secure"
        response.headers.append("Set-Cookie", cookie)

    def _told(self, status: int, error: Error) -> Response:
        """Return a text for who comes from the issuer and cannot be let in."""
        problem = str(error)
        text = (
            f"{problem[:1].upper()}{problem[1:]}.\n\n"
            f"The console: {self._parts.url}\n"
            f"Request: {request_id()}\n"
        )
        if isinstance(error, Unavailable):
            text += "A login with a console key goes on.\n"
        headers = dict(_TEXT)
        if retry := retry_after_of(error):
            headers["Retry-After"] = str(retry)
        return Response(
            text, status, headers=headers, media_type="text/plain; charset=utf-8"
        )

    def _require_logins(self) -> ConsoleLogins:
        if self._parts.logins is None:
            raise HTTPException(404)
        return self._parts.logins

    def _require_own_page(self, request: Request) -> None:
        """Refuse a request of a page that is not this console."""
        require_origin(request, self._own_origins)

    # The pages.

    async def overview(self, request: Request, session: ConsoleSession) -> Response:
        parts, since = self._parts, request.query_params.get("since", "0")
        if not (since.isascii() and since.isdecimal() and len(since) < 16):
            raise Invalid(FieldError(("query", "since"), "must be Unix time in ms"))
        return _json(
            wire.encode_overview(
                now_ms=int(time.time() * 1_000),
                answers=await parts.facts.samples(int(since)),
                bounds=parts.load_history.bounds,
                store=parts.facts.store(),
                due=await parts.facts.due(session.app),
            )
        )

    async def due(self, request: Request, session: ConsoleSession) -> Response:
        schedules = await self._parts.facts.first_due(session.app)
        return _json(encode_schedules(schedules, more=False))

    async def app(self, request: Request, session: ConsoleSession) -> Response:
        facts = await self._parts.facts.of_app(session.app)
        return _json(wire.encode_app(facts, now_ms=int(time.time() * 1_000)))

    async def player(self, request: Request, session: ConsoleSession) -> Response:
        player, caller = _player_of(request), session.caller(*_READ)
        (unread,) = await self._parts.inboxes.unread_counts(caller, [player])
        topics = await self._parts.topics.topics(caller, player)
        muted = await self._parts.topics.muted_types(caller, player)
        return _json(wire.encode_summary(player, unread, topics, muted))

    async def entries(self, request: Request, session: ConsoleSession) -> Response:
        player = _player_of(request)
        entries = await self._parts.facts.entries(session.app, player)
        return _json(wire.encode_entries(entries))

    async def audit(self, request: Request, session: ConsoleSession) -> Response:
        session.require("operator")
        caller = session.caller(*_ADMIN_READ)
        return _no_store(await self._privacy.audit(request, caller))

    # Messages.

    async def publish(self, request: Request, session: ConsoleSession) -> Response:
        session.require("support")
        body = await contract.PUBLISH_BODY.read(request)
        publish = _only_message(session, bytes(body.message))
        one_player = len(publish.to) == 1 and not publish.message.logs[0].is_audience
        session.require("support" if one_player else "operator")
        reason = body.reason or ""
        if not (isinstance(reason, str) and reason.strip()) and one_player:
            problem = "is required: it goes into the audit log"
            raise Invalid(FieldError(("body", "reason"), problem))
        caller = session.caller(*_SEND, *_SCHEDULES)
        key = single_header_of(request, b"idempotency-key")
        async with self._recorded(
            session,
            "player.compensate" if one_player else "console.publish",
            target="" if one_player else _target(publish.message.logs),
            player=Player(publish.message.logs[0].name) if one_player else None,
            reason=reason,
        ):
            response = await self._publishing.publish_one(caller, publish, key)
        return _no_store(response)

    async def audience(self, request: Request, session: ConsoleSession) -> Response:
        session.require("operator")
        body = await contract.AUDIENCE_BODY.read(request)
        logs = _logs_of(session, body.to)
        reached = await self._parts.facts.audience(session.app, logs)
        per_s = None
        if reached.players is not None and body.spread_s:
            per_s = round(reached.players / body.spread_s, 2)
        response = contract.AudienceResponse(
            *(reached.players, reached.online, list(reached.silent)),
            *(body.spread_s, per_s),
        )
        return _json(_encode(response))

    async def _revoke_tokens(self, request: Request, caller: Caller) -> Response:
        await self._parts.apps.revoke_tokens(caller.app, _player_of(request))
        return no_content()

    # What is common to all of them.

    def _act(
        self,
        role: Role,
        action: Action | None,
        rights: tuple[Right, ...],
        handler: Handler[Caller],
    ) -> Handler[ConsoleSession]:
        """
        Return a handler that requires a role and records the action.

        Without an action its service records it.
        """

        async def act(request: Request, session: ConsoleSession) -> Response:
            session.require(role)
            if action is None:
                return _no_store(await handler(request, session.caller(*rights)))
            path = dict(request.path_params)
            is_of_player = path.pop("player", None) is not None
            async with self._recorded(
                session,
                action,
                target="/".join(map(str, path.values())),
                player=_player_of(request) if is_of_player else None,
            ):
                response = await handler(request, session.caller(*rights))
            return _no_store(response)

        return act

    def _recorded(
        self,
        session: ConsoleSession,
        action: Action,
        *,
        target: str = "",
        player: Player | None = None,
        reason: str = "",
    ) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Record the operation in a block; see `Audit.recorded`."""
        return self._parts.audit.recorded(
            *(session.app, session.caller(), action),
            target=target,
            player=player,
            reason=reason,
            # Some services record what they do, and know more of it.
            yields=True,
        )

    async def _record_in_all(
        self, session: ConsoleSession, apps: Sequence[App], action: Action
    ) -> None:
        """Record what concerns all apps of a session, in the first `RECORDED_MAX`."""
        for app in apps[:RECORDED_MAX]:
            async with self._recorded(session._replace(app=app), action):
                pass

    async def _anybody(self, request: Request) -> None:
        await self._require_to_exist()

    async def _identify(self, request: Request) -> ConsoleSession:
        await self._require_to_exist()
        if request.method not in ("GET", "HEAD"):
            self._require_own_page(request)
        session = await self._parts.sessions.find(
            _cookie_of(request, COOKIE), header_of(request, APP_HEADER, "")
        )
        if player := parse_player(request.path_params.get("player", "")):
            note_player(player)
        return session

    def _session_response(
        self, session: ConsoleSession, apps: Sequence[str]
    ) -> Response:
        return _json(wire.encode_session(session, apps, self._version))

    async def _require_to_exist(self) -> None:
        if not await self._parts.sessions.exists():
            raise HTTPException(404)

    def _gated(self, app: ASGIApp) -> ASGIApp:
        """Return an application that does not exist while nobody can log in."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self._require_to_exist()
            except Error as error:
                await _refuse(error, Request(scope))(scope, receive, send)
                return
            await app(scope, receive, send)

        return gated

    def _file(self, operation: Operation, name: str) -> StaticFile:
        def read() -> bytes:
            content = (files(__package__) / name).read_bytes()
            version = f"{self._client.version}/".encode()
            return content.replace(_CLIENT, _CLIENT + version)

        return StaticFile(operation.responses[0].media, read, _HEADERS)


def _refuse(error: Error, _: Request) -> Response:
    return _no_store(problems.problem(error))


def _read(rights: tuple[Right, ...], handler: Handler[Caller]) -> Handler[Any]:
    """Return a handler for every role that calls a native one with these rights."""

    async def read(request: Request, session: ConsoleSession) -> Response:
        return _no_store(await handler(request, session.caller(*rights)))

    return read


def _client_of(request: Request) -> str:
    return request.client.host if request.client else ""


def _cookie_of(request: Request, name: str) -> str:
    """Return a cookie of the request, "" without it."""
    # Not `http.cookies`: it reads no cookie after one that is not well-formed, and
    # another application on this host may have set one.
    cookies = cookie_parser(";".join(request.headers.getlist("cookie")))
    return cookies.get(name, "")


def _player_of(request: Request) -> Player:
    return names.player_in_path(request.path_params["player"])


def _only_message(session: ConsoleSession, message: bytes) -> PublishRequest:
    requests, many = publish_wire.decode_publish(session.app, message)
    if many:
        raise Invalid(FieldError(("body", "message"), "must be a single message"))
    return requests[0]


def _logs_of(session: ConsoleSession, to: Any) -> list[Log]:
    message = _encode({"to": to, "title": "-"})
    return list(_only_message(session, message).message.logs)


def _target(logs: Sequence[Log]) -> str:
    """Return whom a message to several players is for, without their names."""
    return target_of(logs[0]) if logs[0].is_audience else f"{len(logs)} players"


def _json(body: bytes) -> Response:
    return json_response(body, headers=_SECRET)


def _no_store(response: Response) -> Response:
    """Forbid caches and other sites to keep or read a response of a handler."""
    names_set = {name.lower().encode() for name in _SECRET}
    response.raw_headers[:] = [
        *(it for it in response.raw_headers if it[0] not in names_set),
        *((k.lower().encode(), v.encode()) for k, v in _SECRET.items()),
    ]
    return response
