"""
Build hook: compiles the C sources when the package is built or installed from source,
and puts the web client into a wheel.

hatchling calls it, as ``pyproject.toml`` says; it is not part of a wheel. Without a
compiler the build warns and goes on: the package is complete in Python.

The library is loaded with `ctypes` and does not use Python's headers, so one wheel,
``py3-none-manylinux_2_17_x86_64``, serves every Python. Without the library the wheel
is ``py3-none-any``. ``CC=aarch64-linux-gnu-gcc`` builds for another processor,
``CC=false`` builds the pure wheel. Do both from the source distribution, which leaves
the working tree as it is.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

__all__ = ["Compile"]

_MACHINES: Final = {62: "x86_64", 183: "aarch64"}
"""Processors by their number in an ELF file."""

_GLIBC_MIN: Final = 17
"""The glibc 2.x of manylinux2014, below which no supported Python runs."""


class Compile(BuildHookInterface[Any]):
    """Compiles the C sources into a library beside them, with ``$CC`` or ``cc``."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            # A clone serves the web client from its own folder.
            build_data["force_include"]["clients/web/src"] = "streamer/web_client"
        folder = Path(self.root, "streamer", "compiled")
        # The module stands alone; the package cannot be imported from here.
        names = runpy.run_path(str(folder / "library.py"))
        sources, library = names["SOURCES"], names["LIBRARY"]
        for old in folder.glob("*.so"):
            if old != library:
                old.unlink()
        # A library that a running server has loaded must not change.
        fresh = library.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CC") or "cc")
        options = ["-O2", "-shared", "-fPIC", "-o", str(fresh), *map(str, sources)]
        try:
            subprocess.run([*compiler, *options], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(
                f"the C sources are not compiled, Python does the same: {error}"
            )
            return
        fresh.rename(library)
        build_data["artifacts"].append(str(library.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform(library.read_bytes())}"


def _platform(library: bytes) -> str:
    """
    Return the platform tag of a wheel with `library` inside.

    With glibc, the oldest version that has every function that the library calls. With
    anything else, musl or macOS, the platform of this machine (never tried on macOS).
    """
    versions = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library)]
    machine = _MACHINES.get(int.from_bytes(library[18:20], "little"))
    if library.startswith(b"\x7fELF") and versions and machine is not None:
        return f"manylinux_2_{max(_GLIBC_MIN, *versions)}_{machine}"
    here = list(platform_tags())
    musl = (tag for tag in here if tag.startswith("musllinux"))
    return next(musl, here[0])
