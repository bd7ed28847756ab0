"""
Authentication: from the headers of a request to its caller.

Knows which headers carry a credential, how a backend key differs from a token, which
app a token belongs to, and how long the records that verify credentials are cached.
Knows nothing of rights: `Caller` has them.

A credential is in one of three headers. If both of the first two have one, they must
be equal. A cookie counts only without them: the browser adds it, and another
application of the site may have set it.

    Authorization: Bearer CREDENTIAL
    x-auth-token: CREDENTIAL
    Cookie: Authorization=bearer CREDENTIAL

Records are cached for `RECORD_TTL_S`. A revoked credential is rejected within that
time; meanwhile requests are authenticated without the store. Only existing records are
cached, so that a new key or app is valid at once. Concurrent lookups of one record
share one read.

Verified tokens are cached with the record and the keys that verified them; with any
other record or keys they are verified again. Each request checks the times of its
token, and whether the player's tokens were revoked. Rejected tokens are not cached.

A token belongs to the app whose issuer and audience it names; of a list of audiences,
to the first that names an app of that issuer. For most apps the
audience is the app's name. A foreign issuer may use another one, so there is an index
of the pairs. Neither is trusted: the keys of the app that is found must have signed the
token, and its record must have the same issuer and audience.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from ...core.access import tokens
from ...core.access.rights import Caller, KeyProof, TokenProof
from ...core.access.tokens import AppRecord, Claims, VerifiedToken
from ...errors import Defect, Unauthenticated
from ...model import App, Log, parse_app
from ...store.access.apps import KEY_PREFIX, Apps, KeyRecord, key_digest
from ..node.request_context import note_app, note_caller, note_player
from .key_sets import KeySets
from .key_uses import KeyUses

__all__ = [
    "RECORDS_MAX",
    "RECORD_TTL_S",
    "TOKENS_MAX",
    "Authenticator",
    "Credentials",
]

RECORD_TTL_S: Final = 5.0
"""How long a revoked key may stay valid."""

RECORDS_MAX: Final = 10_000
"""Records cached of each kind; about 1 KiB each. The oldest is evicted."""

TOKENS_MAX: Final = 1_024
"""Verified tokens cached, by digest; about 2 KiB each. The oldest is evicted."""

_SCHEME: Final = b"bearer"
_COOKIE: Final = b"Authorization"
_CARRIERS: Final = {b"authorization", b"x-auth-token", b"cookie"}

_Key = TypeVar("_Key")
_Record = TypeVar("_Record")
_Value = TypeVar("_Value")


class Credentials(NamedTuple):
    """
    The credential of a request, not verified yet.

    `from_cookie` is true if a browser may have added it without the page's doing. The
    origin of the page must be checked before anything is done for it.
    """

    token: bytes
    from_cookie: bool = False

    def __repr__(self) -> str:
        # The tuple's own would put the secret into logs and tracebacks.
        return f"Credentials(from_cookie={self.from_cookie})"

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[bytes, bytes]]) -> Credentials:
        """
        Return the credential in the headers of an ASGI scope.

        Raises:
            Unauthenticated: MISSING, AMBIGUOUS or SCHEME.
        """
        carried = [
            (carrier, value)
            for name, value in headers
            if (carrier := name.lower()) in _CARRIERS
        ]
        if len(carried) == 1 and carried[0][0] == b"authorization":
            token = _strip_scheme(carried[0][1])
            if not token:
                raise Unauthenticated(Defect.MISSING)
            return cls(token)
        by_name: dict[bytes, list[bytes]] = {carrier: [] for carrier in _CARRIERS}
        for carrier, value in carried:
            by_name[carrier].append(value)
        header_values = {
            _strip_scheme(_only(by_name[b"authorization"])),
            _only(by_name[b"x-auth-token"]).strip(),
        }
        header_values.discard(b"")
        from_cookie = not header_values
        candidates = header_values
        if from_cookie:
            cookies = _cookies(by_name[b"cookie"])
            candidates = set(map(_strip_scheme, cookies)) - {b""}
        if not candidates:
            raise Unauthenticated(Defect.MISSING)
        if len(candidates) > 1:
            raise Unauthenticated(Defect.AMBIGUOUS)
        return cls(candidates.pop(), from_cookie=from_cookie)

    @classmethod
    def from_header(
        cls, headers: Iterable[tuple[bytes, bytes]], name: bytes
    ) -> Credentials:
        """
        Return the credential in the only header that may carry one.

        Raises:
            Unauthenticated: MISSING or AMBIGUOUS.
        """
        token = _only(
            [value for header, value in headers if header.lower() == name]
        ).strip()
        if not token:
            raise Unauthenticated(Defect.MISSING)
        return cls(token)

    @classmethod
    def from_token(cls, token: str) -> Credentials:
        """
        Return the credential that a client sent in a message on its stream.

        Raises:
            Unauthenticated: MISSING.
        """
        if not token:
            raise Unauthenticated(Defect.MISSING)
        # A lone surrogate must be an invalid credential, not an error.
        return cls(token.encode("utf-8", "surrogatepass"))


class Authenticator:
    """
    Authenticates callers.

    Args:
        apps: The records in the store.
        key_sets: The keys of apps.
        key_uses: Told of each use of a backend key.
        clock: Unix time in seconds, for the expiry of credentials.
        monotonic: A monotonic clock in seconds, for the age of cached records.

    """

    def __init__(
        self,
        apps: Apps,
        *,
        key_sets: KeySets | None = None,
        key_uses: KeyUses | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._apps = apps
        self._key_sets = key_sets or KeySets()
        self._key_uses = key_uses or KeyUses(apps, clock=clock)
        self._clock = clock
        self._names: _RecordCache[tuple[str, str], App] = _RecordCache(monotonic)
        self._app_records: _RecordCache[App, AppRecord] = _RecordCache(monotonic)
        self._not_before_s: _RecordCache[Log, int] = _RecordCache(monotonic)
        # Records of keys with their callers, by digest.
        self._keys: _RecordCache[bytes, tuple[KeyRecord, Caller]]
        self._keys = _RecordCache(monotonic)
        # Verified tokens and their callers by digest, in the order of insertion.
        self._verified: OrderedDict[bytes, tuple[VerifiedToken, Caller]] = OrderedDict()

    def caller(self, credentials: Credentials) -> Awaitable[Caller]:
        """
        Return the caller of these credentials.

        Raises:
            Unauthenticated: They are invalid; `defect` and `detail` say why.
            StoreUnavailable: A record is not cached and cannot be read.
            IssuerUnavailable: The keys of the token's issuer cannot be retrieved.
        """
        if credentials.token.startswith(KEY_PREFIX):
            return self._key_caller(credentials.token)
        return self._token_caller(credentials.token)

    async def app_record(self, name: App) -> AppRecord | None:
        """Return an app's record, `RECORD_TTL_S` old at most. Raises
        StoreUnavailable."""
        return self._app_records.cached(name) or await self._record(name)

    async def _key_caller(self, text: bytes) -> Caller:
        digest = key_digest(text)
        found = self._keys.cached(digest) or await self._keys.find(
            digest, partial(self._find_key, text)
        )
        if found is None:
            raise Unauthenticated(Defect.UNKNOWN_KEY)
        record, caller = found
        note_caller(record.app, None)
        if record.is_expired(self._clock() * 1000):
            raise Unauthenticated(Defect.EXPIRED_KEY)
        self._key_uses.note(digest)
        return caller

    async def _find_key(self, text: bytes) -> tuple[KeyRecord, Caller] | None:
        record = await self._apps.find_key(text)
        if record is None:
            return None
        caller = Caller.from_key(
            record.app,
            record.scopes,
            expires_at_s=record.expires_at_ms // 1000 or None,
            proof=KeyProof(record.digest),
        )
        return record, caller

    async def _token_caller(self, token: bytes) -> Caller:
        digest = hashlib.sha256(token).digest()
        verified, caller = self._verified.get(digest, (None, None))
        unverified = tokens.parse(token) if verified is None else verified.token
        record = await self._find_app(unverified.issuer, unverified.audiences)
        # For the line of a refusal, too. It says for which app the token is meant, and
        # for which player if the signature is good.
        note_app(record.name)
        tokens.require_algorithm(unverified, record)
        now_s = int(self._clock())
        keys = await self._key_sets.keys_of(record, unverified.key_id, now_s=now_s)
        if verified is not None and verified.was_verified_with(record, keys):
            note_player(verified.player)
            verified.check_times(now_s)
        else:
            newly_verified = tokens.verify_without_times(unverified, record, keys)
            note_player(newly_verified.player)
            caller = _caller_of(newly_verified.claims_at(now_s))
            _insert(
                self._verified, digest, (newly_verified, caller), max_entries=TOKENS_MAX
            )
        assert caller is not None
        if now_s < record.revoking_until_s:
            await self._require_current(caller)
        return caller

    async def _find_app(self, issuer: str, audiences: Iterable[str]) -> AppRecord:
        """
        Return the app with this issuer and one of the audiences, the first that has.

        Raises:
            Unauthenticated: CLAIM with ``aud``: no app has such an audience.
        """
        named: AppRecord | None = None
        for audience in audiences:
            name = parse_app(audience)
            record = await self._record(name) if name else None
            pair = issuer, audience
            if (
                record
                and record.issuer == issuer
                and audience in record.expected_audiences
            ):
                return record
            named = named or record
            other = await self._names.find(pair, partial(self._apps.find_name, *pair))
            if other and (record := await self._record(other)):
                return record
        # With no match, the app of that name determines the defect.
        if named is None:
            raise Unauthenticated(Defect.CLAIM, "aud")
        return named

    async def _record(self, name: App) -> AppRecord | None:
        return self._app_records.cached(name) or await self._app_records.find(
            name, lambda: self._apps.get(name)
        )

    async def _require_current(self, caller: Caller) -> None:
        log = Log(caller.app, caller.require_player())

        async def load() -> int:
            (not_before_s,) = await self._apps.revoked_before_s([log])
            return not_before_s

        not_before_s = await self._not_before_s.find(log, load)
        assert not_before_s is not None, "0 is kept too"
        assert isinstance(caller.proof, TokenProof)
        if caller.proof.issued_at_s < not_before_s:
            raise Unauthenticated(Defect.REVOKED)


def _caller_of(claims: Claims) -> Caller:
    return Caller(
        app=claims.app,
        player=claims.player,
        permissions=claims.permissions,
        expires_at_s=claims.expires_at_s,
        proof=claims.proof,
        topics=claims.topics,
    )


class _RecordCache(Generic[_Key, _Record]):
    """A cache of records with a TTL and at most one read at a time per key."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        # In the order of insertion: the oldest is the first.
        self._entries: OrderedDict[_Key, tuple[_Record, float]] = OrderedDict()
        self._loading: dict[_Key, asyncio.Task[_Record | None]] = {}

    async def find(
        self, key: _Key, load: Callable[[], Awaitable[_Record | None]]
    ) -> _Record | None:
        """
        Return the cached record of `key`, or the result of `load`.

        Cancelling one caller does not cancel the read for others.
        """
        record = self.cached(key)
        if record is not None:
            return record
        # A read that began before this call may have missed a record stored since. A
        # second read cannot.
        was_loading = key in self._loading
        record = await self._load_once(key, load)
        if record is None and was_loading:
            record = self.cached(key) or await self._load_once(key, load)
        return record

    def cached(self, key: _Key) -> _Record | None:
        """Return the record of `key` if it is cached."""
        entry = self._entries.get(key)
        if entry is None or self._monotonic() - entry[1] >= RECORD_TTL_S:
            return None
        return entry[0]

    async def _load_once(
        self, key: _Key, load: Callable[[], Awaitable[_Record | None]]
    ) -> _Record | None:
        task = self._loading.get(key)
        if task is None:
            task = asyncio.create_task(self._load(key, load))
            # If all callers are cancelled, nothing retrieves the exception.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._loading[key] = task
        return await asyncio.shield(task)

    async def _load(
        self, key: _Key, load: Callable[[], Awaitable[_Record | None]]
    ) -> _Record | None:
        # The age counts from before the read, so that the time that the read takes
        # does not extend the TTL.
        loaded_at_s = self._monotonic()
        try:
            record = await load()
        finally:
            del self._loading[key]
        if record is None:
            self._entries.pop(key, None)
        else:
            _insert(self._entries, key, (record, loaded_at_s), max_entries=RECORDS_MAX)
        return record


def _insert(
    entries: OrderedDict[_Key, _Value], key: _Key, value: _Value, *, max_entries: int
) -> None:
    """Insert a value as the newest; evict the oldest of more than `max_entries`."""
    entries.pop(key, None)
    if len(entries) >= max_entries:
        entries.popitem(last=False)
    entries[key] = value


def _only(values: list[bytes]) -> bytes:
    # With two such headers, a proxy may have checked the other one.
    if len(values) > 1:
        raise Unauthenticated(Defect.AMBIGUOUS)
    return values[0] if values else b""


def _strip_scheme(value: bytes) -> bytes:
    """Return the credential of ``Bearer CREDENTIAL``, empty if there is none."""
    scheme, _, credential = value.strip().partition(b" ")
    if scheme and scheme.lower() != _SCHEME:
        raise Unauthenticated(Defect.SCHEME)
    return credential.strip()


def _cookies(headers: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the values of the cookie that carries a credential (RFC 6265, 5.4)."""
    for header in headers:
        for pair in header.split(b";"):
            name, _, value = pair.partition(b"=")
            if name.strip() == _COOKIE:
                # Clients write this value without a space, quoted, or percent-encoded.
                yield unquote_to_bytes(value.strip()).strip(b'"')
