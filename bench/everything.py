"""
Runs all scenarios one after the other, at the sizes of ``RESULTS.md``; writes that.

Takes about an hour and a half. ``--quick`` takes some minutes, and shows only that
everything works. A scenario that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from .run import results

__all__ = ["CASES"]

ROOT = Path(__file__).parents[1]
QUICK = 20
"""Sizes are divided by this with ``--quick``."""

# Name of the files, scenario, its options. Servers that need minutes for 10,000 readers
# are compared with fewer; rounds are fewer where nothing is claimed.
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "fanout-ws-1000": ("fanout", {"connections": 1_000}),
    "fanout-ws-10000": (
        "fanout",
        {"connections": 10_000, "peers": "streamer,nchan,centrifugo,floor"},
    ),
    "fanout-sse-1000": (
        "fanout",
        {"connections": 1_000, "transport": "sse", "rounds": 3},
    ),
    "fanout-sse-10000": (
        "fanout",
        {
            "connections": 10_000,
            "transport": "sse",
            "rounds": 3,
            "peers": "streamer,nchan",
        },
    ),
    "fanout-player": (
        "fanout",
        {
            "connections": 1_000,
            "to": "player",
            "rounds": 3,
            "peers": "streamer,nchan,floor",
        },
    ),
    "unicast": (
        "unicast",
        {"connections": 10_000, "peers": "streamer,centrifugo,nchan"},
    ),
    "publish-1": ("publish", {}),
    "publish-100": ("publish", {"batch": 100, "players": 500}),
    "page": ("page", {}),
    "page-304": ("page", {"unchanged": True}),
    "lists-1": ("lists", {"topics": 1}),
    "lists-4": ("lists", {"topics": 4}),
    "lists-16": ("lists", {}),
    "lists-16-304": ("lists", {"ask": "unchanged"}),
    "lists-16-unread": ("lists", {"ask": "unread", "read": True}),
    "lists-100": ("lists", {"topics": 0, "kept": 200, "limit": 100}),
    "lists-filter": ("lists", {"topics": 0, "kept": 10_000, "ask": "filter"}),
    "lists-oldest": ("lists", {"topics": 0, "kept": 10_000, "ask": "oldest"}),
    "grow": ("grow", {}),
    "connect-ws": ("connect", {"connections": 10_000}),
    "connect-sse": (
        "connect",
        {
            "connections": 10_000,
            "transport": "sse",
            "rounds": 3,
            "peers": "streamer,centrifugo,nchan",
        },
    ),
    "storm": ("storm", {"connections": 10_000}),
    "resume": ("resume", {"connections": 1_000, "rounds": 3}),
    "schedule": ("schedule", {"rounds": 1}),
    "mixed": ("mixed", {"connections": 1_000, "rounds": 3}),
    "tail": ("tail", {"connections": 10_000}),
    "shards": ("shards", {}),
    "nodes": ("nodes", {}),
    "workers": ("workers", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.everything")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--quick", action="store_true", help="small, one round")
    parser.add_argument("--to", type=Path, default=results.RESULTS)
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else list(CASES)
    failed = [case for case in chosen if not _run(case, options)]
    results.write(options.out, options.to)
    if failed:
        sys.exit(f"no result: {', '.join(failed)}")


def _run(case: str, options: argparse.Namespace) -> bool:
    scenario, sizes = CASES[case]
    sizes = dict(sizes)
    rounds, seconds = options.rounds, options.seconds
    if options.quick:
        rounds, seconds = 1, 1.0
        sizes.pop("rounds", None)
        if "connections" in sizes:
            sizes["connections"] = max(100, int(str(sizes["connections"])) // QUICK)
    file = options.out / f"{case}.json"
    command = [sys.executable, "-m", f"bench.{scenario}"]
    command += [f"--rounds={rounds}", f"--seconds={seconds:g}", f"--json={file}"]
    command += [f"--html={file.with_suffix('.html')}"]
    command += [f"--png={file.with_suffix('.png')}"]
    for name, value in sizes.items():
        flag = f"--{name.replace('_', '-')}"
        command.append(flag if value is True else f"{flag}={value}")
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        return False
    result = json.loads(file.read_text())
    result["number"] = list(CASES).index(case)
    file.write_text(json.dumps(result, indent=1) + "\n")
    return True


if __name__ == "__main__":
    main()
