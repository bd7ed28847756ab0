"""What the processes of a test run share."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.assertion import rewrite

from . import warmup


def test_a_module_that_is_no_python_is_left_to_the_collection(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The collection names the file and the line; here the whole run would end."""
    for text in (b"def test(:\n", b"\0", b"# coding: nothing\n"):
        path = tmp_path / "test_broken.py"
        path.write_bytes(text)

        warmup.rewrite_asserts(path, pytestconfig)

        assert not list(rewrite.get_cache_dir(path).glob("*.pyc"))
