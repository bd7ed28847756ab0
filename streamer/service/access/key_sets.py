"""
The public keys of foreign issuers: retrieval and caching of key sets.

Decides when a key set is fetched. Knows files and HTTP, and limits of both. Knows
nothing of tokens: its callers ask for the keys of an app, and for a key id that should
be among them.

Issuers rotate their keys without notice, so an unknown key id triggers a fetch. Anyone
can make up key ids, so such fetches happen at most once in `FETCH_INTERVAL_MIN_S`, and
at most one fetch per location is in progress. While an issuer is unavailable, its last
key set stays in use: an outage of the issuer must not lock out players. A key that the
issuer removes becomes invalid with the next fetch: within `KEY_SET_TTL_S`, if the
location responds.

URLs must be https. Redirects are not followed, because they would let a response choose
the location. The time and the size of a fetch are limited.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from ...core.access.apps import AppRecord
from ...core.access.signatures import Algorithm, KeySet, parse_key_set
from ...errors import IssuerUnavailable
from .outgoing import ExchangeFailed, exchange, give_up

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "FETCH_INTERVAL_MIN_S",
    "FETCH_TIMEOUT_S",
    "KEY_SET_TTL_S",
    "Fetch",
    "KeySetSource",
    "KeySetUnavailable",
    "KeySets",
    "fetch_key_set",
]

FETCH_INTERVAL_MIN_S: Final = 30.0
KEY_SET_TTL_S: Final = 300.0
FETCH_TIMEOUT_S: Final = 5.0
DOCUMENT_BYTES_MAX: Final = 256 * 1024

PARSED_SETS_MAX: Final = 1_000
"""Key sets cached that are part of a record, one per app."""

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]

_logger = logging.getLogger(__name__)


class KeySetUnavailable(Exception):
    """A key set could not be fetched; the message says why."""


async def fetch_key_set(location: str) -> bytes:
    """
    Return the document at `location`, a path or a URL as `AppRecord` allows them.

    Raises:
        KeySetUnavailable: It does not exist, is too large, or cannot be retrieved.
    """
    if location.startswith("/"):
        return await asyncio.to_thread(_read, location)
    return await _get(location)


class KeySets:
    """
    The keys of apps.

    Args:
        fetch: Returns the document at a location, or raises `KeySetUnavailable`.
        monotonic: A monotonic clock in seconds, for the age of key sets.

    """

    def __init__(
        self,
        *,
        fetch: Fetch = fetch_key_set,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._sources: dict[str, KeySetSource] = {}
        self._parsed: dict[str, KeySet] = {}

    async def keys_of(
        self, record: AppRecord, key_id: str | None = None, *, now_s: int
    ) -> KeySet:
        """
        Return the valid keys of an app; fetch them if `key_id` is not among them.

        Raises:
            IssuerUnavailable: Its key set was never retrieved, and cannot be now.
        """
        if record.key_set:
            source = self._sources.get(record.key_set)
            if source is None:
                source = KeySetSource(record.key_set, self._fetch, self._monotonic)
                self._sources[record.key_set] = source
            return await source.keys_of(record.algorithm, key_id)
        if record.algorithm == "HS256":
            return record.own_keys(now_s)
        keys = self._parsed.get(record.public_keys)
        if keys is None:
            if len(self._parsed) >= PARSED_SETS_MAX:
                self._parsed.clear()
            keys = self._parsed[record.public_keys] = record.own_keys(now_s)
        return keys

    async def close(self) -> None:
        """Give up what is being fetched; callers that wait are cancelled."""
        for source in self._sources.values():
            await source.close()


class KeySetSource:
    """
    A location and the last key set retrieved from it.

    Args:
        location: A path or a URL.
        fetch: Returns the document there, or raises `KeySetUnavailable`.
        monotonic: A monotonic clock in seconds.

    """

    def __init__(
        self, location: str, fetch: Fetch, monotonic: Callable[[], float]
    ) -> None:
        self._location = location
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._fetched_at_s = float("-inf")
        self._attempted_at_s = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def keys_of(self, algorithm: Algorithm, key_id: str | None) -> KeySet:
        """Return the keys; see `KeySets.keys_of`. Raises IssuerUnavailable."""
        is_stale = self._monotonic() - self._fetched_at_s >= KEY_SET_TTL_S
        if self._keys is None:
            await self._refresh()
        elif is_stale and self._failed:
            # The last fetch failed: this one may be slow, so callers do not wait for
            # it.
            self._start()
        elif is_stale:
            await self._refresh()
        if (
            self._keys is not None
            and key_id is not None
            and not self._keys.candidates(algorithm, key_id)
        ):
            await self._refresh()
        if self._keys is None:
            raise IssuerUnavailable
        return self._keys

    async def close(self) -> None:
        """Give up the fetch in progress; callers that wait are cancelled."""
        await give_up(self._fetching)

    async def _refresh(self) -> None:
        """
        Wait for the fetch in progress, or start one if it is time, and wait for it.
        """
        if fetching := self._start():
            await asyncio.shield(fetching)

    def _start(self) -> asyncio.Task[None] | None:
        if self._fetching is not None:
            return self._fetching
        now_s = self._monotonic()
        if now_s - self._attempted_at_s < FETCH_INTERVAL_MIN_S:
            return None
        self._attempted_at_s = now_s
        self._fetching = asyncio.create_task(self._fetch_once(), name="key set")
        return self._fetching

    async def _fetch_once(self) -> None:
        begun_s = self._monotonic()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                document = await self._fetch(self._location)
            self._keys = parse_key_set(document)
            self._fetched_at_s = begun_s
            self._failed = False
        except (KeySetUnavailable, TimeoutError, ValueError) as exc:
            self._failed = True
            consequence = (
                "none was retrieved before"
                if self._keys is None
                else "the previous one stays in use"
            )
            reason = str(exc) or f"no response within {FETCH_TIMEOUT_S:g} s"
            _logger.warning(
                "could not retrieve the key set from %s: %s; %s",
                _redacted(self._location),
                reason,
                consequence,
            )
        finally:
            self._fetching = None


def _read(path: str) -> bytes:
    try:
        # Non-blocking: opening a pipe would wait for its writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KeySetUnavailable("not a regular file")
            document = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as exc:
        raise KeySetUnavailable(exc.strerror or str(exc)) from exc
    if len(document) > DOCUMENT_BYTES_MAX:
        raise KeySetUnavailable(f"larger than {DOCUMENT_BYTES_MAX} bytes")
    return document


async def _get(url: str) -> bytes:
    try:
        status, document = await exchange(
            url,
            accept="application/jwk-set+json, application/json",
            bytes_max=DOCUMENT_BYTES_MAX,
            timeout_s=FETCH_TIMEOUT_S,
        )
    except ExchangeFailed as exc:
        raise KeySetUnavailable(str(exc)) from exc
    if status != 200:
        raise KeySetUnavailable(f"HTTP status {status}")
    return document


def _redacted(location: str) -> str:
    """Return a location for the log, without password and query."""
    if location.startswith("/"):
        return location
    url = urlsplit(location)
    return f"{url.scheme}://{url.hostname}{url.path}"
