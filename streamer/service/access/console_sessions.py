"""
Sessions of the console: a console key, or a login with an issuer, for a session.

Decides who may log in, how often a client may fail, when a session ends, and whether
the console exists at all: it does while an app has a key with a role, or where an
issuer is configured. Knows backend keys and one key of the store. Knows nothing of
cookies, requests and of how an issuer is asked (`console_logins`).

A session is 256 random bits, stored by its digest. With it is the digest of its key, or
who has logged in and the values by which the issuer's grants give that person roles.
Each request reads the session and what it depends on, past the caches of the
authenticator: a session ends at once with its key, and has the present role of the key;
that of a person has the roles of the present settings, and ends at once when somebody
ends all sessions of the person. A session ends after a fixed time in
any case.

A key is of one app. A person may have several, with a role in each, and names the app
in each request: two tabs show two apps.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from ...core.access.id_tokens import Person
from ...core.access.rights import Caller, KeyProof, PersonProof, Scope
from ...core.access.roles import Grant, Role, granted_in, includes, role_of
from ...errors import Defect, Forbidden, RateLimited, Rejected, Unauthenticated
from ...model import App
from ...names import parse_app
from ...store.access.apps import KEY_PREFIX, Apps, KeyRecord, key_digest
from ...store.access.short_lived import put_until
from ...store.client.connection import RedisConnection
from ..node.request_context import note_app
from .failures import network_of
from .key_uses import KeyUses

__all__ = [
    "FAILURES_MAX",
    "SESSION_MS",
    "ConsoleSession",
    "ConsoleSessions",
    "NoRole",
    "People",
    "TooManyLogins",
    "end_sessions_of",
]

SESSION_MAX_MS: Final = 86_400_000
"""The longest session that the settings allow."""

SESSION_MS: Final = 8 * 3_600_000
"""A working day."""

FAILURES_MAX: Final = 10
"""Failed logins of one client within `WINDOW_S`, on each process."""

WINDOW_S: Final = 60.0

CLIENTS_MAX: Final = 10_000
"""Clients counted at a time; about 200 bytes each. The oldest is forgotten."""

EXISTS_S: Final = 5.0
"""How long it takes at most until the first console key turns the console on."""

_RANDOM_BYTES: Final = 32
_UNKNOWN: Final = "log in again"

# Before the secret of a session that belongs to a person: no other secret has a dot.
_OF_PERSON: Final = "p."


class TooManyLogins(RateLimited):
    """A client failed to log in too often. It may try again after `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(FAILURES_MAX, retry_after_s=retry_after_s)

    def __str__(self) -> str:
        return f"too many failed logins; try again in {self.retry_after_s} s"


class NoRole(Rejected):
    """
    The issuer says nothing of a person that grants a role, or in no app that exists.

    Args:
        person: Who has logged in.
        claim: The claim that grants roles.
        granted: Whether a value of it grants a role.

    """

    def __init__(self, person: Person, claim: str, *, granted: bool = False) -> None:
        self.person = person
        self.claim = claim
        self.granted = granted

    def __str__(self) -> str:
        if self.granted:
            return (
                "you have a role in this console, but for no app that exists: ask who "
                "runs this server to create the app"
            )
        return (
            f"you have no role in this console: nothing in the claim {self.claim} of "
            f"{self.person.name or self.person.subject} is in console_oidc_roles. Ask "
            "who runs this server for a role"
        )


class People(NamedTuple):
    """Who may log in with an issuer: `claim` of the ID token, and what it grants."""

    issuer: str
    client_id: str
    claim: str
    grants: tuple[Grant, ...]

    def granted_to(self, values: Sequence[str] | frozenset[str]) -> tuple[Grant, ...]:
        """Return the grants that some of these values give."""
        return tuple(it for it in self.grants if it.value in values)


class ConsoleSession(NamedTuple):
    """
    Who uses the console, with a role in an app. Ends at `expires_at_ms`.

    `id` is that of the key, or the person's subject at the issuer. `id_token` is that
    of a person's login, for the logout at the issuer; "" for a key.
    """

    app: App
    role: Role
    id: str
    name: str
    proof: KeyProof | PersonProof
    expires_at_ms: int
    id_token: str = ""

    @property
    def is_person(self) -> bool:
        """Whether the session began with an issuer, not with a key."""
        return isinstance(self.proof, PersonProof)

    def require(self, role: Role) -> None:
        """Raise `Forbidden`, naming the role, unless the session's role includes it."""
        if not includes(self.role, role):
            raise Forbidden(f"the role {role}, and you have the role {self.role}")

    def caller(self, *scopes: Scope) -> Caller:
        """Return the caller with exactly these scopes in the session's app."""
        return Caller.from_key(self.app, frozenset(scopes), proof=self.proof)


class _Kept(msgspec.Struct, frozen=True):
    """What the store has of a person's session."""

    began_ms: int
    ends_ms: int
    issuer: str
    client_id: str
    subject: str
    name: str
    values: tuple[str, ...]
    id_token: str


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Kept).decode


class ConsoleSessions:
    """
    The sessions of the console. All methods raise StoreUnavailable.

    Args:
        redis: The connection to the store.
        apps: The backend keys in the store.
        key_uses: Told of each use of a key.
        people: Who may log in with an issuer; None without an issuer.
        session_ms: How long a session lasts at most.
        clock: Unix time in seconds, for expiry.
        monotonic: A monotonic clock in seconds, for windows.

    """

    def __init__(
        self,
        redis: RedisConnection,
        apps: Apps,
        key_uses: KeyUses | None = None,
        *,
        people: People | None = None,
        session_ms: int = SESSION_MS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._apps = apps
        self._people = people
        self._session_ms = session_ms
        self._key_uses = key_uses or KeyUses(apps, clock=clock)
        self._clock = clock
        self._monotonic = monotonic
        self._exists = False
        self._exists_at_s = float("-inf")
        # Client -> the start of its window and its failures since, oldest start first.
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def exists(self) -> bool:
        """Whether anybody can log in. As `has_keys`."""
        return self._people is not None or await self.has_keys()

    async def has_keys(self) -> bool:
        """Whether an app has a console key, as of `EXISTS_S` ago at most. O(keys)."""
        now_s = self._monotonic()
        if now_s - self._exists_at_s >= EXISTS_S:
            now_ms = self._clock() * 1_000
            records = await self._apps.list_keys()
            self._exists = any(
                role_of(it.scopes) and not it.is_expired(now_ms) for it in records
            )
            self._exists_at_s = now_s
        return self._exists

    async def open(self, key: str, *, client: str) -> tuple[str, ConsoleSession]:
        """
        Open a session with a console key; return its secret and the session.

        Args:
            key: The key, as it was printed.
            client: The address of the client, whose failures are limited.

        Raises:
            TooManyLogins: The client failed too often. The key was not looked up.
            Unauthenticated: UNKNOWN_KEY: there is no such key, or it has no role.
                EXPIRED_KEY: it has expired.
            OutcomeUnknown: It may have been opened; opening another one is safe.

        """
        self.require_few_failures(client)
        try:
            digest = key_digest(key.encode("utf-8", "surrogatepass"))
            is_key = key.startswith(KEY_PREFIX.decode())
            record, role = await self._require_key(digest if is_key else None)
        except Unauthenticated:
            self.note_failure(client)
            raise
        expires_at_ms = self._end()
        if record.expires_at_ms:
            expires_at_ms = min(expires_at_ms, record.expires_at_ms)
        secret = secrets.token_urlsafe(_RANDOM_BYTES)
        kept = b"%d %b" % (expires_at_ms, digest)
        await put_until(self._redis, self._key_of(secret), kept, "PXAT", expires_at_ms)
        return secret, _session(record, role, expires_at_ms)

    async def open_for(
        self, person: Person, *, id_token: str = "", app: str = ""
    ) -> tuple[str, ConsoleSession]:
        """
        Open a session for who has logged in with the issuer; as `open`.

        Args:
            person: Whom the issuer has named.
            id_token: The token in which it did.
            app: The app to begin with; another one if the person may not see it.

        Raises:
            NoRole: The person has no role in any app.
            OutcomeUnknown: It may have been opened; opening another one is safe.

        """
        assert self._people is not None
        granting = {it.value for it in self._people.granted_to(person.values)}
        kept = _Kept(
            int(self._clock() * 1_000),
            self._end(),
            *(self._people.issuer, self._people.client_id),
            *(person.subject, person.name),
            # What grants nothing is nobody's business here.
            tuple(sorted(granting)),
            id_token,
        )
        apps = await self._apps_of(kept)
        if not apps:
            raise NoRole(person, self._people.claim, granted=bool(granting))
        secret = _OF_PERSON + secrets.token_urlsafe(_RANDOM_BYTES)
        await put_until(
            *(self._redis, self._key_of(secret), _encode(kept)),
            *("PXAT", kept.ends_ms),
        )
        chosen = App(app) if app in apps else next(iter(apps))
        return secret, _session_of(kept, chosen, apps[chosen])

    async def find(self, secret: str, app: str = "") -> ConsoleSession:
        """
        Return the session with this secret, in an app.

        Args:
            secret: What `open` or `open_for` returned.
            app: The app to use; "" for the session's only or first one.

        Raises:
            Unauthenticated: MISSING: there is no secret. REVOKED: the session has
                ended, or its key was revoked or lost its role, or the person has no
                role by the present settings. EXPIRED_KEY: the key has expired.
            Forbidden: The session is of another app.

        """
        if not secret:
            raise Unauthenticated(Defect.MISSING, "log in")
        stored = await self._redis.call("GET", self._key_of(secret))
        if stored is None:
            raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
        if secret.startswith(_OF_PERSON):
            return await self._of_person(_decode(stored), app)
        ends, _, digest = stored.partition(b" ")
        if int(ends) <= self._clock() * 1_000:
            raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
        try:
            record, role = await self._require_key(digest)
        except Unauthenticated as error:
            if error.defect is Defect.UNKNOWN_KEY:
                raise Unauthenticated(Defect.REVOKED, _UNKNOWN) from None
            raise
        if app not in ("", record.app):
            raise _another(app)
        return _session(record, role, int(ends))

    async def apps_of(self, secret: str) -> list[App]:
        """
        Return the apps of a session that `find` has found, by name. O(apps).
        """
        if not secret.startswith(_OF_PERSON):
            return [(await self.find(secret)).app]
        stored = await self._redis.call("GET", self._key_of(secret))
        return list(await self._apps_of(_decode(stored))) if stored else []

    async def close(self, secret: str) -> None:
        """End a session. Does nothing if it has ended."""
        await self._redis.call("DEL", self._key_of(secret), write=True)

    async def _of_person(self, kept: _Kept, app: str) -> ConsoleSession:
        people = self._people
        if (
            people is None
            or (kept.issuer, kept.client_id) != (people.issuer, people.client_id)
            or kept.ends_ms <= self._clock() * 1_000
        ):
            raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
        ended = await self._redis.call("GET", _ended_key(self._redis, kept.subject))
        if ended is not None and kept.began_ms <= int(ended):
            raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
        if app:
            role = granted_in(people.granted_to(kept.values), App(app))
            # Only a name that is valid is looked for.
            name = parse_app(app)
            if role is None or name is None or await self._apps.get(name) is None:
                raise _another(app)
        else:
            apps = await self._apps_of(kept)
            if not apps:
                raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
            name, role = next(iter(apps.items()))
        note_app(name)
        return _session_of(kept, name, role)

    async def _apps_of(self, kept: _Kept) -> dict[App, Role]:
        """Return the apps in which a person has a role, by name, with the role."""
        if self._people is None:
            return {}
        grants = self._people.granted_to(kept.values)
        if not grants:
            return {}
        names = sorted(record.name for record in await self._apps.list())
        roles = {name: granted_in(grants, name) for name in names}
        return {name: role for name, role in roles.items() if role}

    def _end(self) -> int:
        """Return when a session that begins now ends at the latest."""
        return int(self._clock() * 1_000) + self._session_ms

    async def _require_key(self, digest: bytes | None) -> tuple[KeyRecord, Role]:
        (record,) = await self._apps.find_keys([digest] if digest else []) or (None,)
        role = role_of(record.scopes) if record else None
        if record is None or role is None:
            raise Unauthenticated(Defect.UNKNOWN_KEY)
        note_app(record.app)
        if record.is_expired(self._clock() * 1_000):
            raise Unauthenticated(Defect.EXPIRED_KEY)
        self._key_uses.note(record.digest)
        return record, role

    def _key_of(self, secret: str) -> str:
        # Not the plain digest: no secret is valid as a session of another kind.
        kind = b"console person" if secret.startswith(_OF_PERSON) else b"console"
        text = kind + b"\0" + secret.encode("utf-8", "surrogatepass")
        return self._redis.keys.session(hashlib.sha256(text).digest())

    def require_few_failures(self, client: str) -> None:
        """Raise `TooManyLogins` if the client of this address failed too often."""
        address, now_s = network_of(client), self._monotonic()
        since_s, count = self._failures.get(address, (now_s, 0))
        left_s = since_s + WINDOW_S - now_s
        if count >= FAILURES_MAX and left_s > 0:
            raise TooManyLogins(int(left_s) + 1)

    def note_failure(self, client: str) -> None:
        """Count a failed login of the client of this address."""
        address, now_s = network_of(client), self._monotonic()
        while self._failures:
            oldest, (since_s, _) = next(iter(self._failures.items()))
            if since_s + WINDOW_S > now_s and len(self._failures) < CLIENTS_MAX:
                break
            del self._failures[oldest]
        since_s, count = self._failures.get(address, (now_s, 0))
        self._failures[address] = since_s, count + 1


async def end_sessions_of(
    redis: RedisConnection, subject: str, *, clock: Callable[[], float] = time.time
) -> None:
    """
    End all sessions that the person with this subject has begun until now.

    Raises:
        StoreUnavailable: None was ended.
        OutcomeUnknown: They may have been; ending them again is harmless.

    """
    key, now_ms = _ended_key(redis, subject), int(clock() * 1_000)
    await put_until(redis, key, now_ms, "PX", SESSION_MAX_MS)


def _ended_key(redis: RedisConnection, subject: str) -> str:
    text = b"console ended\0" + subject.encode("utf-8", "surrogatepass")
    return redis.keys.session(hashlib.sha256(text).digest())


def _session(record: KeyRecord, role: Role, expires_at_ms: int) -> ConsoleSession:
    return ConsoleSession(
        *(record.app, role, record.id, record.name),
        *(KeyProof(record.digest), expires_at_ms),
    )


def _session_of(kept: _Kept, app: App, role: Role) -> ConsoleSession:
    return ConsoleSession(
        *(app, role, kept.subject, kept.name),
        *(PersonProof(kept.subject, kept.name), kept.ends_ms, kept.id_token),
    )


def _another(app: str) -> Forbidden:
    return Forbidden(f"a role in the app {app[:64]!r}")
