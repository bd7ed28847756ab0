"""The architecture page: what it names exists, and it names what exists."""

from __future__ import annotations

import re
from pathlib import Path

import streamer

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "streamer"
PAGE = streamer.__doc__ or ""

# The map shows these as one line: a surface's files are the same in each.
UNLISTED = {"surfaces", "contract", "compiled", "cli", "bench"}


def section(title: str) -> str:
    """Return the text of a section of the page, without its title."""
    parts = re.split(r"^(\S.*)\n=+\n", PAGE, flags=re.M)
    return parts[parts.index(title) + 1]


def modules() -> list[Path]:
    found = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return sorted(
        path
        for path in found
        if not path.stem.startswith("__") and path.parts[0] not in UNLISTED
    )


def test_the_map_names_every_module() -> None:
    words = set(re.findall(r"\w+", section("Packages")))

    assert [it for it in modules() if not words.issuperset(parts(it))] == []


def parts(path: Path) -> tuple[str, ...]:
    return path.with_suffix("").parts


def test_the_map_names_every_package() -> None:
    words = set(re.findall(r"\w+", section("Packages")))

    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - words <= {
        "__pycache__"
    }


def test_a_fast_path_names_its_twin_its_test_and_its_bench() -> None:
    rows = re.findall(
        r"^    (\S.*)\n        path   (.+)\n        twin   (.+)\n"
        r"        test   (.+)\n        bench  (.+)\n",
        section("FAST PATHS"),
        re.M,
    )

    assert len(rows) == len(re.findall(r"^    \S", section("FAST PATHS"), re.M))
    for _, path, _, test, bench in rows:
        assert list(PACKAGE.glob(f"{path.replace('.', '/')}.py")) or list(
            PACKAGE.rglob(path)
        ), path
        assert (ROOT / test).is_file(), test
        assert (ROOT / bench).is_file(), bench


def test_the_glossary_is_short_and_defines_each_word_once() -> None:
    words = re.findall(r"^    (\S+(?:, \S+)*)  +\S", section("Glossary"), re.M)

    assert 20 <= len(words) <= 30
    assert len(set(words)) == len(words)
