"""
The rooms: who may import whom, and what every module says of itself.

Imports run one way: names <- errors, model, origins, store_url <- config, compiled
<- core <- store, hub <- service <- transports <- surfaces <- components <- app
<- server <- cli.
"""

from __future__ import annotations

import ast
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


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of what a module imports."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = [*base, *([node.module] if node.module else [])]
            for alias in node.names:
                yield node.lineno, ".".join([*module, alias.name])


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in MODULES} - {"__init__"} <= rooms().keys()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    floors = rooms()
    room = room_of(path)
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] != "streamer" or len(parts) == 1 or parts[1] not in floors:
            continue
        assert parts[1] == room or floors[parts[1]] < floors[room], (
            f"line {line}: {room} imports {name}"
        )


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
        tree = ast.parse(path.read_text())
        assert not any(
            isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncWith)
            for node in ast.walk(tree)
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


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.read_text().strip()], ids=name_of
)
def test_every_module_says_what_it_is_about(path: Path) -> None:
    tree = ast.parse(path.read_text())

    assert ast.get_docstring(tree)


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.name not in ("__main__.py", "__init__.py")],
    ids=name_of,
)
def test_every_module_names_what_it_offers(path: Path) -> None:
    tree = ast.parse(path.read_text())
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
    assert len(set(offered)) == len(offered)
    assert set(offered) <= defined | imported


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.lua")), ids=name_of)
def test_every_script_says_what_it_is_about(path: Path) -> None:
    # Flags for the store, if there are any, have to be the first line.
    text = path.read_text()
    for flags in ("#!lua flags=allow-oom\n", "#!lua\n"):
        text = text.removeprefix(flags)

    assert text.startswith("-- ")
    if not path.name.startswith("_"):
        for name in ("KEYS", "ARGV"):
            if f"{name}[" in text:
                assert re.search(rf"^-- {name} ", text, re.MULTILINE), name


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
