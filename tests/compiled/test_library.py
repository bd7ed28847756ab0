"""The library: loaded if it was compiled from these sources, and no other."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest

from streamer.compiled import library

COMPILER = shlex.split(os.environ.get("CC") or "cc")[0]


@pytest.mark.skipif(
    shutil.which(COMPILER) is None, reason=f"there is no C compiler ({COMPILER})"
)
def test_the_library_is_compiled_if_there_is_a_compiler() -> None:
    assert library.is_compiled(), "install the package again: its source has changed"


@pytest.mark.parametrize("content", [None, b"of another machine"])
def test_a_missing_or_invalid_library_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / library.LIBRARY.name
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(library, "LIBRARY", path)

    assert library.find("streamer_send_to_all") is None
    assert not library.is_compiled()
