"""
Ids spelled out: the layout that Python, C and Lua each write by hand.

``ids.json`` was not written by any of them. Each has a test that reads it:
``tests/test_id_vectors.py``, ``tests/compiled/test_entries.py`` and
``tests/store/logs/test_id_vectors.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

__all__ = ["IDS", "INVALID_IDS", "IdVector"]


class IdVector(NamedTuple):
    """One id: the numbers in it, and every spelling of it."""

    what: str
    at_us: int
    offset: int
    tag: int
    stream_id: str
    """The id of the entry's item in the store."""
    uuid: str
    ulid: str
    epoch: int
    """Any epoch, for the cursor."""
    cursor: str

    def __str__(self) -> str:
        return self.what


_document = json.loads(Path(__file__).with_name("ids.json").read_text())

IDS = [IdVector(**fields) for fields in _document["ids"]]
INVALID_IDS: list[tuple[str, str]] = [
    (fields["what"], fields["text"]) for fields in _document["invalid"]
]
