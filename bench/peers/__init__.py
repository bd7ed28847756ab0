"""
The servers that are compared: streamer, and what people use instead.

A peer is the plainest set-up of its kind that the scenario can measure, at its default
settings but for limits, logs and one worker process. Its `does` says what it does and
does not do (store, verify tokens, resume), and stands beside its figures.
"""

from __future__ import annotations

from .base import NotInstalled, Peer
from .centrifugo import Centrifugo
from .floor import Floor
from .nginx_nchan import Nchan
from .node_ws import NodeWs
from .plain import Plain
from .streamer import Streamer
from .topology import TOPOLOGIES

__all__ = ["PEERS", "NotInstalled", "Peer", "Streamer"]

_ONES: list[type[Peer]] = [Streamer, Nchan, NodeWs, Plain, Centrifugo, Floor]

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (*_ONES, *TOPOLOGIES)}
