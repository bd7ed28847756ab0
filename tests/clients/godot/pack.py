"""
A Godot project as a pack file, which the engine runs without an editor.

The format is version 2 of ``core/io/file_access_pack.h`` of the engine: a header, the
offsets of all files, the files.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

__all__ = ["pack"]

_MAGIC = b"GDPC"
_FORMAT = 2
_ENGINE = (4, 0, 0)
"""The oldest version that may read it."""
_HEADER_BYTES = 4 + 4 * 4 + 4 + 8 + 16 * 4
_ALIGNMENT = 16


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a pack of files; their names are paths below ``res://``."""
    directory, body = [], b""
    for name, content in files.items():
        path = f"res://{name}".encode()
        path += bytes(-len(path) % 4)
        body += bytes(-len(body) % _ALIGNMENT)
        digest = hashlib.md5(content, usedforsecurity=False).digest()
        directory.append(
            struct.pack("<I", len(path))
            + path
            + struct.pack("<QQ", len(body), len(content))
            + digest
            + struct.pack("<I", 0)
        )
        body += content
    entries = struct.pack("<I", len(directory)) + b"".join(directory)
    base = _HEADER_BYTES + len(entries)
    padding = bytes(-base % _ALIGNMENT)
    header = _MAGIC + struct.pack("<4I", _FORMAT, *_ENGINE)
    header += struct.pack("<IQ", 0, base + len(padding)) + bytes(16 * 4)
    return header + entries + padding + body
