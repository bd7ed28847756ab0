"""The world of the tests of inboxes."""

from __future__ import annotations

import pytest

from streamer.store.client.connection import RedisConnection

from .world import World


@pytest.fixture
def world(redis: RedisConnection) -> World:
    return World(redis)
