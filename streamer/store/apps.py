"""
The apps of this server and their backend keys, as the store remembers them.

Knows the two hashes, the text form of a backend key, and that the store holds only the
digest of one. Knows nothing of callers, rights or headers.

A backend key is 256 random bits behind ``sk_``. Because it is random, a plain SHA-256
is enough to keep it by: there is nothing to guess, so nothing for a slow hash to slow
down. It is looked up by its digest, which is constant time in the sense that counts:
how far a guess is right shows in no byte of the digest.

``streamer:apps``  hash  app -> JSON of `AppRecord`         no expiry, O(1) each
``streamer:keys``  hash  hex digest -> JSON of `KeyRecord`  no expiry, O(1) each
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ..core.access import parse_scopes
from ..core.tokens import SECRET_BYTES_MIN, AppRecord
from ..errors import NotFound
from ..model import App
from .keys import APPS, KEYS
from .link import Link

__all__ = ["KEY_PREFIX", "AppExists", "AppRecord", "Apps", "KeyRecord", "key_digest"]

KEY_PREFIX: Final = b"sk_"
"""Begins every backend key and no JSON Web Token; leak scanners look for such."""

_KEY_RANDOM_BYTES: Final = 32

DEFAULT_ISSUER: Final = "streamer"


class KeyRecord(msgspec.Struct, frozen=True):
    """A backend key as it is kept: everything but the key."""

    app: App
    scopes: frozenset[str]
    created_at_ms: int
    digest: bytes


class AppExists(ValueError):
    """An app of this name is there already; it was left as it is."""

    def __init__(self, name: App) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"the app {self.name} exists already"


_encoder = msgspec.json.Encoder(order="deterministic")
_app_decoder = msgspec.json.Decoder(AppRecord)
_key_decoder = msgspec.json.Decoder(KeyRecord)


def key_digest(text: bytes) -> bytes:
    """Return what a backend key is kept and looked up by."""
    return hashlib.sha256(text).digest()


class Apps:
    """
    Apps and backend keys.

    Every method raises `StoreAway`; the writing ones `OutcomeUnknown` as well.
    """

    def __init__(self, link: Link, *, clock: Callable[[], float] = time.time) -> None:
        self._link = link
        self._clock = clock

    async def create(self, name: App, *, issuer: str = DEFAULT_ISSUER) -> AppRecord:
        """
        Make an app with a secret of its own. Of several at once, one succeeds.

        Raises:
            AppExists: There is one of this name.
        """
        record = AppRecord(
            name=name,
            secret=secrets.token_bytes(SECRET_BYTES_MIN),
            issuer=issuer,
            created_at_ms=self._now_ms(),
        )
        encoded = _encoder.encode(record)
        if not await self._link.call("HSETNX", APPS, name, encoded, write=True):
            raise AppExists(name)
        return record

    async def list(self) -> tuple[AppRecord, ...]:
        """Return all apps, sorted by name. O(n)."""
        found = await self._link.call("HVALS", APPS)
        records = map(_app_decoder.decode, found)
        return tuple(sorted(records, key=lambda record: record.name))

    async def get(self, name: App) -> AppRecord | None:
        """Return the app of this name, if there is one."""
        encoded = await self._link.call("HGET", APPS, name)
        return None if encoded is None else _app_decoder.decode(encoded)

    async def add_key(self, app: App, scopes: Iterable[str] = ()) -> str:
        """
        Make a backend key and return its text, which cannot be had again.

        Without scopes it gets the default: all but ``admin``.

        Raises:
            NotFound: There is no such app.
            ValueError: A scope is unknown.
        """
        granted = parse_scopes(scopes)
        if not await self._link.call("HEXISTS", APPS, app):
            raise NotFound(f"the app {app}")
        text = KEY_PREFIX.decode() + secrets.token_urlsafe(_KEY_RANDOM_BYTES)
        digest = key_digest(text.encode())
        record = KeyRecord(app, granted, self._now_ms(), digest)
        await self._link.call(
            "HSET", KEYS, digest.hex(), _encoder.encode(record), write=True
        )
        return text

    async def find_key(self, text: bytes) -> KeyRecord | None:
        """Return the record of the backend key `text`, any bytes, if it is one."""
        digest = key_digest(text)
        encoded = await self._link.call("HGET", KEYS, digest.hex())
        if encoded is None:
            return None
        record = _key_decoder.decode(encoded)
        # The store found it by this digest. A record copied or renamed by hand must
        # not open anything, so it has to name the same one.
        return record if hmac.compare_digest(record.digest, digest) else None

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
