"""
Conformance tests for clients of the streamer protocol, in any language.

    python -m streamer_conformance run --driver "node driver.js"

`server` is a server that says and does what it is told, on the level of bytes.
`scenarios` says what a client has to do, as data. `runner` plays a scenario with a
`driver`, a program around the client that ``README.md`` describes. `report` prints what
came of it. Needs Python 3.11 and `websockets`; imports neither the server nor a client
of this repository.
"""

from __future__ import annotations

__all__ = ["PROTOCOL"]

PROTOCOL = 1
"""The version of the messages between runner and driver."""
