"""
Server sessions: a backend key exchanged for a token that ends by itself.

Decides what such a token is, how long it lives, and who its bearer is. Knows backend
keys and one key of the store. Knows nothing of headers or of the vendor that has
sessions of this kind.

A session is 256 random bits behind ``ss_``, kept by its digest next to the digest of
the key it was opened with. So its bearer is whoever holds that key at the moment of
the request: a session ends with its key, and has its scopes and no others.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Final

from ...core.access.rights import Caller
from ...errors import Defect, Unauthenticated
from ...service.node.request_context import note_app
from ...store.access.apps import KEY_PREFIX, Apps, KeyRecord, key_digest
from ...store.client.connection import RedisConnection
from ...store.keys import session_key

__all__ = ["SESSION_PREFIX", "SESSION_TTL_MS", "ServerSessions"]

SESSION_PREFIX: Final = b"ss_"

SESSION_TTL_MS: Final = 24 * 3_600_000
"""Life of a session from its opening or its last renewal on."""

_RANDOM_BYTES: Final = 32


class ServerSessions:
    """
    Sessions of backends. Every method raises StoreUnavailable.

    Args:
        redis: The way to the store.
        apps: Where backend keys are.
        clock: Unix time in seconds, against which keys expire.

    """

    def __init__(
        self,
        redis: RedisConnection,
        apps: Apps,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._apps = apps
        self._clock = clock

    async def open(self, key: bytes) -> str:
        """
        Return the token of a session for the holder of a backend key.

        Raises:
            Unauthenticated: UNKNOWN_KEY: it is none of ours.
            OutcomeUnknown: Opening another one is harmless.

        """
        digest = key_digest(key)
        await self._key_record(digest if key.startswith(KEY_PREFIX) else None)
        token = SESSION_PREFIX.decode() + secrets.token_urlsafe(_RANDOM_BYTES)
        name = session_key(key_digest(token.encode()))
        await self._redis.call("SET", name, digest, "PX", SESSION_TTL_MS, write=True)
        return token

    async def caller(self, token: bytes, *, renew: bool = False) -> Caller:
        """
        Return who bears a token; with `renew` its life begins anew.

        Raises:
            Unauthenticated: UNKNOWN_KEY: there is no such session, or not any more.

        """
        name = session_key(key_digest(token))
        command = ("GETEX", name, "PX", SESSION_TTL_MS) if renew else ("GET", name)
        record = await self._key_record(await self._redis.call(*command))
        note_app(record.app)
        return Caller.from_key(record.app, record.scopes)

    async def _key_record(self, digest: bytes | None) -> KeyRecord:
        (record,) = await self._apps.find_keys([digest] if digest else []) or (None,)
        if record is None or record.is_expired(self._clock() * 1000):
            raise Unauthenticated(Defect.UNKNOWN_KEY)
        return record
