"""
Commands that work against a running server: the URL, the key, requests, errors.

Knows the native API's errors, and what a terminal may be sent. Uses no settings of this
machine.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["RemoteServer", "key_option", "path_of", "printable", "url_option"]

DEFAULT_URL: Final = "http://127.0.0.1:8080"

TIMEOUT_S: Final = 15.0

F = TypeVar("F", bound=Callable[..., Any])

url_option = click.option(
    "--url",
    envvar="STREAMER_CLI_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="URL of the server.",
)


def key_option(scope: str) -> Callable[[F], F]:
    """Return the option for a backend key with a scope, as a decorator."""
    return click.option(
        "--key",
        envvar="STREAMER_CLI_KEY",
        show_envvar=True,
        required=True,
        help=f"Backend key with the scope {scope}.",
    )


def printable(text: str) -> str:
    """Return `text` with all characters escaped that could control a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def path_of(*segments: str) -> str:
    """Return the path of segments that may have any characters."""
    return "/".join(urllib.parse.quote(segment, safe="") for segment in segments)


class RemoteServer:
    """
    A server, with a backend key.

    Args:
        url: The URL that its paths begin with.
        key: The key.

    """

    def __init__(self, url: str, key: str) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise click.BadParameter(
                f"{url!r} is not an http(s) URL", param_hint="--url"
            )
        self._url = url.rstrip("/")
        self._key = key.strip()
        # A redirect would take the key to another server.
        self._open = urllib.request.build_opener(_NoRedirect).open

    def get(self, path: str, **query: object) -> Any:
        """Return the decoded response to a GET. An error ends the command."""
        given = {name: value for name, value in query.items() if value is not None}
        encoded = f"?{urllib.parse.urlencode(given)}" if given else ""
        return self._request("GET", path + encoded, None)

    def post(self, path: str, body: object) -> Any:
        """Return the decoded response to a POST. An error ends the command."""
        return self._request("POST", path, json.dumps(body).encode())

    def _request(self, method: str, path: str, body: bytes | None) -> Any:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "User-Agent": "streamer-cli",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            request = urllib.request.Request(
                f"{self._url}/v1/{path}", body, headers, method=method
            )
            with self._open(request, timeout=TIMEOUT_S) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                why = _problem(error.code, error.read())
            raise click.ClickException(printable(why)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            why = getattr(reason, "strerror", None) or str(reason)
            raise click.ClickException(
                printable(f"no answer from {self._url}: {why or type(error).__name__}")
            ) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _problem(status: int, body: bytes) -> str:
    """Return the text of a problem document, or of what came instead."""
    try:
        problem = json.loads(body)
        return f"{status} {problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{status} {http.client.responses.get(status, '')}".strip()
