"""Deployments that are compared: which of their processes is which."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.peers import PEERS, Peer, topology
from bench.peers.streamer import Streamer
from bench.peers.topology import IN_FLIGHT, PER_WORKER, Topology
from streamer.bench.target import Requirements
from streamer.bench.usage import Family

ROOT, STORE = 500, 501


def made(name: str) -> Topology:
    one = PEERS[name]()
    assert isinstance(one, Topology)
    return one


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Family:
    """The processes of a node; it starts as one that has these."""
    found = Family([ROOT], [STORE])

    def start(peer: Peer, requirements: Requirements, folder: Path) -> None:
        peer.roots, peer.address = [ROOT], ("127.0.0.1", 8080)

    monkeypatch.setattr(Streamer, "start", start)
    monkeypatch.setattr(topology, "family", lambda roots: found)
    return found


def test_one_worker_has_no_supervisor(family: Family) -> None:
    node = made("workers-1")

    node.start(Requirements(), Path())

    assert node.processes == {"worker 1": ROOT, "store 1": STORE}


def test_the_parent_of_workers_is_their_supervisor(family: Family) -> None:
    node = made("workers-2")
    family.server.extend([503, 502])

    node.start(Requirements(), Path())

    assert node.processes == {
        "supervisor 1": ROOT,
        "worker 1": 502,
        "worker 2": 503,
        "store 1": STORE,
    }


def test_a_missing_worker_fails_the_measurement(family: Family) -> None:
    family.server.append(502)

    with pytest.raises(RuntimeError, match="2 workers: 1 processes are its workers"):
        made("workers-2").start(Requirements(), Path())


def test_publishers_of_workers_are_many_connections_in_turn() -> None:
    node = made("workers-4")
    node.addresses = [node.address]

    addresses, each = node.publishers(2)

    assert addresses == [node.address] * (2 * PER_WORKER)
    assert each == 1


def test_publishers_of_nodes_choose_their_connections() -> None:
    nodes = made("nodes-2")
    nodes.addresses = [("127.0.0.1", 1), ("127.0.0.1", 2)]

    assert nodes.publishers(2) == (nodes.addresses, IN_FLIGHT)
