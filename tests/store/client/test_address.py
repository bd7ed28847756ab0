"""Where the store is, and how that is shown."""

from __future__ import annotations

import pytest

from streamer.store.client.address import FixedAddress, address_of
from streamer.store_url import parse_store_url


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("redis://db", "db:6379"),
        ("redis://db:7000/3?client_name=a", "db:7000"),
        ("rediss://user:secret@db.example:7000", "db.example:7000"),
        ("redis://:secret@[::1]:7000", "[::1]:7000"),
        ("unix:///run/valkey%20a.sock?db=1", "/run/valkey a.sock"),
        ("unix://user:secret@/run/valkey.sock", "/run/valkey.sock"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, where: str) -> None:
    assert FixedAddress(url).where == where


async def test_a_store_is_given_by_its_url_or_by_its_address() -> None:
    address = FixedAddress("redis://db")

    assert address_of(address) is address
    assert await address_of("redis://db/3").locate() == parse_store_url("redis://db/3")
    assert address_of("redis://db/3").database == 3
