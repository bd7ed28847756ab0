"""
Torture a deployment by hand: ``python -m tests.torture --seeds 1-5``.

``--streamer PATH`` runs the `streamer` command of another checkout. Prints the findings
of each seed, and the history of one that has a trouble.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from .plan import QUICK
from .run import Scale, torture
from .topology import TOPOLOGIES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--seeds", default="1", help="such as 7 or 1-20")
    parser.add_argument("--topology", choices=TOPOLOGIES, default="one")
    parser.add_argument("--streamer", default="", metavar="PATH")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--round-s", type=float, default=6.0)
    parser.add_argument("--every-s", type=float, default=1.0)
    parser.add_argument("--kinds", default="", help="a list with commas, or quick")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--brief", action="store_true")
    given = parser.parse_args()
    first, _, last = given.seeds.partition("-")
    kinds = tuple(filter(None, given.kinds.split(",")))
    if given.kinds == "quick":
        kinds = QUICK
    folder = given.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    failed = 0
    for seed in range(int(first), int(last or first) + 1):
        outcome = asyncio.run(
            torture(
                folder / str(seed),
                seed,
                TOPOLOGIES[given.topology],
                kinds=kinds,
                scale=Scale(rounds=given.rounds, round_s=given.round_s),
                executable=given.streamer,
                every_s=given.every_s,
            )
        )
        found = outcome.findings
        failed += not found.clean
        (folder / str(seed) / "explained.txt").write_text(outcome.explain())
        sys.stdout.write(f"seed {seed}: {found}\n")
        if not given.brief:
            for kind, what in found.troubles[:25]:
                sys.stdout.write(f"    {kind}: {what}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{folder}\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
