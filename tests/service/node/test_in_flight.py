"""The limits of requests in flight per node, app and player."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from streamer.config import Config
from streamer.errors import Limit, LimitReached
from streamer.model import App, Log, Player
from streamer.service.node.in_flight import InFlight

ONE = Log(App("a"), Player("p"))
OTHER = Log(App("a"), Player("q"))


def test_slots_are_released_however_the_block_ends() -> None:
    requests = InFlight(Config(requests_in_flight_max=1, requests_per_player_max=1))

    with pytest.raises(KeyError), requests.track(ONE):
        raise KeyError

    with requests.track(ONE), pytest.raises(LimitReached), requests.track(OTHER):
        pass
    with requests.track(OTHER):
        pass


def test_a_player_has_a_limit_of_its_own() -> None:
    requests = InFlight(Config(requests_in_flight_max=10, requests_per_player_max=1))

    with requests.track(ONE):
        with pytest.raises(LimitReached) as refused, requests.track(ONE):
            pass
        with requests.track(OTHER):
            pass

    assert refused.value.limit is Limit.REQUESTS_PER_PLAYER


def test_the_same_name_in_another_app_is_another_player() -> None:
    requests = InFlight(Config(requests_in_flight_max=10, requests_per_player_max=1))

    with requests.track(ONE), requests.track(Log(App("b"), ONE.player)):
        pass


def test_the_node_has_a_limit_for_all_players() -> None:
    requests = InFlight(Config(requests_in_flight_max=2, requests_per_player_max=2))

    with requests.track(ONE), requests.track(OTHER):
        with pytest.raises(LimitReached) as refused, requests.track(ONE):
            pass

    assert refused.value.limit is Limit.REQUESTS_PER_NODE


def test_a_refusal_takes_nothing() -> None:
    requests = InFlight(Config(requests_in_flight_max=2, requests_per_player_max=1))
    with requests.track(ONE):
        for _ in range(5):
            with pytest.raises(LimitReached), requests.track(ONE):
                pass

    with ExitStack() as stack:
        stack.enter_context(requests.track(ONE))
        stack.enter_context(requests.track(OTHER))


def test_an_app_cannot_use_the_whole_node() -> None:
    config = Config(requests_in_flight_max=4, requests_per_app_percent=75)
    requests = InFlight(config)
    with ExitStack() as stack:
        for name in "pqr":
            stack.enter_context(requests.track(Log(App("a"), Player(name))))

        with pytest.raises(LimitReached) as refused, requests.track_app(App("a")):
            pass
        with requests.track_app(App("b")):
            pass

    assert refused.value.limit is Limit.REQUESTS_PER_APP


def test_one_app_may_be_allowed_to_use_the_whole_node() -> None:
    config = Config(requests_in_flight_max=2, requests_per_app_percent=100)
    requests = InFlight(config)

    with requests.track_app(App("a")), requests.track_app(App("a")):
        with pytest.raises(LimitReached) as refused, requests.track_app(App("a")):
            pass

    assert refused.value.limit is Limit.REQUESTS_PER_NODE
