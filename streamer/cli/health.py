"""
`streamer health`: asks a running server whether it is ready.

For the health check of a container, a service manager or a script. Knows the settings,
from which it takes the address, and the responses of ``/readyz`` and ``/healthz``.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from .settings import config_option, resolve

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["health"]

TIMEOUT_S: Final = 5.0

_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


@click.command()
@click.option(
    "--url",
    metavar="URL",
    help="Address of the server. Default: where `serve` listens with these settings.",
)
@click.option(
    "--live", is_flag=True, help="Ask only whether the process answers (/healthz)."
)
@config_option
def health(url: str | None, live: bool, file: str | None) -> None:
    """
    Ask a running server whether it is ready.

    Prints its answer. The exit code is 0 if it is ready, and 1 if it is not, or if
    nothing answers within 5 seconds.
    """
    address: tuple[str, int] | str
    path = "/healthz" if live else "/readyz"
    if url:
        address, path = _parse(url, path)
    else:
        config = resolve(file).config
        address, path = _address(config), config.base_path + path
    try:
        status, body = _get(address, path)
    except (OSError, http.client.HTTPException) as exc:
        name = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise click.ClickException(
            f"no server answers at {name}: {why or type(exc).__name__}"
        ) from exc
    if status == 200:
        click.echo(body.decode(errors="replace").strip() or "ok")
        return
    raise click.ClickException(_reason(status, body))


def _parse(url: str, path: str) -> tuple[tuple[str, int], str]:
    """Return the host and port of a URL, and the path to ask for."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as exc:
        raise click.BadParameter(f"{url!r}: {exc}", param_hint="--url") from exc
    if parts.scheme != "http" or not parts.hostname:
        raise click.BadParameter(
            f"{url!r}; expected the address of the server itself, which speaks plain "
            "HTTP: http://127.0.0.1:8080",
            param_hint="--url",
        )
    return (parts.hostname, port), parts.path.rstrip("/") + path


def _address(config: Config) -> tuple[str, int] | str:
    """Return the first address that the server listens on; a text is a Unix socket."""
    first = config.host.split(",")[0].strip()
    if first.startswith("unix:"):
        return first.removeprefix("unix:")
    return _ANY.get(first, first), config.port


def _get(address: tuple[str, int] | str, path: str) -> tuple[int, bytes]:
    """Return the status and body of a GET. Raises OSError and HTTPException."""
    if isinstance(address, str):
        connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(address)
    else:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"User-Agent": "streamer-health"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _reason(status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
        return f"{answer['status']}: {answer['reason']}"
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}"
