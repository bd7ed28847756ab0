"""
The library that the sources in C beside this become.

Decides what it is called and how a function in it is come by. `build` compiles it with
the package. It is named after the sources that it was compiled from, so one that
belongs to another version is never found. Knows nothing of what is in it.
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
"""Where it is, if it was compiled."""


def find(name: str, *parameters: str) -> Callable[..., int] | None:
    """
    Return a function of the library's that gives a long, None where it has none.

    Args:
        name: What it is called in C.
        parameters: The types of its arguments, as `ctypes` calls them.

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
    """Whether what can be in C is in C here."""
    return find("streamer_send_to_all") is not None
