"""
Profiles: stacks of a server, sampled by py-spy while it is measured.

The file has the folded format of flame graphs. ``python -m bench.run.stacks FILE``
prints the functions with the most samples.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from streamer.bench.target import Target

__all__ = ["profiled", "top"]

SAMPLES_PER_S = 250
DURATION_S = 600
WARM_UP_S = 2.0
SHOWN = 40
WAITING = ("epoll_wait", "epoll_pwait", "wait4")


@contextlib.contextmanager
def profiled(target: Target, path: Path | None) -> Iterator[None]:
    """Sample the first process of streamer in the block, if there is a path."""
    if path is None or target.name != "streamer" or not target.roots:
        yield
        return
    program = shutil.which("py-spy")
    if program is None:
        sys.exit("py-spy is not installed; to install it: pip install py-spy")
    command = [program, "record", "--pid", str(target.roots[0]), "--native"]
    command += ["--rate", str(SAMPLES_PER_S), "--duration", str(DURATION_S)]
    command += ["--format", "raw", "--output", str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        # It reads the symbols of every library before it takes the first sample.
        time.sleep(WARM_UP_S)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def top(path: Path) -> list[tuple[str, float, float]]:
    """Return functions with their share of samples: their own, and with callees."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if any(name in stack.rpartition(";")[2] for name in WAITING):
            continue
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    total = sum(own.values())
    return [(name, own[name] / total, n / total) for name, n in below.most_common()]


def main() -> None:
    rows = top(Path(sys.argv[1]))
    for name, own, below in sorted(rows, key=lambda row: -row[1])[:SHOWN]:
        sys.stdout.write(f"{own:6.1%} {below:6.1%}  {name}\n")


if __name__ == "__main__":
    main()
