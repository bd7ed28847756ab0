"""
Where the store is: the address that a connection asks for, each time it connects.

Knows URLs. Decides how an address is shown to operators. Knows nothing of sockets.

A connection keeps no address. It asks for one at every connect, so whatever finds the
store again after it has moved is an implementation of `StoreAddress`: a fixed URL whose
host name is resolved anew, or a service that names the present primary.
"""

from __future__ import annotations

from typing import Protocol
from urllib.parse import unquote, urlsplit

__all__ = ["FixedAddress", "StoreAddress", "address_of", "describe"]

DEFAULT_PORT = 6379


class StoreAddress(Protocol):
    """The address of one store, which may change."""

    @property
    def where(self) -> str:
        """The address for messages, without credentials."""

    async def locate(self) -> str:
        """
        Return the URL of the server that takes writes now, as redis-py reads it.

        Called for every connect. A host name in the URL is resolved by the connect.

        Raises:
            StoreUnavailable: The server cannot be found now.

        """


class FixedAddress:
    """
    A URL that does not change. The host name in it may lead to another server.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix:///path``, as redis-py reads it.

    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._where = describe(url)

    @property
    def where(self) -> str:
        return self._where

    async def locate(self) -> str:
        return self._url


def address_of(store: str | StoreAddress) -> StoreAddress:
    """Return the address of a store that is given by its URL, or by its address."""
    return FixedAddress(store) if isinstance(store, str) else store


def describe(url: str) -> str:
    """Return ``host:port``, or the path of a socket, from the URL of a store."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return unquote(parts.path)
    host = parts.hostname or "localhost"
    if ":" in host:
        host = f"[{host}]"
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = DEFAULT_PORT
    return f"{host}:{port}"
