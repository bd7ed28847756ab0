"""
Where the store is: the address that a connection asks for, each time it connects.

Knows URLs. Decides how an address is shown to operators. Knows nothing of sockets.

A connection keeps no address. It asks for one at every connect, so whatever finds the
store again after it has moved is an implementation of `StoreAddress`: a fixed URL whose
host name is resolved at every connect, or a service that names the current primary.
"""

from __future__ import annotations

from typing import Protocol

from ...store_url import StoreUrl, parse_store_url

__all__ = ["FixedAddress", "StoreAddress", "address_of"]


class StoreAddress(Protocol):
    """The address of one store, which may change."""

    @property
    def where(self) -> str:
        """The address for messages, without credentials."""

    @property
    def database(self) -> int:
        """The number of the database, the same wherever the store is."""

    async def locate(self) -> StoreUrl:
        """
        Return the URL of the server that takes writes now.

        Called for every connect. A host name in the URL is resolved by the connect.

        Raises:
            StoreUnavailable: The server cannot be found now.

        """


class FixedAddress:
    """
    A URL that does not change. The host name in it may lead to another server.

    Args:
        url: Its parts, or a URL of one server that `store_url.parse_store_url` accepts.

    Raises:
        ValueError: The URL is not accepted.

    """

    def __init__(self, url: str | StoreUrl) -> None:
        parsed = parse_store_url(url) if isinstance(url, str) else url
        if not isinstance(parsed, StoreUrl):
            raise ValueError("names Sentinels or a cluster, and not a server")
        self._url = parsed

    @property
    def where(self) -> str:
        return self._url.place

    @property
    def database(self) -> int:
        return self._url.database

    async def locate(self) -> StoreUrl:
        return self._url


def address_of(store: str | StoreAddress) -> StoreAddress:
    """Return the address of a store that is given by its URL, or by its address."""
    return FixedAddress(store) if isinstance(store, str) else store
