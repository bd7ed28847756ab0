"""
The OpenID Connect issuer with which people log in to the console.

Asks the issuer: for its metadata (OpenID Connect Discovery 1.0), for its keys, and for
the ID token of a login (the authorization code flow with PKCE). Decides what is valid
of its answers, and for how long they are kept. Knows HTTP. Knows nothing of roles,
sessions and cookies.

Metadata are fetched when they are needed, and again after `METADATA_TTL_S`. While the
issuer is unavailable, no login begins, since the browser would only meet an error; what
has begun goes on with the last metadata. After a failure the issuer is left alone for
`RETRY_S`, however many people try to log in. Keys rotate without notice: see
`key_sets`. Answers are limited in time and size; URLs must be https, except on this
machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from ...core.access.apps import is_loopback
from ...core.access.id_tokens import algorithm_of, parse_id_token, verify_id_token
from ...errors import IssuerUnavailable, Rejected
from .key_sets import KeySetSource, fetch_key_set
from .outgoing import ExchangeFailed, exchange, give_up

__all__ = [
    "EXCHANGES_MAX",
    "METADATA_TTL_S",
    "RETRY_S",
    "Client",
    "CodeRefused",
    "OidcIssuer",
]

METADATA_TTL_S: Final = 60.0
RETRY_S: Final = 5.0
"""How long the issuer is left alone after it gave no usable metadata."""

TIMEOUT_S: Final = 5.0
"""For one answer of the issuer."""

ANSWER_BYTES_MAX: Final = 256 * 1024
EXCHANGES_MAX: Final = 20
"""Codes that this process exchanges at a time."""

LOGOUT_HINT_BYTES_MAX: Final = 4_096
"""A longer ID token is not sent back at the logout: it would be a part of a URL."""

_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_ERROR_CHARS_MAX: Final = 100
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_logger = logging.getLogger("streamer.console")


class Client(NamedTuple):
    """What is registered with the issuer: this console."""

    issuer: str
    client_id: str
    client_secret: str
    redirect_url: str
    scope: str = "openid"


class CodeRefused(Rejected):
    """The issuer refused a code. `error` is its error code."""

    def __init__(self, error: str) -> None:
        self.error = error

    def __str__(self) -> str:
        return f"the issuer refused the login: {self.error}"


class _Metadata(msgspec.Struct, frozen=True):
    """The members that are read of the metadata; others are ignored."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None = None
    # The default is that of OpenID Connect Discovery 1.0, section 3.
    token_endpoint_auth_methods_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False

    @property
    def takes_basic(self) -> bool:
        methods = self.token_endpoint_auth_methods_supported
        return (
            methods is None
            or "client_secret_post" not in methods
            or ("client_secret_basic" in methods)
        )


class _TokenAnswer(msgspec.Struct, frozen=True):
    id_token: str


class _TokenError(msgspec.Struct, frozen=True):
    error: str


_decode_metadata: Final = msgspec.json.Decoder(_Metadata).decode
_decode_token: Final = msgspec.json.Decoder(_TokenAnswer).decode
_decode_error: Final = msgspec.json.Decoder(_TokenError).decode


