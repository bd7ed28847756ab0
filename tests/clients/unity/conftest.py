"""Programs in C#: the client for Unity, compiled with Mono and run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ...client.conftest import serve_streams, shared_server

__all__ = ["serve_streams", "shared_server"]

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "clients" / "unity"
CORE = sorted((PACKAGE / "Runtime" / "Core").rglob("*.cs"))
UNITY_PART = sorted((PACKAGE / "Runtime" / "Unity").rglob("*.cs"))
PROGRAMS = Path(__file__).parent / "programs"

needs_mono = pytest.mark.skipif(
    not (shutil.which("mcs") and shutil.which("mono")),
    reason="mono-mcs and mono-runtime are not installed",
)

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_cs(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Return a function that compiles sources, once for all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    # With xdist each process has a folder below that of the session.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def compile(
        sources: Sequence[Path], *, defines: Sequence[str] = (), library: bool = False
    ) -> Path:
        digest = hashlib.sha256(repr((sources, defines, library)).encode())
        for source in sources:
            digest.update(source.read_bytes())
        suffix = "dll" if library else "exe"
        compiled = shared / f"streamer-{digest.hexdigest()[:16]}.{suffix}"
        if not compiled.exists():
            own = base / compiled.name
            subprocess.run(
                [
                    "mcs",
                    "-langversion:7",
                    "-warnaserror",
                    f"-target:{'library' if library else 'exe'}",
                    *(f"-define:{name}" for name in defines),
                    "-r:System.dll",
                    "-r:System.Core.dll",
                    f"-out:{own}",
                    *map(str, sources),
                ],
                check=True,
                stdin=subprocess.DEVNULL,
            )
            # Another process may have been as fast; both have made the same.
            own.replace(compiled)
        return compiled

    return compile
