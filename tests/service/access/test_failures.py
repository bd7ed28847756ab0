"""Failed authentications: counted per address, logged seldom, in bounded memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from streamer.errors import Defect, Unauthenticated
from streamer.service.access.failures import (
    ADDRESSES_MAX,
    LINES_MAX,
    FailedAuthentications,
)

EXPIRED = Unauthenticated(Defect.EXPIRED)


class World:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.now_s = 1_000.0
        self.failures = FailedAuthentications(clock_s=lambda: self.now_s)
        self._caplog = caplog

    def fail(self, client: str, times: int = 1) -> None:
        for _ in range(times):
            self.failures.note(client, EXPIRED)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [vars(record)["fields"] for record in self._caplog.records]


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.WARNING)
    return World(caplog)


def test_an_address_is_logged_at_each_tenfold(world: World) -> None:
    world.fail("192.0.2.1", 9)
    assert world.lines == []
    world.fail("192.0.2.1", 5_000)

    assert [it["failures"] for it in world.lines] == [10, 100, 1_000]
    assert {it["client"] for it in world.lines} == {"192.0.2.1"}
    assert {it["reason"] for it in world.lines} == {"expired"}
    assert world.failures.reasons == {Defect.EXPIRED: 5_009}


def test_addresses_are_counted_apart_and_for_a_minute(world: World) -> None:
    world.fail("192.0.2.1", 9)
    world.fail("192.0.2.2", 9)
    assert (world.failures.addresses, world.lines) == (2, [])

    world.now_s += 60
    world.fail("192.0.2.1", 9)

    assert (world.failures.addresses, world.lines) == (1, [])
    world.fail("192.0.2.1")
    assert [it["failures"] for it in world.lines] == [10]


@pytest.mark.parametrize(
    ("clients", "counted"),
    [
        (["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"], 1),
        (["2001:db8:0:1::1", "2001:db8:0:2::1"], 2),
        (["::ffff:192.0.2.1", "192.0.2.1"], 1),
        (["fe80::1%eth0", "fe80::2"], 1),
        (["", ""], 1),
        (["testclient", "other"], 2),
    ],
)
def test_a_network_of_ipv6_is_one_address(
    world: World, clients: list[str], counted: int
) -> None:
    for client in clients:
        world.fail(client)

    assert world.failures.addresses == counted


def test_a_request_without_a_credential_is_no_attempt(world: World) -> None:
    for _ in range(100):
        world.failures.note("192.0.2.1", Unauthenticated(Defect.MISSING))

    assert (world.failures.addresses, world.lines) == (0, [])
    assert world.failures.reasons == {Defect.MISSING: 100}


def test_a_flood_from_many_addresses_stays_within_memory_and_lines(
    world: World,
) -> None:
    for number in range(ADDRESSES_MAX + 500):
        world.fail(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert world.failures.addresses == ADDRESSES_MAX
    for number in range(50):
        world.fail(f"192.0.2.{number}", 10)
    assert len(world.lines) == LINES_MAX
    assert world.failures.addresses == ADDRESSES_MAX

    world.now_s += 60
    world.fail("198.51.100.1", 10)

    assert len(world.lines) == LINES_MAX + 1
    assert world.lines[-1]["lines_left_out"] == 50 - LINES_MAX
    assert world.failures.addresses == 1
