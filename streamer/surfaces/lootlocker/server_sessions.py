"""
Server sessions: a backend key exchanged for a token that expires.

Decides the format of the token, its lifetime, and its caller. Knows backend keys and
one key of the store. Knows nothing of headers, nor of how LootLocker encodes sessions.

A token is ``ss_`` and 256 random bits. The store has its digest with the digest of the
backend key that opened the session. So a session ends with its key, and has the present
scopes of the key.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from ...core.access.rights import Caller
from ...errors import Defect, Unauthenticated
from ...service.access.key_uses import KeyUses
from ...service.node.request_context import note_app
from ...store.access.apps import KEY_PREFIX, Apps, KeyRecord, key_digest
from ...store.access.short_lived import put_until
from ...store.client.connection import RedisConnection

__all__ = ["SESSION_PREFIX", "SESSION_TTL_MS", "ServerSessions"]

SESSION_PREFIX: Final = b"ss_"

SESSION_TTL_MS: Final = 24 * 3_600_000
"""The lifetime of a session since it was opened or last renewed."""

_RANDOM_BYTES: Final = 32


class ServerSessions:
    """
    The sessions of backends. All methods raise StoreUnavailable.

    Args:
        redis: The connection to the store.
        apps: The backend keys in the store.
        key_uses: Told of each use of a key, also by a session.
        clock: Unix time in seconds, for the expiry of keys.

    """

    def __init__(
        self,
        redis: RedisConnection,
        apps: Apps,
        key_uses: KeyUses | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._apps = apps
        self._key_uses = key_uses or KeyUses(apps, clock=clock)
        self._clock = clock

    async def open(self, key: bytes) -> str:
        """
        Open a session with a backend key; return its token.

        Raises:
            Unauthenticated: UNKNOWN_KEY or EXPIRED_KEY.
            OutcomeUnknown: It may have been opened; opening another one is safe.

        """
        digest = key_digest(key)
        await self._key_record(digest if key.startswith(KEY_PREFIX) else None)
        token = SESSION_PREFIX.decode() + secrets.token_urlsafe(_RANDOM_BYTES)
        name = self._redis.keys.session(key_digest(token.encode()))
        await put_until(self._redis, name, digest, "PX", SESSION_TTL_MS)
        return token

    async def caller(self, token: bytes, *, renew: bool = False) -> Caller:
        """
        Return the caller of a token; with `renew`, restart the session's lifetime.

        Raises:
            Unauthenticated: UNKNOWN_KEY: the session does not exist or has ended.
                EXPIRED_KEY: its key has expired.

        """
        name = self._redis.keys.session(key_digest(token))
        command = ("GETEX", name, "PX", SESSION_TTL_MS) if renew else ("GET", name)
        record = await self._key_record(await self._redis.call(*command))
        return Caller.from_key(record.app, record.scopes)

    async def _key_record(self, digest: bytes | None) -> KeyRecord:
        (record,) = await self._apps.find_keys([digest] if digest else []) or (None,)
        if record is None:
            raise Unauthenticated(Defect.UNKNOWN_KEY)
        note_app(record.app)
        if record.is_expired(self._clock() * 1000):
            raise Unauthenticated(Defect.EXPIRED_KEY)
        self._key_uses.note(record.digest)
        return record
