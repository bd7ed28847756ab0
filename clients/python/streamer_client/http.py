"""
HTTP requests with a credential, repeated until there is a usable response.

Decides which responses are worth another attempt, and when to make it. Knows nothing of
paths and bodies. All its requests are safe to repeat, except those that say so.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

import httpx2
import msgspec

from .backoff import (
    ATTEMPTS_MAX,
    ATTEMPTS_S,
    Clock,
    full_jitter_s,
    parse_retry_after,
)
from .credential import Credential
from .errors import BadResponse, Rejected, Unavailable, public_url
from .problem import read_problem

__all__ = ["Http", "Params", "decode", "quote"]

REQUEST_S: Final = 15.0
"""Of one attempt: for connecting, for writing, and for each read."""
CONNECTIONS_MAX: Final = 100

# A proxy sends 502 and 504 while the server restarts.
_RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
_PERMANENT_LIMITS: Final = frozenset({"topics_per_player", "mutes_per_player"})
"""Limits that stay reached, however long the client waits."""
_RETRIED_ERRORS: Final = (
    httpx2.TimeoutException,
    httpx2.NetworkError,
    httpx2.RemoteProtocolError,
    httpx2.ProxyError,
)

Params: TypeAlias = Mapping[str, str | int | tuple[str, ...] | None]
"""A query. None is left out; a tuple repeats the parameter."""

_T = TypeVar("_T")


class Http:
    """
    Requests to one server with one credential.

    Args:
        base_url: Prefix of all paths; ends with a slash.
        credential: The token, and how to get another one.
        transport: Carries the requests instead of the network.
        clock: Time and randomness.
    """

    def __init__(
        self,
        base_url: str,
        credential: Credential,
        *,
        transport: httpx2.AsyncBaseTransport | None,
        clock: Clock,
    ) -> None:
        self._credential = credential
        self._clock = clock
        self._client = httpx2.AsyncClient(
            base_url=base_url,
            timeout=REQUEST_S,
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX),
            transport=transport,
            headers={"User-Agent": "streamer-client"},
        )

    async def aclose(self) -> None:
        """Close all connections; may be called twice."""
        await self._client.aclose()

    async def open(
        self, path: str, token: str, headers: Mapping[str, str]
    ) -> httpx2.Response:
        """
        Return the response to one GET as soon as its head is there, whatever it is.

        Reading its body has no timeout. The caller closes it.

        Raises:
            httpx2.HTTPError: There is no response.
        """
        request = self._client.build_request(
            "GET",
            path,
            headers={**headers, "Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(REQUEST_S, read=None),
        )
        return await self._client.send(request, stream=True)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        content: msgspec.Struct | Sequence[msgspec.Struct] | None = None,
        idempotency_key: str | None = None,
        etag: str | None = None,
        repeatable: bool = True,
    ) -> httpx2.Response:
        """
        Return the successful response to a request, in up to `ATTEMPTS_MAX` attempts.

        With an `etag` a 304 is successful, too. A request that is not `repeatable` has
        one attempt.

        Raises:
            Rejected: The server refuses the request.
            Unavailable: The attempts or the time are used up.
            BadResponse: The response cannot be read.
        """
        headers = {}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        if etag is not None:
            headers["If-None-Match"] = etag
        request = self._client.build_request(
            method,
            path,
            params=None if params is None else _encode_params(params),
            content=None if content is None else msgspec.json.encode(content),
            headers=headers,
        )
        response = await self._send_until_answered(
            request, idempotency_key, attempts_max=ATTEMPTS_MAX if repeatable else 1
        )
        if response.is_success or (etag is not None and response.status_code == 304):
            return response
        raise _rejection(response)

    async def _send_until_answered(
        self,
        request: httpx2.Request,
        idempotency_key: str | None,
        *,
        attempts_max: int,
    ) -> httpx2.Response:
        """
        Send `request` until another attempt would not change the response.

        Raises:
            Unavailable: The attempts or the time are used up.
            BadResponse: The compression of a response is invalid.
        """
        last_start_s = self._clock.now_s() + ATTEMPTS_S
        attempt_count = 0
        while True:
            status, retry_after, detail = None, None, ""
            try:
                response = await self._send(request)
            except _RETRIED_ERRORS as error:
                problem = str(error) or type(error).__name__
            except httpx2.DecodingError as error:
                raise _bad_response(request, error) from error
            else:
                status = response.status_code
                retry_after = response.headers.get("Retry-After")
                rejection = _rejection(response)
                # A 409 with Retry-After is a limit of the player that passes.
                temporary = status == 409 and retry_after
                if rejection.limit in _PERMANENT_LIMITS or not (
                    temporary or status in _RETRIED_STATUSES
                ):
                    return response
                problem, detail = rejection.problem, rejection.detail
            delay_s = full_jitter_s(attempt_count, self._clock.random())
            delay_s += parse_retry_after(retry_after, self._clock.unix_s()) or 0.0
            attempt_count += 1
            too_late = self._clock.now_s() + delay_s > last_start_s
            if too_late or attempt_count == attempts_max:
                raise Unavailable(
                    problem,
                    attempt_count=attempt_count,
                    status=status,
                    detail=detail,
                    idempotency_key=idempotency_key,
                    url=public_url(str(request.url)),
                )
            await self._clock.sleep(delay_s)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request`, and once more with a new token if the first is refused."""
        token = await self._credential.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = await self._client.send(request)
        if response.status_code != 401 or not self._credential.can_renew:
            return response
        token = await self._credential.renew(token)
        request.headers["Authorization"] = f"Bearer {token}"
        return await self._client.send(request)


def quote(text: str, *, slashes: bool = False) -> str:
    """Return `text` as one segment of a path; with `slashes`, as several."""
    return urllib.parse.quote(text, safe="/" if slashes else "")


def decode(response: httpx2.Response, type: type[_T]) -> _T:
    """
    Return the body of a successful response as `type`.

    Raises:
        BadResponse: The body has another form.
    """
    try:
        return msgspec.json.decode(response.content, type=type)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad_response(response.request, error) from error


def _bad_response(request: httpx2.Request, error: Exception) -> BadResponse:
    url = public_url(str(request.url))
    return BadResponse(f"unreadable response: {error}", url=url)


def _encode_params(params: Params) -> dict[str, str | list[str]]:
    return {
        name: list(value) if isinstance(value, tuple) else str(value)
        for name, value in params.items()
        if value is not None and value != ()
    }


def _rejection(response: httpx2.Response) -> Rejected:
    problem = read_problem(response.content)
    return Rejected(
        response.status_code,
        problem.title or response.reason_phrase,
        type=problem.kind,
        detail=problem.detail,
        errors=problem.fields,
        limit=problem.limit,
        url=public_url(str(response.request.url)),
    )
