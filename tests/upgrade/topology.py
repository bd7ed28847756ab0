"""
A deployment whose nodes change their version while it is used.

All nodes begin with the older version. `upgrade` and `downgrade` are faults of a plan
like any other: a node ends as in a rolling deployment, and starts again with the other
version.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

from ..e2e.processes import eventually
from ..torture.history import History
from ..torture.plan import Fault, Plan
from ..torture.run import Scale
from ..torture.topology import Node, OneStore

SCALE = Scale(players=5, backends=3, per_s=8.0, nodes=2)
ROUND_S = 10.0


class Upgraded(OneStore):
    """
    One store, and nodes of two versions.

    Args:
        executable: The `streamer` command of the older version.

    Others as for `Topology`.

    """

    def __init__(
        self, folder: Path, history: History, *, executable: str = "", **settings: Any
    ) -> None:
        super().__init__(folder, history, executable=executable, **settings)
        self._older = executable
        self._changing = asyncio.Lock()
        """One node after the other."""
        self.versions: list[tuple[str, ...]] = []
        """What each node ran after each change: ``this`` version, or the ``older``."""

    async def upgrade(self, node: Node, fault: Fault) -> None:
        await self._change(node, "")

    async def downgrade(self, node: Node, fault: Fault) -> None:
        await self._change(node, self._older)

    async def _change(self, node: Node, executable: str) -> None:
        async with self._changing:
            node.executable = executable
            await self._replace(node, signal.SIGTERM, after_s=0)
            await node.ready()
            await eventually(lambda: not any(it.ended for it in self.nodes))
            self.versions.append(tuple(map(self._version_of, self.nodes)))

    def _version_of(self, node: Node) -> str:
        words = Path(f"/proc/{node.pid}/cmdline").read_bytes().split(b"\0")
        return "older" if self._older.encode() in words else "this"


def rolling(seed: int, *, position_check_s: int = 2) -> Plan:
    """
    Return the plan of an upgrade of two nodes: one by one, one back, and on again.

    Each round begins with a change, so that most of its requests meet both versions,
    and ends with checks of all pages and streams.
    """
    rounds = (
        (("upgrade", 0), ("client_cut", 1), ("kill", 0), ("script_flush", 0)),
        (("downgrade", 0), ("upgrade", 1), ("client_cut", 0), ("kill_worker", 1)),
        (("upgrade", 0), ("client_cut", 0), ("client_cut", 1), ("store_restart", 0)),
    )
    return Plan(
        seed,
        ROUND_S,
        tuple(
            tuple(
                Fault(1.5 + 2 * number, kind, node, 0.5, number)
                for number, (kind, node) in enumerate(faults)
            )
            for faults in rounds
        ),
        position_check_s,
    )
