"""
Logins to the console with an OpenID Connect issuer.

Decides how a login begins and ends: what the browser takes to the issuer and brings
back, and what is checked before there is a session. Knows the issuer, the sessions and
one key of the store. Knows nothing of requests.

Any node may end what another has begun. The browser keeps a cookie of 256 random bits,
the time until which it is good, and where to go afterwards. State, nonce and PKCE's
verifier are keyed hashes of that cookie, by a key that all nodes read from the store.
So nothing is stored for who only begins, a state belongs to one browser, and nobody
else can make one. The store remembers that a state was used, for as long as it is good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from ...core.access.id_tokens import read_person
from ...errors import Rejected, Unauthenticated
from ...store.access.short_lived import put_once
from ...store.client.connection import RedisConnection
from .console_sessions import ConsoleSession, ConsoleSessions, NoRole
from .oidc_issuer import CodeRefused, OidcIssuer

__all__ = ["LOGIN_MS", "TARGET_CHARS_MAX", "Begun", "ConsoleLogins", "LoginRefused"]

LOGIN_MS: Final = 600_000
"""How long a person may take at the issuer."""

CODE_CHARS_MAX: Final = 4_096
TARGET_CHARS_MAX: Final = 512

_TARGET: Final = re.compile(r"(#/[\x21-\x7e]*)?")
_COOKIE: Final = re.compile(r"[A-Za-z0-9_-]{43}\.(\d{1,15})\.([A-Za-z0-9_-]{0,1000})")
_AGAIN: Final = (
    "this login was begun in another browser, has ended, or is more than ten minutes "
    "old: begin again"
)

_logger = logging.getLogger("streamer.console")


class LoginRefused(Rejected):
    """A login cannot be completed; the text says why, and what to do."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


class Begun(NamedTuple):
    """Where the browser has to go, and the cookie that it has to bring back."""

    url: str
    cookie: str


class ConsoleLogins:
    """
    Logins with an issuer. Methods that are async raise StoreUnavailable.

    Args:
        issuer: The issuer.
        redis: The connection to the store.
        key: Returns a key of the deployment, the same on all nodes.
        sessions: The sessions of the console.
        claim: The claim that grants roles; see `read_person`.
        clock: Unix time in seconds.

    """

    def __init__(
        self,
        issuer: OidcIssuer,
        redis: RedisConnection,
        key: Callable[[], Awaitable[bytes]],
        sessions: ConsoleSessions,
        *,
        claim: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self._redis = redis
        self._key = key
        self._sessions = sessions
        self._claim = claim
        self._clock = clock

    async def begin(self, *, client: str, app: str = "", target: str = "") -> Begun:
        """
        Begin a login.

        Args:
            client: The address of the client.
            app: The app to show afterwards.
            target: The fragment of the page to show afterwards: ``#/player/ann``.

        Raises:
            TooManyLogins: The client failed too often.
            IssuerUnavailable: The issuer does not answer.

        """
        self._sessions.require_few_failures(client)
        if len(target) > TARGET_CHARS_MAX or not _TARGET.fullmatch(target):
            target = ""
        kept = _encoded(f"{app[:64]} {target}".encode("utf-8", "replace"))
        ends_ms = int(self._clock() * 1_000) + LOGIN_MS
        cookie = f"{secrets.token_urlsafe(32)}.{ends_ms}.{kept}"
        key = await self._key()
        challenge = hashlib.sha256(_hashed(key, "verifier", cookie).encode()).digest()
        url = await self.issuer.authorization_url(
            state=_hashed(key, "state", cookie),
            nonce=_hashed(key, "nonce", cookie),
            challenge=_encoded(challenge),
        )
        return Begun(url, cookie)

    async def finish(
        self,
        *,
        client: str,
        cookie: str,
        state: str,
        code: str = "",
        error: str = "",
        sender: str | None = None,
    ) -> tuple[str, ConsoleSession, str]:
        """
        End a login; return the session's secret, the session, and where to go.

        Args:
            client: The address of the client.
            cookie: What `begin` returned, from this browser.
            state: What the issuer sent back, as all that follows.
            code: The code, "" without one.
            error: Its error, "" without one.
            sender: Its name for itself (``iss``), None without one.

        Raises:
            TooManyLogins: The client failed too often.
            LoginRefused: The login is not one of this browser, or was ended before, or
                what the issuer says is not valid.
            NoRole: The person has no role.
            IssuerUnavailable: The issuer does not answer. The login cannot go on.
            OutcomeUnknown: It may have been ended; beginning again is safe.

        """
        self._sessions.require_few_failures(client)
        try:
            return await self._finish(cookie, state, code, error, sender)
        except (LoginRefused, NoRole, CodeRefused, Unauthenticated) as refused:
            self._sessions.note_failure(client)
            _logger.warning("a login with the issuer was refused: %s", refused)
            if isinstance(refused, Unauthenticated):
                raise LoginRefused(
                    f"the ID token of the issuer is not valid ({refused}): begin "
                    "again, and tell who runs this server if it happens again"
                ) from refused
            if isinstance(refused, CodeRefused):
                raise LoginRefused(f"{refused}. Begin again") from refused
            raise

    async def _finish(
        self, cookie: str, state: str, code: str, error: str, sender: str | None
    ) -> tuple[str, ConsoleSession, str]:
        match, key = _COOKIE.fullmatch(cookie), await self._key()
        expected = _hashed(key, "state", cookie)
        if match is None or not hmac.compare_digest(
            expected.encode(), state.encode("utf-8", "replace")
        ):
            raise LoginRefused(_AGAIN)
        now_ms = int(self._clock() * 1_000)
        if int(match[1]) <= now_ms:
            raise LoginRefused(_AGAIN)
        used = hashlib.sha256(b"console login\0" + state.encode()).digest()
        name = self._redis.keys.session(used)
        if not await put_once(self._redis, name, int(match[1]) - now_ms):
            raise LoginRefused(_AGAIN)
        await self.issuer.require_sender(sender)
        if error:
            shown = error[:100] if error.isprintable() else "no readable error"
            raise LoginRefused(f"the issuer refused the login: {shown}. Begin again")
        if not 0 < len(code) <= CODE_CHARS_MAX:
            raise LoginRefused("the issuer sent no code: begin again")
        claims, id_token = await self.issuer.claims_of(
            code,
            verifier=_hashed(key, "verifier", cookie),
            nonce=_hashed(key, "nonce", cookie),
        )
        person = read_person(claims, self._claim)
        app, _, target = _decoded(match[2]).partition(" ")
        secret, session = await self._sessions.open_for(
            person, id_token=id_token, app=app
        )
        return secret, session, target if _TARGET.fullmatch(target) else ""


def _hashed(key: bytes, use: str, cookie: str) -> str:
    """Return 256 bits that only who has the key can find for this cookie."""
    text = f"console login {use}\0{cookie}".encode("utf-8", "replace")
    return _encoded(hmac.digest(key, text, "sha256"))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> str:
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    return raw.decode("utf-8", "replace")
