"""
Requests that this server sends to issuers over HTTP.

Decides what holds for all of them: time and size are limited, redirects are not
followed, because they would let a response choose the location, and what is slow to
load is loaded in a thread. Knows nothing of what is asked for.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ...core.access.apps import is_loopback

__all__ = ["ExchangeFailed", "exchange", "give_up"]

_MODULE: Final = "httpx2"


class ExchangeFailed(Exception):
    """There was no complete response; the message says why, without the URL."""


async def exchange(
    url: str,
    *,
    accept: str,
    bytes_max: int,
    timeout_s: float,
    form: Mapping[str, str] | None = None,
    basic: tuple[str, str] | None = None,
) -> tuple[int, bytes]:
    """
    Send a request and return the status and the body of its response.

    Args:
        url: Where to.
        accept: The media types to ask for.
        bytes_max: Size of the body; a larger one is an error.
        timeout_s: Time for all of it.
        form: Fields to send with POST; None sends GET.
        basic: Name and password of Basic authentication.

    Raises:
        ExchangeFailed: No complete response came in time, or it was too large.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(url, accept, bytes_max, timeout_s, form, basic)
    except TimeoutError:
        raise ExchangeFailed(f"no response within {timeout_s:g} s") from None


async def _exchange(
    url: str,
    accept: str,
    bytes_max: int,
    timeout_s: float,
    form: Mapping[str, str] | None,
    basic: tuple[str, str] | None,
) -> tuple[int, bytes]:
    httpx2, client = await asyncio.to_thread(_client, url, timeout_s)
    try:
        async with (
            client,
            client.stream(
                *("GET" if form is None else "POST", url),
                headers={"Accept": accept, "Accept-Encoding": "identity"},
                data=form,
                auth=basic,
            ) as response,
        ):
            body = bytearray()
            # Raw: compressed content is not decompressed.
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > bytes_max:
                    raise ExchangeFailed(f"larger than {bytes_max} bytes")
            return response.status_code, bytes(body)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as exc:
        raise ExchangeFailed(f"{type(exc).__name__} {exc}".strip()) from exc


async def give_up(fetching: asyncio.Task[None] | None) -> None:
    """
    Cancel a task that is in `exchange`, if there is one, and wait for its end.

    Left to the end of the event loop, the library's own tasks would be cancelled before
    their first step, and Python would warn of coroutines that were never awaited.
    """
    if fetching is not None:
        fetching.cancel()
        await asyncio.wait([fetching])


def _client(url: str, timeout_s: float) -> tuple[Any, Any]:
    """
    Return the module and a new client. Called in a thread: both read many files.
    """
    # Imported here, because most servers need none and it is slow to load.
    module = importlib.import_module(_MODULE)
    target = urlsplit(url)
    return module, module.AsyncClient(
        timeout=timeout_s,
        # A proxy from the environment is not used for loopback addresses.
        trust_env=not is_loopback(target.hostname or ""),
        # Without TLS no certificates are loaded, which takes longer than the rest.
        verify=target.scheme != "http",
    )
