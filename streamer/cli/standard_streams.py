"""
The standard streams of a process that was started without them.

Knows file descriptors 0 to 2. If one of them is closed, the next file or socket that
the process opens gets its number, and what is printed goes into that.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["open_standard_streams"]

STANDARD_FDS: Final = (0, 1, 2)


def open_standard_streams() -> None:
    """Open the null device as each standard stream that is closed."""
    for fd in STANDARD_FDS:
        try:
            os.fstat(fd)
        except OSError:
            # The system gives out the lowest number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
