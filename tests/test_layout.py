"""
The rooms: who may import whom, and what every module says of itself.

Imports run one way: names <- errors, model, origins, store_url <- config, compiled
<- core <- store, hub <- service <- transports <- surfaces <- components <- app
<- server <- cli.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "streamer"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What is on a floor may import its own room and the floors below, not its neighbours.
FLOORS = [
    {"names"},
    {"errors", "model", "origins", "store_url"},
    {"config", "compiled"},
    {"core"},
    {"store", "hub"},
    {"service"},
    {"transports"},
    {"contract", "metrics"},
    {"surfaces"},
    {"components", "openapi", "asyncapi"},
    {"app"},
    {"server", "workers"},
    {"bench"},
    {"cli"},
    {"__main__"},
]
# Deciding is done without waiting, without a clock, without the store.
PURE = [
    *("core", "hub.py", "names.py", "model.py", "errors.py"),
    *("origins.py", "store_url.py"),
]
IMPURE = {"asyncio", "time", "redis", "hiredis", "socket", "threading", "starlette"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def rooms() -> dict[str, int]:
    return {room: floor for floor, names in enumerate(FLOORS) for room in names}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    """Return the absolute name of a module, or of the package of an `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Return line and absolute name of what a module imports."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*module, alias.name])


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__"} <= rooms().keys()


# A test of each of hundreds of modules would take longer to run than its check.


def test_imports_run_one_way() -> None:
    floors = rooms()

    wrong = [
        f"{name_of(path)}:{line} imports {name}"
        for path in MODULES
        for line, name in imports(path)
        if (room := imported_room(name)) is not None
        and room != room_of(path)
        and floors[room] >= floors[room_of(path)]
    ]

    assert wrong == []


def imported_room(name: str) -> str | None:
    package, _, rest = name.partition(".")
    room = rest.partition(".")[0]
    return room if package == "streamer" and room in rooms() else None


def test_files_do_not_import_each_other_in_a_circle() -> None:
    # Imports under TYPE_CHECKING count: the two files cannot be read apart either.
    files = {module_of(path): path for path in MODULES}
    graph = {
        module: files.keys()
        & {
            name if name in files else name.rpartition(".")[0]
            for _, name in imports(path)
        }
        for module, path in files.items()
    }

    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_surfaces_do_not_import_each_other() -> None:
    for path in (PACKAGE / "surfaces").rglob("*.py"):
        surface = path.relative_to(PACKAGE / "surfaces").parts[0]
        for line, name in imports(path):
            if name.startswith("streamer.surfaces."):
                assert name.split(".")[2] == surface, f"{path}:{line}: {name}"


@pytest.mark.parametrize("room", PURE)
def test_what_decides_knows_neither_clock_nor_loop_nor_store(room: str) -> None:
    found = PACKAGE / room
    for path in found.rglob("*.py") if found.is_dir() else [found]:
        assert not any(
            isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith)
            for node in ast.walk(parsed(path))
        ), path
        for line, name in imports(path):
            assert name.split(".")[0] not in IMPURE, f"{path}:{line}: {name}"


def test_only_the_server_imports_uvicorn() -> None:
    for path in MODULES:
        if path.name != "server.py" and not path.name.endswith("_protocol.py"):
            for line, name in imports(path):
                assert name.split(".")[0] != "uvicorn", f"{path}:{line}"


def test_only_the_store_speaks_to_redis() -> None:
    # What the store refused is told by its exceptions.
    for path in MODULES:
        if room_of(path) != "store":
            for line, name in imports(path):
                assert name.split(".")[0] not in ("redis", "hiredis") or (
                    name.startswith("redis.exceptions.")
                ), f"{path}:{line}: {name}"


def test_every_module_says_what_it_is_about() -> None:
    silent = [
        name_of(path)
        for path in MODULES
        if parsed(path).body and not ast.get_docstring(parsed(path))
    ]

    assert silent == []


def test_every_module_names_what_it_offers() -> None:
    for path in MODULES:
        if path.name not in ("__main__.py", "__init__.py"):
            offered, available = names_of(path)
            assert len(set(offered)) == len(offered), path
            assert set(offered) <= available, path


def names_of(path: Path) -> tuple[list[str], set[str]]:
    """Return the names that a module offers, and those that it has."""
    tree = parsed(path)
    (offered,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [getattr(t, "id", "") for t in node.targets] == ["__all__"]
    ]
    defined = {
        target.id
        for node in tree.body
        for target in (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        if isinstance(target, ast.Name)
    } | {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    }

    imported = {name.rpartition(".")[2] for _, name in imports(path)}
    return offered, defined | imported


def test_every_script_says_what_it_is_about() -> None:
    for path in PACKAGE.rglob("*.lua"):
        # Flags for the store, if there are any, have to be the first line.
        text = path.read_text()
        for flags in ("#!lua flags=allow-oom\n", "#!lua\n"):
            text = text.removeprefix(flags)

        assert text.startswith("-- "), path
        if not path.name.startswith("_"):
            for name in ("KEYS", "ARGV"):
                if f"{name}[" in text:
                    assert re.search(rf"^-- {name} ", text, re.MULTILINE), (path, name)


@pytest.mark.parametrize("folder", ["streamer", "clients", "tests", "bench"])
def test_the_project_stands_alone(folder: str) -> None:
    outside = re.compile(r"\.\./shared\b|/work/(shared|scratch|main)|docs/design\.md")
    for path in (ROOT / folder).rglob("*"):
        # What npm has installed is not ours.
        if "node_modules" in path.parts:
            continue
        if path.suffix in (".py", ".lua", ".md", ".toml", ".ts", ".cs", ".js"):
            if path != Path(__file__):
                assert not outside.search(path.read_text()), path


def test_no_two_scripts_have_the_same_name() -> None:
    names = [path.stem for path in PACKAGE.rglob("*.lua")]

    assert len(set(names)) == len(names)
