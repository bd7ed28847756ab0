"""
CPU time of a server's turns: what its event loop does between two waits.

Builds ``turns.c`` on the spot, which is loaded into the server's process. A turn's time
is CPU time of the loop's thread, which other processes on the machine hardly change.
"""

from __future__ import annotations

import hashlib
import mmap
import shutil
import subprocess
from pathlib import Path

from streamer.bench.target import Turns

from ..peers.base import CACHE

__all__ = ["TurnMeter"]

SOURCE = Path(__file__).with_name("turns.c")
TENTHS = 4096
"""As in the source."""


class TurnMeter:
    """
    Measures the turns of one process.

    Args:
        folder: Where the process writes its figures.

    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "turns"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(bytes(8 * (2 + TENTHS)))

    @staticmethod
    def environment(meter: TurnMeter | None) -> dict[str, str]:
        """Return what the environment of the process has to contain."""
        library = None if meter is None else _build()
        if meter is None or library is None:
            return {}
        return {"LD_PRELOAD": str(library), "TURNS_FILE": str(meter._path)}

    def read(self) -> Turns:
        """Return the turns so far."""
        with self._path.open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as numbers:
                number, ns, *tenths = memoryview(bytes(numbers)).cast("Q")
        return Turns(number, ns / 1e9, tuple(tenths))


def _build() -> Path | None:
    """Build the library; return its path, None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = CACHE / "lib" / f"turns-{digest}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        subprocess.run([*command, "-ldl"], check=True)
    return library
