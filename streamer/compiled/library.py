"""
The library that `build` compiles from the sources in C beside this module.

Decides its file name and how its functions are loaded. The name contains a digest of
the sources, so a library of another version is never loaded. Knows nothing of the
functions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["LIBRARY", "SOURCES", "find", "is_compiled"]

_FOLDER: Final = Path(__file__).parent

SOURCES: Final = sorted(_FOLDER.glob("*.c"))

_written: Final = b"".join(source.read_bytes() for source in SOURCES)

LIBRARY: Final = _FOLDER / f"compiled-{hashlib.sha256(_written).hexdigest()[:12]}.so"
"""The library's path, if it was compiled."""


def find(name: str, *parameters: str) -> Callable[..., int] | None:
    """
    Return a function of the library that returns a long, or None without a library.

    Args:
        name: The function's name in C.
        parameters: The types of its parameters, as named in `ctypes`.

    """
    try:
        # Some builds of Python lack it.
        import ctypes

        function: Any = getattr(ctypes.CDLL(str(LIBRARY)), name)
    except (ImportError, OSError):
        return None
    function.restype = ctypes.c_long
    function.argtypes = [getattr(ctypes, parameter) for parameter in parameters]
    return function  # type: ignore[no-any-return]


def is_compiled() -> bool:
    """Whether the library is available."""
    return find("streamer_send_to_all") is not None
