"""
The apps of this server and their backend keys, as the store remembers them.

Knows the hashes, the text form of a backend key, and that the store holds only the
digest of one. Knows nothing of callers, rights or headers.

A backend key is 256 random bits behind ``sk_``. Because it is random, a plain SHA-256
is enough to keep it by: there is nothing to guess, so nothing for a slow hash to slow
down. It is looked up by its digest, which is constant time in the sense that counts:
how far a guess is right shows in no byte of the digest. People name it by its id, which
follows from the digest and opens nothing.

An issuer and an audience together belong to one app, or a token would have two. An app
is changed by comparing and storing: of two changes at once, none undoes the other.

``streamer:apps``              hash  app -> JSON of `AppRecord`         O(1) each
``{streamer:apps}:audiences``  hash  JSON of [issuer, audience] -> app  O(1) each
``streamer:keys``              hash  hex digest -> JSON of `KeyRecord`  O(1) each
``{b}:revoked:app:player``     string, a time in s, for as long as it matters
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ...core.access.apps import (
    DEFAULT_ISSUER,
    RETIRED_MAX,
    SECRET_BYTES_MIN,
    AppRecord,
    RetiredSecret,
)
from ...core.access.rights import parse_scopes
from ...core.access.tokens import LEEWAY_S, TTL_MAX_S
from ...errors import NotFound
from ...model import App, Log, Player
from ..client.connection import RedisConnection, Script
from ..client.replies import ok
from ..keys import APPS, AUDIENCES, KEYS, revoked_key

__all__ = [
    "GRACE_S",
    "KEY_PREFIX",
    "AppExists",
    "AppRecord",
    "Apps",
    "AudienceTaken",
    "KeyRecord",
    "key_digest",
]

KEY_PREFIX: Final = b"sk_"
"""Begins every backend key and no JSON Web Token; leak scanners look for such."""

GRACE_S: Final = 86_400
"""How long a replaced secret or key counts: as long as the longest token lives."""

_REVOKED_S: Final = TTL_MAX_S + 2 * LEEWAY_S
"""A token issued before its player was revoked has expired after this."""

_KEY_RANDOM_BYTES: Final = 32

# What `app_put` answers, besides 0.
_STORED: Final = 1
_TAKEN: Final = -1

_PUT: Final = Script("app_put")
_ROTATE: Final = Script("key_rotate")


class KeyRecord(msgspec.Struct, frozen=True):
    """A backend key as it is kept: everything but the key. 0 ms stands for no end."""

    app: App
    scopes: frozenset[str]
    created_at_ms: int
    digest: bytes
    expires_at_ms: int = 0

    @property
    def id(self) -> str:
        """What people and logs name the key by."""
        return hashlib.sha256(b"streamer backend key\0" + self.digest).hexdigest()[:16]

    def is_expired(self, now_ms: float) -> bool:
        """Whether the key has ended."""
        return 0 < self.expires_at_ms <= now_ms


class AppExists(ValueError):
    """An app of this name is there already; it was left as it is."""

    def __init__(self, name: App) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"the app {self.name} exists already"


class AudienceTaken(ValueError):
    """Another app has this issuer and audience; nothing was changed."""

    def __init__(self, record: AppRecord) -> None:
        self.record = record

    def __str__(self) -> str:
        return (
            f"tokens of {self.record.issuer} for {self.record.expected_audience} "
            "belong to another app"
        )


_encoder = msgspec.json.Encoder(order="deterministic")
_app_decoder = msgspec.json.Decoder(AppRecord)
_key_decoder = msgspec.json.Decoder(KeyRecord)


def key_digest(text: bytes) -> bytes:
    """Return what a backend key is kept and looked up by."""
    return hashlib.sha256(text).digest()


class Apps:
    """
    Apps and backend keys.

    Every method raises `StoreUnavailable`; the writing ones `OutcomeUnknown` as well.
    """

    def __init__(
        self, redis: RedisConnection, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._clock = clock

    # Apps.

    async def create(
        self, name: App, *, issuer: str = DEFAULT_ISSUER, **tokens: Any
    ) -> AppRecord:
        """
        Make an app. Of several at once, one succeeds.

        Args:
            name: Its name.
            issuer: Whose tokens count.
            tokens: Further members of `AppRecord` that say how; without an algorithm
                it gets a secret of its own.

        Raises:
            AppExists: There is one of this name.
            AudienceTaken: Its tokens are another app's.
            ValueError: The members do not go together.
        """
        own = tokens.get("algorithm", "HS256") == "HS256"
        record = AppRecord(
            name=name,
            secret=secrets.token_bytes(SECRET_BYTES_MIN) if own else b"",
            issuer=issuer,
            created_at_ms=self._now_ms(),
            **tokens,
        )
        if not await self._put(record, None, b""):
            raise AppExists(name)
        return record

    async def update(
        self, name: App, change: Callable[[AppRecord], AppRecord]
    ) -> AppRecord:
        """
        Store what `change` makes of an app's record. It may be called several times.

        Raises:
            NotFound: There is no such app.
            AudienceTaken: Its tokens would be another app's.
        """
        while True:
            seen = await self._redis.call("HGET", APPS, name)
            if seen is None:
                raise NotFound(f"the app {name}")
            before = _app_decoder.decode(seen)
            after = change(before)
            if await self._put(after, before, seen):
                return after

    async def change_tokens(self, name: App, changes: Mapping[str, Any]) -> AppRecord:
        """
        Change whose tokens count in an app.

        Args:
            name: The app.
            changes: Members of `AppRecord` that take these values; those that do not go
                with them are dropped, and a secret is made where it needs one.

        Raises:
            NotFound: There is no such app.
            AudienceTaken: Its tokens would be another app's.
            ValueError: The members do not go together.
        """
        fresh = secrets.token_bytes(SECRET_BYTES_MIN)
        return await self.update(
            name, lambda record: record.with_tokens(changes, fresh_secret=fresh)
        )

    async def rotate(self, name: App, *, grace_s: int = GRACE_S) -> AppRecord:
        """
        Give an app a new secret. The earlier one counts for `grace_s` seconds more.

        Raises:
            NotFound: There is no such app.
            ValueError: Its tokens are signed by somebody else.
        """
        now_s = self._now_ms() // 1000

        def rotated(record: AppRecord) -> AppRecord:
            if record.algorithm != "HS256":
                raise ValueError(f"the app {name} has no secret of its own")
            retired = (RetiredSecret(record.secret, now_s + grace_s), *record.retired)
            kept = [secret for secret in retired if secret.until_s > now_s]
            return msgspec.structs.replace(
                record,
                secret=secrets.token_bytes(SECRET_BYTES_MIN),
                retired=tuple(kept[:RETIRED_MAX]),
            )

        return await self.update(name, rotated)

    async def revoke_tokens(self, name: App, player: Player | None = None) -> None:
        """
        Take back every token of an app, or of one of its players, issued until now.

        Raises:
            NotFound: There is no such app.
        """
        # Times are in seconds, so the one that has begun counts as over; who makes
        # tokens dates them after it.
        not_before_s = self._now_ms() // 1000 + 1

        def revoked(record: AppRecord) -> AppRecord:
            if player is None:
                later_s = max(not_before_s, record.not_before_s)
                return msgspec.structs.replace(record, not_before_s=later_s)
            until_s = not_before_s + _REVOKED_S
            return msgspec.structs.replace(record, revoking_until_s=until_s)

        if player is not None:
            if await self.get(name) is None:
                raise NotFound(f"the app {name}")
            # Before the record, which tells everybody to look.
            key = revoked_key(Log(name, player))
            command = ("SET", key, not_before_s, "EX", _REVOKED_S)
            await self._redis.call(*command, write=True)
        await self.update(name, revoked)

    async def revoked_before_s(self, logs: Sequence[Log]) -> list[int]:
        """Return for each player when its tokens begin to count; 0 for always."""
        commands = [("GET", revoked_key(log)) for log in logs]
        replies = await self._redis.call_many(commands)
        return [int(ok(reply) or 0) for reply in replies]

    async def list(self) -> tuple[AppRecord, ...]:
        """Return all apps, sorted by name. O(n)."""
        found = await self._redis.call("HVALS", APPS)
        records = map(_app_decoder.decode, found)
        return tuple(sorted(records, key=lambda record: record.name))

    async def get(self, name: App) -> AppRecord | None:
        """Return the app of this name, if there is one."""
        encoded = await self._redis.call("HGET", APPS, name)
        return None if encoded is None else _app_decoder.decode(encoded)

    async def get_many(self, names: Sequence[App]) -> Sequence[AppRecord | None]:
        """Return the apps of these names, in their order."""
        found = await self._redis.call("HMGET", APPS, *names) if names else []
        return [None if one is None else _app_decoder.decode(one) for one in found]

    async def find_name(self, issuer: str, audience: str) -> App | None:
        """Return the app that tokens of this issuer and audience belong to."""
        found = await self._redis.call("HGET", AUDIENCES, _pair(issuer, audience))
        return None if found is None else App(found.decode())

    async def _put(
        self, record: AppRecord, before: AppRecord | None, seen: bytes
    ) -> bool:
        """Store `record`; return whether what it replaces was still the same."""
        answer = await self._redis.run(
            _PUT,
            (APPS, AUDIENCES),
            (
                record.name,
                seen,
                _encoder.encode(record),
                _pair_of(before) if before else b"",
                _pair_of(record),
            ),
        )
        if answer == _TAKEN:
            raise AudienceTaken(record)
        return bool(answer == _STORED)

    # Backend keys.

    async def add_key(self, app: App, scopes: Iterable[str] = ()) -> str:
        """
        Make a backend key and return its text, which cannot be had again.

        Without scopes it gets the default: all but ``admin``.

        Raises:
            NotFound: There is no such app.
            ValueError: A scope is unknown.
        """
        granted = parse_scopes(scopes)
        if not await self._redis.call("HEXISTS", APPS, app):
            raise NotFound(f"the app {app}")
        text, record = self._new_key(app, granted)
        await self._redis.call(
            "HSET", KEYS, record.digest.hex(), _encoder.encode(record), write=True
        )
        return text

    async def find_key(self, text: bytes) -> KeyRecord | None:
        """Return the record of the backend key `text`, any bytes, if it is one."""
        digest = key_digest(text)
        encoded = await self._redis.call("HGET", KEYS, digest.hex())
        return _genuine(encoded, digest)

    async def find_keys(self, digests: Sequence[bytes]) -> Sequence[KeyRecord | None]:
        """Return the records of the keys with these digests, in their order."""
        names = [digest.hex() for digest in digests]
        found = await self._redis.call("HMGET", KEYS, *names) if names else []
        return [_genuine(*pair) for pair in zip(found, digests, strict=True)]

    async def list_keys(self, app: App | None = None) -> Sequence[KeyRecord]:
        """Return the keys of an app, or of all, the oldest first. O(n)."""
        found = await self._redis.call("HVALS", KEYS)
        records = map(_key_decoder.decode, found)
        chosen = [record for record in records if app in (None, record.app)]
        return sorted(chosen, key=lambda record: (record.created_at_ms, record.id))

    async def revoke_key(self, key_id: str) -> None:
        """
        Take a backend key back. O(n) in the number of keys.

        Raises:
            NotFound: There is no key of this id.
        """
        _, record = await self._key_of_id(key_id)
        await self._redis.call("HDEL", KEYS, record.digest.hex(), write=True)

    async def rotate_key(self, key_id: str, *, grace_s: int = GRACE_S) -> str:
        """
        Make a key like the one of this id, which ends `grace_s` seconds from now.

        Returns the text of the new one, which cannot be had again.

        Raises:
            NotFound: There is no key of this id.
        """
        while True:
            seen, old = await self._key_of_id(key_id)
            text, new = self._new_key(old.app, old.scopes)
            end_ms = self._now_ms() + grace_s * 1000
            ended = msgspec.structs.replace(
                old, expires_at_ms=min(old.expires_at_ms or end_ms, end_ms)
            )
            rotated = await self._redis.run(
                _ROTATE,
                (KEYS,),
                (
                    *(old.digest.hex(), seen, _encoder.encode(ended)),
                    *(new.digest.hex(), _encoder.encode(new)),
                ),
            )
            if rotated:
                return text

    async def _key_of_id(self, key_id: str) -> tuple[bytes, KeyRecord]:
        for encoded in await self._redis.call("HVALS", KEYS):
            record = _key_decoder.decode(encoded)
            if record.id == key_id:
                return encoded, record
        raise NotFound(f"the key {key_id}")

    def _new_key(self, app: App, scopes: frozenset[str]) -> tuple[str, KeyRecord]:
        text = KEY_PREFIX.decode() + secrets.token_urlsafe(_KEY_RANDOM_BYTES)
        return text, KeyRecord(app, scopes, self._now_ms(), key_digest(text.encode()))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _genuine(encoded: bytes | None, digest: bytes) -> KeyRecord | None:
    if encoded is None:
        return None
    record = _key_decoder.decode(encoded)
    # The store found it by this digest. A record copied or renamed by hand must not
    # open anything, so it has to name the same one.
    return record if hmac.compare_digest(record.digest, digest) else None


def _pair_of(record: AppRecord) -> bytes:
    return _pair(record.issuer, record.expected_audience)


def _pair(issuer: str, audience: str) -> bytes:
    return _encoder.encode([issuer, audience])
