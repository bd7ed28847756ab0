"""The build hook: it compiles a library, or warns."""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from streamer.compiled import library
from streamer.compiled.build import Compile, _platform

CLIENT = {"clients/web/src": "streamer/web_client"}


class Said:
    """Collects the warnings of a hook."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the sources, with a library of another version."""
    folder = tmp_path / "streamer" / "compiled"
    folder.mkdir(parents=True)
    for path in (*library.SOURCES, Path(library.__file__)):
        shutil.copy(path, folder)
    (folder / "compiled-0123456789ab.so").write_bytes(b"of another version")
    return tmp_path


def run(root: Path) -> tuple[dict[str, Any], list[str]]:
    said = Said()
    build_data: dict[str, Any] = {
        "artifacts": [],
        "force_include": {},
        "pure_python": True,
    }
    hook = Compile(str(root), {}, None, None, "", "wheel", said)  # type: ignore[arg-type]
    hook.initialize("standard", build_data)
    return build_data, said.warnings


def libraries(root: Path) -> list[str]:
    return [path.name for path in (root / "streamer" / "compiled").glob("*.so")]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
def test_the_library_is_named_after_its_sources_and_packaged(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)

    build_data, warnings = run(root)

    name = f"streamer/compiled/{library.LIBRARY.name}"
    tag = build_data.pop("tag")
    assert build_data == {
        "artifacts": [name],
        "force_include": CLIENT,
        "pure_python": False,
    }
    assert re.fullmatch(r"py3-none-(many|musl)?(linux|macosx)_\w+", tag)
    assert warnings == []
    assert libraries(root) == [library.LIBRARY.name]
    assert ctypes.CDLL(str(root / name)).streamer_send_to_all(None, 0, b"", 0) == 0


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_the_build_warns_and_succeeds(
    root: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)

    build_data, warnings = run(root)

    assert build_data == {
        "artifacts": [],
        "force_include": CLIENT,
        "pure_python": True,
    }
    assert [text.partition(":")[0] for text in warnings] == [
        "the C sources are not compiled, Python does the same"
    ]
    assert libraries(root) == []


@pytest.mark.parametrize(
    ("needs", "machine", "tag"),
    [
        (["2.2.5"], 62, "manylinux_2_17_x86_64"),
        (["2.2.5", "2.38", "2.4"], 62, "manylinux_2_38_x86_64"),
        (["2.17"], 183, "manylinux_2_17_aarch64"),
    ],
)
def test_the_tag_names_the_oldest_glibc_that_has_all_functions(
    needs: list[str], machine: int, tag: str
) -> None:
    header = b"\x7fELF".ljust(18, b"\0") + machine.to_bytes(2, "little")
    names = b"\0".join(b"GLIBC_%b" % version.encode() for version in needs)

    assert _platform(header + b"\0" + names) == tag
