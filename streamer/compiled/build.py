"""
Compiling what is in C, when the package is built or installed from its source.

A hook of hatchling's, named in ``pyproject.toml``, and no part of what runs. Where
nothing can be compiled that is said, and no failure: the package is complete without.
"""

from __future__ import annotations

import os
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["Compile"]


class Compile(BuildHookInterface[Any]):
    """Makes the sources in C a library beside them, with ``$CC`` or ``cc``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root, "streamer", "compiled")
        # The module stands alone; the package cannot be imported from here.
        names = runpy.run_path(str(folder / "library.py"))
        sources, library = names["SOURCES"], names["LIBRARY"]
        for old in folder.glob("*.so"):
            if old != library:
                old.unlink()
        # What a server has loaded must not change under it.
        fresh = library.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CC") or "cc")
        options = ["-O2", "-shared", "-fPIC", "-o", str(fresh), *map(str, sources)]
        try:
            subprocess.run([*compiler, *options], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"nothing is compiled, all is in Python: {error}")
            return
        fresh.rename(library)
        build_data["artifacts"].append(str(library.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
