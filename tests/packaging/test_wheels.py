"""What the distributions contain, and what they say of themselves."""

from __future__ import annotations

import email
import re
import shutil
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from streamer.cli import main
from streamer.compiled.library import LIBRARY

from .conftest import ROOT, wheel

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None, reason="no C compiler (cc)"
)


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {*archive.namelist()}


def metadata(path: Path) -> Message:
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def project(folder: Path) -> dict[str, Any]:
    with (folder / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def test_server_and_client_are_released_together() -> None:
    server, client = project(ROOT), project(ROOT / "clients" / "python")

    assert server["version"] == client["version"]
    assert f"{client['name']}=={client['version']}" in server["dependencies"]
    assert (ROOT / "clients/python/LICENSE").read_text() == (
        ROOT / "LICENSE"
    ).read_text()


@pytest.mark.parametrize(
    ("which", "package", "sources"),
    [
        ("server", "streamer", "streamer"),
        ("client", "streamer_client", "clients/python/streamer_client"),
    ],
)
def test_a_wheel_has_its_package_and_nothing_else(
    wheels: dict[str, Path], which: str, package: str, sources: str
) -> None:
    packed = names(wheels[which])

    assert {name.split("/")[0] for name in packed if ".dist-info/" not in name} == {
        package
    }
    left_out = {"streamer/compiled/build.py"}
    written = {
        f"{package}/{path.relative_to(ROOT / sources)}"
        for path in (ROOT / sources).rglob("*")
        if path.suffix in {".py", ".c", ".lua", ".typed", ".html"}
    }
    assert written - left_out <= packed
    assert not left_out & packed
    assert f"{package}/py.typed" in packed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def test_the_server_has_the_web_client(wheels: dict[str, Path]) -> None:
    source = ROOT / "clients" / "web" / "src"
    with zipfile.ZipFile(wheels["server"]) as archive:
        packed = {
            name.removeprefix("streamer/web_client/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("streamer/web_client/")
        }

    written = {
        str(path.relative_to(source)): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file()
    }
    assert packed == written
    assert "index.js" in packed


@needs_compiler
def test_the_server_has_its_library_and_a_tag_for_every_python(
    wheels: dict[str, Path],
) -> None:
    path = wheels["server"]

    assert f"streamer/compiled/{LIBRARY.name}" in names(path)
    assert re.search(r"-py3-none-(manylinux_2_\d+|musllinux_1_\d+|macosx)_", path.name)


def test_without_a_compiler_the_server_is_pure(
    sdists: dict[str, Path], tmp_path: Path
) -> None:
    path = wheel(sdists["server"], tmp_path, CC="false")

    assert path.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names(path))


def test_the_server_depends_on_the_client(wheels: dict[str, Path]) -> None:
    server, client = metadata(wheels["server"]), metadata(wheels["client"])

    needs = f"{client['Name']}=={client['Version']}"
    assert needs in server.get_all("Requires-Dist", [])
    assert server["Requires-Python"] == client["Requires-Python"] == ">=3.11"


@pytest.mark.parametrize("command", ["publish", "tail"])
def test_a_command_that_needs_the_client_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delitem(sys.modules, "streamer.cli.messages", raising=False)
    monkeypatch.setitem(sys.modules, "streamer_client", None)

    result = CliRunner().invoke(main, [command])

    assert result.exit_code == 1
    assert "pip install streamer-client" in result.output
    completing = click.Context(main, resilient_parsing=True)
    assert main.get_command(completing, command) is None


@pytest.mark.parametrize("command", ["serve", "scheduler", "store", "doctor"])
def test_other_commands_do_not_need_the_client(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setitem(sys.modules, "streamer_client", None)

    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
