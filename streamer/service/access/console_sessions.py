"""
Sessions of the console: a console key exchanged for a session that ends.

Decides who may log in, how often a client may fail, when a session ends, and whether
the console exists at all: it does while an app has a key with a role. Knows backend
keys and one key of the store. Knows nothing of cookies and requests.

A session is 256 random bits, stored by its digest with the digest of its key. Each
request reads both, past the caches of the authenticator: a session ends at once with
its key, and has the present role of the key. It ends `SESSION_MS` after the login in
any case.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from ...core.access.rights import Caller, KeyProof, Scope
from ...core.access.roles import Role, includes, role_of
from ...errors import Defect, Forbidden, RateLimited, Unauthenticated
from ...model import App
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
    "TooManyLogins",
]

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


class TooManyLogins(RateLimited):
    """A client failed to log in too often. It may try again after `retry_after_s`."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(FAILURES_MAX, retry_after_s=retry_after_s)

    def __str__(self) -> str:
        return f"too many failed logins; try again in {self.retry_after_s} s"


class ConsoleSession(NamedTuple):
    """Who uses the console: a key with a role in an app. Ends at `expires_at_ms`."""

    app: App
    role: Role
    key_id: str
    key_name: str
    digest: bytes
    expires_at_ms: int

    def require(self, role: Role) -> None:
        """Raise `Forbidden`, naming the role, unless the session's role includes it."""
        if not includes(self.role, role):
            raise Forbidden(f"the role {role}, and this key has the role {self.role}")

    def caller(self, *scopes: Scope) -> Caller:
        """Return the caller with exactly these scopes in the session's app."""
        return Caller.from_key(self.app, frozenset(scopes), proof=KeyProof(self.digest))


class ConsoleSessions:
    """
    The sessions of the console. All methods raise StoreUnavailable.

    Args:
        redis: The connection to the store.
        apps: The backend keys in the store.
        key_uses: Told of each use of a key.
        clock: Unix time in seconds, for expiry.
        monotonic: A monotonic clock in seconds, for windows.

    """

    def __init__(
        self,
        redis: RedisConnection,
        apps: Apps,
        key_uses: KeyUses | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._apps = apps
        self._key_uses = key_uses or KeyUses(apps, clock=clock)
        self._clock = clock
        self._monotonic = monotonic
        self._exists = False
        self._exists_at_s = float("-inf")
        # Client -> the start of its window and its failures since, oldest start first.
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def exists(self) -> bool:
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
        address = network_of(client)
        self._require_few_failures(address)
        try:
            digest = key_digest(key.encode("utf-8", "surrogatepass"))
            is_key = key.startswith(KEY_PREFIX.decode())
            record, role = await self._require_key(digest if is_key else None)
        except Unauthenticated:
            self._note_failure(address)
            raise
        expires_at_ms = int(self._clock() * 1_000) + SESSION_MS
        if record.expires_at_ms:
            expires_at_ms = min(expires_at_ms, record.expires_at_ms)
        secret = secrets.token_urlsafe(_RANDOM_BYTES)
        kept = b"%d %b" % (expires_at_ms, digest)
        await put_until(self._redis, self._key_of(secret), kept, "PXAT", expires_at_ms)
        return secret, _session(record, role, expires_at_ms)

    async def find(self, secret: str) -> ConsoleSession:
        """
        Return the session with this secret.

        Raises:
            Unauthenticated: MISSING: there is no secret. REVOKED: the session has
                ended, or its key was revoked or lost its role. EXPIRED_KEY: the key has
                expired.

        """
        if not secret:
            raise Unauthenticated(Defect.MISSING, "log in")
        kept = await self._redis.call("GET", self._key_of(secret))
        if kept is None:
            raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
        ends, _, digest = kept.partition(b" ")
        if int(ends) <= self._clock() * 1_000:
            raise Unauthenticated(Defect.REVOKED, _UNKNOWN)
        try:
            record, role = await self._require_key(digest)
        except Unauthenticated as error:
            if error.defect is Defect.UNKNOWN_KEY:
                raise Unauthenticated(Defect.REVOKED, _UNKNOWN) from None
            raise
        return _session(record, role, int(ends))

    async def close(self, secret: str) -> None:
        """End a session. Does nothing if it has ended."""
        await self._redis.call("DEL", self._key_of(secret), write=True)

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
        text = b"console\0" + secret.encode("utf-8", "surrogatepass")
        return self._redis.keys.session(hashlib.sha256(text).digest())

    def _require_few_failures(self, address: str) -> None:
        now_s = self._monotonic()
        since_s, count = self._failures.get(address, (now_s, 0))
        left_s = since_s + WINDOW_S - now_s
        if count >= FAILURES_MAX and left_s > 0:
            raise TooManyLogins(int(left_s) + 1)

    def _note_failure(self, address: str) -> None:
        now_s = self._monotonic()
        while self._failures:
            oldest, (since_s, _) = next(iter(self._failures.items()))
            if since_s + WINDOW_S > now_s and len(self._failures) < CLIENTS_MAX:
                break
            del self._failures[oldest]
        since_s, count = self._failures.get(address, (now_s, 0))
        self._failures[address] = since_s, count + 1


def _session(record: KeyRecord, role: Role, expires_at_ms: int) -> ConsoleSession:
    return ConsoleSession(
        *(record.app, role, record.id, record.name, record.digest, expires_at_ms)
    )
