"""
HTTP requests with a credential, repeated until there is an answer.

Knows which answers are worth another attempt and when to make it. Knows nothing of
paths and bodies; what it is given may be repeated without harm.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, TypeVar

import httpx2
import msgspec

from .backoff import Clock, full_jitter_s, parse_retry_after
from .credential import Credential
from .errors import BadAnswer, Rejected, Unavailable
from .problem import read_problem

__all__ = ["Http", "decode"]

ATTEMPTS_MAX: Final = 6
RETRY_S: Final = 60.0
"""No attempt begins later than this after the first."""
REQUEST_S: Final = 15.0
"""For one attempt: connect, write, and each wait for more of the answer."""
CONNECTIONS_MAX: Final = 100

# 502 and 504 are a proxy's words for a server that is restarting.
_RETRIED_STATUSES: Final = frozenset({429, 502, 503, 504})
_RETRIED_ERRORS: Final = (
    httpx2.TimeoutException,
    httpx2.NetworkError,
    httpx2.RemoteProtocolError,
    httpx2.ProxyError,
)

_T = TypeVar("_T")


class Http:
    """
    Requests to one server with one credential.

    Args:
        base_url: What paths are added to; ends with a slash.
        credential: The token, and how to get another.
        transport: Carries the requests instead of the network.
        clock: Time and chance.
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
        """Close all connections; legal twice."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: msgspec.Struct | None = None,
        idempotency_key: str | None = None,
    ) -> httpx2.Response:
        """Return the good answer to a request, however many attempts it takes."""
        headers = {}
        if content is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        request = self._client.build_request(
            method,
            path,
            params=params,
            content=None if content is None else msgspec.json.encode(content),
            headers=headers,
        )
        response = await self._send_until_answered(request, idempotency_key)
        if response.is_success:
            return response
        raise _rejection(response)

    async def _send_until_answered(
        self, request: httpx2.Request, idempotency_key: str | None
    ) -> httpx2.Response:
        """
        Send `request` until there is an answer that another attempt would not change.

        Raises:
            Unavailable: The attempts or the time are used up.
            BadAnswer: An answer is compressed in a way of its own.
        """
        last_start_s = self._clock.now_s() + RETRY_S
        attempt_count = 0
        while True:
            status, retry_after = None, None
            try:
                response = await self._send(request)
            except _RETRIED_ERRORS as error:
                problem = str(error) or type(error).__name__
            except httpx2.DecodingError as error:
                raise BadAnswer(f"unreadable answer: {error}") from error
            else:
                status = response.status_code
                retry_after = response.headers.get("Retry-After")
                # 409 is a limit of the player's if it says when to come again.
                if status not in _RETRIED_STATUSES and not (
                    status == 409 and retry_after
                ):
                    return response
                problem = str(_rejection(response))
            delay_s = full_jitter_s(attempt_count, self._clock.random())
            delay_s += parse_retry_after(retry_after, time.time()) or 0.0
            attempt_count += 1
            late = self._clock.now_s() + delay_s > last_start_s
            if late or attempt_count == ATTEMPTS_MAX:
                raise Unavailable(
                    problem,
                    attempt_count=attempt_count,
                    status=status,
                    idempotency_key=idempotency_key,
                )
            await self._clock.sleep(delay_s)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` once, or twice if its token is refused and can be renewed."""
        token = await self._credential.token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = await self._client.send(request)
        if response.status_code != 401 or not self._credential.can_renew:
            return response
        token = await self._credential.renew(token)
        request.headers["Authorization"] = f"Bearer {token}"
        return await self._client.send(request)


def decode(response: httpx2.Response, type: type[_T]) -> _T:
    """
    Return the body of a good answer.

    Raises:
        BadAnswer: It is of another form.
    """
    try:
        return msgspec.json.decode(response.content, type=type)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadAnswer(f"unreadable answer: {error}") from error


def _rejection(response: httpx2.Response) -> Rejected:
    problem = read_problem(response.content)
    return Rejected(
        response.status_code,
        problem.title or response.reason_phrase,
        type=problem.kind,
        detail=problem.detail,
        errors=problem.fields,
    )
