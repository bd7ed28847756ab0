"""
The public keys of foreign issuers: where they are had, and for how long they count.

Decides when a key set is fetched, again or at all. Knows files, HTTP and the bounds of
both. Knows nothing of tokens: it is asked for an app's keys, among which one of a given
id ought to be.

An issuer rotates its keys without telling anybody, so a token that names an unknown one
is a reason to look; and anybody can make up such tokens, so it is a reason once in
`FETCH_INTERVAL_MIN_S` at most. However many ask, one fetch is under way for a place. A
set that was had once is kept while its issuer is away: an outage of theirs must not
lock out players whose tokens can be checked. What is not in the set any more ends with
the next fetch, at most `KEY_SET_TTL_S` after it was taken out, while the place answers.

HTTP is https, redirects are not followed (whoever answers in the issuer's name would
choose where we go), and neither time nor bytes are the other side's to decide.
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

from ...core.access.apps import AppRecord, is_loopback
from ...core.access.signatures import Algorithm, KeySet, parse_key_set
from ...errors import IssuerUnavailable

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "FETCH_INTERVAL_MIN_S",
    "FETCH_TIMEOUT_S",
    "KEY_SET_TTL_S",
    "Fetch",
    "KeySetUnavailable",
    "KeySets",
    "fetch_key_set",
]

FETCH_INTERVAL_MIN_S: Final = 30.0
KEY_SET_TTL_S: Final = 300.0
FETCH_TIMEOUT_S: Final = 5.0
DOCUMENT_BYTES_MAX: Final = 256 * 1024

PARSED_SETS_MAX: Final = 1_000
"""Sets kept that came in records, one an app."""

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]

_logger = logging.getLogger(__name__)


class KeySetUnavailable(Exception):
    """A key set could not be fetched; says why."""


async def fetch_key_set(location: str) -> bytes:
    """
    Return the document at `location`, a path or a URL as `AppRecord` allows them.

    Raises:
        KeySetUnavailable: There is none, it is too large, or nobody answers.
    """
    if location.startswith("/"):
        return await asyncio.to_thread(_read, location)
    return await _get(location)


class KeySets:
    """
    The keys of apps.

    Args:
        fetch: Returns the document at a place, or raises `KeySetUnavailable`.
        monotonic: Seconds by which sets age.

    """

    def __init__(
        self,
        *,
        fetch: Fetch = fetch_key_set,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._sources: dict[str, _KeySetSource] = {}
        self._parsed: dict[str, KeySet] = {}

    async def keys_of(
        self, record: AppRecord, key_id: str | None = None, *, now_s: int
    ) -> KeySet:
        """
        Return the keys that count for an app, and look for one of `key_id` if need be.

        Raises:
            IssuerUnavailable: They are elsewhere, and were never had.
        """
        if record.key_set:
            source = self._sources.get(record.key_set)
            if source is None:
                source = _KeySetSource(record.key_set, self._fetch, self._monotonic)
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


class _KeySetSource:
    """One place and what was had from it last."""

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
        is_stale = self._monotonic() - self._fetched_at_s >= KEY_SET_TTL_S
        if self._keys is None:
            await self._refresh()
        elif is_stale and self._failed:
            # The last one failed: this one may take its time, and nobody waits for it.
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

    async def _refresh(self) -> None:
        """Wait for the fetch that is under way, or one that may be started."""
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
        # Not to wait for whoever writes into a pipe.
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
    # Imported for those who need it: it takes longer to load than all the rest.
    import httpx2

    headers = {
        "Accept": "application/jwk-set+json, application/json",
        "Accept-Encoding": "identity",
    }
    # A proxy that the environment names is for what is not on this machine.
    trust_env = not is_loopback(urlsplit(url).hostname or "")
    try:
        async with (
            httpx2.AsyncClient(timeout=FETCH_TIMEOUT_S, trust_env=trust_env) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise KeySetUnavailable(f"HTTP status {response.status_code}")
            document = bytearray()
            # As it comes: nothing that is packed is unpacked.
            async for chunk in response.aiter_raw():
                document += chunk
                if len(document) > DOCUMENT_BYTES_MAX:
                    raise KeySetUnavailable(f"larger than {DOCUMENT_BYTES_MAX} bytes")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
        raise KeySetUnavailable(f"{type(exc).__name__} {exc}".strip()) from exc
    return bytes(document)


def _redacted(location: str) -> str:
    """Return a place for the log: a URL may hold a password, or a query a secret."""
    if location.startswith("/"):
        return location
    url = urlsplit(location)
    return f"{url.scheme}://{url.hostname}{url.path}"