class OidcIssuer:
    """
    The issuer, for one client. Methods that are async raise IssuerUnavailable.

    Args:
        client: What is registered with the issuer.
        clock: Unix time in seconds.
        monotonic: A monotonic clock in seconds, for the age of what is kept.

    """

    def __init__(
        self,
        client: Client,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self._clock = clock
        self._monotonic = monotonic
        self._metadata: _Metadata | None = None
        self._fetched_at_s = float("-inf")
        self._failed_at_s = float("-inf")
        self._problem = ""
        self._fetching: asyncio.Task[None] | None = None
        self._keys: tuple[str, KeySetSource] | None = None
        self._exchanges = 0

    async def close(self) -> None:
        """Give up what is being fetched; callers that wait are cancelled."""
        await give_up(self._fetching)
        if self._keys is not None:
            await self._keys[1].close()

    @property
    def host(self) -> str:
        """The issuer's host, by which people recognize it."""
        return urlsplit(self.client.issuer).netloc

    async def authorization_url(self, *, state: str, nonce: str, challenge: str) -> str:
        """Return where a browser has to go to log in. `challenge` is PKCE's, S256."""
        metadata = await self._current(fresh=True)
        return _with_query(
            metadata.authorization_endpoint,
            {
                "response_type": "code",
                "client_id": self.client.client_id,
                "redirect_uri": self.client.redirect_url,
                "scope": self.client.scope,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
            },
        )

    async def require_sender(self, issuer: str | None) -> None:
        """
        Check ``iss`` of the response to an authorization request (RFC 9207).

        Raises:
            CodeRefused: It is another issuer's, or missing although the issuer sends
                it.
        """
        metadata = await self._current()
        is_required = metadata.authorization_response_iss_parameter_supported
        if issuer != self.client.issuer and (issuer is not None or is_required):
            raise CodeRefused("the response is not from this issuer (iss)")

    async def claims_of(
        self, code: str, *, verifier: str, nonce: str
    ) -> tuple[dict[str, Any], str]:
        """
        Exchange a code for an ID token; return its claims and the token.

        Args:
            code: What the issuer sent by the browser.
            verifier: PKCE's, of which the challenge was sent.
            nonce: What the login was begun with.

        Raises:
            CodeRefused: The issuer refused the code.
            Unauthenticated: The ID token is invalid; see `verify_id_token`.
        """
        if self._exchanges >= EXCHANGES_MAX:
            raise IssuerUnavailable("too many logins at a time")
        self._exchanges += 1
        try:
            metadata = await self._current()
            text = await self._exchange(metadata, code, verifier)
            token = parse_id_token(text)
            keys = await self._key_source(metadata).keys_of(
                algorithm_of(token), token.key_id
            )
        finally:
            self._exchanges -= 1
        claims = verify_id_token(
            token,
            keys,
            issuer=self.client.issuer,
            client_id=self.client.client_id,
            nonce=nonce,
            now_s=int(self._clock()),
        )
        return claims, text

    async def logout_url(self, id_token: str, return_to: str) -> str:
        """
        Return where a browser has to go to log out at the issuer, "" for nowhere.

        It is nowhere if the issuer has no such place, or does not answer.
        """
        try:
            metadata = await self._current()
        except IssuerUnavailable:
            return ""
        if not metadata.end_session_endpoint:
            return ""
        query = {
            "client_id": self.client.client_id,
            "post_logout_redirect_uri": return_to,
        }
        if 0 < len(id_token) <= LOGOUT_HINT_BYTES_MAX:
            query["id_token_hint"] = id_token
        return _with_query(metadata.end_session_endpoint, query)

    async def _exchange(self, metadata: _Metadata, code: str, verifier: str) -> str:
        client = self.client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_url,
            "code_verifier": verifier,
        }
        basic = None
        if metadata.takes_basic:
            # RFC 6749, section 2.3.1: both are encoded as in a form before.
            basic = (quote_plus(client.client_id), quote_plus(client.client_secret))
        else:
            form["client_id"] = client.client_id
            form["client_secret"] = client.client_secret
        try:
            status, body = await exchange(
                metadata.token_endpoint,
                accept="application/json",
                bytes_max=ANSWER_BYTES_MAX,
                timeout_s=TIMEOUT_S,
                form=form,
                basic=basic,
            )
        except ExchangeFailed as exc:
            raise self._away("gave no token", str(exc)) from exc
        if status == 200:
            try:
                return _decode_token(body).id_token
            except _UNREADABLE as exc:
                raise self._away("gave no ID token", str(exc)) from exc
        try:
            error = _decode_error(body).error[:_ERROR_CHARS_MAX]
        except _UNREADABLE:
            error = ""
        if status == 401 or error == "invalid_client":
            _logger.error(
                "the issuer %s does not accept console_oidc_client_id and "
                "console_oidc_client_secret",
                client.issuer,
            )
            raise IssuerUnavailable(
                f"the issuer {client.issuer} does not accept the client of this "
                "console; tell who runs it"
            )
        if status == 400 and error:
            raise CodeRefused(error if error.isprintable() else "no readable error")
        raise self._away("gave no token", f"HTTP status {status}")

    def _key_source(self, metadata: _Metadata) -> KeySetSource:
        if self._keys is None or self._keys[0] != metadata.jwks_uri:
            source = KeySetSource(metadata.jwks_uri, fetch_key_set, self._monotonic)
            self._keys = metadata.jwks_uri, source
        return self._keys[1]

    async def _current(self, *, fresh: bool = False) -> _Metadata:
        """Return the metadata; with `fresh` none that are too old."""
        if self._is_stale():
            is_due = self._monotonic() - self._failed_at_s >= RETRY_S
            if self._fetching is None and is_due:
                fetch = self._fetch()
                self._fetching = asyncio.create_task(fetch, name="issuer metadata")
            # With something to use nobody waits for an issuer that may be down.
            if self._fetching is not None and (fresh or self._metadata is None):
                await asyncio.shield(self._fetching)
        if self._metadata is None or (fresh and self._is_stale()):
            raise IssuerUnavailable(self._problem)
        return self._metadata

    def _is_stale(self) -> bool:
        return self._monotonic() - self._fetched_at_s >= METADATA_TTL_S

    async def _fetch(self) -> None:
        try:
            self._metadata = await self._retrieved()
            self._fetched_at_s = self._monotonic()
        except IssuerUnavailable as error:
            self._failed_at_s = self._monotonic()
            self._problem = str(error)
        finally:
            self._fetching = None

    async def _retrieved(self) -> _Metadata:
        url = self.client.issuer.removesuffix("/") + _WELL_KNOWN
        try:
            status, body = await exchange(
                url,
                accept="application/json",
                bytes_max=ANSWER_BYTES_MAX,
                timeout_s=TIMEOUT_S,
            )
        except ExchangeFailed as exc:
            raise self._away("cannot be reached", str(exc)) from exc
        if status != 200:
            raise self._away("has no metadata", f"HTTP status {status}")
        try:
            metadata = _decode_metadata(body)
        except _UNREADABLE as exc:
            raise self._away("has no valid metadata", str(exc)) from exc
        if metadata.issuer != self.client.issuer:
            raise self._away(
                "has the metadata of another",
                f"it says {metadata.issuer[:_ERROR_CHARS_MAX]!r}; "
                "console_oidc_issuer has to be exactly that",
            )
        for place in (
            metadata.authorization_endpoint,
            metadata.token_endpoint,
            metadata.jwks_uri,
            metadata.end_session_endpoint,
        ):
            if place is not None and not _is_web_url(place):
                raise self._away("has no valid metadata", "a URL is not https")
        return metadata

    def _away(self, what: str, why: str) -> IssuerUnavailable:
        """Log what is wrong, with the reason, and return the error to raise."""
        _logger.warning("the issuer %s %s: %s", self.client.issuer, what, why)
        return IssuerUnavailable(f"the issuer {self.client.issuer} {what}")


def _is_web_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        host = url.hostname or ""
    except ValueError:
        return False
    is_safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(host))
    return bool(host) and is_safe and text.isascii() and text.isprintable()


def _with_query(url: str, fields: Mapping[str, str]) -> str:
    """Return a URL with more fields in its query, without a fragment."""
    url = url.partition("#")[0]
    return f"{url}{'&' if '?' in url else '?'}{urlencode(fields)}"
