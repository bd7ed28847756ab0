"""
Apps, their backend keys, and revoked tokens.

Knows the hashes, the text form of a backend key, and that the store holds only its
digest. Knows nothing of callers, rights and HTTP headers.

A backend key is ``sk_`` and 256 random bits. It cannot be guessed, so its plain SHA-256
is enough; a slow hash would add nothing. It is looked up by that digest, whose timing
reveals nothing about the key: a partly correct guess has an unrelated digest. People
name a key by its id, which is derived from the digest and grants nothing.

A pair of issuer and audience belongs to one app, otherwise a token could belong to two.
An app's record is changed by compare-and-set, so concurrent changes do not undo each
other.

``ns:apps``                  hash  app -> JSON of `AppRecord`         O(1) each
``ns:{ns:apps}:audiences``   hash  JSON of [issuer, audience] -> app  O(1) each
``ns:keys``                  hash  hex digest -> JSON of `KeyRecord`  O(1) each
``ns:{ns:keys}:used``        hash  hex digest -> time in ms            O(1) each
``ns:{b}:revoked:app:digest``  string, a time in s, for as long as it matters
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
from ...core.access.claims import ClaimPointers
from ...core.access.rights import parse_scopes
from ...core.access.roles import Role, role_scope
from ...core.access.tokens import LEEWAY_S, TTL_MAX_S
from ...errors import NotFound
from ...model import App, Log, Player
from ..client.connection import RedisConnection, Script
from ..client.replies import ok
from .short_lived import put_until

__all__ = [
    "GRACE_S",
    "KEY_PREFIX",
    "AppExists",
    "AppRecord",
    "Apps",
    "AudienceTaken",
    "KeyRecord",
    "key_digest",
    "key_id",
]

KEY_PREFIX: Final = b"sk_"
"""Prefix of every backend key, by which secret scanners find leaked ones."""

GRACE_S: Final = 86_400
"""How long a rotated secret or key stays valid: the longest lifetime of a token."""

_REVOKED_S: Final = TTL_MAX_S + 2 * LEEWAY_S
"""Every token that was issued before a revocation has expired after this time."""

_KEY_RANDOM_BYTES: Final = 32

_USES_MAX: Final = 500
"""Uses stored at a time, so that the store is not blocked."""

# Replies of `app_put`, besides 0: the stored record is another.
_STORED: Final = 1
_TAKEN: Final = -1

_PUT: Final = Script("app_put", includes=("_whole",))
_PUT_KEY: Final = Script("key_put")
_ROTATE: Final = Script("key_rotate")
_USED: Final = Script("keys_used")


class KeyRecord(msgspec.Struct, frozen=True):
    """
    A backend key as stored, without the key itself.

    `name` is for people and need not be unique. `lifetime_ms` is how long the key was
    created for, and its successors are: `expires_at_ms` may be earlier, after a
    rotation. 0 ms stands for no expiry.
    """

    app: App
    scopes: frozenset[str]
    created_at_ms: int
    digest: bytes
    expires_at_ms: int = 0
    name: str = ""
    lifetime_ms: int = 0

    @property
    def id(self) -> str:
        """The name of the key for people and logs; it grants nothing."""
        return key_id(self.digest)

    def is_expired(self, now_ms: float) -> bool:
        """Whether the key has expired."""
        return 0 < self.expires_at_ms <= now_ms


class AppExists(ValueError):
    """An app of this name exists already, or is being removed. It was not changed."""

    def __init__(self, name: App, *, removing: bool = False) -> None:
        self.name = name
        self.removing = removing

    def __str__(self) -> str:
        if self.removing:
            return (
                f"the app {self.name} is being deleted; complete that with `streamer "
                f"app delete {self.name}`"
            )
        return f"the app {self.name} exists already"


class AudienceTaken(ValueError):
    """Another app has this issuer and an audience of it. Nothing was changed."""

    def __init__(self, record: AppRecord) -> None:
        self.record = record

    def __str__(self) -> str:
        audiences = " or ".join(self.record.expected_audiences)
        return f"tokens of {self.record.issuer} for {audiences} belong to another app"


_encoder = msgspec.json.Encoder(order="deterministic")
_app_decoder = msgspec.json.Decoder(AppRecord)
_key_decoder = msgspec.json.Decoder(KeyRecord)


def key_digest(text: bytes) -> bytes:
    """Return the digest by which a backend key is stored."""
    return hashlib.sha256(text).digest()


def key_id(digest: bytes) -> str:
    """Return the id of the key with this digest; see `KeyRecord.id`."""
    return hashlib.sha256(b"streamer backend key\0" + digest).hexdigest()[:16]


class Apps:
    """
    Apps and backend keys.

    Every method raises StoreUnavailable; those that write raise OutcomeUnknown, too.
    """

    def __init__(
        self, redis: RedisConnection, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._keys = redis.keys
        self._clock = clock

    # Apps.

    async def create(
        self, name: App, *, issuer: str = DEFAULT_ISSUER, **tokens: Any
    ) -> AppRecord:
        """
        Create an app. Of several concurrent calls one succeeds.

        Args:
            name: The app's name.
            issuer: The issuer of its tokens.
            tokens: Further members of `AppRecord` for the verification of tokens.
                Without an algorithm the app gets a secret of its own. `claims` is a
                mapping, as for `AppRecord.with_tokens`.

        Raises:
            AppExists: An app of this name exists, or is being removed.
            AudienceTaken: The issuer and audience belong to another app.
            ValueError: The members contradict each other.
        """
        own = tokens.get("algorithm", "HS256") == "HS256"
        tokens["claims"] = ClaimPointers(**tokens.get("claims", {}))
        record = AppRecord(
            name=name,
            secret=secrets.token_bytes(SECRET_BYTES_MIN) if own else b"",
            issuer=issuer,
            created_at_ms=self._now_ms(),
            **tokens,
        )
        if await self._redis.call("HEXISTS", self._keys.removing, name):
            raise AppExists(name, removing=True)
        if not await self._put(record, None, b""):
            raise AppExists(name)
        return record

    async def update(
        self, name: App, change: Callable[[AppRecord], AppRecord]
    ) -> AppRecord:
        """
        Store what `change` returns for an app's record.

        If the record changes meanwhile, `change` is called again.

        Raises:
            NotFound: There is no such app.
            AudienceTaken: The issuer and audience belong to another app.
        """
        while True:
            seen = await self._redis.call("HGET", self._keys.apps, name)
            if seen is None:
                raise NotFound(f"the app {name}")
            before = _app_decoder.decode(seen)
            after = change(before)
            if await self._put(after, before, seen):
                return after

    async def change_tokens(self, name: App, changes: Mapping[str, Any]) -> AppRecord:
        """
        Change which tokens an app accepts.

        Args:
            name: The app.
            changes: New values of members of `AppRecord`. Members that contradict them
                are reset, and a secret is generated if the app now needs one.

        Raises:
            NotFound: There is no such app.
            AudienceTaken: The issuer and audience belong to another app.
            ValueError: The members contradict each other.
        """
        fresh = secrets.token_bytes(SECRET_BYTES_MIN)
        return await self.update(
            name, lambda record: record.with_tokens(changes, fresh_secret=fresh)
        )

    async def rotate(self, name: App, *, grace_s: int = GRACE_S) -> AppRecord:
        """
        Give an app a new secret. The previous one stays valid for `grace_s` seconds.

        Raises:
            NotFound: There is no such app.
            ValueError: A foreign issuer signs its tokens.
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
        Revoke every token of an app, or of one of its players, issued until now.

        Raises:
            NotFound: There is no such app.
        """
        # Times are whole seconds, so all of the current second is revoked. Tokens that
        # are minted after a revocation are dated to the next one.
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
            # Before the record, which makes all nodes read this key.
            key = self._keys.revoked(Log(name, player))
            await put_until(self._redis, key, not_before_s, "PX", _REVOKED_S * 1_000)
        await self.update(name, revoked)

    async def revoked_before_s(self, logs: Sequence[Log]) -> list[int]:
        """Return for each player before which second tokens are revoked; 0 for none."""
        commands = [("GET", self._keys.revoked(log)) for log in logs]
        replies = await self._redis.call_many(commands)
        return [int(ok(reply) or 0) for reply in replies]

    async def list(self) -> tuple[AppRecord, ...]:
        """Return all apps, sorted by name. O(n)."""
        encoded = await self._redis.call("HVALS", self._keys.apps)
        records = map(_app_decoder.decode, encoded)
        return tuple(sorted(records, key=lambda record: record.name))

    async def get(self, name: App) -> AppRecord | None:
        """Return the app of this name, or None."""
        encoded = await self._redis.call("HGET", self._keys.apps, name)
        return None if encoded is None else _app_decoder.decode(encoded)

    async def get_many(self, names: Sequence[App]) -> Sequence[AppRecord | None]:
        """Return the apps of these names, in their order."""
        encoded = (
            await self._redis.call("HMGET", self._keys.apps, *names) if names else []
        )
        return [None if one is None else _app_decoder.decode(one) for one in encoded]

    async def find_name(self, issuer: str, audience: str) -> App | None:
        """Return the app that an issuer and audience belong to, or None."""
        pair = _pair(issuer, audience)
        name = await self._redis.call("HGET", self._keys.audiences, pair)
        return None if name is None else App(name.decode())

    async def _put(
        self, record: AppRecord, before: AppRecord | None, seen: bytes
    ) -> bool:
        """Store `record` if the stored one is still `seen`; return whether it was."""
        old = _pairs_of(before) if before else []
        outcome = await self._redis.run(
            _PUT,
            (self._keys.apps, self._keys.audiences),
            (
                *(record.name, seen, _encoder.encode(record), len(old)),
                *old,
                *_pairs_of(record),
            ),
        )
        if outcome == _TAKEN:
            raise AudienceTaken(record)
        return bool(outcome == _STORED)

    # Backend keys.

    async def add_key(
        self,
        app: App,
        scopes: Iterable[str] = (),
        *,
        name: str = "",
        lifetime_ms: int = 0,
        role: Role | None = None,
    ) -> str:
        """
        Create a backend key and return its text, which cannot be retrieved later.

        Args:
            app: The app that it belongs to.
            scopes: Its scopes; without any it gets the default: all but ``admin``, or
                none if it has a role.
            name: A name for people.
            lifetime_ms: When it expires, from now; 0 for never.
            role: Its role in the console, None for none.

        Raises:
            NotFound: There is no such app.
            ValueError: A scope is unknown.
        """
        scopes = tuple(scopes)
        known_scopes = parse_scopes(scopes) if scopes or not role else frozenset()
        if role:
            known_scopes |= {role_scope(role)}
        if not await self._redis.call("HEXISTS", self._keys.apps, app):
            raise NotFound(f"the app {app}")
        text, record = self._new_key(app, known_scopes, name, lifetime_ms)
        new = (record.digest.hex(), _encoder.encode(record))
        await self._redis.run(_PUT_KEY, (self._keys.backend_keys,), new)
        return text

    async def find_key(self, text: bytes) -> KeyRecord | None:
        """Return the record of the backend key `text`, any bytes, or None."""
        digest = key_digest(text)
        encoded = await self._redis.call("HGET", self._keys.backend_keys, digest.hex())
        return _genuine(encoded, digest)

    async def find_keys(self, digests: Sequence[bytes]) -> Sequence[KeyRecord | None]:
        """Return the records of the keys with these digests, in their order."""
        names = [digest.hex() for digest in digests]
        encoded = (
            await self._redis.call("HMGET", self._keys.backend_keys, *names)
            if names
            else []
        )
        return [_genuine(*pair) for pair in zip(encoded, digests, strict=True)]

    async def list_keys(self, app: App | None = None) -> Sequence[KeyRecord]:
        """Return the keys of an app, or of all apps, oldest first. O(n)."""
        encoded = await self._redis.call("HVALS", self._keys.backend_keys)
        records = map(_key_decoder.decode, encoded)
        of_app = [record for record in records if app in (None, record.app)]
        return sorted(of_app, key=lambda record: (record.created_at_ms, record.id))

    async def app_of_key(self, key_id: str) -> App:
        """Return the app of the key with this id. O(n). Raises NotFound."""
        _, record = await self._key_of_id(key_id)
        return record.app

    async def revoke_key(self, key_id: str) -> None:
        """
        Revoke a backend key. O(n) in the number of keys.

        Raises:
            NotFound: There is no key with this id.
        """
        _, record = await self._key_of_id(key_id)
        field = record.digest.hex()
        await self._redis.call("HDEL", self._keys.backend_keys, field, write=True)
        # Afterwards: a node notes no use of a key that does not exist.
        await self._redis.call("HDEL", self._keys.key_uses, field, write=True)

    async def note_uses(self, used_ms: Mapping[bytes, int]) -> None:
        """Store when the keys with these digests were used; a later time stays."""
        args = [it for digest, at in used_ms.items() for it in (digest.hex(), at)]
        keys = (self._keys.backend_keys, self._keys.key_uses)
        for first in range(0, len(args), 2 * _USES_MAX):
            await self._redis.run(_USED, keys, args[first : first + 2 * _USES_MAX])

    async def key_uses(self) -> Mapping[bytes, int]:
        """Return when keys were last used, in ms, by digest. O(n)."""
        replies = await self._redis.call("HGETALL", self._keys.key_uses)
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return {bytes.fromhex(digest.decode()): int(at) for digest, at in pairs}

    async def rotate_key(self, key_id: str, *, grace_s: int = GRACE_S) -> str:
        """
        Create a key like another, which expires in `grace_s` seconds.

        The new key has the same app, name, scopes and lifetime. Returns its text, which
        cannot be retrieved later.

        Raises:
            NotFound: There is no key with this id.
        """
        while True:
            seen, old = await self._key_of_id(key_id)
            text, new = self._new_key(old.app, old.scopes, old.name, old.lifetime_ms)
            end_ms = self._now_ms() + grace_s * 1000
            ended = msgspec.structs.replace(
                old, expires_at_ms=min(old.expires_at_ms or end_ms, end_ms)
            )
            rotated = await self._redis.run(
                _ROTATE,
                (self._keys.backend_keys,),
                (
                    *(old.digest.hex(), seen, _encoder.encode(ended)),
                    *(new.digest.hex(), _encoder.encode(new)),
                ),
            )
            if rotated:
                return text

    async def _key_of_id(self, key_id: str) -> tuple[bytes, KeyRecord]:
        for encoded in await self._redis.call("HVALS", self._keys.backend_keys):
            record = _key_decoder.decode(encoded)
            if record.id == key_id:
                return encoded, record
        raise NotFound(f"the key {key_id}")

    def _new_key(
        self, app: App, scopes: frozenset[str], name: str, lifetime_ms: int
    ) -> tuple[str, KeyRecord]:
        text = KEY_PREFIX.decode() + secrets.token_urlsafe(_KEY_RANDOM_BYTES)
        now_ms = self._now_ms()
        return text, KeyRecord(
            *(app, scopes, now_ms, key_digest(text.encode())),
            expires_at_ms=now_ms + lifetime_ms if lifetime_ms else 0,
            name=name,
            lifetime_ms=lifetime_ms,
        )

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _genuine(encoded: bytes | None, digest: bytes) -> KeyRecord | None:
    if encoded is None:
        return None
    record = _key_decoder.decode(encoded)
    # The record was found by this digest. It has to contain the same one, so that a
    # record that was copied or renamed by hand grants nothing.
    return record if hmac.compare_digest(record.digest, digest) else None


def _pairs_of(record: AppRecord) -> list[bytes]:
    return [_pair(record.issuer, audience) for audience in record.expected_audiences]


def _pair(issuer: str, audience: str) -> bytes:
    return _encoder.encode([issuer, audience])
