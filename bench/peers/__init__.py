"""
The servers that are asked: this one, and what people use instead.

A peer is the plainest set-up of its kind that can answer the question, at its default
settings but for limits, logs and one worker process. What it does not do (store, check
tokens, resume) is said in its `does`, and stands beside its figures.
"""

from __future__ import annotations

from .base import Absent, Peer, Setup, Transport
from .centrifugo import Centrifugo
from .floor import Floor
from .nginx_nchan import Nchan
from .node_ws import NodeWs
from .plain import Plain
from .streamer import Remote, Streamer

__all__ = ["PEERS", "Absent", "Peer", "Remote", "Setup", "Streamer", "Transport"]

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (Streamer, Nchan, NodeWs, Plain, Centrifugo, Floor)
}
